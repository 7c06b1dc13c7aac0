"""Baselines trained until validation stops improving, with our memory on top."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import converged
from lib import converging, full_training
from lib.baseline_training import BaselineTrainer
from lib.baseline_writer import converged_baseline, write_texts
from lib.baselines import GRU, Baseline
from lib.converging import ConvergingRun, pieces_loss
from lib.full_training import patience_for
from lib.halving import halve
from lib.lstm import LSTM, matched_lstm
from lib.memory_on_top import FrozenBaseline, FrozenDualCNN, MemoryOnTop, fit_memory
from lib.plateau import Plateau, closing
from lib.resumable_results import ResumableResults
from lib.sliding_transformer import PERIOD, SlidingTransformer, matched_sliding
from rillet.runtime.errors import RilletError
from rillet.train import DualCNN, TrainingConfig
from rillet.train.data.streams import Text
from rillet.train.data.token_file import Tokens
from rillet.train.model.context_memory import ContextMemory
from support.command_line import here
from support.models import SMALL

VOCAB = 20
CONFIG = TrainingConfig(
    batch=4, chunk=16, learning_rate=1e-2, warmup=2, validate_every=3, precision="fp32"
)
OURS = SMALL.replace(memory_key="contexts", memory=90, contexts="1 3 word", dropout=0.0)
WIDTHS = {"reservoir_size": 24, "width": 16, "wave_features": 16, "hidden": 24}


@pytest.fixture
def tokens() -> torch.Tensor:
    """A predictable text: seven of eight tokens follow from the one before."""
    torch.manual_seed(0)
    steps = torch.where(torch.rand(1_200) < 0.125, torch.randint(VOCAB, (1_200,)), 3)
    return steps.cumsum(0) % VOCAB


def small_run(tokens: torch.Tensor, folder: Path | None, **rule: Any) -> ConvergingRun:
    torch.manual_seed(0)
    model = GRU(VOCAB, 8, dropout=0.2)
    text, pieces = Text(Tokens.of(tokens[:1_000])), tokens[1_000:].view(4, -1)
    return ConvergingRun(model, text, pieces, CONFIG, folder, Plateau(**rule))


@pytest.mark.parametrize("stop", [4, 6])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    tokens: torch.Tensor, tmp_path: Path, stop: int
) -> None:
    whole = small_run(tokens, None)
    assert whole.train(until=13) == "steps"
    small_run(tokens, tmp_path).train(until=stop)
    torch.manual_seed(99)  # a new process has other random numbers
    resumed = small_run(tokens, tmp_path)
    assert resumed.steps == stop
    resumed.train(until=13)
    assert resumed.history == whole.history
    for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_goes_on_under_a_new_rule(tokens: torch.Tensor, tmp_path: Path) -> None:
    first = small_run(tokens, tmp_path, patience=1)
    first.train(until=6)
    again = small_run(tokens, tmp_path, patience=7)
    assert again.plateau.patience == 7
    assert again.plateau.best == first.plateau.best


def test_a_run_with_other_settings_is_refused(tokens: torch.Tensor, tmp_path: Path) -> None:
    run = small_run(tokens, tmp_path)
    run.train(until=1)
    with pytest.raises(RilletError, match="other settings"):
        ConvergingRun(
            GRU(VOCAB, 8),
            run.trainer.streams.text,
            run.validation,
            CONFIG.replace(clip=2),
            tmp_path,
        )


def test_a_run_of_another_shape_is_refused(tokens: torch.Tensor, tmp_path: Path) -> None:
    """The code that builds a baseline may have changed since, with all settings the same."""
    run = small_run(tokens, tmp_path)
    run.train(until=1)
    text, pieces = run.trainer.streams.text, run.validation
    for model in (GRU(VOCAB, 9), GRU(VOCAB, 8, layers=3)):
        with pytest.raises(RilletError, match="other settings"):
            ConvergingRun(model, text, pieces, CONFIG, tmp_path)


def test_training_ends_where_validation_stops_improving(tokens: torch.Tensor) -> None:
    run = small_run(tokens, None, patience=8, factor=0.1, margin=0.05)
    assert run.train(until=2_000) == "validation stopped improving"
    losses = [loss for _, loss, _ in run.history]
    scales = sorted({scale for _, _, scale in run.history}, reverse=True)
    assert scales == [1.0, 0.1]
    assert min(losses) < losses[0] - 0.5
    assert pieces_loss(run.best(), run.validation) == pytest.approx(min(losses), abs=1e-6)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rates of all steps, which take a second each by the only clock there is."""
    steps: list[float] = []
    clock = SimpleNamespace(process_time=lambda: len(steps), monotonic=lambda: len(steps))
    monkeypatch.setattr(converging, "time", clock)
    step = BaselineTrainer.step

    def note(trainer: BaselineTrainer, number: int, rate: float | None = None) -> float:
        assert rate is not None
        steps.append(rate)
        return step(trainer, number, rate)

    monkeypatch.setattr(BaselineTrainer, "step", note)
    return steps


