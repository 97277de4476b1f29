"""Keeps requests under a server's limits per minute, and near them.

Each limit holds twice. A pace (the generic cell rate algorithm, ITU-T I.371) spreads requests
evenly with a small burst, because servers also dislike a minute's worth in one second. A log of
the last ``WINDOW`` seconds makes the limit exact, which a pace alone is not where single requests
are a large part of a minute's tokens.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from fedbbpt.errors import ConfigError

WINDOW = 60 / 0.97
"""Seconds in which a minute's worth may be sent. The server counts arrivals: those of 60 s were
sent within 60 s and whatever their delays differ by, so 1.86 s may they differ, for 3 % of the
limit; the rest of what may be lost (5 %) is left to waking late."""

BURST = 0.02
"""Share of a minute's worth that may go at once: what a moment's stall has cost is caught up."""

_LEARN = 0.1
"""Weight of the last correction among all."""

_SLICE = 0.05
"""Longest sleep in seconds: then it is seen again whether a correction or a pause has come."""
_TICK = 1e-4
"""Shortest sleep in seconds: shorter ones may be lost in the clock's rounding."""


class Limiter:
    """Requests of all threads of this process pass one by one, first come, first served.

    In any 60 s a server sees at most ``requests_per_minute`` requests of at most
    ``tokens_per_minute`` tokens, as long as their delays differ by less than 1.86 s; kept busy, at
    least 95 % of the scarcer limit is used, less the tokens that those in flight keep back and
    will not use. Every attempt of a request has to pass, for servers count those that fail.

    Args:
        requests_per_minute: the limit, at least 1; ``None`` for none.
        tokens_per_minute: the limit, at least 1; ``None`` for none.
        clock: seconds from any origin, never going back.
        sleep: waits so many seconds.

    Raises:
        ConfigError: a limit is below 1 or not finite.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = _Limit("requests_per_minute", requests_per_minute)
        self._tokens = _Limit("tokens_per_minute", tokens_per_minute)
        self._clock, self._sleep = clock, sleep
        self._paused = -math.inf
        self._lock = threading.Lock()
        self._line: deque[threading.Event] = deque()
        self._last = threading.local()

    def wait(self, tokens: int = 0) -> float:
        """Block until a request may be sent, and count it as sent.

        Args:
            tokens: the most that it can use, of prompt and reply.

        Returns:
            The clock when it passed.

        Raises:
            ConfigError: it alone is over the limit, so that it would wait for ever.
        """
        if tokens > self._tokens.limit:
            raise ConfigError(
                f"tokens_per_minute is {self._tokens.limit:g}, but one request may use "
                f"{tokens} tokens; raise the limit or shorten prompt and reply"
            )
        turn = threading.Event()
        with self._lock:
            self._line.append(turn)
            self._line[0].set()
        try:
            turn.wait()
            while (delay := self._pass(tokens)) > 0:
                self._sleep(min(max(delay, _TICK), _SLICE))
            passed = self._last.passed = self._clock()
            return passed
        finally:
            with self._lock:
                self._line.remove(turn)
                if self._line:
                    self._line[0].set()

    def correct(self, tokens: int, passed: float | None = None) -> None:
        """Tell what a request used less what it was counted with.

        Args:
            tokens: negative gives tokens back.
            passed: what :meth:`wait` returned for it; left out, it is this thread's last.
        """
        own = getattr(self._last, "passed", -math.inf) if passed is None else passed
        with self._lock:
            self._tokens.correct(tokens, own)

    def pause(self, seconds: float) -> None:
        """Let nobody pass for so long (``Retry-After``); the pause that ends last holds."""
        with self._lock:
            self._paused = max(self._paused, self._clock() + seconds)

    def _pass(self, tokens: int) -> float:
        """Seconds still to wait; if none, the request is counted."""
        with self._lock:
            now = self._clock()
            delay = max(
                self._paused - now, self._requests.delay(1, now), self._tokens.delay(tokens, now)
            )
            if delay <= 0:
                self._requests.take(1, now)
                self._tokens.take(tokens, now)
            return delay


class _Limit:
    """One limit: so many units in any ``WINDOW``, at an even pace."""

    def __init__(self, name: str, limit: float | None) -> None:
        if limit is not None and not 1 <= limit < math.inf:
            raise ConfigError(f"{name} is {limit}; it must be at least 1, or left away")
        self.limit = math.inf if limit is None else limit
        self._pace = WINDOW / self.limit  # seconds a unit
        self._burst = max(1.0, BURST * self.limit)
        self._due = -math.inf  # when all that was sent will be worked off at the pace
        self._usual, self._corrections = 0.0, 0  # what corrections are like, and their number
        self._log: deque[list[float]] = deque()  # [time, units]
        self._total = 0.0  # of the log

    def delay(self, units: float, now: float) -> float:
        """Seconds until so many units may go."""
        if self.limit == math.inf:
            return 0.0
        while self._log and self._log[0][0] <= now - WINDOW:
            self._total -= self._log.popleft()[1]
        # More than a burst goes once all before it is worked off.
        delay = self._due - now - max(self._burst - self._expected(units), 0) * self._pace
        excess = self._total + units - self.limit
        for at, old in self._log:
            if excess <= 0:
                break
            delay, excess = max(delay, at + WINDOW - now), excess - old
        return delay

    def take(self, units: float, now: float) -> None:
        """Count units as sent."""
        if self.limit < math.inf:
            self._due = max(self._due, now) + self._expected(units) * self._pace
            self._log.append([now, units])
            self._total += units

    def correct(self, units: float, passed: float) -> None:
        """Count units more, or less, for what passed then."""
        if self.limit == math.inf:
            return
        self._due += (units - self._usual) * self._pace
        self._corrections += 1
        self._usual += max(_LEARN, 1 / self._corrections) * (units - self._usual)
        # What was sent longer ago than the log goes back is forgotten, used or not.
        own = next((entry for entry in reversed(self._log) if entry[0] <= passed), None)
        if own is not None:
            own[1] += units
            self._total += units

    def _expected(self, units: float) -> float:
        """What units will come to. The pace counts no more: most requests use far less than they
        may, and would else wait for each other's replies.
        """
        return max(units + self._usual, 0)
