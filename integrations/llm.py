"""A plugin of the command-line tool ``llm``: bundles are its models.

``llm rillet add my-model`` makes a bundle a model, and ``llm -m rillet/my-model "Dear "`` runs it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import llm
from pydantic import Field

from ..runtime import Bundle, Model, RilletError, load
from ..runtime.errors import brief
from ..runtime.files import write_atomic

__all__ = ["RilletModel", "register_commands", "register_models"]


class RilletModel(llm.Model):
    """A bundle, loaded when it is first used.

    Args:
        name: Its name in ``llm``, without the ``rillet/`` before it.
        path: Its folder, or ``hf:OWNER/NAME``.
    """

    can_stream = True

    class Options(llm.Options):
        """Sampling; what is left out is the bundle's own."""

        temperature: float | None = Field(default=None, description="0 takes the likeliest token")
        top_k: int | None = Field(default=None, description="Keep the k likeliest tokens")
        top_p: float | None = Field(default=None, description="Keep tokens of this probability")
        min_p: float | None = Field(default=None, description="Drop tokens less likely than this")
        repetition_penalty: float | None = Field(default=None, description="Above 1 repeats less")
        max_new_tokens: int | None = Field(default=None, description="The most tokens to write")
        seed: int | None = Field(default=None, description="The same seed writes the same text")
        stop: str | None = Field(default=None, description="Text that ends the answer")
        regex: str | None = Field(default=None, description="What the answer must match")

    def __init__(self, name: str, path: str) -> None:
        self.model_id = f"rillet/{name}"
        self.path = path
        self._model: Model | None = None

    def execute(
        self, prompt: Any, stream: bool, response: Any, conversation: Any = None
    ) -> Iterator[str]:
        """Continue the prompt, after what the conversation has so far."""
        try:
            if self._model is None:
                self._model = load(self.path)
            options = {name: value for name, value in prompt.options if value is not None}
            # The whole conversation, this prompt included, as it was written.
            parts = [part for message in prompt.messages for part in message.parts]
            text = self._model.stream([getattr(part, "text", "") for part in parts], **options)
            yield from text
        except RilletError as error:
            raise llm.ModelError(str(error)) from error
        response.response_json = {"finish_reason": text.finish_reason, "seed": text.seed}


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the bundles that were added."""
    for name, path in _added().items():
        register(RilletModel(name, path))


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add ``llm rillet``."""

    @cli.group(name="rillet")
    def group() -> None:
        """Run bundles of rillet as models."""

    @group.command()
    @click.argument("bundle")
    @click.option("--name", help="What to call it; by default, the folder's name.")
    def add(bundle: str, name: str | None) -> None:
        """Make BUNDLE, a folder or hf:OWNER/NAME, a model."""
        try:
            opened = Bundle.open(bundle)
        except RilletError as error:
            raise click.ClickException(str(error)) from error
        local = Path(bundle).exists()
        name = name or Path(bundle).resolve().name
        _keep({**_added(), name: str(opened.path) if local else bundle})
        click.echo(f"rillet/{name}")

    @group.command()
    @click.argument("name")
    def remove(name: str) -> None:
        """Forget the model NAME; its bundle stays."""
        added = _added()
        if added.pop(name.removeprefix("rillet/"), None) is None:
            raise click.ClickException(
                f"there is no model {name}; `llm models` lists those there are"
            )
        _keep(added)


def _list() -> Path:
    return Path(llm.user_dir()) / "rillet.json"


def _added() -> dict[str, str]:
    """The bundles that were added, by name."""
    file = _list()
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): str(path) for name, path in content.items()}
    except (ValueError, AttributeError) as error:
        raise click.ClickException(
            f"{file} is no list of bundles: {brief(error)}; mend it, or delete it and add them"
        ) from error


def _keep(added: dict[str, str]) -> None:
    write_atomic(_list(), json.dumps(added, indent=1, ensure_ascii=False).encode())
