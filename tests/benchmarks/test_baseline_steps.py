"""The steps of baselines as graphs, with our memory on top."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lib.baseline_steps import baseline_step
from lib.baselines import GPT, Baseline
from lib.lstm import LSTM
from lib.memory_on_top import FrozenBaseline, MemoryOnTop, memory_config, memory_state
from lib.sliding_transformer import SlidingTransformer
from lib.stepping import Steps
from lib.torch_check import torch_difference
from rillet.train.model.context_memory import ContextMemory
from support.models import SMALL

VOCAB = 12
OURS = SMALL.replace(
    vocab_size=VOCAB, memory_key="contexts", memory=90, contexts="1 3 word", dropout=0.0
)
MODELS = {
    # The text is longer than the window, so that the cache goes round.
    "transformer": SlidingTransformer(VOCAB, 14, 2, 4, window=7),
    "lstm": LSTM(VOCAB, 12),
}


@pytest.mark.parametrize("name", ["transformer", pytest.param("lstm", marks=pytest.mark.slow)])
def test_a_graph_computes_what_pytorch_computes(name: str) -> None:
    torch.manual_seed(0)
    model: Baseline = MODELS[name].eval()
    network = FrozenBaseline(model)
    config = memory_config(OURS, network.width)
    memory = ContextMemory(config).eval()
    for parameter in memory.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    top = MemoryOnTop(network, memory, config)
    tokens = torch.randint(VOCAB, (40,)).numpy()

    def with_memory(token: Tensor, state: Any) -> tuple[Tensor, Any]:
        mixed, _, state = top.read(token, state)
        return mixed, state

    alone = Steps(baseline_step(model), tokens)
    assert torch_difference(alone, model, tokens) < 1e-4
    both = Steps(baseline_step(model, memory, memory_state(config, 3)), tokens)
    assert torch_difference(both, with_memory, tokens) < 1e-4
    assert both.state_bytes > alone.state_bytes + 4 * config.context_slots


def test_a_baseline_without_a_step_is_refused() -> None:
    with pytest.raises(TypeError, match="GPT has no step"):
        baseline_step(GPT(VOCAB, 8, 8, 1, 1))
