"""When it is enough: the rule keeps its word, the search does not know of it, nor does a kill."""

import signal
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import api, result
from fedbbpt.cli.show import tell
from fedbbpt.config import resolve
from fedbbpt.errors import ConfigError, Incompatible
from fedbbpt.maths.betting import log_wealth
from fedbbpt.maths.signs import chance
from fedbbpt.random import stream
from fedbbpt.sharing import share_out, tables
from fedbbpt.stopping import BETTER, SHORT, Look, Rule, early
from fedbbpt.testing.toys import ToyEncoder, toy_batch
from fedbbpt.types import Update

RULE = Rule(4, 0.05)


def load_kit():
    path = Path(__file__).parent / "cli" / "helpers.py"
    spec = spec_from_file_location("run_helpers", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kit = load_kit()


# --- the rule ------------------------------------------------------------------------------------


def told(name, gained, short):
    counts = np.array([(gained > 0).sum(), (gained < 0).sum()])
    return Update(name, 0, len(gained), {BETTER: counts, SHORT: log_wealth(short)})


def said(number, gained, short):
    return RULE.judge(number, [told("one", gained, short)])


def seen(rng, examples, looks, drift):
    """(looks, examples) differences of right answers: each look changes some since the last."""
    flips = rng.random((looks, examples)) < 0.15
    drawn = rng.choice([-1.0, 0.0, 1.0], (looks, examples), p=[0.2 - drift, 0.6, 0.2 + drift])
    rows = [np.zeros(examples)]
    for flip, fresh in zip(flips | (np.arange(looks) == 0)[:, None], drawn, strict=True):
        rows.append(np.where(flip, fresh, rows[-1]))
    return rows[1:]


@pytest.mark.parametrize("examples", [12, 40, 200])
def test_it_is_wrong_no_more_often_than_it_may_be(examples):
    """Prompts that are no better, and prompts that are just good enough, at looks that share all
    their examples; the first that stops counts.
    """
    rng, runs, wrong = stream(1, "level", examples), 2000, {"improved": 0, "hopeless": 0}
    for _ in range(runs):
        level = seen(rng, examples, RULE.looks, 0.0)
        # At the border of hopeless the mean of what is bet on is 0 as well.
        looks = [said(k, gains, gains) for k, gains in enumerate(level, 1)]
        wrong["improved"] += any(look.improved >= look.improved_at for look in looks)
        wrong["hopeless"] += any(look.hopeless >= (look.hopeless_at or 99) for look in looks)
    assert max(wrong.values()) <= RULE.alpha * runs


def test_it_finds_out_what_is_so():
    rng = stream(1, "power")
    for _ in range(20):
        better = seen(rng, 400, RULE.looks, 0.15)
        assert any(said(k, g, -g).stopped == "improved" for k, g in enumerate(better, 1))
        looks = [said(k, -g, g) for k, g in enumerate(better, 1)]
        assert [look.stopped for look in looks[:2]] == ["", ""]  # half is waited for
        assert "hopeless" in [look.stopped for look in looks[2:]]


def test_looks_are_counted_and_their_price_is_the_number_of_them():
    turns, made = [], 0
    for done in np.arange(0, 1.001, 0.01):
        number = RULE.turn(float(done), made)
        turns += [(number, round(float(done), 2))] * bool(number)
        made = number or made
    assert turns == [(1, 0.2), (2, 0.4), (3, 0.6), (4, 0.8)]
    assert RULE.turn(0.65, 1) == 3  # the second was missed
    assert RULE.turn(1.0, 3) == 0  # nothing is left to be saved
    late = [look.hopeless_at for look in (said(k, np.zeros(1), np.zeros(1)) for k in range(1, 5))]
    assert late == [None, None, pytest.approx(np.log10(40)), pytest.approx(np.log10(40))]
    # Over all looks, wrong ones have at most alpha between them.
    for looks in range(1, 9):
        rule = Rule(looks, 0.05)
        each = [rule.judge(k, []) for k in range(1, looks + 1)]
        assert sum(10**-one.improved_at for one in each) <= 0.05 + 1e-12
        assert sum(10**-one.hopeless_at for one in each if one.hopeless_at) <= 0.05 + 1e-12
        assert not any(one.stopped for one in each)  # nobody answered


def test_clients_add_up():
    gains = [np.array([1.0, -1.0, 1.0]), np.array([0.5, 0.0])]
    away = Update("away", 0, 0.0)
    both = RULE.judge(3, [*(told(str(k), g, -g) for k, g in enumerate(gains)), away])
    one = said(3, np.concatenate(gains), -np.concatenate(gains))
    assert (both.clients, both.examples, both.better, both.worse) == (2, 5, 3, 1)
    assert both[3:] == pytest.approx(one[3:])
    assert 10**-both.improved == pytest.approx(chance(3, 1)) == pytest.approx(5 / 16)
    assert Look(1, 1, 1, 1, 1, 0, 2.0, 2.0, 1.0, 1.0).stopped == "improved"


# --- whole runs ----------------------------------------------------------------------------------


def pairs(size, seed):
    batch = toy_batch(size, 2, seed)
    return [(x, ("bad", "good")[t]) for x, t in zip(batch.inputs, batch.targets, strict=True)]


START = {"bad": "great", "good": "awful"}
BAD = {"labels": START}
LATE = {"prompt": BAD, "stop": {"alpha": 1e-3}}
WILD = {"aggregator": {"name": "adam", "lr": 30.0, "averaging": 0.0}}


def prepared(folder, **sections):
    """(config, split) of four clients; whatever is tried first is the wrong way round."""
    tree = {
        "method": {"name": "fedes"},
        "data": {"train": ""},
        "prompt": {"template": "It was {label} .", "dim": 8},
        "rounds": {"max": 40},
        "budget": {"queries": 10_000},
        "stop": {"when": "sure"},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    config = resolve(tree, folder)
    clients = {f"site {i}": pairs(100, i) for i in range(4)}
    return config, share_out(config, *tables(clients, pairs(40, 99), config.data))


def run(out, **sections):
    config, split = prepared(out.parent, **sections)
    return api.run(config, out, box=ToyEncoder(), split=split)


def test_a_search_that_has_surely_helped_ends_with_the_prompt_that_was_tested(
    tmp_path, monkeypatch
):
    whole = run(tmp_path / "whole", prompt=BAD, stop={"when": "never"})
    monkeypatch.setattr(result, "choose", lambda *_: 0)  # it has no say
    short = run(tmp_path / "short", prompt=BAD)
    assert (whole.result["stopped"], short.result["stopped"]) == ("rounds", "improved")
    *before, last = kit.events(short.path, "look")
    assert [look["number"] for look in (*before, last)] == [*range(1, len(before) + 2)]
    assert all(look["improved"] < look["improved_at"] for look in before)
    assert last["improved"] >= last["improved_at"] and last["examples"] == 100
    kept = kit.events(short.path, "snapshot")
    assert [one["chosen"] for one in kept] == [False] * (len(kept) - 1) + [True]
    assert kept[-1]["round"] == last["round"] == short.result["rounds"]
    assert short.result["tuned"]["accuracy"] > short.result["baseline"]["accuracy"]
    assert not kit.events(whole.path, "look")


@pytest.mark.parametrize("side", ["label", "text"])
def test_the_search_does_not_know_that_somebody_looks(tmp_path, side):
    """To the bit; and a look asks for nothing that the selection does not ask for anyway."""
    where = {"side": side, "template": "It was {label} ." if side == "label" else "So {text}"}
    prompt = {**where, **BAD}
    whole = run(tmp_path / "whole", prompt=prompt, stop={"when": "never"})
    looked = run(tmp_path / "looked", prompt=prompt, stop={"alpha": 1e-300})
    assert len(kit.events(looked.path, "look")) >= 3  # a round may be too large for all of them
    assert kit.losses(looked.path) == kit.losses(whole.path)
    assert kit.prompt(looked.path) == kit.prompt(whole.path)
    counted = [{**one.result, "seconds": 0} for one in (whole, looked)]
    assert counted[0] == counted[1]


def test_a_search_that_does_not_help_is_given_up_after_half_of_its_budget(tmp_path, capsys):
    outcome = run(tmp_path / "out", method=WILD)
    looks = kit.events(outcome.path, "look")
    assert outcome.result["stopped"] == "hopeless"
    assert [look["hopeless_at"] is None for look in looks] == [True, True, False]
    assert looks[0]["hopeless"] > np.log10(40)  # it was clear long before
    assert 20 <= outcome.result["rounds"] < 40
    assert outcome.result["tuned"] == outcome.result["baseline"]
    tell(outcome)
    words, said = early(outcome.result), capsys.readouterr().out
    assert words in said and "(stopped by: hopeless)" in said
    assert "no improvement in sight" in words and "of 10,000 queries" in words


def test_a_run_that_stopped_does_nothing_more(tmp_path):
    outcome = run(tmp_path / "out", prompt=BAD)
    _, split = prepared(tmp_path, prompt=BAD)
    again = api.resume(outcome.path, box=ToyEncoder(), split=split)
    assert {**again.result, "seconds": 0} == {**outcome.result, "seconds": 0}
    numbers = [look["number"] for look in kit.events(again.path, "look")]
    assert numbers == sorted({*numbers}) and numbers


CHILD = """
import os, signal, sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
spec = spec_from_file_location("stopping_runs", sys.argv[1])
tests = module_from_spec(spec)
spec.loader.exec_module(tests)
from fedbbpt.books import Books
save, out = Books.save, Path(sys.argv[2])

def dies(books):
    if books.counts.looks == int(sys.argv[3]):  # it was looked, and nothing of it is on disk
        os.kill(os.getpid(), signal.SIGKILL)
    save(books)

Books.save = dies
if (out / "config.toml").exists():
    tests.api.resume(out, box=tests.ToyEncoder(), split=tests.prepared(out.parent)[1])
else:
    tests.run(out, **tests.LATE)
"""


def test_killed_at_its_looks_it_is_the_run_that_nobody_disturbed(tmp_path):
    peace = run(tmp_path / "peace", **LATE)
    looks, out = len(kit.events(peace.path, "look")), tmp_path / "war"
    assert looks > 1 and peace.result["stopped"] == "improved"
    for number in range(1, looks + 1):
        asked = [sys.executable, "-c", CHILD, __file__, out, str(number)]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        assert done.returncode == -signal.SIGKILL, done.stderr
    _, split = prepared(tmp_path, **LATE)
    war = api.resume(out, box=ToyEncoder(), split=split)
    ours, theirs = ({**one.result, "seconds": 0} for one in (peace, war))
    assert theirs == ours
    assert kit.events(war.path, "look") == kit.events(peace.path, "look")
    assert kit.prompt(war.path) == kit.prompt(peace.path)
    assert kit.losses(war.path) == kit.losses(peace.path)


@pytest.mark.parametrize("shields", [{"mask": {}}, {"clip": {"norm": 5.0}}], ids=str)
def test_behind_shields_it_sees_a_sum_or_what_it_may(tmp_path, shields):
    outcome = run(tmp_path / "out", prompt=BAD, shields=shields)
    (last,) = kit.events(outcome.path, "look")[-1:]
    assert last["clients"] == (1 if "mask" in shields else 4) and last["examples"] == 100
    plain = kit.events(run(tmp_path / "plain", prompt=BAD).path, "look")[0]
    first = kit.events(outcome.path, "look")[0]
    if "mask" in shields:  # the sum of the same numbers, rounded
        assert first["improved"] == pytest.approx(plain["improved"], abs=1e-4)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"rounds": {"holdout": 0.0}}, "rounds.holdout is 0"),
        ({"method": {"name": "manual"}}, "manual is none"),
        ({"method": {"name": "local-only", "base": "fedes"}}, "one for each client"),
        ({"method": {"aggregator": {"name": "median"}}}, "for clients that lie"),
        (
            {"shields": {"clip": {"norm": 1.0}, "noise": {"epsilon": 8.0}}},
            "behind the shield noise",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_sure_is_refused_in_a_sentence(tmp_path, sections, words):
    with pytest.raises(Incompatible, match=words) as refused:
        run(tmp_path / "out", **sections)
    assert "stop.when" in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [("when", "soon"), ("alpha", 0), ("alpha", 1.5), ("looks", 0), ("worth", 0.2), ("often", 3)],
)
def test_a_wrong_key_is_named(tmp_path, key, value):
    with pytest.raises(ConfigError, match=f"stop.{key}"):
        prepared(tmp_path, stop={key: value})
