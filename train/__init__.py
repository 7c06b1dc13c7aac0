"""Train a dual CNN over an attentive reservoir, with PyTorch."""

from __future__ import annotations

from .attention import AttentiveReservoir
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .config import PRESETS, DualCNNConfig
from .corpus import builtin_corpus, read_corpus
from .embedder import SinusoidalEmbedder
from .evaluate import Evaluation, evaluate
from .model import DualCNN, DualCNNOutput, state_shapes
from .readout_cnn import ReadoutCNN
from .reservoir import SparseReservoir
from .tokenizers import make_tokenizer
from .trainer import DualCNNTrainer, TrainingError, TrainingProgress
from .training_config import TrainingConfig
from .wave_buffer import RollingWaveBuffer
from .wave_cnn import WaveCNN

__all__ = [
    "PRESETS",
    "AttentiveReservoir",
    "Checkpoint",
    "DualCNN",
    "DualCNNConfig",
    "DualCNNOutput",
    "DualCNNTrainer",
    "Evaluation",
    "ReadoutCNN",
    "RollingWaveBuffer",
    "SinusoidalEmbedder",
    "SparseReservoir",
    "TrainingConfig",
    "TrainingError",
    "TrainingProgress",
    "WaveCNN",
    "builtin_corpus",
    "evaluate",
    "load_checkpoint",
    "make_tokenizer",
    "read_corpus",
    "save_checkpoint",
    "state_shapes",
]
