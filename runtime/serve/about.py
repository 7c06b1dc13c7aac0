"""What the server says of itself and of its models."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..info import ModelInfo
from .host import Host
from .served import Served

__all__ = ["health", "metrics", "model", "models", "props"]


def _model(host: Host) -> dict[str, Any]:
    return {"id": host.name, "object": "model", "created": host.created, "owned_by": "rillet"}


async def models(request: Request, served: Served) -> Response:
    """List the models."""
    data = [_model(host) for host in served.hosts.values()]
    return JSONResponse({"object": "list", "data": data})


async def model(request: Request, served: Served) -> Response:
    """Describe a model."""
    return JSONResponse(_model(served.host(str(request.path_params["id"]))))


async def health(request: Request, served: Served) -> Response:
    """Say that the server answers."""
    return JSONResponse({"status": "ok"})


async def props(request: Request, served: Served) -> Response:
    """Say what runs here, and what it writes by default."""
    host = served.host(request.query_params.get("model"))
    loaded, limits = host.model, host.limits
    params = loaded.sampling()
    return JSONResponse(
        {
            "model": host.name,
            "engine": loaded.engine.version,
            "provider": loaded.engine.provider,
            "parameters": ModelInfo.of(loaded).parameters,
            "vocab_size": loaded.vocab_size,
            "reads_any_bytes": loaded.tokenizer.reads_any_bytes,
            "is_chat_model": False,
            "context_length": None,
            "total_slots": limits.rows,
            "limits": vars(limits),
            "default_generation_settings": {
                name: getattr(params, name)
                for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
            },
        }
    )


async def metrics(request: Request, served: Served) -> Response:
    """Figures for Prometheus."""
    page, kind = served.metrics.page()
    return Response(page, media_type=kind)
