"""The page docs/baselines.md, rendered from the results of the converged baselines."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .baselines_verdict import listed, summary, title_of, verdict
from .converged_results import NETWORKS, SIZES, Comparison, is_cut_short
from .halving import search_steps
from .markdown import NONE, paragraph, table

__all__ = ["baselines_page"]


def baselines_page(comparisons: list[Comparison]) -> str:
    """Render the page as Markdown."""
    parts = [
        "# Baselines",
        paragraph(verdict(comparisons)),
        table(
            [
                "",
                "ours, nats per character",
                "lower",
                "ours without its memory",
                "networks that are lower alone",
                "cut short by a time limit",
            ],
            (summary(each) for each in comparisons),
        ),
        paragraph(
            "A GRU, an LSTM, a minGRU and a transformer have as many parameters as our model, "
            "within 3 %, and share its text, tokens, trainer, optimiser and weight average. They "
            "read 32 streams at a time, as ours does, and the transformer 8: its steps, and its "
            "average over the last 500 of them, span a quarter of the tokens. The learning rate is "
            "chosen on validation text by successive halving; where it says *at the end*, two "
            "rates were trained to the end. When a pass over the text improves validation by less "
            "than 0.0005 nats per token, training returns to the best weights, at 0.3 of the rate. "
            "Once the rate is below 0.02 of the first, the network has converged. The loss of a "
            "run that a time limit cut short is an upper bound. A run whose limits were changed on "
            "the way is shown with its last command. The runs used several machines: compare the "
            "tokens that they read, not their minutes."
        ),
        paragraph(
            "**With our memory** means the same tables, mixing and online weights, on top of the "
            "network. Its scores, shares and gate are trained afterwards, on the frozen network "
            "with its dropout, until validation stops improving or for 400 steps, while our own "
            "model trains both together. Older rows had 120 steps, as their settings say; the "
            "other 280 were worth 0.001 to 0.017 where they were added later. The row *ours, "
            "memory afterwards* is our own network treated like the others."
        ),
        paragraph(
            "All of them tie the head to the embedding. Ours does not. Its token codes, 32 numbers "
            "for each token, and its reservoir are computed rather than trained, and are not "
            "counted as parameters, but are part of its bytes. Each row is of one seed."
        ),
        paragraph(
            "The transformer is nanoGPT's block (pre-norm, GELU, no biases, tied head, AdamW with "
            "betas of 0.9 and 0.99): four of them, with heads about 32 wide, as in its recipe for "
            "a CPU. Positions are rotary, since learned ones end with their table. It reads the "
            "held-out text as ours do, as one stream, through a cache of the last 256 tokens that "
            "slides along, and it is trained with that cache. `python "
            "benchmarks/report.py` renders this page."
        ),
    ]
    for comparison in comparisons:
        parts += _section(comparison)
    return "\n\n".join(parts) + "\n"


def _section(comparison: Comparison) -> list[str]:
    title = SIZES[comparison.name]
    parts = [
        f"## {title[0].upper()}{title[1:]}",
        _given(comparison),
        _losses(comparison),
    ]
    if comparison.rows:
        parts += [_commands(comparison.rows, _longer(comparison)), _settings(comparison)]
    if comparison.compressors:
        parts += [_compressors(comparison), _commands(comparison.compressors)]
        parts.append(
            paragraph(
                "What a compressor pays for the held-out text is the size of both texts less that "
                "of the first. zpaq changes its model a little below each power of two from 2^20 "
                "on; where the two sizes lie on different sides, it is given the end of the first "
                "text only. "
                "Memory and CPU time are those of compressing both, in a process of its own."
            )
        )
    if comparison.steps is not None:
        parts += [
            _steps(comparison),
            f"```sh\n{_plain(comparison.steps['command'])}\n```",
            paragraph(
                "fp32 on ONNX Runtime, one thread, one run in turns: compare ratios, not "
                "microseconds. With our memory, a graph of the others holds the embedding a second "
                "time, as the head. The native engine runs only ours: "
                + "; ".join(
                    f"`{name}` {row['us']:.1f} µs, a bundle of {row['bundle_bytes'] / 1e6:.2f} MB"
                    for name, row in comparison.steps["figures"]["native"].items()
                )
                + "."
            ),
            f"![Loss against microseconds](images/baselines-{comparison.name}-us.png)",
            f"![Loss against bytes](images/baselines-{comparison.name}-bytes.png)",
        ]
    return parts


def _given(comparison: Comparison) -> str:
    about = comparison.about
    ours = about["ours"]
    held_out = about["held_out"] or f"the end of `{about['corpus']}`"
    validation = (
        f"`{about['validation']}`" if about["validation"] else "pieces set aside from the rest"
    )
    return paragraph(
        f"Text: `{about['corpus']}`, of which {about['trained_tokens']:,} tokens are trained on; "
        f"vocabulary {about['vocabulary']:,}. Validation: {about['validation_tokens']:,} tokens, "
        f"{validation}. Held out: {held_out}, {about['held_out_tokens']:,} tokens, "
        f"{about['held_out_characters']:,} characters. Losses are nats per character of it. Ours "
        f"was trained for a fixed {ours['steps']:,} steps, {ours['minutes']:.0f} minutes, at rate "
        f"{ours['settings']['learning_rate']:g} and dropout {ours['settings']['dropout']:g}; of "
        f"its validations, on pieces set aside from the text, that of step {ours['best_step']:,} "
        "was the best."
    )


def _losses(comparison: Comparison) -> str:
    losses, per_character = comparison.losses(), comparison.per_character
    rows: list[tuple[float, list[str]]] = []
    for name, row in {"ours": comparison.about["ours"], **comparison.rows}.items():
        if name not in comparison.trained:
            loss, alone = (
                row["held_out"][key] * per_character for key in ("loss", "without_memory")
            )
            rows.append((loss, [name, *_own_training(row), f"{alone:.4f}", f"{loss:.4f}"]))
            continue
        rows.append(
            (
                losses[f"{name}, memory"],
                [
                    NETWORKS[name],
                    f"{row['parameters']:,} + {row['memory']['parameters']:,}",
                    f"{row['tokens'] / 1e6:.1f}",
                    f"{row['cpu_minutes']:.1f}{_with_others(row)}",
                    "**time limit**" if is_cut_short(row) else "converged",
                    f"{losses[name]:.4f}",
                    f"{losses[f'{name}, memory']:.4f}",
                ],
            )
        )
    rows.sort(key=lambda row: row[0])
    return table(
        [
            "",
            "parameters (+ memory's)",
            "million tokens read",
            "CPU minutes of training",
            "ended by",
            "network alone",
            "with our memory",
        ],
        (row for _, row in rows),
    )


def _with_others(row: dict[str, Any]) -> str:
    """What the minutes of a row are of, if of several trainings."""
    count = len(row["dropouts"]) + len(row.get("rates", [row])) - 1
    return f" for {count} trainings" if count > 1 else ""


def _own_training(row: dict[str, Any]) -> list[str]:
    """Parameters, tokens, time and end of a training of ours, or of a memory on top of it."""
    if "memory" in row:
        return [NONE, NONE, f"{row['memory']['cpu_minutes']:.1f} for the memory", NONE]
    settings = row["settings"]
    read = row["steps"] * settings["batch"] * settings["chunk"] / 1e6
    minutes = f"{row['minutes']:.0f} by the clock"
    return [f"{row['parameters']:,}", f"{read:.1f}", minutes, "its steps"]


def _settings(comparison: Comparison) -> str:
    texts = []
    for name, row in comparison.trained.items():
        search = comparison.searches[name]
        rates = sorted(float(rate) for rate in search["tried"][0])
        dropouts = [float(dropout) for dropout in row["dropouts"]]
        shape = ", ".join(f"{key} {value}" for key, value in row["shape"].items())
        finalists = [float(rate) for rate in row.get("rates", ())]
        to_the_end = f" and of {_numbers(finalists)} at the end" if len(finalists) > 1 else ""
        chosen = f"dropout {row['settings']['dropout']:g}" + (
            f" of {_numbers(dropouts)}" if len(dropouts) > 1 else ", the only one tried"
        )
        texts.append(
            f"{NETWORKS[name]} ({shape}): rate {row['settings']['learning_rate']:g} of "
            f"{_numbers(rates)} after {_numbers(_rungs(search, row, comparison))} "
            f"steps{to_the_end}, "
            f"{chosen}; batch {row['settings']['batch']}, best validation {row['validation']:.4f} "
            f"at step {row['best_step']:,} of {row['steps']:,}; its memory after "
            f"{row['memory']['best_step']} steps at rate "
            f"{row['memory']['settings']['learning_rate']:g}"
            + (
                f"; products in {row['settings']['products']}"
                if "products" in row["settings"]
                else ""
            )
        )
    return paragraph(f"Settings. {'. '.join(texts)}." if texts else "No baseline has run.")


def _rungs(search: dict[str, Any], row: dict[str, Any], comparison: Comparison) -> list[int]:
    """Steps of the search that a network took: more, if its batch is smaller than ours."""
    ours = comparison.about["ours"]["settings"]["batch"]
    return [search_steps(steps, ours, row["settings"]["batch"]) for steps in search["rungs"]]


def _compressors(comparison: Comparison) -> str:
    rows = sorted(comparison.compressors.items(), key=lambda pair: pair[1]["loss"])
    return table(
        ["", "given, bytes", "nats per character", "memory, MB", "CPU µs a byte"],
        (
            [
                name,
                f"{row['given_bytes']:,}",
                f"{row['loss']:.4f}",
                f"{row['resident_mb']:,.0f}",
                f"{row['us_per_byte']:.2f}",
            ]
            for name, row in rows
        ),
    )


def _steps(comparison: Comparison) -> str:
    assert comparison.steps is not None
    losses, ours = comparison.losses(), comparison.best_of_ours[0]
    return table(
        ["one token on ONNX Runtime", "µs", "ratio", "graph, kB", "state, kB", "loss"],
        (
            [
                ours if name == "ours" else title_of(name),
                f"{row['us']:.1f}",
                f"{row['ratio']:.2f}",
                f"{row['bytes'] / 1e3:,.0f}",
                f"{row['state_bytes'] / 1e3:,.1f}",
                f"{losses[name]:.4f}" if name in losses else NONE,
            ]
            for name, row in comparison.steps["figures"]["rows"].items()
        ),
    )


def _commands(rows: dict[str, dict[str, Any]], before: Iterable[str] = ()) -> str:
    """The commands that measured rows, each once, after those that came before them."""
    commands = [*before, *(_plain(row["measured"]["command"]) for row in rows.values())]
    return "```sh\n" + "\n".join(dict.fromkeys(commands)) + "\n```"


def _longer(comparison: Comparison) -> list[str]:
    """The commands that trained the longer runs of ours, where their records tell."""
    return [row["trained"] for row in comparison.longer.values() if row["trained"] is not None]


def _plain(command: str) -> str:
    """A command with the names of files that lay elsewhere."""
    return re.sub(r"(?<= )/\S*/", "", command)


def _numbers(values: Iterable[float]) -> str:
    return listed([f"{value:g}" for value in values])
