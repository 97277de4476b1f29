"""The gap of a template: the one place in it that is filled with a label or with a text."""

from __future__ import annotations

from fedbbpt.errors import ConfigError

GAPS = {"label": "{label}", "text": "{text}", "image": "{label}"}


def gap_of(template: str, side: str) -> str:
    """What a template leaves open on a side: ``"{label}"`` or ``"{text}"``. Where pictures are
    prompted there may be no template: a classifier's labels are its own.

    Raises:
        ConfigError: there is no such side, or the template does not hold its gap once.
    """
    if side not in GAPS:
        raise ConfigError(f"prompt.side is '{side}'; known: {', '.join(GAPS)}")
    if not template and side == "image":
        return GAPS[side]
    if template.count(GAPS[side]) != 1:
        raise ConfigError(
            f"prompt.template '{template}' must hold {GAPS[side]} once for side = '{side}'"
        )
    return GAPS[side]
