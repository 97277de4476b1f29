"""Who benefits from a run and who is harmed, client by client."""

from __future__ import annotations

from collections.abc import Sequence

from fedbbpt.report.charts import Scale, bar
from fedbbpt.report.markup import NOTHING, Markup, section, table
from fedbbpt.report.sentences import count, interval, signed
from fedbbpt.report.story import Fared, Story

SHOWN = 40
"""Clients in a table; of more the ends are shown, where those stand whom one has to look for."""


def clients(story: Story) -> Markup:
    """Who gains and who does not: test scores, or held-back losses where the test is common."""
    if len(story.fared) > 1:
        rows = story.fared
        better, worse = (sum(sign * one.gain > 0 for one in rows) for sign in (1, -1))
        said = [f"{better} of {len(rows)} clients gain, {worse or 'none'} of them lose."]
        for name, sign in (("Surely better off", 1), ("Surely worse off", -1)):
            found = _sure(rows, sign)
            said += [f"{name}: {', '.join(found)}."] if found else []
        if any(one.ends for one in rows):
            said.append("Lines are 95 % intervals, of each client by itself.")
        note = " ".join(said)
        return section("Client by client", _gains(rows, story.metric), note=note)
    held = sorted(story.held, key=lambda one: (one.gain, one.client))
    if len(held) < 2:
        return NOTHING
    note = (
        "The test examples belong to no client, so this is the loss on what each held back: lower "
        "is better. The choice was made by these very examples."
    )
    flipped = [Fared(o.client, -o.before, -o.after, None, o.examples) for o in held]
    return section("Client by client", _gains(flipped, "held-back loss", -1), note=note)


def _sure(rows: Sequence[Fared], sign: int) -> list[str]:
    """Names of clients whose whole interval lies on one side; of many how many they are."""
    names = [
        one.client for one in rows if one.ends and min(sign * one.ends[0], sign * one.ends[1]) > 0
    ]
    return names if len(names) <= 12 else [count(len(names), "client")]


def _gains(rows: Sequence[Fared], what: str, sign: int = 1) -> Markup:
    """A bar for each client, the largest gain first; ``sign`` turns losses back."""
    half, left_out = SHOWN // 2, max(0, len(rows) - SHOWN)
    shown = [*rows[:half], *rows[-half:]] if left_out else list(rows)
    ends = [end for one in shown if one.ends for end in one.ends]
    scale = Scale.over([*(one.gain for one in shown), *ends])
    body: list[list[str]] = [
        [
            one.client,
            f"{sign * one.before:.3f}",
            f"{sign * one.after:.3f}",
            signed(sign * one.gain),
            bar(one.gain, scale, one.ends, _told(one, sign)),
            count(one.examples),
        ]
        for one in shown
    ]
    if left_out:
        body.insert(half, [f"{count(left_out)} more clients in between"])
    head = ["client", "before", "after", "change", "", "examples"]
    return table(head, body, text=(0, 4), caption=f"{what}, client by client", cls="gains")


def _told(one: Fared, sign: int) -> str:
    ends = f", 95 % interval {interval(*one.ends)}" if one.ends else ""
    return f"{one.client}: {signed(sign * one.gain)}{ends}"
