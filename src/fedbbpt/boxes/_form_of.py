"""The form of a box that a server describes, made again at its client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedbbpt.boxes._dual_form import Dual
from fedbbpt.boxes._forms import Form, Pairs, Prompted, Shares
from fedbbpt.boxes._mapped import Mapped


def form_of(name: str, facts: Mapping[str, Any], shares: Shares) -> Form:
    """The form that a server describes.

    Args:
        name: the box's.
        facts: the form's kind and :meth:`Form.facts`.
        shares: asks the server, where the form has any.

    Raises:
        KeyError: another kind, or a fact is missing.
    """
    makers: dict[str, Callable[[], Form]] = {
        "pairs": lambda: Pairs(name),
        "prompted": lambda: Prompted(name, shares if facts["shares"] else None),
        "mapped": lambda: Mapped(name, facts["classes"]),
        "dual": lambda: Dual(
            name, float(facts["scale"]), int(facts["hidden"]), bool(facts["pictures"])
        ),
    }
    return makers[facts["kind"]]()
