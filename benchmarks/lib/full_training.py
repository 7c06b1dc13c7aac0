"""A baseline tried as hard as ours: searched, trained until validation stops, and then measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rillet.train.checkpoint import Checkpoint
from rillet.train.config.training_config import TrainingConfig

from .baselines import Baseline, matched_gru
from .comparison_texts import Texts
from .converging import ConvergingRun
from .halving import halve, ranked, search_steps
from .lstm import matched_lstm
from .memory_on_top import Frozen, FrozenBaseline, MemoryOnTop, fit_memory
from .min_gru import matched_min_gru
from .plateau import Plateau
from .resumable_results import ResumableResults
from .sliding_transformer import matched_sliding

__all__ = [
    "BUILD",
    "FullTraining",
    "bracketed",
    "measured",
    "memory_is_done",
    "memory_on",
    "patience_for",
]

BUILD: dict[str, Callable[[int, int, float], Baseline]] = {
    "gru": matched_gru,
    "lstm": matched_lstm,
    "mingru": matched_min_gru,
    "transformer": lambda size, vocab, dropout: matched_sliding(size, vocab, 256, dropout),
}
"""Builds a baseline from a number of parameters, the vocabulary and dropout."""

RATES = {
    "gru": (5e-3, 1e-2, 2e-2),
    "lstm": (5e-3, 1e-2, 2e-2),
    "mingru": (5e-3, 1e-2, 2e-2),
    "transformer": (1.5e-3, 3e-3, 6e-3),
}
FURTHER = 4
"""Most rates to add while the best is the highest or the lowest."""

BATCHES = {"transformer": 8}
"""Streams of a step where they are not ours: a transformer takes more steps, of nanoGPT's size."""

MEMORY_RULE = {"steps": 400, "learning_rate": 0.012}
"""A memory's training, whatever its network's: at a third of the rate, it had not arrived."""

PATIENCE = 4
"""Fewest validations without an improvement after which a rate falls."""

Notify = Callable[[str], object]


@dataclass(frozen=True)
class FullTraining:
    """All that is done with a baseline; what the results already hold is not repeated.

    Attributes:
        name: The baseline, of :data:`BUILD`.
        checkpoint: Our model, for its size and its settings.
        texts: The texts.
        folder: Folder for the runs.
        results: Where the figures go.
        notify: Called with lines on the progress.
    """

    name: str
    checkpoint: Checkpoint
    texts: Texts
    folder: Path
    results: ResumableResults
    notify: Notify

    def run(
        self,
        rungs: Sequence[int],
        dropouts: Sequence[float],
        limits: tuple[float, float],
        finalists: int = 1,
    ) -> None:
        """Search the rate, train with each dropout, add the memory to the best, and measure.

        Args:
            rungs: Steps of the search after each rung.
            dropouts: Dropouts to train with, to the end each: short runs cannot tell.
            limits: Seconds of each training, CPU time and by the clock.
            finalists: Best rates of the search to train with the first dropout, to the end each;
                the others are trained at the best of them.
        """
        if self._is_done(dropouts, limits, finalists):
            self.notify("is in the results already")
            return
        first, *others = dropouts
        rates = {rate: self._train(rate, first, limits) for rate in self.search(rungs)[:finalists]}
        rate = min(rates, key=lambda rate: ranked(rates[rate]["validation"]))
        tried = {first: rates[rate]} | {own: self._train(rate, own, limits) for own in others}
        every = [*rates.values(), *(tried[own] for own in others)]
        best = min(tried, key=lambda dropout: ranked(tried[dropout]["validation"]))
        run = self.begin(rate, best)
        model, settings = run.best(), run.config
        row = {
            **tried[best],
            "parameters": model.parameter_count(),
            "shape": shape_of(model),
            "tokens": run.steps * settings.batch * settings.chunk,
            "cpu_minutes": sum(own["cpu_minutes"] for own in every),
            "limits": [seconds / 60 for seconds in limits],
            "converged": all(own["converged"] for own in every),
            "rates": {f"{rate:g}": own["validation"] for rate, own in rates.items()},
            "dropouts": {f"{dropout:g}": own["validation"] for dropout, own in tried.items()},
            "settings": {
                "learning_rate": rate,
                "dropout": best,
                "batch": settings.batch,
                "chunk": settings.chunk,
                "products": "float32" if run.dtype is None else "bfloat16",
            },
            **measured(*self.memory_on(model), self.texts, self.notify),
        }
        self.results.put("rows", self.name, row)

    def _train(self, rate: float, dropout: float, limits: tuple[float, float]) -> dict[str, Any]:
        """Train to the end, or on to it; returns how it went."""
        run = self.begin(rate, dropout)
        self.notify(f"trains at rate {rate:g}, dropout {dropout:g}, from step {run.steps}")
        stopped = run.train(limit=limits[0], wall_limit=limits[1], notify=self.notify)
        return {
            "validation": run.plateau.best,
            "best_step": run.plateau.best_step,
            "steps": run.steps,
            "cpu_minutes": run.cpu / 60,
            "minutes": run.wall / 60,
            "stopped": stopped,
            "converged": run.plateau.converged,
            "history": run.history,
        }

    def search(self, rungs: Sequence[int]) -> list[float]:
        """Rank learning rates by short runs without dropout, which the training continues.

        Returns the rates of the last rung, the best first.


        A search that ended after other rungs is made again; the trials of both are measured once.
        """
        done = self.results.get("searches", self.name)
        if done is None or done["rungs"] != list(rungs):
            began, own = time.process_time(), self.checkpoint.model.config.training

            def measure(rate: float, steps: int) -> float:
                trial = f"{self.name}, rate {rate:g}, step {steps}"
                if self.results.get("trials", trial) is None:
                    run = self.begin(rate, 0.0)
                    until = search_steps(steps, own.batch, run.config.batch)
                    if run.steps > until:  # trained on since, by a shorter search's choice
                        run = self.begin(rate, 0.0, keep=False)
                    run.train(until=until)
                    # Kept, since an interrupted search would find the run further on.
                    self.results.put("trials", trial, {"validation": run.measure()})
                loss = float(self.results.get("trials", trial)["validation"])
                self.notify(f"rate {rate:g}, step {steps}: {loss:.4f}")
                return loss

            rates = bracketed(RATES[self.name], lambda rate: measure(rate, rungs[0]))
            chosen, tried = halve(rates, rungs, measure)
            done = {
                "learning_rate": chosen,
                "rungs": list(rungs),
                "tried": [{f"{rate:g}": loss for rate, loss in losses} for losses in tried],
                "cpu_minutes": (time.process_time() - began) / 60,
            }
            self.results.put("searches", self.name, done)
        return [float(rate) for rate in done["tried"][-1]]

    def begin(self, rate: float, dropout: float, keep: bool = True) -> ConvergingRun:
        """Begin a run, or continue it; one that is not kept begins anew."""
        own = self.checkpoint.model.config
        torch.manual_seed(own.seed)  # for the initial weights
        parameters = self.checkpoint.training["parameters"]
        model = BUILD[self.name](parameters, own.vocab_size, dropout)
        config = training_config(self.name, own.training, rate)
        folder = self.folder / f"{self.name}-{rate:g}-{dropout:g}"
        text, pieces = self.texts.trained, self.texts.validation
        plateau = Plateau(patience=patience_for(len(text), config))
        return ConvergingRun(model, text, pieces, config, folder if keep else None, plateau)

    def memory_on(self, model: Baseline) -> tuple[MemoryOnTop, dict[str, Any]]:
        """Train our memory on top of a network; see :func:`memory_on`."""
        return memory_on(FrozenBaseline(model), self.checkpoint, self.texts, self.notify)

    def _is_done(
        self, dropouts: Sequence[float], limits: tuple[float, float], finalists: int
    ) -> bool:
        row = self.results.get("rows", self.name)
        if row is None or not {f"{dropout:g}" for dropout in dropouts} <= set(row["dropouts"]):
            return False
        if not memory_is_done(row):
            return False
        ranked_last = self.results.get("searches", self.name)["tried"][-1]
        if len(row.get("rates", [row])) < min(finalists, len(ranked_last)):
            return False
        within = all(60 * given >= now for given, now in zip(row["limits"], limits, strict=True))
        return within or bool(row["converged"])