def test_training_ends_at_its_limit_with_a_low_rate(
    tokens: torch.Tensor, rates: list[float]
) -> None:
    run = small_run(tokens, None)
    assert run.train(limit=10) == "time limit"
    assert not run.plateau.converged
    assert rates[4] == pytest.approx(CONFIG.learning_rate)
    assert rates[-1] < 0.2 * CONFIG.learning_rate


@pytest.mark.usefixtures("rates")
def test_a_rate_that_closes_does_not_fall_as_well(tokens: torch.Tensor) -> None:
    run = small_run(tokens, None, patience=1, margin=9.0, lowest=0.0)
    assert run.train(limit=24) == "time limit"
    falls = [step for step, _, scale in run.history[1:] if scale < run.history[0][2]]
    assert falls  # before the closing
    assert len({scale for step, _, scale in run.history if step > 16}) == 1


def test_a_later_limit_takes_the_closing_back(
    tokens: torch.Tensor, tmp_path: Path, rates: list[float]
) -> None:
    whole = small_run(tokens, None)
    whole.train(limit=40)
    short = small_run(tokens, tmp_path)
    assert short.train(limit=20) == "time limit"
    again = small_run(tokens, tmp_path)
    assert again.train(limit=20) == "time limit"  # nothing is left to do
    assert again.steps == short.steps
    again.train(until=22, limit=40)
    last = small_run(tokens, tmp_path)
    done = len(rates)
    assert last.train(limit=40) == "time limit"
    assert last.history == whole.history
    assert len(rates) - done == whole.steps - 22  # taken back only once


@pytest.mark.usefixtures("rates")
def test_a_closing_goes_on_after_an_interruption(tokens: torch.Tensor, tmp_path: Path) -> None:
    whole = small_run(tokens, None)
    whole.train(limit=20)
    cut = small_run(tokens, tmp_path)
    cut.train(until=17, limit=20)
    again = small_run(tokens, tmp_path)
    again.train(limit=20)
    assert again.history == whole.history


def test_the_rate_falls_after_patience_and_ends_training() -> None:
    rule = Plateau(patience=2, margin=0.1, factor=0.3, lowest=0.2)
    assert rule.see(1, 2.0) == (True, False)
    assert rule.see(2, 1.95) == (True, False)  # better, but by too little
    assert rule.see(3, 1.96) == (False, True)
    assert rule.scale == pytest.approx(0.3)
    assert rule.see(4, 1.5) == (True, False)
    assert rule.see(5, 1.6) == (False, False)
    assert not rule.converged
    assert rule.see(6, 1.7) == (False, True)
    assert rule.converged
    assert (rule.best, rule.best_step) == (1.5, 4)


def test_waiting_proves_nothing_while_something_else_lowers_the_rate() -> None:
    rule = Plateau(patience=1, margin=0.1)
    rule.see(1, 2.0)
    assert rule.see(2, 1.95, holds=True) == (True, False)
    assert (rule.scale, rule.waited, rule.best) == (1.0, 0, 1.95)


def test_patience_lasts_for_a_pass_over_the_text() -> None:
    config = TrainingConfig(batch=32, chunk=256, validate_every=30)
    assert patience_for(983_776, config) == 4  # tiny Shakespeare
    assert patience_for(2_458_120, config) == 10
    assert patience_for(50_000, config) == 4


def test_the_rate_closes_to_the_end_of_a_limit() -> None:
    shares = [closing(share / 10) for share in range(12)]
    assert shares[:7] == [1.0] * 7
    assert shares == sorted(shares, reverse=True)
    assert shares[10:] == pytest.approx([0.02, 0.02])


def test_halving_keeps_the_better_half() -> None:
    asked = []

    def measure(candidate: int, steps: int) -> float:
        asked.append((candidate, steps))
        return abs(candidate - 3) / steps

    chosen, tried = halve([1, 2, 3, 4, 5], [10, 20], measure)
    assert chosen == 3
    assert asked[5:] == [(3, 20), (2, 20), (4, 20)]
    assert [loss for _, loss in tried[1]] == [0, 0.05, 0.05]


