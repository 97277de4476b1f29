"""Requests over HTTP: many at once, inside the limits, each with one deadline for all its tries."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

from fedbbpt.boxes._answers import after, message
from fedbbpt.boxes._limits import Limiter
from fedbbpt.errors import BoxError, ConfigError, MissingExtra, TransientError

T = TypeVar("T")
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses after which asking again may work; 52x and 529 are proxies' and overloaded servers'."""


class Request(NamedTuple):
    """The path behind the URL, and the body as its exact bytes."""

    path: str
    body: bytes


class Answer(NamedTuple):
    """What came back, read as JSON where it is JSON.

    Attributes:
        status: HTTP status.
        data: the body; ``None`` if it is not JSON.
        headers: with names in lower case.
        seconds: until the last byte.
    """

    status: int
    data: Any
    headers: dict[str, str]
    seconds: float


class Again(TransientError):
    """A try that failed and may be repeated; ``after`` seconds if the server said so."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class Wire:
    """The way to one server.

    Args:
        url: where the API's paths begin, such as ``https://host/v1``; a query is kept behind them.
        key_env: environment variable that holds the key, if the server wants one. The key is
            read here, sent in a header and written nowhere.
        headers: makes headers of a key.
        deadline: seconds for one request with all its tries, from its first sending on.
        timeout: seconds for one try.
        concurrency: requests on the way at the same time.
        limiter: holds them back where the server has limits.

    Raises:
        ConfigError: the URL or a number cannot be used.
        MissingExtra: httpx2 or stamina is not installed.
    """

    def __init__(
        self,
        url: str,
        key_env: str,
        headers: Callable[[str], dict[str, str]],
        deadline: float,
        timeout: float,
        concurrency: int,
        limiter: Limiter,
    ) -> None:
        try:
            import httpx2
            import stamina
        except ImportError as error:
            raise MissingExtra(error.name or "httpx2", "http") from error
        self._httpx, self._stamina = httpx2, stamina
        # Without a handler of its own, every repeated try would be printed.
        logging.getLogger("stamina").addHandler(logging.NullHandler())
        self.url, self.query = _checked(url)
        for name, value in (("deadline", deadline), ("timeout", timeout)):
            if not value > 0:
                raise ConfigError(f"box.{name} is {value}; it must be above 0 seconds")
        if concurrency < 1:
            raise ConfigError(f"box.max_concurrency is {concurrency}; it must be at least 1")
        self.key_env, self.deadline, self.timeout = key_env, deadline, timeout
        self._key = os.environ.get(key_env, "") if key_env else ""
        if "\n" in self._key or not self._key.isascii():
            raise ConfigError(f"${key_env} holds no key: it has characters no header can carry")
        self.limiter = limiter
        self._pool = ThreadPoolExecutor(concurrency, "fedbbpt-request")
        self._client = httpx2.Client(
            headers=headers(self._key),
            limits=httpx2.Limits(max_connections=concurrency),
            timeout=timeout,
        )
        weakref.finalize(self, _close, self._pool, self._client)

    # --- many requests -----------------------------------------------------------------------

    def each(self, work: Callable[[Any, threading.Event], T], items: Sequence[Any]) -> list[T]:
        """``work(item, stopped)`` for every item, several at once, in the order of the items.

        After the first failure nothing new begins; what is on the way is waited for, so that it
        is recorded, and then the failure is raised.
        """
        stopped = threading.Event()
        futures: list[Future[T]] = [self._pool.submit(work, item, stopped) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Where all went well there is nothing left to stop.
            stopped.set()
            for future in futures:
                future.cancel()
            wait(futures)
        failures = [f.exception() for f in futures if not f.cancelled() and f.exception()]
        # A try that was called off says nothing; what called it off does.
        for failure in sorted(failures, key=lambda error: isinstance(error, CancelledError)):
            raise failure or AssertionError
        return [future.result() for future in futures]

    # --- one request -------------------------------------------------------------------------

    def ask(
        self,
        send: Callable[[float], T],
        tokens: int,
        stopped: threading.Event | None = None,
    ) -> T:
        """One request: ``send`` makes a try within so many seconds, of ``tokens`` for the limiter,
        and raises :class:`Again` to have another; once ``stopped`` is set none is made.

        Raises:
            BoxError: no answer within the deadline, or one that repeating does not change.
        """
        self._enter(tokens, stopped)  # waiting for one's turn is not the server's fault
        end = time.monotonic() + self.deadline

        def repeat(error: Exception) -> bool | float:
            if not isinstance(error, Again):
                return False
            if error.after is None:
                return True
            return error.after if time.monotonic() + error.after < end else False

        try:
            for attempt in self._stamina.retry_context(
                on=repeat,
                attempts=None,
                timeout=self.deadline,
                wait_initial=0.1,
                wait_max=10.0,
                wait_jitter=0.2,
            ):
                with attempt:
                    if attempt.num > 1:
                        self._enter(tokens, stopped)
                    return send(max(0.05, min(self.timeout, end - time.monotonic())))
        except Again as error:
            raise BoxError(
                f"{self.url} gave no usable answer within {self.deadline:g} s "
                f"(box.deadline): {error}"
            ) from error
        raise AssertionError("stamina ends in an answer or an error")

    def _enter(self, tokens: int, stopped: threading.Event | None) -> None:
        self.limiter.wait(tokens)
        if stopped is not None and stopped.is_set():
            raise CancelledError

    def post(self, request: Request, seconds: float, base: str = "") -> Answer:
        """One try, good or bad (see :meth:`judge`); Again without a whole reply in time.

        ``base`` stands for the URL where a path is not behind it.
        """
        return self._exchange("POST", base or self.url, request, seconds)

    def get(self, path: str, seconds: float | None = None) -> Answer:
        """The same without a body."""
        return self._exchange("GET", self.url, Request(path, b""), seconds or self.timeout)

    def _exchange(self, method: str, base: str, request: Request, seconds: float) -> Answer:
        began, (path, body) = time.monotonic(), request
        headers = {"content-type": "application/json"} if body else {}
        target = base + path + (f"?{self.query}" if self.query else "")
        try:
            with self._client.stream(
                method, target, content=body or None, headers=headers, timeout=seconds
            ) as reply:
                parts = []
                for part in reply.iter_bytes():
                    parts.append(part)
                    # The client's own timeout is one for each piece, and pieces may drip.
                    if time.monotonic() - began > seconds:
                        raise Again(f"the reply was not whole after {seconds:.1f} s")
                status, named = reply.status_code, reply.headers
        except self._httpx.TimeoutException as error:
            raise Again(f"no reply within {seconds:.1f} s") from error
        except self._httpx.HTTPError as error:
            kind = "cannot be reached" if _connecting(error) else "broke off"
            raise Again(f"the connection {kind} ({self.clean(str(error))})") from error
        data = None
        with contextlib.suppress(ValueError):
            data = json.loads(b"".join(parts))
        headers = {name.lower(): value for name, value in named.items()}
        return Answer(status, data, headers, time.monotonic() - began)

    def judge(self, answer: Answer) -> None:
        """Nothing for a status of success.

        Raises:
            Again: asking again may work; a pause that the server asks for holds for everyone.
            BoxError: it will not.
        """
        if answer.status < 300:
            return
        said = self.clean(message(answer.data)) or "no explanation"
        if answer.status in (401, 403):
            state = "the key in" if self._key else "no key: set"
            where = f"${self.key_env}" if self.key_env else "a variable and box.key_env"
            raise BoxError(
                f"{self.url} refused the request ({answer.status}: {said}); it got {state} {where}"
            )
        if answer.status == 404:
            known = ", ".join(self.models()) or "none that it would list"
            raise BoxError(
                f"{self.url} does not know this path or model (404: {said}); models there: {known}"
            )
        if answer.status in AGAIN and "insufficient_quota" not in said:
            pause = after(answer.headers)
            if pause:
                self.limiter.pause(pause)
            raise Again(f"status {answer.status}: {said}", pause)
        raise BoxError(f"{self.url} refused the request ({answer.status}: {said})")

    def models(self) -> list[str]:
        """Names of the models that the server lists, if it does."""
        try:
            listed = self.get("/models").data["data"]
            return [str(model["id"]) for model in listed][:20]
        except (BoxError, LookupError, TypeError):
            return []

    def clean(self, text: str) -> str:
        """A text without the key and without line ends, cut to a sentence's length."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:300]


def bearer(key: str) -> dict[str, str]:
    """Headers of a key: Azure reads ``api-key``, all others ``authorization``."""
    return {"authorization": f"Bearer {key}", "api-key": key} if key else {}


def _checked(url: str) -> tuple[str, str]:
    """The URL without a slash at its end, and its query apart (Azure's ``api-version``)."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in ("http", "https") or not rest.strip("/"):
        raise ConfigError(f"box.url is '{url}'; it must begin with http:// or https:// and a host")
    if "@" in rest.partition("/")[0]:
        raise ConfigError("box.url holds a user or password; name a variable in box.key_env")
    base, _, query = url.partition("?")
    return base.rstrip("/"), query


def _close(pool: ThreadPoolExecutor, client: Any) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    client.close()


def _connecting(error: Exception) -> bool:
    return type(error).__name__.startswith("Connect")
