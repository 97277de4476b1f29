"""The page of several runs side by side: which did best, how surely, and what they differ in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from fedbbpt.errors import ConfigError, closest
from fedbbpt.maths.intervals import paired_p
from fedbbpt.report.markup import (
    NOTHING,
    Markup,
    folded,
    listed,
    page,
    pairs,
    paragraphs,
    section,
    table,
    tag,
)
from fedbbpt.report.prompts import after
from fedbbpt.report.ranking import place, ranked, ranking, where
from fedbbpt.report.rows import Member, differences
from fedbbpt.report.sentences import count, signed
from fedbbpt.report.story import Story
from fedbbpt.report.summary import Line, lines, remarks

RIVALS = ("manual", "zero-shot")
"""What others are held against, if nobody says."""
SURE = 0.05
HOW = (
    "In the tables ± and whiskers are 95 % intervals over seeds; of a single run, of its test "
    "examples. Against {}: mean difference over shared seeds, and p of a paired t-test, not "
    "corrected for how many are compared. Worse than start: surely, by a run's own test. Charged: "
    "training queries; paid: all that went through the model. Bytes are of a client in a round."
)


def side_by_side(found: Sequence[Member], title: str, against: str = "") -> str:
    """The whole page.

    Args:
        found: all runs.
        title: what to call them.
        against: label of the method that the others are tested against.

    Raises:
        ConfigError: no run has this label.
    """
    labels = list(dict.fromkeys(member.row["method"] for member in found))
    rival = against or next((name for name in RIVALS if name in labels), labels[0])
    if rival not in labels:
        raise ConfigError(f"--against is '{rival}'; {closest(rival, labels)}")
    made = lines([member.row for member in found], rival)
    stories = [member.story for member in found if member.story is not None]
    groups = [list(group) for _, group in groupby(made, lambda x: (x.data, x.setting))]
    return page(
        title,
        _heading(found, made, title),
        paragraphs(HOW.format(rival), cls="note small"),
        *(ranking(group, rival) for group in groups),
        _remarks(made),
        _config(found),
        _prompts(found),
        _warnings(found),
        _made(stories),
    )


# --- the headline --------------------------------------------------------------------------------


def _heading(found: Sequence[Member], made: Sequence[Line], title: str) -> Markup:
    runs, tried = count(len(found), "run"), count(len({line.method for line in made}), "config")
    seeds = count(len({member.row["seed"] for member in found}), "seed")
    leads = [_lead(list(group)) for _, group in groupby(made, place)]
    said = [lead for lead in leads if lead]
    headline = said[0][0] if len(said) == 1 else f"{runs} side by side".capitalize()
    told = [why for _, why in said] if len(said) == 1 else [f"{a}. {b}" for a, b in said]
    return tag(
        "header",
        tag("p", f"fedbbpt · {title}", cls="over"),
        tag("h1", headline),
        paragraphs(f"{runs}: {tried}, {seeds}.".capitalize(), cls="lede"),
        paragraphs(*told) if len(told) < 2 else listed(told),
    )


def _lead(group: Sequence[Line]) -> tuple[str, str] | None:
    """Who is ahead in one table, and whether by more than chance; nothing for one alone."""
    order = ranked(group)
    if len(order) < 2:
        return None
    best, second = order[:2]
    here = where(best)
    gap = (
        f"The highest mean is that of {best.method}, {best.score:.3f}: "
        f"{signed(best.score - second.score)} against {second.method}, the next"
    )
    seeds = [seed for seed in best.scores if seed in second.scores]
    one, other = (np.array([x.scores[seed] for seed in seeds]) for x in (best, second))
    p = paired_p(one, other) if seeds else None
    if p is None:
        return f"No sure winner on {here}", f"{gap}. One seed cannot tell whether that is chance."
    tested = f"{gap} (paired over {count(len(seeds))} seeds: p = {p:.2g})."
    return (
        f"{best.method} is ahead on {here}" if p <= SURE else f"No sure winner on {here}",
        tested,
    )


# --- the rest ------------------------------------------------------------------------------------


def _remarks(made: Sequence[Line]) -> Markup:
    said = remarks(made)
    return section("Remarks", listed(said)) if said else NOTHING


def _config(found: Sequence[Member]) -> Markup:
    """What the configs differ in, a column for each label; nothing where they are one."""
    first = {member.row["method"]: member.story for member in reversed(found) if member.story}
    labels = list(dict.fromkeys(m.row["method"] for m in found if m.row["method"] in first))
    stories = [story for label in labels if (story := first[label]) is not None]
    keys = differences(stories)
    if not keys:
        return NOTHING
    head = ["key", *labels]
    rows = [
        [key, *("–" if value is None else str(value) for value in values)]
        for key, values in sorted(keys.items())
    ]
    text = range(len(head))
    whole = table(head, rows, text=text, caption="Keys in which the configs differ", cls="keys")
    note = "Of each method its first run; seeds, budgets and files are left out."
    return section("What the configs differ in", folded("All such keys", whole), note=note)


def _prompts(found: Sequence[Member]) -> Markup:
    """What was found, where it can be read."""
    rows = [
        [_name(member), text]
        for member in found
        if member.story and member.story.prompt and (text := after(member.story))
    ]
    if not rows:
        return NOTHING
    whole = table(["run", "tuned prompt"], rows, text=(0, 1), caption="Prompts that are text")
    return section("The prompts", folded(f"{count(len(rows), 'prompt')} that can be read", whole))


def _name(member: Member) -> str:
    row = member.row
    where = ", ".join(filter(None, [row["data"], row["setting"]]))
    return f"{row['method']}, seed {row['seed']}, {count(row['budget'])} queries ({where})"


def _warnings(found: Sequence[Member]) -> Markup:
    """Kinds of warnings by run."""
    said = [f"{_name(m)}: {m.row['warnings']}" for m in found if m.row.get("warnings")]
    return section("Warnings", listed(said, "warnings")) if said else NOTHING


def _made(stories: Sequence[Story]) -> Markup:
    def each(key: str) -> Iterator[str]:
        for story in stories:
            value = story.made.get(key)
            if isinstance(value, dict):
                value = ", ".join(f"{name} {number}" for name, number in value.items())
            yield str(value or "not recorded")

    facts = [
        (key, "; ".join(dict.fromkeys(each(key)))) for key in ("versions", "commit", "machine")
    ]
    folders = [str(story.path) for story in stories]
    every = folded(f"{count(len(folders), 'directory', 'directories')}", listed(folders))
    return section("How they were made", pairs(facts), every, name="made")
