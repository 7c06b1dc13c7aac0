"""What a card says of a model that several runs trained, one after another."""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import Any

from .json_file import dictionary
from .training_command import command_of_run

__all__ = ["commands_of_training", "runs_of"]

_OWN_OPTION = ("seed", "steps")
"""Settings with an option of their own."""


def runs_of(training: dict[str, Any], name: str) -> list[str]:
    """An entry of each run's record, the last run's first."""
    values = [record.get(name) for record in _records(training)]
    return [f"{value:,}" if type(value) is int else str(value) for value in values if value]


def commands_of_training(training: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """The commands of all runs, in order.

    Args:
        training: The checkpoint's training record.
        model: The model's configuration.

    Returns:
        The commands; empty if one of the runs was not made on the command line.
    """
    records = _records(training)[::-1]
    first = command_of_run(records[0], {**model, **dictionary(records[0].get("model"))})
    commands = [] if first is None else [first]
    for number, (before, record) in enumerate(pairwise(records), start=1):
        dropout = {**model, **dictionary(record.get("model"))}
        actual = dictionary(record.get("config")) | {
            name: dropout[name] for name in dictionary(before.get("model")) if name in dropout
        }
        usual = {**dictionary(before.get("config")), **dictionary(before.get("model"))}
        parts = ["rillet", "train", "--continue-from", _run(number)]
        given = dictionary(record.get("given"))
        for corpus in given.get("corpus", [record.get("corpus")]):
            parts += ["--corpus", str(corpus)]
        if "validation" in given:
            parts += ["--validation", str(given["validation"])]
        for option in ("steps", "seed"):
            parts += [f"--{option}", str(actual.get(option, 0))]
        for name, value in actual.items():
            if name not in _OWN_OPTION and value != usual.get(name):
                parts += ["--set", f"{name}={value}"]
        commands.append(shlex.join([*parts, "--out", _run(number + 1)]))
    return commands if first is not None else []


def _run(number: int) -> str:
    return "RUN" if number == 1 else f"RUN{number}"


def _records(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of all runs, the last first."""
    records = [training]
    while isinstance(earlier := records[-1].get("continued_from"), dict):
        records.append(earlier)
    return records
