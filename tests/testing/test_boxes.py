"""Every registered box keeps the laws, and the laws catch those that do not."""

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from fedbbpt import registry
from fedbbpt.black_box import AtomicBox, Wrapper
from fedbbpt.boxes.dual_encoder import DualEncoder
from fedbbpt.testing.boxes import (
    LAWS,
    WORD_LAWS,
    Case,
    cases_for,
    check_box,
    check_names,
    word_cases_for,
)
from fedbbpt.testing.faults import FaultServer
from fedbbpt.testing.simulated_llm import SimulatedLlm
from fedbbpt.testing.toys import CountingBox, ToyEncoder, ToyVocabulary, toy_box
from fedbbpt.types import Atom, Grid, Reply, digest

# A box that is not named here is tried with its defaults.
MADE: dict[str, Callable[[pytest.FixtureRequest], AtomicBox]] = {
    "function": lambda _: toy_box(),
    "dual_encoder": lambda request: request.getfixturevalue("minilm"),
    "masked_lm": lambda request: request.getfixturevalue("masked_lm"),
    "causal_lm": lambda request: request.getfixturevalue("causal_lm"),
    "clip": lambda request: request.getfixturevalue("clip"),
    "image_classifier": lambda _: image_classifier(),
    "gateway_http": lambda r: gateway_http(r.getfixturevalue("gateways")(toy_box())),
    "openai_http": lambda r: over_the_wire(r, "openai_http", "toy"),
    "anthropic_http": lambda r: over_the_wire(r, "anthropic_http", "toy"),
    "litellm": lambda r: (
        pytest.importorskip("litellm") and over_the_wire(r, "litellm", "openai/toy")
    ),
    "vllm_http": lambda request: request.getfixturevalue("vllm_http"),
}


# And these in words, beside the registered ones that give text.
WORDY: dict[str, Callable[[pytest.FixtureRequest], AtomicBox]] = {
    "function": lambda _: wordy_toy(),
    "completions": lambda r: over_the_wire(r, "openai_http", "toy", api="completions"),
    "labels": lambda r: over_the_wire(r, "openai_http", "toy", scores="labels"),
    "simulated": lambda r: r.getfixturevalue("simulated"),
    "gateway of a function": lambda r: gateway_http(r.getfixturevalue("gateways")(wordy_toy())),
    "gateway of a model": lambda r: gateway_http(
        r.getfixturevalue("gateways")(r.getfixturevalue("causal_lm"))
    ),
    "gateway of a server": lambda r: gateway_http(
        r.getfixturevalue("gateways")(over_the_wire(r, "openai_http", "toy"))
    ),
}


def wordy_toy():
    """Says what it was told, backwards."""

    def answer(prompts, examples):
        told = [prompt.keys[0].hex()[:6] for prompt in prompts]
        return [[f" {n} {example[::-1]}\n" for example in examples] for n in told]

    vocabulary = ToyVocabulary()
    return registry.find("boxes", "function")(
        answer, "wordy", sides=("text",), vocabulary=vocabulary, gives=("text",)
    )


def over_the_wire(request, kind, model, **options):
    if kind == "litellm":
        pytest.importorskip("litellm")
    url = request.getfixturevalue("fault_server").url
    return registry.find("boxes", kind)(url=url, model=model, key_env="", deadline=20.0, **options)


def gateway_http(url):
    return registry.find("boxes", "gateway_http")(url)


def image_classifier():
    pytest.importorskip("PIL")

    def answer(images):
        logits = [
            [np.sin(4 * c * image.mean(axis=(0, 1))).sum() for c in range(4)] for image in images
        ]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    known = ("terrible", "great", "odd", "tench")
    return registry.find("boxes", "image_classifier")(answer, known, size=(12, 16))


@pytest.fixture
def fault_server():
    def answer(text):
        share = sum(text.encode()) % 89 / 200
        shares = {"terrible": 0.1 + share / 2, "great": 0.5 - share / 2, "odd": 0.2, "it": 0.1}
        return {token: math.log(value) for token, value in shares.items()}

    with FaultServer(answer) as server:
        yield server


@pytest.fixture(scope="module")
def simulated():
    with SimulatedLlm(embedding="ngrams") as model:
        yield registry.find("boxes", "openai_http")(model.url, model.name, key_env="")


@pytest.fixture(scope="module")
def vllm_http(tmp_path_factory):
    models = module_of("vllm_http")
    folder = module_of("causal_lm").make_model("llama", tmp_path_factory.mktemp("vllm") / "model")
    with models.Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield models.box(server, vocabulary=folder, max_tokens=48)
        server.shutdown()
        thread.join()


def module_of(box):
    """The module of a box's own tests, found by path."""
    pytest.importorskip("transformers")
    path = Path(__file__).parents[1] / "boxes" / f"test_{box}.py"
    spec = spec_from_file_location(f"{box}_models", path)
    models = module_from_spec(spec)
    spec.loader.exec_module(models)
    return models


