"""What a run comes to in plain words, and numbers as people read them."""

from __future__ import annotations

import re

NUMBERS = "no one two three four five six seven eight nine ten eleven twelve".split()


def verdict(before: float, after: float, low: float, high: float) -> str:
    """One plain sentence on whether it helped."""
    if after == before and low == high == 0:
        return (
            "It did not improve: no tuned prompt did better on held-back examples, so the "
            "starting prompt is kept."
        )
    if low > 0:
        return "The tuned prompt is better than the starting prompt."
    if high < 0:
        return "It did not improve: the tuned prompt is worse than the starting prompt."
    return "No sure improvement: the interval includes zero."


def interval(low: float, high: float) -> str:
    """Both ends with their signs."""
    return f"{signed(low)} to {signed(high)}"


def signed(value: float, digits: int = 3) -> str:
    """With its sign, and a minus that is as wide as a plus."""
    shown = f"{value:+z.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return shown if shown.strip("+0.") else shown[1:]


def count(number: float, noun: str = "", plural: str = "") -> str:
    """``"six clients"``, ``"1,200 numbers"``."""
    whole = int(number)
    shown = NUMBERS[whole] if noun and 0 <= whole < len(NUMBERS) else f"{whole:,}"
    return f"{shown} {noun if whole == 1 else plural or noun + 's'}" if noun else shown


def size(amount: float) -> str:
    """Bytes, with three digits that count."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= 0.9995 * factor:
            return f"{_three(amount / factor)} {unit}"
    return f"{amount:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds, or minutes, or hours."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{_three(seconds / 3600)} h"


def dollars(usd: float) -> str:
    """Cents where there are dollars, two digits that count below."""
    if usd >= 0.995 or usd == 0:
        return f"${usd:,.2f}"
    return f"${usd:.2g}" if usd >= 1e-4 else f"${usd:.1e}"


def _three(value: float) -> str:
    return f"{value:.{max(0, 3 - len(str(int(value))))}f}"


def short_box(name: str) -> str:
    """A box's name without the digest of its weights and what else nobody reads."""
    kind, _, rest = name.partition(":")
    bare = re.sub(r"-[0-9a-f]{12,}$", "", rest.partition(":")[0])
    return f"{bare} ({kind})" if bare else kind
