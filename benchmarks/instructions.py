"""Instructions on the simulated chat model: how many queries until the best of the pool is found.

    python benchmarks/instructions.py --seeds 5 --jobs 2
    python benchmarks/instructions.py --skills letters_list --methods fedinstruct fed-bbpt-instruct

Writes results/instructions.md and .csv. Five clients; the model is the simulated one of
``fedbbpt.testing.simulated_llm``, over HTTP. A run's pool is judged afterwards on the test
examples, which the search never sees.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import Any

import fedbbpt
from fedbbpt.config import resolve
from fedbbpt.errors import ConfigError
from fedbbpt.maths.answers import exact
from fedbbpt.record import read_lines
from fedbbpt.testing.simulated_llm import SKILLS, SimulatedLlm, examples

HERE = Path(__file__).parent
CLIENTS, MOST, TESTED, NEAR, FAR = 5, 20, 100, 0.02, 0.5
OWN = "Answer the input."
BUDGET = 1000
"""Queries of the follower; those to the writer come on top."""

TOP = f"""# Instructions on the simulated chat model

`python benchmarks/instructions.py --seeds {{seeds}}`, commit {{commit}}; {{skills}} skills, seeds 0
to {{last}}, {CLIENTS} clients, at most {BUDGET} queries to the follower for training. The model is
simulated: plain functions that an instruction reaches by the likeness of its embedding. Its writer
proposes good instructions half of the time, so this shows what the search pays to find them, and
not how good a real model's are.

The user's own instruction is "{OWN}" and scores {{own:.3f}}. *Found*: share of runs whose chosen
instruction is within 2 points of the best of its pool on the test examples (95 % interval over
skills). *Until*: median of the queries after which every later best is within 2 points, seen once
a round (the published form has 500 queries in a round); runs that never get there count last.
*Spent*: mean queries when the run had ended by itself or at the cap. *A bad one*: queries for an
instruction that scores 50 points less than the best, mean (and the mean over runs of the dearest).
*Server*: the longest time on the clock that a round took outside its clients, beside another run.

| method | found | score | until | spent | a bad one | bytes up / down per client-round | server |
|---|---|---|---|---|---|---|---|"""

METHODS: dict[str, dict[str, Any]] = {
    "fedinstruct": {"method": {"name": "fedinstruct"}},
    "instruct-bandit": {"method": {"name": "instruct-bandit"}},
    "fed-bbpt-instruct": {
        "method": {"name": "fed-bbpt-instruct"},
        "prompt": {"writer": "pool", "proposals": 8, "demonstrations": 5, "again": 0},
    },
    "instruct-initial": {
        "method": {"name": "instruct-initial"},
        "prompt": {"proposals": 8, "demonstrations": 5},
    },
    "instruct-random": {"method": {"name": "instruct-random"}},
    "fedavg-z": {"method": {"name": "fedavg-z"}},
    # A candidate costs ten queries a turn here, too, where that many are at hand.
    "centralised": {
        "method": {"name": "centralised", "base": "fedinstruct"},
        "rounds": {"batch": 10},
    },
    "local-only": {
        "method": {"name": "local-only", "base": "fedinstruct"},
        "rounds": {"batch": 5},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--skills", nargs="*", default=list(SKILLS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    cells = [(skill, seed, given.methods) for skill in given.skills for seed in range(given.seeds)]
    with ProcessPoolExecutor(given.jobs) as pool:
        rows = [row for found in pool.map(cell, cells) for row in found]
    given.out.mkdir(exist_ok=True)
    with (given.out / "instructions.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    text = report(rows, given.methods)
    (given.out / "instructions.md").write_text(text)
    print(text)


def cell(job: tuple[str, int, list[str]]) -> list[dict[str, Any]]:
    """All methods on one skill and seed."""
    skill, seed, methods = job
    rows = []
    with tempfile.TemporaryDirectory() as folder, SimulatedLlm(seed=0) as model:
        sizes = write(Path(folder), skill, seed)
        for name in methods:
            rows.append({**one(Path(folder), model, name, seed), "skill": skill, **sizes})
    return rows


def write(folder: Path, skill: str, seed: int) -> dict[str, int]:
    """A skill's examples: two thirds for the clients, the others for the test."""
    many = next(n for n in range(CLIENTS * MOST + TESTED, 0, -1) if has(skill, n, seed))
    each = min(MOST, many * 2 // 3 // CLIENTS)
    found = examples(skill, many, seed)
    sites = [f"client {c}" for c in range(CLIENTS) for _ in range(each)]
    for name, rows in (
        ("train", [(*row, site) for row, site in zip(found, sites, strict=False)]),
        ("test", [(*row, "") for row in found[len(sites) :]]),
    ):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["input", "output", "site"])
            table.writerows([text, json.dumps(answers), site] for text, answers, site in rows)
    return {"examples": len(sites), "tested": many - len(sites)}


def has(skill: str, number: int, seed: int) -> bool:
    try:
        return bool(examples(skill, number, seed))
    except ConfigError:
        return False


