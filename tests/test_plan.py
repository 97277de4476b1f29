"""The plan of a run against the run itself."""

import json
import math
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api
from fedbbpt.boxes.gateway_http import GatewayHttp
from fedbbpt.boxes.image_classifier import ImageClassifier
from fedbbpt.boxes.openai_http import OpenaiHttp
from fedbbpt.cli.main import main
from fedbbpt.config import read, resolve
from fedbbpt.data.leaks import Private
from fedbbpt.errors import ConfigError
from fedbbpt.plan import plan
from fedbbpt.rehearsal import LENGTH, Rehearsed, cost_of
from fedbbpt.sharing import Split, share_out, tables
from fedbbpt.testing import _fault_http, simulated_llm
from fedbbpt.testing.faults import FaultServer
from fedbbpt.testing.toys import ToyEncoder, toy_box
from fedbbpt.types import Batch, Picture, RenderedPrompt
from fedbbpt.writing import ASK, instructions, proposal, unfit, variation

HELPDESK = Path(str(files("fedbbpt.data") / "helpdesk"))
LABELS = ("access", "cancel", "change", "complaint", "question", "refund")
WORDS = (
    "please kindly now client wants problem money trip bank phone order doctor flight bill late"
).split()
PRICES = {"input": 3.0, "output": 12.0}


def answer(text):
    """Some label for each text; words of the prompt matter."""
    weights = [1 + sum((i + 3) * b for b in text.encode()) % 17 for i in range(len(LABELS))]
    return {f" {lab}": math.log(0.9 * w / sum(weights)) for lab, w in zip(LABELS, weights)}  # noqa: B905


def over_the_wire(url="http://127.0.0.1:9/v1", **changes):
    """A search for words on a few tickets of two clients; nobody listens at the first URL."""
    tree = {
        "data": {"train": "tickets.train.csv", "test": "tickets.test.csv", "test_limit": 30},
        "partition": {"kind": "iid", "clients": 2, "shots": 5},
        "box": {"kind": "openai_http", "url": url, "model": "toy", "prices": PRICES},
        "prompt": {
            "side": "text",
            "template": "A customer writes: {text}\nThe kind of request, in one word:",
            "candidates": len(WORDS),
            "words": WORDS,
        },
        "method": {"name": "fedwords", "snapshots": 4},
        "budget": {"queries": 900},
    }
    tree["method"]["optimizer"] = {"name": "coordinate", "width": 4}
    for path, value in changes.items():
        table, key = path.split("__")
        tree.setdefault(table, {})[key] = value
    return resolve(tree, HELPDESK)


@pytest.fixture
def server(minilm, monkeypatch):
    """A server that bills by the pieces of a real tokenizer and 7 for the form of a chat."""
    make = _fault_http.reply

    def billed(asked, picks):
        reply = make(asked, picks)
        tokens = sum(len(minilm.vocabulary.tokenise(text)) for text in asked.texts)
        return reply | {"usage": {"prompt_tokens": tokens + 7, "completion_tokens": 1}}

    monkeypatch.setattr(_fault_http, "reply", billed)
    with FaultServer(answer) as running:
        yield running


def planned(config, split):
    return plan(config, split=split)


def near(planned, actual):
    return planned == pytest.approx(actual, rel=0.2)


# --- against the run -----------------------------------------------------------------------------


def test_the_demo_takes_the_queries_that_its_plan_says(tmp_path):
    # What a dual encoder is asked does not depend on which one it is.
    config, box = read(HELPDESK / "demo.toml", ["budget.queries=2000"]), ToyEncoder()
    planned = plan(config, box=box)
    result = api.run(config, tmp_path / "run", box=box).result
    assert planned.rounds == result["rounds"] and planned.stopped == result["stopped"]
    for purse in ("train", "select", "evaluation"):
        assert planned.queries[purse] == result["queries"][purse]
    assert planned.queries["asked"] == result["queries"]["paid"]
    assert sum(share.train for share in planned.shares) == result["queries"]["train"]
    assert planned.usd is planned.hours is planned.requests is None


def test_the_most_that_a_run_may_take_is_planned_where_it_may_stop_early():
    never, sure = (
        plan(read(HELPDESK / "demo.toml", ["budget.queries=2000", *more]), box=ToyEncoder())
        for more in ((), ("stop.when=sure", "stop.alpha=0.9"))
    )
    assert sure.queries == never.queries and sure.rounds == never.rounds
    assert sure.stopped == never.stopped == "budget"


SHADES = ("dark", "dim", "light", "bright")


def seen_shades(images):
    """Probabilities of four shades."""
    raised = np.exp(-30 * (images.mean(axis=(1, 2, 3))[:, None] - np.arange(4) / 3) ** 2)
    return raised / raised.sum(axis=1, keepdims=True)


