"""The ``rillet`` command: a group whose subcommands are imported when they are called."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
import warnings
from typing import Any, TextIO

import click

from ..errors import RilletError
from ..missing_parts import needing
from .terminal import tell

__all__ = ["main", "optional_part"]

# Where each subcommand is, the extra that installs what it needs, and its line of help:
# `rillet --help` must not import torch to print one.
COMMANDS = {
    "train": ("rillet.train.cli.train:train_command", "train", "Train a model on a text."),
    "export": (
        "rillet.export.cli.export:export_command",
        "export",
        "Export a checkpoint to a bundle.",
    ),
    "verify": ("rillet.runtime.cli.verify:verify_command", "cpu", "Check a bundle and its parity."),
    "quantize": (
        "rillet.export.cli.quantize:quantize_command",
        "export",
        "Lower a bundle's precision and measure the cost.",
    ),
    "inspect": ("rillet.runtime.cli.inspect:inspect_command", "cpu", "Show what a bundle is."),
    "generate": ("rillet.runtime.cli.generate:generate", "cpu", "Stream text from a bundle."),
    "score": (
        "rillet.runtime.cli.score:score_command",
        "cpu",
        "Measure how well a bundle predicts a text.",
    ),
    "bench": ("rillet.runtime.cli.bench:bench_command", "cpu", "Measure how fast a bundle runs."),
    "serve": (
        "rillet.runtime.cli.serve:serve_command",
        "serve",
        "Serve bundles over HTTP: OpenAI's completions, and streams.",
    ),
    "firmware": (
        "rillet.runtime.cli.firmware:firmware_command",
        "cpu",
        "Write a bundle as C for a microcontroller.",
    ),
    "engine": (
        "rillet.runtime.cli.engine:engine_group",
        "tensorrt",
        "Build TensorRT engines from a bundle.",
    ),
    "doctor": ("rillet.runtime.cli.doctor:doctor_command", "cpu", "Say what this machine can run."),
}


class LazyGroup(click.Group):
    """A click group that imports a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the subcommands, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        path, extra, _ = COMMANDS[cmd_name]
        module, _, name = path.partition(":")
        command = getattr(optional_part(module, f"rillet {cmd_name}", extra), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands with their help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


def optional_part(module: str, what: str, extra: str) -> Any:
    """Import a part of rillet that may not be installed.

    Args:
        module: The module's full name.
        what: What needs it, for the error message.
        extra: The extra that installs it.

    Raises:
        MissingPartError: The part, or a library that it needs, is not installed.
    """
    with needing(what, extra):
        return importlib.import_module(module)


def _show_version(context: click.Context) -> None:
    from .. import __version__

    tell(f"rillet, version {__version__}")
    context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, asked: _show_version(context) if asked else None,
    help="Show the version and exit.",
)
def rillet(debug: bool) -> None:
    """Turns plain text into a streaming text generator with constant memory, for small devices."""


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show a warning to a person, without the line of source that raised it."""
    tell(f"Note: {message}", err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 after a failure, or 2 for wrong usage.

    The commands get the time of the start, in the seconds of :func:`time.monotonic`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug, started = "--debug" in arguments, time.monotonic()
    if sys.stdout is None:
        tell("Error: standard output is closed; send it to a file or to /dev/null", err=True)
        sys.exit(1)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            status = rillet.main(arguments, prog_name="rillet", standalone_mode=False, obj=started)
    except click.exceptions.Abort:
        tell("\nStopped.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has gone; do not fail again when the buffer is flushed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, RilletError):
            tell(f"Error: {error}", err=True)
            sys.exit(error.exit_code)
        if isinstance(error, OSError) and error.strerror is not None:
            where = "" if error.filename is None else f"{error.filename}: "
            tell(f"Error: {where}{error.strerror}", err=True)
        else:
            tell(
                f"Error: rillet itself failed ({type(error).__name__}: {error}); "
                "run `rillet --debug ...` for the traceback and report it",
                err=True,
            )
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
