"""The prompt itself, before and after, as far as people can read it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from fedbbpt.arrays import Arrays, decode
from fedbbpt.artefact import ARRAYS, placed
from fedbbpt.report import pictures
from fedbbpt.report.markup import (
    NOTHING,
    Markup,
    folded,
    listed,
    paragraphs,
    section,
    table,
    tag,
    together,
)
from fedbbpt.report.sentences import count, signed
from fedbbpt.report.story import Story
from fedbbpt.rundir import RunDir
from fedbbpt.trees import Tree

BEST = 10
"""Instructions to show at once."""
LOOK = "zoom, aspect, shift right, shift down, contrast, brightness, gamma, saturation, sharpness"
"""What the nine numbers of a look are, in the order of :mod:`fedbbpt.prompts._look`."""
MANY = 4
"""Classes whose nearest words are shown at once."""
OF = {
    "tokens": "the words beside “{template}”",
    "instruction": "the instruction “{instruction}”",
    "manual": "the prompt “{template}”",
}


def tuned(story: Story) -> str:
    """What the search moved, in half a sentence."""
    table_, kept = story.config.get("prompt", {}), story.prompt
    kind, many = str(table_.get("kind", "soft")), kept.get("parameters")
    known = {"template": table_.get("template", ""), "instruction": table_.get("instruction", "")}
    numbers = f"{count(many)} numbers" if many else "numbers"
    if kind == "soft" and table_.get("mode", kept.get("mode", "add")) == "add":
        return f"{numbers} that move the words of “{known['template']}”"
    if kind == "soft":
        return f"{numbers} behind new tokens in front of “{known['template']}”"
    if kind == "visual":
        return f"{numbers} that say how every picture is changed"
    return OF.get(kind, f"a prompt of the kind {kind}").format(**known)


def prompt(story: Story) -> Markup:
    """Before and after."""
    title = "The prompt"
    if not story.result:
        return section(title, _before(story), note="It is chosen when the run ends.")
    if story.each:
        note = "Each client tuned its own, for itself alone: see the runs under clients/."
        return section(title, _before(story), note=note)
    if not story.prompt:
        note = "A baseline tunes no prompt: what it learned stands beside the starting prompt."
        return section(title, _before(story), note=note)
    kept = bool(story.snapshots) and story.chosen == 0
    note = "The starting prompt was kept." if kept else ""
    shown = [_picture(story), _look(story)] if story.prompt.get("side") == "image" else []
    return section(
        title,
        _before(story),
        NOTHING if kept else _after(story),
        *shown,
        NOTHING if kept else _nearest(_found(story)),
        _instructions(story),
        _mapping(story),
        note=note,
    )


# --- texts ---------------------------------------------------------------------------------------


def _before(story: Story) -> Markup:
    wanted = story.config.get("prompt", {})
    own = str(wanted.get("instruction", ""))
    return _texts("before", own or str(wanted.get("template", "")), _labels(story))


def _labels(story: Story) -> Sequence[tuple[str, str]]:
    """(class, the word for it)."""
    kept = story.prompt
    classes, labels = kept.get("classes", ()), kept.get("labels", ())
    if len(classes) == len(labels):
        return list(zip(map(str, classes), map(str, labels), strict=True))
    return [(str(k), str(v)) for k, v in story.config.get("prompt", {}).get("labels", {}).items()]


def _texts(what: str, template: str, labels: Sequence[tuple[str, str]]) -> Markup:
    """A prompt as a quotation; under it the words for the classes that are not their names."""
    if not template:
        return NOTHING
    words = [f"{name}: {word}" for name, word in labels if name != word]
    below = listed(words, "labels") if words else NOTHING
    return tag("div", tag("span", what), tag("blockquote", template), below, cls="prompt")


def after(story: Story) -> str:
    """The tuned prompt in one line, where it is text and another one than before."""
    kept = story.prompt
    words = [str(text) for text in kept.get("text", ())]
    if not words or (story.snapshots and story.chosen == 0):
        return ""
    names = [str(name) for name in kept.get("classes", ())]
    if len(words) > 1 and len(names) == len(words):
        return "; ".join(f"{name}: {text}" for name, text in zip(names, words, strict=True))
    return " / ".join(words)


def _after(story: Story) -> Markup:
    """The text that was found, if it is text."""
    kept, kind = story.prompt, story.prompt.get("kind")
    words = [str(text) for text in kept.get("text", ())]
    if kind == "tokens" or (kind == "text" and words):
        names = [str(name) for name in kept.get("classes", ())]
        if len(words) > 1 and len(names) == len(words):
            rows = [[name, text or "(no word)"] for name, text in zip(names, words, strict=True)]
            whole = table(["class", "tuned words"], rows, text=(0, 1), caption="The tuned words")
            return tag("div", tag("span", "after"), whole, cls="prompt")
        if not any(words):
            return paragraphs(
                "The chosen prompt has no tuned word: the text is the same.", cls="note"
            )
        shown = str(kept["template"]) if kind == "text" else _placed(kept, " ".join(words))
        return tag("div", tag("span", "after"), tag("blockquote", shown), cls="prompt")
    if kind == "soft":
        said = (
            "A soft prompt is made of numbers that stand for no words. Nearest to each of its "
            "places in the model's own vocabulary are the words below; a place that was hardly "
            "moved is nearest to where it began."
        )
        found = _found(story)
        told = said if found.get("prompts") else _not_looked_up(found)
        return paragraphs(told, cls="note")
    return NOTHING


def _placed(kept: Tree, words: str) -> str:
    where = (str(kept.get(key, "")) for key in ("template", "side", "place"))
    return placed(words.strip(), *where)


def _found(story: Story) -> Tree:
    """What was kept of the words near a soft prompt."""
    return next(iter(story.told("nearest")), {})


def _not_looked_up(found: Tree) -> str:
    reason = found.get("lack") or "none were kept in this directory"
    return f"A soft prompt is made of numbers that stand for no words. No words near it: {reason}."


def _nearest(found: Tree) -> Markup:
    """The vocabulary's words nearest to each place of a soft prompt."""
    tables: list[Markup] = []
    for one in found.get("prompts", ()):
        rows = [
            [
                row["was"],
                ", ".join(row["words"]),
                f"{row['cosine']:.2f}",
                "" if row.get("moved") is None else f"{row['moved']:.2f}",
            ]
            for row in one["places"]
        ]
        head = ["place", "nearest words", "cosine", "moved"]
        caption = f"for the class “{one['class']}”" if one.get("class") else "Nearest words"
        tables.append(table(head, rows, text=(0, 1), caption=caption, cls="nearest"))
    if not tables:
        return NOTHING
    note = "moved: length of the change against the length of the embedding it began at."
    some = tag("div", *tables[:MANY], paragraphs(note, cls="small"), cls="many")
    if len(tables) <= MANY:
        return some
    more = tag("div", *tables[MANY:], cls="many")
    return tag("div", some, folded(f"{count(len(tables) - MANY)} more classes", more))


