"""The whole decode step with one part written in another form, timed against the exported one.

    python benchmarks/forms.py [--json FILE] [--bursts 100] [--preset nano]

One thread, two swapped bindings, the greedy choice included; all forms take turns in short bursts,
and each figure is the fastest burst in CPU time of the thread. Each row also shows the largest
difference of a logit from PyTorch. ``parts.py`` times the parts alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.bursts import Burst, least_times
from lib.plain_export import export_step
from lib.results import write_results
from lib.samples import fresh_model, sample_tokens
from lib.step_variants import (
    FilterVariant,
    MemoryVariant,
    ReservoirVariant,
    ScatterAdd,
    SeparateContexts,
    parts_width,
)
from lib.stepping import Steps
from lib.torch_check import torch_difference
from rillet.export.graphs.decode_memory import WeightsByToken
from rillet.export.graphs.decode_step import DecodeStep
from rillet.train import DualCNN
from rillet.train.config.presets import PRESETS

STEPS = 32
"""Tokens per burst."""

VOCABULARIES = (65, 256, 2048)
"""Vocabulary sizes at which to read the memory."""


class Forms:
    """Bursts of the step's forms, with their nodes and largest differences from PyTorch."""

    def __init__(self) -> None:
        self.bursts: dict[str, Burst] = {}
        self.differences: dict[str, float] = {}
        self.nodes: dict[str, int] = {}

    def add(
        self,
        name: str,
        model: DualCNN,
        parts: Mapping[str, nn.Module] | None = None,
        past: Mapping[str, Tensor | tuple[Tensor, ...]] | None = None,
        shared: bool = True,
    ) -> None:
        """Add the step of a model with some of its parts replaced.

        Args:
            name: The name of the row.
            model: The model.
            parts: Replacements, by the path of the submodule in :class:`.DecodeStep`.
            past: State tensors that differ from the model's, by name.
            shared: Whether past and present of the memory share a buffer.
        """
        step = DecodeStep(model)
        for path, part in (parts or {}).items():
            step.set_submodule(path, part)
        graph = export_step(step.eval(), {**model.zero_state(3), **(past or {})})
        tokens = sample_tokens(model.config.vocab_size)
        checked = Steps(graph, tokens[:STEPS], shared=shared)
        self.differences[name] = torch_difference(checked, model, tokens[:200])
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
    config = PRESETS[arguments.preset].replace(memory_key="reservoir")  # whose forms these are
    forms = collect(fresh_model(config))
    times = least_times(forms.bursts, arguments.bursts)
    base = next(iter(times.values()))
    print(f"{'':56} {'µs':>7} {'more':>7} {'nodes':>6} {'difference':>11}")
    for name, value in times.items():
        print(
            f"{name:56} {value:7.1f} {value - base:+7.1f} {forms.nodes[name]:6} "
            f"{forms.differences[name]:11.1e}"
        )
    figures = {"microseconds": times, "difference": forms.differences, "nodes": forms.nodes}
    write_results(arguments.json, figures)


def collect(model: DualCNN) -> Forms:
    """Build every form."""
    forms, config = Forms(), model.config
    forms.add("the step as exported", model)
    forms.add("the same once more", model)
    for form in ("sum", "conv"):
        assert model.readout_cnn is not None
        filters = FilterVariant(model.readout_cnn, form)
        forms.add(f"filters: {form}", model, {"readout_cnn": filters})
    contexts = torch.zeros(3, config.wave_kernel - 1, config.width)
    forms.add(
        "wave_context: a tensor for each block",
        model,
        {"wave_cnn": SeparateContexts(model.wave_cnn)},
        past={"wave_context": tuple(contexts.clone() for _ in range(config.wave_blocks))},
    )
    blocks = fresh_model(config.replace(reservoir_structure="blocks"))
    for form in ("matmul", "conv"):
        reservoir = ReservoirVariant(blocks, form)
        forms.add(f"reservoir: 8 blocks, {form}", blocks, {"reservoir": reservoir})
    forms.add("reservoir: no product", model, {"reservoir": ReservoirVariant(model, "none")})
    forms.add("memory: scattered into a second buffer", model, shared=False)
    forms.add("memory: shifted", model, {"memory": MemoryVariant(model, "shift")})
    _add_keys(forms, model)
    for size in VOCABULARIES:
        _add_reads(forms, model, size)
    return forms


def _add_keys(forms: Forms, model: DualCNN) -> None:
    """Add other ways to store the memory's keys."""
    single = DecodeStep(model).memory
    assert single is not None
    single.side_by_side = 1
    forms.add("keys: differences of single rows", model, {"memory": single})
    config = model.config
    shapes = {
        "transposed": (config.keys, config.memory),
        "parts": (config.memory, parts_width(config.keys)),
        "parts, transposed": (parts_width(config.keys), config.memory),
        "product": (config.memory, config.keys),
    }
    for form, shape in shapes.items():
        past = {"memory_keys": torch.zeros(3, *shape)}
        forms.add(f"keys: {form}", model, {"memory": MemoryVariant(model, form)}, past)


def _add_reads(forms: Forms, model: DualCNN, size: int) -> None:
    """Add ways to read the memory of a vocabulary."""
    if size != model.config.vocab_size:
        model = fresh_model(model.config.replace(vocab_size=size))
    reads: dict[str, nn.Module] = {
        "scatter with addition": ScatterAdd(size),
        "one-hot": WeightsByToken(size, largest_one_hot=size),
        "two digits": WeightsByToken(size, largest_one_hot=0),
    }
    for name, read in reads.items():
        forms.add(f"read, V = {size:,}: {name}", model, {"memory.followed": read})


if __name__ == "__main__":
    main()
