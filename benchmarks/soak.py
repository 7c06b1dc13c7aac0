"""One stream of ten million tokens that reads and writes in turn, beside PyTorch.

    python benchmarks/soak.py CHECKPOINT BUNDLE TEXT [--tokens 10000000] [--json FILE]

The stream reads 256 tokens of TEXT, which its memory learns, and writes 768, over and over. PyTorch
reads the same tokens as a stream of its own, and logits and state are compared. A table has twenty
lines: time of a written token beside that of a young stream (in bursts in turn, in the thread's own
time), memory of the process, the largest error since the line before, and what the text is like.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import machine
from rillet.runtime import Model, Session, load
from rillet.train import DualCNN, load_checkpoint

READ, WRITTEN = 256, 768
TURN = READ + WRITTEN
LINES = 20
TEMPERATURE = 0.8
BURSTS, STEPS = 30, 32
SAMPLE = 100_000
"""Characters of written text that its figures are taken from, for each line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load(arguments.bundle, "cpu")
    text = np.asarray(model.tokenizer.encode(arguments.text.read_text(encoding="utf-8")))
    soak = Soak(model, load_checkpoint(arguments.checkpoint).model.eval(), text)
    turns = max(1, math.ceil(arguments.tokens / TURN / LINES))
    lines: list[dict[str, Any]] = []
    for _ in range(LINES):
        lines.append(soak.line(turns))
        print(shown(lines[-1], header=len(lines) == 1), flush=True)
        machine.write(arguments.json, {"lines": lines})


class Soak:
    """The stream, PyTorch's stream, and what was seen of both.

    Args:
        model: The bundle.
        torch_model: The checkpoint that it was exported from.
        text: Tokens to read pieces of.
    """

    def __init__(self, model: Model, torch_model: DualCNN, text: np.ndarray) -> None:
        self.model, self.torch_model, self.text = model, torch_model, text
        self.session = model.session()
        self.state = torch_model.zero_state()
        self.random = np.random.default_rng(0)
        self.letters: Counter[str] | None = None
        self.seed = 0

    def line(self, turns: int) -> dict[str, Any]:
        """Go on for so many turns; return a line of the table."""
        error, greedy, surprise = 0.0, 0, 0.0
        pieces: list[str] = []
        for _ in range(turns):
            read, written, nats, text = self._turn()
            expected = self._torch_reads(read, written)
            found = self.session.logits
            assert found is not None
            if not np.isfinite(found).all():
                raise SystemExit(f"not finite at token {self.session.position}")
            error = max(error, float(np.abs(found - expected).max()))
            greedy += int(found.argmax() == expected.argmax())
            surprise += nats
            if sum(map(len, pieces)) < SAMPLE:
                pieces.append(text)
        state = self.session.state
        ours, young = self._times()
        written_text = "".join(pieces)
        letters = Counter(written_text)
        self.letters = self.letters or letters
        return {
            "position": self.session.position,
            "microseconds": ours,
            "of_a_young_stream": ours / young,
            "resident_mb": resident(),
            "logit_error": error,
            "state_error": max(
                float(np.abs(state[name] - value.numpy()).max())
                for name, value in self.state.items()
            ),
            "greedy_equal": greedy / turns,
            "nats_of_written": surprise / turns,
            "letters_differ": variation(self.letters, letters),
            "distinct_words": distinct_words(written_text),
        }

    def _turn(self) -> tuple[list[int], list[int], float, str]:
        start = int(self.random.integers(0, len(self.text) - READ))
        read = self.text[start : start + READ].tolist()
        self.session.feed_tokens(read)
        self.seed += 1
        made = list(
            self.session.tokens(max_new_tokens=WRITTEN, temperature=TEMPERATURE, seed=self.seed)
        )
        nats = -sum(token.logprob for token in made) / len(made)
        return read, [token.token for token in made], nats, "".join(token.text for token in made)

    def _torch_reads(self, read: list[int], written: list[int]) -> np.ndarray:
        with torch.inference_mode():
            for tokens, learn in ((read, 1.0), (written, 0.0)):
                logits, self.state = self.torch_model(
                    torch.tensor([tokens]), self.state, torch.tensor([learn])
                )
        return logits[0, -1].numpy()

    def _times(self) -> tuple[float, float]:
        """Least microseconds of a written token, of this stream and of a young one, in turn."""
        young = self.model.session()
        young.feed_tokens(self.text[:2_048].tolist())
        bursts = [burst(self.session.fork()), burst(young)]
        least = [math.inf, math.inf]
        for _ in range(BURSTS):
            for which, run in enumerate(bursts):
                began = time.thread_time()
                run()
                least[which] = min(least[which], (time.thread_time() - began) / STEPS * 1e6)
        return least[0], least[1]


def burst(session: Session) -> Callable[[], object]:
    """Writes some tokens; a fork's own, so that the stream that is measured is left alone."""
    return lambda: session.generate(max_new_tokens=STEPS, temperature=TEMPERATURE, seed=1)


def variation(first: Counter[str], second: Counter[str]) -> float:
    """Total variation between two distributions of characters, 0 to 1."""
    totals = sum(first.values()), sum(second.values())
    return 0.5 * sum(
        abs(first[letter] / totals[0] - second[letter] / totals[1]) for letter in first | second
    )


def distinct_words(text: str) -> float:
    """Share of the words that are different ones."""
    words = text.split()
    return len(set(words)) / max(1, len(words))


def resident() -> float:
    """Resident memory of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status["VmRSS"].split()[0]) * 1024 / 1e6


def shown(line: dict[str, Any], header: bool) -> str:
    """A line of the table, below its header where it is the first."""
    names, values = list(line), []
    for value in line.values():
        form = "," if isinstance(value, int) else ".3g" if abs(value) < 1 else ".4g"
        values.append(format(value, form))
    row = "  ".join(value.rjust(len(name)) for name, value in zip(names, values, strict=True))
    return "  ".join(name.rjust(len(name)) for name in names) + "\n" + row if header else row


if __name__ == "__main__":
    main()
