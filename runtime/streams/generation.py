"""One generation: what it draws with, and which of its text can be shown."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..engines.base import Drawing
from ..sampling.grammar import Grammar
from ..sampling.logit_processors import check_tokens
from ..sampling.params import SamplingParams
from ..sampling.sampler import RowError, Sampler, choose_rows
from ..sampling.stop_strings import StopStrings
from ..tokenizer import Tokenizer

__all__ = ["Draw", "GeneratedToken", "Generation", "draw_rows"]

_ALWAYS_SAVED = frozenset(
    (
        *("temperature", "top_k", "top_p", "seed", "min_p", "typical_p", "repetition_penalty"),
        *("frequency_penalty", "presence_penalty", "logit_bias", "bad_words", "choices", "regex"),
        *("grammar", "max_new_tokens", "stop", "top_logprobs"),
    )
)
"""The options of format 1.1. Others are saved where they are used, so that earlier versions read
the rest."""


class GeneratedToken(NamedTuple):
    """A token that was generated.

    Attributes:
        token: Its number.
        text: The text that can be shown since it came; empty while a character, or what may be
            a stop string, is incomplete. Bytes that are no text are U+FFFD in it.
        logprob: Its natural-log probability in the model's own prediction, before any sampling
            option.
        top: The likeliest tokens of that prediction, each with its log-probability.
        data: The same text as UTF-8, with bytes that are no text as they are.
    """

    token: int
    text: str
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    data: bytes = b""


class Draw(NamedTuple):
    """A token that was drawn and is not yet part of the text.

    Attributes:
        token: Its number.
        logprob: Its natural-log probability.
        top: The likeliest tokens, each with its log-probability.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Generation:
    """The sampler of one generation, its limit, and the text that it holds back.

    A token is drawn with :meth:`draw`, read back by the stream, and then accepted with
    :meth:`accept`. If anything fails on the way, an undo point returns to before the draw:
    penalties, constraints, random numbers and held-back text are where they were.

    Args:
        params: How to sample; without a seed, one is drawn.
        tokenizer: The model's tokenizer.
        seen: Which tokens the stream has read, ``[V]``; the stream updates it.
        before: The last bytes that the stream has read.
        recent: The last tokens that it has read.

    Attributes:
        params: How it samples; the seed is the one in use.
        may_stop: Whether what it writes may end it before its limit.
        drawing: How an engine draws its tokens, if it :attr:`is_simple`.
        limit: Tokens to generate at most.
        count: Tokens generated.
        finish_reason: Why it ended; ``None`` before the end.
        stop_string: The stop string that ended it.
        outbox: An accepted token that has not been delivered yet. Its reader takes it without a
            lock, so an undo must not restore a token that the reader may have taken.
        backlog: Text of an earlier generation that this one continues, or of a call that could
            not return it, to be shown first.
        kept: Text that a call has written and not returned yet, in pieces. It gives them back by
            :meth:`put_back` if it never does.
    """

    def __init__(
        self,
        params: SamplingParams,
        tokenizer: Tokenizer,
        seen: npt.NDArray[np.bool_],
        before: bytes = b"",
        recent: Sequence[int] = (),
    ) -> None:
        if params.seed is None:
            params = params.with_seed(secrets.randbits(32))
        self.params = params
        self.sampler = Sampler(params, tokenizer, seen, before, recent)
        self.stops = StopStrings(params.stop)
        self._stop_tokens = frozenset(params.stop_token_ids)
        check_tokens("stop_token_ids", self._stop_tokens, tokenizer.vocab_size)
        self.may_stop = bool(params.stop or self._stop_tokens)
        self.drawing = Drawing(params.temperature, params.top_k, params.top_p, params.min_p)
        has_filters = params.filters[3:] != (1.0, 0.0, 0.0)  # those that engines lack
        has_options = has_filters or params.top_logprobs > 0 or params.max_time is not None
        self._is_drawing = self.sampler.is_plain and not has_options
        self.limit = params.max_new_tokens
        self._deadline = _deadline(params)
        self.count = 0
        self.finish_reason: str | None = "length" if self.limit == 0 else None
        if (constraint := self.sampler.constraint) is not None and constraint.done:
            self.finish_reason = constraint.finish_reason  # the only text allowed is the empty one
        self.stop_string: str | None = None
        self.outbox: GeneratedToken | None = None
        self.backlog = ""
        self.kept: list[str] = []
        self.owed: Draw | None = None
        """A token that an earlier version drew, accepted and could not read back: it comes next."""

    def draw(self, logits: npt.NDArray[Any]) -> Draw:
        """Draw a token from logits ``[V]``; follow it with :meth:`accept`.

        Raises:
            EngineError: A logit is not a finite number.
            UsageError: The constraints leave no token.
        """
        if self.owed is not None:
            return self.owed
        return self.describe(self.sampler.choose(logits), logits)

    def undo_point(self) -> Callable[[], None]:
        """Return what brings the generation back to this moment, whatever was drawn since."""
        undo_sampler, undo_stops = self.sampler.undo_point(), self.stops.undo_point()
        count, owed, outbox, backlog = self.count, self.owed, self.outbox, self.backlog
        finish_reason, stop_string = self.finish_reason, self.stop_string

        def undo() -> None:
            undo_sampler()
            undo_stops()
            self.count, self.owed, self.backlog = count, owed, backlog
            if self.outbox is not None:  # or its reader has taken it meanwhile
                self.outbox = outbox
            self.finish_reason, self.stop_string = finish_reason, stop_string

        return undo

    @property
    def is_simple(self) -> bool:
        """Whether an engine can draw its tokens, as :attr:`drawing` says."""
        return self._is_drawing and self.owed is None and not self.backlog

    def twin(self) -> Generation:
        """A copy that accepts tokens on its own, of a generation whose sampler is plain.

        It holds no text for a reader: that stays with the generation that it is copied from.
        """
        twin = copy.copy(self)
        del twin.outbox, twin.kept
        twin.sampler, twin.stops = self.sampler.twin(), self.stops.twin()
        return twin

    def become(self, twin: Generation) -> None:
        """Stand where a twin stands; doing it twice is doing it once."""
        self.__dict__.update(twin.__dict__)
        self.sampler.rewind()

    def accept(self, draw: Draw, text: str) -> GeneratedToken:
        """Make a drawn token part of the text, and see whether that ends the generation.

        Args:
            draw: The token.
            text: The text that it completes.

        Returns:
            The token, with what can be shown now.
        """
        if self.owed is None:
            self.sampler.accept(draw.token)
        self.owed = None
        self.count += 1
        if self.may_stop:
            text = self._stopped(draw.token, text)
        text, self.backlog = self.backlog + text, ""
        is_simple = self.sampler.constraint is None and self._deadline is None
        if self.finish_reason is None and (self.count >= self.limit or not is_simple):
            self.finish_reason = self._ended()
            if self.finish_reason is not None:
                text += self.stops.flush()
        return GeneratedToken(draw.token, text, draw.logprob, draw.top)

    def _stopped(self, token: int, text: str) -> str:
        """What can be shown of a text that may hold a stop string or come from a stop token."""
        includes = self.params.include_stop
        if token in self._stop_tokens:
            self.finish_reason = "stop"
            return self.stops.flush() + (text if includes else "")
        may_end = self.count >= self.params.min_new_tokens
        text, self.stop_string = self.stops.push(text, may_end)
        if self.stop_string is None:
            return text
        self.finish_reason = "stop"
        return text + self.stop_string if includes else text

    def _ended(self) -> str | None:
        """Why the text ends after the token that was accepted last; ``None`` if it goes on."""
        if (constraint := self.sampler.constraint) is not None and constraint.done:
            return constraint.finish_reason
        if self.count >= self.limit:
            return "length"
        is_late = self._deadline is not None and time.monotonic() >= self._deadline
        return "time" if is_late else None

    def accept_all(
        self, tokens: list[int], logprobs: list[float], texts: Iterable[str]
    ) -> list[GeneratedToken]:
        """Accept tokens one after the other, up to the end, if the sampler is plain.

        Args:
            tokens: At most as many as the limit leaves.
            logprobs: Their log-probabilities.
            texts: The text that each completes; taken as tokens are accepted.

        Returns:
            What :meth:`accept` returns for each.
        """
        if self.may_stop or self.backlog:
            written = []
            for token, logprob, text in zip(tokens, logprobs, texts, strict=True):
                written.append(self.accept(Draw(token, logprob), text))
                if self.finish_reason is not None:
                    break
            return written
        self.sampler.accept_plain(len(tokens))
        self.count += len(tokens)
        if self.count >= self.limit:
            self.finish_reason = "length"
        return list(map(GeneratedToken, tokens, texts, logprobs))

    def describe(self, token: int, logits: npt.NDArray[Any]) -> Draw:
        """A drawn token, its log-probability, and as many of the likeliest as are asked for."""
        logprob, count = float(logits[token]), self.params.top_logprobs
        if not count:
            return Draw(token, logprob)
        best = np.argsort(-logits, kind="stable")[:count].tolist()
        return Draw(token, logprob, tuple((number, float(logits[number])) for number in best))

    def drop_owed(self) -> None:
        """Forget a token that is owed: the stream has read something else."""
        self.owed = None

    @property
    def held(self) -> str:
        """Text that was generated and not shown yet."""
        outbox, backlog = self._unread()
        return backlog + ("" if outbox is None else outbox.text) + self.stops.held

    def _unread(self) -> tuple[GeneratedToken | None, str]:
        """Outbox and backlog, one of them with the text that was kept in front."""
        text, token = "".join(self.kept) + self.backlog, self.outbox
        return (None, text) if token is None else (token._replace(text=text + token.text), "")

    def put_back(self) -> None:
        """Let text that a call has kept and never returned be read first."""
        if self.kept:
            outbox, backlog = self._unread()
            # Nothing is called from here on, so no interrupt loses or doubles the text.
            self.outbox, self.backlog, self.kept = outbox, backlog, []

    def continue_from(self, earlier: Generation) -> None:
        """Continue the text of another generation, and its random numbers if the seed is the same.

        Args:
            earlier: The other generation, with other options.
        """
        if self.params.seed == earlier.params.seed:
            self.sampler.random_state = earlier.sampler.random_state
        may_end = self.params.min_new_tokens == 0
        self.backlog, self.stop_string = self.stops.push(earlier.held, may_end)
        if self.stop_string is not None:
            self.finish_reason = "stop"
            self.backlog += self.stop_string if self.params.include_stop else ""

    def extend(self, max_new_tokens: int | None) -> None:
        """Continue: up to the old limit, or for so many tokens more."""
        if self.sampler.constraint is not None and self.sampler.constraint.done:
            return
        is_unread = self.outbox is not None or bool(self.backlog)
        if max_new_tokens is None and is_unread and self.finish_reason == "stop":
            return  # the reader has not seen that it ended
        self.stop_string = None
        if max_new_tokens is not None:
            self.limit = self.count + max_new_tokens
            if isinstance(self.sampler.constraint, Grammar):
                self.sampler.constraint.extend(self.limit)
        self._deadline = _deadline(self.params)
        self.finish_reason = "length" if self.count >= self.limit else None

    def snapshot(self) -> dict[str, Any]:
        """Everything that the rest of the text depends on, as a JSON value."""
        params = {
            name: getattr(self.params, name)
            for name, option in self.params.__dataclass_fields__.items()
            if name in _ALWAYS_SAVED or getattr(self.params, name) != option.default
        }
        params["choices"] = list(self.params.choices or ())  # as earlier versions have it
        params["logit_bias"] = [[key, bias] for key, bias in self.params.logit_bias.items()]
        outbox, backlog = self._unread()
        return {
            "params": params,
            "sampler": self.sampler.snapshot(),
            "held": self.stops.held,
            "limit": self.limit,
            "count": self.count,
            "finish_reason": self.finish_reason,
            "stop_string": self.stop_string,
            **({} if outbox is None else {"outbox": outbox[:4]}),
            **({"backlog": backlog} if backlog else {}),
            **({} if self.owed is None else {"drawn": self.owed}),
        }

    @classmethod
    def from_snapshot(
        cls, value: dict[str, Any], tokenizer: Tokenizer, seen: npt.NDArray[np.bool_]
    ) -> Generation:
        """Rebuild what :meth:`snapshot` described.

        Raises:
            UsageError: A parameter has a value that can never work.
            ValueError: The value has another form.
            KeyError: The value has another form.
            TypeError: The value has another form.
        """
        options = value["params"]
        kept = {"choices": options["choices"] or None, "logit_bias": dict(options["logit_bias"])}
        params = SamplingParams(**{**options, **kept})
        generation = cls(params, tokenizer, seen)
        generation.sampler.restore(value["sampler"])
        if generation.stops.push(str(value["held"])) != ("", None):
            raise ValueError("the text that was held back begins no stop string")
        generation.limit, generation.count = int(value["limit"]), int(value["count"])
        generation.backlog = str(value.get("backlog", ""))
        if (waiting := value.get("outbox")) is not None:
            token, text, logprob, top = waiting
            draw = _draw([token, logprob, top], tokenizer.vocab_size)
            generation.outbox = GeneratedToken(draw.token, str(text), draw.logprob, draw.top)
        stop = value.get("stop_string")
        generation.stop_string = None if stop is None else str(stop)
        reason = value["finish_reason"]
        generation.finish_reason = None if reason is None else str(reason)
        if (drawn := value.get("drawn")) is not None:
            generation.owed = _draw(drawn, tokenizer.vocab_size)
        return generation


