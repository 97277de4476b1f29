"""The tuned prompt as people read it: the template with its words in place, and the labels."""

from __future__ import annotations

from fedbbpt.errors import ExportError
from fedbbpt.exports._again import Draft, compare, templates
from fedbbpt.finished import Finished
from fedbbpt.types import RenderedPrompt


def draft(run: Finished) -> Draft:
    """One file. A prompt for all classes stands above a line ``class = word`` for each; where each
    class has its own, each stands below its line. One without classes stands alone.

    Raises:
        Incompatible: the prompt is not made of words.
        ExportError: what would be written is not what was tuned.
    """
    lines = [f"{name} = {word}" for name, word in zip(run.classes, run.prompt.labels, strict=True)]
    found = templates(run)
    if not lines:
        written = f"{found[0]}\n"
    elif len(found) == 1:
        written = f"{found[0]}\n\n" + "".join(f"{line}\n" for line in lines)
    else:
        pairs = zip(lines, found, strict=True)
        written = "\n".join(f"{line}\n{template}\n" for line, template in pairs)
    again = [
        RenderedPrompt(template, run.prompt.labels, run.prompt.side)
        for template in _read(written, lines, len(found))
    ]
    return Draft("prompt.txt", {"": written.encode()}, compare(run, again))


def _read(written: str, lines: list[str], count: int) -> list[str]:
    """The prompts in a file, found by its lines of labels."""
    if not lines:
        return [written.removesuffix("\n")]
    if count == 1:
        template, found, _ = written.rpartition("\n\n" + "\n".join(lines) + "\n")
        return [template] if found else []
    rest, templates = written, []
    for line in reversed(lines):
        rest, found, template = rest.rpartition(f"{line}\n")
        if not found:
            raise ExportError(f"the line '{line}' cannot be told from the prompt's own")
        templates.append(template.removesuffix("\n").removesuffix("\n"))
    return templates[::-1]
