"""The parity gate: an engine must compute what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...runtime.engines.base import Engine
from ...runtime.errors import CorpusError, ParityError
from ...runtime.tokenizer import Tokenizer
from ...train.data.corpus import builtin_corpus
from ...train.model.dual_cnn import DualCNN
from ...train.model.state import State
from .comparison import Comparison, Difference

__all__ = [
    "TOLERANCE",
    "Comparison",
    "ParityReport",
    "check",
    "compare",
    "compare_state",
    "gate_tokens",
    "gate_total",
    "run_gate",
    "table",
]

TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3}
"""Largest |difference| of a logit or a state value, by precision. What is not here is judged by
its loss: differences are reported, and the loss on real text may rise as far as was allowed when
:func:`rillet.export.quantize` measured the held-out one."""

REAL_TEXT = "real text"
"""What reports call the text that every gate reads."""

STEPS = 10_000
_SPAN = 256


@dataclass(frozen=True)
class ParityReport:
    """What the gate found.

    Attributes:
        comparisons: Figures of each graph, text and execution provider.
        precision: Precision of the graphs; sets the tolerance.
        culprits: What in the graphs is not as the checkpoint gives it, where that was looked
            for.
        max_loss_rise: Nats per token by which the loss on real text may rise, where that is
            what the precision is judged by.
    """

    comparisons: tuple[Comparison, ...]
    precision: str = "fp32"
    culprits: tuple[str, ...] = ()
    max_loss_rise: float = 0.0

    @property
    def failure(self) -> str | None:
        """Why the gate fails; ``None`` when it passes."""
        if self.precision not in TOLERANCE:
            return self._loss_failure()
        failures = (row.failure(TOLERANCE[self.precision]) for row in self.comparisons)
        failure = next((failure for failure in failures if failure is not None), None)
        if failure is not None and self.culprits:
            return f"{failure}; in the graphs: {'; '.join(self.culprits)}"
        return failure

    def _loss_failure(self) -> str | None:
        """Of a precision that is judged by its loss: on real text it may not rise too far."""
        for row in self.comparisons:
            if row.text == REAL_TEXT and not row.loss_rise <= self.max_loss_rise:
                return (
                    f"{row.graph} on {row.text}: the loss rises by {row.loss_rise:.4f} nats per "
                    f"token, and {self.max_loss_rise:g} is allowed"
                )
        return None

    @property
    def passed(self) -> bool:
        """Whether the gate passes."""
        return self.failure is None

    def check(self) -> ParityReport:
        """Refuse figures that fail the gate.

        Raises:
            ParityError: A comparison fails; names the graph, the output and the figure.
        """
        if self.failure is not None:
            raise ParityError(f"the graphs do not compute what PyTorch computes: {self.failure}")
        return self

    def to_list(self) -> list[dict[str, Any]]:
        """The figures as JSON values."""
        return [row.to_dict() for row in self.comparisons]

    def table(self) -> str:
        """The figures as a table of text."""
        return table(list(self.comparisons))


@torch.no_grad()
def compare(
    model: DualCNN,
    engine: Engine,
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
    result = Comparison(graph, text, provider=engine.provider)
    logits = result.outputs["logits"] = Difference()
    random = np.random.default_rng(seed)
    batch, length = tokens.shape
    state, engine_state = model.zero_state(batch), engine.zero_state(batch)
    overlaps = []
    for start in range(0, length, _SPAN):
        span = tokens[:, start : start + _SPAN]
        output, state = model(torch.from_numpy(span), state)
        found, places = _read(engine, engine_state, graph, span, random)
        wanted = output.numpy()[:, places]
        result.tokens += span.size
        _choices(result, wanted, found, start + places, tolerance)
        overlaps.append(_overlap(wanted, found))
        by_step = logits.add(wanted, found, start + places, tolerance)
        for place, value in zip(places, by_step, strict=True):
            part = (start + int(place)) * len(result.parts) // length
            result.parts[part] = max(result.parts[part], float(value))
        _losses(result, wanted, found, tokens, start + places)
        compare_state(result, state, engine_state.read(), start + span.shape[1] - 1, tolerance)
        if progress is not None:
            progress(span.size)
    result.overlap = float(np.mean(overlaps))
    return result


def compare_state(
    result: Comparison,
    wanted: State,
    found: dict[str, npt.NDArray[Any]],
    step: int,
    tolerance: float,
) -> None:
    """Compare every state tensor after a step."""
    for name, tensor in wanted.items():
        output = result.outputs.setdefault(name, Difference())
        value = np.asarray(found[name])[:, None]
        output.add(tensor.numpy()[:, None], value, np.asarray([step]), tolerance)


def run_gate(
    model: DualCNN,
    tokenizer: Tokenizer,
    engine: Engine,
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
    tolerance = TOLERANCE.get(precision, TOLERANCE["fp16"])
    real = gate_tokens(tokenizer, steps)
    noise = np.random.default_rng(1).integers(0, tokenizer.vocab_size, (3, max(1, steps // 10)))
    return [
        compare(model, engine, graph, tokens, text, tolerance, progress=progress)
        for graph in ("decode", "prefill")
        for text, tokens in ((REAL_TEXT, real), ("random tokens", noise))
    ]


def gate_total(steps: int) -> int:
    """Tokens that :func:`run_gate` reads, for a progress bar."""
    return 2 * (steps + 3 * max(1, steps // 10))


def check(comparisons: list[Comparison], precision: str = "fp32") -> None:
    """Refuse figures that fail the gate; see :meth:`ParityReport.check`."""
    ParityReport(tuple(comparisons), precision).check()


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
    """The figures as a table of text: a line for each graph and text, and its worst state."""
    lines = [
        f"{'graph':8} {'read':14} {'tokens':>7} {'chosen':>7} {'top 10':>7} {'cosine':>8} "
        f"{'logits':>8} {'mean':>8} {'at step':>8} {'state':>8}  largest state difference in"
    ]
    for row in comparisons:
        states = {name: delta for name, delta in row.deltas.items() if name != "logits"}
        worst = max(states, key=lambda name: states[name])
        chosen = "equal" if not row.greedy_differences else str(row.greedy_differences)
        logits = row.outputs["logits"]
        lines.append(
            f"{row.graph:8} {row.text:14} {row.tokens:7} {chosen:>7} {row.overlap:7.4f} "
            f"{row.cosine:8.6f} {logits.largest:8.1e} {logits.mean:8.1e} {logits.step:8} "
            f"{states[worst]:8.1e}  {worst}"
        )
    return "\n".join(lines)


def _read(
    engine: Engine,
    state: Any,
    graph: str,
    span: npt.NDArray[Any],
    random: np.random.Generator,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read a span with one graph: logits ``[B, S, V]``, and the S places that they follow."""
    if graph == "decode":
        steps = [engine.step(column, state).copy() for column in span.T]
        return np.stack(steps, axis=1), np.arange(span.shape[1])
    parts, places, at = [], [], 0
    # A graph that predicts after the last token only gives one row for each chunk.
    last = engine.last_logits
    for part in _cut(span, random):
        logits = engine.prefill(part, state, last=last)
        at += part.shape[1]
        parts.append(logits)
        places.append(np.arange(at - logits.shape[1], at))
    return np.concatenate(parts, axis=1), np.concatenate(places)