def test_a_diverged_run_is_never_chosen() -> None:
    nan = float("nan")
    losses = {1: 1.0, 2: nan, 3: 0.9}
    assert halve([1, 2, 3], [10, 20], lambda candidate, _: losses[candidate])[0] == 3
    rates = full_training.bracketed([1, 2, 4], lambda rate: nan if rate < 4 else rate)
    assert rates == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("best", "tried"), [(2, [1, 2, 4]), (9, [1, 2, 4, 8, 16]), (0, [0.0625, 4])]
)
def test_rates_are_added_until_the_best_is_inside(best: float, tried: list[float]) -> None:
    rates = full_training.bracketed([1, 2, 4], lambda rate: abs(rate - best))
    assert (rates[0], rates[-1]) == (tried[0], tried[-1])


@torch.no_grad()
@pytest.mark.parametrize(
    "model",
    [
        LSTM(VOCAB, 12),
        SlidingTransformer(VOCAB, 12, 2, 2, window=7),
        SlidingTransformer(VOCAB, 14, 2, 4, window=7),
    ],
    ids=["lstm", "transformer", "heads that do not divide the width"],
)
def test_chunks_change_nothing(tokens: torch.Tensor, model: Baseline) -> None:
    model.eval()
    stream, state, parts = tokens[:120].view(2, -1), None, []
    for chunk in stream.split([1, 30, 7, 22], dim=1):
        logits, state = model(chunk, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), model(stream)[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_query_sees_its_window_and_no_more() -> None:
    model = SlidingTransformer(VOCAB, 12, 1, 2, window=7).eval()
    stream = torch.arange(20).view(1, -1)
    changed = stream.clone()
    changed[0, 5] = 19
    differs = (model(stream)[0] != model(changed)[0]).any(2)[0]
    assert differs.nonzero().flatten().tolist() == list(range(5, 12))


def test_angles_repeat_after_their_period() -> None:
    frequencies = SlidingTransformer(VOCAB, 16, 1, 2).frequencies.double()
    turns = PERIOD * frequencies / (2 * math.pi)
    torch.testing.assert_close(turns, turns.round(), atol=1e-4, rtol=0)


def test_sizes_are_matched() -> None:
    for parameters in (156_776, 952_904):
        for model in (matched_lstm(parameters, 65), matched_sliding(parameters, 65)):
            assert model.parameter_count() == pytest.approx(parameters, rel=0.03)


@pytest.mark.parametrize("parameters", [156_776, 342_822, 952_904, 1_369_110])
@pytest.mark.parametrize("vocab", [65, 1024])
def test_heads_are_as_wide_as_the_recipe_s(parameters: int, vocab: int) -> None:
    """Whatever divides the width: heads as wide as a whole block of width 158 are no recipe's."""
    assert 24 <= matched_sliding(parameters, vocab).size <= 40


def own_model(tokens: torch.Tensor) -> DualCNN:
    """A model of ours whose memory differs from a fresh one."""
    torch.manual_seed(0)
    model = DualCNN(OURS.replace(vocab_size=VOCAB))
    model.fit(tokens, [b"%c" % (97 + token) for token in range(VOCAB)])
    assert isinstance(model.memory, ContextMemory)
    for parameter in model.memory.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def test_memory_on_top_is_the_memory_of_our_model(tokens: torch.Tensor) -> None:
    model, stream = own_model(tokens), tokens[:160].view(2, -1)
    assert isinstance(model.memory, ContextMemory)
    top = MemoryOnTop(FrozenDualCNN(model), model.memory, model.config)
    state, own = None, model.zero_state(2)
    for chunk in stream.split([40, 1, 39], dim=1):
        expected = model.compute(chunk, own)
        mixed, alone, state = top.read(chunk, state)
        torch.testing.assert_close(mixed, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(alone, expected.without_memory, atol=1e-5, rtol=0)
        own = expected.state
    assert not torch.allclose(mixed, alone.log_softmax(2), atol=0.1)


def test_memory_on_top_is_trained_like_the_memory_of_our_model(tokens: torch.Tensor) -> None:
    model = own_model(tokens)
    assert isinstance(model.memory, ContextMemory)
    top = MemoryOnTop(FrozenDualCNN(model), model.memory, model.config)
    inputs, following = tokens[:80].view(2, -1), tokens[1:81].view(2, -1)
    model.train()
    expected = model.compute(inputs, model.zero_state(2), targets=following).logits.squeeze(2)
    actual, _ = top.targets(inputs, following, None)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    gradients = [
        torch.autograd.grad(-chance.mean(), list(model.memory.parameters()))
        for chance in (actual, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_a_memory_is_fitted_and_the_network_is_not(tokens: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = GRU(VOCAB, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    words = [b"%c" % (97 + token) for token in range(VOCAB)]
    text, pieces = Text(Tokens.of(tokens[:1_000])), tokens[1_000:].view(4, -1)
    top, figures = fit_memory(
        FrozenBaseline(model), words, text, pieces, OURS.replace(vocab_size=VOCAB),
        CONFIG.replace(steps=9),
    )  # fmt: skip
    mixed, alone = top.losses(pieces)
    assert mixed == pytest.approx(figures["validation"])
    assert mixed < alone - 0.2
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_results_are_read_back_and_belong_to_one_text(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    ResumableResults(path, {"text": "a"}).put("rows", "gru", {"loss": 1})
    again, other = (ResumableResults(path, {"text": "a"}) for _ in range(2))
    other.put("rows", "mingru", {"loss": 2})
    again.put("rows", "transformer", {"loss": 3})
    assert again.get("rows", "mingru")["loss"] == 2
    assert again.get("rows", "gru")["loss"] == 1
    assert again.get("rows", "lstm") is None
    with pytest.raises(SystemExit, match="another text"):
        ResumableResults(path, {"text": "b"})


def test_the_command_goes_on_where_it_stopped(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(text[:12_000], encoding="utf-8")
    sizes = {"steps": 2, "batch": 4, "chunk": 32, "validation": 0.1, "memory": 96, **WIDTHS}
    settings = [part for pair in sizes.items() for part in ("--set", "{}={}".format(*pair))]
    trained = here("train", "--corpus", corpus, "--out", tmp_path / "ours", *settings)
    assert trained.returncode == 0, trained.stderr
    monkeypatch.setattr(full_training, "RATES", {"gru": (1e-2, 2e-2, 4e-2)})
    monkeypatch.setattr(full_training, "FURTHER", 0)
    monkeypatch.setitem(full_training.MEMORY_RULE, "steps", 2)

    def command(clock: str, rungs: str = "1,2", runs: str = "runs") -> dict[str, Any]:
        results = tmp_path / f"{runs}.json"
        argv = ["converged.py", str(corpus), "--beside", str(tmp_path / "ours"), "--models", "gru"]
        argv += ["--rungs", rungs, "--dropouts", "0,0.1", "--minutes", "9", "--clock", clock]
        argv += ["--results", str(results)]
        monkeypatch.setattr("sys.argv", [*argv, "--runs", str(tmp_path / runs)])
        converged.main()
        content: dict[str, Any] = json.loads(results.read_text())
        return content

    first = command("0.01")
    row = first["rows"]["gru"]
    assert row["stopped"] == "time limit"
    assert not row["converged"]
    first_rung, last_rung = first["searches"]["gru"]["tried"]
    assert (len(first_rung), len(last_rung)) == (3, 2)
    assert set(row["rates"]) == set(last_rung)  # both finalists
    assert row["settings"]["learning_rate"] == float(min(row["rates"], key=row["rates"].get))
    assert set(row["dropouts"]) == {"0", "0.1"}
    assert command("0.01") == first
    assert "is in the results already" in capsys.readouterr().out
    monkeypatch.setitem(full_training.MEMORY_RULE, "steps", 3)
    assert command("0.01")["rows"]["gru"]["memory"]["settings"]["steps"] == 3
    more = command("0.02")
    assert more["searches"] == first["searches"]
    assert more["rows"]["gru"]["steps"] > row["steps"]
    # A longer search is another one: the best rate of a short one can be too high.
    longer = command("0.03", "1,2,3")["searches"]["gru"]
    assert len(longer["tried"]) == 3
    assert longer["tried"][:2] == first["searches"]["gru"]["tried"]
    # The training had gone past the new rung, which is measured as if it had not.
    assert longer["tried"] == command("0.01", "1,2,3", "others")["searches"]["gru"]["tried"]
    given = (tmp_path / "ours", (corpus, None, None), tmp_path / "runs", tmp_path / "runs.json")
    network = converged_baseline("gru", *given, print)
    texts = write_texts(*network, {"temperature": 0.8}, 2, 80, prompt="T")
    assert texts == write_texts(*network, {"temperature": 0.8}, 2, 80, prompt="T")
    assert [len(one) for one in texts] == [80, 80]
    assert texts[0] != texts[1]
    with pytest.raises(SystemExit, match="no row lstm"):
        converged_baseline("lstm", *given, print)
