"""Where the prompt of an image-text model goes: on the class texts, or on the images' pixels.

    FEDBBPT_DATA=... python benchmarks/label_or_image.py

CLIP's weights were not at hand. The image-text model here is ConSE (Norouzi et al., ICLR 2014): an
image's vector is the mean of the vectors that all-MiniLM-L6-v2 gives the names of its likeliest
ImageNet classes, weighted by MobileNetV2's probabilities; a class text's vector is MiniLM's. So it
has a real text tower, a real image tower and one space, as CLIP has, and is weaker.
Writes results/label-or-image.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from origin import machine

from fedbbpt import api, registry
from fedbbpt.boxes._dual_form import Dual
from fedbbpt.boxes._encoder import Encoder
from fedbbpt.boxes.clip import Clip
from fedbbpt.config import resolve
from fedbbpt.errors import BudgetTooSmall
from fedbbpt.maths.intervals import mean_interval
from fedbbpt.trees import parse

HERE = Path(__file__).parent
RUNS = HERE / "runs" / "label-or-image"
SETS = {"clothing": "clothing", "caltech101": "caltech101"}
METHODS: dict[str, list[str]] = {
    "label side: fedes": ["method.name=fedes", "prompt.side=label"],
    "label side: fedwords": ["method.name=fedwords", "prompt.side=label"],
    "image side: fedlook's look": ["method.name=fedlook", "prompt.mapping=names"],
    "image side: waves (patch)": [
        "method.name=fedlook",
        "prompt.mapping=names",
        "prompt.form=patch",
    ],
    "image side: fed-bbpt-vision (published)": ["method.name=fed-bbpt-vision"],
}
BUDGETS, SEEDS, LIKELIEST = (4000,), 3, 10

Array = np.ndarray


class Conse(Clip):
    """MobileNetV2 and MiniLM as one dual encoder."""

    def __init__(self, classifier: Any, scale: float = 20.0) -> None:
        encoder = Encoder("minilm", "float32", "auto", 1)
        self.classifier, self.vision = classifier, classifier.vision
        name = f"conse:{encoder.name}:{classifier.name}"
        form = Dual(name, scale, encoder.vocabulary.hidden, True)
        first, last = encoder.vocabulary.ends
        self._set_up(form, encoder, ((first,), (last,)), 32, 128)
        names = [name.split(",")[0] for name in classifier.form.classes]
        self.names = self._bare_vectors(tuple(f"a photo of a {name}." for name in names))
        self.towers = self

    def see(self, images: Array) -> Array:
        """(B, H) float32 unit vectors of (B, height, width, 3) images in [0, 1]."""
        logits = np.asarray(self.classifier.classifier.ask(images), np.float64)
        sure = np.exp(logits - logits.max(axis=1, keepdims=True))
        least = np.sort(sure, axis=1)[:, -LIKELIEST, None]
        vectors = np.where(sure >= least, sure, 0.0) @ self.names
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    lines = []
    for name, data in SETS.items():
        tree = parse(HERE / "configs" / f"vision-{name}.toml")
        tree.pop("compare")
        options = resolve(tree, HERE / "configs").box.options
        box = Conse(registry.make("boxes", "image_classifier", options, "box"))
        for label, changes in METHODS.items():
            cells = [label]
            for budget in BUDGETS:
                try:
                    runs = [once(name, data, box, changes, budget, seed) for seed in range(SEEDS)]
                except BudgetTooSmall as error:
                    cells.append(f"a step costs {error.needs}")
                    continue
                cells.append(cell(runs))
                starts = {run["baseline"]["accuracy"] for run in runs}
            lines.append([name, f"{np.mean([*starts]):.3f}", *cells])
            print(lines[-1], flush=True)
    write(lines)


def once(
    name: str, data: str, box: Conse, changes: list[str], budget: int, seed: int
) -> dict[str, Any]:
    """A run's result; read if it is there."""
    file = RUNS / name / f"{changes[0]}-{changes[-1]}-{budget}-{seed}"
    if (file / "result.json").is_file():
        found: dict[str, Any] = json.loads((file / "result.json").read_text(encoding="utf-8"))
        return found
    own = [
        *changes,
        "box.kind=clip",  # for the data set's template; the box is given
        "box.model=conse",
        f"data.set={data}",
        f"budget.queries={budget}",
        f"run.seed={seed}",
        "method.snapshots=5",
        f"run.ledger={RUNS / 'ledger.sqlite'}",
    ]
    tree = parse(HERE / "configs" / f"vision-{name}.toml", own)
    tree.pop("compare")
    tree["box"] = {"kind": "clip", "model": "conse"}
    config = resolve(tree, HERE / "configs")
    file.parent.mkdir(parents=True, exist_ok=True)
    return api.run(config, file, overwrite=True, box=box).result


def cell(runs: list[dict[str, Any]]) -> str:
    mean, half = mean_interval(np.array([run["tuned"]["accuracy"] for run in runs]))
    return f"{mean:.3f} ± {half:.3f}"


def write(lines: list[list[str]]) -> None:
    commit = subprocess.check_output(
        ["git", "describe", "--always", "--dirty"], text=True, cwd=HERE
    ).strip()
    head = ["set", "start", "prompt", *(f"{budget} queries" for budget in BUDGETS)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *lines])
    text = (
        f"`python benchmarks/label_or_image.py`, commit {commit}; {machine()}: ConSE on "
        "MobileNetV2 and all-MiniLM-L6-v2 in the place of CLIP, whose weights were not at hand; "
        f"test accuracy, {SEEDS} seeds, 95 % interval, five clients IID, 16 images per class."
        f"\n\n{table}\n"
    )
    (HERE / "results" / "label-or-image.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
