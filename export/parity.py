"""The parity gate: an engine must compute what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..runtime.engine import Engine
from ..runtime.errors import CorpusError, ParityError
from ..runtime.tokenizer import Tokenizer
from ..train.corpus import builtin_corpus
from ..train.model import DualCNN

__all__ = [
    "TOLERANCE",
    "Comparison",
    "check",
    "compare",
    "gate_tokens",
    "gate_total",
    "run_gate",
    "table",
]

TOLERANCE = {"fp32": 1e-4}
"""Largest |difference| of a logit or a state value, by precision."""

STEPS = 10_000
_SPAN = 256
_LEAST_OVERLAP = 0.98
_LEAST_COSINE = 0.9999


@dataclass
class Comparison:
    """One graph against PyTorch on one stream of tokens.

    Attributes:
        graph: ``decode`` or ``prefill``.
        text: What was read.
        tokens: Number of tokens read, over all rows.
        greedy_differences: Steps whose likeliest token differs by more than a tie.
        overlap: Mean share of the ten likeliest tokens that both have.
        cosine: Least cosine between two logit vectors.
        deltas: Largest |difference| of each output, by name.
    """

    graph: str
    text: str
    tokens: int = 0
    greedy_differences: int = 0
    overlap: float = 1.0
    cosine: float = 1.0
    deltas: dict[str, float] = field(default_factory=dict)

    def failure(self, tolerance: float) -> str | None:
        """Why the comparison fails, in the order of the gate; ``None`` when it passes."""
        where = f"{self.graph} on {self.text}"
        if self.greedy_differences:
            return (
                f"{where}: the greedy token differs in {self.greedy_differences} of "
                f"{self.tokens} steps"
            )
        if not self.overlap >= _LEAST_OVERLAP:
            return f"{where}: the ten likeliest tokens agree to {self.overlap:.3f} only"
        if not self.cosine >= _LEAST_COSINE:
            return f"{where}: the cosine of the logits falls to {self.cosine:.6f}"
        for name, delta in self.deltas.items():
            if not delta <= tolerance:
                return f"{where}: {name} differs by {delta:.2e}, and {tolerance:.0e} is allowed"
        return None

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, differences to two digits."""
        return {
            "graph": self.graph,
            "text": self.text,
            "tokens": self.tokens,
            "greedy_differences": self.greedy_differences,
            "top10_overlap": round(self.overlap, 4),
            "cosine": round(self.cosine, 6),
            "max_difference": {name: float(f"{d:.1e}") for name, d in self.deltas.items()},
        }


