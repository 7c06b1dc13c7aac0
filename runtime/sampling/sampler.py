"""Choosing the next token from logits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import EngineError, UsageError
from ..tokenizer import Tokenizer
from .grammar import Grammar
from .logit_processors import BadWords, Choices, LogitBias, LogitProcessor, Penalties
from .params import SamplingParams
from .writable import Limits

__all__ = ["RowError", "Sampler", "SamplingParams", "choose_rows"]

Array = npt.NDArray[np.float64]

_ALL_KEPT = (0, 1.0, 0.0, 1.0)
"""The :attr:`SamplingParams.filters` that leave no token out."""

_MIN_TEMPERATURE = 1e-300
"""Below this, dividing by the temperature may overflow, and numpy would warn."""


class RowError(UsageError):
    """The constraints of one of several streams leave no token.

    Attributes:
        row: Which stream.
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class Sampler:
    """Draws tokens from logits. Each stream needs its own, since it holds the random state.

    Args:
        params: How to sample.
        tokenizer: The model's tokenizer, required where ``params`` refer to tokens or texts.
        seen: Which tokens the stream has read, ``[V]``, for the repetition penalty; owned by the
            stream.
        before: The last bytes that the stream has read, for bad words.

    Raises:
        UsageError: ``params`` refer to a token or a text that the model does not have.
    """

    def __init__(
        self,
        params: SamplingParams,
        tokenizer: Tokenizer | None = None,
        seen: npt.NDArray[np.bool_] | None = None,
        before: bytes = b"",
    ) -> None:
        self.params = params
        self._bits = np.random.PCG64(params.seed)
        self._random = np.random.Generator(self._bits)
        # These two determine the random state, even if an interrupt cuts a draw off.
        self._start: Any = self._bits.state
        self._accepted = 0
        self._ahead: np.random.PCG64 | None = None
        self.constraint: Choices | Grammar | None = None
        self._processors = self._build_processors(tokenizer, seen, before)
        all_kept = params.filters == _ALL_KEPT and not 0 < params.temperature < _MIN_TEMPERATURE
        self._is_unfiltered = all_kept and not self._processors

    def _build_processors(
        self, tokenizer: Tokenizer | None, seen: npt.NDArray[np.bool_] | None, before: bytes
    ) -> list[LogitProcessor]:
        params = self.params
        penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        has_penalties = penalties != (1.0, 0.0, 0.0)
        has_constraint = params.choices or params.regex or params.grammar
        if not (params.logit_bias or has_penalties or params.bad_words or has_constraint):
            return []
        if tokenizer is None:
            raise UsageError(
                "logit_bias, bad_words, choices, regex, grammar and penalties require a tokenizer; "
                "pass one to Sampler"
            )
        processors: list[LogitProcessor] = []
        forbidden: frozenset[int] = frozenset()
        if params.logit_bias:
            processors.append(bias := LogitBias(params.logit_bias, tokenizer))
            forbidden = bias.forbidden
        if has_penalties:
            seen = np.zeros(tokenizer.vocab_size, np.bool_) if seen is None else seen
            processors.append(Penalties(*penalties, seen))
        if params.bad_words:
            processors.append(BadWords(params.bad_words, tokenizer, before))
        limits = Limits(forbidden, tuple(params.bad_words), before)
        if params.choices:
            self.constraint = Choices(params.choices, tokenizer, limits)
        elif params.regex or params.grammar:
            pattern = params.regex or params.grammar or ""
            self.constraint = Grammar(pattern, bool(params.regex), tokenizer, limits)
        if self.constraint is not None:
            processors.append(self.constraint)
        return processors

    @property
    def is_plain(self) -> bool:
        """Whether a draw depends only on the logits and a random number."""
        return not self._processors

    def probabilities(self, logits: npt.NDArray[Any]) -> Array:
        """The distribution that tokens are drawn from: logits ``[V]`` to probabilities ``[V]``."""
        logits = self._process(logits)
        if self.constraint is not None:
            for token in map(int, np.flatnonzero(logits > -math.inf)):
                if not self.constraint.allows(token):
                    logits[token] = -math.inf
        if self.params.temperature == 0:
            return np.asarray(np.arange(logits.size) == np.argmax(logits), np.float64)
        weights = _weights(logits[None], self.params)[0]
        return np.asarray(weights / weights.sum())

    def draw(self, logits: npt.NDArray[Any]) -> int:
        """Choose a token from logits ``[V]`` and accept it.

        Raises:
            EngineError: A logit is not a finite number.
            UsageError: The constraints allow no token.
        """
        token = self.choose(logits)
        self.accept(token)
        return token

    def choose(self, logits: npt.NDArray[Any]) -> int:
        """Choose a token from logits ``[V]``; only the random state advances.

        Follow it with :meth:`accept` once the token is part of the text, or return to an
        :meth:`undo_point` if it never will be.

        Raises:
            EngineError: A logit is not a finite number.
            UsageError: The constraints allow no token.
        """
        if self._is_unfiltered:
            return self._choose_unfiltered(logits)
        _check_finite(logits)
        logits = self._process(logits)
        uniform = 0.0 if self.params.temperature == 0 else self.uniform()
        while True:
            token, rest = self._place(logits, uniform)
            if self.constraint is None or self.constraint.allows(token):
                return token
            # Where the number fell within the token's share is again a uniform number.
            logits[token], uniform = -math.inf, rest

    def _place(self, logits: npt.NDArray[Any], uniform: float) -> tuple[int, float]:
        """The token whose share contains a uniform number, and where in the share it fell."""
        if self.params.temperature == 0:
            return int(logits.argmax()), uniform
        weights = _weights(logits[None], self.params)[0]
        token = _invert(weights, uniform)
        if self.constraint is None:
            return token, uniform
        before, share = weights[:token].sum(), weights[token]
        return token, float(min(max((uniform * weights.sum() - before) / share, 0), 1 - 2**-53))

    def accept(self, token: int) -> None:
        """Make a chosen token part of the text: update penalties, bad words and constraints."""
        self._accepted += 1
        for processor in self._processors:
            processor.accept(token)

    def accept_plain(self, count: int) -> None:
        """Make so many chosen tokens part of the text, if the sampler :attr:`is_plain`."""
        self._accepted += count

    def undo_point(self) -> Callable[[], None]:
        """Return what brings the sampler back to this moment, whatever was drawn since."""
        accepted = self._accepted
        snapshots = [processor.snapshot() for processor in self._processors]

        def undo() -> None:
            self._accepted = accepted
            for processor, snapshot in zip(self._processors, snapshots, strict=True):
                processor.restore(snapshot)
            self.rewind()

        return undo

    def rewind(self) -> None:
        """Draw again whatever was drawn since the last token was accepted."""
        self._bits.state = self._start
        if self.params.temperature != 0:
            self._bits.advance(self._accepted)

    def _choose_unfiltered(self, logits: npt.NDArray[Any]) -> int:
        """Choose where every token is kept: the same result in fewer numpy calls of 2 µs each."""
        temperature = self.params.temperature
        if temperature == 0:
            token = int(logits.argmax())  # the position of a NaN, if there is one
            if not math.isfinite(logits[token]):
                _check_finite(logits)
            return token
        peak = logits.max()
        if not math.isfinite(peak):
            _check_finite(logits)
        weights = np.subtract(logits, peak, dtype=np.float64)
        weights /= temperature
        return _invert(np.exp(weights, out=weights), self._random.random())

    def uniform(self) -> float:
        """The next uniform random number in [0, 1)."""
        return self._random.random()

    def upcoming(self, count: int) -> Array:
        """The uniform numbers of the next draws, ``[count]``; none of them is taken.

        Greedy choice takes none, so they are zeros then.
        """
        if self.params.temperature == 0:
            return np.zeros(count)
        if self._ahead is None:
            self._ahead = np.random.PCG64(0)
        self._ahead.state = self._bits.state
        return np.random.Generator(self._ahead).random(count)

    def twin(self) -> Sampler:
        """A copy that accepts tokens on its own, of a sampler that :attr:`is_plain`.

        Both share one generator of random numbers: :meth:`rewind` makes it the one's or the
        other's.
        """
        return copy.copy(self)

    def _process(self, logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not self._processors:
            return logits
        changed = logits.astype(np.float64)
        for processor in self._processors:
            processor.apply(changed)
        if changed.max() == -math.inf:
            raise UsageError(
                "logit_bias, bad_words, choices, regex or grammar forbid every possible next "
                "token; allow at least one"
            )
        return changed

    @property
    def random_state(self) -> dict[str, str]:
        """The state of the random number generator, as JSON values."""
        state: Any = self._bits.state
        return {key: str(value) for key, value in state["state"].items()}

    @random_state.setter
    def random_state(self, value: dict[str, str]) -> None:
        state: Any = self._bits.state
        state["state"] = {key: int(value[key]) for key in ("state", "inc")}
        self._bits.state = state
        self._start, self._accepted = state, 0

    def snapshot(self) -> dict[str, Any]:
        """Everything that the next draws depend on, besides the parameters, as a JSON value."""
        return {
            "random": self.random_state,
            "processors": [processor.snapshot() for processor in self._processors],
        }

    def restore(self, value: dict[str, Any]) -> None:
        """Return to what :meth:`snapshot` returned.

        Raises:
            ValueError: ``value`` is not such a snapshot.
            KeyError: ``value`` is not such a snapshot.
            TypeError: ``value`` is not such a snapshot.
        """
        self.random_state = value["random"]
        for processor, saved in zip(self._processors, value["processors"], strict=True):
            processor.restore(saved)


def choose_rows(samplers: Sequence[Sampler], logits: npt.NDArray[Any]) -> list[int]:
    """Choose a token for each of several streams, in one call where their parameters are alike.

    Args:
        samplers: The sampler of each stream.
        logits: Logits ``[rows, V]``, a row for each stream.

    Returns:
        The token of each stream, equal to the result of :meth:`Sampler.choose`.

    Raises:
        EngineError: A logit is not a finite number.
        UsageError: The constraints of a stream allow no token.
    """
    groups: dict[Any, list[int]] = {}
    for row, sampler in enumerate(samplers):
        params = sampler.params
        key = (params.temperature, params.filters) if sampler.is_plain else row
        groups.setdefault(key, []).append(row)
    tokens = [0] * len(samplers)
    for rows in groups.values():
        try:
            chosen = _choose_alike([samplers[row] for row in rows], logits, rows)
        except UsageError as error:  # of a sampler with constraints, which chooses by itself
            raise RowError(str(error), rows[0]) from error
        for row, token in zip(rows, chosen, strict=True):
            tokens[row] = token
    return tokens


def _choose_alike(samplers: list[Sampler], logits: npt.NDArray[Any], rows: list[int]) -> list[int]:
    """Choose a token for each of the given rows, whose samplers have the same parameters."""
    first = samplers[0]
    if len(rows) == 1:
        return [first.choose(logits[rows[0]])]
    selected = logits if len(rows) == len(logits) else logits[rows]
    _check_finite(selected)
    if first.params.temperature == 0:
        return list(map(int, selected.argmax(axis=1)))
    weights = _weights(selected, first.params)
    uniforms = np.asarray([sampler.uniform() for sampler in samplers])
    return list(map(int, _invert_rows(weights, uniforms)))


def _check_finite(logits: npt.NDArray[Any]) -> None:
    if not np.isfinite(logits).all():
        raise EngineError(
            "the model returned logits that are not finite numbers; the stream's state is "
            "damaged: start a new session"
        )


def _weights(logits: npt.NDArray[Any], params: SamplingParams) -> Array:
    """Unnormalised probabilities: logits ``[rows, V]`` to weights ``[rows, V]``."""
    scaled = logits.astype(np.float64)
    # Subtract first: however low the temperature, the likeliest token stays at 0.
    scaled -= scaled.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        scaled /= params.temperature
    if 0 < params.top_k < scaled.shape[1]:
        kth = np.partition(scaled, -params.top_k, axis=1)[:, -params.top_k, None]
        scaled[scaled < kth] = -np.inf
    weights: Array = np.exp(scaled, out=scaled)
    if params.top_p < 1:
        _keep_nucleus(weights, params.top_p)
    if params.min_p > 0:
        weights[weights < params.min_p * weights.max(axis=1, keepdims=True)] = 0
    if params.typical_p < 1:
        _keep_typical(weights, params.typical_p)
    return weights


def _keep_nucleus(weights: Array, mass: float) -> None:
    order = np.argsort(-weights, axis=1, kind="stable")
    ordered = np.take_along_axis(weights, order, axis=1)
    ends = np.cumsum(ordered, axis=1)
    ordered[ends - ordered >= mass * ends[:, -1:]] = 0
    np.put_along_axis(weights, order, ordered, axis=1)


def _keep_typical(weights: Array, mass: float) -> None:
    total = weights.sum(axis=1, keepdims=True)
    # Tokens already left out get a surprise larger than any other, yet finite.
    surprise = np.log(total) - np.log(np.maximum(weights, np.finfo(np.float64).tiny))
    expected = (weights * surprise).sum(axis=1, keepdims=True) / total
    order = np.argsort(np.abs(surprise - expected), axis=1, kind="stable")
    ordered = np.take_along_axis(weights, order, axis=1)
    ends = np.cumsum(ordered, axis=1)
    ordered[ends - ordered >= mass * ends[:, -1:]] = 0
    np.put_along_axis(weights, order, ordered, axis=1)


def _invert(weights: Array, uniform: float) -> int:
    """The token whose share of the unit interval contains the uniform number.

    The generate graph follows the same rule, and so draws the same token.
    """
    ends = weights.cumsum()
    token = int(ends.searchsorted(uniform * ends[-1], side="right"))
    # In rare cases rounding leads past the end: take the last token that has a share.
    return token if token < ends.size else int(np.flatnonzero(weights)[-1])


def _invert_rows(weights: Array, uniforms: Array) -> npt.NDArray[np.int64]:
    ends = np.cumsum(weights, axis=1)
    tokens = (ends <= (uniforms * ends[:, -1])[:, None]).sum(axis=1)
    for row in np.flatnonzero(tokens == ends.shape[1]):
        tokens[row] = np.flatnonzero(weights[row])[-1]
    return np.asarray(tokens, np.int64)
