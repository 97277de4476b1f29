"""examples/tiny.py and the package play the same federation, to the bit.

Both do the same operations on arrays of the same shapes in the same order, so there is nothing
for rounding to tell apart; whichever side changes a formula, or only its order, shows up here.
"""

import ast
import importlib.util
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.aggregators.adam import Adam
from fedbbpt.boxes.function import Function
from fedbbpt.budget import FEDERATION, Budget
from fedbbpt.engines.local import Local
from fedbbpt.optimizers.es import Es
from fedbbpt.parts import Client, Door, Parts
from fedbbpt.phases import PHASES
from fedbbpt.prompts.soft import Soft
from fedbbpt.random import stream
from fedbbpt.round import Server, play
from fedbbpt.tasks.classify import Classify
from fedbbpt.types import Batch, Job, Reply, Space
from fedbbpt.wrappers.metered import Metered

SCRIPT = Path(__file__).parents[2] / "examples" / "tiny.py"


def load():
    """tiny.py as a module, though it lies in no package."""
    spec = importlib.util.spec_from_file_location("tiny", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load()


class Words:
    """The toy model's vocabulary: nothing but the words of its manual prompt."""

    hidden, std = tiny.HIDDEN, 1.0

    def tokenise(self, text):
        return list(range(len(text.split())))

    def embed(self, ids):
        return tiny.MANUAL[ids]


def answer(prompts, notes):
    """tiny's black box, asked the way the package asks."""
    return tiny.black_box([p.soft[0] for p in prompts], np.array(notes))


def soft():
    """tiny's prompt: embeddings put in front of the class word, starting at the manual prompt's."""
    return Soft(
        Words(),
        "{label}",
        [f"class {c}" for c in range(tiny.CLASSES)],
        mode="insert",
        tokens=tiny.WORDS,
        init="note is about",
        dim=tiny.DIM,
        sigma=tiny.SIGMA,
        seed=tiny.SEED,
    )


def batch(notes, labels):
    return Batch(tuple(notes), labels)


class Federation:
    """tiny's five clinics out of the package's parts."""

    def __init__(self, clinics, threads=1, wire="replay"):
        self.parts = Parts(
            optimizer=Es(pairs=tiny.PAIRS, sigma=tiny.SIGMA, lr=1.0),
            prompt=soft(),
            task=Classify(),
            aggregator=Adam(lr=tiny.LR, beta1=0.9, beta2=0.99, eps=1e-8, averaging=0.0),
            directions="shared",
            wire=wire,
            phases=PHASES,
        )
        self.box = Function(answer, name="tiny", accepts=("soft",), vocabulary=Words())
        self.budget = Budget(limit=10**6)
        none = batch([], np.zeros(0, np.int64))
        clients = {
            name: Client(name, batch(*own), none, none, partial(self.door, name))
            for name, own in clinics.items()
        }
        self.engine = Local(self.parts, clients, partial(self.door, FEDERATION), threads)

    def door(self, account, job, phase):
        purse = self.budget.open(phase.purse, account)
        return Door(Metered(self.box, purse), purse)

    def rounds(self, count):
        """Every round as played."""
        state = self.parts.optimizer.init(self.parts.prompt.space)
        server = Server(0, state, self.parts.aggregator.init(state))
        for _ in range(count):
            job = Job("search", server.round, 1, tiny.SEED)
            played = play(self.parts, self.engine, server, job, list(self.engine.clients))
            server = played.server
            yield played


@pytest.fixture(scope="module")
def clinics():
    return {name: tiny.draw(name, size, evenness=0.5) for name, size in tiny.CLINICS.items()}


@pytest.fixture(scope="module")
def twin(clinics):
    """tiny's rounds: (point after the round, what every clinic sent)."""
    point, memory, rounds = np.zeros(tiny.DIM), (np.zeros(tiny.DIM), np.zeros(tiny.DIM)), []
    for number in range(tiny.ROUNDS):
        point, memory, updates = tiny.play(number, point, memory, clinics)
        rounds.append((point, updates))
    return rounds


# --- part by part --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        (0, "search"),
        (3, "search", 7),
        (1, "notes", 0, "graz"),
        (2, "x", 4, "", 9),
        (5, "x", 1, "é"),
    ],
)
def test_the_same_address_gives_the_same_numbers(address):
    np.testing.assert_array_equal(tiny.stream(*address).random(9), stream(*address).random(9))


