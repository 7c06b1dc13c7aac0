"""The figures of the converged baselines, as the page and its plots read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .pareto import Point

__all__ = [
    "NETWORKS",
    "SIZES",
    "Comparison",
    "is_cut_short",
    "read_comparisons",
    "results_file",
]

NETWORKS = {"gru": "GRU", "lstm": "LSTM", "mingru": "minGRU", "transformer": "transformer"}
"""Titles of the baselines."""

SIZES = {
    "shakespeare-nano": "tiny Shakespeare, the size of `nano`",
    "shakespeare-micro": "tiny Shakespeare, the size of `micro`",
    "tales-nano": "tales, the size of `nano`",
    "tales-micro": "tales, the size of `micro`",
}
"""The comparisons that belong on the page, by the checkpoint of ours that they stand beside."""


@dataclass(frozen=True)
class Comparison:
    """Baselines beside one of our checkpoints.

    Attributes:
        name: The checkpoint's name.
        about: What all were given, and what ours reached.
        rows: The trained baselines, and our network with its memory trained afterwards.
        searches: How rate and dropout were chosen.
        compressors: PPMd and zpaq.
        steps: The timed steps, with their command; ``None`` if they were not timed.
    """

    name: str
    about: dict[str, Any]
    rows: dict[str, dict[str, Any]]
    searches: dict[str, dict[str, Any]]
    compressors: dict[str, dict[str, Any]]
    steps: dict[str, Any] | None

    @property
    def trained(self) -> dict[str, dict[str, Any]]:
        """The rows of the baselines, in the order of :data:`NETWORKS`."""
        return {name: self.rows[name] for name in NETWORKS if name in self.rows}

    @property
    def longer(self) -> dict[str, dict[str, Any]]:
        """The rows of longer runs of ours."""
        return {
            name: row for name, row in self.rows.items() if "minutes" in row and "memory" not in row
        }

    @property
    def best_of_ours(self) -> tuple[str, dict[str, Any]]:
        """The run of ours with the best validation, as the others' are chosen, and its name."""
        runs = {"ours": self.about["ours"], **self.longer}
        name = min(runs, key=lambda name: float(runs[name]["validation"]))
        return name, runs[name]

    @property
    def per_character(self) -> float:
        """Nats per character of a nat per token of the held-out text, without what is first."""
        return float((self.about["held_out_tokens"] - 1) / (self.about["held_out_characters"] - 1))

    @property
    def missing(self) -> list[str]:
        """Titles of what has not been run."""
        missing = [title for name, title in NETWORKS.items() if name not in self.rows]
        return missing + ([] if self.compressors else ["PPMd and zpaq"])

    def losses(self) -> dict[str, float]:
        """Held-out losses in nats per character, by the name of a step and of a compressor."""
        ours = self.best_of_ours[1]["held_out"]
        found = {"ours": ours["loss"], "ours, no memory": ours["without_memory"]}
        for name, row in self.trained.items():
            found[name] = row["held_out"]["without_memory"]
            found[f"{name}, memory"] = row["held_out"]["loss"]
        found = {name: loss * self.per_character for name, loss in found.items()}
        return found | {name: row["loss"] for name, row in self.compressors.items()}

    def points(self, cost: str) -> dict[str, Point]:
        """Loss against the cost of a step, for those that were trained and timed.

        Args:
            cost: ``us``, microseconds a token; or ``bytes``, of the step's graph and a state.
        """
        if self.steps is None:
            return {}
        losses, found = self.losses(), {}
        for name, row in self.steps["figures"]["rows"].items():
            if name in losses:
                size = row["bytes"] + row["state_bytes"]
                found[name] = Point(row["us"] if cost == "us" else size, losses[name])
        return found


def is_cut_short(row: dict[str, Any]) -> bool:
    """Whether a time limit ended the training that a row reports."""
    return bool(row["stopped"] == "time limit")


def results_file(results: Path, name: str) -> Path:
    """The file of the figures beside a checkpoint, by its name."""
    return results / "converged" / f"{name}.json"


def read_comparisons(results: Path) -> list[Comparison]:
    """Read what has been measured, in the order of :data:`SIZES`."""
    found = []
    for name in SIZES:
        path = results_file(results, name)
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        timed = results / "converged_steps" / f"{name}.json"
        steps = json.loads(timed.read_text(encoding="utf-8")) if timed.is_file() else None
        rows, searches, packed = (content.get(k, {}) for k in ("rows", "searches", "compressors"))
        found.append(Comparison(name, content["about"], rows, searches, packed, steps))
    return found
