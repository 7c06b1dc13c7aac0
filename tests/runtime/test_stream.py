"""Streaming text: stop strings, multibyte characters, cancelling and resuming."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.runtime import GenerationStats, Model, UsageError, load
from rillet.runtime.sampling.stop_strings import StopStrings


def cut_at_first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the stop string that completes first; of several, the longest."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    pieces=st.lists(st.text("ab\n", max_size=4), max_size=25),
    stops=st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=4),
)
def test_stop_strings_across_token_boundaries(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    expected, expected_stop = cut_at_first_stop(whole, stops)
    finder, shown, stop = StopStrings(stops), "", None
    for index, piece in enumerate(pieces):
        part, stop = finder.push(piece)
        shown += part
        assert expected.startswith(shown)  # no part of a stop string is shown
        if stop is not None:
            break
        read = "".join(pieces[: index + 1])
        assert shown + finder.held == read
        assert len(finder.held) == longest_beginning(read, stops)  # and nothing else is held back
    assert stop == expected_stop
    assert shown + finder.flush() == expected


def longest_beginning(text: str, stops: list[str]) -> int:
    """Length of the longest end of a text that begins a stop string without completing it."""
    beginnings = {stop[:length] for stop in stops for length in range(len(stop))}
    return max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)


@given(seed=st.integers(0, 100), stops=st.lists(st.text("e taosn\n", min_size=1, max_size=3)))
def test_a_stream_ends_at_a_stop_string(small_model: Model, seed: int, stops: list[str]) -> None:
    options = {"seed": seed, "max_new_tokens": 60}
    whole = small_model.generate("The ", **options)
    expected, stop = cut_at_first_stop(whole, stops)
    stream = small_model.stream("The ", stop=stops, **options)
    pieces = list(stream)
    assert "".join(pieces) == expected
    assert all(pieces)
    assert stream.stop_string == stop
    assert stream.finish_reason == ("length" if stop is None else "stop")


@given(seed=st.integers(0, 1000), temperature=st.floats(0.2, 3))
def test_a_piece_holds_only_whole_characters(
    byte_model: Model, seed: int, temperature: float
) -> None:
    session = byte_model.session()
    stream = session.tokens(seed=seed, temperature=temperature, max_new_tokens=80)
    tokens = list(stream)
    data = b"".join(byte_model.tokenizer.token_bytes[token.token] for token in tokens)
    # All but an incomplete character at the end; invalid bytes become U+FFFD.
    shown = "".join(token.text for token in tokens)
    pending = session._stream.pending
    assert shown == data[: len(data) - len(pending)].decode("utf-8", "replace")
    assert len(pending) < 4


@given(seed=st.integers(0, 100), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_resuming_equals_an_uninterrupted_generation(
    byte_model: Model, seed: int, cuts: list[int]
) -> None:
    total = sum(cuts) + 20
    whole = byte_model.generate("é", seed=seed, max_new_tokens=total, temperature=1.2)
    session = byte_model.session()
    session.feed("é")
    text = session.generate(seed=seed, max_new_tokens=0, temperature=1.2)
    for count in [*cuts, 20]:
        text += "".join(session.resume(max_new_tokens=count))
    assert text == whole


@given(seed=st.integers(0, 100), after=st.integers(0, 30))
def test_a_cancelled_stream_can_be_resumed(small_model: Model, seed: int, after: int) -> None:
    options = {"seed": seed, "max_new_tokens": 40, "stop": ["the ", "a state"]}
    whole = small_model.generate("In ", **options)
    session = small_model.session()
    session.feed("In ")
    stream = session.stream(**options)
    text = ""
    for _, piece in zip(range(after), stream, strict=False):
        text += piece
    ended = stream.finish_reason
    stream.cancel()
    assert list(stream) == []
    assert stream.finish_reason == (ended or "cancelled")
    if ended != "stop":
        text += "".join(session.resume())
    assert text == whole


def test_cancelling_from_another_thread(small_model: Model) -> None:
    stream = small_model.stream("The", max_new_tokens=10**9, seed=1)
    next(stream)
    timer = threading.Timer(0.05, stream.cancel)
    timer.start()
    assert len("".join(stream)) > 0
    assert stream.finish_reason == "cancelled"


def test_iterator_callback_and_async_iterator_agree(small_model: Model) -> None:
    options = {"seed": 4, "max_new_tokens": 50, "stop": ["zz"]}
    expected = list(small_model.stream("The ", **options))
    called: list[str] = []
    small_model.generate("The ", on_text=called.append, **options)
    assert called == expected

    async def gather() -> list[list[str]]:
        async def one() -> list[str]:
            return [piece async for piece in small_model.stream("The ", **options)]

        return await asyncio.gather(one(), one())

    assert asyncio.run(gather()) == [expected, expected]


def test_a_failing_callback_loses_no_text(small_model: Model) -> None:
    session, same = small_model.session(), small_model.session()
    for stream in (session, same):
        stream.feed("The ")
    expected = same.generate(max_new_tokens=20, seed=1)

    def fail(piece: str) -> None:
        raise RuntimeError(piece)

    with pytest.raises(RuntimeError) as failure:
        session.generate(max_new_tokens=20, seed=1, on_text=fail)
    assert str(failure.value) + "".join(session.resume()) == expected


def test_on_finish_is_called_once_with_the_statistics(small_bundle: Path) -> None:
    model = load(small_bundle)
    seen: list[GenerationStats] = []
    model.on_finish = seen.append
    stream = model.stream("The ", max_new_tokens=7, seed=0)
    assert stream.stats.first_token_seconds is None
    list(stream)
    list(stream)
    assert seen == [stream.stats]
    assert (seen[0].tokens, seen[0].finish_reason) == (7, "length")
    assert 0 < (seen[0].first_token_seconds or 0) <= seen[0].seconds


def test_resuming_without_a_generation_is_refused(small_model: Model) -> None:
    session = small_model.session()
    with pytest.raises(UsageError, match="no generation to resume"):
        session.resume()
    session.generate(max_new_tokens=3, seed=0)
    assert list(session.resume()) == []
    with pytest.raises(UsageError, match="max_new_tokens is -1"):
        session.resume(-1)
