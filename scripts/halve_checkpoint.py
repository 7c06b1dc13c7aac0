"""Copy a run with its matrices rounded to 16 bits: the checkpoint is half as large.

    python scripts/halve_checkpoint.py RUN OUT

Export from OUT, so that bundle and checkpoint are the same model.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rillet.train import load_checkpoint
from rillet.train.checkpoint import save_checkpoint

RECORDS = ("summary.json", "log.csv")


def main() -> None:
    """Write the copy."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_checkpoint(arguments.out, load_checkpoint(arguments.run), half=True)
    for name in RECORDS:
        shutil.copyfile(arguments.run / name, arguments.out / name)


if __name__ == "__main__":
    main()
