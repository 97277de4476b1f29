"""The tuned prompt in other programs' forms. Each is read back and tested before it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fedbbpt.errors import RunDirError, UnknownPart, closest
from fedbbpt.exports import dspy, openai, peft, text
from fedbbpt.exports._again import Draft
from fedbbpt.finished import Finished

FORMS: dict[str, Callable[[Finished], Draft]] = {
    "text": text.draft,
    "openai": openai.draft,
    "peft": peft.draft,
    "dspy": dspy.draft,
}
FOLDER = "export"
"""In a run directory, for exports that are not given a place."""


class Exported(NamedTuple):
    """What was written: a file or a folder of ``draft.files``."""

    path: Path
    draft: Draft


def export(run: Finished, to: str, out: Path | None = None) -> Exported:
    """Write the tuned prompt in the form ``to``, once it has passed its self-test.

    Args:
        run: whose prompt.
        to: one of :data:`FORMS`.
        out: file or folder; ``export/`` in the run directory if absent.

    Raises:
        UnknownPart: there is no such form.
        Incompatible: this prompt cannot be put into it.
        ExportError: the self-test failed; nothing is written.
        RunDirError: ``out`` cannot be written.
    """
    if to not in FORMS:
        raise UnknownPart(f"there is no export to '{to}'; {closest(to, FORMS)}")
    draft = FORMS[to](run)
    path = out or run.path / FOLDER / draft.name
    folder = path.parent if draft.single else path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in draft.files.items():
            (path if draft.single else path / name).write_bytes(data)
    except OSError as error:
        raise RunDirError(
            f"{path} cannot be written ({error.strerror}); choose another --out"
        ) from None
    return Exported(path, draft)
