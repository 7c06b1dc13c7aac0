"""Train on your own notes, export what came of it, and let the bundle write.

python examples/train_on_notes.py my-notes.txt my-model --prompt "Dear "

Some minutes on a laptop with the default number of steps; a text of 100 kB or more is worth it.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, RawTextHelpFormatter
from pathlib import Path

import rillet.runtime
from rillet.export import export
from rillet.runtime import RilletError
from rillet.train import PRESETS, DualCNNPipeline, TrainingProgress


def report(progress: TrainingProgress) -> None:
    """Write a line to look at while it trains."""
    held_out = progress.held_out_loss
    looked = "" if held_out is None else f", on text never trained on {held_out:.3f}"
    print(
        f"step {progress.step} of {progress.steps}: loss {progress.second_loss:.3f}{looked}",
        file=sys.stderr,
    )


def main() -> None:
    """Train, export, write."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("notes", help="a text file, or a folder of them, in UTF-8")
    parser.add_argument("bundle", type=Path, help="the folder to write the bundle to")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--steps", type=int, default=800, help="steps of training (800)")
    parser.add_argument("--run", type=Path, help="keep the checkpoint in this folder")
    parser.add_argument("--prompt", default="", help="what the text begins with")
    parser.add_argument("--length", type=int, default=300, help="tokens to write (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--parity-steps", type=int, default=10_000,
        help="tokens over which each graph must agree with PyTorch (10,000)",
    )  # fmt: skip
    options = parser.parse_args()

    pipeline = DualCNNPipeline.fit_and_initialize(
        options.notes, preset=options.preset, steps=options.steps, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or Path(scratch)
        pipeline.train(run, report)
        # The export compares each graph with PyTorch, and writes nothing if one differs.
        export(run, options.bundle, parity_steps=options.parity_steps)

    # From here on, PyTorch is not needed: this is what a device does.
    model = rillet.runtime.load(options.bundle)
    print(options.prompt, end="")
    for piece in model.stream(options.prompt, max_new_tokens=options.length, seed=options.seed):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    try:
        main()
    except RilletError as error:
        sys.exit(f"Error: {error}")
