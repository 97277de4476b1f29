"""The gateway: one local box, loaded once, served to many callers over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fedbbpt.black_box import AtomicBox
from fedbbpt.errors import BoxError, FedbbptError, MissingExtra, TransientError, UsageError
from fedbbpt.service._around import Refused
from fedbbpt.service.door import Door, fault
from fedbbpt.service.served import Service
from fedbbpt.service.settings import Gateway, Keys
from fedbbpt.service.worker import QuotaSpent


def gateway(load: Callable[[], AtomicBox], table: Gateway, keys: Keys) -> Any:
    """The FastAPI application that serves a box.

    Args:
        load: makes what is served.
        table: the settings.
        keys: who may ask.

    Raises:
        MissingExtra: fastapi or prometheus-client is not installed.
        FedbbptError: what ``load`` raises.
    """
    try:
        from fastapi import Depends, FastAPI, Response
        from fastapi.security import HTTPBearer
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from error
    service = Service(load, table)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="fedbbpt gateway", description=service.box.name, lifespan=lifespan)
    bearer = [Depends(HTTPBearer(auto_error=False))]  # shown on the OpenAPI page; Door checks it
    for path, (method, work) in _routes(service).items():
        app.add_api_route(f"/v1{path}", work, methods=[method], dependencies=bearer)
    app.add_api_route("/healthz", service.health)

    @app.get("/metrics", response_class=Response)
    def metrics() -> Any:
        """Counts and times, as Prometheus reads them."""
        content, kind = service.meters.text()
        return Response(content, media_type=kind)

    _explain(app)
    app.add_middleware(Door, keys=keys, meters=service.meters)
    return app


def _routes(service: Service) -> dict[str, tuple[str, Callable[..., Any]]]:
    """What is asked under ``/v1``: path -> (method, who answers)."""
    return {
        "/info": ("GET", service.info),
        "/evaluate": ("POST", service.evaluate),
        "/prepare": ("POST", service.prepare),
        "/shares": ("POST", service.shares),
        "/vocabulary/tokenise": ("POST", service.tokenise),
        "/vocabulary/layout": ("POST", service.layout),
        "/vocabulary/embed": ("POST", service.embed),
        "/vocabulary/decode": ("POST", service.decode),
        "/vocabulary/ordinary": ("POST", service.ordinary),
        "/models": ("GET", service.models),
        "/completions": ("POST", service.complete),
    }


def _explain(app: Any) -> None:
    """Answer errors with one sentence each, as OpenAI's API words them."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    def reply(status: int, message: str) -> Any:
        return JSONResponse(fault(status, message), status)

    async def ours(_: Any, error: FedbbptError) -> Any:
        return reply(_status(error), str(error))

    async def shape(_: Any, error: RequestValidationError) -> Any:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        return reply(422, f"{where}: {first['msg']}")

    app.add_exception_handler(FedbbptError, ours)
    app.add_exception_handler(RequestValidationError, shape)


def _status(error: FedbbptError) -> int:
    if isinstance(error, Refused):
        return error.status
    kinds = ((QuotaSpent, 402), (UsageError, 422), (TransientError, 503), (BoxError, 424))
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)
