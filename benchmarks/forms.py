"""Forms of the decoding step that were compared: the whole step, with one part written otherwise.

    python benchmarks/forms.py [--json FILE] [--bursts 100] [--preset nano]

As in :mod:`graphs`: one thread, two swapped bindings, the greedy choice included, interleaved
short bursts in one run, the least of each. Beside each stands its largest difference from
PyTorch. :mod:`parts` times the parts alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import machine
from form_modules import Filters, Memory, Recurrence, ScatterAdd, SeparateContexts, parts_width
from graphs import STEPS, make_model, some_tokens
from plain_export import export_step
from rillet.export.graphs.decode_memory import WeightsByToken
from rillet.export.graphs.decode_step import DecodeStep
from rillet.train import DualCNN
from rillet.train.config.presets import PRESETS
from stepping import Burst, Steps, least_times

VOCABULARIES = (65, 256, 2048)


class Forms:
    """Collects forms of one model's step, each with its largest difference from PyTorch."""

    def __init__(self) -> None:
        self.bursts: dict[str, Burst] = {}
        self.errors: dict[str, float] = {}
        self.nodes: dict[str, int] = {}

    def add(self, name: str, model: DualCNN, shared: bool = True, **parts: object) -> None:
        """Add the step of a model, with some of its parts replaced.

        Args:
            name: The row's name.
            model: The model.
            shared: Whether past and present of the memory share a buffer.
            **parts: Modules by the name of the step's attribute; ``past`` replaces tensors.
        """
        past = model.zero_state(3) | parts.pop("past", {})  # type: ignore[operator]
        step = DecodeStep(model)
        for attribute, part in parts.items():
            owner, _, inner = attribute.rpartition("__")
            setattr(getattr(step, owner) if owner else step, inner, part)
        graph = export_step(step.eval(), past)
        tokens = some_tokens(model.config.vocab_size)
        self.errors[name] = _error(Steps(graph, tokens[:STEPS], shared=shared), model, tokens)
        burst = Steps(graph, tokens[:STEPS], shared=shared)
        burst.run_all(tokens[: model.config.memory])
        self.bursts[name], self.nodes[name] = burst, len(graph.graph.node)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bursts", type=int, default=100)
    parser.add_argument("--preset", choices=PRESETS, default="nano")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    forms = collect(make_model(PRESETS[arguments.preset]))
    times = least_times(forms.bursts, arguments.bursts)
    base = next(iter(times.values()))
    print(f"{'':56} {'µs':>7} {'more':>7} {'nodes':>6} {'difference':>11}")
    for name, value in times.items():
        print(
            f"{name:56} {value:7.1f} {value - base:+7.1f} {forms.nodes[name]:6} "
            f"{forms.errors[name]:11.1e}"
        )
    figures = {"microseconds": times, "difference": forms.errors, "nodes": forms.nodes}
    machine.write(arguments.json, figures)


def collect(model: DualCNN) -> Forms:
    """Every form."""
    forms, config = Forms(), model.config
    forms.add("the step as exported", model)
    forms.add("the same once more", model)
    for form in ("sum", "conv"):
        forms.add(f"filters: {form}", model, readout_cnn=Filters(model.readout_cnn, form))
    contexts = torch.zeros(3, config.wave_kernel - 1, config.width)
    forms.add(
        "wave_context: a tensor for each block", model,
        wave_cnn=SeparateContexts(model.wave_cnn),
        past={"wave_context": tuple(contexts.clone() for _ in range(config.wave_blocks))},
    )  # fmt: skip
    blocks = make_model(config.replace(reservoir_structure="blocks"))
    for form in ("matmul", "conv"):
        forms.add(f"reservoir: 8 blocks, {form}", blocks, reservoir=Recurrence(blocks, form))
    forms.add("reservoir: no product", model, reservoir=Recurrence(model, "none"))
    forms.add("memory: scattered into a second buffer", model, shared=False)
    forms.add("memory: shifted", model, memory=Memory(model, "shift"))
    forms.add("keys: differences of single rows", model, memory__side_by_side=1)
    shapes = {
        "transposed": (config.keys, config.memory),
        "parts": (config.memory, parts_width(config.keys)),
        "parts, transposed": (parts_width(config.keys), config.memory),
        "product": (config.memory, config.keys),
    }
    for form, shape in shapes.items():
        past = {"memory_keys": torch.zeros(3, *shape)}
        forms.add(f"keys: {form}", model, memory=Memory(model, form), past=past)
    for size in VOCABULARIES:
        other = model if size == config.vocab_size else make_model(config.replace(vocab_size=size))
        reads = {"scatter with addition": ScatterAdd(size)}
        for name, widest in (("one-hot", size), ("two digits", 0)):
            reads[name] = WeightsByToken(size, widest)
        for name, read in reads.items():
            forms.add(f"read, V = {size:,}: {name}", other, memory__followed=read)
    return forms


@torch.no_grad()
def _error(steps: Steps, model: DualCNN, tokens: np.ndarray) -> float:
    state, wanted = model.zero_state(), []
    for token in torch.from_numpy(tokens[:200]):
        logits, state = model(token.view(1, 1), state)
        wanted.append(logits[0, 0].numpy())
    return float(np.abs(steps.run_all(tokens[:200]) - np.stack(wanted)).max())


if __name__ == "__main__":
    main()
