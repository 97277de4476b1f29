"""The doctor before models that take images, sound ones and others."""

import json

import numpy as np
import pytest
import tomli_w

from fedbbpt import registry
from fedbbpt.boxes.image_classifier import ImageClassifier
from fedbbpt.doctor import doctor
from fedbbpt.eyesight import ASKED, PICTURES, examine
from fedbbpt.types import RenderedPrompt

Image = pytest.importorskip("PIL.Image")

CLASSES = ("red, crimson", "green", "blue", "grey", "white")
NOTHING = RenderedPrompt("", (), "image")
LOGITS = np.random.default_rng(1).standard_normal((3, 5)) * 6


def softmax(values):
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def logits(images):
    return images.mean(axis=(1, 2)) @ LOGITS


def sound(images):
    return softmax(logits(images))


def found(box, labels=(), prompt=NOTHING):
    return {finding.check: finding for finding in examine(box, prompt, labels)}


def made(answer, **options):
    return ImageClassifier(answer, CLASSES, "toy", size=(20, 30), **options)


def test_the_pictures_are_nobody_s_and_all_different():
    assert len({picture.key for picture in PICTURES}) == len(PICTURES) == 3
    assert all(picture.pixels.dtype == np.uint8 for picture in PICTURES)


@pytest.mark.parametrize(("answer", "scores"), [(sound, "probabilities"), (logits, "logits")])
def test_a_sound_classifier(answer, scores):
    calls = []
    seen = found(made(lambda x: calls.append(len(x)) or answer(x), scores=scores), ("red", "grey"))
    assert calls == [3, 3, 3, 1] and len(calls) == ASKED
    checks = ["capabilities", "input", "classes", "answers", "repeatable", "each by itself"]
    assert list(seen) == [*checks, "latency", "labels"]
    assert all(finding.ok for finding in seen.values()), seen
    assert not any(finding.advice for finding in seen.values()), seen
    assert seen["input"].seen == "30 x 20 pixels" and seen["classes"].seen == "5 of its own"
    assert "ms an image" in seen["latency"].seen and "2 of 2" in seen["labels"].seen


def failing(images):
    raise RuntimeError("it broke")


@pytest.mark.parametrize(
    ("answer", "scores", "said"),
    [
        (failing, "probabilities", "RuntimeError: it broke"),
        (lambda x: np.full((len(x), 5), 0.2), "probabilities", "the same scores"),
        (lambda x: np.zeros((len(x), 5)), "logits", "the same scores"),
        (lambda x: 3 * sound(x), "probabilities", "box.scores = 'logits'"),
        (logits, "probabilities", "box.scores = 'logits'"),
        (lambda x: sound(x)[:, :4], "probabilities", "shape"),
        (lambda x: sound(x) * np.nan, "probabilities", "not finite"),
    ],
)
def test_a_classifier_that_cannot_be_used(answer, scores, said):
    seen = found(made(answer, scores=scores))
    last = list(seen.values())[-1]
    assert last.check == "answers" and last.ok is False and said in last.seen, last


def test_probabilities_that_are_taken_for_logits():
    seen = found(made(sound, scores="logits"))["answers"]
    assert seen.ok and "set box.scores = 'probabilities'" in seen.advice


def test_probabilities_that_are_rounded_to_nothing():
    # Each picture has one class; the others are zero, as those of a quantised output are.
    def rounded(images):
        return np.eye(5)[images.mean(axis=(1, 2)).argmax(axis=1)]

    seen = found(made(rounded))["answers"]
    assert seen.ok and "its logits" in seen.advice


def test_an_answer_that_changes():
    turns = iter(range(9))
    seen = found(made(lambda x: softmax(logits(x) + 0.01 * next(turns) * np.arange(5))))
    assert seen["repeatable"].ok is False and "nats" in seen["repeatable"].seen


def test_an_answer_that_depends_on_the_others_of_its_call():
    def normalised(images):
        return softmax(logits(images - images.mean(axis=0)))

    seen = found(made(normalised))["each by itself"]
    assert seen.ok is False and "nats apart" in seen.seen and "inference" in seen.advice


