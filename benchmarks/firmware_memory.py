"""What a smaller memory costs: the held-out loss of one stream, for several sizes.

    python benchmarks/firmware_memory.py models/shakespeare-nano-int8 tinyshakespeare.txt

The held-out text is the last tenth, as in training. Each line has slots (or past steps), bytes of
the stream's state as firmware holds it, and nats per token.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from rillet.export.parity.losses import prefill_loss
from rillet.runtime.bundle import Bundle
from rillet.runtime.engines.native.engine import NativeEngine
from rillet.runtime.firmware.packing import SLACK
from rillet.runtime.tokenizer import Tokenizer

SIZES = "65536,49152,32768,16384,12288,10800,8192,6144,4096,2048,1024"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--memory", default=SIZES, help="sizes, separated by commas")
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    text = arguments.text.read_text(encoding="utf-8")
    tokens = Tokenizer.load(bundle.file("tokenizer.json")).encode(text[-len(text) // 10 :])
    for size in map(int, arguments.memory.split(",")):
        engine = NativeEngine(bundle)
        if not engine.model.shrink(size, SLACK):
            print(f"{size:>8}  more than this model has")
            continue
        loss = prefill_loss(engine, np.asarray([tokens], np.int64))
        print(f"{size:>8}  {engine.model.state_size:>9,} bytes  {loss:.4f}")


if __name__ == "__main__":
    main()
