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
from .choices import Choices
from .grammar import Grammar
from .logit_processors import LogitProcessor
from .params import SamplingParams
from .processing import Processing
from .token_tail import TokenTail

__all__ = ["RowError", "Sampler", "SamplingParams", "choose_rows"]

Array = npt.NDArray[np.float64]

_ALL_KEPT = (0, 1.0, 0.0, 1.0, 0.0, 0.0)
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
        recent: The last tokens that it has read, for options that look back.

    Attributes:
        params: How it samples.
        constraint: What says which texts may be written.
        is_plain: Whether a draw depends only on the logits and a random number.
        kind: Equal for samplers whose draws differ in nothing but the random number; ``None`` for
            those that are not plain.

    Raises:
        UsageError: ``params`` refer to a token or a text that the model does not have.
    """

    def __init__(
        self,
        params: SamplingParams,
        tokenizer: Tokenizer | None = None,
        seen: npt.NDArray[np.bool_] | None = None,
        before: bytes = b"",
        recent: Sequence[int] = (),
    ) -> None:
        self.params = params
        self._bits = np.random.PCG64(params.seed)
        self._random = np.random.Generator(self._bits)
        # These two determine the random state, even if an interrupt cuts a draw off.
        self._start: Any = self._bits.state
        self._accepted = 0
        self._ahead: np.random.PCG64 | None = None
        processing = Processing(params, tokenizer, seen, before, recent)
        self.constraint: Choices | Grammar | None = processing.constraint
        self._tail: TokenTail | None = processing.tail
        self._vocab_size = 0 if tokenizer is None else tokenizer.vocab_size
        self._processors: list[LogitProcessor] = processing.processors
        self._accepting = [processor.accept for processor in self._processors]
        if self._tail is not None:
            self._accepting.append(self._tail.accept)
        self.is_plain = not self._processors
        self.kind = (params.temperature, params.filters) if self.is_plain else None
        all_kept = params.filters == _ALL_KEPT and not 0 < params.temperature < _MIN_TEMPERATURE
        self._is_unfiltered = all_kept and self.is_plain

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
        for accept in self._accepting:
            accept(token)

    def accept_plain(self, count: int) -> None:
        """Make so many chosen tokens part of the text, if the sampler :attr:`is_plain`."""
        self._accepted += count

    def undo_point(self) -> Callable[[], None]:
        """Return what brings the sampler back to this moment, whatever was drawn since."""
        accepted = self._accepted
        snapshots = [processor.snapshot() for processor in self._processors]
        undo_tail = None if self._tail is None else self._tail.undo_point()

        def undo() -> None:
            self._accepted = accepted
            if undo_tail is not None:
                undo_tail()
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

    def take(self, count: int) -> Array:
        """The uniform numbers of the next draws, ``[count]``, of a sampler that :attr:`is_plain`.

        Accept as many tokens; after fewer, :meth:`rewind`.
        """
        if self.params.temperature == 0:
            return np.zeros(count)
        return self._random.random(count)

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
                f"{', '.join(self.params.processed)} forbid every possible next token; allow at "
                "least one"
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
            **({} if self._tail is None else {"tail": self._tail.tokens.tolist()}),
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
        if self._tail is not None:
            tail = [int(token) for token in value["tail"]]
            if not all(0 <= token < self._vocab_size for token in tail):
                raise ValueError("the last tokens contain one that does not exist")
            self._tail.restore(tail)


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
        groups.setdefault(sampler.kind or row, []).append(row)
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
    if params.epsilon_cutoff > 0:
        _keep_likely(weights, params.epsilon_cutoff)
    if params.eta_cutoff > 0:
        _keep_likely(weights, _eta(weights, params.eta_cutoff))
    return weights


def _keep_likely(weights: Array, least: float | Array) -> None:
    """Leave out tokens less likely than so much, but never the likeliest."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    weights[(shares < least) & (weights < weights.max(axis=1, keepdims=True))] = 0


def _eta(weights: Array, cutoff: float) -> Array:
    """The share that a token needs: the flatter the distribution, the smaller."""
    shares = weights / weights.sum(axis=1, keepdims=True)
    logs = np.log(np.maximum(shares, np.finfo(np.float64).tiny))
    entropy = -(shares * logs).sum(axis=1, keepdims=True)
    return np.asarray(np.minimum(cutoff, math.sqrt(cutoff) * np.exp(-entropy)))


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
