"""What a run leaves for readers when it ends: what its phases declared, and its page."""

from __future__ import annotations

from pathlib import Path

from fedbbpt.report.nearest import nearest
from fedbbpt.report.pages import PAGE, write
from fedbbpt.runner import Run
from fedbbpt.types import RenderedPrompt


def declare(run: Run) -> None:
    """One event for each phase that clients were asked in: which fields it sends, as declared."""
    heard = [e.get("phase", e["event"]) for e in run.books.events if "client" in e]
    for name in dict.fromkeys(heard):
        phase = run.parts.phases.get(name)
        if phase is not None:
            run.books.events.write("declared", phase=name, fields=list(phase.sends(run.parts)))


def name_words(run: Run, prompt: RenderedPrompt) -> None:
    """An event with the words nearest to a soft prompt; a vocabulary that fails is only a pity."""
    if not prompt.soft:
        return
    federation = run.federation
    try:
        found = nearest(prompt, federation.box.vocabulary, federation.split.classes)
    except Exception as error:  # of a user's own box
        found = {"lack": f"looking for them failed ({type(error).__name__})"}
    run.books.events.write("nearest", **found)


def leave(path: Path) -> tuple[str, ...]:
    """Write the page of a run.

    Returns:
        Why it could not be written, a sentence; usually nothing.
    """
    try:
        write(path)
    except Exception as error:  # nothing of the run depends on its page
        return (f"{path / PAGE} could not be written ({type(error).__name__}: {error})",)
    return ()
