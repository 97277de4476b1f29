"""How clients agree on a label mapping: what they send, what it costs, and that many are as one."""

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.aggregators.adam import Adam
from fedbbpt.budget import FEDERATION, Budget
from fedbbpt.counting import FINAL, SEARCH, _packed, agree
from fedbbpt.engines.local import Local
from fedbbpt.maths import label_mapping as lm
from fedbbpt.optimizers.es import Es
from fedbbpt.parts import Client, Door, Parts
from fedbbpt.phases import PHASES
from fedbbpt.tasks.classify import Classify
from fedbbpt.testing.toys import CountingBox, MemoryStore
from fedbbpt.types import Batch, Job
from fedbbpt.wrappers.cached import Cached
from fedbbpt.wrappers.metered import Metered

pytest.importorskip("PIL")

from fedbbpt.boxes.image_classifier import ImageClassifier
from fedbbpt.prompts.visual import Visual


def load_toy():
    path = Path(__file__).parent / "cli" / "sightbox.py"
    spec = spec_from_file_location("sightbox_here", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


toy = load_toy()
POINT = np.array([0.2, 0, 0.1, 0, 0, 0.1, 0, 0, 0])
NOTHING = Batch((), np.zeros(0, np.int64))


def batch(count, first=0, kinds=toy.KINDS):
    return Batch(*toy.batch(count, first, kinds))


def holed(images):
    """No answer for a third of all pictures."""
    rows = toy.answer(images)
    rows[np.rint(images.sum(axis=(1, 2, 3)) * 1000).astype(int) % 3 == 0] = np.nan
    return rows


class World:
    """A federation at the moment of counting."""

    def __init__(self, trains, holdouts=None, answer=toy.answer):
        self.box = CountingBox(ImageClassifier(answer, toy.CLASSES, size=toy.SIZE, rows=1))
        self.budget, self.store, self.sent = Budget(10_000), MemoryStore(), []
        prompt = Visual(self.box.vision, "", toy.KINDS)
        self.parts = Parts(
            Es(pairs=1), prompt, Classify(classes=3), Adam(), "distinct", "replay", PHASES
        )
        holdouts = holdouts or [NOTHING] * len(trains)
        names = [f"c{k}" for k in range(len(trains))]
        self.clients = {
            name: Client(name, train, held, NOTHING, self._opens(name))
            for name, train, held in zip(names, trains, holdouts, strict=True)
        }
        self.engine = Local(self.parts, self.clients, self._opens(FEDERATION))

    def _opens(self, name):
        def door(job, phase):
            purse = self.budget.open(phase.purse, name)
            return Door(Metered(Cached(self.box, self.store), purse), purse)

        return door

    def ask(self, phase, arrays, clients):
        updates = self.engine.map(Job(phase, len(self.sent), 1, 0, arrays), clients)
        self.sent.append((phase, updates))
        return updates

    def agree(self, names=None, learned=False, exchanges=None):
        return agree(self.ask, POINT, names or list(self.clients), learned, exchanges)

    def known(self, batch):
        """(N, S) answers, asked of nobody who counts."""
        prompt = replace(self.parts.prompt.render(POINT[None])[0], labels=())
        return self.box.inner([prompt], batch.inputs).embeddings


TRAINS = [batch(11, 0), batch(7, 100), batch(12, 200)]
POOL = TRAINS[0].joined(TRAINS[1]).joined(TRAINS[2])


def plain(world, trains):
    """(counts of each client, best sharpness), in loops."""
    each = [lm.count(world.known(b), b.targets, 3) for b in trains]
    total, losses = sum(each), np.zeros(9)
    for own, b in zip(each, trains, strict=True):
        losses += b.size * lm.losses(world.known(b), b.targets, total - own)
    return each, lm.SHARPNESSES[int(losses.argmin())]


def test_the_mapping_is_that_of_all_counts_and_each_trains_without_its_own():
    world = World(TRAINS)
    found = world.agree()
    each, sharpness = plain(world, TRAINS)
    np.testing.assert_array_equal(found.mapping, sharpness * lm.weights(sum(each)))
    assert sorted(found.own) == ["c0", "c1", "c2"]
    for name, own in zip(found.own, each, strict=True):
        want = sharpness * lm.weights(sum(each) - own)
        np.testing.assert_array_equal(found.own[name], want)
        assert not np.array_equal(found.own[name], found.mapping)
    right = lm.scores(world.known(POOL), found.mapping).argmax(axis=1) == POOL.targets
    assert right.mean() > 0.6


def test_what_leaves_and_what_it_costs():
    world = World(TRAINS)
    world.agree(learned=True)
    phases = [phase for phase, _ in world.sent]
    assert phases == ["count", "sharpen", *["learn"] * lm.STEPS]
    fields = {"count": {"counts"}, "sharpen": {"by_sharpness"}, "learn": set(lm.Slope._fields)}
    for phase, updates in world.sent:
        assert all(set(u.arrays) == fields[phase] == set(_declared(phase)) for u in updates)
        # Each example is asked once and no more.
        assert [u.queries for u in updates] == ([11, 7, 12] if phase == "count" else [0, 0, 0])
        assert [u.weight for u in updates] == [11, 7, 12]
    counts = [u.arrays["counts"] for u in world.sent[0][1]]
    assert all(c.dtype == np.uint32 and c.shape == (3, 12) for c in counts)
    assert [int(c.sum()) for c in counts] == pytest.approx([110_000, 70_000, 120_000], abs=36)
    assert len(world.box.asked) == len(set(world.box.asked)) == 30
    assert world.budget.spent("train") == 30 and world.budget.spent("select") == 0


def _declared(phase):
    return PHASES[phase].sends(None)


def test_after_the_choice_examples_that_were_held_back_count_too():
    held = [batch(4, 300), NOTHING, batch(3, 400)]
    world = World(TRAINS, held)
    found = world.agree(exchanges=FINAL)
    each, sharpness = plain(world, [t.joined(h) for t, h in zip(TRAINS, held, strict=True)])
    np.testing.assert_array_equal(found.mapping, sharpness * lm.weights(sum(each)))
    assert [phase for phase, _ in world.sent] == ["count_all", "sharpen_all"]
    assert world.budget.spent("select") == 37 and world.budget.spent("train") == 0
    assert {p.name for p in SEARCH}.isdisjoint(p.name for p in FINAL)
    assert {p.name for p in (*SEARCH, *FINAL)} <= set(PHASES)


def test_the_order_of_clients_does_not_matter():
    found = [
        World(TRAINS).agree(names, learned=True)
        for names in (["c0", "c1", "c2"], ["c2", "c0", "c1"])
    ]
    assert found[0].mapping.tobytes() == found[1].mapping.tobytes()
    for name, own in found[0].own.items():
        assert own.tobytes() == found[1].own[name].tobytes()


def learned_plainly(mapping, known, targets):
    for _ in range(lm.STEPS):
        mapping = lm.step(mapping, lm.slope(known, targets, mapping))
    return mapping


@pytest.mark.parametrize("answer", [toy.answer, holed], ids=["all", "holes"])
def test_steps_of_many_are_those_of_one_who_has_it_all(answer):
    world = World(TRAINS, answer=answer)
    counted, learned = world.agree(), world.agree(learned=True)
    known = world.known(POOL)
    answered = np.isfinite(known).all(axis=1)
    assert answered.all() == (answer is toy.answer) and answered.sum() > 10
    want = learned_plainly(counted.mapping, known[answered], POOL.targets[answered])
    np.testing.assert_allclose(learned.mapping, want, rtol=1e-3, atol=1e-2)
    # Those who train are scored under the others' counts, which no step has touched.
    for name, own in counted.own.items():
        np.testing.assert_array_equal(learned.own[name], own)
    before, after = (
        -lm.scores(known[answered], m)[np.arange(answered.sum()), POOL.targets[answered]].mean()
        for m in (counted.mapping, learned.mapping)
    )
    assert after < before


def test_examples_without_an_answer_weigh_nothing():
    world = World(TRAINS, answer=holed)
    world.agree(learned=True)
    answered = [int(np.isfinite(world.known(train)).all(axis=1).sum()) for train in TRAINS]
    assert sum(answered) < 30
    for _, updates in world.sent:
        assert [u.weight for u in updates] == answered


def test_a_single_client_has_only_its_own():
    world = World([POOL])
    found = world.agree()
    own = lm.SHARPNESS * lm.weights(lm.count(world.known(POOL), POOL.targets, 3))
    np.testing.assert_array_equal(found.mapping, own)
    np.testing.assert_array_equal(found.own["c0"], own)
    assert world.sent[1][1][0].arrays == {}  # nobody else's counts, so no losses under them


def test_clients_with_nothing_and_with_one_class():
    trains = [NOTHING, batch(5, 0, toy.KINDS[:1]), batch(12, 100)]
    world = World(trains)
    found = world.agree(learned=True)
    total = sum(lm.count(world.known(b), b.targets, 3) for b in trains[1:])
    sharpness = float(found.own["c0"][0, 0] / lm.weights(total)[0, 0])
    np.testing.assert_array_equal(found.own["c0"], np.float32(sharpness) * lm.weights(total))
    assert np.isfinite(found.mapping).all()
    assert [u.weight for u in world.sent[0][1]] == [0, 5, 12]
    assert all(len(u.arrays) for _, us in world.sent for u in us if u.weight)
    # Without the one that has it all, the other classes are unknown, but not impossible.
    assert np.isfinite(found.own["c2"]).all() and np.ptp(found.own["c2"][1:], axis=0).max() == 0


def test_nobody_is_answered():
    world = World(TRAINS, answer=lambda images: np.full((len(images), 12), np.nan))
    found = world.agree(learned=True)
    assert np.ptp(found.mapping) == 0 and np.isfinite(found.mapping).all()
    assert [phase for phase, _ in world.sent] == ["count", "sharpen", "learn"]


def test_counts_of_very_many_examples_are_not_cut_off():
    for most, kind in ((2**32 - 1, np.uint32), (2**32, np.uint64)):
        packed = _packed(np.array([[0, most]]))
        assert packed.dtype == kind and packed.tolist() == [[0, most]]
