"""The page docs/benchmarks.md, rendered from the results of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .markdown import NONE, paragraph, table

__all__ = ["PUBLISHED", "Results", "benchmarks_page"]

TITLES = {
    "ours": "`nano`",
    "gru": "GRU, 2 layers",
    "mingru": "minGRU, 3 layers",
    "gpt": "transformer of `nano`'s size",
    "nanogpt": "transformer of nanoGPT's size",
    "ngram": "n-gram counts",
}

PUBLISHED = 1.4697
"""The loss that nanoGPT publishes for its character-level recipe; not trained here."""

Results = dict[str, dict[str, Any]]


def benchmarks_page(results: Results) -> str:
    """Render the page as Markdown."""
    costs, times, positions = results["costs"], results["equal_time"], results["positions"]
    parts = [
        "# Benchmarks",
        paragraph(
            "`make bench CORPUS=tinyshakespeare.txt` generates this page: the scripts in "
            "`benchmarks/` write their figures to `benchmarks/results`, and "
            "`benchmarks/report.py` renders them. The command below each table reproduces it. "
            + _machine(results)
        ),
        paragraph(
            "The text is tiny Shakespeare, one token per character. Its last tenth is held out, "
            "and losses are nats per character of it. Settings were chosen on validation text, "
            "which is set aside from the training part. Each time is the fastest of several short "
            "bursts that take turns in one run, on one thread, in CPU time of the thread: compare "
            "ratios, not microseconds."
        ),
        "## Presets and precisions",
        _presets(costs),
        _command(costs),
        _notes_on_presets(costs),
        "## Baselines: equal training time",
        _equal_time(times),
        _command(times),
        _notes_on_time(times, costs),
        "## Baselines: time and memory of a step",
        _steps(costs),
        _command(costs),
        _notes_on_steps(costs),
        "## Loss against time and size",
        "![Loss against microseconds per token](images/bench-loss-time.png)",
        "![Loss against megabytes](images/bench-loss-size.png)",
        paragraph(
            "Filled markers are fully trained models, as shipped. Hollow markers are models "
            f"trained for {times['figures']['ours']['cpu_minutes']:.1f} CPU minutes each. Losses "
            "of our models include the memory. The cross combines nanoGPT's published loss "
            f"({PUBLISHED}, not trained here) with the step time measured here at 256 tokens "
            "of context."
        ),
        "## Time per token against the position in the stream",
        _positions(positions),
        _command(positions),
        _notes_on_positions(positions),
        "![Time per token against position](images/bench-position.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _machine(results: Results) -> str:
    """A description of the machine, or of each script's machine where they differ."""
    machines = {}
    for name, result in results.items():
        machine = result["machine"]
        machines[name] = (
            f"{machine['processor']}, {machine['system']}, Python {machine['python']}, torch "
            f"{machine['torch']}, onnxruntime {machine['onnxruntime']}, numpy {machine['numpy']}"
        )
    if len(set(machines.values())) == 1:
        return f"The machine, shared with other work: {next(iter(machines.values()))}."
    return " ".join(f"`{name}`: {machine}." for name, machine in machines.items())


def _command(result: dict[str, Any]) -> str:
    return f"```sh\n{result['command']}\n```"


def _presets(costs: dict[str, Any]) -> str:
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "": lambda row: f"`{row['preset']}`, {row['precision']}" + (" *" if row["shipped"] else ""),
        "trained parameters": lambda row: f"{row['parameters']:,}",
        "loss": lambda row: f"{row['loss']:.4f}",
        "without the memory": lambda row: _number(row.get("without_memory")),
        "rise": lambda row: f"{row['rise']:+.4f}" if row["method"] else "",
        "µs per token": lambda row: f"{row['us']:,.0f}",
        "ratio": lambda row: f"{row['ratio']:.2f}",
        "`decode.onnx`, MB": lambda row: _mb(row["bytes"]),
        "`prefill.onnx`, MB": lambda row: _mb(row["prefill_bytes"]),
        "state, KB": lambda row: f"{row['state_bytes'] / 1e3:,.0f}",
        "process, MB": lambda row: (
            f"{row['process']['resident_mb']:.0f}" if row["process"] else NONE
        ),
    }
    ours = [row for row in costs["figures"]["rows"].values() if row["kind"] == "ours"]
    return table(columns, ([cell(row) for cell in columns.values()] for row in ours))


