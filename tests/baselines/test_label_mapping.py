"""Counts of several clients beside a plain transcription on all pictures in one place; and which
baselines work on pictures.
"""

import numpy as np
import pytest

from fedbbpt.arrays import wire_bytes
from fedbbpt.boxes.image_classifier import ImageClassifier
from fedbbpt.errors import ConfigError, Incompatible
from fedbbpt.testing.toys import ToyEncoder
from fedbbpt.types import Picture

pytest.importorskip("PIL")

TASK = ("dusk", "leaf", "rust")
COLOURS = np.array([[40, 40, 110], [60, 130, 60], [150, 70, 40]])
OWN = tuple(f"thing {i}" for i in range(12))
KNOWN = np.random.default_rng(5).normal(0, 1, (12, 3))
NAMES = {"dusk": "thing 0", "leaf": "thing 1 | thing 2", "rust": "#3"}


def drawn(size, seed, sites=("ash", "birch", "cedar")):
    """(picture, class, site): colours of a class and much noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(size):
        colour = COLOURS[i % 3] + rng.normal(0, 45, 3) + rng.normal(0, 20, (5, 6, 3))
        picture = Picture(colour.clip(0, 255).astype(np.uint8), f"{seed}-{i}.png")
        rows.append((picture, TASK[i % 3], sites[i // 2 % len(sites)] if sites else ""))
    return rows


def classifier(classes=OWN):
    """Twelve classes of its own; ``.seen`` counts the pictures that it answered."""

    def answer(images):
        box.seen += len(images)
        logits = 3 * (images.mean(axis=(1, 2)) - 0.4)[:, None, :] * KNOWN
        odds = np.exp(logits.sum(axis=2).astype(np.float64))
        return odds / odds.sum(axis=1, keepdims=True)

    box = ImageClassifier(answer, classes, size=(5, 6), rows=1)
    box.seen = 0
    return box


TRAIN, TEST = drawn(48, 0), drawn(60, 1, None)


@pytest.fixture
def fit(attempt):
    """``fit(rows, box, ...)``: a finished run on pictures."""

    def call(method="label-mapping", train=TRAIN, box=None, prompt=None, **options):
        prompt = {"side": "image", **(prompt or {})}
        box = box or classifier()
        tried = attempt(method, box, "", train=train, test=TEST, prompt=prompt, **options)
        return tried, box

    return call


# --- the transcription ---------------------------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def shares(features, targets):
    """log p(model's class | class of the task), of multinomial naive Bayes."""
    table = np.array([features[targets == c].sum(axis=0) for c in range(len(TASK))])
    overall = (table.sum(axis=0) + 0.1) / (table.sum() + 0.1 * len(OWN))
    return np.log((table + 0.3 * overall) / (table.sum(axis=1, keepdims=True) + 0.3))


def loss(features, targets, mapping):
    p = softmax(features @ mapping.T)
    return -np.log(p[np.arange(len(targets)), targets]).mean()


def everything(tried, *, test=False):
    """{client: (tempered probabilities, classes)} of all that a client holds."""
    split, found = tried.split, {}
    groups = [split.test] if test else [split.train, split.holdout]
    for name in groups[0]:
        inputs = [x for group in groups if name in group for x in group[name].inputs]
        targets = [group[name].targets for group in groups if name in group]
        log_p = classifier()((), inputs).embeddings
        found[name] = softmax(0.2 * log_p), np.concatenate(targets)
    return found


def transcribed(held):
    """(C, S): the counts of all, and the sharpness that suits each client under the others'."""
    sharpnesses = [100 * 2 ** (k / 2) for k in range(9)]
    losses, sizes = [], []
    for name, (features, targets) in held.items():
        rest = [pair for other, pair in held.items() if other != name]
        mapping = shares(*map(np.concatenate, zip(*rest, strict=True)))
        losses.append([loss(features, targets, beta * mapping) for beta in sharpnesses])
        sizes.append(len(targets))
    beta = sharpnesses[int(np.argmin(np.average(losses, axis=0, weights=sizes)))]
    return beta * shares(*map(np.concatenate, zip(*held.values(), strict=True)))


# --- the baseline --------------------------------------------------------------------------------


def test_clients_counts_are_naive_bayes_on_all_in_one_place(fit):
    tried, box = fit()
    held = everything(tried)
    assert {name: len(targets) for name, (_, targets) in held.items()} == dict.fromkeys(
        ("ash", "birch", "cedar"), 16
    )
    want = transcribed(held)
    # Counts are rounded to a 10,000th of an example.
    np.testing.assert_allclose(tried.learned["mapping"], want, rtol=1e-3)
    ((features, targets),) = everything(tried, test=True).values()
    right = (features @ want.T).argmax(axis=1) == targets
    assert tried.result["tuned"]["accuracy"] == right.mean() > 0.6
    assert tried.result["tuned"]["loss"] == pytest.approx(loss(features, targets, want), rel=1e-3)
    # Each picture is asked once, however many exchanges there were.
    assert box.seen == len(TRAIN) + len(TEST) == tried.result["queries"]["paid"]


def test_how_examples_are_shared_out_changes_only_the_sharpness(fit):
    few = [(picture, label, "ash") for picture, label, _ in TRAIN]
    by_class = [(picture, label, label) for picture, label, _ in TRAIN]
    maps = [fit(train=rows)[0].learned["mapping"] for rows in (TRAIN, few, by_class)]
    unit = [mapping / mapping[0, 0] for mapping in maps]
    np.testing.assert_allclose(unit[1], unit[0], rtol=1e-3)
    np.testing.assert_allclose(unit[2], unit[0], rtol=1e-3)
    # Nobody can say what a mapping is worth to others.
    held = {"ash": everything(fit(train=few)[0])["ash"]}
    np.testing.assert_allclose(maps[1], 400 * shares(*held["ash"]), rtol=1e-3)


def test_learning_lowers_the_training_loss_and_costs_no_query(fit):
    plain, _ = fit()
    better, box = fit(options={"learned": True})
    assert box.seen == len(TRAIN) + len(TEST)
    features, targets = map(np.concatenate, zip(*everything(plain).values(), strict=True))
    before, after = (
        loss(features, targets, tried.learned["mapping"].astype(np.float64))
        for tried in (plain, better)
    )
    assert after < before - 0.01


def test_the_start_goes_by_the_labels_where_they_name_classes(fit):
    named, box = fit(prompt={"labels": NAMES})
    ((features, targets),) = everything(named, test=True).values()
    p = features**5  # the temper undone, up to a factor
    chosen = np.stack([p[:, 0], p[:, 1] + p[:, 2], p[:, 3]], axis=1).argmax(axis=1)
    assert named.result["baseline"]["accuracy"] == (chosen == targets).mean()
    assert box.seen == len(TRAIN) + len(TEST)
    unnamed, _ = fit()
    assert unnamed.result["baseline"] == unnamed.result["tuned"] == named.result["tuned"]


def test_what_leaves_a_client_does_not_depend_on_how_much_it_holds(fit):
    rows = [*TRAIN[:30], *((picture, label, "ash") for picture, label, _ in TRAIN[30:])]
    tried, _ = fit(train=rows, options={"learned": True})
    sent = {}
    for event in tried.events("client"):
        sent.setdefault(event["phase"], set()).add((event["bytes_up"], event["queries"] > 0))
    table = np.zeros((len(TASK), len(OWN)))
    slope = {
        "features": table[0],
        "square": table[0, 0],
        "errors": table[:, 0],
        "product": np.float32(table),
    }
    assert sent == {
        "count_all": {(wire_bytes({"counts": table.astype(np.uint32)}), True)},
        "sharpen_all": {(wire_bytes({"by_sharpness": np.zeros(9)}), False)},
        "learn_all": {(wire_bytes(slope), False)},
    }


def test_a_box_without_classes_is_refused(attempt):
    with pytest.raises(Incompatible, match=r"label_mapping needs classes, but .* gives only"):
        attempt("label-mapping", ToyEncoder(), "It was {label} .", prompt={"side": "label"})


# --- other baselines on pictures -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["manual", "zero-shot"])
def test_the_labels_alone(fit, method):
    tried, box = fit(method, prompt={"labels": NAMES})
    assert tried.result["baseline"] == tried.result["tuned"]
    assert box.seen == len(TEST)


def test_a_linear_probe_learns_from_the_models_own_classes(fit):
    tried, _ = fit("linear-probe", prompt={"labels": NAMES})
    assert tried.learned["weights"].shape == (1, len(TASK), len(OWN) + 1)
    assert tried.result["tuned"]["accuracy"] > tried.result["baseline"]["accuracy"]


@pytest.mark.parametrize(
    ("method", "options", "kind", "said"),
    [
        ("in-context", {}, Incompatible, "incontext works on texts, and the examples are images"),
        ("calibration", {}, Incompatible, "calibration works on texts, and the examples are imag"),
        ("white-box", {}, Incompatible, "gradients"),
        ("zero-shot", {"template": "a {label}"}, ConfigError, "reads no text; it must be 'bare'"),
    ],
)
def test_what_makes_no_sense_of_pictures_is_refused_before_anything_is_paid(
    fit, method, options, kind, said
):
    box = classifier()
    with pytest.raises(kind, match=said) as caught:
        fit(method, box=box, prompt={"labels": NAMES}, options=options)
    assert box.seen == 0 and "\n" not in str(caught.value)


def test_labels_that_name_nothing_are_refused_before_anything_is_paid(fit):
    box = classifier()
    with pytest.raises(ConfigError, match="'dusk', 'leaf', 'rust' are none of the 12 classes"):
        fit("manual", box=box)
    assert box.seen == 0
