"""README.md of the folder: what it needs, how it is built, and how it goes on a board."""

from __future__ import annotations

from .packing import Packed
from .targets import TARGETS, Target

__all__ = ["readme"]


def readme(packed: Packed, target: str) -> str:
    """The text.

    Args:
        packed: The model.
        target: The name of the target that the folder builds by default.
    """
    chosen = TARGETS[target]
    sections = [
        f"# {packed.bundle.path.name} on {chosen.title}",
        "This folder streams text from constants in flash and static RAM: no heap, no operating "
        "system, no files. `rillet firmware` wrote it; "
        "`docs/microcontrollers.md` of rillet explains it.",
        _needs(packed, chosen),
        _build(target, chosen),
        _BOARD,
        _files(),
        _saved(packed),
    ]
    return "\n\n".join(sections) + "\n"


def _needs(packed: Packed, target: Target) -> str:
    rows = {
        "flash: weights and tokenizer": len(packed.weights) + len(packed.tokenizer),
        "flash, for saved streams: two slots": 2 * packed.slot_size,
        "RAM: the stream's state": packed.state_size,
        "RAM: scratch of a step": packed.scratch_size,
        "RAM: prediction and what was seen": packed.prediction_size,
    }
    lines = [f"| {name} | {size:,} |" for name, size in rows.items()]
    return (
        "## What it needs\n\n| computed | bytes |\n| --- | --- |\n"
        + "\n".join(lines)
        + "\n\nCode takes about 50 kB more of flash, and the stack 3 kB. A token takes "
        f"{packed.products:,} products ({target.kernel}). The memory has {packed.memory:,} slots "
        "or past steps.\n\n`make selftest` builds a program that prints the rest, measured: "
        "instructions of the fastest, the typical and the slowest of 300 tokens, and the stack "
        "that was used."
    )


def _build(name: str, target: Target) -> str:
    if name == "esp32s3":
        return (
            "## Build it\n\nWith ESP-IDF 5, in `esp32s3`:\n\n"
            "```sh\nidf.py set-target esp32s3 && idf.py build flash monitor\n```\n\n"
            "Or with the Arduino framework and PlatformIO, in `esp32s3/arduino`, without saved "
            "streams:\n\n```sh\npio run -t upload && pio device monitor\n```\n\n"
            "Neither was ever built by those who wrote rillet. `make` builds the folder for this "
            "computer instead."
        )
    lines = ["## Build it", "", "```sh", "make          # writes build/TARGET/firmware.elf"]
    out = f"build/{name}/firmware.elf"
    if target.is_emulated:
        lines += [f"{' '.join(target.emulator)} {out} < /dev/null", "```", ""]
        lines += [f"Debian and Ubuntu have the tools: `apt-get install {target.packages}`."]
    else:
        lines += [out, "```"]
    lines += ["", "`TARGET=` builds for another file of `targets/`. With CMake:", "", "```sh"]
    lines += [
        "cmake -B build/cmake --toolchain toolchain.cmake && cmake --build build/cmake",
        "```",
    ]
    return "\n".join(lines)


_BOARD = """## Put it on your board

1. Copy a file of `boards/` and write the functions of `board.h` for your chip: one byte to the
   serial port, and erasing and writing two parts of its flash.
2. Write its linker script: flash, RAM, and the slots. That of your vendor does.
3. Change the third and fourth line of your target's file in `targets`: linker flags and board.
4. Change `main.c`: the prompt, the seed, how much is written, when the stream is saved."""


def _files() -> str:
    return (
        "## What lies where\n\n| file | holds |\n| --- | --- |\n"
        "| `main.c` | the program: yours to change |\n"
        "| `device.h` | one stream: begin, read, draw, save, load |\n"
        "| `slots.c` | saved streams in flash, of which a power cut leaves one |\n"
        "| `weights.c` | the model and its tokenizer, packed |\n"
        "| `selftest.c` | prints what tests compare, and what is measured |\n"
        "| `lib` | rillet's C library, as far as a device needs it |"
    )


def _saved(packed: Packed) -> str:
    return (
        "## Saved streams\n\n"
        "Each of the two slots holds a page of 256 bytes and a file, which is one that "
        "`Session.save` writes in Python. The third number of the page, of 32 bits, is the file's "
        "size:\n\n```python\nslot = Path('slot.bin').read_bytes()\n"
        "size = int.from_bytes(slot[8:12], 'little')\n"
        "Path('stream.state').write_bytes(slot[256 : 256 + size])\n```\n\n"
        "Python continues it with the same bundle, if that has as large a memory: "
        f"{packed.memory:,}."
    )
