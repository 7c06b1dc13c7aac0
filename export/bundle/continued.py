"""What a card says of a model that several runs trained, one after another."""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import Any

from .json_file import dictionary, words
from .training_command import command_of_run, text_options, thread_options

__all__ = ["commands_of_training", "run_name", "runs_of"]

_OWN_OPTION = ("steps", "seed")
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
    if first is None:
        return []
    commands = [first]
    for number, (before, record) in enumerate(pairwise(records), start=1):
        given = dictionary(record.get("given"))
        corpora = words(given.get("corpus"))
        if not corpora:
            return []
        parts = ["rillet", "train", "--continue-from", run_name(number)]
        parts += text_options(corpora, given) + thread_options(given)
        parts += _settings(before, record, model)
        commands.append(shlex.join([*parts, "--out", run_name(number + 1)]))
    return commands


def run_name(number: int) -> str:
    """What the commands call the folder of a run, counted from 1."""
    return "RUN" if number == 1 else f"RUN{number}"


def _settings(before: dict[str, Any], record: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """The options for the settings of a run that continues another."""
    dropout = {**model, **dictionary(record.get("model"))}
    actual = dictionary(record.get("config")) | {
        name: dropout[name] for name in dictionary(before.get("model")) if name in dropout
    }
    usual = {**dictionary(before.get("config")), **dictionary(before.get("model"))}
    # Left out, the rate might be another: the first run that continues one lowers it.
    usual.pop("learning_rate", None)
    options = []
    for name in _OWN_OPTION:
        options += [f"--{name}", str(actual.get(name, 0))]
    for name, value in actual.items():
        if name not in _OWN_OPTION and (name not in usual or value != usual[name]):
            options += ["--set", f"{name}={value}"]
    return options


def _records(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of all runs, the last first."""
    records = [training]
    while isinstance(earlier := records[-1].get("continued_from"), dict):
        records.append(earlier)
    return records
