"""TensorRT takes the graphs: parsed and built, which needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.tensorrt
@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_tensorrt_builds_an_engine(small_bundle: Path, kind: str) -> None:
    trt = pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt_rtx is not installed: pip install tensorrt-rtx"
    )
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    flag = int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(1 << flag)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse((small_bundle / f"{kind}.onnx").read_bytes())
    assert parsed, [str(parser.get_error(index)) for index in range(parser.num_errors)]
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        entry = network.get_input(index)
        shapes = [[most if size == -1 else size for size in entry.shape] for most in (1, 2, 8)]
        profile.set_shape(entry.name, *shapes)
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    for index in range(network.num_outputs):
        output = network.get_output(index)
        if output.name.startswith("present."):
            assert all(size > 0 for size in output.shape[1:]), output.name
