"""Listening: uvicorn around the application."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import uvicorn

from ..errors import UsageError
from ..model import Model
from ..streams.encoding import UnknownCharacterWarning
from .app import Settings, application

__all__ = ["checked_origins", "hosts_of", "is_loopback", "read_keys", "serve"]

_GRACE = 10
"""Seconds that texts have to end in, once the server is asked to stop."""

_SWITCH = 0.0005
"""Seconds after which a thread that computes in Python lets another: a tenth of the default."""


def serve(
    models: dict[str, Model],
    host: str,
    port: int,
    settings: Settings,
    on_listening: Callable[[str], object],
) -> None:
    """Answer until SIGTERM or Ctrl-C.

    Args:
        models: The models, by the names that clients call them.
        host: The address to listen at.
        port: The port; 0 for any that is free.
        settings: How to serve.
        on_listening: Called with the address, as a URL.

    Raises:
        UsageError: The address cannot be listened at.
        StorageError: Streams cannot be saved in their folder.
    """
    sys.setswitchinterval(_SWITCH)
    # Answers carry this warning.
    warnings.simplefilter("ignore", UnknownCharacterWarning)
    logging.getLogger("rillet.serve").setLevel(logging.INFO)
    listener = _listen(host, port)
    try:
        app = application(models, settings)
    except BaseException:
        listener.close()
        raise
    name = f"[{host}]" if listener.family == socket.AF_INET6 else host
    on_listening(f"http://{name}:{listener.getsockname()[1]}")
    config = uvicorn.Config(
        app,
        log_config=_LOGGING,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_GRACE,
        limit_concurrency=4 * (settings.limits.rows + settings.limits.waiting),
        backlog=2_048,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(
            f"cannot listen at {host} port {port} ({error}); choose another with --host and --port"
        ) from error
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts_of(host: str) -> frozenset[str]:
    """The names by which a server at an address may be called; any, unless it is this machine's."""
    return frozenset({host, "localhost", "127.0.0.1", "::1"}) if is_loopback(host) else frozenset()


def read_keys(path: Path) -> list[str]:
    """The keys of a file, one on a line.

    Raises:
        UsageError: It has none, or one that no header can carry.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    keys = [line.strip() for line in lines if line.strip()]
    if not keys or not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise UsageError(
            f"{path} holds no keys: give a file with a key of letters and digits on each line"
        )
    return keys


_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_OWN_PORTS = {("http", ":80"), ("https", ":443")}
"""Ports that browsers leave out of an origin."""


def checked_origins(origins: Iterable[str]) -> list[str]:
    """The origins of web pages that may call, each as browsers write it; ``*`` is any.

    Raises:
        UsageError: There is one that no browser sends, so that it would let nobody in.
    """
    origins = list(origins)
    for origin in origins:
        parts = _ORIGIN.fullmatch(origin)
        if origin != "*" and (parts is None or parts.groups() in _OWN_PORTS):
            raise UsageError(
                f"--cors-origin is {origin!r}; give an origin as browsers send it, such as "
                "https://page.example or http://localhost:3000: no capitals, no path, and the port "
                "only where it is not the usual one"
            )
    return origins


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "stream": "ext://sys.stderr",
        }
    },
    "loggers": {
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING"},
        "rillet": {"handlers": ["stderr"], "level": "INFO"},
    },
}
"""Errors of the server, and a line for each request."""
