"""What the page of the converged baselines says first: where ours stands, and what was not run."""

from __future__ import annotations

from collections.abc import Mapping

from .converged_results import NETWORKS, SIZES, Comparison
from .pareto import dominators

__all__ = ["listed", "not_run", "title_of", "verdict"]

_COSTS = {"us": "microseconds", "bytes": "bytes"}


def verdict(comparison: Comparison) -> str:
    """Where ours lies on the fronts, and what is worth less than it seems."""
    where, sentences = SIZES[comparison.name], []
    losses = comparison.losses()
    for cost, noun in _COSTS.items():
        points = comparison.points(cost)
        if len(points) < 3:
            continue
        better = dominators(points["ours"], points)
        unit = 1e3 if cost == "bytes" else 1
        amount = "{:,.0f} kB" if cost == "bytes" else "{:,.0f} µs"
        if better:
            named = "; ".join(
                f"{title_of(name)} ({points[name].loss:.4f}, "
                f"{amount.format(points[name].cost / unit)})"
                for name in better
            )
            sentences.append(
                f"**ours is not on the front of loss against {noun}**: no worse in either and "
                f"better in one {'is' if len(better) == 1 else 'are'} {named}, against "
                f"{points['ours'].loss:.4f} and {amount.format(points['ours'].cost / unit)}"
            )
        else:
            sentences.append(f"ours is on the front of loss against {noun}")
    ahead = [name for name in losses if losses[name] < losses["ours"] and name != "ours"]
    if ahead:
        sentences.append(f"**{_lose_less(ahead, losses)}** than ours ({losses['ours']:.4f})")
    else:
        sentences.append(f"nothing here loses less than ours ({losses['ours']:.4f})")
    ours = losses["ours, no memory"]
    alone = [name for name in comparison.trained if losses[name] < ours]
    if alone:
        named = _lose_less(alone, losses)
        sentences.append(f"**without memories, {named}** than ours ({ours:.4f})")
    for name, row in comparison.longer.items():
        with_memory, without = (
            row["held_out"][key] * comparison.per_character for key in ("loss", "without_memory")
        )
        sentences.append(f"{name}, loses {with_memory:.4f}, and {without:.4f} without its memory")
    packed = [name for name in comparison.compressors if name not in ahead]
    if packed:
        best = min(packed, key=lambda name: losses[name])
        sentences.append(f"the best compressor behind it is {best} ({losses[best]:.4f})")
    rows = {n: row for n, row in comparison.trained.items() if not row["converged"]}
    cut = [NETWORKS[name] for name in rows]
    if cut:
        minutes = listed([f"{row['cpu_minutes']:.1f}" for row in rows.values()])
        sentences.append(
            f"**{listed(cut)} {'was' if len(cut) == 1 else 'were'} cut short by a time limit** "
            f"before validation had stopped improving ({minutes} CPU minutes, against "
            f"{comparison.about['ours']['minutes']:.0f} by the clock of ours), "
            + _open_question([name for name in rows if f"{name}, memory" not in ahead])
        )
    return f"On {where}, {'; '.join(sentences)}."


def _lose_less(names: list[str], losses: Mapping[str, float]) -> str:
    """That some lose less, the best of them first."""
    best_first = sorted(names, key=lambda name: losses[name])
    named = listed([f"{title_of(name)} ({losses[name]:.4f})" for name in best_first])
    return f"{named} {'loses' if len(names) == 1 else 'lose'} less"


def _open_question(behind: list[str]) -> str:
    """What the runs that were cut short leave open, given those that are behind ours."""
    if not behind:
        return "and could lose still less"
    return f"so that this does not decide against {listed([NETWORKS[name] for name in behind])}"


def not_run(comparisons: list[Comparison]) -> str:
    run = {comparison.name: comparison for comparison in comparisons}
    lacking = []
    for name, title in SIZES.items():
        if name not in run:
            lacking.append(title)
        elif run[name].missing:
            lacking.append(f"{listed(run[name].missing)} on {title}")
    return f"Not run yet: {'; '.join(lacking)}." if lacking else ""


def title_of(name: str) -> str:
    """The title of a step: ``gru, memory`` is the GRU with our memory."""
    first, _, memory = name.partition(", ")
    title = NETWORKS.get(first, first)
    if first in NETWORKS:
        return f"{title} with our memory" if memory == "memory" else title
    return name


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