def test_labels_that_name_nothing_are_named():
    labels = ("crimson | blue", "mauve", "Green", *(f"x{i}" for i in range(9)))
    seen = found(made(sound), labels)["labels"]
    assert seen.ok is None and "2 of 12 name classes of the model; not 'mauve', 'x0'" in seen.seen
    assert "'x3', ..." in seen.seen and "prompt.mapping = 'learned'" in seen.advice


# --- whole configs -------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Writes a config for a classifier in a module of its own, with examples or without."""
    (tmp_path / "seeing.py").write_text(
        "import numpy as np\n"
        "def answer(x):\n"
        "    e = np.exp(8 * x.mean(axis=(1, 2)))\n"
        "    return e / e.sum(axis=1, keepdims=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def write(labels=None, whole=True, **box):
        colours = {"warm": (200, 60, 40), "cold": (40, 70, 190)}
        rng = np.random.default_rng(0)
        for kind, count in (("train", 6), ("test", 3)):
            for name, colour in colours.items():
                for i in range(count):
                    pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (9, 9, 3)), 0, 255)
                    folder = tmp_path / kind / name
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        tree = {
            "data": {"train": "train", "test": "test"},
            "partition": {"kind": "iid", "clients": 2},
            "box": {"kind": "image_classifier", "model": "seeing:answer", "size": [8, 8]}
            | {"classes": ["red", "green", "blue"], **box},
            "prompt": {"labels": labels or {}},
            "method": {"name": "fedlook"},
            "budget": {"queries": 300},
        }
        path = tmp_path / "c.toml"
        path.write_text(tomli_w.dumps(tree if whole else {"box": tree["box"]}))
        return path

    return write


def test_a_config_with_a_classifier_is_examined_whole(config):
    labels = {"warm": "red", "cold": "blue"}
    report = doctor(config(labels))
    seen = {finding.check: finding for finding in report.findings}
    assert report.possible and seen["answers"].ok and "2 of 2" in seen["labels"].seen
    assert seen["config"].ok and "queries" in seen["config"].seen
    advice = report.recommended
    assert (advice.method, advice.prompt, advice.side) == ("fedlook", "visual", "image")
    assert any("linear-probe" in reason for reason in advice.reasons)
    assert report.requests == ASKED and json.dumps(report.tree())


def test_labels_that_name_nothing_stop_a_run_by_names_alone(config):
    path = config()
    report = doctor(path)
    (seen,) = (finding for finding in report.findings if finding.check == "labels")
    assert seen.ok is None and "not 'cold', 'warm'" in seen.seen and report.possible
    report = doctor(path, ["prompt.mapping=names"])
    (seen,) = (finding for finding in report.findings if finding.check == "config")
    assert seen.ok is False and "'cold'" in seen.seen and not report.possible


def test_a_box_alone_is_enough(config):
    report = doctor(config(whole=False))
    checks = [finding.check for finding in report.findings]
    assert "labels" not in checks and report.findings[-1].seen == "holds [box] alone"
    assert report.possible and report.recommended.method == "fedlook"


def test_a_model_that_cannot_be_used_leaves_nothing_to_recommend(config):
    report = doctor(config(scores="logits", model="math:prod"))
    assert not report.possible and report.recommended is None


def test_a_dual_encoder_is_tuned_on_its_label_side(config, monkeypatch):
    class Clip(ImageClassifier):
        """What is asked of a dual encoder: a prompt's own classes, and embeddings."""

        accepts = frozenset({"soft", "tokens", "text", "image"})
        sides = frozenset({"label", "image"})
        gives = frozenset({"scores", "embeddings"})

        def __call__(self, prompts, examples):
            assert prompts[0].side == "label" and "{label}" in prompts[0].template
            reply = super().__call__([RenderedPrompt("", ("red", "blue"), "image")], examples)
            return reply

        def prepare(self, prompt):
            pass

    box = Clip(sound, CLASSES, "toy")
    box.vocabulary = object()
    monkeypatch.setattr("fedbbpt.doctor.registry.make", lambda *_: box)
    report = doctor(config(whole=False))
    seen = {finding.check: finding for finding in report.findings}
    assert seen["answers"].ok and "classes" not in seen and "labels" not in seen
    advice = report.recommended
    assert (advice.method, advice.prompt, advice.side) == ("fedwords", "tokens", "label")
    assert any("linear-probe" in reason for reason in advice.reasons)
    assert registry.find("boxes", "clip").gives >= box.gives
