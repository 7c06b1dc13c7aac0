"""Train on your own notes, export a bundle, and generate text with it.

python examples/train_on_notes.py my-notes.txt my-model --prompt "Dear "

The default number of steps takes a few minutes on a laptop. Use a text of 100 kB or more.
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
    """Print a line of progress."""
    held_out = progress.held_out_loss
    suffix = "" if held_out is None else f", held-out loss {held_out:.3f}"
    print(
        f"step {progress.step} of {progress.steps}: loss {progress.second_loss:.3f}{suffix}",
        file=sys.stderr,
    )


def main() -> None:
    """Train, export and generate."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("notes", help="a text file, or a folder of them, in UTF-8")
    parser.add_argument("bundle", type=Path, help="the folder to write the bundle to")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--steps", type=int, default=800, help="training steps (800)")
    parser.add_argument("--run", type=Path, help="keep the checkpoint in this folder")
    parser.add_argument("--prompt", default="", help="start of the text")
    parser.add_argument("--length", type=int, default=300, help="tokens to generate (300)")
    parser.add_argument("--seed", type=int, default=0)
    parity = "tokens over which each graph must agree with PyTorch (10,000)"
    parser.add_argument("--parity-steps", type=int, default=10_000, help=parity)
    options = parser.parse_args()

    pipeline = DualCNNPipeline.fit_and_initialize(
        options.notes, preset=options.preset, steps=options.steps, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or Path(scratch)
        pipeline.train(run, report)
        # The export compares each graph with PyTorch, and writes nothing if any differs.
        export(run, options.bundle, parity_steps=options.parity_steps)

    # This is what a device does; it does not need PyTorch.
    model = rillet.runtime.load(options.bundle)
    print(options.prompt, end="")
    for piece in model.stream(options.prompt, max_new_tokens=options.length, seed=options.seed):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")
