"""The options that users of other runtimes look for: on samplers, streams and the command line."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import Model, Sampler, SamplingParams, UsageError, load
from rillet.runtime.bundle import Bundle
from rillet.runtime.firmware.packing import pack
from rillet.runtime.sampling.token_tail import REACH, TokenTail
from rillet.runtime.streams import generation as generation_module
from rillet.runtime.streams.stream import Stream
from rillet.train import make_tokenizer
from support.bundle_mutations import sign
from support.command_line import here

LETTERS = make_tokenizer("abcdefgh", "char")
NANO = Path(__file__).parents[2] / "models" / "shakespeare-nano"


def steady(tokens: Any, logits: np.ndarray) -> np.ndarray:
    """A processor that depends on the tokens: no letter follows itself."""
    if len(tokens):
        logits[tokens[-1]] = -math.inf
    return logits


OPTIONS: dict[str, dict[str, Any]] = {
    "min_new_tokens": {"min_new_tokens": 20, "stop": ["e"], "stop_token_ids": [5]},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 3},
    "stop_token_ids": {"stop_token_ids": [51]},
    "include_stop": {"include_stop": True, "stop": ["th", "\n"], "stop_token_ids": [5]},
    "penalty_window": {
        "penalty_window": 9,
        "repetition_penalty": 1.4,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.2,
    },
    "epsilon_cutoff": {"epsilon_cutoff": 0.05},
    "eta_cutoff": {"eta_cutoff": 0.3},
    "logit_bias": {"logit_bias": {"the": 4.0, "e": -1.0, "an": -math.inf}},
    "logits_processor": {"logits_processor": steady},
    "max_time": {"max_time": 1e6},
}
EVERYTHING = {
    **{name: value for options in OPTIONS.values() for name, value in options.items()},
    "stop": ["zq"],
    "stop_token_ids": [5],
}


@pytest.fixture(scope="module")
def nano() -> Model:
    return load(NANO, self_test=False)


# Samplers.


@given(
    tokens=st.lists(st.integers(0, 3), max_size=40),
    size=st.integers(1, 4),
    before=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_no_n_gram_is_written_twice(tokens: list[int], size: int, before: int, seed: int) -> None:
    params = SamplingParams(1.0, no_repeat_ngram_size=size, seed=seed)
    sampler = Sampler(params, LETTERS, recent=tokens[:before])
    written = tokens[:before]
    for _ in range(30):
        try:
            token = sampler.draw(np.zeros(8))
        except UsageError as error:
            assert "no_repeat_ngram_size forbid every possible next token" in str(error)  # noqa: PT017
            grams = {tuple(written[i : i + size]) for i in range(len(written) - size + 1)}
            end = written[len(written) - size + 1 :]
            assert all((*end, token) in grams for token in range(8))
            break
        written.append(token)
        last = tuple(written[-size:])
        places = range(len(written) - size)
        assert len(last) < size or all(tuple(written[i : i + size]) != last for i in places)


@given(
    tokens=st.lists(st.integers(0, 7), max_size=30),
    read=st.integers(0, 30),
    window=st.integers(1, 12),
    penalties=st.tuples(st.floats(0.5, 2), st.floats(-1, 1), st.floats(-1, 1)),
)
def test_a_window_counts_its_tokens_and_no_others(
    tokens: list[int], read: int, window: int, penalties: tuple[float, float, float]
) -> None:
    names = ("repetition_penalty", "frequency_penalty", "presence_penalty")
    options = dict(zip(names, penalties, strict=True))
    sampler = Sampler(
        SamplingParams(1.0, penalty_window=window, **options), LETTERS, recent=tokens[:read]
    )
    for token in tokens[read:]:
        sampler.accept(token)
    logits = np.linspace(-3, 2, 8)
    expected = logits.copy()
    for token in set(tokens[-window:]):
        expected[token] *= 1 / penalties[0] if expected[token] > 0 else penalties[0]
        expected[token] -= penalties[1] * tokens[-window:].count(token) + penalties[2]
    weights = np.exp(expected - expected.max())
    np.testing.assert_allclose(sampler.probabilities(logits), weights / weights.sum(), atol=1e-12)


def test_a_forbidden_text_of_several_tokens_is_a_bad_word() -> None:
    logits = np.zeros(8)
    ways = ({"logit_bias": {"ab": -math.inf}}, {"bad_words": ["ab"]})
    texts = []
    for options in ways:
        sampler = Sampler(SamplingParams(1.0, seed=4, **options), LETTERS)
        texts.append(LETTERS.decode([sampler.draw(logits) for _ in range(400)]))
    assert texts[0] == texts[1]
    assert "ab" not in texts[0]


@given(
    read=st.lists(st.integers(0, 9), max_size=20),
    steps=st.lists(st.integers(0, 9), max_size=60),
    cut=st.integers(0, 60),
)
def test_a_tail_returns_to_where_it_was(read: list[int], steps: list[int], cut: int) -> None:
    tail = TokenTail(read * 300)
    for token in steps[:cut]:
        tail.accept(token)
    expected, undo = tail.tokens.tolist(), tail.undo_point()
    seen = tail.tokens
    for token in steps[cut:] * 150:
        tail.accept(token)
    assert tail.tokens.tolist() == (read * 300 + steps[:cut] + steps[cut:] * 150)[-REACH:]
    assert seen.tolist() == expected
    undo()
    assert tail.tokens.tolist() == expected == (read * 300 + steps[:cut])[-REACH:]


# Streams.


def test_stop_tokens_end_a_text(nano: Model) -> None:
    whole = nano.generate("ROMEO:", max_new_tokens=200, seed=3)
    stop = whole[17]
    place = whole.index(stop)
    number = nano.tokenizer.encode(stop)[0]
    for including, in_graph in ((False, False), (True, False), (False, True), (True, True)):
        session = nano.session()
        session.feed("ROMEO:")
        text = session.generate(
            stop_token_ids=number, include_stop=including, seed=3, in_graph=in_graph
        )
        assert text == whole[: place + including]
        assert session.finish_reason == "stop"
        assert session.position == 6 + place + 1  # the token is read, as that of a stop string
        assert session.generate(seed=9, max_new_tokens=9, temperature=0)


def test_the_stop_string_may_be_part_of_the_text(nano: Model) -> None:
    whole = nano.generate("ROMEO:", max_new_tokens=200, seed=3)
    stop = whole[30:34]
    place = whole.index(stop)
    for include in (False, True):
        stream = nano.stream("ROMEO:", seed=3, stop=[stop], include_stop=include)
        assert "".join(stream) == whole[: place + 4 * include]
        assert (stream.finish_reason, stream.stop_string) == ("stop", stop)


@given(least=st.integers(0, 60), at=st.integers(0, 40), length=st.integers(1, 4))
def test_nothing_stops_a_text_before_the_least(
    nano: Model, least: int, at: int, length: int
) -> None:
    """A stop string ends it at the first place where it is complete late enough."""
    whole = nano.generate("ROMEO:", max_new_tokens=120, seed=3)
    stop = whole[at : at + length]
    ends = [i for i in range(length, 121) if whole[:i].endswith(stop) and i >= least]
    text = nano.generate(
        "ROMEO:", max_new_tokens=120, seed=3, stop=[stop], min_new_tokens=least, include_stop=True
    )
    assert text == (whole[: ends[0]] if ends else whole)


def test_stop_tokens_are_not_drawn_before_the_least(nano: Model) -> None:
    stops = nano.tokenizer.encode("abcdefghij klmnop")
    stream = nano.stream("ROMEO:", min_new_tokens=30, stop_token_ids=stops, seed=1)
    assert len("".join(stream)) >= 30
    assert stream.stats.tokens > 30
    assert stream.finish_reason == "stop"


def test_time_ends_a_text_at_a_whole_token(nano: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own, which a second later says that it is late."""
    whole = nano.generate("ROMEO:", max_new_tokens=50, seed=3)
    now = [100.0]
    monkeypatch.setattr(generation_module.time, "monotonic", lambda: now[0])
    session = nano.session()
    session.feed("ROMEO:")
    stream = session.tokens(max_new_tokens=50, seed=3, max_time=5, stop=[whole[10:16] + "~"])
    text = "".join(next(stream).text for _ in range(12))
    assert text == whole[:10]  # the rest may begin the stop string
    now[0] = 106
    text += "".join(token.text for token in stream)
    assert text == whole[:13]
    assert (stream.finish_reason, stream.stats.tokens) == ("time", 13)
    # It goes on, for as long again.
    assert text + "".join(session.resume()) == whole
    now[0] = 112
    with nano.batch() as batch:
        batch.join(session, max_time=5)
        now[0] = 118
        batch.write()
        assert len(batch) == 0
        assert session.finish_reason == "time"


