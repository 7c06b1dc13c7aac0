"""What a card says of a model that several runs trained, one after another."""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import Any

from .json_file import dictionary, words
from .training_command import command_of_run, text_options, thread_options

__all__ = ["commands_of_export", "commands_of_training", "runs_of"]

_FIRST = "RUN"
"""What the commands call the folder of the first run."""

_OWN_OPTION = ("steps", "seed")
"""Settings with an option of their own."""


def runs_of(training: dict[str, Any], name: str) -> list[str]:
    """An entry of each run's record, the last run's first."""
    values = [record.get(name) for record in _records(training)]
    return [f"{value:,}" if type(value) is int else str(value) for value in values if value]


def commands_of_export(name: str, run: str, bundle: dict[str, Any]) -> list[str]:
    """The commands that make a bundle from a run.

    Args:
        name: The bundle's name.
        run: What the commands call the run, or the bundle that it was read from.
        bundle: The bundle's manifest, or what a run's record says of the bundle it was read from.
    """
    given, commands = dictionary(bundle.get("arguments")), []
    lowered = bundle.get("precision") != "fp32"
    full = "FLOAT32" if lowered else name
    if "export" in given:
        options = words(given["export"])
        commands.append(shlex.join(["rillet", "export", run, *options, "--out", full]))
    if lowered and "quantize" in given:
        options = words(given["quantize"])
        commands.append(shlex.join(["rillet", "quantize", full, *options, "--out", name]))
    return commands


def commands_of_training(training: dict[str, Any], model: dict[str, Any]) -> tuple[list[str], str]:
    """The commands of all runs, in order, and what they call the folder of the last.

    Args:
        training: The checkpoint's training record.
        model: The model's configuration.

    Returns:
        The commands, without those of training if one of the runs was not made on the command line.
    """
    records = _records(training)[::-1]
    first = command_of_run(records[0], {**model, **dictionary(records[0].get("model"))})
    if first is None:
        return _read_from(training, _FIRST)
    read, run = _read_from(records[0], _FIRST)
    commands = [first, *read]
    for number, (before, record) in enumerate(pairwise(records), start=2):
        given = dictionary(record.get("given"))
        corpora = words(given.get("corpus"))
        if not corpora:
            return _read_from(training, _FIRST)
        parts = ["rillet", "train", "--continue-from", run]
        parts += text_options(corpora, given) + thread_options(given)
        parts += _settings(before, record, model)
        run = f"{_FIRST}{number}"
        commands.append(shlex.join([*parts, "--out", run]))
        read, run = _read_from(record, run)
        commands += read
    return commands, run


def _read_from(record: dict[str, Any], run: str) -> tuple[list[str], str]:
    """The commands that made the bundle that a run was read from, and its name, if it was."""
    bundle = dictionary(record.get("bundle"))
    if not isinstance(name := bundle.get("name"), str):
        return [], run
    return commands_of_export(name, run, bundle), name


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
