"""One run of writing: which tokens were drawn, and what of their text can be shown."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..sampling.params import SamplingParams
from ..sampling.sampler import Sampler
from ..sampling.stop_strings import StopStrings
from ..tokenizer import Tokenizer

__all__ = ["GeneratedToken", "Generation"]


class GeneratedToken(NamedTuple):
    """A token that was generated.

    Attributes:
        token: Its number.
        text: The text that can be shown since it came; empty while a character or what may be
            a stop string is incomplete.
        logprob: Its natural-log probability in the model's own prediction, before any sampling
            option.
        top: The likeliest tokens of that prediction, each with its log-probability.
    """

    token: int
    text: str
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


Drawn = tuple[int, float, tuple[tuple[int, float], ...]]
"""A token, its log-probability, and the likeliest ones."""


class Generation:
    """What a stream needs to write on: the sampler, and text that is held back.

    Args:
        params: How to sample.
        tokenizer: The model's tokenizer.
        seen: Which tokens the stream has read, ``[V]``.
        before: The last bytes that the stream has read.
    """

    def __init__(
        self,
        params: SamplingParams,
        tokenizer: Tokenizer,
        seen: npt.NDArray[np.bool_],
        before: bytes = b"",
    ) -> None:
        self.params = params
        self.sampler = Sampler(params, tokenizer, seen, before)
        self.stops = StopStrings(params.stop)
        self.limit = params.max_new_tokens
        self.count = 0
        self.finish_reason: str | None = "length" if self.limit == 0 else None
        self.stop_string: str | None = None
        self.drawn: Drawn | None = None
        """A token that was drawn and could not be read back: the next to be written."""

    def likeliest(self, logits: npt.NDArray[Any]) -> tuple[tuple[int, float], ...]:
        """As many of the likeliest tokens as were asked for, by logits ``[V]``."""
        wanted = self.params.top_logprobs
        if not wanted:
            return ()
        best = np.argsort(-logits, kind="stable")[:wanted].tolist()
        return tuple((number, float(logits[number])) for number in best)

    def push(
        self, token: int, text: str, logprob: float, top: tuple[tuple[int, float], ...] = ()
    ) -> GeneratedToken:
        """Take a token and the text that it has completed, and see whether the end has come.

        Args:
            token: The token that was drawn.
            text: The text that it completed.
            logprob: Its log-probability.
            top: What :meth:`likeliest` returned.
        """
        self.count += 1
        if self.params.stop:
            text, self.stop_string = self.stops.push(text)
        if self.stop_string is not None:
            self.finish_reason = "stop"
        elif (constraint := self.sampler.constraint) is not None and constraint.done:
            self.finish_reason = constraint.finish_reason
            text += self.stops.flush()
        elif self.count >= self.limit:
            self.finish_reason = "length"
            text += self.stops.flush()
        return GeneratedToken(token, text, logprob, top)

    def take(self) -> Drawn:
        """The token that was drawn, whose step has succeeded."""
        drawn, self.drawn = self.drawn, None
        assert drawn is not None
        return drawn

    def extend(self, max_new_tokens: int | None) -> None:
        """Go on: up to the old limit, or for so many tokens more."""
        if self.sampler.constraint is not None and self.sampler.constraint.done:
            return
        self.stop_string = None
        if max_new_tokens is not None:
            self.limit = self.count + max_new_tokens
        self.finish_reason = "length" if self.count >= self.limit else None

    def snapshot(self) -> dict[str, Any]:
        """Everything that going on depends on, as a JSON value."""
        params = {name: getattr(self.params, name) for name in self.params.__dataclass_fields__}
        params["logit_bias"] = [[key, bias] for key, bias in self.params.logit_bias.items()]
        return {
            "params": params,
            "sampler": self.sampler.snapshot(),
            "held": self.stops.held,
            "limit": self.limit,
            "count": self.count,
            "finish_reason": self.finish_reason,
            **({} if self.drawn is None else {"drawn": self.drawn}),
        }

    @classmethod
    def from_snapshot(
        cls, value: dict[str, Any], tokenizer: Tokenizer, seen: npt.NDArray[np.bool_]
    ) -> Generation:
        """Go back to what :meth:`snapshot` returned.

        Raises:
            UsageError: A parameter cannot be.
            ValueError: It is of another form.
            KeyError: It is of another form.
            TypeError: It is of another form.
        """
        params = SamplingParams(
            **{**value["params"], "logit_bias": dict(value["params"]["logit_bias"])}
        )
        made = cls(params, tokenizer, seen)
        made.sampler.restore(value["sampler"])
        held = str(value["held"])
        if made.stops.push(held) != ("", None):
            raise ValueError("what was held back begins no stop string")
        made.limit, made.count = int(value["limit"]), int(value["count"])
        if value["finish_reason"] is not None:
            made.finish_reason = str(value["finish_reason"])
        else:
            made.finish_reason = None
        if (drawn := value.get("drawn")) is not None:
            token, logprob, top = drawn
            pairs = tuple((int(number), float(worth)) for number, worth in top)
            if type(token) is not int or not 0 <= token < tokenizer.vocab_size:
                raise ValueError("a token was drawn that does not exist")
            made.drawn = (token, float(logprob), pairs)
        return made
