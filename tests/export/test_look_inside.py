"""Recorded activations are those of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from rillet.export import draw_inside, look_inside
from rillet.export.inspect.picture import principal_axes
from rillet.runtime import Bundle, Model, UsageError
from rillet.runtime.cli.entry import rillet
from rillet.train import Checkpoint

TEXT = "The value of an expression"


def test_activations_match_a_session(small_bundle: Path, small_model: Model) -> None:
    inside = look_inside(small_bundle, TEXT)
    assert "".join(inside.pieces) == TEXT
    score = small_model.score(TEXT, per_token=True)
    assert np.isnan(inside.nats[0])
    np.testing.assert_allclose(-inside.nats[1:], score.token_logprobs, atol=1e-4)
    session = small_model.session()
    for place, token in enumerate(small_model.tokenizer.encode(TEXT)):
        session.feed_tokens([token])
        state = session.state
        assert inside.waves is not None
        assert inside.reservoir is not None
        np.testing.assert_allclose(inside.waves[place], state["wave_buffer"][0, -1], atol=1e-5)
        np.testing.assert_allclose(inside.reservoir[place], state["reservoir"][0], atol=1e-5)


def test_attention_matches_pytorch(small_bundle: Path, small: Checkpoint) -> None:
    tokens = torch.tensor([small.tokenizer.encode(TEXT)])
    with torch.no_grad():
        output = small.model.compute(tokens, small.model.zero_state(), need_weights=True)
    assert output.attended is not None
    expected = output.attended.weights[0].permute(1, 0, 2).flip(2).numpy()  # distance 0 first
    actual = look_inside(small_bundle, TEXT).attention
    assert actual is not None
    np.testing.assert_allclose(actual.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_the_default_text_is_the_golden_prompt(small_bundle: Path, small_model: Model) -> None:
    prompt = Bundle.open(small_bundle).manifest["golden"]["prompt"]
    assert "".join(look_inside(small_bundle).pieces) == small_model.tokenizer.decode(prompt)


def test_missing_parts_are_none(variant_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    inside = draw_inside(variant_bundle("the least"), tmp_path / "out.png", TEXT)
    assert inside.reservoir is None
    assert inside.attention is None
    assert inside.waves is None
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_text_of_one_token_is_refused(small_bundle: Path) -> None:
    with pytest.raises(UsageError, match="1 tokens"):
        look_inside(small_bundle, "T")


def test_principal_axes_of_a_line(random: np.random.Generator) -> None:
    along = random.standard_normal(30).astype(np.float32)
    projected = principal_axes(np.outer(along, [3.0, 4.0, 0.0]).astype(np.float32))
    assert projected.shape == (30, 2)
    np.testing.assert_allclose(np.abs(projected[:, 0]), 5 * np.abs(along - along.mean()), atol=1e-4)
    np.testing.assert_allclose(projected[:, 1], 0, atol=1e-4)


def test_the_plot_option(small_bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "inside.png"
    arguments = ["inspect", str(small_bundle), "--plot", str(picture), "--text", TEXT]
    result = CliRunner().invoke(rillet, arguments)
    assert result.exit_code == 0, result.output
    assert result.output == f"{picture} shows {len(TEXT)} tokens.\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    alone = CliRunner().invoke(rillet, ["inspect", str(small_bundle), "--text", TEXT])
    assert isinstance(alone.exception, UsageError)
