"""Operations that write files, for tests that interrupt them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]
NANO = ROOT / "models" / "shakespeare-nano"
PROMPT = "ROMEO: But soft, what light"
TOKENS = 120

_SMALL = {
    "code_width": 8,
    "reservoir_size": 24,
    "width": 12,
    "attention_heads": 3,
    "attention_window": 7,
    "wave_kernel": 3,
    "wave_features": 10,
    "wave_window": 5,
    "readout_blocks": 2,
    "hidden": 16,
    "memory": 96,
    "key_width": 9,
    "gate_hidden": 4,
    "reservoir_density": 0.4,
    "batch": 4,
    "chunk": 32,
    "validate_every": 3,
    "checkpoint_every": 2,
    "precision": "fp32",
}


def train(folder: Path) -> None:
    """Run ``rillet train``, resuming an interrupted run."""
    if (folder / "run" / "training.safetensors").exists():
        existing = ["--resume"]
    else:
        existing = ["--overwrite"] if (folder / "run").exists() else []
    settings = [part for name, value in _SMALL.items() for part in ("--set", f"{name}={value}")]
    paths = ("--corpus", folder / "corpus.txt", "--out", folder / "run")
    _rillet("train", *paths, "--steps", 12, "--threads", 1, "--no-plot", *settings, *existing)


def export(folder: Path) -> None:
    """Run ``rillet export`` with graphs from ``models/``, since building them writes nothing."""
    import onnx

    from rillet.export.bundle import writer

    kinds = ("decode", "prefill", "generate")
    graphs = {kind: onnx.load(NANO / f"{kind}.onnx") for kind in kinds}
    run = ROOT / "models" / "checkpoints" / NANO.name
    with mock.patch.object(writer, "build_graphs", return_value=graphs):
        _rillet("export", run, "--out", folder / "bundle", "--parity-steps", 50)


def quantize(folder: Path) -> None:
    """Run ``rillet quantize``."""
    text = ("--text", folder / "corpus.txt", "--tokens", 300, "--max-loss-rise", 1)
    _rillet("quantize", NANO, "--precision", "int8", "--out", folder / "int8", *text)


def state(folder: Path) -> None:
    """Save a stream every few tokens, and resume a saved one."""
    from rillet.runtime import load

    path = folder / "stream"
    model = load(NANO, "cpu", 1, self_test=False)
    if path.exists():
        session = model.restore(path)
        stream = session.resume()
    else:
        session = model.session()
        session.feed(PROMPT)
        stream = session.stream(seed=5, max_new_tokens=TOKENS)
    for number, _ in enumerate(stream):
        if number % 4 == 3:
            session.save(path)
    session.save(path)


def stubborn(folder: Path) -> None:
    """Generate on while saves may fail."""
    from rillet.runtime import StorageError, load

    session = load(NANO, "cpu", 1, self_test=False).session()
    session.feed(PROMPT)
    for number, piece in enumerate(session.stream(seed=5, max_new_tokens=TOKENS)):
        sys.stdout.write(piece)
        if number % 4 == 3:
            try:
                session.save(folder / "stream")
            except StorageError:
                sys.stderr.write("#")


def generate(folder: Path) -> None:
    """Run ``rillet generate --save-state``."""
    options = ("--max-new-tokens", 20, "--seed", 5, "--threads", 1)
    _rillet("generate", NANO, PROMPT, *options, "--save-state", folder / "state")


def engine(folder: Path) -> None:
    """Run ``rillet engine build --rebuild``, or without TensorRT save engines as it does."""
    os.environ["XDG_CACHE_HOME"] = str(folder)  # for engines that cannot be beside the bundle
    if tensorrt_obstacle() is None:
        _rillet("engine", "build", folder / "model", "--graph", "decode", "--rebuild")
        return
    from rillet.runtime.bundle import Bundle
    from rillet.runtime.engines.cache import cache_folder
    from rillet.runtime.engines.engine_key import EngineKey
    from rillet.runtime.engines.tensorrt.records import save_engine

    key = EngineKey("decode", "a" * 64, "fp32", "tensorrt 10.3.0", "Orin", "8.7", "12.6", "linux")
    place = cache_folder(Bundle.open(folder / "model"))
    for _ in range(4):  # no two builds give the same bytes
        save_engine(place, os.urandom(1 << 20), key, 1.0)


def tensorrt_obstacle() -> str | None:
    """Why this machine cannot build engines; ``None`` if it can."""
    from rillet.runtime import EngineError
    from rillet.runtime.engines.tensorrt.api import find_tensorrt

    try:
        find_tensorrt(None, build=True)
    except EngineError as error:
        return str(error)
    return None


OPERATIONS: dict[str, Callable[[Path], None]] = {
    "train": train,
    "export": export,
    "quantize": quantize,
    "state": state,
    "stubborn": stubborn,
    "generate": generate,
    "engine": engine,
}


def _rillet(*arguments: object) -> None:
    from rillet.runtime.cli.entry import main

    main([str(argument) for argument in arguments])