def training_config(name: str, own: TrainingConfig, rate: float) -> TrainingConfig:
    """The settings of a baseline's training: ours, but for its rate and its batch."""
    batch = BATCHES.get(name, own.batch)
    # As many tokens between two validations, whatever the batch, and at least 20 steps.
    every = max(20, 30 * own.batch // batch)
    return own.replace(learning_rate=rate, batch=batch, validate_every=every)


def patience_for(tokens: int, config: TrainingConfig) -> int:
    """Validations in one pass over a text: in less, a step that is too long may yet pay."""
    between = config.validate_every * config.batch * config.chunk
    return max(PATIENCE, round(tokens / between))


def bracketed(rates: Sequence[float], measure: Callable[[float], float]) -> list[float]:
    """Add higher or lower rates, a factor of two apart, until the best is not the outermost."""
    losses = {rate: measure(rate) for rate in rates}
    for _ in range(FURTHER):
        best = min(losses, key=lambda rate: ranked(losses[rate]))
        if best not in (min(losses), max(losses)):
            break
        further = best * 2 if best == max(losses) else best / 2
        losses[further] = measure(further)
    return sorted(losses)


def memory_on(
    network: Frozen, checkpoint: Checkpoint, texts: Texts, notify: Notify
) -> tuple[MemoryOnTop, dict[str, Any]]:
    """Train a memory like a checkpoint's on top of a network; return both, and the figures."""
    own = checkpoint.model.config
    training = own.training.replace(validate_every=40, warmup=10, **MEMORY_RULE)
    began = time.process_time()
    top, figures = fit_memory(
        network, texts.words, texts.trained, texts.validation, own, training, notify=notify
    )
    figures["cpu_minutes"] = (time.process_time() - began) / 60
    figures["settings"] = {"batch": training.batch, **MEMORY_RULE}
    return top, figures


def memory_is_done(row: dict[str, Any]) -> bool:
    """Whether a row's memory was trained by today's rule."""
    settings: dict[str, Any] = row["memory"]["settings"]
    return settings.items() >= MEMORY_RULE.items()


def measured(
    top: MemoryOnTop, figures: dict[str, Any], texts: Texts, notify: Notify
) -> dict[str, Any]:
    """The part of a row that a network with its memory reaches on the held-out text."""
    mixed, alone = top.losses(texts.held_out)
    notify(f"held out: {alone:.4f}, with the memory {mixed:.4f}")
    return {"memory": figures, "held_out": {"loss": mixed, "without_memory": alone}}


def shape_of(model: Baseline) -> dict[str, int]:
    """The sizes that the number of parameters decided."""
    layers = getattr(model, "blocks", None)
    count = len(layers) if layers is not None else getattr(model, "layers").num_layers  # noqa: B009
    sizes = {"width": model.tokens.embedding_dim, "layers": int(count)}
    for name in ("heads", "window"):
        if hasattr(model, name):
            sizes[name] = int(getattr(model, name))
    return sizes
