"""``rillet serve``: answer over HTTP."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..engines.base import ProviderChoice
from ..errors import UsageError
from ..model import Model, load
from ..serve.app import Settings
from ..serve.limits import Limits
from ..serve.run import checked_origins, hosts_of, is_loopback, read_keys, serve
from .options import Seconds, engine_options
from .terminal import tell

__all__ = ["serve_command"]


@click.command("serve")
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="Port to listen at; 0 takes any that is free.",
)
@click.option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answer only those who send one of this file's keys, one on a line.",
)
@click.option(
    "--sessions",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Save streams here: they outlive a restart, and servers share them.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin call the server, such as https://page.example; repeat for "
    "several.",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    default=Limits.rows,
    show_default=True,
    help="Texts that a model writes at a time.",
)
@click.option(
    "--waiting",
    type=click.IntRange(0),
    default=Limits.waiting,
    show_default=True,
    help="Texts that wait for their turn; more are refused.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=Limits.max_tokens,
    show_default=True,
    help="Tokens of a text at most.",
)
@click.option(
    "--max-prompt-tokens",
    type=click.IntRange(1),
    default=Limits.prompt_tokens,
    show_default=True,
    help="Tokens of a prompt at most.",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(1_024),
    default=Limits.body_bytes,
    show_default=True,
    help="Bytes of a request at most.",
)
@click.option(
    "--max-seconds",
    type=Seconds(0.1),
    default=Limits.seconds,
    show_default=True,
    help="Seconds after which a request's texts end.",
)
@click.option(
    "--max-streams",
    type=click.IntRange(1),
    default=Limits.streams,
    show_default=True,
    help="Streams open in memory at most.",
)
@click.option(
    "--idle-seconds",
    type=Seconds(0),
    default=Limits.idle_seconds,
    show_default=True,
    help="With --sessions: seconds after which a stream leaves the memory.",
)
@engine_options
def serve_command(
    bundles: tuple[Path, ...],
    host: str,
    port: int,
    api_key_file: Path | None,
    sessions: Path | None,
    cors_origins: tuple[str, ...],
    rows: int,
    waiting: int,
    max_tokens: int,
    max_prompt_tokens: int,
    max_body_bytes: int,
    max_seconds: float,
    max_streams: int,
    idle_seconds: float,
    provider: ProviderChoice,
    threads: int,
    allow_fallback: bool,
) -> None:
    """Serve BUNDLES over HTTP, as OpenAI's completions and as streams; see docs/serving.md."""
    if api_key_file is None and not is_loopback(host):
        raise UsageError(
            f"--host is {host}, which others can reach, and there is no key; give one with "
            "--api-key-file, or leave --host out"
        )
    keys = [] if api_key_file is None else read_keys(api_key_file)
    limits = Limits(
        rows=rows,
        waiting=waiting,
        choices=min(Limits.choices, rows),
        prompt_tokens=max_prompt_tokens,
        max_tokens=max_tokens,
        body_bytes=max_body_bytes,
        seconds=max_seconds,
        streams=max_streams,
        idle_seconds=idle_seconds,
    )
    origins = checked_origins(cors_origins)
    settings = Settings(limits, sessions, keys, hosts_of(host), origins)
    models: dict[str, Model] = {}
    for bundle in bundles:
        name = Path(os.path.abspath(bundle)).name  # a link's own name: what it leads to may change
        if name in models:
            raise UsageError(f"two bundles are called {name!r}; rename the folder of one")
        models[name] = load(bundle, provider, threads, allow_fallback=allow_fallback)
        tell(f"{name} runs on {models[name].engine.version}", err=True)
    serve(models, host, port, settings, on_listening=tell)
