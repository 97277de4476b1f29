"""Which rule makes a label mapping of counts: half of the training images count, half test it.

    FEDBBPT_DATA=... python benchmarks/label_mapping.py

Writes results/label-mapping.md. No test image is read: the constants of
``fedbbpt.maths.label_mapping`` were chosen on these splits, so its rows here are not a result.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from origin import machine
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from fedbbpt import registry
from fedbbpt.black_box import AtomicBox
from fedbbpt.config import read
from fedbbpt.errors import ConfigError
from fedbbpt.maths import label_mapping
from fedbbpt.maths.intervals import mean_interval
from fedbbpt.sharing import read_table
from fedbbpt.types import RenderedPrompt

HERE = Path(__file__).parent
SETS = ("clothing", "sign-digits", "caltech101")
SPLITS = 6

Array = np.ndarray
Rule = Callable[[Array, Array, Array, int], Array]


def main() -> None:
    found: dict[str, dict[str, list[float]]] = {}
    for name in SETS:
        config = read(HERE / "configs" / f"vision-{name}.toml")
        table = read_table(config, config.data.train, training=True)
        box = registry.make("boxes", config.box.kind, config.box.options, "box")
        known = box([], table.inputs).embeddings
        classes = sorted(set(table.labels))
        labels = np.array([classes.index(label) for label in table.labels])
        named = by_name(box, [config.prompt.labels.get(c, c) for c in classes], table.inputs)
        for seed in range(SPLITS):
            count, test = halves(labels, np.random.default_rng(seed))
            if named is not None:
                score(found, "by name, probabilities summed", name, named[test], labels[test])
            for rule, make in RULES.items():
                scores = make(known[count], labels[count], known[test], len(classes))
                score(found, rule, name, scores, labels[test])
    write(found)


def by_name(box: AtomicBox, words: list[str], pictures: tuple[object, ...]) -> Array | None:
    prompt = RenderedPrompt("", tuple(words), "image")
    try:
        return box([prompt], pictures).scores[0]
    except ConfigError:
        return None


def halves(labels: Array, numbers: np.random.Generator) -> tuple[Array, Array]:
    parts = [numbers.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    middle = [len(part) // 2 for part in parts]
    count = np.concatenate([part[:m] for part, m in zip(parts, middle, strict=True)])
    return count, np.concatenate([part[m:] for part, m in zip(parts, middle, strict=True)])


def score(
    found: dict[str, dict[str, list[float]]], rule: str, name: str, scores: Array, labels: Array
) -> None:
    right = float((scores.argmax(axis=1) == labels).mean())
    found.setdefault(rule, {}).setdefault(name, []).append(right)


# --- rules: (log-probabilities, labels, log-probabilities to score, C) -> scores ---------------


def tops(known: Array, labels: Array, classes: int) -> Array:
    counts = np.zeros((classes, known.shape[1]))
    np.add.at(counts, (labels, known.argmax(axis=1)), 1)
    return counts


def frequent(known: Array, labels: Array, asked: Array, classes: int) -> Array:
    rows, columns = linear_sum_assignment(-tops(known, labels, classes))
    return asked[:, columns[np.argsort(rows)]]


def many(known: Array, labels: Array, asked: Array, classes: int) -> Array:
    counts = tops(known, labels, classes)
    seen = np.flatnonzero(counts.sum(axis=0))
    shares = np.zeros_like(counts)
    shares[counts[:, seen].argmax(axis=0), seen] = 1
    return np.exp(asked) @ shares.T


def bayesian(known: Array, labels: Array, asked: Array, classes: int) -> Array:
    counts = tops(known, labels, classes) + 1
    return np.exp(asked) @ (counts / counts.sum(axis=0)).T


def soft(temper: float) -> Rule:
    def rule(known: Array, labels: Array, asked: Array, classes: int) -> Array:
        def tempered(rows: Array) -> Array:
            scaled = temper * rows
            return np.exp(scaled - logsumexp(scaled, axis=1, keepdims=True))

        counts = np.zeros((classes, known.shape[1]))
        np.add.at(counts, labels, tempered(known))
        units = np.rint(label_mapping.UNIT * counts).astype(np.int64)
        return tempered(asked) @ label_mapping.weights(units).T

    return rule


def learned(known: Array, labels: Array, asked: Array, classes: int) -> Array:
    counts = label_mapping.count(known, labels, classes)
    mapping = label_mapping.SHARPNESS * label_mapping.weights(counts)
    for _ in range(label_mapping.STEPS):
        mapping = label_mapping.step(mapping, label_mapping.slope(known, labels, mapping))
    return label_mapping.scores(asked, mapping)


def regression(known: Array, labels: Array, asked: Array, classes: int) -> Array:
    from sklearn.linear_model import LogisticRegression

    middle, scale = known.mean(axis=0), known.std()
    fitted = LogisticRegression(C=1.0, max_iter=300).fit((known - middle) / scale, labels)
    return fitted.decision_function((asked - middle) / scale)


RULES: dict[str, Rule] = {
    "frequent label mapping (one to one, likeliest class counted)": frequent,
    "many to one, likeliest class counted": many,
    "Bayesian-guided, likeliest class counted, +1": bayesian,
    "naive Bayes, probabilities counted": soft(1.0),
    "naive Bayes, tempered, p**0.5": soft(0.5),
    "naive Bayes, tempered, p**0.3": soft(0.3),
    "**naive Bayes, tempered, p**0.2**": soft(0.2),
    "naive Bayes, tempered, p**0.1": soft(0.1),
    "**the same and 20 gradient steps**": learned,
    "logistic regression on log-probabilities, pooled": regression,
}


def cell(scores: list[float]) -> str:
    mean, half = mean_interval(np.array(scores))
    return f"{mean:.3f} ± {half:.3f}"


def write(found: dict[str, dict[str, list[float]]]) -> None:
    commit = subprocess.check_output(
        ["git", "describe", "--always", "--dirty"], text=True, cwd=HERE
    ).strip()
    head = f"| accuracy | {' | '.join(SETS)} |\n|---|{'---|' * len(SETS)}\n"
    rows = [
        f"| {rule} | " + " | ".join(cell(by[s]) if s in by else "" for s in SETS) + " |"
        for rule, by in found.items()
    ]
    text = (
        f"`python benchmarks/label_mapping.py`, commit {commit}; {machine()}: {SPLITS} random "
        "halves of the *training* images (8 of each class to count, 8 to test), mean with 95 % "
        "interval, MobileNetV2's logits. The bold rows' constants were chosen on such splits; no "
        "test image was read.\n\n" + head + "\n".join(rows) + "\n"
    )
    (HERE / "results" / "label-mapping.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
