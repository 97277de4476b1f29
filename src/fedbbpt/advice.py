"""What to tune and how, by what a model takes and gives, with the reasons.

The doctor prints it, and ``method = "auto"`` does it. What it rests on was measured:
benchmarks/results, docs/decisions.md.
"""

from __future__ import annotations

from typing import NamedTuple

from fedbbpt.black_box import AtomicBox


class Recommended(NamedTuple):
    """What to tune and how, with the reasons, one for each choice."""

    method: str
    prompt: str
    side: str
    loss: str
    reasons: tuple[str, ...]


WORDY = Recommended(
    "fedinstruct",
    "instruction",
    "text",
    "error",
    (
        "fedinstruct because with answers in words the instruction is what can be searched",
        "task generate, and loss error, because an answer in words is compared with the right one",
    ),
)
"""For a box that answers in words and gives no scores of labels, or where words are wanted."""


def recommend(box: AtomicBox, scored: bool, sides: frozenset[str] | None = None) -> Recommended:
    """By what the box takes and what it gives.

    Args:
        box: the model.
        scored: it gives log-probabilities, and not only the label that a reply names.
        sides: where a prompt may stand, if not everywhere where the box takes one.
    """
    sides = box.sides if sides is None else sides
    loss = "cross_entropy" if scored else "error"
    told = "its log-probabilities are real" if scored else "only the label that a reply names is"
    why = [f"loss {loss} because {told}" + ("" if scored else " sure")]
    if "embeddings" in box.gives:
        why.append("linear-probe is the rival to beat: a query for each example is all it needs")
    if box.accepts == {"image"}:
        return _on_pictures(box, loss, why)
    soft = "soft" in box.accepts and box.vocabulary is not None
    if "label" in sides:
        method, reason = "fedwords", "fedwords because soft prompts are not taken"
        if "image" in box.sides:
            reason = "fedwords because words about images went further than soft prompts"
        elif soft and scored:
            method, reason = (
                "fedlinear",
                "fedlinear because soft prompts are taken, and a linear model of all scores that "
                "were paid needs the fewest queries; fedwords for words one can read",
            )
        elif soft:
            reason = "fedwords because soft prompts want log-probabilities"
        why.insert(0, reason)
        why.insert(1, "label side because there a candidate is paid once for all clients")
        kind = "soft" if method == "fedlinear" else "tokens"
        return Recommended(method, kind, "label", loss, tuple(why))
    if soft:
        why.insert(0, "fedwords because on the text side soft prompts over-fit few examples")
    else:
        why.insert(0, "fedwords because the API takes text only")
    if box.vocabulary is None:
        why.append("give prompt.words, or prompt.vocabulary = 'clients': its tokens are not known")
    return Recommended("fedwords", "tokens", "text", loss, tuple(why))


def _on_pictures(box: AtomicBox, loss: str, why: list[str]) -> Recommended:
    why.insert(0, "fedlook because few numbers can be learned by differences: a look has nine")
    if "classes" in box.gives:
        why.insert(1, "it also learns what the model's own classes mean, by the clients' counts")
    else:
        why.insert(1, "set prompt.mapping = 'names': the model has no classes of its own")
    return Recommended("fedlook", "visual", "image", loss, tuple(why))
