"""What a gateway adds to a call: the same soft prompts on the same texts, here and over HTTP.

    FEDBBPT_DATA=... python benchmarks/gateway.py

Writes results/gateway.md. The gateway runs in a process of its own on this machine. Calls to it and
to the box in this process take turns; every call has new prompts, so that nothing is cached. On a
busy machine the ratio of their times is noisy: what a call takes that the gateway answers from its
cache alone, with the same bytes on the wire, is the overhead without the model.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from label_side import commit

from fedbbpt import registry
from fedbbpt.prompts.soft import Soft

HERE = Path(__file__).parent
DATA = Path(os.environ["FEDBBPT_DATA"])
PROMPTS, TEXTS, CALLS = 16, 32, 12
CASES = {
    "dual_encoder, all-MiniLM-L6-v2 (22 M)": (
        {"kind": "dual_encoder", "dtype": "float32"},
        "Review: {text}",
    ),
    "masked_lm, review_mlm (3 M)": (
        {"kind": "masked_lm", "model": str(DATA / "models/review_mlm"), "dtype": "float32"},
        "{text} It was {mask} .",
    ),
}


def main() -> None:
    columns = (
        "box, calls, here ms, gateway ms, overhead, cached ms, of here, largest gap, cores, commit"
    ).split(", ")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    with (DATA / "text/ready/sst2.test.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)][:TEXTS]
    for name, (box, template) in CASES.items():
        here, there, cached, gap = measure(box, template, texts)
        ratio, share = np.median(there / here) - 1, np.median(cached) / np.median(here)
        lines.append(
            f"| {name} | {CALLS} | {1e3 * np.median(here):.0f} | {1e3 * np.median(there):.0f} | "
            f"{ratio:+.1%} | {1e3 * np.median(cached):.0f} | {share:.1%} | {gap:.0e} | "
            f"{os.cpu_count()} | {commit()} |"
        )
        print(lines[-1], flush=True)
    (HERE / "results" / "gateway.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(
    box: dict[str, str], template: str, texts: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Seconds of each call here, over HTTP and out of the gateway's cache, and the largest gap
    between scores here and there.
    """
    options = {key: value for key, value in box.items() if key != "kind"}
    near = registry.make("boxes", box["kind"], options, "box")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "box.toml"
        config.write_text("[box]\n" + "".join(f'{k} = "{v}"\n' for k, v in box.items()))
        command = [sys.executable, "-m", "fedbbpt", "serve-model", str(config), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            found = re.search(r"http\S+", server.stdout.readline())
            assert found is not None, "the gateway did not start"
            far = registry.make("boxes", "gateway_http", {"url": found[0]}, "box")
            soft = Soft(near.vocabulary, template, ("terrible", "great"), "text", dim=50)
            points = np.random.default_rng(0).standard_normal((CALLS + 1, PROMPTS, 50))
            spent, gap = [], 0.0
            for turn, call in enumerate(points):
                prompts, scores, took = soft.render(call), {}, {}
                for one in (near, far, far) if turn % 2 else (far, near, far):
                    which = (one is far) + (one is far and far in scores)
                    began = time.perf_counter()
                    scores[one] = one(prompts, texts).scores
                    took[which] = time.perf_counter() - began
                spent.append([took[0], took[1], took[2]])
                gap = max(gap, float(np.abs(scores[near] - scores[far]).max()))
            server.terminate()
    here, there, cached = np.array(spent[1:]).T  # the first warms both up
    return here, there, cached, gap


if __name__ == "__main__":
    main()