def _choices(
    result: Comparison,
    wanted: npt.NDArray[Any],
    found: npt.NDArray[Any],
    steps: npt.NDArray[Any],
    tolerance: float,
) -> None:
    """Count steps whose likeliest tokens differ, unless PyTorch holds the two for equal."""
    chosen = np.take_along_axis(wanted, found.argmax(-1)[..., None], -1)[..., 0]
    differ = ~(wanted.max(-1) - chosen <= tolerance)  # [B, S]
    result.greedy_differences += int(differ.sum())
    if differ.any() and result.first_greedy_difference is None:
        result.first_greedy_difference = int(steps[int(differ.any(0).argmax())])


def _losses(
    result: Comparison,
    wanted: npt.NDArray[Any],
    found: npt.NDArray[Any],
    tokens: npt.NDArray[Any],
    steps: npt.NDArray[Any],
) -> None:
    """Add what the tokens that came next were worth; the last one of all has no next."""
    steps = steps[steps + 1 < tokens.shape[1]]
    targets = tokens[:, steps + 1, None]
    for logits, name in ((found, "nats"), (wanted, "nats_wanted")):
        worth = np.take_along_axis(logits[:, : len(steps)], targets, axis=2)
        setattr(result, name, getattr(result, name) - float(worth.sum(dtype=np.float64)))
    result.predicted += targets.size


def _cut(span: npt.NDArray[Any], random: np.random.Generator) -> Iterator[npt.NDArray[Any]]:
    """Cut ``[B, T]`` into chunks of random length, many of them short."""
    start = 0
    while start < span.shape[1]:
        length = int(random.choice([1, 2, 3, 17, 64, 200]))
        yield span[:, start : start + length]
        start += length


def _overlap(wanted: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    count = min(10, wanted.shape[-1])
    first = np.argpartition(-wanted, count - 1, axis=-1)[..., :count]
    second = np.argpartition(-found, count - 1, axis=-1)[..., :count]
    return float((first[..., :, None] == second[..., None, :]).any(-1).mean())
