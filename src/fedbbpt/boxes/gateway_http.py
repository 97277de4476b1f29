"""A box that another machine serves with ``fedbbpt serve-model``; needs no torch here.

The client makes the very atoms, with the very keys, that the box itself would make, and only their
evaluation goes over the wire: same counts, same budget, same scores. Prompts and texts are sent
once per request; the gateway answers what any of its clients paid for before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

import numpy as np

from fedbbpt.arrays import Array
from fedbbpt.black_box import AtomicBox
from fedbbpt.boxes._far_vocabulary import FarVocabulary
from fedbbpt.boxes._form_of import form_of
from fedbbpt.boxes._forms import check_asked
from fedbbpt.boxes._limits import Limiter
from fedbbpt.boxes._packed import (
    PROTOCOL,
    pack,
    pack_arrays,
    pack_prompt,
    unpack_rows,
)
from fedbbpt.boxes._wire import Again, Answer, Request, Wire, bearer
from fedbbpt.errors import BoxError, ConfigError
from fedbbpt.storage import Till
from fedbbpt.types import Atom, Grid, Receipt, RenderedPrompt

FIRST = 30.0
"""Seconds within which a gateway must answer for the first time: long enough for one that is being
started beside this client, short enough to learn of a mistyped URL."""
CALLS = 64
"""Connections at most: one for each thread of an engine."""
MOST = 512
"""Atoms in a request: enough to fill a model's batches, few enough to be answered in time."""
HEAVIEST = 32 << 20
"""Bytes of pictures or other arrays in a request, unless it is a single one."""


