"""TensorRT accepts the graphs: the code that builds engines parses and builds them.

TensorRT-RTX builds without a GPU. TensorRT itself needs one, so its tests are marked.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from rillet.export.quantization.conversions import PRECISIONS
from rillet.runtime import Bundle, EngineError
from rillet.runtime.cli.engine import TENSORRT_METHODS
from rillet.runtime.engines.cuda import driver as cuda_driver
from rillet.runtime.engines.tensorrt.api import TensorrtApi, installed_tensorrt
from rillet.runtime.engines.tensorrt.build import (
    PREFILL_LENGTHS,
    BuildOptions,
    build_graph,
    input_shapes,
    parse,
)

GRAPHS = {"decode": (1, 1, 1), "prefill": PREFILL_LENGTHS}


@pytest.fixture(scope="module", params=["tensorrt_rtx", "tensorrt"])
def api(request: pytest.FixtureRequest) -> TensorrtApi:
    name = request.param
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    obstacle = cuda_driver.driver_obstacle()
    if name == "tensorrt" and obstacle is not None:
        pytest.skip(f"tensorrt builds on a GPU only: {obstacle}")
    return installed_tensorrt(name)


def test_the_offered_precisions_are_the_portable_ones() -> None:
    assert {"fp32": ()} | {
        name: entry.portable for name, entry in PRECISIONS.items() if entry.portable
    } == TENSORRT_METHODS


@pytest.mark.tensorrt
@pytest.mark.parametrize("kind", GRAPHS)
def test_every_graph_builds(small_bundle: Path, api: TensorrtApi, kind: str) -> None:
    """Lower precisions: tests/export/test_quantize.py."""
    model = (small_bundle / f"{kind}.onnx").read_bytes()
    assert len(build_graph(api, model, BuildOptions((1, 8)), GRAPHS[kind])) > 10_000


@pytest.mark.tensorrt
@pytest.mark.parametrize("kind", GRAPHS)
def test_state_keeps_its_static_sizes(small_bundle: Path, api: TensorrtApi, kind: str) -> None:
    # Keep builder and parser: the network needs them.
    parsed = parse(api, (small_bundle / f"{kind}.onnx").read_bytes(), kind)
    network = parsed[2]
    sizes = {row.present: row.shape for row in Bundle.open(small_bundle).state}
    for index in range(network.num_outputs):
        output = network.get_output(index)
        if output.name != "logits":
            assert tuple(output.shape)[1:] == sizes[output.name], output.name


@pytest.mark.tensorrt
def test_progress_and_timings(small_bundle: Path, tmp_path: Path, api: TensorrtApi) -> None:
    timings, seen = tmp_path / "timings", []
    model = (small_bundle / "decode.onnx").read_bytes()
    build_graph(
        api, model, BuildOptions(), timings=timings, progress=lambda *event: seen.append(event)
    )
    assert timings.stat().st_size > 0
    assert seen
    assert all(0 <= done <= total for _, done, total in seen)
    assert len({name for name, *_ in seen}) > 1
    # Timings by something else are ignored, and the build continues without them.
    timings.write_bytes(b"no timings")
    assert build_graph(api, model, BuildOptions(), timings=timings)
    # Timings that cannot be written do not cost the engine.
    with pytest.warns(UserWarning, match="timings of this build were not saved"):
        assert build_graph(api, model, BuildOptions(), timings=tmp_path / "missing" / "timings")


@pytest.mark.tensorrt
def test_a_graph_that_it_cannot_read(api: TensorrtApi) -> None:
    with pytest.raises(EngineError, match=r"cannot read decode: .+"):
        build_graph(api, b"no graph", BuildOptions(), name="decode")


def test_shapes_of_a_profile() -> None:
    assert input_shapes((-1, -1), 8, PREFILL_LENGTHS) == [(8, 1), (8, 64), (8, 256)]
    assert input_shapes((-1, 1), 8, (1, 1, 1)) == [(8, 1)] * 3
    assert input_shapes((-1, 32, 10), 2, PREFILL_LENGTHS) == [(2, 32, 10)] * 3
    assert input_shapes((-1,), 4, (1, 1, 1)) == [(4,)] * 3