def _notes_on_presets(costs: dict[str, Any]) -> str:
    ours = [row for row in costs["figures"]["rows"].values() if row["kind"] == "ours"]
    tokens = {row["rise_tokens"] for row in ours if row["rise_tokens"]}
    methods = ", ".join(
        dict.fromkeys(f"{row['precision']} {row['method']}" for row in ours if row["method"])
    )
    rise_tokens = " or ".join(f"{count:,}" for count in sorted(tokens))
    return paragraph(
        "\\* shipped in [models](../models/README.md); the benchmark exports the others from "
        "`models/checkpoints`. The loss of fp32 is PyTorch's at the end of training, over all of "
        "the held-out text. The loss of another precision adds its rise, which the graphs "
        f"themselves show over {rise_tokens} tokens of that text ({methods}; see "
        "[other methods](precisions.md)). State is the memory that a stream keeps between two "
        "tokens; process is the resident memory of a new process that has read and generated text "
        "(dash: not measured). The time is that of a bare step with the greedy choice. A CPU "
        "computes fp16 in fp32, so the difference between those two rows shows how much other "
        "work disturbs the times."
    )


def _equal_time(times: dict[str, Any]) -> str:
    rows: list[tuple[float, list[str]]] = []
    for name, own in times["figures"].items():
        if name == "ngram":
            parameters = f"{own['parameters']:,} n-grams up to {own['order']}"
            read = speed = NONE
        else:
            parameters = f"{own['parameters']:,}"
            read = f"{own['tokens'] / 1e6:.2f}"
            speed = f"{own['tokens'] / own['cpu_minutes'] / 60:,.0f}"
        for kind, loss in own["held_out"].items():
            title = TITLES[name] + ("" if kind == "loss" else f", {kind}")
            minutes = f"{own['cpu_minutes']:.2f}"
            rows.append((loss, [title, parameters, minutes, read, speed, f"{loss:.4f}"]))
    rows.sort(key=lambda row: row[0])
    return table(
        ["", "parameters", "CPU minutes", "million tokens read", "tokens/s", "held-out loss"],
        [row for _, row in rows],
    )


def _notes_on_time(times: dict[str, Any], costs: dict[str, Any]) -> str:
    full = costs["figures"]["rows"]["nano, fp32"]
    figures = times["figures"]
    trained = {name: own for name, own in figures.items() if "settings" in own}
    settings = "; ".join(
        f"{TITLES[name]}: rate {own['settings']['learning_rate']:g}, batch "
        f"{own['settings']['batch']}, dropout {own['settings']['dropout']:g}"
        for name, own in trained.items()
    )
    counted, ours = figures["ngram"], figures["ours"]["held_out"]
    best = min(("ngram", *trained), key=lambda name: _best_loss(figures[name], name))
    loss = figures[best]["held_out"]["loss"] if best != "ours" else ours["without memory"]
    title = TITLES[best] + (" without its memory" if best == "ours" else "")
    first = (
        "Among models that learn nothing from the held-out text, the best loss is that of "
        f"{title} ({loss:.4f})."
    )
    ahead = [
        f"{TITLES[name]} by {ours['with memory'] - own['held_out']['loss']:.4f}"
        for name, own in figures.items()
        if name != "ours" and own["held_out"]["loss"] < ours["with memory"]
    ]
    second = (
        f"Better than `nano` with its memory: {'; '.join(ahead)}."
        if ahead
        else "With its memory, which learns the held-out text as it reads, `nano` is the best of "
        "all. The memory helps the others too: [baselines](baselines.md) gives it to them."
    )
    orders = [int(order) for order in counted["tried"]]
    results = paragraph(
        f"{first} {second} The table shows **how fast a model learns in its first "
        f"{figures['ours']['cpu_minutes']:.1f} minutes on one core, not what it reaches**: fully "
        f"trained, `nano` reaches {full['loss']:.4f} ({full['without_memory']:.4f} without the "
        "memory), and nanoGPT publishes "
        f"{PUBLISHED} for a transformer of 10.65 million parameters."
    )
    method = paragraph(
        "All models share the trainer, the streams, the optimiser, the schedule and the weight "
        "average, and take turns, so that other work slows all of them alike. A trial sets the "
        "number of steps, so the minutes come out somewhat above or below `--minutes`. The "
        "recurrent models have `nano`'s batch and the transformer a smaller one, for more steps; "
        "other batches were not tried. Learning rates were chosen by `--look` on validation text, "
        "from 5e-3 to 8e-2 for GRU and minGRU, and from 3e-3 to 1.2e-2 for the transformer; "
        "[baselines](baselines.md) searches longer, and trains to the end. "
        f"Settings: {settings}. The order of the n-grams was chosen on validation text, from "
        f"{min(orders)} to {max(orders)}; the counts take {counted['bytes'] / 1e6:.1f} MB."
    )
    return f"{results}\n\n{method}"


