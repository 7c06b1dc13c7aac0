"""Training on several processes gives the result of one, under the real torchrun with gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from test_trainer import CONFIG, model_for

from rillet.runtime import ConfigError
from rillet.train import DualCNNTrainer
from rillet.train.loop.distributed import Group

WORKER = """
import sys, torch
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/train"]
from pathlib import Path
from test_trainer import CONFIG, model_for
from rillet.train import DualCNNTrainer, builtin_corpus
from rillet.train.loop.distributed import start_group
from rillet.train.checkpoint import save_checkpoint
torch.set_num_threads(1)
group = start_group("cpu")
tokens = torch.tensor([ord(c) % 50 for c in builtin_corpus()[:9_000]])
folder, until, resume = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "resume"
model = model_for(tokens[:8_000])
saved = []
trainer = DualCNNTrainer(model, CONFIG, group, folder, save=lambda m, run: saved.append(run.step))
trainer.train(tokens[:8_000], tokens[8_000:], resume=resume, until=until)
assert bool(saved) == group.leads, (group, saved)
torch.set_printoptions(precision=9)
if group.leads:
    import safetensors.torch
    state = {n: t.contiguous() for n, t in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "weights.safetensors")
group.finish()
"""


def torchrun(folder: Path, processes: int, until: int, resume: bool) -> None:
    """Run the worker under the real torchrun."""
    script = folder / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", str(script), str(Path(__file__).parents[1])]
    command += [str(folder), str(until), "resume" if resume else "fresh"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(text: str, tmp_path: Path) -> None:
    """The global batch is the same, and a run can resume with another number of processes."""
    tokens = torch.tensor([ord(character) % 50 for character in text[:9_000]])
    single = model_for(tokens[:8_000])
    DualCNNTrainer(single, CONFIG).train(tokens[:8_000], tokens[8_000:])
    expected = single.state_dict()
    (tmp_path / "two").mkdir()
    torchrun(tmp_path / "two", processes=2, until=24, resume=False)
    (tmp_path / "mixed").mkdir()
    torchrun(tmp_path / "mixed", processes=2, until=11, resume=False)
    torchrun(tmp_path / "mixed", processes=1, until=24, resume=True)
    for name in ("two", "mixed"):
        actual = safetensors.torch.load_file(tmp_path / name / "weights.safetensors")
        for key, tensor in expected.items():
            torch.testing.assert_close(actual[key], tensor, atol=2e-4, rtol=2e-3)


def test_a_batch_that_does_not_divide_is_rejected() -> None:
    with pytest.raises(ConfigError, match=r"batch is 7 but there are 2 processes.*try batch=6"):
        Group(0, 2).rows(7)