def test_time_is_that_of_a_clock(nano: Model) -> None:
    began = time.monotonic()
    stream = nano.stream("ROMEO:", max_new_tokens=10**7, max_time=0.2, seed=1)
    assert len("".join(stream)) > 10
    assert 0.2 <= time.monotonic() - began < 20
    assert stream.finish_reason == "time"


def test_your_own_processor_sees_the_tokens_and_changes_the_logits(nano: Model) -> None:
    calls: list[tuple[list[int], np.ndarray]] = []

    def only_a_and_b(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
        calls.append((tokens.tolist(), logits.copy()))
        logits[[t for t in range(logits.size) if t not in letters]] = -math.inf
        return logits

    letters = nano.tokenizer.encode("ab")
    text = nano.generate("ROMEO:", logits_processor=only_a_and_b, max_new_tokens=9, seed=1)
    assert set(text) <= {"a", "b"}
    encode = nano.tokenizer.encode
    assert [tokens for tokens, _ in calls] == [encode("ROMEO:" + text[:i]) for i in range(9)]
    assert all(np.isfinite(logits).all() for _, logits in calls)


def test_a_processor_that_fails_changes_nothing(nano: Model) -> None:
    session = nano.session()
    session.feed("ROMEO:")
    fails = [False]

    def failing(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
        if fails[0] and len(tokens) == 16:
            raise ZeroDivisionError
        return steady(tokens, logits)

    whole = session.fork().generate(logits_processor=steady, max_new_tokens=30, seed=1)
    stream = session.stream(logits_processor=failing, max_new_tokens=30, seed=1)
    fails[0] = True
    text = "".join(next(stream) for _ in range(10))
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert session.position == 16
    fails[0] = False
    assert text + "".join(stream) == whole


@pytest.mark.parametrize("name", [*OPTIONS, "everything"])
def test_an_option_is_part_of_a_stream(nano: Model, name: str, tmp_path: Path) -> None:
    """In a fork, after a rollback, in a batch and in a file, the text goes on the same."""
    options = {"seed": 5, "max_new_tokens": 60, **OPTIONS.get(name, EVERYTHING)}
    session = nano.session()
    session.feed("ROMEO:\nO, banana banana")
    whole = session.fork().generate(**options)
    assert len(whole) >= 1
    for cut in {0, len(whole) // 2, max(len(whole) - 4, 0)}:
        writer = session.fork()
        tokens = writer.tokens(**options)
        begun = "".join(next(tokens).text for _ in range(cut))
        mark = writer.checkpoint()
        twin = writer.fork()
        assert begun + "".join(twin.resume()) == whole
        assert begun + "".join(token.text for token in tokens) == whole
        writer.rollback(mark)
        if "logits_processor" in options:
            with pytest.raises(UsageError, match="a function that no file can hold"):
                writer.save(tmp_path / "state")
        else:
            writer.save(tmp_path / "state")
            assert begun + "".join(nano.restore(tmp_path / "state").resume()) == whole
        assert begun + "".join(writer.resume()) == whole
    writer.save(tmp_path / "ended")
    nano.restore(tmp_path / "ended")
    with nano.batch() as batch:
        twin, other = session.fork(), session.fork()
        batch.join(twin, **options)
        batch.join(other, seed=1, max_new_tokens=10)
        text = ""
        while twin in batch:
            text += batch.write()[twin].text
        assert text == whole


@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_that_fails_is_not_counted(
    nano: Model, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draw that no step follows leaves every count where it was."""
    options = {"seed": 5, "max_new_tokens": 40, **OPTIONS[name]}
    session = nano.session()
    session.feed("ROMEO:\nO, banana banana")
    whole = session.fork().generate(**options)
    stream, text, real, calls = session.stream(**options), "", Stream.read_back, [0]

    def failing(self: Stream, token: int) -> Any:
        calls[0] += 1
        if calls[0] % 2:
            raise MemoryError
        return real(self, token)

    monkeypatch.setattr(Stream, "read_back", failing)
    monkeypatch.setattr(nano, "drafter", None)
    while True:
        try:
            text += next(stream)
        except MemoryError:
            continue
        except StopIteration:
            break
    assert text == whole
    assert calls[0] >= 2


@pytest.mark.parametrize("token", [-1, 10**6])
def test_a_token_of_no_model_in_a_saved_tail_is_refused(nano: Model, token: int) -> None:
    options = {"no_repeat_ngram_size": 3, "seed": 1}
    session = nano.session()
    next(session.tokens(**options))
    mark = session.checkpoint()
    assert mark.generation is not None
    mark.generation["sampler"]["tail"].append(token)
    with pytest.raises(ValueError, match="the last tokens contain one that does not exist"):
        session.rollback(mark)


def test_the_best_of_several_is_the_likeliest(nano: Model) -> None:
    def mean(seed: int) -> float:
        session = nano.session()
        session.feed("ROMEO:")
        return float(np.mean([token.logprob for token in session.tokens(seed=seed, **options)]))

    options: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.2}
    best = max(range(8, 14), key=mean)
    assert best != 8
    session = nano.session()
    session.feed("ROMEO:")
    assert session.best_seed(6, seed=8, **options) == best
    assert session.position == 6
    seen: list[str] = []
    text = session.generate(best_of=6, seed=8, on_text=seen.append, **options)
    assert text == "".join(seen) == nano.generate("ROMEO:", seed=best, **options)
    assert session.position == 46
    assert nano.generate("ROMEO:", best_of=6, seed=8, **options) == text
    assert nano.generate("ROMEO:", best_of=1, seed=8, **options) != text


def test_resuming_with_other_options_keeps_the_least(nano: Model) -> None:
    session = nano.session()
    session.feed("ROMEO:")
    stream = session.stream(min_new_tokens=20, max_new_tokens=60, stop=list("aeiou"), seed=1)
    text = "".join(next(stream) for _ in range(10))
    text += "".join(session.resume(temperature=0.9))
    assert len(text) >= 19


# Faces that cannot do an option say so.


@pytest.mark.parametrize(
    "name",
    [n for n in OPTIONS if n not in ("stop_token_ids", "include_stop", "max_time")],
)
def test_the_graph_refuses_by_name(nano: Model, name: str) -> None:
    named = "repetition_penalty" if name == "penalty_window" else name
    with pytest.raises(UsageError, match=f"{named}.* cannot be used inside the graph"):
        nano.session().generate(in_graph=True, **OPTIONS[name])


@pytest.mark.parametrize(
    "defaults",
    [
        {"no_repeat_ngram_size": 3},
        {"epsilon_cutoff": 0.1},
        {"json_schema": {"type": "null"}},
        {"stop_token_ids": [3]},
        {"typical_p": 0.5},
    ],
    ids=str,
)
def test_a_default_is_taken_or_refused_by_name(
    small_bundle: Path, tmp_path: Path, defaults: dict[str, Any]
) -> None:
    """By generation_config.json: the runtime takes it, and firmware, which lacks it, says so."""
    folder = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    (folder / "generation_config.json").write_text(json.dumps(defaults))
    sign(folder)
    name, value = next(iter(defaults.items()))
    taken = getattr(load(folder, self_test=False).sampling(), name)
    assert taken == getattr(SamplingParams(**{name: value}), name)
    with pytest.raises(UsageError, match=f"samples with {name}, which firmware lacks"):
        pack(Bundle.open(folder))


# The command line.


def test_options_on_the_command_line(nano: Model, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 80,
        "min_new_tokens": 10,
        "seed": 3,
        "no_repeat_ngram_size": 4,
        "repetition_penalty": 1.1,
        "penalty_window": 30,
        "epsilon_cutoff": 0.01,
        "eta_cutoff": 0.02,
        "max_time": 1000,
    }
    flags = [
        part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    flags += ["--logit-bias", "the", "-1.5", "--logit-bias", "!", "-inf", "--token-bias", 5, 1]
    flags += ["--stop", "ing", "--stop-token-id", 7, "--include-stop"]
    result = here("generate", NANO, "ROMEO:", "--no-echo", *flags)
    expected = nano.generate(
        "ROMEO:",
        logit_bias={"the": -1.5, "!": -math.inf, 5: 1.0},
        stop="ing",
        stop_token_ids=[7],
        include_stop=True,
        **options,
    )
    assert result.stdout == expected + "\n", result.stderr


def test_the_best_of_several_on_the_command_line(nano: Model) -> None:
    flags = ("--max-new-tokens", 30, "--temperature", 1.2, "--seed", 8)
    result = here("generate", NANO, "ROMEO:", "--no-echo", "--json", "--best-of", 4, *flags)
    line = json.loads(result.stdout)
    options = {"max_new_tokens": 30, "temperature": 1.2}
    session = nano.session()
    session.feed("ROMEO:")
    assert line["seed"] == session.best_seed(4, seed=8, **options)
    assert line["text"] == nano.generate("ROMEO:", seed=line["seed"], **options)
    two = here("generate", NANO, "ROMEO:", "--json", "--best-of", 2, "--n", 2, *flags)
    seeds = [json.loads(line)["seed"] for line in two.stdout.splitlines()]
    assert seeds[0] in (8, 9)
    assert seeds[1] in (10, 11)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--best-of", 0), "0 is not in the range"),
        (("--best-of", 2, "--interactive"), "leave out --json, --n, --best-of and -"),
        (("--max-time", 0), "0.0 is not in the range"),
        (("--logit-bias", "e"), "requires 2 arguments"),
        (("--logit-bias", "水", 1), "with characters that this model does not know"),
        (("--token-bias", 99999, 1), "logit_bias names the token 99999"),
        (("--stop-token-id", 99999), "stop_token_ids names the token 99999"),
        (("--penalty-window", 5000), "is not in the range 0<=x<=4096"),
        (("--epsilon-cutoff", 1), "is not in the range"),
    ],
    ids=str,
)
def test_options_that_cannot_work_on_the_command_line(
    flags: tuple[object, ...], message: str
) -> None:
    result = here("generate", NANO, "x", "--max-new-tokens", 3, *flags)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