def _best_loss(figures: dict[str, Any], name: str) -> float:
    """The loss without the memory."""
    loss: float = figures["held_out"]["without memory" if name == "ours" else "loss"]
    return loss


def _steps(costs: dict[str, Any]) -> str:
    models = costs["figures"]["rows"]
    names = ["nano, fp32", *(name for name, row in models.items() if row["kind"] != "ours")]
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "": _step_title,
        "parameters": lambda row: f"{row['parameters']:,}",
        "µs per token": lambda row: f"{row['us']:,.1f}",
        "ratio": lambda row: f"{row['ratio']:.2f}",
        "MB": lambda row: _mb(row["bytes"]),
        "state, KB": lambda row: f"{row['state_bytes'] / 1e3:,.1f}",
    }
    return table(columns, ([cell(models[name]) for cell in columns.values()] for name in names))


def _notes_on_steps(costs: dict[str, Any]) -> str:
    rows = costs["figures"]["rows"]
    faster = [
        f"{_step_title(row)} ({row['ratio']:.2f})"
        for row in rows.values()
        if row["kind"] != "ours" and row["ratio"] < 1
    ]
    comparison = (
        f"Faster than `nano`: {'; '.join(faster)}."
        if faster
        else "None of them is faster than `nano`."
    )
    return paragraph(
        f"{comparison} All models are in fp32, and the same code steps them. GRU and minGRU are "
        "exported by PyTorch and checked against it. The transformers are hand-written graphs "
        "that update their cache in place, and are checked against numpy. The baselines' weights "
        "are random here, since time does not depend on them. "
        "[Measurements](measurements.md#graphs) shows where `nano`'s time goes. The n-gram counts "
        "are not stepped: their loss is computed for a whole text at once."
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
    return table(
        [
            "position",
            *(_title(name) for name in names),
            "state of `nano`, KB",
            "state of the transformer of its size, KB",
        ],
        rows,
    )


def _notes_on_positions(positions: dict[str, Any]) -> str:
    slower = next(
        (row["position"] for row in positions["figures"] if row["us"]["gpt"] > row["us"]["nano"]),
        None,
    )
    crossing = (
        f"From {slower:,} tokens on, the transformer of `nano`'s size is slower than `nano`."
        if slower is not None
        else "The transformer of `nano`'s size is faster than `nano` at all of these positions."
    )
    return paragraph(
        "Microseconds per token, with the multiple of `nano`'s time at that position in brackets. "
        "`nano` and the GRU have read that many tokens; the transformers hold that many in their "
        f"cache and attend to all of them, whatever length they were trained for. {crossing}"
    )


def _step_title(row: dict[str, Any]) -> str:
    return TITLES[row["kind"]] + (f", {row['context']:,} tokens" if "context" in row else "")


def _title(name: str) -> str:
    return {"nano": "`nano`", "gru": "GRU"}.get(name, TITLES.get(name, name))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f}"