@torch.no_grad()
def compare(
    model: DualCNN,
    engine: Engine[Any],
    graph: str,
    tokens: npt.NDArray[Any],
    text: str,
    tolerance: float,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Comparison:
    """Read tokens with PyTorch and with an engine, and compare logits and every state.

    Args:
        model: The PyTorch model.
        engine: The engine.
        graph: ``decode`` reads step by step, ``prefill`` in chunks of random length.
        tokens: ``[B, T]``.
        text: What to call the tokens in the report.
        tolerance: Likeliest tokens closer than this are a tie.
        seed: Seed of the chunk lengths.
        progress: Called with the number of tokens read.

    Returns:
        The figures.
    """
    result = Comparison(graph, text, deltas={"logits": 0.0})
    random = np.random.default_rng(seed)
    batch, length = tokens.shape
    state, engine_state = model.zero_state(batch), engine.zero_state(batch)
    overlaps = []
    for start in range(0, length, _SPAN):
        span = tokens[:, start : start + _SPAN]
        output, state = model(torch.from_numpy(span), state)
        wanted = output.numpy()
        if graph == "decode":
            steps = [engine.step(column, engine_state).copy() for column in span.T]
            found = np.stack(steps, axis=1)
        else:
            parts = [engine.prefill(part, engine_state) for part in _cut(span, random)]
            found = np.concatenate(parts, axis=1)
        result.tokens += span.size
        result.greedy_differences += _greedy_differences(wanted, found, tolerance)
        overlaps.append(_overlap(wanted, found))
        result.cosine = min(result.cosine, _least_cosine(wanted, found))
        _widen(result.deltas, "logits", wanted, found)
        values = engine_state.read()
        for name, tensor in state.items():
            _widen(result.deltas, name, tensor.numpy(), values[name])
        if progress is not None:
            progress(span.size)
    result.overlap = float(np.mean(overlaps))
    return result


def run_gate(
    model: DualCNN,
    tokenizer: Tokenizer,
    engine: Engine[Any],
    precision: str = "fp32",
    steps: int = STEPS,
    progress: Callable[[int], object] | None = None,
) -> list[Comparison]:
    """Compare both graphs on real text and on random tokens.

    Args:
        model: The PyTorch model.
        tokenizer: Its tokenizer.
        engine: The engine.
        precision: Sets the tolerance.
        steps: Tokens of real text for each graph.
        progress: Called with the number of tokens read.

    Returns:
        The figures, passed or not.
    """
    tolerance = TOLERANCE[precision]
    real = gate_tokens(tokenizer, steps)
    noise = np.random.default_rng(1).integers(0, tokenizer.vocab_size, (3, max(1, steps // 10)))
    return [
        compare(model, engine, graph, tokens, text, tolerance, progress=progress)
        for graph in ("decode", "prefill")
        for text, tokens in (("real text", real), ("random tokens", noise))
    ]


def gate_total(steps: int) -> int:
    """Tokens that :func:`run_gate` reads, for a progress bar."""
    return 2 * (steps + 3 * max(1, steps // 10))


def check(comparisons: list[Comparison], precision: str = "fp32") -> None:
    """Refuse figures that fail the gate.

    Raises:
        ParityError: A comparison fails; names the graph, the output and the figure.
    """
    for comparison in comparisons:
        failure = comparison.failure(TOLERANCE[precision])
        if failure is not None:
            raise ParityError(f"the graphs do not compute what PyTorch computes: {failure}")


def gate_tokens(tokenizer: Tokenizer, steps: int) -> npt.NDArray[np.int64]:
    """Tokens of real text, ``[1, steps]``: Python's own reference texts, repeated if short.

    Characters that the tokenizer lacks are left out; for an alphabet that has almost
    nothing in common with English, tokens are drawn at random with repetitions instead.
    """
    try:
        tokens = tokenizer.encode(builtin_corpus()[: 4 * steps])
    except CorpusError:
        tokens = []
    if len(tokens) < min(steps, 500):
        random = np.random.default_rng(2)
        phrase = random.integers(0, tokenizer.vocab_size, 500)
        noise = random.integers(0, tokenizer.vocab_size, 500)
        tokens = np.where(random.random(500) < 0.1, noise, phrase).tolist()
    repeats = -(-steps // len(tokens))
    return np.asarray([(tokens * repeats)[:steps]], np.int64)


def table(comparisons: list[Comparison]) -> str:
    """The figures as a table of text."""
    lines = [
        f"{'graph':8} {'read':14} {'tokens':>7} {'greedy':>7} {'top 10':>7} {'logits':>9} "
        f"{'state':>9}  {'largest state difference in'}"
    ]
    for row in comparisons:
        states = {name: delta for name, delta in row.deltas.items() if name != "logits"}
        worst = max(states, key=lambda name: states[name])
        greedy = "equal" if not row.greedy_differences else str(row.greedy_differences)
        lines.append(
            f"{row.graph:8} {row.text:14} {row.tokens:7} {greedy:>7} {row.overlap:7.4f} "
            f"{row.deltas['logits']:9.1e} {states[worst]:9.1e}  {worst}"
        )
    return "\n".join(lines)


def _cut(span: npt.NDArray[Any], random: np.random.Generator) -> Iterator[npt.NDArray[Any]]:
    """Cut ``[B, T]`` into chunks of random length, many of them short."""
    start = 0
    while start < span.shape[1]:
        length = int(random.choice([1, 2, 3, 17, 64, 200]))
        yield span[:, start : start + length]
        start += length


def _greedy_differences(wanted: npt.NDArray[Any], found: npt.NDArray[Any], tolerance: float) -> int:
    """Steps whose likeliest tokens differ, unless PyTorch holds the two for equal."""
    chosen = np.take_along_axis(wanted, found.argmax(-1)[..., None], -1)[..., 0]
    return int(np.sum(~(wanted.max(-1) - chosen <= tolerance)))


def _overlap(wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    count = min(10, wanted.shape[-1])
    first = np.argpartition(-wanted, count - 1, axis=-1)[..., :count]
    second = np.argpartition(-found, count - 1, axis=-1)[..., :count]
    return float((first[..., :, None] == second[..., None, :]).any(-1).mean())


def _least_cosine(wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / np.maximum(lengths, 1e-30)).min())


def _widen(
    deltas: dict[str, float], name: str, wanted: npt.NDArray[Any], found: npt.NDArray[Any]
) -> None:
    """Keep the largest difference seen; one that is not a number is kept as infinite."""
    delta = float(np.abs(wanted.astype(np.float64) - found.astype(np.float64)).max())
    deltas[name] = max(deltas.get(name, 0.0), delta if np.isfinite(delta) else np.inf)
