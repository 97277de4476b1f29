"""What every request to a gateway passes: who asks, how much is sent, and the counts of it all."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from fedbbpt.errors import MissingExtra
from fedbbpt.service.settings import Keys

LARGEST = 256 << 20
"""Most bytes of a request: some thousand soft prompts, or as many images."""

owner: ContextVar[str] = ContextVar("owner", default="anyone")
"""Whose key the request showed that is being answered."""

Event = dict[str, Any]
Send = Callable[[Event], Awaitable[None]]


class Meters:
    """Prometheus metrics of one gateway.

    Args:
        waiting: tells how many calls are in the queue.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError as error:
            raise MissingExtra("prometheus-client", "serve") from error
        self._prometheus, registry = prometheus, prometheus.CollectorRegistry()
        self.registry = registry
        self.requests = prometheus.Counter(
            "fedbbpt_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self.seconds = prometheus.Histogram(
            "fedbbpt_request_seconds", "Seconds until the answer.", ["path"], registry=registry
        )
        self.queries = prometheus.Counter(
            "fedbbpt_queries", "Queries that went through the model.", ["key"], registry=registry
        )
        self.cached = prometheus.Counter(
            "fedbbpt_cached", "Queries answered from the cache.", ["key"], registry=registry
        )
        self.batch = prometheus.Histogram(
            "fedbbpt_batch_queries",
            "Queries in one evaluation, of all callers merged.",
            buckets=[2**n for n in range(13)],
            registry=registry,
        )
        gauge = prometheus.Gauge("fedbbpt_waiting", "Calls in the queue.", registry=registry)
        gauge.set_function(waiting)

    def text(self) -> tuple[bytes, str]:
        """Everything as Prometheus reads it, and its content type."""
        return self._prometheus.generate_latest(self.registry), (
            self._prometheus.CONTENT_TYPE_LATEST
        )


class Door:
    """ASGI middleware: keys for everything under ``/v1``, a limit of size, and metrics.

    Args:
        app: what is behind it.
        keys: who may ask.
        meters: what is counted.
    """

    def __init__(self, app: Any, keys: Keys, meters: Meters) -> None:
        self.app, self.keys, self.meters = app, keys, meters

    async def __call__(self, scope: Event, receive: Any, send: Send) -> None:
        """Let a request pass, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(event: Event) -> None:
            nonlocal status
            status = event.get("status", status)
            await send(event)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self.app(scope, receive, noted)
            else:
                await _refuse(noted, *refusal)
        finally:
            # By the route, not what was asked for: strangers must not make metrics.
            path = getattr(scope.get("route"), "path", "other")
            self.meters.requests.labels(path, status).inc()
            self.meters.seconds.labels(path).observe(time.perf_counter() - began)

    def _refusal(self, scope: Event) -> tuple[int, str] | None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"].startswith("/v1"):
            found = self.keys.owner(headers.get(b"authorization", ""))
            if found is None:
                return 401, "the key is missing or unknown; send 'Authorization: Bearer KEY'"
            owner.set(found)
        length = headers.get(b"content-length", "0")
        if b"transfer-encoding" in headers or not length.isdigit():
            return 411, "send the request's length in the header Content-Length"
        if int(length) > LARGEST:
            return 413, f"the request has {length} bytes; at most {LARGEST} are taken"
        return None


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps(fault(status, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def fault(status: int, message: str) -> dict[str, Any]:
    """An error as OpenAI's API words it."""
    kinds = {401: "authentication_error", 402: "insufficient_quota"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
