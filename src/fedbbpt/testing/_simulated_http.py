"""How the simulated model is reached: OpenAI's paths over HTTP."""

from __future__ import annotations

import json
import socket
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer
from typing import TYPE_CHECKING

from fedbbpt.testing._fault_http import Listener
from fedbbpt.testing._fault_json import Refusal, error, listing

if TYPE_CHECKING:
    from fedbbpt.testing.simulated_llm import SimulatedLlm


class Door(Listener):
    """The listener of the server of faults, on a chosen port and for another owner."""

    def __init__(self, model: SimulatedLlm, port: int) -> None:
        self.model, self.broken = model, model.broken
        self._open: set[socket.socket] = set()
        TCPServer.__init__(self, ("127.0.0.1", port), Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Door

    def do_GET(self) -> None:
        """The list of models."""
        self._answer(None)

    def do_POST(self) -> None:
        """A chat."""
        length = self.headers.get("content-length", "")
        self._answer(self.rfile.read(int(length) if length.isdecimal() else 0))

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def _answer(self, body: bytes | None) -> None:
        model, path = self.server.model, self.path.partition("?")[0]
        try:
            bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
            if model.key and bearer != model.key:
                raise Refusal(401, "the key is missing or wrong")
            if body is None and path.endswith("/models"):
                self._send(200, json.dumps(listing([model.name])).encode())
            elif body is not None and path.endswith("/chat/completions"):
                self._send(200, model.answer(body))
            else:
                raise Refusal(404, f"there is no path {path}")
        except Refusal as refusal:
            self._send(*error(path, refusal.status, str(refusal), refusal.code))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
