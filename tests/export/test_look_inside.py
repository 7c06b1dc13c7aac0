"""Looking inside: what is drawn is what the model computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from rillet.export import draw_inside, look_inside
from rillet.export.inspect.picture import principal_axes
from rillet.runtime import Model, UsageError
from rillet.runtime.cli.entry import rillet
from rillet.train import Checkpoint

TEXT = "The value of an expression"


def test_it_sees_what_a_session_computes(small_bundle: Path, small_model: Model) -> None:
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


def test_attention_is_pytorchs(small_bundle: Path, small: Checkpoint) -> None:
    import torch

    tokens = torch.tensor([small.tokenizer.encode(TEXT)])
    with torch.no_grad():
        output = small.model.compute(tokens, small.model.zero_state(), need_weights=True)
    assert output.attended is not None
    wanted = output.attended.weights[0].permute(1, 0, 2).flip(2).numpy()  # [T, heads, A], now first
    found = look_inside(small_bundle, TEXT).attention
    assert found is not None
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_without_a_text_it_reads_the_record(small_bundle: Path) -> None:
    assert len(look_inside(small_bundle).pieces) > 50


def test_parts_that_are_not_there(variant_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    inside = draw_inside(variant_bundle("the least"), tmp_path / "out.png", TEXT)
    assert inside.reservoir is None
    assert inside.attention is None
    assert inside.waves is None
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_too_short_a_text_is_refused(small_bundle: Path) -> None:
    with pytest.raises(UsageError, match="1 tokens"):
        look_inside(small_bundle, "T")


def test_principal_axes_of_a_line(random: np.random.Generator) -> None:
    along = random.standard_normal(30).astype(np.float32)
    found = principal_axes(np.outer(along, [3.0, 4.0, 0.0]).astype(np.float32))
    assert found.shape == (30, 2)
    np.testing.assert_allclose(np.abs(found[:, 0]), 5 * np.abs(along - along.mean()), atol=1e-4)
    np.testing.assert_allclose(found[:, 1], 0, atol=1e-4)


def test_the_command(small_bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "inside.png"
    arguments = ["inspect", str(small_bundle), "--plot", str(picture), "--text", TEXT]
    result = CliRunner().invoke(rillet, arguments)
    assert result.exit_code == 0, result.output
    assert result.output == f"{picture} shows {len(TEXT)} tokens.\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    alone = CliRunner().invoke(rillet, ["inspect", str(small_bundle), "--text", TEXT])
    assert isinstance(alone.exception, UsageError)