def test_points_are_rendered_alike():
    points = np.random.default_rng(0).standard_normal((10, tiny.DIM))
    rendered = [prompt.soft[0] for prompt in soft().render(points)]
    np.testing.assert_array_equal(tiny.render(points), rendered)


@pytest.mark.parametrize(("pairs", "sigma"), [(1, 1.0), (5, 0.3), (7, 2.5)])
def test_the_search_is_es(monkeypatch, pairs, sigma):
    monkeypatch.setattr(tiny, "PAIRS", pairs)
    monkeypatch.setattr(tiny, "SIGMA", sigma)
    es, rng = Es(pairs=pairs, sigma=sigma), np.random.default_rng(1)
    state = es.init(Space("real", (tiny.DIM,)))
    state = state._replace(mean=rng.standard_normal(tiny.DIM))
    points = es.ask(state, stream(tiny.SEED, "search", 4))
    np.testing.assert_array_equal(tiny.ask(state.mean, 4), points)
    losses = rng.random(2 * pairs)
    np.testing.assert_array_equal(
        tiny.tell(state.mean, points, losses), es.tell(state, points, losses).mean
    )


# --- round by round ------------------------------------------------------------------------------


def test_every_round_agrees_to_the_bit(clinics, twin):
    federation = Federation(clinics)
    for (point, sent), played in zip(twin, federation.rounds(tiny.ROUNDS), strict=True):
        assert [update.client for update in played.updates] == list(clinics)
        for (losses, size), update in zip(sent, played.updates, strict=True):
            assert list(update.arrays) == ["losses"]
            np.testing.assert_array_equal(update.arrays["losses"], [losses])
            assert update.arrays["losses"].nbytes == losses.nbytes
            assert (update.weight, update.queries) == (size, 2 * tiny.PAIRS * size)
        np.testing.assert_array_equal(played.server.state.mean, point)
        assert played.job.arrays["mean"].nbytes == point.nbytes
    assert federation.budget.spent("train") == tiny.ROUNDS * 2 * tiny.PAIRS * 80


@pytest.mark.parametrize("options", [{"threads": 3}, {"wire": "state"}])
def test_threads_or_sent_states_change_nothing(clinics, twin, options):
    for (point, _), played in zip(twin, Federation(clinics, **options).rounds(8), strict=False):
        np.testing.assert_array_equal(played.server.state.mean, point)


# --- the script ----------------------------------------------------------------------------------


def test_the_script_says_what_came_of_it(twin):
    run = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT], capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")
    said = re.fullmatch(
        r"accuracy  (0\.\d{3}) -> (0\.\d{3}) on 1000 test notes\n"
        r"queries   80 to 240 per client-round, 48000 in all\n"
        r"bytes     80 up and 96 down per client-round\n",
        run.stdout,
    )
    assert said, run.stdout
    before, after = map(float, said.groups())
    assert after > before + 0.2
    own = batch(*tiny.draw("test", 1000, evenness=1e6))
    prompts = soft().render(np.array([np.zeros(tiny.DIM), twin[-1][0]]))
    score = Classify().score(Reply(answer(prompts, own.inputs)), own).mean(axis=1)
    assert score.tolist() == pytest.approx([before, after], abs=1e-9)


def test_the_script_needs_nothing_but_numpy():
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"hashlib", "numpy"}
    assert not any(isinstance(node, ast.ImportFrom) for node in nodes)
