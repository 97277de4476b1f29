"""What servers say beside their answers: errors in words, and how long to wait."""

from __future__ import annotations

import contextlib
import time
from email.utils import parsedate_to_datetime
from typing import Any


def message(data: Any) -> str:
    """What the server says of an error, in the forms that are in use."""
    for key in ("error", "detail", "message"):
        if isinstance(data, dict) and data.get(key):
            found = data[key]
            if isinstance(found, dict):
                code = f" [{found['code']}]" if found.get("code") else ""
                return f"{found.get('message', found)}{code}"
            return str(found)
    return ""


def after(headers: dict[str, str]) -> float | None:
    """Seconds that the server asks to wait; a date is taken by the local clock."""
    said = headers.get("retry-after", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(said))
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
