"""The page of the baselines: it matches its figures, and says where ours is beaten."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path

import pytest

from converged import longer_row
from lib.baselines_page import baselines_page
from lib.converged_results import NETWORKS, Comparison, read_comparisons
from lib.pareto import Point, dominators, front
from report import BASELINES, RESULTS, ROOT
from rillet.train import load_checkpoint

POINTS = {
    "cheap": Point(1, 3),
    "middle": Point(2, 2),
    "beaten": Point(3, 2.5),
    "best": Point(4, 1),
    "as good": Point(5, 1),
}


def test_the_front_is_what_nothing_dominates() -> None:
    assert front(POINTS) == ["cheap", "middle", "best"]
    assert dominators(POINTS["beaten"], POINTS) == ["middle"]
    assert dominators(POINTS["as good"], POINTS) == ["best"]
    assert front({"a": Point(1, 1), "b": Point(1, 1)}) == ["a", "b"]


@pytest.fixture
def comparison() -> Comparison:
    """A real one, in which a network that has not run has the figures of one that has."""
    found = copy.deepcopy(read_comparisons(RESULTS)[0])
    assert found.steps is not None
    for name in found.longer:
        del found.rows[name]
    timed = found.steps["figures"]["rows"]
    for name in NETWORKS:
        for parts in (found.rows, found.searches):
            parts.setdefault(name, copy.deepcopy(parts["mingru"]))
        for step in ("", ", memory"):
            timed.setdefault(name + step, copy.deepcopy(timed["mingru" + step]))
    return found


def first_paragraph(comparison: Comparison) -> str:
    return " ".join(baselines_page([comparison]).split("\n\n")[1].split())


def test_page_matches_the_results() -> None:
    assert BASELINES.read_text(encoding="utf-8") == baselines_page(read_comparisons(RESULTS)), (
        "docs/baselines.md is out of date; run python benchmarks/report.py"
    )


def test_page_shows_its_plots_and_commands() -> None:
    text = BASELINES.read_text(encoding="utf-8")
    images = re.findall(r"!\[.*\]\((.*)\)", text)
    assert images
    assert all((BASELINES.parent / image).is_file() for image in images)
    scripts = re.findall(r"^python (benchmarks/\w+\.py)", text, re.MULTILINE)
    assert {Path(script).name for script in scripts} >= {"converged.py", "converged_steps.py"}


def test_first_paragraph_says_where_ours_is_beaten(comparison: Comparison) -> None:
    assert comparison.steps is not None
    timed = comparison.steps["figures"]["rows"]
    row = next(iter(comparison.trained.values()))
    name = next(iter(comparison.trained))
    memory, ours = timed[f"{name}, memory"], timed["ours"]
    row["held_out"]["loss"] = comparison.about["ours"]["held_out"]["loss"] - 0.01
    memory["us"], memory["bytes"] = ours["us"] - 1, ours["bytes"] * 9
    text = first_paragraph(comparison)
    assert "ours is not on the front of loss and time" in text
    assert f"{NETWORKS[name]} with our memory" in text
    memory["us"] = ours["us"] + 1
    for other in comparison.trained.values():
        other["held_out"]["loss"] = comparison.about["ours"]["held_out"]["loss"] + 0.01
    comparison = dataclasses.replace(comparison, compressors={})
    text = first_paragraph(comparison)
    assert "ours is on the front of loss and time" in text
    assert "nothing here has a lower loss" in text


def test_ours_is_the_run_with_the_best_validation(comparison: Comparison) -> None:
    ours = comparison.about["ours"]
    longer = {**ours, "steps": 9_000, "trained": None, "measured": {"command": "none"}}
    longer["held_out"] = {"loss": 0.5, "without_memory": 0.6}
    comparison.rows["ours, 9,000 steps"] = longer | {"validation": ours["validation"] + 0.1}
    assert "nothing here has a lower loss" not in first_paragraph(comparison)
    comparison.rows["ours, 9,000 steps"] = longer | {"validation": ours["validation"] - 0.1}
    assert "nothing here has a lower loss" in first_paragraph(comparison)
    assert f"| {0.5 * comparison.per_character:.4f} (9,000 steps) |" in baselines_page([comparison])


def test_first_paragraph_says_which_network_is_better_alone(comparison: Comparison) -> None:
    ours = comparison.about["ours"]["held_out"]["without_memory"]
    for row in comparison.trained.values():
        row["held_out"]["without_memory"] = ours + 0.01
    assert "without memories" not in first_paragraph(comparison)
    comparison.trained["gru"]["held_out"]["without_memory"] = ours - 0.01
    assert "without memories, GRU has a lower loss" in first_paragraph(comparison)
    comparison.trained["lstm"]["held_out"]["without_memory"] = ours - 0.02
    assert "without memories, LSTM and GRU have a lower loss" in first_paragraph(comparison)
    assert f"LSTM {ours - 0.02:.4f}; GRU {ours - 0.01:.4f}" in baselines_page([comparison])


def test_first_paragraph_compares_networks_whose_memory_came_afterwards(
    comparison: Comparison,
) -> None:
    ours = comparison.about["ours"]["held_out"]["loss"]
    for row in comparison.trained.values():
        row["held_out"]["loss"] = ours + 0.02
    comparison.rows["ours, memory afterwards"]["held_out"]["loss"] = ours + 0.01
    assert "afterwards" not in first_paragraph(comparison)
    comparison.trained["mingru"]["held_out"]["loss"] = ours + 0.005
    told = "trained afterwards as well, minGRU with our memory has a lower loss too"
    assert told in first_paragraph(comparison)


def test_first_paragraph_names_what_was_cut_short_and_what_was_not_run(
    comparison: Comparison,
) -> None:
    ended = "cut short by a time limit, and might too"
    for row in comparison.trained.values():
        row["stopped"] = "validation stopped improving"
    assert ended not in first_paragraph(comparison)
    ours, lstm = comparison.about["ours"]["held_out"]["loss"], comparison.trained["lstm"]
    lstm["stopped"] = "time limit"
    lstm["held_out"]["loss"] = ours + 0.01
    assert f"LSTM with our memory was {ended}" in first_paragraph(comparison)
    lstm["held_out"]["loss"] = ours - 0.01
    assert ended not in first_paragraph(comparison)
    assert "| LSTM |\n" in baselines_page([comparison])  # the last column of the table beneath
    comparison.rows.pop("lstm")
    assert "LSTM" in first_paragraph(comparison).partition("Not run yet:")[2]


def test_settings_count_the_steps_that_a_network_took(comparison: Comparison) -> None:
    settings = next(
        part for part in baselines_page([comparison]).split("\n\n") if "Settings." in part
    )
    told = " ".join(settings.split())
    rungs = comparison.searches["transformer"]["rungs"]
    assert f"after {rungs[0] * 2} and {rungs[1] * 2} steps, " in told.partition("transformer (")[2]
    assert f"after {rungs[0]}" in told.partition("minGRU (")[2]


def test_a_longer_run_names_its_command() -> None:
    run = load_checkpoint(ROOT / "models/checkpoints/tales-nano")
    section, name, row = longer_row(run, "a run")
    assert (section, name) == ("rows", "ours, 4,000 steps")
    assert row["trained"].startswith("rillet train --corpus tales-train.txt --validation ")
    assert row["trained"].endswith(" --set validate_every=500 --threads 1 --seed 0 --out 'a run'")
    assert row["held_out"] == run.training["held_out"]


def test_a_longer_run_of_ours_has_its_row_and_its_command(comparison: Comparison) -> None:
    ours = comparison.about["ours"]
    comparison.rows["ours, 9,000 steps"] = {
        **ours,
        "steps": 9_000,
        "held_out": {"loss": 1.25, "without_memory": 1.45},
        "measured": {"command": "python benchmarks/converged.py --longer /elsewhere/long-run"},
        "trained": "rillet train --corpus tales.txt --preset nano --set steps=9000 --out long-run",
    }
    page = baselines_page([comparison])
    row = next(line for line in page.split("\n") if "9,000 steps |" in line)
    assert f"| {9_000 * 8_192 / 1e6:.1f} |" in row
    scale = comparison.per_character
    assert row.endswith(f"| its steps | {1.45 * scale:.4f} | {1.25 * scale:.4f} |")
    assert "rillet train --corpus tales.txt --preset nano --set steps=9000 --out long-run\n" in page
