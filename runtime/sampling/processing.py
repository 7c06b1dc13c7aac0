"""Which processors sampling options ask for, in the order in which they apply."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..tokenizer import Tokenizer
from .choices import Choices
from .grammar import Grammar
from .logit_processors import (
    BadWords,
    Custom,
    LogitBias,
    LogitProcessor,
    MinLength,
    NoRepeats,
)
from .params import SamplingParams
from .penalties import Penalties, WindowPenalties
from .token_tail import TokenTail
from .writable import Limits

__all__ = ["Processing"]


class Processing:
    """The processors of one sampler.

    Args:
        params: How to sample.
        tokenizer: The model's tokenizer.
        seen: Which tokens the stream has read, ``[V]``; owned by the stream.
        before: The last bytes that the stream has read.
        recent: The last tokens that it has read.

    Attributes:
        processors: In the order in which they apply; none if a draw depends on logits alone.
        constraint: The one among them that says which texts may be written.
        tail: The last tokens, where a processor looks back on them.

    Raises:
        UsageError: ``params`` refer to a token or a text that the model does not have.
    """

    def __init__(
        self,
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        seen: npt.NDArray[np.bool_] | None,
        before: bytes,
        recent: Sequence[int],
    ) -> None:
        self.processors: list[LogitProcessor] = []
        self.constraint: Choices | Grammar | None = None
        self.tail = TokenTail(recent) if params.looks_back else None
        if not params.processed:
            return
        if tokenizer is None:
            raise UsageError(
                f"{', '.join(params.processed)} require a tokenizer; pass one to Sampler"
            )
        tail = self.tail or TokenTail()
        words, forbidden = list(params.bad_words), frozenset[int]()
        if params.logit_bias:
            bias = LogitBias(params.logit_bias, tokenizer, tail)
            self.processors.append(bias)
            forbidden, words = bias.forbidden, [*words, *bias.forbidden_texts]
        self._add_penalties(params, tokenizer, seen, tail)
        if params.no_repeat_ngram_size:
            self.processors.append(NoRepeats(params.no_repeat_ngram_size, tail))
        if words:
            self.processors.append(BadWords(words, tokenizer, before))
        if params.min_new_tokens and params.stop_token_ids:
            self.processors.append(MinLength(params.min_new_tokens, params.stop_token_ids))
        if params.logits_processor is not None:
            self.processors.append(Custom(params.logits_processor, tail))
        self.constraint = _constraint(params, tokenizer, Limits(forbidden, tuple(words), before))
        if self.constraint is not None:
            self.processors.append(self.constraint)

    def _add_penalties(
        self,
        params: SamplingParams,
        tokenizer: Tokenizer,
        seen: npt.NDArray[np.bool_] | None,
        tail: TokenTail,
    ) -> None:
        if not params.penalized:
            return
        penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        if params.penalty_window:
            self.processors.append(WindowPenalties(*penalties, params.penalty_window, tail))
            return
        seen = np.zeros(tokenizer.vocab_size, np.bool_) if seen is None else seen
        self.processors.append(Penalties(*penalties, seen))


def _constraint(
    params: SamplingParams, tokenizer: Tokenizer, limits: Limits
) -> Choices | Grammar | None:
    """What says which texts may be written."""
    if params.choices:
        return Choices(params.choices, tokenizer, limits)
    pattern = params.pattern(tokenizer.is_byte_level)
    return None if pattern is None else Grammar(pattern, tokenizer, limits)