def one(folder: Path, model: SimulatedLlm, name: str, seed: int) -> dict[str, Any]:
    """A run, and what it found by when."""
    changes = METHODS[name]
    tree: dict[str, Any] = {
        "task": "generate",
        "data": {"train": "train.csv", "test": "test.csv"},
        "box": {"kind": "openai_http", "url": model.url, "model": model.name, "key_env": ""},
        "prompt": {"instruction": OWN},
        # Every round a snapshot: the curve is read from the last pass.
        "method": {"snapshots": 1000},
        "budget": {"queries": BUDGET + 10},
        "run": {"seed": seed},
    }
    for section, keys in changes.items():
        tree[section] = {**tree.get(section, {}), **keys}
    out = folder / f"run-{name}"
    result = fedbbpt.run(resolve(tree, folder), out).result
    row = {"method": name, "seed": seed, "own": result["baseline"]["exact"]}
    row |= {"score": result["tuned"]["exact"], "train": result["queries"]["train"]}
    row |= {"up": result["bytes"]["up_per_client_round"]}
    row |= {"down": result["bytes"]["down_per_client_round"], "rounds": result["rounds"]}
    if (out / "clients").is_dir():
        unknown = ("pool", "best", "bad", "dear", "near", "until", "cpu")
        return {**row, **dict.fromkeys(unknown)}
    events = read_lines(out / "events.jsonl")
    listed, scores = judged(out, model, folder)
    best = max(scores)
    told = [event for event in events if event["event"] == "client"]
    writer = sum(event["queries"] for event in told if event["phase"] == "propose")
    until = None
    for snapshot in reversed([e for e in events if e["event"] == "snapshot"][1:]):
        if snapshot["test_score"] < best - NEAR - 1e-9:
            break
        until = max(0, snapshot["queries"] - writer)
    # What of a round no client took is the server's.
    own = [
        event["seconds"] - sum(one["seconds"] for one in told if one["round"] == event["round"])
        for event in events
        if event["event"] == "merge" and event["phase"] == "search"
    ]
    near = row["score"] >= best - NEAR - 1e-9
    row |= {"train": row["train"] - writer, "pool": len(listed), "best": best}
    # What one that is far from the best cost, if it was tried.
    bad = [
        one["answers"]
        for one, score in zip(listed, scores, strict=True)
        if score < best - FAR and one["answers"]
    ]
    answers = sum(one["answers"] for one in listed)
    each = row["train"] / max(1, answers)
    row |= {"bad": each * mean(bad) if bad else None, "dear": each * max(bad) if bad else None}
    return {**row, "near": near, "until": until, "cpu": max(own)}


def judged(
    out: Path, model: SimulatedLlm, folder: Path
) -> tuple[list[dict[str, Any]], list[float]]:
    """The run's pool and what each instruction scores on the test."""
    listed = json.loads((out / "prompt" / "candidates.json").read_text())["candidates"]
    with (folder / "test.csv").open(newline="") as file:
        tests = [(row["input"], json.loads(row["output"])) for row in csv.DictReader(file)]
    scores = [
        mean(
            max(exact(model.mind.follow(one["instruction"], text), right) for right in answers)
            for text, answers in tests
        )
        for one in listed
    ]
    return listed, scores


def report(rows: list[dict[str, Any]], methods: list[str]) -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    skills, seeds = len({row["skill"] for row in rows}), len({row["seed"] for row in rows})
    lines = [
        TOP.format(
            seeds=seeds,
            commit=commit,
            skills=skills,
            last=seeds - 1,
            own=mean(row["own"] for row in rows),
        )
    ]
    for name in methods:
        each = [row for row in rows if row["method"] == name]
        score = mean(row["score"] for row in each)
        spent = mean(row["train"] for row in each)
        size = f"{mean(row['up'] for row in each):.0f} / {mean(row['down'] for row in each):.0f}"
        if each[0]["near"] is None:
            lines.append(f"| {name} | | {score:.3f} | | {spent:.0f} | | {size} | |")
            continue
        by_skill: dict[str, list[bool]] = {}
        for row in each:
            by_skill.setdefault(row["skill"], []).append(row["near"])
        shares = [mean(found) for found in by_skill.values()]
        middle = mean(shares)
        spread = 1.96 * (sum((s - middle) ** 2 for s in shares) / max(1, len(shares) - 1)) ** 0.5
        half = spread / len(shares) ** 0.5
        until = median(row["until"] if row["until"] is not None else 10**9 for row in each)
        cpu = max(row["cpu"] for row in each)
        found = f"{middle:.1%} ± {half:.1%}"
        bad = ""
        if any(row["bad"] is not None for row in each):
            bad = f"{known(each, 'bad'):.0f} ({known(each, 'dear'):.0f})"
        facts = [name, found, f"{score:.3f}", f"{until:.0f}", f"{spent:.0f}", bad, size]
        lines.append(f"| {' | '.join([*facts, f'{cpu:.2f} s'])} |")
    lines += ["", *against(rows, methods)]
    return "\n".join(lines) + "\n"


def known(rows: list[dict[str, Any]], key: str) -> float:
    """The mean of those that have it."""
    return mean(row[key] for row in rows if row[key] is not None)


def against(rows: list[dict[str, Any]], methods: list[str]) -> list[str]:
    """How many queries the others need for one of the first method's, skill by skill and seed."""
    first, *others = methods
    until = {(row["method"], row["skill"], row["seed"]): row["until"] for row in rows}
    lines = []
    for name in others:
        ratios = []
        for row in rows:
            key = (row["skill"], row["seed"])
            if row["method"] == name and row["near"] is not None:
                # Who never gets there needs more than any number.
                theirs, ours = (until[(one, *key)] for one in (name, first))
                ratios.append((theirs or 10**9) / max(1, 10**9 if ours is None else ours))
        if ratios:
            half = mean(ratio >= 2 for ratio in ratios)
            lines.append(
                f"`{name}` needs {median(ratios):.1f} times the queries of `{first}` (median of "
                f"{len(ratios)} pairs of runs), at least twice as many in {half:.0%}."
            )
    return lines


if __name__ == "__main__":
    main()
