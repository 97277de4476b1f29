"""Whole runs under label mappings that the clients count: budget, snapshots, kills, wires."""

import json
import shutil
import sys
import tempfile
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt import api, artefact, finished
from fedbbpt.arrays import decode, wire_bytes
from fedbbpt.checkpoint import load
from fedbbpt.config import resolve
from fedbbpt.errors import BudgetTooSmall, ConfigError, RunDirError
from fedbbpt.maths import label_mapping as lm
from fedbbpt.record import read_lines
from fedbbpt.sharing import share_out, tables
from fedbbpt.types import Picture

pytest.importorskip("PIL")
BOXES = Path(__file__).parent / "cli"


@pytest.fixture(scope="module", autouse=True)
def toy():
    """The module that a config names ``sightbox``."""
    spec = spec_from_file_location("sightbox", BOXES / "sightbox.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "sightbox", module)
        yield module


class Ran:
    """A run in a directory, and what it left there."""

    def __init__(self, out, outcome, split):
        self.out, self.outcome, self.result, self.split = out, outcome, outcome.result, split

    @property
    def prompt(self):
        return (self.out / "prompt" / "prompt.safetensors").read_bytes()

    def events(self, *kinds):
        return [e for e in read_lines(self.out / "events.jsonl") if e["event"] in kinds]

    @property
    def told(self):
        """All that must not depend on threads, wires or kills: numbers, prompt, losses."""
        numbers = {key: value for key, value in self.result.items() if key != "seconds"}
        losses = [(e["phase"], e["round"], e["client"], e["loss"]) for e in self.events("client")]
        return numbers, self.prompt, losses, _without_time(self.events("snapshot", "note"))

    @property
    def state(self):
        arrays, facts = load(self.out / "state")
        return arrays, facts

    def mapping(self, number):
        return decode((self.out / "state" / f"mapping-{number}.safetensors").read_bytes())

    def charged(self, purse="train"):
        """Queries by account."""
        told = Counter()
        for line in read_lines(self.out / "state" / "charges.jsonl"):
            told[line["account"]] += len(line["keys"]) * (line["purse"] == purse)
        return told


def _without_time(events):
    return [{k: v for k, v in event.items() if k != "time"} for event in events]


def make(toy, folder, sites=(12, 9, 15), repeats=1, kinds=None, tests=18, **changes):
    """(config, split) over sites with so many pictures; keys of ``changes`` are dotted."""
    config = resolve({"data": {"train": ""}, **toy.tables(**changes)}, folder)
    held = {
        f"site {k}": repeats * toy.pictures(size, 100 * k, (kinds or {}).get(k, toy.KINDS))
        for k, size in enumerate(sites)
    }
    return config, share_out(config, *tables(held, toy.pictures(tests, 9000)))


def ran(toy, out, **changes):
    config, split = make(toy, out.parent, **changes)
    return Ran(out, api.run(config, out, split=split), split)


@pytest.fixture
def run(toy, tmp_path):
    """(**changes) -> a finished run in a directory of its own."""
    return lambda **changes: ran(toy, Path(tempfile.mkdtemp(dir=tmp_path)) / "out", **changes)


LEARNED = {"prompt__mapping": "learned"}
STATE = {
    "method__name": "fed-bbpt-vision",
    "method__optimizer": {"a": 0.3, "c": 0.3, "draws": 1},
}


# --- the budget ----------------------------------------------------------------------------------


@settings(max_examples=30)
@given(
    budget=st.integers(40, 500),
    sites=st.lists(st.integers(4, 9), min_size=1, max_size=3),
    batch=st.integers(0, 4),
    snapshots=st.integers(1, 6),
    mapping=st.sampled_from(["counts", "learned"]),
    named=st.booleans(),
    repeats=st.integers(1, 2),
    active=st.integers(1, 3),
    cap=st.none() | st.integers(15, 120),
    most=st.sampled_from([3, 1000]),
)
def test_the_budget_is_kept_and_the_last_count_paid(
    toy, budget, sites, batch, snapshots, mapping, named, repeats, active, cap, most
):
    changes = {
        "sites": sites,
        "repeats": repeats,
        "budget__queries": budget,
        "rounds__batch": batch,
        "rounds__max": most,
        "method__snapshots": snapshots,
        "prompt__mapping": mapping,
        "prompt__labels": toy.NAMED if named else {},
        "rounds__clients_per_round": active,
    }
    if cap:
        changes["budget__client_queries"] = cap
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = ran(toy, Path(folder) / "out", **changes)
        except BudgetTooSmall as error:
            # What it says is enough, is.
            done = ran(toy, Path(folder) / "out", **{**changes, "budget__queries": error.needs})
        except ConfigError as error:
            assert "budget.client_queries" in str(error)
            return
        charged, (_, facts) = done.charged(), done.state
        assert sum(charged.values()) == done.result["queries"]["train"]
        assert done.result["queries"]["train"] <= done.result["queries"]["budget"]
        assert max(charged.values()) <= (cap or budget)
        searched = [e for e in done.events("merge") if e["phase"] == "search"]
        assert len(searched) <= most
        # The last snapshot has a mapping of its own, learned if that was wished for.
        maps = facts["maps"]
        assert maps[-1] == facts["counts"]["maps"] and len(searched) > 0
        assert bool(done.mapping(maps[-1])["learned"]) == (mapping == "learned")
        assert maps[-1] not in maps[:-1] and maps[0] == (0 if named else 1)
        assert len(maps) <= snapshots + 2


def test_what_is_enough_is_said(run):
    with pytest.raises(BudgetTooSmall) as caught:
        run(budget__queries=10)
    # 27 examples are counted twice; a step asks two candidates about four of each client's.
    needs = 2 * (9 + 7 + 11) + 3 * 2 * 4
    assert str(caught.value) == (
        "budget.queries is 10, but one step of one round and two counts of all training examples "
        f"cost {needs} queries"
    )
    assert run(budget__queries=needs).result["queries"]["train"] == needs
    with pytest.raises(BudgetTooSmall):
        run(budget__queries=needs - 1)


def test_a_cap_for_each_client_must_pay_what_it_counts(run):
    with pytest.raises(ConfigError) as caught:
        run(budget__client_queries=29)
    assert str(caught.value) == (
        "budget.client_queries is 29, but one step and two counts of its training examples cost "
        "client 'site 2' 30 queries"
    )
    done = run(budget__client_queries=30, method__snapshots=6)
    assert max(done.charged().values()) <= 30 and done.charged()["site 2"] == 30
    assert done.result["stopped"] == "budget"


def test_who_has_no_part_in_a_round_counts_all_the_same(run):
    done = run(rounds__clients_per_round=1, budget__queries=200)
    phases = {}
    for event in done.events("client"):
        phases.setdefault((event["phase"], event["round"]), []).append(event["client"])
    for (phase, _), clients in phases.items():
        assert len(clients) == (1 if phase == "search" else 3)
    assert {phase for phase, _ in phases} >= {"count", "sharpen", "search"}


def test_rounds_are_those_of_the_search(run):
    """And the last snapshot is learned, although it falls on the last round."""
    done = run(**LEARNED, rounds__max=4, method__snapshots=2)
    searched = [e["round"] for e in done.events("merge") if e["phase"] == "search"]
    assert len(searched) == 4 and done.result["stopped"] == "rounds"
    assert done.result["rounds"] > searched[-1] > 20
    arrays, facts = done.state
    assert [bool(done.mapping(n)["learned"]) for n in facts["maps"][-2:]] == [False, True]
    assert arrays["points"][-1].any()


def test_a_search_that_goes_nowhere_keeps_few_snapshots(run, toy, monkeypatch):
    monkeypatch.setattr(toy, "answer", lambda images: np.full((len(images), 12), 1 / 12))
    done = run(**STATE, method__snapshots=3)
    arrays, facts = done.state
    assert not arrays["points"].any() and len(facts["maps"]) <= 4


# --- what is said and what leaves ----------------------------------------------------------------


def test_labels_that_name_no_class_are_noted(run, toy):
    done = run()
    sentence = done.outcome.warnings[0]
    assert sentence.startswith("the start goes by the clients' counts, for 'ape'")
    assert "none of the 12 classes of image_classifier:sightbox" in sentence
    assert [e["sentence"] for e in done.events("note")] == [sentence]
    named = run(prompt__labels=toy.NAMED)
    assert named.events("note") == []
    assert not any("the start goes by" in warning for warning in named.outcome.warnings)


def test_events_say_what_left_each_client(run):
    done = run(**LEARNED)
    told = {phase: [] for phase in ("count", "sharpen", "learn", "search", "count_all")}
    for event in done.events("client"):
        told.setdefault(event["phase"], []).append(event)
    slope = lm.Slope(np.zeros(12), np.zeros(()), np.zeros(3), np.zeros((3, 12), np.float32))
    for phase, arrays in (
        ("count", {"counts": np.zeros((3, 12), np.uint32)}),
        ("count_all", {"counts": np.zeros((3, 12), np.uint32)}),
        ("sharpen", {"by_sharpness": np.zeros(9)}),
        ("learn", slope._asdict()),
        ("search", {"losses": np.zeros((1, 2))}),
    ):
        assert {e["bytes_up"] for e in told[phase]} == {wire_bytes(arrays)}
    # A loss is one of the search.
    assert {e["loss"] is None for e in told["search"]} == {False}
    assert {e["loss"] is None for p in told if p != "search" for e in told[p]} == {True}


# --- the same however it is done -----------------------------------------------------------------


@pytest.mark.parametrize("changes", [LEARNED, STATE | LEARNED], ids=["fedlook", "spsa"])
def test_threads_change_no_bit(run, changes):
    serial, threaded = run(**changes), run(**changes, engine={"threads": 3})
    assert threaded.told == serial.told


def test_a_replayed_search_is_a_sent_one(run):
    ends = [run(**STATE, method__wire=wire) for wire in ("state", "replay")]
    assert ends[0].prompt == ends[1].prompt
    assert ends[0].result["tuned"] == ends[1].result["tuned"]
    arrays = [end.state[0] for end in ends]
    assert arrays[0]["points"].any() and set(arrays[0]) == set(arrays[1])
    for name in arrays[0]:
        if name != "heading":
            np.testing.assert_array_equal(arrays[0][name], arrays[1][name])


class Stop(BaseException):
    """As a kill, but within the test."""


@pytest.mark.parametrize("every", [101, 150, 233])
def test_cut_off_again_and_again_it_is_the_same_and_pays_nothing_twice(
    toy, run, tmp_path, monkeypatch, every
):
    whole = run(**LEARNED)
    answer, asked, total = toy.answer, [], []

    def mortal(images):
        if len(asked) >= every:
            raise Stop
        asked.append(len(images))
        return answer(images)

    monkeypatch.setattr(toy, "answer", mortal)
    config, split = make(toy, tmp_path, **LEARNED)
    out, outcome = tmp_path / "cut", None
    while outcome is None:
        asked.clear()
        begun = (out / "config.toml").is_file()
        try:
            outcome = api.resume(out, split=split) if begun else api.run(config, out, split=split)
        except Stop:
            pass
        total.append(sum(asked))
        assert len(total) < 30
    again = Ran(out, outcome, split)
    assert again.told == whole.told and len(total) > 2
    # Only what was under way in a call is asked again; the largest asks all snapshots.
    most = 18 * len(whole.events("snapshot"))
    assert most < every and sum(total) <= whole.result["queries"]["paid"] + most * (len(total) - 1)
    again = Ran(out, api.resume(out, split=split), split)
    assert again.told == whole.told


def test_a_mapping_that_is_lost(toy, tmp_path):
    done = ran(toy, tmp_path / "out")
    for spoil in (lambda path: path.write_bytes(b"\0" * 99), Path.unlink):
        spoil(done.out / "state" / "mapping-2.safetensors")
        with pytest.raises(RunDirError, match=r"mapping-2.safetensors is lost or damaged"):
            api.resume(done.out, split=done.split)


# --- others than all together --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["local-only", "centralised"])
def test_alone_and_in_one_place(run, name):
    done = run(method__name=name, method__base="fedlook", budget__queries=500, **LEARNED)
    assert done.result["clients"] == (3 if name == "local-only" else 1)
    assert 0 < done.result["queries"]["train"] <= 500
    assert sum("the start goes by the clients' counts" in w for w in done.outcome.warnings) == 1
    each = sorted((done.out / "clients").iterdir()) if name == "local-only" else [done.out]
    for out in each:
        phases = [e["phase"] for e in read_lines(out / "events.jsonl") if e["event"] == "merge"]
        assert phases[0] == "count" and "search" in phases
        assert (out / "prompt" / "prompt.json").is_file()


def test_a_client_with_one_class_only(run, toy):
    done = run(kinds={0: toy.KINDS[:1]}, **LEARNED)
    assert np.isfinite(done.result["tuned"]["loss"])
    own = done.mapping(1)["client.site 0"]
    assert own.shape == (3, 12) and np.isfinite(own).all()


# --- the mappings that are used ------------------------------------------------------------------


def answers(toy, prompt, pictures):
    """(N, S) log-probabilities of prompted pictures, without a box."""
    from PIL import Image

    size = toy.SIZE[::-1]
    fitted = [Image.fromarray(p.pixels).resize(size, Image.Resampling.BILINEAR) for p in pictures]
    images = np.array([np.asarray(image) for image in fitted], np.float32) / np.float32(255)
    if prompt.visual is not None:
        images = prompt.visual.on(images, pictures)
    return np.log(np.maximum(toy.answer(images), 1e-6)).astype(np.float32)


def test_every_snapshot_is_scored_under_its_own_mapping(run, toy):
    done = run(rounds__holdout=0.0, budget__queries=700, method__snapshots=4, **LEARNED)
    arrays, facts = done.state
    (test,) = done.split.test.values()
    prompt = finished.open_run(done.out).prompt
    events = done.events("snapshot")
    assert len(events) == len(facts["maps"]) > 4 and len(set(facts["maps"])) == len(facts["maps"])
    visual = artefact.registry.find("prompts", "visual")
    for event, point, number in zip(events, arrays["points"], facts["maps"], strict=True):
        at = visual.restored({}, {"look": point}) if point.any() else None
        look = type("Prompt", (), {"visual": at})
        scores = lm.scores(answers(toy, look, test.inputs), done.mapping(number)["mapping"])
        own = scores[np.arange(test.size), test.targets]
        assert event["test_loss"] == pytest.approx(-own.mean(), rel=1e-5, abs=1e-7)
        assert event["test_score"] == (scores.argmax(axis=1) == test.targets).mean()
    np.testing.assert_array_equal(prompt.mapping, done.mapping(facts["maps"][-1])["mapping"])
    # While it trained, nobody was scored under its own examples.
    last = done.mapping(facts["maps"][-1])
    assert {key for key in last if key.startswith("client.")} == {
        f"client.site {k}" for k in range(3)
    }
    every = [last[f"client.site {k}"] for k in range(3)]
    assert not any(np.array_equal(own, last["mapping"]) for own in every)


def test_after_the_choice_all_examples_make_the_mapping(run, toy):
    done = run(budget__queries=700)
    prompt = finished.open_run(done.out).prompt
    whole, targets = [], []
    for part in (done.split.train, done.split.holdout):
        for batch in part.values():
            whole.append(answers(toy, prompt, batch.inputs))
            targets.append(batch.targets)
    mine = lm.weights(lm.count(np.concatenate(whole), np.concatenate(targets), 3))
    ratio = prompt.mapping / mine
    # Counts are rounded at each client; a sharpness is one of nine.
    assert min(abs(ratio.mean() / beta - 1) for beta in lm.SHARPNESSES) < 1e-3
    np.testing.assert_allclose(prompt.mapping, ratio.mean() * mine, rtol=2e-3)
    everything = sum(b.size for p in (done.split.train, done.split.holdout) for b in p.values())
    counted = [e for e in done.events("merge") if e["phase"] == "count_all"]
    assert len(counted) == len(set(done.state[1]["maps"]))
    held = sum(b.size for b in done.split.holdout.values())
    snapshots = len(done.state[1]["maps"])
    # Choosing costs the examples that were held back; then all others, once for each mapping.
    assert done.result["queries"]["select"] == snapshots * held + len(counted) * (everything - held)


@pytest.mark.parametrize("form", ["look", "patch", "frame", "coordinator"])
def test_the_artefact_predicts_what_the_run_measured(run, toy, form):
    if form == "coordinator":
        pytest.importorskip("torch")
    options = {"prompt__width": 3} if form == "frame" else {}
    if form == "coordinator":  # it takes its time
        options = {"method__snapshots": 1, "budget__queries": 30, "sites": (3, 4), "tests": 6}
    done = run(prompt__form=form, rounds__holdout=0.0, **options, **LEARNED)
    opened = finished.open_run(done.out)
    assert opened.pictures and opened.classes == toy.KINDS
    assert (opened.prompt.visual is not None) and opened.prompt.mapping.shape == (3, 12)
    (test,) = done.split.test.values()
    found = _predicted(opened, test.inputs)
    right = [p.answer == toy.KINDS[c] for p, c in zip(found, test.targets, strict=True)]
    assert np.mean(right) == done.result["tuned"]["accuracy"] > 1 / 3
    assert done.outcome.predict(test.inputs) == [p.answer for p in found]
    meta = json.loads((done.out / "prompt" / "prompt.json").read_text())
    assert meta["parameters"] == done.state[0]["points"].shape[1]
    assert meta["bytes"] == len(done.prompt)


def _predicted(opened, inputs):
    from fedbbpt.till import Caps, Tills

    tills = Tills(Caps(), lambda *_: None, dict)
    return opened.predictor(tills.open("", 0, True))(inputs)


def test_a_copy_of_the_artefact_needs_nothing_else(run, tmp_path):
    done = run(**LEARNED)
    prompt, _ = artefact.load(done.out / "prompt")
    shutil.copytree(done.out / "prompt", tmp_path / "elsewhere")
    again, _ = artefact.load(tmp_path / "elsewhere")
    assert again.keys == prompt.keys and isinstance(done.split.train["site 0"].inputs[0], Picture)
    assert again.mapping.tobytes() == prompt.mapping.tobytes()