def _instructions(story: Story) -> Markup:
    """The pool, the best first."""
    rows = [
        [
            together(str(one["instruction"]), tag("small", _whose(one))),
            "–" if one.get("loss") is None else f"{one['loss']:z.2f} ± {one['error']:.2f}",
            count(one.get("answers", 0)),
        ]
        for one in story.candidates
    ]
    if not rows:
        return NOTHING
    head = ["instruction", "expected loss", "answers"]
    best = table(head, rows[:BEST], caption="Instructions, the best first")
    rest = rows[BEST:]
    if not rest:
        return best
    more = table(head, rest, caption="The other instructions")
    return tag("div", best, folded(f"{count(len(rest))} more", more))


def _whose(one: Tree) -> str:
    author = f"written at {one['author']}" if one.get("author") else "yours"
    return f"chosen; {author}" if one.get("chosen") else author


# --- pictures and mappings -----------------------------------------------------------------------


def _arrays(story: Story) -> Arrays:
    try:
        return decode((RunDir(story.path, "").prompt / ARRAYS).read_bytes())
    except (OSError, ValueError):
        return {}


def _picture(story: Story) -> Markup:
    """The picture of a prompt that holds nobody's picture."""
    arrays, file = _arrays(story), RunDir(story.path, "").pictures / pictures.PROMPT
    private = "Pictures of examples before and after are private, so they are left out here."
    what = next((k for k in ("look", "overlay") if f"visual.{k}" in arrays), "")
    source = _inline(file) if what else ""
    if not source:
        return paragraphs(private, cls="note")
    told = (
        "A test chart before the prompt (left) and after it (right)."
        if what == "look"
        else "What is added to every picture, around grey and made stronger to be seen."
    )
    shown = tag("img", src=source, alt=told)
    return tag("figure", shown, tag("figcaption", told, tag("small", private)), cls="picture")


def _inline(file: Path) -> str:
    """An image as a data address; nothing if it is not there."""
    try:
        data = file.read_bytes()
    except OSError:
        return ""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _look(story: Story) -> Markup:
    """The nine numbers of a look."""
    found, names = _arrays(story).get("visual.look"), LOOK.split(", ")
    if found is None or found.shape != (len(names),):
        return NOTHING
    rows = [[name, signed(value, 2)] for name, value in zip(names, found.tolist(), strict=True)]
    head = ["look", "in units of its step"]
    return table(head, rows, caption="The look that was tuned", cls="slim")


def _mapping(story: Story) -> Markup:
    if story.config.get("prompt", {}).get("mapping", "names") == "names":
        return NOTHING
    kind = story.config["prompt"]["mapping"]
    note = f"The model's own classes stand for those of the task by a mapping ({kind})."
    return paragraphs(note, cls="note")