def small(box, kind, tmp_path_factory):
    """The small random model of a box's own tests."""
    models = module_of(box)
    return models.load(models.make_model(kind, tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope="module")
def masked_lm(tmp_path_factory):
    return small("masked_lm", "roberta", tmp_path_factory)


@pytest.fixture(scope="module")
def causal_lm(tmp_path_factory):
    return small("causal_lm", "llama", tmp_path_factory)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("PIL")
    return small("clip", "clip", tmp_path_factory)


@pytest.fixture(params=registry.names("boxes"))
def box(request):
    make = MADE.get(request.param, lambda _: registry.find("boxes", request.param)())
    return make(request)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_registered(box, law):
    for case in cases_for(box):
        law(box, case)


@pytest.mark.parametrize("law", WORD_LAWS, ids=lambda law: law.__name__)
def test_registered_in_words(box, law):
    cases = word_cases_for(box)
    assert bool(cases) == ("text" in box.gives)
    for case in cases:
        law(box, case)


@pytest.mark.parametrize("make", WORDY.values(), ids=WORDY)
def test_in_words(request, make):
    box = make(request)
    cases = word_cases_for(box)
    for case in cases:
        for law in WORD_LAWS:
            law(box, case)
    kinds = {case.prompts[0].kind for case in cases}
    assert kinds == box.accepts and all(not p.labels for case in cases for p in case.prompts)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "make", [ToyEncoder, lambda: CountingBox(toy_box())], ids=["encoder", "counting"]
)
def test_the_toys(make, law):
    for case in cases_for(make()):
        law(make(), case)


def test_another_name_makes_other_keys(minilm):
    check_names(toy_box(), toy_box("other"))
    with pytest.raises(AssertionError, match="both boxes are named"):
        check_names(toy_box(), toy_box())
    shorter = DualEncoder(dtype="float32", device="cpu", max_tokens=16)
    check_names(minilm, shorter)


def test_every_kind_and_side_is_asked_about():
    cases = cases_for(toy_box())
    kinds = {(case.prompts[0].kind, case.prompts[0].side) for case in cases}
    assert kinds == {
        (kind, side) for kind in ("soft", "tokens", "text") for side in ("label", "text")
    }
    plain = toy_box()
    plain.vocabulary, plain.accepts = None, frozenset({"soft"})
    with pytest.raises(AssertionError, match="no prompt of the kit fits"):
        cases_for(plain)


# --- each law catches one that breaks it ---------------------------------------------------------


class Broken(Wrapper):
    """A toy box to be spoilt in one place."""

    def __init__(self):
        super().__init__(toy_box())

    def evaluate(self, atoms, wanted):
        return self.inner.evaluate(atoms, wanted)


class Unnamed(Broken):
    name = ""

    def __init__(self):
        super().__init__()
        self.name = ""


class Counts(Broken):
    """Numbers its atoms."""

    def split(self, prompts, examples):
        self.number = getattr(self, "number", 0) + 1
        grid = self.inner.split(prompts, examples)
        atoms = [Atom(digest(atom.key, str(self.number)), atom.data) for atom in grid.atoms]
        return Grid(tuple(atoms), grid.assemble)


class Silent(Broken):
    def evaluate(self, atoms, wanted):
        return [np.full_like(row, np.nan) for row in super().evaluate(atoms, wanted)]


class Single(Broken):
    """Takes its scores for those of one candidate."""

    def __call__(self, prompts, examples):
        return Reply(super().__call__(prompts, examples).scores[:1])


class Regroups(Broken):
    """Its rows depend on the size of their batch."""

    def evaluate(self, atoms, wanted):
        return [row + 1e-15 * len(wanted) for row in super().evaluate(atoms, wanted)]


class KnowsNoLabels(Broken):
    """Its keys leave the label texts out."""

    def split(self, prompts, examples):
        named = [replace(p, labels=tuple("abc"[: len(p.labels)])) for p in prompts]
        keys = [atom.key for atom in self.inner.split(named, examples).atoms]
        grid = self.inner.split(prompts, examples)
        atoms = [Atom(k, atom.data) for k, atom in zip(keys, grid.atoms, strict=True)]

        def assemble(rows):
            return grid.assemble(rows)

        return Grid(tuple(atoms), assemble)


class Mainstream(Broken):
    """Answers another thread otherwise."""

    def evaluate(self, atoms, wanted):
        other = threading.current_thread() is not threading.main_thread()
        return [row + other for row in super().evaluate(atoms, wanted)]


class Slopes(Broken):
    """Says that it has gradients, and makes them up."""

    def __init__(self):
        super().__init__()
        self.gives = self.gives | {"gradients"}

    def gradient(self, prompt, examples, targets):
        scores = self([prompt], examples).scores[0]
        loss = -scores[np.arange(len(examples)), targets].mean()
        return float(loss), np.ones(np.shape(prompt.soft))


