"""The page of one run: what came of it, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedbbpt.report.charts import Curve, chart, money, plain, spread
from fedbbpt.report.clients import clients
from fedbbpt.report.details import costs, left, training
from fedbbpt.report.making import diagnostics, made
from fedbbpt.report.markup import (
    NOTHING,
    Markup,
    folded,
    page,
    pairs,
    paragraphs,
    section,
    table,
    tag,
)
from fedbbpt.report.prompts import prompt, tuned
from fedbbpt.report.sentences import (
    count,
    dollars,
    duration,
    interval,
    short_box,
    signed,
    size,
    verdict,
)
from fedbbpt.report.story import Story, data_name
from fedbbpt.stopping import EARLY, early
from fedbbpt.trees import Tree

Tick = Callable[[float], str]
STOPPED = {
    "budget": "the budget was spent",
    "rounds": "all rounds were played",
    "improved": "the gain was sure",
    "hopeless": "no gain was to be hoped for",
    "interrupted": "it was interrupted",
}


def run_page(story: Story) -> str:
    """The whole page."""
    title = f"{story.path.resolve().name}: {story.method}"
    return page(
        title,
        heading(story),
        result(story),
        figures(story),
        paragraphs(_early(story)),
        prompt(story),
        curves(story),
        clients(story),
        training(story),
        left(story),
        costs(story),
        diagnostics(story),
        made(story),
    )


# --- the headline --------------------------------------------------------------------------------


def heading(story: Story) -> Markup:
    """What was tuned, with what and on what, and whether it helped."""
    name, began = story.path.resolve().name, str(story.made.get("began", ""))[:10]
    over = " · ".join(filter(None, ["fedbbpt", name, began]))
    return tag(
        "header",
        tag("p", over, cls="over"),
        tag("h1", _headline(story)),
        paragraphs(_lede(story), cls="lede"),
        paragraphs(_missing(story), cls="banner"),
    )


def _headline(story: Story) -> str:
    if not story.result:
        return "This run has not ended"
    if story.scores is None:
        return "Tuned, and not tested: there were no test examples"
    (before, after), (low, high) = story.scores, story.gain
    said = verdict(before, after, low, high)
    if story.config.get("method", {}).get("kind") == "baseline":
        what = "better than" if low > 0 else "worse than" if high < 0 else "not surely apart from"
        return f"{story.method} is {what} the starting prompt"
    return said.partition(":")[0].rstrip(".")


def _lede(story: Story) -> str:
    result, config = story.result, story.config
    rounds = result.get("rounds", len(story.merges))
    box = short_box(str(result.get("box") or config.get("box", {}).get("kind", "a model")))
    names = {event.get("client") for event in story.told("client")}
    who = int(result.get("clients") or len(names) or len(story.each))
    baseline = config.get("method", {}).get("kind") == "baseline"
    work = "fitted a baseline" if baseline else f"tuned {tuned(story)}"
    subject = count(who, "client").capitalize() if who else "Clients"
    end = "" if work.endswith(".”") else "."
    data = f", data {data_name(config)}" if data_name(config) else ""
    told = f"Method {story.method}, model {box}{data}, {count(rounds, 'round')}."
    return f"{subject} {work}{end} {told}"


def _missing(story: Story) -> str:
    """What the reader must know is not here."""
    if story.result and (story.events or story.each):
        return ""
    if story.result:
        return (
            "This directory has no events, as that of a node, which sees only its own part: "
            "curves, clients and messages are in the report of the whole run."
        )
    return (
        "What follows is what it has written so far. Nothing was selected and nothing tested yet. "
        f"Go on with: fedbbpt resume {story.path.name}"
    )


# --- before and after ----------------------------------------------------------------------------


def result(story: Story) -> Markup:
    """The two numbers, and where the difference lies."""
    if story.scores is None:
        return NOTHING
    (before, after), (low, high) = story.scores, story.gain
    tests = count(story.result["test_examples"])
    if after == before and low == high == 0:
        said = f"The starting prompt was kept. {tests} test examples, read once, at the end."
        drawn = NOTHING
    else:
        gain = f"gain {signed(after - before)}, 95 % interval {interval(low, high)}"
        said = f"{gain}; {tests} test examples, read once, at the end."
        drawn = spread(after - before, (low, high), gain)
    numbers = tag(
        "p",
        tag("span", story.metric, cls="metric"),
        tag("span", f"{before:.3f}", cls="before"),
        tag("span", "→", cls="arrow"),
        tag("strong", f"{after:.3f}"),
        cls="result",
    )
    told = [verdict(before, after, low, high)] if drawn == NOTHING else []
    return tag("section", numbers, drawn, paragraphs(*told, said, cls="note"), cls="result")


def figures(story: Story) -> Markup:
    """Key figures."""
    found = story.result
    if not found:
        merges = story.merges
        spent = merges[-1]["queries"] if merges else 0
        budget = story.config.get("budget", {}).get("queries")
        shown = [("rounds so far", count(len(merges))), ("queries so far", count(spent))]
        return pairs([*shown, ("budget", count(budget) if budget else "?")], "figures")
    queries, sent, seconds = found["queries"], found["bytes"], found["seconds"]
    usd = found.get("cost_usd")
    up, down = (size(sent[f"{way}_per_client_round"]) for way in ("up", "down"))
    stopped = STOPPED.get(found["stopped"], str(found["stopped"]))
    return pairs(
        [
            ("training queries", f"{count(queries['train'])} of {count(queries['budget'])}"),
            ("paid in all", f"{count(queries['paid'])} queries"),
            ("cost", "no price known" if usd is None else dollars(usd)),
            ("a client in a round", f"{up} up, {down} down"),
            ("time", duration(seconds["total"])),
            ("ended because", stopped),
        ],
        "figures",
    )


def _early(story: Story) -> str:
    return early(story.result) if story.result.get("stopped") in EARLY else ""


# --- along the way -------------------------------------------------------------------------------


def curves(story: Story) -> Markup:
    """Test score and held-back loss of the snapshots, against queries and dollars."""
    kept = story.snapshots
    if not kept:
        why = _no_snapshots(story)
        return section("Along the way", paragraphs(why, cls="note")) if why else NOTHING
    scored = [one for one in kept if one.get("test_score") is not None]
    charts = [
        _against(story, scored, [one["queries"] for one in scored], "training queries"),
        _priced(story, scored),
        _held(story),
    ]
    rows = [
        [
            count(one["queries"]),
            str(one["round"]),
            _number(one.get("holdout_loss")),
            _number(one.get("test_loss")),
            _number(one.get("test_score")),
            "chosen" if one["chosen"] else "start" if not i else "",
        ]
        for i, one in enumerate(kept)
    ]
    head = ["queries", "round", "held-back loss", "test loss", f"test {story.metric}", ""]
    numbers = folded("All snapshots in numbers", table(head, rows, text=(5,), caption="Snapshots"))
    note = (
        "Prompts kept on the way. Held-back examples of the clients chose among them; the test "
        "examples had no say and were read once, for all of them, when the choice was made."
    )
    return section("Along the way", tag("div", *charts, cls="charts"), numbers, note=note)


def _no_snapshots(story: Story) -> str:
    if story.each:
        return "Each client searched for itself; the curves are in the runs under clients/."
    if not story.result:
        return "The prompts kept on the way are scored when the run ends."
    if story.config.get("method", {}).get("kind") == "baseline":
        return "A baseline is fitted at once; there are no steps to show."
    return "This run has left no snapshots in its events, so there is no curve to show."


def _against(
    story: Story, scored: Sequence[Tree], across: Sequence[float], axis: str, tick: Tick = plain
) -> Markup:
    """Test scores of snapshots over what had been spent by then."""
    if len(scored) < 2 or across[-1] <= across[0]:
        return NOTHING
    points = [(x, one["test_score"]) for x, one in zip(across, scored, strict=True)]
    at = next((i for i, one in enumerate(scored) if one["chosen"]), None)
    ring = "" if at is None else f"; ring: the chosen one, {points[at][1]:.3f}"
    return chart(
        f"{story.metric} on the test examples",
        [Curve("", points[:1], tone=7, level=True), Curve("", points)],
        axis,
        f"{story.metric} goes from {points[0][1]:.3f} with the starting prompt to "
        f"{points[-1][1]:.3f} at {tick(points[-1][0])} ({axis}).",
        f"dotted: starting prompt, {points[0][1]:.3f}{ring}",
        mark=None if at is None else points[at],
        dots=True,
        tick=tick,
    )


def _priced(story: Story, scored: Sequence[Tree]) -> Markup:
    """The same against dollars, where each request's price is known."""
    by_round = story.dollars
    if not by_round:
        return NOTHING
    spent = [sum(usd for r, usd in by_round.items() if r < one["round"]) for one in scored]
    return _against(story, scored, spent, "cost of the search", money)


def _held(story: Story) -> Markup:
    """Held-back losses of all snapshots: what the choice was made by."""
    kept = [one for one in story.snapshots if one.get("holdout_loss") is not None]
    if len(kept) < 2:
        return NOTHING
    points = [(one["queries"], one["holdout_loss"]) for one in kept]
    chosen = (point for point, one in zip(points, kept, strict=True) if one["chosen"])
    return chart(
        "loss on held-back examples, by which one was chosen",
        [Curve("", points[:1], tone=7, level=True), Curve("", points, tone=1)],
        "training queries",
        f"The held-back loss goes from {points[0][1]:.3f} to {points[-1][1]:.3f}.",
        mark=next(chosen, None),
        dots=True,
    )


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "–"
