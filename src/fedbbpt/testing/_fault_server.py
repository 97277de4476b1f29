"""What the server of faults knows and counts; how it speaks is in ``_fault_http``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from fedbbpt.errors import ConfigError, closest
from fedbbpt.testing._fault_http import Listener, Window
from fedbbpt.testing._fault_kinds import KINDS, Dice, check_shares, swap
from fedbbpt.types import digest


@dataclass
class Seen:
    """A request that reached the server.

    Attributes:
        at: unix time at which it was read.
        path: without the query.
        body: its exact bytes.
        status: of the reply; 0 while there is none.
        fault: kind of failure, if it was chosen for one.
        answered: a whole reply went out with status 200 and nothing wrong with it.
    """

    at: float
    path: str
    body: bytes
    status: int = 0
    fault: str = ""
    answered: bool = False


class FaultServer:
    """A server on a free port of this machine, to be used in a ``with`` statement.

    It speaks OpenAI's ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models`` (also under
    Azure's ``/openai/deployments/NAME``) and Anthropic's ``/v1/messages``. Replies are one token
    long, the likeliest; usage counts words. Nothing but the standard library is needed.

    Args:
        answer: text of a request (of a chat all messages, joined by line ends) -> token ->
            log-probability: what ``top_logprobs`` lists and the first of which is the reply.
        faults: kind (see :data:`KINDS`) -> share of requests, together at most 1.
        seed: other seeds, other failures.
        label_noise: share of texts for which the likeliest token changes its place with another.
        key: a bearer key (or ``x-api-key``, or ``api-key``) that is asked for, else 401.
        latency: seconds from a request to its reply.
        requests_per_minute: a limit over any 60 s; requests above it get 429. Reported in headers.
        models: the names that it lists and knows, else 404.
        most_tops: largest ``top_logprobs`` (and ``logprobs``) that it gives, else 400.
        retry_after: seconds in the header of ``429-retry-after``.
        drip: seconds that a ``slow`` reply takes longer.

    Attributes:
        log: all requests but those for the list of models.
        in_flight: requests now being served; ``peak``: the most at once.
        refused: requests above the limit.

    Raises:
        ConfigError: a kind is unknown, or shares are not in [0, 1].
    """

    def __init__(
        self,
        answer: Callable[[str], Mapping[str, float]],
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        label_noise: float = 0.0,
        key: str = "",
        latency: float = 0.0,
        requests_per_minute: int | None = None,
        models: Sequence[str] = ("toy",),
        most_tops: int = 20,
        retry_after: float = 0.05,
        drip: float = 0.2,
    ) -> None:
        self.faults = dict(faults or {})
        for kind in self.faults:
            if kind not in KINDS:
                raise ConfigError(f"no fault is of the kind '{kind}'; {closest(kind, KINDS)}")
        shares = {**self.faults, "all faults": sum(self.faults.values())}
        check_shares({**shares, "label_noise": label_noise})
        self.answer, self.dice, self.label_noise = answer, Dice(seed), label_noise
        self.key, self.latency, self.models = key, latency, tuple(models)
        self.most_tops, self.retry_after, self.drip = most_tops, retry_after, drip
        self.window = Window(requests_per_minute)
        self.log: list[Seen] = []
        self.in_flight = self.peak = 0
        self.stopping = threading.Event()
        self.broken: list[BaseException] = []
        self._lock = threading.Lock()
        self._listener: Listener
        self._thread: threading.Thread

    @property
    def url(self) -> str:
        """Where the paths begin: ``http://127.0.0.1:PORT/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def port(self) -> int:
        """The port."""
        return int(self._listener.server_address[1])

    @property
    def requests(self) -> int:
        """Number of requests so far, failed ones included."""
        return len(self.log)

    @property
    def refused(self) -> int:
        """Number of requests above the limit."""
        return self.window.refused

    def __enter__(self) -> FaultServer:
        self._listener = Listener(self)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop; what ``answer`` raised is raised here, unless the test failed anyway."""
        self.stopping.set()
        self._listener.stop()
        self._thread.join()
        if self.broken and error is None:
            raise self.broken[0]

    # --- what the listener asks ------------------------------------------------------------------

    def enter(self, path: str, body: bytes) -> Seen:
        """A request has come."""
        seen = Seen(time.time(), path, body)
        with self._lock:
            self.log.append(seen)
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)
        return seen

    def leave(self) -> None:
        """A request is done with."""
        with self._lock:
            self.in_flight -= 1

    def choose(self, path: str, body: bytes) -> str:
        """The fault of a request, or nothing."""
        thrown = self.dice.throw("fault", digest(path, body))
        for kind, share in self.faults.items():
            thrown -= share
            if thrown < 0:
                return kind
        return ""

    def tokens(self, text: str) -> list[tuple[str, float]]:
        """What may come next, the likeliest first."""
        listed = sorted(self.answer(text).items(), key=lambda item: -item[1])
        key = digest(text)
        if self.dice.fixed("label", key) < self.label_noise:
            listed = _misplaced(listed, self.dice.fixed("other", key))
        return listed


def _misplaced(listed: list[tuple[str, float]], thrown: float) -> list[tuple[str, float]]:
    """The first token's log-probability goes to another, chosen by a number in [0, 1)."""
    values = np.array([value for _, value in listed])
    swap(values, thrown)
    swapped = zip((token for token, _ in listed), values.tolist(), strict=True)
    return sorted(swapped, key=lambda item: -item[1])