class Offset(Slopes):
    """Its gradient's loss is another than its scores'."""

    def gradient(self, prompt, examples, targets):
        loss, slope = super().gradient(prompt, examples, targets)
        return loss + 1, slope


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Unnamed, "name is ''"),
        (Counts, "different atoms"),
        (Silent, "not all finite"),
        (Single, "scores have shape"),
        (Regroups, "other bits when asked for by themselves"),
        (KnowsNoLabels, "another label has the same keys"),
        (Mainstream, "two threads at once"),
        (Slopes, "the loss rises by"),
        (Offset, "the gradient's loss is off the scores' by 1.0"),
    ],
)
def test_the_kit_catches(broken, sentence):
    box = broken()
    with pytest.raises(AssertionError, match=sentence):
        check_box(box)


class Wordy(Wrapper):
    """A box of words to be spoilt in one place."""

    def __init__(self):
        super().__init__(wordy_toy())

    def evaluate(self, atoms, wanted):
        return self.inner.evaluate(atoms, wanted)


class Mute(Wordy):
    def evaluate(self, atoms, wanted):
        return [np.full(1, np.nan) for _ in wanted]


class Open(Wordy):
    """Its rows are the plain bytes, which a ledger would keep."""

    def split(self, prompts, examples):
        grid = self.inner.split(prompts, examples)
        keys = [[self.form_key(p, x) for x in examples] for p in prompts]

        def assemble(rows):
            row = {
                atom.key: bytes(r.astype(np.uint8))
                for atom, r in zip(grid.atoms, rows, strict=True)
            }
            texts = tuple(tuple(row[key].decode() for key in some) for some in keys)
            return Reply(np.zeros((len(prompts), len(examples), 0)), texts=texts)

        return Grid(grid.atoms, assemble)

    def form_key(self, prompt, example):
        return self.inner.split([prompt], [example]).atoms[0].key

    def evaluate(self, atoms, wanted):
        return [np.frombuffer(atoms[i].data[1].encode(), np.uint8) / 1.0 for i in wanted]


class Chatty(Wordy):
    """Says something else each time that a question comes with others."""

    def __call__(self, prompts, examples):
        reply = self.inner(prompts, examples)
        if not reply.texts:
            return reply
        more = tuple(tuple(f"{t}{i}" for i, t in enumerate(row)) for row in reply.texts)
        return replace(reply, texts=more)


class Scores(Wordy):
    """Names labels that it was not given."""

    def __call__(self, prompts, examples):
        return replace(super().__call__(prompts, examples), scores=np.zeros((3, 4, 2)))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Mute, "an answer is no text"),
        (Open, r"a row of words is \[dtype\('float64'\)\]; it must be sealed"),
        (Chatty, "another order gave other texts"),
        (Scores, r"scores have shape \(3, 4, 2\), not \(3, 4, 0\)"),
    ],
)
def test_the_kit_catches_in_words(broken, sentence):
    check_box(Wordy())
    with pytest.raises(AssertionError, match=sentence):
        check_box(broken())


# --- the toys themselves -------------------------------------------------------------------------


def test_the_toy_box_learns_nothing_from_its_batch():
    box = toy_box()
    prompts, examples = cases_for(box)[0]
    whole = box(prompts, examples).scores
    for i, example in enumerate(examples):
        np.testing.assert_array_equal(box(prompts, [example]).scores[:, 0], whole[:, i])
    np.testing.assert_allclose(np.exp(whole).sum(axis=2), 1.0)


def test_the_toy_vocabulary_speaks_its_own_tongue():
    vocabulary = ToyVocabulary()
    ids = vocabulary.tokenise("It was great, rather.")
    assert len(ids) == 6
    assert vocabulary.tokenise(vocabulary.decode(ids)) == ids
    assert vocabulary.tokenise("GREAT") == vocabulary.tokenise("great")
    laid, slots = vocabulary.layout("It was \0, or so.", "really great")
    assert slots == [0, 1, -1, -1, 2, 3, 4, 5]
    assert laid == vocabulary.tokenise("It was really great, or so.")
    assert vocabulary.layout("so\0", "me")[1] == [-1]  # what touches the gap belongs to the fill
    assert 0 not in vocabulary.ordinary()


def test_the_counting_box_fails_by_its_rule():
    case = Case(*cases_for(toy_box())[0])
    grid = toy_box().split(*case)
    every = range(len(grid.atoms))
    box = CountingBox(toy_box(), nans=0.4, times=2, seed=1)
    picked = [box.chosen("nans", 0.4, atom.key) for atom in grid.atoms]
    assert 0 < sum(picked) < len(picked)
    for _ in range(2):
        rows = box.evaluate(grid.atoms, every)
        assert [bool(np.isnan(row).any()) for row in rows] == picked
    assert np.isfinite(box.evaluate(grid.atoms, every)).all()
    assert box.calls == 3
    assert box.asked == [atom.key for atom in grid.atoms] * 3