class GatewayHttp(AtomicBox):
    """The client of a gateway.

    Args:
        url: of the gateway, such as ``http://127.0.0.1:8080``.
        key_env: environment variable that holds the key, if the gateway wants one.
        deadline: seconds for one request of up to 512 queries with all its tries, also while the
            gateway is away and comes back; long, since a model may take that long. The first
            request of all has 30 at most.
        timeout: seconds for one try.

    Raises:
        ConfigError: the URL cannot be used, or what answers there is no gateway of this version.
        BoxError: the gateway cannot be reached, or refuses the key.
        MissingExtra: httpx2 or stamina is not installed.
    """

    steady = True
    priced = False  # what its owner pays for the model is not told

    def __init__(
        self, url: str, key_env: str = "", deadline: float = 300.0, timeout: float = 300.0
    ) -> None:
        base = url.rstrip("/").removesuffix("/v1")
        self._wire = Wire(f"{base}/v1", key_env, bearer, deadline, timeout, CALLS, Limiter())
        self._wire.deadline = min(FIRST, deadline)
        self._till: Till | None = None
        self._known_shares: dict[tuple[str, ...], Array] = {}
        try:
            self._learn(self._ask("/info"))
        except (LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"{url} answers, but is no gateway of fedbbpt") from error
        self._wire.deadline = deadline

    def _learn(self, info: dict[str, Any]) -> None:
        """Be what the gateway says that its box is."""
        if info["protocol"] != PROTOCOL:
            raise ConfigError(
                f"{self._wire.url} speaks version {info['protocol']} of the gateway's protocol, "
                f"this program {PROTOCOL}; install the same version of fedbbpt on both sides"
            )
        self.name, self.max_tokens = str(info["box"]), info["max_tokens"]
        self.accepts, self.sides = frozenset(info["accepts"]), frozenset(info["sides"])
        self.gives = frozenset(info["gives"])
        self._form = form_of(self.name, info["form"], self._shares)
        words = info["vocabulary"]
        if words is not None:
            self.vocabulary = FarVocabulary(self._ask, int(words["hidden"]), float(words["std"]))

    @property
    def hidden(self) -> int:
        """H of the embeddings that the box behind the gateway gives."""
        return int(getattr(self._form, "hidden", super().hidden))

    def billed(self, till: Till) -> AtomicBox:
        """The same box with a till, which books every request and never has to pay for one."""
        other = copy(self)
        other._till = till
        return other

    def prepare(self, prompt: RenderedPrompt) -> None:
        """What the box behind the gateway refuses, in its words."""
        check_asked(self.name, self.gives, [prompt])
        arrays: dict[str, Array] = {}
        packed = pack_prompt(prompt, arrays)
        self._ask("/prepare", {"prompt": packed, "arrays": pack_arrays(arrays)})

    def split(self, prompts: Sequence[RenderedPrompt], examples: Sequence[Any]) -> Grid:
        """The atoms that the box behind the gateway makes."""
        check_asked(self.name, self.gives, prompts)
        return self._form.split(prompts, examples)

    def evaluate(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        """Rows of the wanted atoms; sent with them is what shares their batches, as the box
        itself would form them.
        """
        near = self._form.beside(atoms, wanted)
        asked, rows = set(wanted), dict[int, Array]()
        for group in self._groups(atoms, near):
            places = [place for place, i in enumerate(group) if i in asked]
            if places:
                some = [atoms[i] for i in group]
                found = self._rows(some, places)
                rows.update(zip((group[place] for place in places), found, strict=True))
        return [rows[i] for i in wanted]

    def _groups(self, atoms: Sequence[Atom], near: Sequence[int]) -> Iterator[list[int]]:
        """What is sent in one request each."""
        group: list[int] = []
        weight = 0
        for i in near:
            example = self._form.content(atoms[i]).example
            size = int(getattr(getattr(example, "pixels", example), "nbytes", 0))
            if len(group) == MOST or (group and weight + size > HEAVIEST):
                yield group
                group, weight = [], 0
            group.append(i)
            weight += size
        if group:
            yield group

    # --- over the wire -----------------------------------------------------------------------

    def _rows(self, atoms: Sequence[Atom], wanted: Sequence[int]) -> list[Array]:
        body = {"box": self.name, **pack(self._form, atoms, wanted)}
        request, keys = _request("/evaluate", body), [atoms[i].key for i in wanted]

        def send(seconds: float) -> list[Array]:
            hold = self._till.reserve(0, 0.0) if self._till else None
            began, receipt = time.monotonic(), Receipt(time.time(), 0)
            paid: dict[bytes, Array] = {}
            try:
                answer = self._wire.post(request, seconds)
                receipt = receipt._replace(status=answer.status)
                rows = _read(self._judged(answer), len(wanted))
                known = zip(keys, rows, strict=True)
                paid = {key: row for key, row in known if np.isfinite(row).all()}
                return rows
            finally:
                if self._till is not None and hold is not None:
                    took = round(time.monotonic() - began, 6)
                    self._till.settle(hold, receipt._replace(seconds=took), paid)

        return self._wire.ask(send, 0)

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request that costs nothing."""

        def send(seconds: float) -> dict[str, Any]:
            if body is None:
                return self._judged(self._wire.get(path, seconds))
            return self._judged(self._wire.post(_request(path, body), seconds))

        return self._wire.ask(send, 0)

    def _judged(self, answer: Answer) -> dict[str, Any]:
        """The reply, or what the gateway has against it."""
        if answer.status in (422, 424) and isinstance(answer.data, dict):
            said = str(answer.data.get("error", {}).get("message", "no explanation"))
            # A prompt or a key of the config is at fault, or the model itself.
            raise ConfigError(said) if answer.status == 422 else BoxError(said)
        self._wire.judge(answer)
        if not isinstance(answer.data, dict):
            raise Again(f"status {answer.status} with a reply that is not JSON")
        return answer.data

    def _shares(self, labels: tuple[str, ...]) -> Array:
        if labels not in self._known_shares:
            reply = self._ask("/shares", {"labels": labels})
            self._known_shares[labels] = np.array(reply["shares"], np.float64)
        return self._known_shares[labels]


def _read(data: dict[str, Any], count: int) -> list[Array]:
    """The rows of a reply."""
    try:
        rows = unpack_rows(data["rows"])
    except (ConfigError, LookupError, TypeError, ValueError) as error:
        raise Again("the reply holds no rows") from error
    if len(rows) != count:
        raise Again(f"the reply holds {len(rows)} rows, not {count}")
    return rows


def _request(path: str, body: dict[str, Any]) -> Request:
    return Request(path, json.dumps(body).encode())
