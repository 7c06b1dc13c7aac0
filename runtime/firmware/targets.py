"""The processors that firmware is written for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """A processor.

    Attributes:
        title: What people call it.
        kernel: What computes products of int8.
        emulator: The command that runs the folder's programs, without the program; empty for none.
        packages: Debian's packages of its compiler and emulator.
    """

    title: str
    kernel: str = "plain C"
    emulator: tuple[str, ...] = ()
    packages: str = ""

    @property
    def is_emulated(self) -> bool:
        """Whether the folder's programs run in an emulator."""
        return bool(self.emulator)


_QUIET = ("-nographic", "-monitor", "none", "-serial", "stdio", "-icount", "shift=0")
_ARM = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
_RISCV = "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc"


def _arm(board: str) -> tuple[str, ...]:
    return ("qemu-system-arm", "-machine", board, *_QUIET, "-semihosting", "-kernel")


TARGETS = {
    "generic": Target("any processor with a C compiler"),
    "cortex-m7": Target("Arm Cortex-M7", "DSP (SMLAD)", _arm("mps2-an500"), _ARM),
    "cortex-m33": Target("Arm Cortex-M33", "DSP (SMLAD)", _arm("mps2-an505"), _ARM),
    "cortex-m55": Target("Arm Cortex-M55", "MVE (VMLADAVA)", _arm("mps3-an547"), _ARM),
    "riscv32": Target(
        "RISC-V, rv32imafc",
        emulator=("qemu-system-riscv32", "-machine", "virt", "-bios", "none", *_QUIET, "-kernel"),
        packages=_RISCV,
    ),
    "esp32s3": Target("ESP32-S3"),
}
