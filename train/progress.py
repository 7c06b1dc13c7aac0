"""The progress bar of everything that takes more than a second."""

from __future__ import annotations

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(total: int, unit: str, what: str) -> tqdm[object]:
    """A progress bar on a terminal, and silence where the output is a file.

    Args:
        total: Number of units in all.
        unit: What is counted.
        what: What is being done.
    """
    scaled = unit == "token"
    return tqdm(
        total=total, unit=unit, desc=what, unit_scale=scaled, dynamic_ncols=True, disable=None
    )