def _deadline(params: SamplingParams) -> float | None:
    """When the text ends, on the monotonic clock."""
    return None if params.max_time is None else time.monotonic() + params.max_time


def _draw(value: Any, vocab_size: int) -> Draw:
    token, logprob, top = value
    if type(token) is not int or not 0 <= token < vocab_size:
        raise ValueError("the token that was drawn does not exist")
    return Draw(token, float(logprob), tuple((int(number), float(lp)) for number, lp in top))


def draw_rows(generations: Sequence[Generation], logits: npt.NDArray[Any]) -> list[Draw]:
    """Draw a token for each of several generations, in few calls.

    Args:
        generations: The generations.
        logits: A row for each, ``[rows, V]``.

    Returns:
        What :meth:`Generation.draw` returns for each.

    Raises:
        EngineError: A logit is not a finite number.
        RowError: The constraints of one leave no token.
    """
    rows = [row for row, generation in enumerate(generations) if generation.owed is None]
    draws = [generation.owed for generation in generations]
    some = logits if len(rows) == len(generations) else logits[rows]
    try:
        tokens = choose_rows([generations[row].sampler for row in rows], some) if rows else []
    except RowError as error:
        raise RowError(str(error), rows[error.row]) from error
    for row, token in zip(rows, tokens, strict=True):
        draws[row] = generations[row].describe(token, logits[row])
    return [draw for draw in draws if draw is not None]
