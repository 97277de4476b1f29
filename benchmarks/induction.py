"""The instruction-induction tasks end to end: files, partition, writer, leak check, search, scores.

    FEDBBPT_DATA=... python benchmarks/induction.py
    FEDBBPT_DATA=... python benchmarks/induction.py --url https://host/v1 --model NAME --key-env KEY

Writes results/induction.md. Without a URL the model is a simulated one that has learned the answers
by heart and understands an instruction by its likeness to half of the human-written ones; its
writer says the other half. So that shows that the machinery works on these inputs and references,
and nothing of how well any model does the tasks. With a URL the model behind it is asked.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fedbbpt
from fedbbpt.config import resolve
from fedbbpt.data import answers
from fedbbpt.record import read_lines
from fedbbpt.testing.simulated_llm import SimulatedLlm, Skill, table_skill

HERE = Path(__file__).parent
OWN = "Answer the input."

TOP = """# The instruction-induction tasks end to end

`{command}`, commit {commit}, seed {seed}. `fedinstruct`, five clients (iid), at most 100
examples of raw/induce in all and 100 of raw/execute as test; at most {budget} queries for training.

{what}

| task | metric | "{own}" | chosen | pool | sent / leaks | queries | chosen instruction |
|---|---|---|---|---|---|---|---|"""

SIMULATED = """The model is **simulated**: it has learned these tasks' answers by heart, and
follows an instruction that is like enough to one of the first half of the human-written
annotations of a task; its writer proposes those of the second half. So the scores say that files,
metrics, leak check, search and choice work on these inputs. They say nothing of how well a real
model does the tasks. *Leaks* are proposals that the leak check stopped at the client."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="", help="of an OpenAI-compatible server; else simulated")
    parser.add_argument("--model", default="")
    parser.add_argument("--key-env", default="")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "induction.md")
    given = parser.parse_args()
    folder = Path(os.environ["FEDBBPT_DATA"]) / "induction"
    tasks = given.tasks or sorted(path.stem for path in (folder / "annotations").glob("*.json"))
    with ExitStack() as stack:
        url, model = given.url, given.model
        if not url:
            skills = [skill(folder, task) for task in tasks]
            simulated = stack.enter_context(SimulatedLlm(seed=given.seed, skills=skills))
            url, model = simulated.url, simulated.name
        box = {"kind": "openai_http", "url": url, "model": model, "key_env": given.key_env}
        rows = [row(folder, task, box, given.queries, given.seed) for task in tasks]
    command = "python benchmarks/induction.py" + (
        f" --url ... --model {model}" if given.url else ""
    )
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, cwd=HERE).stdout.strip()
    what = f"The model is `{model}`." if given.url else SIMULATED
    facts = {"command": command, "commit": commit, "seed": given.seed, "budget": given.queries}
    text = "\n".join([TOP.format(**facts, what=what, own=OWN), *rows]) + "\n"
    given.out.write_text(text)
    print(text)


def skill(folder: Path, task: str) -> Skill:
    """A task's answers by heart; of its annotations the first half are understood."""
    pairs: dict[str, tuple[str, ...]] = {}
    for part in ("induce", "execute"):
        table = answers.load(file(folder, part, task))
        pairs |= dict(zip(table.inputs, table.references or (), strict=True))
    said = answers.instructions(folder / "annotations" / f"{task}.json")
    half = len(said) // 2
    return table_skill(task, pairs, said[:half], said[half:])


def file(folder: Path, part: str, task: str) -> Path:
    """Some are packed."""
    plain = folder / "raw" / part / f"{task}.json"
    return plain if plain.is_file() else plain.with_name(f"{task}.json.gz")


def row(folder: Path, task: str, box: dict[str, Any], queries: int, seed: int) -> str:
    """One task's run as a line of the table."""
    began = time.perf_counter()
    train = file(folder, "induce", task)
    shots = min(100, len(answers.load(train).inputs))
    tree: dict[str, Any] = {
        "data": {
            "set": f"induction/{task}",
            "train": str(train),
            "test": str(file(folder, "execute", task)),
            "test_limit": 100,
        },
        "partition": {"kind": "iid", "clients": 5, "shots": shots},
        "box": box,
        "prompt": {"instruction": OWN},
        "method": {"name": "fedinstruct"},
        "budget": {"queries": queries},
        "run": {"seed": seed},
    }
    config = resolve(tree, folder)
    metric = config.metric
    with tempfile.TemporaryDirectory() as out:
        result = fedbbpt.run(config, Path(out) / "run").result
        events = read_lines(Path(out) / "run" / "events.jsonl")
        listed = json.loads((Path(out) / "run" / "prompt" / "candidates.json").read_text())
    told = [event for event in events if event["event"] == "proposed"]
    leaked = sum(event["refused"].get("leak", 0) for event in told)
    sent = sum(event["sent"] for event in told)
    chosen = next(one for one in listed["candidates"] if one["chosen"])["instruction"]
    before, after = result["baseline"][metric], result["tuned"][metric]
    print(f"{task}: {before:.2f} -> {after:.2f}, {time.perf_counter() - began:.0f} s", flush=True)
    return (
        f"| {task} | {metric} | {before:.3f} | {after:.3f} | {len(listed['candidates'])} | "
        f"{sent} / {leaked} | {result['queries']['train']} | {chosen} |"
    )


if __name__ == "__main__":
    main()
