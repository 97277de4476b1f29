"""A box behind a gateway beside the very same box in this process."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import fedbbpt
from fedbbpt.errors import BoxError, ConfigError, TransientError
from fedbbpt.testing.boxes import cases_for, check_box
from fedbbpt.testing.toys import ToyEncoder
from fedbbpt.types import RenderedPrompt

pytest.importorskip("httpx2")
pytest.importorskip("stamina")
from fedbbpt.boxes.function import Function
from fedbbpt.boxes.gateway_http import GatewayHttp

PROMPT = RenderedPrompt("So {text} .", ("bad", "good"), "text")
KEY = "sk-secret-of-a-site"


def neighbour(name):
    """The module of another test of boxes, for its small models."""
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def box(request, tmp_path):
    """A small box of each form."""
    if request.param == "dual":
        return request.getfixturevalue("minilm")
    if request.param == "pairs":
        words = ToyEncoder().vocabulary
        return Function(Pixels(), "pixels", vocabulary=words)
    pytest.importorskip("torch")
    kind, model = {"masked": ("masked", "roberta"), "causal": ("causal", "llama")}[request.param]
    kit = neighbour(f"test_{kind}_lm")
    folder = kit.make_model(model, tmp_path)
    return kit.load(folder, **({"normalise": True} if kind == "causal" else {}))


class Pixels:
    """Scores from numbers alone: prompts by their parts, examples by their length or content."""

    def __init__(self, faults=()):
        self.calls, self.faults = 0, list(faults)

    def __call__(self, prompts, examples):
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        return np.array([[self.row(p, x) for x in examples] for p in prompts])

    def row(self, prompt, example):
        moved = sum(float(matrix.sum()) for matrix in prompt.soft) + sum(map(sum, prompt.tokens))
        seed = len(repr((prompt.template, prompt.labels))) + moved
        size = float(np.sum(example)) if isinstance(example, np.ndarray) else len(example)
        logits = np.sin(seed + size * np.arange(1, len(prompt.labels) + 1))
        return logits - np.log(np.exp(logits).sum())


@pytest.mark.parametrize("box", ["dual", "masked", "causal", "pairs"], indirect=True)
def test_the_same_atoms_and_the_same_bits(box, gateways):
    # Without a cache: what another call brought has the bits of that call's batches.
    far = GatewayHttp(gateways(box, memory_mb=0))
    for name in ("name", "accepts", "sides", "max_tokens"):
        assert getattr(far, name) == getattr(box, name)
    assert far.gives == box.gives - {"gradients"} and far.steady
    for case in cases_for(box):
        assert [a.key for a in far.split(*case).atoms] == [a.key for a in box.split(*case).atoms]
        np.testing.assert_array_equal(far(*case).scores, box(*case).scores)
    if "embeddings" in box.gives:
        texts = cases_for(box)[0].examples
        np.testing.assert_array_equal(far((), texts).embeddings, box((), texts).embeddings)


WORDY = RenderedPrompt("So {text} .", (), "text")


@pytest.mark.parametrize("box", ["causal"], indirect=True)
def test_words_come_through_as_they_are(box, gateways, tmp_path):
    """Sealed here and there alike: one row for both, and a gateway's ledger tells nothing."""
    far = GatewayHttp(gateways(box, ledger=str(tmp_path / "ledger.sqlite")))
    texts = [*cases_for(box)[0].examples, "dull"]
    assert far([WORDY], texts).texts == box([WORDY], texts).texts
    atoms = far.split([WORDY], texts).atoms
    rows = [each.evaluate(atoms, range(len(atoms))) for each in (box, far)]
    assert [r.tobytes() for r in rows[0]] == [r.tobytes() for r in rows[1]]
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("ledger.sqlite*"))
    said = [text for text in box([WORDY], texts).texts[0] if len(text) > 8]
    assert said and all(text.encode() not in kept for text in (*texts, *said) if len(text) > 8)


def test_words_that_are_no_answer_and_a_box_without_words(gateways):
    said = {"a": "A", "b": "", "c": None}
    box = Function(lambda p, x: [[said[one] for one in x]], gives=("scores", "text"))
    far = GatewayHttp(gateways(box))
    assert far([WORDY], ["a", "b", "c", "a"]).texts == (("A", "", None, "A"),)
    said["c"] = "C"  # no answer was not kept
    assert far([WORDY], ["c", "a"]).texts == (("C", "A"),)
    gateways.stop()
    url = gateways(Function(Pixels()))
    far = GatewayHttp(url)
    for ask in (lambda: far.prepare(WORDY), lambda: far([WORDY], ["a"])):
        with pytest.raises(ConfigError, match="gives scores and no text"):
            ask()
    far.gives |= {"text"}  # a client that does not know it is told so
    with pytest.raises(ConfigError, match="gives scores and no text"):
        far([WORDY], ["a"])


