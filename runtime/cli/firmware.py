"""``rillet firmware``: a bundle as C for a microcontroller."""

from __future__ import annotations

from pathlib import Path

import click

from ..bundle import Bundle
from ..firmware.folder import write_folder
from ..firmware.packing import pack
from ..firmware.targets import TARGETS
from .terminal import tell

__all__ = ["firmware_command"]


@click.command("firmware")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write; new, or empty.",
)
@click.option(
    "--target",
    type=click.Choice(list(TARGETS)),
    default="generic",
    show_default=True,
    help="Processor that the folder's Makefile builds for.",
)
@click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="N",
    help="Size of the memory: slots of all contexts, 4 bytes each, or past steps. "
    "Default: the bundle's.",
)
def firmware_command(bundle: Path, out: Path, target: str, memory: int | None) -> None:
    """Write BUNDLE as a folder of C that streams text on a microcontroller.

    It needs no heap, no operating system and no files: see docs/microcontrollers.md.
    """
    packed = pack(Bundle.open(bundle), memory)
    write_folder(packed, target, out)
    tell(f"{out} holds {bundle.name} for {TARGETS[target].title}; see {out / 'README.md'}")
    tell(f"  flash  {len(packed.weights) + len(packed.tokenizer):>9,} bytes of constants, and code")
    tell(f"  RAM    {packed.static_ram:>9,} bytes for one stream, and the stack")
