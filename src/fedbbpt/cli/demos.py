"""The demos: what each is about, said before it begins, and a run of it."""

from __future__ import annotations

import csv
import json
import os
import tomllib
from collections import Counter
from importlib.resources import files
from pathlib import Path

from fedbbpt.cli.show import console, follow
from fedbbpt.data import digits
from fedbbpt.errors import UnknownPart, closest
from fedbbpt.rundir import refuse_unless_free
from fedbbpt.testing.simulated_llm import SimulatedLlm

VISION = """\
Five fictional post offices ({0}) hold {1[train]} private pictures of
handwritten digits. The digits are real (scikit-learn's). What is wrong with the pictures is made
by us: one camera that stands too far off and beside the middle, set too dark and too flat; and at
every office a lamp of its own. The model is a small network that this demo has just trained on
other digits, photographed well, and frozen. If the {1[test]} test digits were photographed well, it
would read {2:.1%} of them. The offices see only its probabilities. Together they tune one look at
the picture: nine numbers such as zoom and contrast. No picture leaves its office.
"""


INSTRUCTIONS = """\
Five fictional language schools ({0}) hold {1} private exercise
cards: a word, and its plural. Together they look for the words in which to ask a chat model for
it. Today they say: "{2}" The model itself proposes others from a school's
cards; what quotes a card does not leave the school.
The model is simulated: plain functions behind a chat API, which an instruction reaches by likeness.
It shows what the machinery does; what a real model makes of an instruction is another question.
"""


def show(what: str, out: Path | None, overwrite: bool) -> None:
    """Introduce a demo and run it.

    Args:
        what: ``"tickets"``, ``"vision"`` or ``"instructions"``.
        out: the run directory, or ``None`` for the usual one.
        overwrite: replace an old run.

    Raises:
        UsageError: there is no such demo, or something is in its way.
    """
    if what == "tickets":
        _tickets(out or Path("runs/demo"), overwrite)
    elif what == "vision":
        _vision(out or Path("runs/demo-vision"), overwrite)
    elif what == "instructions":
        _instructions(out or Path("runs/demo-instructions"), overwrite)
    else:
        known = ("tickets", "vision", "instructions")
        raise UnknownPart(f"there is no demo '{what}'; {closest(what, known)}")


def _tickets(out: Path, overwrite: bool) -> None:
    config = _config("helpdesk")
    with (config.parent / "tickets.train.csv").open(encoding="utf-8", newline="") as file:
        sites = [row["site"] for row in csv.DictReader(file)]
    desks = list(dict.fromkeys(sites))
    console.print(
        f"Help desks of five fictional companies ({', '.join(desks)}) hold {len(sites)} private "
        "tickets.\nTogether they tune one prompt that tells six kinds of request apart, on "
        "all-MiniLM-L6-v2,\na real model of which they only see scores. No ticket leaves its "
        "desk.\n"
    )
    follow("run", config, out, [], overwrite)


def _vision(out: Path, overwrite: bool) -> None:
    refuse_unless_free(out, overwrite)
    data = Path(f"{os.path.abspath(out)}-data")
    digits.write(data)
    count = Counter(digit.kind for digit in digits.pictures())
    told = VISION.format(", ".join(digits.OFFICES), count, digits.read_well())
    console.print(told)
    console.print(f"data      {data}", markup=False)
    # As TOML strings, which are written as JSON's are.
    paths = [f"data.{kind}={json.dumps(str(data / kind))}" for kind in ("train", "test")]
    follow("run", _config("digits"), out, paths, overwrite)


def _instructions(out: Path, overwrite: bool) -> None:
    refuse_unless_free(out, overwrite)
    config = _config("exercises")
    with (config.parent / "cards.train.csv").open(encoding="utf-8", newline="") as file:
        sites = [row["site"] for row in csv.DictReader(file)]
    own = tomllib.loads(config.read_text(encoding="utf-8"))["prompt"]["instruction"]
    schools = ", ".join(dict.fromkeys(sites))
    console.print(INSTRUCTIONS.format(schools, len(sites), own))
    with SimulatedLlm(seed=0) as model:
        console.print(f"model     {model.url} {model.name}", markup=False)
        where = [f"box.url={json.dumps(model.url)}", f"box.model={json.dumps(model.name)}"]
        follow("run", config, out, where, overwrite)


def _config(name: str) -> Path:
    return Path(str(files("fedbbpt.data") / name / "demo.toml"))
