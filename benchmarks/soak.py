"""A stream of ten million tokens that alternately reads and writes, compared with another engine.

    python benchmarks/soak.py BUNDLE TEXT [--provider native] [--beside cpu | CHECKPOINT]
        [--tokens 10000000] [--json FILE]

The stream repeatedly reads 256 tokens of TEXT, which its memory learns, and writes 768. The other
engine, or PyTorch from a checkpoint, reads the same tokens as a stream of its own, and the script
compares logits and state. The table has twenty lines: the time per written token beside that of a
young stream (bursts in turn, in CPU time of the thread), the memory of the process, the largest
error since the previous line, and statistics of the text.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from lib.arrays import Array
from lib.bursts import Burst, least_times
from lib.process import resident_mb
from lib.results import write_results
from rillet.runtime import Model, Session, load
from rillet.runtime.engines.base import Engine
from rillet.train import DualCNN, load_checkpoint

READ, WRITTEN = 256, 768
TURN = READ + WRITTEN
LINES = 20
TEMPERATURE = 0.8
BURSTS, STEPS = 30, 32
SAMPLE = 100_000
"""Characters of written text that each line's statistics are taken from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--provider", default="native", choices=["native", "cpu"])
    parser.add_argument("--beside", default="cpu", help="native, cpu, or a checkpoint")
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load(arguments.bundle, arguments.provider)
    text = np.asarray(model.tokenizer.encode(arguments.text.read_text(encoding="utf-8")))
    soak = Soak(model, other_reader(arguments.bundle, arguments.beside), text)
    turns = max(1, math.ceil(arguments.tokens / TURN / LINES))
    lines: list[dict[str, Any]] = []
    for _ in range(LINES):
        lines.append(soak.line(turns))
        print(format_line(lines[-1], header=len(lines) == 1), flush=True)
        write_results(arguments.json, {"lines": lines})


class Reader(Protocol):
    """The same stream elsewhere, which reads what the first one reads and writes."""

    def read(self, tokens: list[int], learn: float) -> Array:
        """Read tokens; returns the logits after the last, ``[V]``."""
        ...

    def state(self) -> Mapping[str, Array]:
        """Every tensor of the state."""
        ...


class TorchReader:
    """A stream in PyTorch."""

    def __init__(self, model: DualCNN) -> None:
        self._model, self._state = model, model.zero_state()

    def read(self, tokens: list[int], learn: float) -> Array:
        """See :class:`Reader`."""
        with torch.inference_mode():
            logits, self._state = self._model(
                torch.tensor([tokens]), self._state, torch.tensor([learn])
            )
        last: Array = logits[0, -1].numpy()
        return last

    def state(self) -> Mapping[str, Array]:
        """See :class:`Reader`."""
        return {name: value.numpy() for name, value in self._state.items()}


class EngineReader:
    """A stream in an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._state = engine, engine.zero_state()

    def read(self, tokens: list[int], learn: float) -> Array:
        """See :class:`Reader`."""
        logits = self._engine.prefill(np.asarray([tokens]), self._state, learn, last=True)
        last: Array = logits[0, -1]
        return last

    def state(self) -> Mapping[str, Array]:
        """See :class:`Reader`."""
        return self._state.read()


def other_reader(bundle: Path, beside: str) -> Reader:
    """The reader that ``--beside`` names."""
    if beside == "native":
        return EngineReader(load(bundle, "native").engine)
    if beside == "cpu":
        return EngineReader(load(bundle, "cpu").engine)
    return TorchReader(load_checkpoint(Path(beside)).model.eval())


class Soak:
    """A stream, the same stream elsewhere, and the comparison of both.

    Args:
        model: The bundle.
        other: The same stream elsewhere.
        text: The tokens to read from.
    """

    def __init__(self, model: Model, other: Reader, text: Array) -> None:
        self.model, self.other, self.text = model, other, text
        self.session = model.session()
        self.random = np.random.default_rng(0)
        self.letters: Counter[str] | None = None
        self.seed = 0

    def line(self, turns: int) -> dict[str, Any]:
        """Take a number of turns; returns a line of the table.

        Raises:
            SystemExit: A logit is not finite.
        """
        error, greedy, surprise = 0.0, 0, 0.0
        pieces: list[str] = []
        for _ in range(turns):
            read, written, nats, text = self._turn()
            self.other.read(read, 1.0)
            expected = self.other.read(written, 0.0)
            actual = self.session.logits
            assert actual is not None
            if not np.isfinite(actual).all():
                raise SystemExit(f"a logit is not finite at token {self.session.position}")
            error = max(error, float(np.abs(actual - expected).max()))
            greedy += int(actual.argmax() == expected.argmax())
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
            "resident_mb": resident_mb(),
            "logit_error": error,
            "state_error": max(
                float(np.abs(state[name] - value).max())
                for name, value in self.other.state().items()
            ),
            "greedy_equal": greedy / turns,
            "nats_of_written": surprise / turns,
            "letters_differ": variation_distance(self.letters, letters),
            "distinct_words": distinct_words(written_text),
        }

    def _turn(self) -> tuple[list[int], list[int], float, str]:
        start = int(self.random.integers(0, len(self.text) - READ))
        read = self.text[start : start + READ].tolist()
        self.session.feed_tokens(read)
        self.seed += 1
        generated = list(
            self.session.tokens(max_new_tokens=WRITTEN, temperature=TEMPERATURE, seed=self.seed)
        )
        nats = -sum(token.logprob for token in generated) / len(generated)
        written = [token.token for token in generated]
        return read, written, nats, "".join(token.text for token in generated)

    def _times(self) -> tuple[float, float]:
        """Microseconds per written token, of this stream and of a young one."""
        young = self.model.session()
        young.feed_tokens(self.text[:2_048].tolist())
        # A fork, so that timing leaves the stream itself alone.
        bursts = {"old": _burst(self.session.fork()), "young": _burst(young)}
        times = least_times(bursts, BURSTS)
        return times["old"], times["young"]


def _burst(session: Session) -> Burst:
    def burst() -> int:
        session.generate(max_new_tokens=STEPS, temperature=TEMPERATURE, seed=1)
        return STEPS

    return burst


def variation_distance(first: Counter[str], second: Counter[str]) -> float:
    """Total variation distance between two distributions of characters, 0 to 1."""
    totals = sum(first.values()), sum(second.values())
    return 0.5 * sum(
        abs(first[letter] / totals[0] - second[letter] / totals[1]) for letter in first | second
    )


def distinct_words(text: str) -> float:
    """Distinct words as a share of all words."""
    words = text.split()
    return len(set(words)) / max(1, len(words))


def format_line(line: dict[str, Any], header: bool) -> str:
    """A line of the table, optionally below the header."""
    names, values = list(line), []
    for value in line.values():
        form = "," if isinstance(value, int) else ".3g" if abs(value) < 1 else ".4g"
        values.append(format(value, form))
    row = "  ".join(value.rjust(len(name)) for name, value in zip(names, values, strict=True))
    return "  ".join(name.rjust(len(name)) for name in names) + "\n" + row if header else row


if __name__ == "__main__":
    main()
