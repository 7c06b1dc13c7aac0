"""The command, in a process of its own or in this one."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from rillet.runtime.cli import main

__all__ = ["RILLET", "here", "rillet"]

RILLET = [sys.executable, "-m", "rillet.runtime.cli"]


def rillet(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command with some arguments; ``options`` are those of ``subprocess.run``."""
    result: subprocess.CompletedProcess[str] = subprocess.run(
        [*RILLET, *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**options.pop("env", os.environ), "PYTHONUTF8": "1"},
        **options,
    )
    return result


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Whether it is one."""
        return True


def here(
    *arguments: object, stdin: str = "", cwd: Path | None = None, terminal: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which saves seconds of imports, with the same result.

    What happens to the process itself, such as signals, imports and closed pipes, needs
    :func:`rillet`.

    Args:
        *arguments: What follows ``rillet`` on the command line.
        stdin: What standard input holds.
        cwd: The folder to run in; this process's own when absent.
        terminal: Whether stdout and stderr are terminals.
    """
    words = list(map(str, arguments))
    kind = Terminal if terminal else io.TextIOWrapper
    output, errors = (kind(io.BytesIO(), "utf-8", "surrogateescape", newline="") for _ in range(2))
    threads, before, folder = torch.get_num_threads(), sys.stdin, os.getcwd()
    status = 0
    try:
        os.chdir(cwd or folder)
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as file,  # stdin has a file number
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(errors),
        ):
            file.buffer.write(stdin.encode("utf-8", "surrogateescape"))
            file.seek(0)
            sys.stdin = file
            main(words)
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.stdin = before
        os.chdir(folder)
        torch.set_num_threads(threads)
    said = []
    for stream in (output, errors):
        stream.seek(0)
        said.append(stream.read())
    return subprocess.CompletedProcess(words, status, *said)