def shaded(count=9):
    """Two clients with pictures of two shades, one of them with fewer."""
    rng, held = np.random.default_rng(0), {}
    for kind, size in (("train", count), ("holdout", 3), ("test", 5)):
        held[kind] = {}
        for name, more in (("a", 0), ("b", 2)):
            targets = np.arange(size - more + (kind != "train")) % 2
            low = 90 + 100 * targets[:, None, None, None]
            pixels = rng.integers(low, low + 60, (len(targets), 12, 10, 3), np.uint8)
            held[kind][name] = Batch(tuple(map(Picture, pixels)), targets)
    return Split(("dim", "light"), held["train"], held["holdout"], held["test"], ("a", "b"))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("fedlook", {}),
        ("fedlook", {"mapping": "counts", "labels": {"dim": "dark", "light": "nothing"}}),
        ("fedlook", {"mapping": "names", "form": "patch"}),
        ("fed-bbpt-vision", {"mapping": "names"}),
        ("label-mapping", {}),
        ("linear-probe", {"side": "image"}),
        ("manual", {"side": "image"}),
    ],
)
def test_pictures_take_the_queries_that_their_plan_says(tmp_path, method, changes):
    if method == "fed-bbpt-vision":
        pytest.importorskip("torch", reason="the coordinator needs torch")
    box = ImageClassifier(seen_shades, SHADES, "shades", size=(16, 16))
    tree = {"data": {"train": ""}, "method": {"name": method}, "prompt": changes}
    config, split = resolve(tree | {"budget": {"queries": 260}}, HELPDESK), shaded()
    planned = plan(config, box=box, split=split)
    outcome = api.run(config, tmp_path / "run", box=box, split=split)
    result = outcome.result
    # Only the answers tell how many steps a probe's fit takes; none of them costs a query.
    assert planned.rounds == result["rounds"] or method == "linear-probe"
    assert planned.stopped == result["stopped"]
    for purse in ("train", "select", "evaluation"):
        assert planned.queries[purse] == result["queries"][purse]
    assert planned.queries["asked"] == result["queries"]["paid"] > 0
    assert sum(share.train for share in planned.shares) == result["queries"]["train"] <= 260


def test_a_run_over_the_wire_takes_what_its_plan_says(server, tmp_path):
    config = over_the_wire(server.url)
    planned = plan(config)
    assert server.requests == 0
    outcome = api.run(config, tmp_path / "run")
    result, sent = outcome.result, outcome.requests
    assert near(planned.queries["train"], result["queries"]["train"])
    assert near(planned.queries["evaluation"], result["queries"]["evaluation"])
    assert near(planned.requests, sent["sent"]) and sent["sent"] == server.requests > 500
    assert near(planned.tokens["prompt"], sent["prompt_tokens"])
    assert near(planned.tokens["completion"], sent["completion_tokens"])
    assert near(planned.usd, result["cost_usd"]) and planned.usd > 0
    assert sum(share.usd for share in planned.shares) == pytest.approx(planned.usd)
    assert planned.requests == sum(share.requests for share in planned.shares)


def test_a_gateway_is_planned_as_the_box_behind_it(gateways, tmp_path):
    far = GatewayHttp(gateways(toy_box()))
    tree = {
        "data": {"train": "tickets.train.csv", "test": "tickets.test.csv", "test_limit": 20},
        "partition": {"kind": "iid", "clients": 2, "shots": 5},
        "prompt": {"template": "It is {label}.", "dim": 4},
        "rounds": {"max": 5},
    }
    config = resolve(tree, HELPDESK)
    planned, outcome = plan(config, box=far), api.run(config, tmp_path / "run", box=far)
    for purse in ("train", "select", "evaluation"):
        assert planned.queries[purse] == outcome.result["queries"][purse]
    assert planned.requests == outcome.requests["sent"] and planned.tokens is None
    assert planned.hours is not None and planned.usd is None


def instructed(follower, writer=None, **changes):
    """A search for an instruction of two clients, and its examples."""

    def box(server, dollars):
        prices = {"input": dollars, "output": 4 * dollars}
        return {"kind": "openai_http", "url": server.url, "model": server.name, "prices": prices}

    prompt = {"instruction": "Do as asked.", "encoder": "ngrams", "dim": 6, "proposals": 4}
    tree = {
        "task": "generate",
        "data": {"train": ""},
        "box": box(follower, 3.0),
        "prompt": prompt,
        # A plan cannot know when a search has found enough.
        "method": {"name": "fedinstruct", "snapshots": 1, "optimizer": {"tolerance": 0.0}},
        "budget": {"queries": 200},
    }
    if writer is not None:
        tree["writer"] = box(writer, 30.0)
    for path, value in changes.items():
        table, key = path.split("__")
        tree[table][key] = value
    config, pool = resolve(tree, HELPDESK), simulated_llm.examples("letters_list", 60, seed=0)
    clients = {"north": pool[:20], "south": pool[20:36]}
    return config, share_out(config, *tables(clients, pool[36:], config.data, task="generate"))


