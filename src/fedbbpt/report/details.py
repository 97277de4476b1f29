"""More of a run's page: the search round by round, what left the clients, what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fedbbpt.arrays import wire_bytes
from fedbbpt.egress_words import ALL, FOR, MEANING, NEVER
from fedbbpt.report.charts import Curve, chart
from fedbbpt.report.markup import (
    NOTHING,
    Markup,
    folded,
    pairs,
    paragraphs,
    section,
    table,
    tag,
    together,
)
from fedbbpt.report.sentences import count, dollars, duration, size
from fedbbpt.report.story import Story
from fedbbpt.sharing import TESTER

POINTS = 400
"""Most points of a line: a page cannot show more."""
EXAMPLES = {
    "train": "its training examples",
    "batch": "the examples of a step",
    "holdout": "its held-back examples",
    "test": "its test examples",
    "quorum": "enough",
    "rows": "the others",
}


# --- the search ----------------------------------------------------------------------------------


def training(story: Story) -> Markup:
    """Training loss and bytes, round by round."""
    rounds = story.merges
    if not rounds:
        return NOTHING
    return section(
        "Round by round", tag("div", _losses(story), _bytes(story), cls="charts"), _even(story)
    )


def _losses(story: Story) -> Markup:
    heard = [(m["round"], m["loss"]) for m in story.merges if m.get("loss") is not None]
    if len(heard) < 2:
        note = "No loss curve: the losses of single rounds stay at the clients, or are too few."
        return paragraphs(note, cls="note")
    window = max(1, len(heard) // 20)
    raw, smooth = _thinned(heard), _thinned(_smoothed(heard, window))
    curves = [Curve("", raw, faint=True), Curve("", smooth)] if window > 1 else [Curve("", raw)]
    return chart(
        "training loss, mean of the clients",
        curves,
        "round",
        f"The training loss goes from {heard[0][1]:.3f} in the first round to "
        f"{heard[-1][1]:.3f} in the last; every round tries other prompts.",
        f"bold: mean of {window} rounds" if window > 1 else "",
    )


def _smoothed(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Means over a window around each point, as much of it as there is."""
    values = np.array([y for _, y in points])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low = np.maximum(0, places - window // 2)
    high = np.minimum(len(values), places + window // 2 + 1)
    means = (sums[high] - sums[low]) / (high - low)
    return [(x, float(y)) for (x, _), y in zip(points, means, strict=True)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Evenly fewer, the last among them."""
    if len(points) <= POINTS:
        return list(points)
    places = np.linspace(0, len(points) - 1, POINTS).round().astype(int)
    return [points[i] for i in places]


def _by_round(story: Story) -> dict[int, tuple[float, float, int]]:
    """Bytes up, bytes down and clients of each round of the search."""
    found: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for event in story.told("client", phase="search"):
        one = found[event["round"]]
        one[0] += event["bytes_up"]
        one[1] += event["bytes_down"]
        one[2] += 1
    return {number: (up, down, int(n)) for number, (up, down, n) in sorted(found.items())}


def _bytes(story: Story) -> Markup:
    """Nothing where all rounds are alike: a level line says less than a sentence."""
    rounds = _by_round(story)
    if len(set(rounds.values())) < 2:
        return NOTHING
    each = [[(n, one[i] / 1e3) for n, one in rounds.items()] for i in (0, 1)]
    up, down = (_thinned(points) for points in each)
    return chart(
        "kB between clients and server, all clients together",
        [Curve("down", down, tone=5), Curve("up", up, tone=1)],
        "round",
        f"Up {size(sum(one[0] for one in rounds.values()))} in all, down "
        f"{size(sum(one[1] for one in rounds.values()))}.",
    )


def _even(story: Story) -> Markup:
    rounds = _by_round(story)
    if len(set(rounds.values())) != 1:
        return NOTHING
    up, down, clients = next(iter(rounds.values()))
    note = (
        f"Every round moved the same: {size(up / clients)} up and {size(down / clients)} down for "
        f"each of {count(clients, 'client')}."
    )
    return paragraphs(note, cls="note")


# --- what left -----------------------------------------------------------------------------------


def left(story: Story) -> Markup:
    """What left the clients: by phase, as each phase declares it, with the bytes as counted."""
    title = "What left the clients"
    if story.each:
        return section(title, paragraphs("Nothing: each client worked for itself."))
    rows: list[list[str]] = []
    fields: list[tuple[str, str]] = []
    for phase, messages, up, down in _phases(story):
        base = phase.removesuffix(ALL)
        why = FOR.get(base, base.replace("_", " ")).format(**EXAMPLES)
        sent = size(up / messages) if up else "–"
        what = together(phase, tag("small", why))
        rows.append(
            [what, count(messages), sent, size(up) if up else "–", size(down) if down else "–"]
        )
        fields += _fields(story, phase, base)
    if not rows:
        return NOTHING
    head = ["phase", "messages", "each", "up in all", "down in all"]
    local = story.config.get("engine", {}).get("kind", "local") == "local"
    note = (
        "All clients of this run lived in one process; this is what left them for the server."
        if local
        else ""
    )
    shields = story.config.get("shields", {})
    behind = f"Updates pass these shields first: {', '.join(shields)}." if shields else ""
    return section(
        title,
        table(head, rows, caption="Messages by phase", cls="wide"),
        folded("Field by field", pairs(fields)) if fields else NOTHING,
        paragraphs(behind, _spent(story)),
        paragraphs("Never: " + "; ".join(NEVER) + ".", cls="note"),
        note=note,
    )


def _phases(story: Story) -> Iterator[tuple[str, int, float, float]]:
    """(phase, messages, bytes up, bytes down) in their order."""
    found: dict[str, list[float]] = {}
    for event in story.events:
        if event.get("client") == TESTER:
            continue  # the examples are the server's own
        if event["event"] == "client":
            one = found.setdefault(event["phase"], [0, 0.0, 0.0])
            one[0] += 1
            one[1] += event["bytes_up"]
            one[2] += event["bytes_down"]
        elif event["event"] == "look":
            found.setdefault("look", [0, 0.0, 0.0])[0] += event["clients"]
        elif event["event"] == "vocabulary":
            one = found.setdefault("vocabulary", [0, 0.0, 0.0])
            one[0] += 1
            one[1] += event["bytes_up"]
        elif "examples" in event and "client" in event:  # a final phase keeps what was sent
            one = found.setdefault(event["event"], [0, 0.0, 0.0])
            one[0] += 1
            one[1] += wire_bytes({k: np.array(event[k]) for k in _sent(event)})
    yield from ((phase, int(n), up, down) for phase, (n, up, down) in found.items())


def _sent(event: Mapping[str, Any]) -> list[str]:
    return [key for key, value in event.items() if isinstance(value, list)]


def _fields(story: Story, phase: str, base: str) -> Iterator[tuple[str, str]]:
    """Each field that a phase sends, and what it says."""
    declared = next((e["fields"] for e in story.told("declared", phase=phase)), None)
    if declared is None:
        declared = next((_sent(e) for e in story.told(phase)), [])
    for field in declared:
        meaning = MEANING.get((base, field), "of the state of what is searched or fitted")
        yield f"{phase}: {field}", meaning.format(**EXAMPLES)


def _spent(story: Story) -> str:
    spent = story.told("privacy")
    if not spent:
        return ""
    last = spent[-1]
    return (
        f"Privacy spent after {count(last['rounds'])} rounds: epsilon {last['epsilon']:.3g} at "
        f"delta {last['delta']:.3g}."
    )


# --- costs ---------------------------------------------------------------------------------------


def costs(story: Story) -> Markup:
    """Queries by purpose, requests and seconds."""
    found = story.result
    if not found:
        return NOTHING
    queries, seconds = found["queries"], found["seconds"]
    rows = [
        ["training", count(queries["train"]), f"of a budget of {count(queries['budget'])}"],
        ["selection", count(queries["select"]), "held-back examples, to choose a prompt"],
        ["evaluation", count(queries["evaluation"]), "test examples, once, for all snapshots"],
        ["paid", count(queries["paid"]), "went through the model"],
        ["answered by the ledger", count(queries["cached"]), "charged, but paid before"],
        ["unanswered", count(queries["dropped"]), "after every retry"],
    ]
    head = ["queries", "", "what they are"]
    return section(
        "What it cost",
        table(head, rows, text=(0, 2), caption="Queries", cls="slim"),
        pairs([*_requests(story), *_times(seconds)]),
    )


def _requests(story: Story) -> Iterator[tuple[str, str]]:
    usd = story.result.get("cost_usd")
    yield "dollars", "no price known" if usd is None else dollars(usd)
    for one in story.told("requests")[-1:]:
        failed = f", {count(one['failed'])} failed" if one["failed"] else ""
        yield "requests", f"{count(one['sent'])} sent{failed}"
        tokens = count(one["prompt_tokens"]), count(one["completion_tokens"])
        yield "tokens", f"{tokens[0]} sent, {tokens[1]} received"


def _times(seconds: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    share = f", {seconds['box'] / seconds['search']:.0%} in the model" if seconds["search"] else ""
    yield "search", f"{duration(seconds['search'])}{share}"
    yield "set-up", duration(seconds["setup"])
    yield "in all", duration(seconds["total"])
