"""Train a dual CNN over an attentive reservoir with PyTorch."""

from __future__ import annotations

from ..runtime.missing_parts import needing

with needing("rillet.train", "train"):
    from .auto_config import infer
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .config.model_config import DualCNNConfig
from .config.presets import PRESETS
from .config.training_config import TrainingConfig
from .data.corpus import Corpus, read_corpus
from .data.named_texts import builtin_corpus
from .data.token_file import Tokens
from .data.tokenizers import make_tokenizer, prepare
from .fallback import Fallback
from .loop.evaluation import Evaluation, evaluate
from .loop.progress import TrainingProgress
from .loop.trainer import DualCNNTrainer, TrainingError, TrainingResult
from .lsm_lite import LSMLite
from .model.attention import Attended, AttentiveReservoir
from .model.context_memory import ContextMemory
from .model.dual_cnn import DualCNN, DualCNNOutput
from .model.embedder import SinusoidalEmbedder
from .model.readout_cnn import ReadoutCNN
from .model.reservoir import SparseReservoir
from .model.state import state_shapes
from .model.stream_memory import StreamMemory
from .model.wave_cnn import WaveCNN
from .pipeline import DualCNNPipeline
from .setup import SetupError, SetupProgress
from .waves.read import read_waves
from .waves.wave_buffer import RollingWaveBuffer
from .waves.wave_output import WaveOutput

__all__ = [
    "PRESETS",
    "Attended",
    "AttentiveReservoir",
    "Checkpoint",
    "ContextMemory",
    "Corpus",
    "DualCNN",
    "DualCNNConfig",
    "DualCNNOutput",
    "DualCNNPipeline",
    "DualCNNTrainer",
    "Evaluation",
    "Fallback",
    "LSMLite",
    "ReadoutCNN",
    "RollingWaveBuffer",
    "SetupError",
    "SetupProgress",
    "SinusoidalEmbedder",
    "SparseReservoir",
    "StreamMemory",
    "Tokens",
    "TrainingConfig",
    "TrainingError",
    "TrainingProgress",
    "TrainingResult",
    "WaveCNN",
    "WaveOutput",
    "builtin_corpus",
    "evaluate",
    "infer",
    "load_checkpoint",
    "make_tokenizer",
    "prepare",
    "read_corpus",
    "read_waves",
    "save_checkpoint",
    "state_shapes",
]
