"""Train a dual CNN over an attentive reservoir, with PyTorch."""

from __future__ import annotations

from .attention import Attended, AttentiveReservoir
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .config import DualCNNConfig
from .corpus import Corpus, builtin_corpus, read_corpus
from .embedder import SinusoidalEmbedder
from .evaluate import Evaluation, evaluate
from .fallback import Fallback
from .infer import infer
from .lsm_lite import LSMLite
from .model import DualCNN, DualCNNOutput
from .pipeline import DualCNNPipeline
from .presets import PRESETS
from .progress import TrainingProgress
from .readout_cnn import ReadoutCNN
from .reservoir import SparseReservoir
from .setup import SetupError, SetupProgress
from .state import state_shapes
from .stream_memory import StreamMemory
from .token_file import Tokens
from .tokenizers import make_tokenizer, prepare
from .trainer import DualCNNTrainer, TrainingError, TrainingResult
from .training_config import TrainingConfig
from .wave_buffer import RollingWaveBuffer
from .wave_cnn import WaveCNN
from .wave_output import WaveOutput
from .waves import read_waves

__all__ = [
    "PRESETS",
    "Attended",
    "AttentiveReservoir",
    "Checkpoint",
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