@pytest.mark.parametrize("box", ["masked", "pairs"], indirect=True)
def test_it_keeps_the_laws_of_a_box(box, gateways):
    check_box(GatewayHttp(gateways(box)))


def test_a_box_of_unknown_form_is_asked_for_pairs(gateways):
    box = ToyEncoder()
    far = GatewayHttp(gateways(box))
    assert far.gives == {"scores"}
    for case in cases_for(box):
        np.testing.assert_allclose(far(*case).scores, box(*case).scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize("box", ["dual", "masked"], indirect=True)
def test_its_vocabulary_is_the_boxes(box, gateways):
    near, far = box.vocabulary, GatewayHttp(gateways(box)).vocabulary
    ids = near.tokenise("A lovely, odd story")
    assert far.tokenise("A lovely, odd story") == ids and far.decode(ids) == near.decode(ids)
    assert far.layout("It \0 was {mask}", "odd") == tuple(near.layout("It \0 was {mask}", "odd"))
    assert (far.hidden, far.std) == (near.hidden, near.std)
    np.testing.assert_array_equal(far.embed(ids), near.embed(ids))
    np.testing.assert_array_equal(far.ordinary(), near.ordinary())
    with pytest.raises(BoxError, match="does not have"):
        far.embed([10**6])


def test_arrays_are_examples_too(gateways):
    box = Function(Pixels())
    images = [np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((2, 2), np.float32)]
    far = GatewayHttp(gateways(box))
    np.testing.assert_array_equal(far([PROMPT], images).scores, box([PROMPT], images).scores)
    with pytest.raises(ConfigError, match="type dict"):
        far([PROMPT], [{"no": "array"}])


def test_a_large_call_goes_in_several_requests(gateways, monkeypatch):
    answer = Pixels()
    far = GatewayHttp(gateways(Function(answer)))
    monkeypatch.setattr("fedbbpt.boxes.gateway_http.MOST", 7)
    texts = [f"{i:03}" * i for i in range(30)]
    expected = Function(Pixels())([PROMPT], texts).scores
    np.testing.assert_array_equal(far([PROMPT], texts).scores, expected)
    assert answer.calls == -(-30 // 7)
    atoms = far.split([PROMPT], texts).atoms
    rows = far.evaluate(atoms, [29, 3])
    np.testing.assert_array_equal(rows, expected[0, [29, 3]])


def test_what_the_box_refuses_is_refused_in_its_words(gateways, minilm, tmp_path):
    pytest.importorskip("torch")
    kit = neighbour("test_masked_lm")
    box = kit.load(kit.make_model("bert", tmp_path))
    far, bare = GatewayHttp(gateways(box)), RenderedPrompt("{text} bare", ("bad", "good"), "text")
    with pytest.raises(ConfigError) as here:
        box.prepare(bare)
    with pytest.raises(ConfigError) as there:
        far.prepare(bare)
    assert str(there.value) == str(here.value)
    with pytest.raises(ConfigError, match="not text on the label"):
        far.prepare(RenderedPrompt("It was {label}", ("bad", "good")))


def test_faults_that_pass_are_repeated_and_others_not(gateways):
    answer = Pixels([TransientError("busy"), TransientError("busy"), RuntimeError("it broke")])
    far = GatewayHttp(gateways(Function(answer)))
    with pytest.raises(BoxError, match="function:function raised RuntimeError: it broke"):
        far([PROMPT], ["a"])  # 503 and 503 first
    assert answer.calls == 3
    assert np.isfinite(far([PROMPT], ["a"]).scores).all()


def test_rows_without_an_answer_stay_nan_and_are_not_kept(gateways):
    silent = {"a"}

    def answer(prompts, examples):
        return [[[np.nan, 0.0] if x in silent else [-1.0, -0.5] for x in examples] for _ in prompts]

    far = GatewayHttp(gateways(Function(answer)))
    assert np.isfinite(far([PROMPT], ["a", "b"]).scores).all(-1).tolist() == [[False, True]]
    silent.clear()
    assert np.isfinite(far([PROMPT], ["a", "b"]).scores).all()


class Book:
    """A till that keeps what is booked."""

    def __init__(self):
        self.held, self.booked = 0, []

    def reserve(self, tokens, usd):
        self.held += 1
        return (tokens, usd)

    def settle(self, hold, receipt, rows):
        self.held -= 1
        self.booked.append((receipt.status, receipt.usd, set(rows)))


def test_every_request_is_booked_with_its_rows(gateways):
    box, book = Function(Pixels([TransientError("busy")])), Book()
    far = GatewayHttp(gateways(box)).billed(book)
    atoms = far.split([PROMPT], ["a", "b"]).atoms
    far.evaluate(atoms, [0, 1])
    assert book.booked == [(503, 0.0, set()), (200, 0.0, {atom.key for atom in atoms})]
    assert book.held == 0


# --- bad input -----------------------------------------------------------------------------------


def test_a_gateway_that_is_not_there_is_named_with_the_deadline():
    with pytest.raises(
        BoxError, match=r"http://127\.0\.0\.1:9/v1 .* within 0\.4 s \(box\.deadline\)"
    ):
        GatewayHttp("http://127.0.0.1:9", deadline=0.4)
    with pytest.raises(ConfigError, match=r"box\.url is 'ftp://host"):
        GatewayHttp("ftp://host")


@pytest.mark.parametrize("shown", ["", "sk-another"])
def test_a_wrong_key_is_refused_and_never_shown(gateways, monkeypatch, shown):
    url = gateways(Function(Pixels()), keys=KEY)
    monkeypatch.setenv("SITE_KEY", shown)
    with pytest.raises(BoxError, match=r"\$SITE_KEY") as error:
        GatewayHttp(url, key_env="SITE_KEY")
    assert KEY not in str(error.value) and "sk-another" not in str(error.value)
    monkeypatch.setenv("SITE_KEY", KEY)
    far = GatewayHttp(url + "/v1/", key_env="SITE_KEY")
    assert np.isfinite(far([PROMPT], ["a"]).scores).all()


def test_another_model_after_a_restart_is_noticed(gateways):
    url = gateways(Function(Pixels(), "one"))
    far = GatewayHttp(url)
    gateways.stop()
    gateways(Function(Pixels(), "two"), port=int(url.rpartition(":")[2]))
    with pytest.raises(BoxError, match="serves function:two, not function:one"):
        far([PROMPT], ["a"])


@pytest.mark.parametrize(
    ("info", "said"), [({"protocol": 99}, "speaks version 99"), ({"box": 1}, "no gateway")]
)
def test_a_server_that_is_no_gateway_of_this_version(gateways, monkeypatch, info, said):
    monkeypatch.setattr("fedbbpt.service.served.Service.info", lambda self: info)
    url = gateways(Function(Pixels()))
    with pytest.raises(ConfigError, match=said):
        GatewayHttp(url)


def test_the_client_needs_no_torch(gateways):
    url = gateways(Function(Pixels()))
    code = (
        "import sys; from fedbbpt import registry\n"
        f"box = registry.make('boxes', 'gateway_http', {{'url': '{url}'}}, 'box')\n"
        "from fedbbpt.types import RenderedPrompt as R\n"
        "print(box([R('{text}', ('a', 'b'), 'text')], ['x']).scores.shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 1, 2) False\n"


# --- a run ---------------------------------------------------------------------------------------


def test_a_run_is_the_run_on_the_box_itself(gateways, minilm, tmp_path):
    words = {"bad": ("broken", "cold"), "good": ("warm", "bright")}
    clients = {
        site: [(f"{site} {i} was {words[c][i % 2]}", c) for i in range(4) for c in words]
        for site in ("ash", "birch")
    }
    shared = {"rounds": {"max": 3}, "prompt": {"dim": 8}}
    far = GatewayHttp(gateways(minilm))
    one, other = (
        fedbbpt.tune(clients, "It was {label}.", tmp_path / name, queries=300, box=box, **shared)
        for name, box in (("here", minilm), ("there", far))
    )
    for key in ("box", "tuned", "baseline", "queries", "stopped", "bytes"):
        assert other.result[key] == one.result[key]
    prompts = [(tmp_path / name / "prompt").iterdir() for name in ("here", "there")]
    for a, b in zip(*map(sorted, prompts), strict=True):
        assert a.read_bytes() == b.read_bytes()
