"""Runs as rows of a comparison, whether ``compare`` made them or somebody put them side by side."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedbbpt.errors import RunDirError
from fedbbpt.report.story import Story, data_name, is_run, read_story
from fedbbpt.report.summary import Row, mean_curve
from fedbbpt.tracking import flat

RUNS, AS_IS = "runs", "as-is"
"""Folder of a comparison's runs, and the name of a setting that changes nothing."""
SHOWN = 3
"""Keys in a label."""
OWN = re.compile(r"run\.(seed|ledger|trackers)|trackers\..*|budget\.queries|data\.(train|test|set)")
"""Keys that say which run it is, and not what was tried."""


class Member(NamedTuple):
    """One run and where it stands in the comparison.

    Attributes:
        row: as :mod:`fedbbpt.report.summary` reads them.
        story: the run; ``None`` of one that could not be made.
    """

    row: Row
    story: Story | None


def measured(story: Story) -> Row:
    """What a comparison keeps of a finished run."""
    result = story.result
    metric, queries, size = result["metric"], result["queries"], result["bytes"]
    return {
        "metric": metric,
        "start": result["baseline"][metric],
        "score": result["tuned"][metric],
        "gain_low": result["gain_interval"][0],
        "gain_high": result["gain_interval"][1],
        **{f"{key}_queries": queries[key] for key in ("train", "select", "evaluation", "paid")},
        "rounds": result["rounds"],
        "bytes_up": round(size["up_per_client_round"], 1),
        "bytes_down": round(size["down_per_client_round"], 1),
        "seconds": result["seconds"]["total"],
        "box": result["box"],
        **_seen(story),
    }


def _seen(story: Story) -> Row:
    """Score along the way and kinds of warnings."""
    each = story.each or (story,)
    curves = [[(e["queries"] * len(each), e["test_score"]) for e in s.snapshots] for s in each]
    # Clients that work each for itself, with equal shares of the budget, are averaged.
    curve = [point[:2] for point in mean_curve(curves)] if story.each else curves[0]
    warned = sorted({e["kind"] for one in each for e in one.told("diagnosis")})
    return {"curve": curve, "warnings": " ".join(warned)}


# --- which runs ----------------------------------------------------------------------------------


def members(paths: Sequence[Path]) -> list[Member]:
    """All runs in some directories: of a run itself, or of a comparison with many.

    Raises:
        RunDirError: a directory is neither.
    """
    found: list[Member] = []
    single: list[Story] = []
    for path in paths:
        if is_comparison(path):
            found += _compared(path)
        else:
            single.append(read_story(path))
    labels = _labels(single)
    found += [
        _member(story, data_name(story.config) or story.path.resolve().name, "", label)
        for story, label in zip(single, labels, strict=True)
    ]
    return found


def is_comparison(path: Path) -> bool:
    """Whether a directory is one that ``compare`` writes."""
    return (path / RUNS).is_dir() and not is_run(path)


def _compared(path: Path) -> Iterator[Member]:
    """runs/DATA/SETTING/METHOD/BUDGET-SEED, in the order of rows.csv where that is written."""
    places = [place for place in sorted((path / RUNS).glob("*/*/*/*")) if is_run(place)]
    if not places:
        raise RunDirError(f"{path} is a comparison without any run; run fedbbpt compare again")
    known = _written(path / "rows.csv")
    made: dict[tuple[str, ...], Member] = {}
    for place in places:
        data, setting, method, number = place.relative_to(path / RUNS).parts
        key = (data, setting, method, number)
        row = known.get(key, {})
        setting = str(row.get("setting", "" if setting == AS_IS else setting))
        story = read_story(place)
        made[key] = _member(story, data, setting, str(row.get("method", method)))
    order = [key for key in known if key in made]
    yield from (made[key] for key in [*order, *(key for key in made if key not in known)])
    yield from (Member(_failed(row), None) for key, row in known.items() if key not in made)


def _written(path: Path) -> dict[tuple[str, ...], Mapping[str, str]]:
    """Rows of a comparison by the folder of their run."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return {}
    return {
        tuple(
            re.sub(r'^\.|[/\\:*?"<>|\0]', "_", part)
            for part in (
                row["data"],
                row["setting"] or AS_IS,
                row["method"],
                f"{row['budget']}-{row['seed']}",
            )
        ): row
        for row in rows
    }


def _failed(row: Mapping[str, str]) -> Row:
    whole = {"budget": int(row["budget"]), "seed": int(row["seed"])}
    kept = {key: row[key] for key in ("data", "setting", "method", "note")}
    return {**kept, **whole, "curve": []}


def _member(story: Story, data: str, setting: str, label: str) -> Member:
    config = story.config
    row: Row = {
        "data": data,
        "setting": setting,
        "method": label,
        "budget": config.get("budget", {}).get("queries", 0),
        "seed": config.get("run", {}).get("seed", 0),
        "note": "" if story.result else "not finished",
        "curve": [],
    }
    if story.result:
        row |= measured(story)
        row["note"] = "" if row["score"] is not None else "no test examples"
    return Member(row, story)


def _labels(stories: Sequence[Story]) -> list[str]:
    """The method's name; where one name stands for several configs, also what differs."""
    trees = [_tried(story) for story in stories]
    found = []
    for story, tree in zip(stories, trees, strict=True):
        same = [t for s, t in zip(stories, trees, strict=True) if s.method == story.method]
        differ = sorted(
            {
                k
                for other in same
                for k in other.keys() | tree.keys()
                if any(one.get(k) != same[0].get(k) for one in same)
            }
        )
        shown = [f"{key}={tree.get(key, 'none')}" for key in differ[:SHOWN]]
        more = [f"and {len(differ) - SHOWN} more keys"] if len(differ) > SHOWN else []
        found.append(", ".join([story.method, *shown, *more]))
    return found


def _tried(story: Story) -> dict[str, Any]:
    """What of a config makes two runs different attempts."""
    return {k: v for k, v in flat(story.config).items() if not OWN.fullmatch(k)}


def differences(stories: Sequence[Story]) -> dict[str, list[Any]]:
    """Keys in which configs differ, with the value of each run."""
    trees = [_tried(story) for story in stories]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    columns = {key: [tree.get(key) for tree in trees] for key in keys}
    return {key: values for key, values in columns.items() if any(v != values[0] for v in values)}
