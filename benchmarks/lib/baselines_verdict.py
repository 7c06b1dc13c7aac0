"""What the page of the converged baselines says first: where ours stands, and what was not run."""

from __future__ import annotations

from collections.abc import Iterable

from .converged_results import NETWORKS, SIZES, Comparison, is_cut_short
from .pareto import dominators

__all__ = ["listed", "summary", "title_of", "verdict"]

_COSTS = {"us": "loss and time", "bytes": "loss and size"}
_MEMORY = ", memory"


def verdict(comparisons: list[Comparison]) -> str:
    """The first paragraph: where ours is beaten, and what is not known yet."""
    terms = (
        "Each network has as many parameters as ours, and is trained for as long as it improves, "
        "or up to a time limit, where the table says so; ours is trained for a fixed number of "
        "steps, and the run that validates best counts. "
        "It is *on the front* where no other has at most its loss at no higher cost: the time of a "
        "token, or the size of graph and state."
    )
    parts = [terms, *(_standing(each) for each in comparisons), _not_run(comparisons)]
    return " ".join(parts).strip()


def _standing(comparison: Comparison) -> str:
    beaten = {cost: _ahead(comparison, cost) for cost in _COSTS if comparison.points(cost)}
    off = [_COSTS[cost] for cost, names in beaten.items() if names]
    on = [_COSTS[cost] for cost, names in beaten.items() if not names]
    behind = list(dict.fromkeys(name for names in beaten.values() for name in names))
    less = _less(comparison)
    sentences = []
    if off:
        sentences.append(
            f"**ours is not on the front of {' or of '.join(off)}**: {_named(behind)} "
            f"{_have(behind)} at most its loss at no higher cost"
        )
    if on:
        sentences.append(f"ours is on the front of {' and of '.join(on)}")
    if others := [name for name in less if name not in behind]:
        sentences.append(f"**{_named(others)} {_have(others)} a lower loss**")
    if not less:
        sentences.append("nothing here has a lower loss")
    if afterwards := _afterwards(comparison):
        sentences.append(
            f"**with the memory of ours trained afterwards as well, {_named(afterwards)} "
            f"{_have(afterwards)} a lower loss too**"
        )
    if alone := _alone(comparison):
        told = f"{_named(alone)} {_have(alone)} a lower loss"
        sentences.append(f"**without memories, {told}**")
    if undecided := _undecided(comparison):
        were = "was" if len(undecided) == 1 else "were"
        sentences.append(f"{_named(undecided)} {were} cut short by a time limit, and might too")
    return f"On {SIZES[comparison.name]}, {'; '.join(sentences)}."


def summary(comparison: Comparison) -> list[str]:
    """Cells of the table beneath: where, our losses, and those that are less, best first."""
    losses = comparison.losses()

    def figures(names: Iterable[str]) -> str:
        return "; ".join(f"{title_of(name)} {losses[name]:.4f}" for name in names) or "none"

    cut = [NETWORKS[name] for name, row in comparison.trained.items() if is_cut_short(row)]
    return [
        SIZES[comparison.name],
        f"{losses['ours']:.4f}{_steps_of_ours(comparison)}",
        figures(_less(comparison)),
        f"{losses['ours, no memory']:.4f}",
        figures(_alone(comparison)),
        listed(cut) if cut else "none",
    ]


def _steps_of_ours(comparison: Comparison) -> str:
    """Which run of ours it is, if not the one in the box."""
    _, _, which = comparison.best_of_ours[0].partition(", ")
    return f" ({which})" if which else ""


def _ahead(comparison: Comparison, cost: str) -> list[str]:
    points = comparison.points(cost)
    return dominators(points["ours"], points)


def _alone(comparison: Comparison) -> list[str]:
    """The networks with a lower loss than ours when neither has a memory, the best first."""
    losses = comparison.losses()
    ours = losses["ours, no memory"]
    names = [name for name in comparison.trained if losses[name] < ours]
    return sorted(names, key=lambda name: losses[name])


def _undecided(comparison: Comparison) -> list[str]:
    """The networks behind ours whose training a time limit ended."""
    losses = comparison.losses()
    return [
        name + _MEMORY
        for name, row in comparison.trained.items()
        if is_cut_short(row) and losses[name + _MEMORY] >= losses["ours"]
    ]


def _afterwards(comparison: Comparison) -> list[str]:
    """What has a lower loss than our network only if the memory of both is trained afterwards."""
    row, losses = comparison.rows.get("ours, memory afterwards"), comparison.losses()
    if row is None or comparison.best_of_ours[0] != "ours":  # another network's memory
        return []
    ours = row["held_out"]["loss"] * comparison.per_character
    names = [name + _MEMORY for name in comparison.trained]
    return [name for name in names if losses["ours"] <= losses[name] < ours]


def _less(comparison: Comparison) -> list[str]:
    """What has a lower loss than ours, the best first."""
    losses = comparison.losses()
    names = [name for name in losses if losses[name] < losses["ours"]]
    return sorted(names, key=lambda name: losses[name])


def _named(names: list[str]) -> str:
    """Names in order, but those with our memory together."""
    bare = [title_of(name) for name in names if not name.endswith(_MEMORY)]
    with_memory = [title_of(name.removesuffix(_MEMORY)) for name in names if name.endswith(_MEMORY)]
    return listed(bare + ([f"{listed(with_memory)} with our memory"] if with_memory else []))


def _have(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _not_run(comparisons: list[Comparison]) -> str:
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
    network = NETWORKS.get(name.removesuffix(_MEMORY), "")
    return f"{network} with our memory" if network and name.endswith(_MEMORY) else network or name


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
