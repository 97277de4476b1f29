"""How the server of faults listens, and how it fails."""

from __future__ import annotations

import contextlib
import json
import math
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any

from fedbbpt.testing._fault_json import Asked, Refusal, error, listing, read, reply, spoil

if TYPE_CHECKING:
    from fedbbpt.testing._fault_server import FaultServer, Seen

MINUTE = 60.0
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Window:
    """Admits so many requests in any 60 s.

    Attributes:
        refused: how many were not.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit, self.refused = limit, 0
        self._admitted: deque[float] = deque()
        self._lock = threading.Lock()

    def admit(self) -> tuple[int, float]:
        """(requests that may follow now, -1 if this one may not; seconds until one leaves)."""
        if self.limit is None:
            return 0, 0.0
        with self._lock:
            now = time.monotonic()
            while self._admitted and self._admitted[0] <= now - MINUTE:
                self._admitted.popleft()
            left = self.limit - len(self._admitted) - 1
            if left < 0:
                self.refused += 1
            else:
                self._admitted.append(now)
            return left, self._admitted[0] + MINUTE - now if self._admitted else 0.0


class Listener(ThreadingMixIn, TCPServer):
    """A thread for each connection; :meth:`stop` ends them all."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, faults: FaultServer) -> None:
        self.faults, self.broken = faults, faults.broken
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    def stop(self) -> None:
        """Accept nothing more, end what is open and wait for the threads."""
        self.shutdown()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep what went wrong here; that a client went away is its right."""
        failure = sys.exc_info()[1]
        if failure is not None and not isinstance(failure, ConnectionError):
            self.broken.append(failure)


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def do_GET(self) -> None:
        """The list of models."""
        faults = self.server.faults
        path = self.path.partition("?")[0]
        if not self._authorised():
            self._send(*error(path, 401, "the key is missing or wrong"))
        elif path.endswith("/models"):
            self._send(200, json.dumps(listing(faults.models)).encode())
        else:
            self._send(*error(path, 404, f"there is no path {path}"))

    def do_POST(self) -> None:
        """A request: refused, failed or answered."""
        faults = self.server.faults
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.partition("?")[0]
        self._seen: Seen | None = faults.enter(path, body)
        try:
            self._serve(self._seen)
        finally:
            self._leave()

    def log_message(self, *_: object) -> None:
        """Write nothing: there is a log."""

    def _serve(self, seen: Seen) -> None:
        faults, path = self.server.faults, seen.path
        limits = self._limits(path)
        try:
            if not self._authorised():
                raise Refusal(401, "the key is missing or wrong")
            left, seconds = faults.window.admit()
            limits = self._limits(path, left, seconds)
            if left < 0:
                limits |= {"retry-after": str(math.ceil(seconds))}
                raise Refusal(429, f"rate limit reached: {faults.window.limit} requests a minute")
            asked = read(path, seen.body, faults.models, faults.most_tops)
        except Refusal as refusal:
            seen.status = refusal.status
            self._send(*error(path, refusal.status, str(refusal), refusal.code), limits)
            return
        faults.stopping.wait(faults.latency)
        seen.fault = faults.choose(path, seen.body)
        self._fail(seen, asked, limits)

    def _fail(self, seen: Seen, asked: Asked, headers: dict[str, str]) -> None:
        """Reply, as the chosen fault has it."""
        faults, fault = self.server.faults, seen.fault
        if fault == "timeout":
            self._hang()
        elif fault == "reset":
            self._reset()
        elif fault[:3].isdigit():
            seen.status = int(fault[:3])
            if fault == "429-retry-after":
                headers = {**headers, "retry-after": f"{faults.retry_after:g}"}
            self._send(*error(seen.path, seen.status, "this failure is on purpose"), headers)
        else:
            picks = spoil(fault, asked, [faults.tokens(text) for text in asked.texts])
            body = json.dumps(reply(asked, picks)).encode()
            body = {"cut-json": body[: len(body) // 2], "not-json": HTML}.get(fault, body)
            seen.status, seen.answered = 200, fault in ("", "slow")
            try:
                self._send(200, body, headers, fault)
            except OSError:
                seen.answered = False
                raise

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, fault: str = ""
    ) -> None:
        self.send_response(status)
        kind = "text/html" if fault == "not-json" else "application/json"
        named = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "truncated":
            body, self.close_connection = body[: len(body) // 2], True
        if fault == "slow":
            pause = self.server.faults.drip / len(body)
            for i in range(len(body) - 1):
                self.wfile.write(body[i : i + 1])
                self.server.faults.stopping.wait(pause)
            body = body[-1:]
        # Before the last byte: a client that has its reply may send the next request at once.
        self._leave()
        self.wfile.write(body)

    def _leave(self) -> None:
        if getattr(self, "_seen", None) is not None:
            self._seen = None
            self.server.faults.leave()

    def _hang(self) -> None:
        """Send nothing until the client goes away or the server stops."""
        self.close_connection = True
        while not self.server.faults.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.05)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def _reset(self) -> None:
        """Close so that the client's side is torn down (RST) and not ended (FIN)."""
        self.close_connection = True
        self._leave()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The handler's files share the socket and would keep a mere close() waiting.
        socket.close(self.connection.detach())

    def _authorised(self) -> bool:
        bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
        sent = {bearer, self.headers.get("x-api-key"), self.headers.get("api-key")}
        return not self.server.faults.key or self.server.faults.key in sent

    def _limits(self, path: str, left: int = 0, seconds: float = 0.0) -> dict[str, str]:
        """The limit as the API's headers tell it."""
        limit = self.server.faults.window.limit
        if limit is None:
            return {}
        if path.endswith("/messages"):
            reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
            name = "anthropic-ratelimit-requests-{}"
        else:
            reset, name = f"{seconds:.3f}s", "x-ratelimit-{}-requests"
        facts = {"limit": str(limit), "remaining": str(max(left, 0)), "reset": reset}
        return {name.format(what): value for what, value in facts.items()}