@pytest.fixture(scope="module")
def chats():
    """Two simulated chat models."""
    with (
        simulated_llm.SimulatedLlm(0, "ngrams") as one,
        simulated_llm.SimulatedLlm(1, "ngrams") as other,
    ):
        yield one, other


@pytest.mark.parametrize("own", [False, True], ids=["one model", "a writer beside it"])
def test_instructions_take_what_their_plan_says(chats, tmp_path, own):
    follower, writer = chats[0], chats[1] if own else None
    config, split = instructed(follower, writer)
    before = sum((follower.counts + chats[1].counts).values())
    planned = plan(config, split=split)
    assert sum((follower.counts + chats[1].counts).values()) == before  # nobody was asked
    written = (writer or follower).counts["propose"] + (writer or follower).counts["vary"]
    outcome = api.run(config, tmp_path / "run", split=split)
    result, sent = outcome.result, outcome.requests
    assert (
        near(planned.queries["train"], result["queries"]["train"]) and planned.stopped == "budget"
    )
    for purse in ("select", "evaluation"):
        # The search may end where it began, and then one prompt is asked and not two.
        assert result["queries"][purse] in (planned.queries[purse], planned.queries[purse] // 2)
    assert near(planned.requests, sent["sent"])
    # The simulated model bills nothing for the form of a chat, and has tokens of its own.
    assert planned.tokens["prompt"] == pytest.approx(sent["prompt_tokens"] + 7 * sent["sent"], 0.4)
    assert planned.tokens["completion"] == pytest.approx(sent["completion_tokens"], rel=0.5)
    # What the writer was asked costs ten times as much where it is another model.
    assert planned.usd == pytest.approx(result["cost_usd"], rel=0.5)
    assert sum(share.usd for share in planned.shares) == pytest.approx(planned.usd)
    asked = (writer or follower).counts["propose"] + (writer or follower).counts["vary"] - written
    assert 3 <= asked <= 5 and planned.requests == sum(s.requests for s in planned.shares)


def test_a_writer_s_own_price_and_limits_are_planned(chats):
    one = planned(*instructed(chats[0]))
    dear = planned(*instructed(*chats))
    assert dear.queries == one.queries and dear.tokens == one.tokens and dear.usd > 1.5 * one.usd
    config, split = instructed(*chats, budget__usd=1.0)
    slow = config.writer.model_copy(update={"requests_per_minute": 1, "prices": ""})
    with pytest.raises(ConfigError, match=r"price of .* is not known.*writer\.prices"):
        plan(config.model_copy(update={"writer": slow}), split=split)
    config, split = instructed(*chats)
    slowed = plan(config.model_copy(update={"writer": slow}), split=split)
    assert slowed.usd is None and slowed.hours == pytest.approx(dear.hours + 5 / 60, rel=0.1)


def test_rehearsed_instructions_differ_and_some_are_better_than_others():
    right = {f"input {i}": f"answer {i}" for i in range(200)}
    box = Rehearsed(OpenaiHttp("http://127.0.0.1:9/v1", "toy"), right=right)
    asked = [proposal([("input 1", "answer 1")], 8), variation("Do it.", 8)]
    (written,) = box([RenderedPrompt(ASK, (), "text")], asked).texts
    lines = [line for text in written for line in instructions(text)]
    assert len(set(lines)) == 16 and not any(unfit(line, LENGTH) for line in lines)
    private = Private(list(right), [(one,) for one in right.values()])
    assert not any(map(private.leak, lines))
    prompts = [RenderedPrompt(f"{line}\n{{text}}", (), "text") for line in lines]
    said = box(prompts, list(right)).texts
    shares = [np.mean([a == b for a, b in zip(row, right.values(), strict=True)]) for row in said]
    assert np.ptp(shares) > 0.5 and said == box(prompts, list(right)).texts
    assert {text for row in said for text in row} <= set(right.values())
    (alone,) = box([RenderedPrompt(ASK, (), "text")], [proposal([("a", "b")], 1)]).texts
    assert len(list(instructions(alone[0], whole=True))) == 1


@pytest.mark.parametrize("key", ["usd", "tokens", "client_usd", "client_tokens"])
def test_a_cap_ends_the_rehearsal_where_it_would_end_the_run(key):
    free = plan(over_the_wire())
    most = {"usd": free.usd, "tokens": sum(free.tokens.values())}[key.removeprefix("client_")]
    most *= 0.3 if key.startswith("client") else 0.6
    capped = plan(over_the_wire(**{f"budget__{key}": int(most) if "tokens" in key else most}))
    (cap,) = (cap for cap in capped.caps if cap.key == f"budget.{key}")
    assert cap.binds and 0.5 * most < cap.expected <= most
    assert not any(other.binds for other in capped.caps if other is not cap)
    assert capped.requests < free.requests


def test_a_cap_on_queries_binds_only_where_it_ends_the_search():
    (cap,) = plan(over_the_wire()).caps
    assert cap.key == "budget.queries" and cap.binds and cap.expected <= cap.limit == 900
    (cap,) = plan(over_the_wire(rounds__max=2)).caps
    assert not cap.binds
    whole, each = plan(over_the_wire(budget__client_queries=300)).caps
    assert each.key == "budget.client_queries" and each.binds and each.expected <= 300
    assert not whole.binds


def test_a_cap_that_cannot_pay_for_the_last_pass_is_refused():
    with pytest.raises(ConfigError, match=r"budget\.usd is 0\.0001.*; raise budget\.usd"):
        plan(over_the_wire(budget__usd=0.0001))


def test_a_cap_in_dollars_needs_a_price():
    with pytest.raises(ConfigError, match=r"price of openai_http:toy.* is not known"):
        plan(over_the_wire(budget__usd=1.0, box__prices=""))
    assert plan(over_the_wire(box__prices="")).usd is None


def test_hours_follow_the_tightest_limit():
    free = plan(over_the_wire(box__max_concurrency=1), latency=0.5)
    assert free.hours == pytest.approx(free.requests * 0.5 / 3600)
    many = plan(over_the_wire(box__max_concurrency=8), latency=0.5)
    assert many.hours == pytest.approx(free.hours / 8, rel=0.1)
    minute = plan(over_the_wire(box__requests_per_minute=30), latency=0.5)
    assert minute.hours == pytest.approx(minute.requests / 30 / 60)
    tokens = plan(over_the_wire(box__tokens_per_minute=500), latency=0.5)
    assert tokens.hours == pytest.approx(sum(tokens.tokens.values()) / 500 / 60)
    with pytest.raises(ConfigError, match="--latency is 0"):
        plan(over_the_wire(), latency=0.0)


def test_clients_on_their_own_are_planned_each():
    tree = {
        "data": {"train": "tickets.train.csv", "test": "tickets.test.csv"},
        "prompt": {"template": "It is {label}.", "dim": 4},
        "method": {"name": "local-only"},
        "budget": {"queries": 2000},
    }
    planned = plan(resolve(tree, HELPDESK), box=ToyEncoder())
    desks = ["airline", "bank", "clinic", "shop", "telecom"]
    assert [share.client for share in planned.shares] == desks
    assert planned.queries["train"] == sum(share.train for share in planned.shares) <= 2000
    assert min(share.evaluation for share in planned.shares) > 0


# --- tokens --------------------------------------------------------------------------------------


def test_tokens_are_counted_in_what_is_sent(minilm):
    box = OpenaiHttp("http://127.0.0.1:9/v1", "toy", system="Be brief.", scores="labels")
    prompt = RenderedPrompt("Say: {text}", ("very good", "bad"), side="text")
    body = box.request(prompt, "x" * 44).body
    cost = cost_of(body, prompt.labels, box.most, None)
    assert cost.prompt == round((9 + 5 + 44) / 4.4 + 2 * 4 + 3) and cost.completion == 2
    assert cost_of(body, prompt.labels, 1, None).completion == 1
    other = cost_of(box.request(prompt, "ü" * 44).body, prompt.labels, 9, None)
    assert other.prompt == round((9 + 5) / 4.4 + 44 + 2 * 4 + 3)
    known = cost_of(body, prompt.labels, box.most, minilm.vocabulary)
    tokens = [len(minilm.vocabulary.tokenise(text)) for text in ("Be brief.", "Say: " + "x" * 44)]
    assert known.prompt == sum(tokens) + 2 * 4 + 3


# --- the command ---------------------------------------------------------------------------------


def test_the_command_prints_the_plan(tmp_path, monkeypatch, capsys):
    path = tmp_path / "wire.toml"
    path.write_text(over_the_wire().toml(), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "plan", str(path), "--json", "--latency", "0.5"])
    main_ends_well()
    tree = json.loads(capsys.readouterr().out)
    assert tree == json.loads(json.dumps(plan(over_the_wire(), 0.5).tree()))
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "plan", str(path), "--set", "box.prices="])
    main_ends_well()
    shown = capsys.readouterr().out
    assert f"{tree['queries']['train']} for training" in shown and "dollars   —" in shown
    assert "budget.queries = 900: " in shown and "ends the search" in shown
    assert [path for path in tmp_path.iterdir()] == [path]


def main_ends_well():
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
