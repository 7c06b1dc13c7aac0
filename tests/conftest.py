"""Models and bundles that many tests share, made once and cached (see ``support/cache.py``)."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from rillet.export.bundle.writer import write_bundle
from rillet.export.options import ExportOptions
from rillet.runtime import Model, load
from rillet.runtime.text_sample import HELD_OUT, TextSample
from rillet.train import (
    Checkpoint,
    DualCNNConfig,
    builtin_corpus,
    load_checkpoint,
    save_checkpoint,
)
from support.cache import Cache, cached_exporter, lasting_cache, open_cache
from support.models import SMALL, VARIANTS, train_small

# No deadline, since shared machines are slow at times. Derandomised, so that a run is repeatable.
settings.register_profile(
    "rillet",
    deadline=None,
    derandomize=True,
    max_examples=int(os.environ.get("RILLET_EXAMPLES", "25")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("rillet")

# When slow tests no longer begin, in seconds since 1970, so that CI ends in time on slow machines.
SLOW_UNTIL = float(os.environ.get("RILLET_SLOW_UNTIL", "inf"))

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > SLOW_UNTIL and item.get_closest_marker("slow"):
        pytest.skip("RILLET_SLOW_UNTIL has passed: there is no time left for slow tests")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    """What is made once for all workers. Torch's exporter remembers its results as well."""
    graphs = lasting_cache("graphs", tmp_path_factory.mktemp("graphs"))
    with open_cache(tmp_path_factory.mktemp("cache")) as opened, pytest.MonkeyPatch.context() as m:
        m.setattr(torch.onnx, "export", cached_exporter(graphs))
        yield opened


@pytest.fixture
def real_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's exporter without its memory, for tests of whether exporting is repeatable."""
    monkeypatch.setattr(torch.onnx, "export", torch.onnx.export.__wrapped__)


@pytest.fixture
def alarm() -> Iterator[None]:
    """An alarm that raises KeyboardInterrupt, where there is one."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def text() -> str:
    """Real English text."""
    return builtin_corpus()


@pytest.fixture(scope="session")
def small_run(cache: Cache, text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that holds the small model's checkpoint."""

    def make(folder: Path) -> None:
        save_checkpoint(folder, train_small(SMALL, text[:60_000], steps=40))

    return cache.folder("small-run", make, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="session")
def small(small_run: Path) -> Checkpoint:
    """A small trained model."""
    return load_checkpoint(small_run)


@pytest.fixture(scope="session")
def small_bundle(cache: Cache, small: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model's bundle."""

    def make(folder: Path) -> None:
        write_bundle(small, folder / "small", steps=500)

    return cache.folder("small-bundle", make, tmp_path_factory.mktemp("bundles") / "_") / "small"


@pytest.fixture(scope="session")
def small_model(small_bundle: Path) -> Model:
    """The small bundle, loaded."""
    return load(small_bundle)


@pytest.fixture(scope="session")
def variant_run(
    cache: Cache, text: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder with the checkpoint of a variant, by name; trained when it is first asked for."""

    @functools.cache
    def make(name: str) -> Path:
        def train(folder: Path) -> None:
            config = SMALL.replace(**VARIANTS[name])
            save_checkpoint(folder, train_small(config, text[:60_000], steps=12))

        return cache.folder(_entry("run", name), train, tmp_path_factory.mktemp("variant") / "run")

    return make


@pytest.fixture(scope="session")
def variant_checkpoint(variant_run: Callable[[str], Path]) -> Callable[[str], Checkpoint]:
    """A small trained model of each variant, by name."""
    return functools.cache(lambda name: load_checkpoint(variant_run(name)))


@pytest.fixture(scope="session")
def variant_bundle(
    cache: Cache,
    variant_run: Callable[[str], Path],
    variant_checkpoint: Callable[[str], Checkpoint],
) -> Callable[[str], Path]:
    """The bundle of each variant, by name, in the folder of its run; exported when asked for."""

    @functools.cache
    def make(name: str) -> Path:
        def export(folder: Path) -> None:
            write_bundle(variant_checkpoint(name), folder / "bundle", steps=200)

        return cache.folder(_entry("bundle", name), export, variant_run(name)) / "bundle"

    return make


@pytest.fixture(scope="session")
def taught_bundle(
    cache: Cache,
    text: str,
    variant_checkpoint: Callable[[str], Checkpoint],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle with a memory of contexts that has read a text, and a sample of what follows it."""

    def make(folder: Path) -> None:
        checkpoint = variant_checkpoint("memory of contexts")
        sample = TextSample(HELD_OUT, np.asarray(checkpoint.tokenizer.encode(text[40_000:43_000])))
        lesson = folder / "lesson.txt"
        lesson.write_text(text[:40_000], encoding="utf-8")
        options = ExportOptions(parity_steps=300, teach=(str(lesson),), memory_size="24kB")
        checkpoint = dataclasses.replace(checkpoint, text_sample=sample)
        write_bundle(checkpoint, folder / "taught", options=options)

    copy = cache.folder("taught-bundle", make, tmp_path_factory.mktemp("bundles") / "_")
    return copy / "taught"


def _entry(kind: str, name: str) -> str:
    """The name of a cache entry, as a file name."""
    return f"{kind}-{re.sub(r'[^a-z]+', '-', name.lower())}"


@pytest.fixture(scope="session")
def byte_model(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model whose characters are mostly several tokens each."""

    def make(folder: Path) -> None:
        text = "".join(chr(0x4E00 + index % 300) + "é😀a\n"[index % 4] for index in range(4_000))
        write_bundle(train_small(SMALL, text, steps=15), folder / "bytes", steps=200)

    copy = cache.folder("byte-bundle", make, tmp_path_factory.mktemp("bundles") / "_")
    return load(copy / "bytes")


@pytest.fixture(scope="session")
def nano(cache: Cache, text: str, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model of the default preset, trained for a few steps."""

    def make(folder: Path) -> None:
        save_checkpoint(folder, train_small(DualCNNConfig(), text, steps=60, batch=16, chunk=128))

    return load_checkpoint(cache.folder("nano-run", make, tmp_path_factory.mktemp("runs") / "nano"))


@pytest.fixture(scope="session")
def nano_bundle(cache: Cache, nano: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default preset's bundle."""

    def make(folder: Path) -> None:
        write_bundle(nano, folder / "nano", steps=1_000)

    return cache.folder("nano-bundle", make, tmp_path_factory.mktemp("bundles") / "_") / "nano"


@pytest.fixture(scope="session")
def tinyshakespeare() -> str:
    """The text that figures are quoted on."""
    path = SHARED_DATA / "tinyshakespeare.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def random() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)
