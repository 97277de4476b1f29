"""Minibatches: every example in its turn, at a price that is known before, over every wire."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbbpt import api
from fedbbpt.aggregators.adam import Adam
from fedbbpt.aggregators.cma import Cma
from fedbbpt.aggregators.mean import Mean
from fedbbpt.black_box import AtomicBox
from fedbbpt.config import resolve
from fedbbpt.drawing import dearest, drawn, in_turn
from fedbbpt.engines.local import Local
from fedbbpt.maths.softmax import log_softmax
from fedbbpt.optimizers.cmaes import Cmaes
from fedbbpt.optimizers.es import Es
from fedbbpt.optimizers.spsa import Spsa
from fedbbpt.parts import Client
from fedbbpt.prompts.visual import Visual
from fedbbpt.sharing import share_out, tables
from fedbbpt.testing._require import bits, update_bits
from fedbbpt.testing.engines import play_rounds, toy_federation
from fedbbpt.testing.toys import ToyEncoder, toy_batch, toy_box
from fedbbpt.types import Atom, Batch, Grid, Job, Picture, Reply, digest, distinct

METHODS = st.sampled_from(
    [
        (Es(pairs=2), Adam()),
        (Spsa(draws=2), Mean()),
        (Cmaes(popsize=4, covariance="isotropic"), Mean()),
        (Cmaes(popsize=5, covariance="full"), Cma()),
    ]
)
KINDS = st.fixed_dictionaries(
    {
        "directions": st.sampled_from(["distinct", "fixed"]),
        "side": st.sampled_from(["label", "text"]),
        "guard": st.sampled_from(["none", "ratio", "ratio-of-means"]),
        "clients": st.integers(1, 3),
        "size": st.integers(3, 6),
        "make_box": st.sampled_from([toy_box, ToyEncoder]),
    }
)
few = settings(max_examples=25)


def numbered(size, name="ash"):
    batch = Batch(tuple(f"text {i}" for i in range(size)), np.arange(size, dtype=np.int64))
    return Client(name, batch, batch, batch, lambda job, phase: None)


def parts(batch):
    return replace(toy_federation().parts, batch=batch)


def federation(batch, *method, **kind):
    toy = toy_federation(*method, **kind)
    return replace(toy, parts=replace(toy.parts, batch=batch))


def rows(batch, client, round, step=0, steps=1, seed=0):
    """Which examples a step is about; their targets are their places."""
    number = round * steps + step
    return drawn(client.train, client.name, seed, batch, number).targets.tolist()


# --- which examples ------------------------------------------------------------------------------


@given(
    size=st.integers(1, 30),
    batch=st.integers(1, 12),
    steps=st.integers(1, 4),
    skip=st.integers(0, 5),
)
def test_in_an_epoch_no_example_comes_twice(size, batch, steps, skip):
    client, each = numbered(size), []
    length = max(1, size // batch)
    for number in range(skip * length, (skip + 1) * length):
        each.append(rows(batch, client, *divmod(number, steps), steps))
    told = Counter(row for step in each for row in step)
    assert max(told.values()) == 1
    assert all(len(step) == min(batch, size) for step in each)
    # Fewer than a batch are left out.
    assert size - len(told) < min(batch, size)
    assert all(step == sorted(step) for step in each)


def test_what_an_epoch_leaves_out_comes_in_another():
    client = numbered(10)
    told = Counter(row for n in range(2 * 200) for row in rows(4, client, n))
    # 8 of 10 in each of 200 epochs.
    assert sum(told.values()) == 1600 and min(told.values()) > 135 and max(told.values()) < 185
    together = Counter(tuple(rows(4, client, n)) for n in range(400))
    assert max(together.values()) < 12  # of 210


def test_examples_are_drawn_by_address():
    one, other = numbered(40), numbered(40, "birch")
    same = [rows(4, one, 3, seed=1), rows(4, one, 3, seed=1)]
    assert same[0] == same[1]
    # A step of a round is that of a later round with fewer steps.
    assert rows(4, one, 2, 1, steps=3) == rows(4, one, 7)
    apart = [rows(4, one, 3), same[0], rows(4, one, 4), rows(4, other, 3), rows(4, one, 23)]
    assert len({tuple(each) for each in apart}) == 5


@pytest.mark.parametrize("batch", [0, 7, 8])
def test_as_many_as_there_are_is_all_of_them(batch):
    client = numbered(7)
    for each in (
        drawn(client.train, client.name, 0, batch, 5),
        in_turn(client.train, client.name, 0, batch, 0),
        dearest(client.train, batch),
    ):
        assert each is client.train
    nothing = numbered(0)
    assert drawn(nothing.train, nothing.name, 0, batch, 5).size == 0
    assert in_turn(client.train, client.name, 0, batch, 1).size == 0


@given(size=st.integers(1, 30), batch=st.integers(1, 12), seed=st.integers(0, 5))
def test_turns_share_out_every_example_once(size, batch, seed):
    client = numbered(size)
    turns = [in_turn(client.train, client.name, seed, batch, t) for t in range(size + 1)]
    told = [row for turn in turns for row in turn.targets.tolist()]
    assert sorted(told) == list(range(size))
    assert all(turn.size == min(batch, size) for turn in turns[: size // batch])


def test_the_dearest_examples_are_those_that_differ():
    texts = Batch(("a", "a", "a", "b", "a", "c"), np.arange(6, dtype=np.int64))
    client = replace(numbered(6), train=texts)
    assert sorted(dearest(client.train, 3).inputs) == ["a", "b", "c"]
    assert sorted(dearest(client.train, 5).inputs) == ["a", "a", "a", "b", "c"]
    shades = [np.full((4, 4, 3), shade, np.uint8) for shade in (1, 1, 2)]
    pictures = Batch(tuple(map(Picture, shades)), np.arange(3, dtype=np.int64))
    found = dearest(pictures, 2).inputs
    assert {picture.key for picture in found} == {picture.key for picture in pictures.inputs}


# --- what they cost ------------------------------------------------------------------------------


@few
@given(
    method=METHODS,
    kind=KINDS,
    directions=st.sampled_from(["distinct", "shared", "fixed"]),
    batch=st.integers(1, 4),
    repeats=st.booleans(),
)
def test_the_setup_foretells_what_any_step_costs(method, kind, directions, batch, repeats):
    toy = federation(batch, *method, **{**kind, "directions": directions})
    if repeats:  # the same text again and again
        for name, client in toy.clients.items():
            train = client.train.joined(client.train.take([0, 0]))
            toy.clients[name] = replace(client, train=train)
    engine = Local(toy.parts, toy.clients, toy.federation)
    told = {u.client: u.arrays for u in engine.map(Job("setup", 0, 1, 0), list(toy.clients))}
    assert toy.box.calls == 0
    most = Counter()
    for number, played in enumerate(play_rounds(toy, Local, 6)):
        for update in played.updates:
            own = told[update.client]
            assert update.queries <= own["step"] + own["once"] * (number == 0)
            most[update.client] = max(most[update.client], update.queries)
    if not repeats:
        for name, own in told.items():
            # Nor is it far too much: some step takes it all, or nearly.
            assert most[name] >= 0.7 * own["step"]


@pytest.mark.parametrize("directions", ["shared", "distinct"])
@pytest.mark.parametrize("template", ["It was {label}.", "{text} All in all it was"])
def test_a_run_in_minibatches_goes_on_to_the_end_of_its_budget(tmp_path, template, directions):
    """Where texts are paid once, later steps still meet some for the first time."""
    sites = {}
    for seed, name in enumerate(("ash", "birch")):
        batch = toy_batch(24, seed=seed)
        named = [("bad", "good")[c] for c in batch.targets]
        sites[name] = list(zip(batch.inputs, named, strict=True))
    if "{text}" in template and directions == "shared":
        directions = "fixed"
    side = "text" if "{text}" in template else "label"
    tree = {
        "data": {"train": ""},
        "prompt": {"template": template, "side": side, "dim": 4},
        "method": {"directions": directions, "optimizer": {"name": "es", "pairs": 2}},
        "rounds": {"batch": 3, "max": 1000},
        "budget": {"queries": 400},
    }
    config = resolve(tree, tmp_path)
    split = share_out(config, *tables(sites, ()))
    outcome = api.run(config, tmp_path / "out", box=ToyEncoder(), split=split)
    told = outcome.result
    assert told["stopped"] == "budget" and 360 < told["queries"]["train"] <= 400
    assert told["rounds"] > 12


# --- over every wire -----------------------------------------------------------------------------


def threaded(parts, clients, federation):
    return Local(parts, clients, federation, threads=4)


def ends(played):
    return [bits((each.server.state, each.server.memory)) for each in played]


@few
@given(method=METHODS, kind=KINDS, batch=st.integers(1, 5), steps=st.integers(1, 3))
def test_a_replayed_round_has_the_bits_of_a_sent_one(method, kind, batch, steps):
    played = [
        play_rounds(federation(batch, *method, wire=wire, **kind), make, 3, steps)
        for wire, make in (("replay", Local), ("state", Local), ("replay", threaded))
    ]
    assert ends(played[0]) == ends(played[1]) == ends(played[2])
    told = [[update_bits(u) for p in each for u in p.updates] for each in (played[0], played[2])]
    assert told[0] == told[1]


@pytest.mark.parametrize("guard", ["ratio", "ratio-of-means"])
@pytest.mark.parametrize("side", ["label", "text"])
def test_companions_are_those_of_the_batch(guard, side):
    toy = federation(2, side=side, guard=guard, clients=1, size=6)
    asked = []
    split = toy.box.split

    def listening(prompts, examples):
        asked.append(tuple(examples))
        return split(prompts, examples)

    toy.box.split = listening
    client = next(iter(toy.clients.values()))
    play_rounds(toy, Local, 3)
    assert len(asked) == 3
    for number, examples in enumerate(asked):
        batch = drawn(client.train, client.name, 0, toy.parts.batch, number)
        assert examples[:2] == batch.inputs and len(examples) == 4
        assert set(examples[2:]).isdisjoint(client.train.inputs)


def test_candidates_of_a_step_are_compared_on_the_same_examples():
    """And other steps are about other examples: the losses of one point differ."""
    toy = federation(2, Es(pairs=1, sigma=1e-9), Mean(), side="text", clients=1, size=8)
    losses = [p.updates[0].arrays["losses"][0] for p in play_rounds(toy, Local, 4)]
    assert all(np.ptp(pair) < 1e-6 for pair in losses)
    assert np.ptp([pair[0] for pair in losses]) > 1e-3


# --- pictures ------------------------------------------------------------------------------------


class Sees(AtomicBox):
    """A dual encoder of pictures: texts of classes and prompted pictures are its atoms."""

    name, accepts, sides = "sees", frozenset({"image"}), frozenset({"image"})
    gives, steady = frozenset({"scores"}), True

    def split(self, prompts, examples):
        def atom(visual, x):
            return Atom(digest(visual.key if visual else b"", x.key), (visual, x))

        texts = [Atom(digest(label), label) for p in prompts for label in p.labels]
        seen = [atom(p.visual, x) for p in prompts for x in examples]
        seen += [] if prompts else [atom(None, x) for x in examples]
        atoms = distinct([*texts, *seen])

        def assemble(rows):
            row = {a.key: r for a, r in zip(atoms, rows, strict=True)}
            shape = (len(prompts), len(examples), 1)
            shades = np.array([row[a.key] for a in seen]).reshape(shape)
            return Reply(log_softmax(np.concatenate([shades, -shades], axis=2)))

        return Grid(atoms, assemble)

    def evaluate(self, atoms, wanted):
        return [self._row(atoms[i].data) for i in wanted]

    def _row(self, data):
        if isinstance(data, str):
            return np.zeros(1)
        visual, picture = data
        images = picture.pixels[None].astype(np.float32) / np.float32(255)
        return np.array([(images if visual is None else visual.on(images, [picture])).mean()])


class Eye:
    size, std = (4, 4), (1.0, 1.0, 1.0)


@settings(max_examples=15)
@given(
    method=METHODS,
    directions=st.sampled_from(["distinct", "shared"]),
    batch=st.integers(0, 5),
    wire=st.sampled_from(["replay", "state"]),
)
def test_the_setup_foretells_what_prompted_pictures_cost(method, directions, batch, wire):
    """Texts of classes are paid once, prompted pictures in every step."""
    toy = federation(batch, *method, directions=directions, wire=wire, make_box=Sees)
    prompt = Visual(Eye(), "a {label}", ("dark", "bright"), form="patch", waves=2, eps=0.3)
    toy = replace(toy, parts=replace(toy.parts, prompt=prompt))
    for k, (name, client) in enumerate(toy.clients.items()):
        numbers = np.random.default_rng(k)
        shades = [numbers.integers(0, 256, (4, 4, 3), np.uint8) for _ in range(5)]
        train = Batch(tuple(map(Picture, shades)), np.arange(5, dtype=np.int64) % 2)
        toy.clients[name] = replace(client, train=train)
    engine = Local(toy.parts, toy.clients, toy.federation)
    told = {u.client: u.arrays for u in engine.map(Job("setup", 0, 1, 0), list(toy.clients))}
    optimizer = toy.parts.optimizer
    candidates = len(optimizer.ask(optimizer.init(prompt.space), np.random.default_rng(0)))
    candidates += toy.parts.aggregator.loss
    for own in told.values():
        assert own["step"] == candidates * (batch or 5)
        assert own["once"] == (0 if directions == "shared" else 2) and own["common"] == 2
    for number, played in enumerate(play_rounds(toy, Local, 4)):
        for update in played.updates:
            own = told[update.client]
            assert update.queries <= own["step"] + own["once"] * (number == 0)
            assert number or update.queries >= 0.7 * own["step"]
