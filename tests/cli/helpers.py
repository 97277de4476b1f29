"""What the tests of runs share: small data, a config for the toy box, and the command line.

Loaded by path, since pytest imports in importlib mode.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import tomli_w

BOXES = Path(__file__).parent  # holds toybox.py
WORDS = {
    "bad": ("broken", "cold", "dull"),
    "good": ("lovely", "warm", "bright"),
    "odd": ("strange", "green", "upside"),
}
# Options that make the points of a kind of prompt small.
SMALL = {"soft": {"dim": 4}, "tokens": {"slots": 2, "candidates": 8}}
SITES = ("ash", "birch", "cedar", "date")


def write_table(path, rows, header=("text", "label", "site")):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(per_site, kind="note", sites=SITES[:3], classes=("bad", "good")):
    """(text, label, site); no text occurs twice, and each says whose and of what kind it is."""
    made = []
    for site in sites:
        for i in range(per_site):
            label = classes[i % len(classes)]
            words = WORDS[label]
            text = f"{site} {kind} {i} the {words[i % 3]} {words[(i + i // 3) % 3]} thing"
            made.append((text, label, site))
    return made


def write_config(folder, changes=None, per_site=8, **shape):
    """A config for the toy box and its data in ``folder``; keys of ``changes`` are dotted."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "train.csv", rows(per_site, "note", **shape))
    write_table(folder / "test.csv", rows(4, "exam", **shape))
    tree = {
        "data": {"train": "train.csv", "test": "test.csv"},
        "box": {"kind": "function", "answer": "toybox:answer", "name": "toy"},
        "prompt": {"template": "It was {label} ."},
        "method": {"name": "fedes"},
        "rounds": {"max": 4, "holdout": 0.25},
        "budget": {"queries": 5000},
    }
    for path, value in (changes or {}).items():
        *tables, key = path.split(".")
        place = tree
        for table in tables:
            place = place.setdefault(table, {})
        place[key] = value
    prompt = tree["prompt"]
    kind = prompt.get("kind") or kind_of_prompt(tree)
    for option, value in SMALL.get(kind, {}).items():
        prompt.setdefault(option, value)
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    return path


def kind_of_prompt(tree):
    """What a method's preset says, or the default."""
    method = tree["method"]
    name = method.get("name", "fedes") if isinstance(method, dict) else "fedes"
    preset = files("fedbbpt.methods") / f"{name}.toml"
    if not preset.is_file():
        return "soft"
    return tomllib.loads(preset.read_text("utf-8")).get("prompt", {}).get("kind", "soft")


def environment(**more):
    """For a subprocess that can import the toy box."""
    paths = [str(BOXES), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


def command(*args):
    return [sys.executable, "-m", "fedbbpt", *map(str, args)]


def spawn(*args, **more):
    """The command in a process of its own: (exit code, stdout, stderr)."""
    done = subprocess.run(
        command(*args),
        env=environment(**more),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def contents(path):
    """Every file below a path by name, or ``None`` where there is nothing."""
    if not path.exists():
        return None
    if path.is_file():
        return path.read_bytes()
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else "folder"
        for file in sorted(path.rglob("*"))
    }


def result(out):
    return json.loads((out / "result.json").read_text(encoding="utf-8"))


def numbers(out):
    """All of result.json that must not depend on the machine's mood."""
    return {key: value for key, value in result(out).items() if key != "seconds"}


def events(out, *kinds):
    lines = (out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if not kinds or event["event"] in kinds]


def losses(out):
    """((round, client), loss), one per client and round, in the order of the file."""
    return [((e["round"], e["client"]), e["loss"]) for e in events(out, "client")]


def prompt(out):
    return contents(out / "prompt")
