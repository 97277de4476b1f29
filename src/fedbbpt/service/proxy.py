"""An OpenAI-compatible server in front of a run's model that adds the tuned prompt."""

import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fedbbpt.boxes._openai import PATHS
from fedbbpt.boxes._wire import Wire, bearer
from fedbbpt.boxes.openai_http import OpenaiHttp
from fedbbpt.errors import ConfigError, Incompatible, MissingExtra
from fedbbpt.finished import Finished
from fedbbpt.service._around import Refused, around

PASSED = ("content-type", "content-encoding", "retry-after", "x-request-id")
"""Headers of a reply that reach the caller, besides those on rate limits."""

# The annotations of routes are read when they are made, and what they name is imported only then,
# so this file does without "from __future__ import annotations".


def proxy(run: Finished, key: str = "") -> Any:
    """The FastAPI application.

    It answers ``/v1/chat/completions`` or ``/v1/completions``, whichever the prompt was tuned on,
    ``/v1/models`` and ``/healthz``. Replies are passed on as they come, streams and errors too.
    The caller's key never reaches the model's server, nor that server's key the caller.

    Args:
        run: what was tuned, on a box of kind ``openai_http``.
        key: bearer key that callers must show; nobody is asked for one if it is empty.

    Raises:
        Incompatible: the run's model is not behind an OpenAI-compatible API.
        MissingExtra: fastapi is not installed.
    """
    try:
        import httpx2
        from fastapi import Request
        from fastapi.concurrency import run_in_threadpool
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from error
    box = _remote(run)
    wire = box.wire
    patience = httpx2.Timeout(wire.deadline, connect=wire.timeout)
    client = httpx2.AsyncClient(headers=_credentials(wire), timeout=patience)
    app = _bare(client)

    @app.get("/healthz")  # type: ignore[untyped-decorator]
    async def health() -> dict[str, str]:
        """Whether this server is up; asks nothing of the model."""
        return {"status": "ok", "model": box.model}

    @app.get("/v1/models")  # type: ignore[untyped-decorator]
    async def models(request: Request) -> dict[str, Any]:
        """The one model that the prompt was tuned for."""
        _admit(request.headers.get("authorization", ""), key)
        return {"object": "list", "data": [_model(box.model)]}

    async def forward(request: Request) -> Any:
        """Puts the tuned prompt around the caller's text and passes the rest on."""
        _admit(request.headers.get("authorization", ""), key)
        path = request.url.path.removeprefix("/v1")
        body = await run_in_threadpool(around, box, run.prompt, path, await request.body())
        return await _passed_on(client, wire, path, body)

    for path in ("/chat/completions", "/completions"):
        app.add_api_route(f"/v1{path}", forward, methods=["POST"], response_model=None)
    return app


def _bare(client: Any) -> Any:
    """An application without routes that words errors as OpenAI does and closes the client."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = FastAPI(title="fedbbpt serve-prompt", lifespan=lifespan)

    @app.exception_handler(Refused)
    async def refuse(_: Request, error: Refused) -> JSONResponse:
        kind = "authentication_error" if error.status == 401 else "invalid_request_error"
        kind = kind if error.status < 500 else "server_error"
        fault = {"message": str(error), "type": kind, "param": None, "code": None}
        return JSONResponse({"error": fault}, error.status)

    return app


async def _passed_on(client: Any, wire: Wire, path: str, body: bytes) -> Any:
    """The reply of the model's server, piece by piece."""
    import httpx2
    from fastapi.responses import StreamingResponse
    from starlette.background import BackgroundTask

    target = wire.url + path + (f"?{wire.query}" if wire.query else "")
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    request = client.build_request("POST", target, content=body, headers=headers)
    try:
        reply = await client.send(request, stream=True)
    except httpx2.TimeoutException:
        raise Refused(f"{wire.url} did not answer within {wire.deadline:g} s", 504) from None
    except httpx2.HTTPError as error:
        raise Refused(f"{wire.url} gave no reply ({wire.clean(str(error))})", 502) from None
    named = {k.lower(): v for k, v in reply.headers.items()}
    kept = {k: v for k, v in named.items() if k in PASSED or k.startswith("x-ratelimit-")}
    return StreamingResponse(
        reply.aiter_raw(), reply.status_code, kept, background=BackgroundTask(reply.aclose)
    )


def _remote(run: Finished) -> OpenaiHttp:
    """The run's box, if requests can be passed on to it."""
    kind = run.config.box.kind
    if kind != "openai_http":
        raise Incompatible(
            f"box.kind is '{kind}', and serve-prompt stands in front of openai_http alone; use "
            "fedbbpt predict for its answers, or serve-model to put a local model behind HTTP"
        )
    box = run.box()
    assert isinstance(box, OpenaiHttp)
    if PATHS[box.api] not in ("/chat/completions", "/completions"):
        raise Incompatible(
            f"box.api is '{box.api}', which no OpenAI client asks; use: fedbbpt predict"
        )
    return box


def _credentials(wire: Wire) -> dict[str, str]:
    key = os.environ.get(wire.key_env, "") if wire.key_env else ""
    return bearer(key)


def _admit(said: str, key: str) -> None:
    """Refuse a caller without the key."""
    if key and not hmac.compare_digest(said.encode(), f"Bearer {key}".encode()):
        raise Refused("the bearer key is missing or wrong", 401)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fedbbpt"}


def caller_key(key_env: str, host: str) -> str:
    """The key that callers must show, from the environment.

    Raises:
        ConfigError: the variable is empty; or there is none and others than this machine's users
            could call, at the cost of whoever holds the model's key.
    """
    key = os.environ.get(key_env, "") if key_env else ""
    if key_env and not key:
        raise ConfigError(f"${key_env} is not set; --key-env names the variable with callers' key")
    if not key and host not in ("127.0.0.1", "localhost", "::1"):
        raise ConfigError(
            f"--host {host} lets others spend on your account; name a variable with a key for "
            "them in --key-env"
        )
    return key
