"""The end of a run's page: its warnings, and how it was made."""

from __future__ import annotations

import re

import tomli_w

from fedbbpt.report.markup import NOTHING, Markup, folded, listed, pairs, paragraphs, section, tag
from fedbbpt.report.sentences import count
from fedbbpt.report.story import Story

USERINFO = re.compile(r"(?<=://)[^/\s\"'@]+@")
"""A name and a password in an address."""


def diagnostics(story: Story) -> Markup:
    """All that a run prints as a warning, and what was refused or lost on the way."""
    stories = story.each or (story,)
    said = [*dict.fromkeys(e["sentence"] for one in stories for e in one.told("note"))]
    for one in stories:
        whose = f"{one.config['partition']['only']}: " if story.each else ""
        said += [f"{whose}{event['sentence']}" for event in one.told("diagnosis")]
    refused = story.told("refused")
    if refused:
        reasons = dict.fromkeys(
            f"{e['client']}, round {e['round']}: {e['reason']}" for e in refused
        )
        said.append(f"{count(len(refused), 'update')} not let in. {'; '.join([*reasons][:5])}")
    said += [f"{e['client']} {e['what']} {e.get('why') or ''}" for e in story.told("node")][:20]
    if story.result and story.result["queries"]["dropped"]:
        said.append(f"{count(story.result['queries']['dropped'])} queries stayed unanswered.")
    if said:
        return section("Warnings", listed(said, "warnings"))
    searched = story.result and story.config.get("method", {}).get("kind") != "baseline"
    none = "None: nothing that a run can notice by itself went wrong." if searched else ""
    return section("Warnings", paragraphs(none, cls="note")) if none else NOTHING


def made(story: Story) -> Markup:
    """Versions, commit, date, and the exact config."""
    facts = story.made
    versions = facts.get("versions") or {"fedbbpt": facts.get("version", "not recorded")}
    known = [
        ("run", f"{story.path.resolve().name} {facts.get('run', '')}".strip()),
        ("seed", str(story.config.get("run", {}).get("seed", "?"))),
        ("begun", str(facts.get("began", "not recorded"))),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ("commit", str(facts.get("commit") or "not run from a checkout, or not recorded")),
        ("machine", str(facts.get("machine", "not recorded"))),
        *((f"sha256 of {name}", str(sum_)) for name, sum_ in facts.get("data", {}).items()),
    ]
    config = USERINFO.sub("", tomli_w.dumps(story.config))
    exact = folded("Exact config, every default written out", tag("pre", tag("code", config)))
    note = "A run of this config with the same data and model ends with the same numbers."
    return section("How it was made", pairs(known), exact, note=note, name="made")
