"""The page docs/benchmarks.md, of what the benchmarks measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["PUBLISHED", "Results", "page"]

TITLES = {
    "ours": "`nano`",
    "gru": "GRU, 2 layers",
    "mingru": "minGRU, 3 layers",
    "gpt": "transformer of `nano`'s size",
    "nanogpt": "transformer of nanoGPT's size",
    "ngram": "n-gram counts",
}

NONE = "–"  # noqa: RUF001 (what is not there)

PUBLISHED = 1.4697
"""nanoGPT's own figure for its character-level recipe: not trained here."""

Results = dict[str, dict[str, Any]]


def page(results: Results) -> str:
    """The page, as Markdown."""
    costs, times = results["costs"], results["equal_time"]
    parts = [
        "# Benchmarks",
        "Made by `make bench CORPUS=tinyshakespeare.txt` from the scripts in `benchmarks/` and "
        "nothing else: each writes its figures to `benchmarks/results`, and "
        "`benchmarks/report.py` makes this page of them. Beneath each table is the command that "
        "reproduces it. " + _machine(results),
        "The text is tiny Shakespeare, by characters; its last tenth is held out, and losses are "
        "nats per character of it. Settings were chosen on other text, set aside from the "
        "training part. Times are the least of short bursts that take turns in one run, one "
        "thread, in the thread's own time: compare ratios, not microseconds.",
        "## Every preset and precision",
        _presets(costs),
        _command(costs),
        _notes_on_presets(costs),
        "## Beside the baselines: the same minutes of training",
        _equal_time(times),
        _command(times),
        _notes_on_time(times, costs),
        "## Beside the baselines: time and memory of a step",
        _steps(costs),
        _command(costs),
        _notes_on_steps(costs),
        "## Loss against time and size",
        "![Loss against microseconds per token](images/bench-loss-time.png)",
        "![Loss against megabytes](images/bench-loss-size.png)",
        "Filled: trained to the end, as shipped. Hollow: trained for "
        f"{times['figures']['ours']['cpu_minutes']:.1f} CPU minutes each. Of ours the loss is "
        "that with the memory. The cross is nanoGPT's published loss "
        f"({PUBLISHED}), which was not trained here, at the time of a step measured here with "
        "256 tokens of context.",
        "## Time per token against the position in the stream",
        _positions(results["positions"]),
        _command(results["positions"]),
        _notes_on_positions(results["positions"]),
        "![Time per token against position](images/bench-position.png)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _machine(results: Results) -> str:
    """The machine in words, once where all ran on one."""
    said = []
    for name, result in results.items():
        about = result["machine"]
        text = (
            f"{about['processor']}, {about['system']}, Python {about['python']}, "
            f"torch {about['torch']}, onnxruntime {about['onnxruntime']}, numpy {about['numpy']}"
        )
        said.append((name, text))
    different = dict.fromkeys(text for _, text in said)
    if len(different) == 1:
        return f"The machine, shared with other work: {next(iter(different))}."
    return " ".join(f"`{name}`: {text}." for name, text in said)


def _command(result: dict[str, Any]) -> str:
    return f"```sh\n{result['command']}\n```"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _presets(costs: dict[str, Any]) -> str:
    rows = []
    for row in costs["figures"]["rows"].values():
        if row["kind"] != "ours":
            continue
        process = row["process"] or {}
        name = f"`{row['preset']}`, {row['precision']}" + (" *" if row["shipped"] else "")
        rows.append([
            name, f"{row['parameters']:,}", f"{row['loss']:.4f}",
            _number(row.get("without_memory")),
            f"{row['rise']:+.4f}" if row["method"] else "",
            f"{row['us']:,.0f}", f"{row['ratio']:.2f}",
            _mb(row["bytes"]), _mb(row["prefill_bytes"]), f"{row['state_bytes'] / 1e3:,.0f}",
            f"{process['resident_mb']:.0f}" if process else NONE,
        ])  # fmt: skip
    return _table(
        ["", "trained parameters", "loss", "without the memory", "rise", "µs a token", "ratio",
         "`decode.onnx`, MB", "`prefill.onnx`, MB", "state, KB", "process, MB"],
        rows,
    )  # fmt: skip


def _notes_on_presets(costs: dict[str, Any]) -> str:
    ours = [row for row in costs["figures"]["rows"].values() if row["kind"] == "ours"]
    tokens = {row["rise_tokens"] for row in ours if row["rise_tokens"]}
    methods = ", ".join(
        dict.fromkeys(f"{row['precision']} {row['method']}" for row in ours if row["method"])
    )
    return (
        "\\* shipped in [models](../models/README.md); the others are exported from "
        "`models/checkpoints` on the way. The loss of fp32 is PyTorch's over all of the held-out "
        "text, at the end of training; that of the others is it and the rise, which is the "
        f"graphs' own over {' or '.join(f'{n:,}' for n in sorted(tokens))} tokens of it "
        f"({methods}; [other methods](precisions.md)). State is what one stream keeps between "
        "two tokens; process is what a fresh one that has read and written text holds (dash: not "
        "measured). The time is a bare step with the greedy choice. fp16 is computed in fp32 on "
        "a CPU: by as much as those two rows differ, other work disturbs the times here."
    )


def _equal_time(times: dict[str, Any]) -> str:
    rows = []
    for name, own in times["figures"].items():
        counted = name == "ngram"
        for what, loss in own["held_out"].items():
            rows.append((loss, [
                TITLES[name] + ("" if what == "loss" else f", {what}"),
                f"{own['parameters']:,}" + (f" runs up to {own['order']}" if counted else ""),
                f"{own['cpu_minutes']:.2f}",
                NONE if counted else f"{own['tokens'] / 1e6:.2f}",
                NONE if counted else f"{own['tokens'] / own['cpu_minutes'] / 60:,.0f}",
                f"{loss:.4f}",
            ]))  # fmt: skip
    rows.sort(key=lambda row: row[0])
    return _table(
        ["", "parameters", "CPU minutes", "million tokens read", "tokens/s", "held-out loss"],
        [row for _, row in rows],
    )


def _notes_on_time(times: dict[str, Any], costs: dict[str, Any]) -> str:
    full = costs["figures"]["rows"]["nano, fp32"]
    figures = times["figures"]
    trained = {name: found for name, found in figures.items() if "settings" in found}
    settings = "; ".join(
        f"{TITLES[name]}: rate {own['settings']['learning_rate']:g}, batch "
        f"{own['settings']['batch']}, dropout {own['settings']['dropout']:g}"
        for name, own in trained.items()
    )
    counted, ours = figures["ngram"], figures["ours"]["held_out"]
    best = min(("ngram", *trained), key=lambda name: _best_loss(figures[name], name))
    loss = figures[best]["held_out"]["loss"] if best != "ours" else ours["without memory"]
    first = (
        f"Of what learns nothing from the held-out text, {TITLES[best]} is the best ({loss:.4f})."
        if best != "ours"
        else f"Without its memory `nano` is the best of those trained here as well ({loss:.4f})."
    )
    ahead = [
        f"{TITLES[name]} by {ours['with memory'] - found['held_out']['loss']:.4f}"
        for name, found in figures.items()
        if name != "ours" and found["held_out"]["loss"] < ours["with memory"]
    ]
    second = (
        f"Better than `nano` with its memory: {'; '.join(ahead)}."
        if ahead
        else "With its memory, which takes in the held-out text as it is read, `nano` is the best; "
        "a cache of the text would help the others too, and was not tried."
    )
    tried = [int(order) for order in counted["tried"]]
    return (
        f"{first} {second} The same trainer, streams, optimiser, schedule and average of the "
        "weights; the models take turns, so that other work slows all alike. What is measured "
        f"is **how fast a model learns in its first {figures['ours']['cpu_minutes']:.1f} minutes "
        "of one core, not what it reaches**: trained to the end, `nano` is at "
        f"{full['loss']:.4f} ({full['without_memory']:.4f} without the memory), and nanoGPT's "
        f"published figure for a transformer of 10.65 million parameters is {PUBLISHED}. The "
        "recurrent ones have `nano`'s batch, the transformer a smaller one, for more steps; other "
        "batches were not tried. Rates were chosen from two "
        "each, by `--look` on validation text: 5e-3 and 1e-2 for GRU and minGRU, 3e-3 and 6e-3 "
        "for the transformer. The number of steps is set by a trial before, so that the minutes "
        "come out somewhat above or below `--minutes`. "
        f"Settings: {settings}. The order of the counts was chosen on validation text among "
        f"{min(tried)} to {max(tried)}; they take {counted['bytes'] / 1e6:.1f} MB."
    )


def _best_loss(figures: dict[str, Any], name: str) -> float:
    """The loss without a memory."""
    loss: float = figures["held_out"]["without memory" if name == "ours" else "loss"]
    return loss


def _steps(costs: dict[str, Any]) -> str:
    found = costs["figures"]["rows"]
    names = ["nano, fp32", *(name for name, row in found.items() if row["kind"] != "ours")]
    rows = []
    for name in names:
        row = found[name]
        rows.append([
            _step_title(row), f"{row['parameters']:,}", f"{row['us']:,.1f}", f"{row['ratio']:.2f}",
            _mb(row["bytes"]), f"{row['state_bytes'] / 1e3:,.1f}",
        ])  # fmt: skip
    return _table(["", "parameters", "µs a token", "ratio", "MB", "state, KB"], rows)


def _notes_on_steps(costs: dict[str, Any]) -> str:
    rows = costs["figures"]["rows"]
    faster = [
        f"{_step_title(row)} ({row['ratio']:.2f})"
        for row in rows.values()
        if row["kind"] != "ours" and row["ratio"] < 1
    ]
    won = f"Faster than ours: {'; '.join(faster)}. " if faster else "None is faster than ours. "
    return (
        won + "All in fp32, stepped by the same code; GRU and minGRU are exported by PyTorch and "
        "checked against it, the transformers are written by hand with a cache that is changed in "
        "place, and checked against numpy. Weights are random there: time does not depend on "
        "them. Where `nano`'s time goes is in [measurements](measurements.md#graphs). "
        "The counts are not stepped: their loss is computed for a whole text at once."
    )


def _positions(positions: dict[str, Any]) -> str:
    names = list(positions["figures"][0]["us"])
    rows = [
        [
            f"{row['position']:,}",
            *(
                f"{row['us'][name]:,.1f} ({row['us'][name] / row['us']['nano']:.2f})"
                for name in names
            ),
            *(f"{row['state_bytes'][name] / 1e3:,.0f}" for name in ("nano", "gpt")),
        ]
        for row in positions["figures"]
    ]
    return _table(
        [
            "position",
            *(_title(name) for name in names),
            "state of `nano`, KB",
            "of the transformer of its size",
        ],
        rows,
    )


def _notes_on_positions(positions: dict[str, Any]) -> str:
    slower = next(
        (r["position"] for r in positions["figures"] if r["us"]["gpt"] > r["us"]["nano"]), None
    )
    crossing = (
        f"The transformer of `nano`'s size is slower than `nano` from {slower:,} tokens on."
        if slower is not None
        else "The transformer of `nano`'s size is the faster at each of these positions."
    )
    return (
        "Microseconds a token, in brackets of `nano`'s at that position. `nano` and the GRU have "
        "read as many tokens; the transformers have as many in their cache, and attend to all of "
        f"them, whatever they were trained for. {crossing}"
    )


def _step_title(row: dict[str, Any]) -> str:
    return TITLES[row["kind"]] + (f", {row['context']:,} tokens" if "context" in row else "")


def _title(name: str) -> str:
    return {"nano": "`nano`", "gru": "GRU"}.get(name, TITLES.get(name, name))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f}"
