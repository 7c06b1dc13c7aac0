"""The stream's memory by contexts: what followed earlier after the same last tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.context_slots import CHECKS, OTHER_COUNTS, PATTERNS
from ..config.model_config import LONGEST_CONTEXT, DualCNNConfig
from .adaptation import ONLINE, Evidence, adapt, divide, mix
from .causal import newest
from .context_slots import PRIME, Slots, counts, multipliers, transitions
from .limits import FLOOR
from .state import State

__all__ = ["ContextMemory"]

_NOTHING = -1e4
"""Score of a context that has met nothing yet: it has no share."""


class ContextMemory(nn.Module):
    """Remember what followed each context, and mix it into the prediction.

    A context is the last k tokens, or the word so far. Each has a table of slots in the state; a
    hash of the context chooses one. Where the table is full, the newest context takes the slot:
    that is where the memory forgets. With ``s`` the network's distribution and ``q_i`` what
    followed context i, the prediction is

        ``(s + sum_i exp(z_i) q_i) / (1 + sum_i exp(z_i))``,

    where ``z_i`` is a learned score of the counts in the slot plus a linear function of the last
    CNN's features, and ``q_i`` divides one between the slot's two tokens by a learned share.

    Args:
        config: The model's configuration.
    """

    last: Tensor
    word: Tensor
    outside: Tensor
    transitions: Tensor

    def __init__(self, config: DualCNNConfig) -> None:
        super().__init__()
        self.contexts, self.adapts = config.context_list, config.adapts
        self.vocab_size, self.size = config.vocab_size, config.context_slots
        last, word = multipliers(self.contexts, config.seed)
        self.register_buffer("last", last)
        self.register_buffer("word", word)
        # For each token + 1: whether it begins or breaks a word, and whether it is no part of one.
        outside = torch.ones(config.vocab_size + 1, 2, dtype=torch.int64)
        self.register_buffer("outside", outside)
        self.register_buffer("transitions", transitions(), persistent=False)
        count, other = (part.clamp_min(1).log().repeat(len(self.contexts), 1) for part in counts())
        self.score = nn.Parameter(count - 1.5)
        self.share = nn.Parameter(count - other)
        self.gate = nn.Linear(config.wave_features, len(self.contexts))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def fit(self, tokens: Sequence[bytes]) -> None:
        """Note which tokens form words; without this, the word so far is the last token.

        Args:
            tokens: The bytes of each token of the vocabulary.
        """
        for token, content in enumerate(tokens):
            text = content.decode("utf-8", "replace")
            is_part = bool(text) and _in_word(text[-1])
            self.outside[token + 1, 0] = not (is_part and all(map(_in_word, text)))
            self.outside[token + 1, 1] = not is_part

    def scores(self) -> Tensor:
        """A score for each pattern of counts, ``[n, PATTERNS]``."""
        nothing = torch.full_like(self.score[:, :OTHER_COUNTS], _NOTHING)
        return torch.cat([nothing, self.score[:, OTHER_COUNTS:]], dim=1)

    def shares(self) -> Tensor:
        """The newer token's share for each pattern of counts, ``[n, PATTERNS]``."""
        alone = torch.arange(PATTERNS, device=self.share.device) % OTHER_COUNTS == 0
        return torch.where(alone, 1.0, torch.sigmoid(self.share))

    def hashes(self, seen: Tensor) -> Tensor:
        """Hash the contexts at the end of each window of tokens.

        Args:
            seen: Tokens + 1, 0 before the start of the stream; ``[B, LONGEST_CONTEXT - 1 + T]``.

        Returns:
            ``[B, T, n]``.
        """
        windows = seen.unfold(1, LONGEST_CONTEXT, 1).flip(2)  # newest first
        breaks, outside = F.embedding(windows, self.outside).unbind(-1)
        # A token is in the word so far if it is part of a word and nothing newer breaks it.
        inside = (breaks.cumsum(2) - breaks + outside == 0).to(windows.dtype)
        last = (windows.unsqueeze(2) * self.last).sum(3)
        word = ((windows * inside).unsqueeze(2) * self.word).sum(3)
        return (last + word) % PRIME

    def visits(self, hashes: Tensor) -> tuple[Tensor, Tensor]:
        """The slots of hashed contexts, ``[..., n]``, and their checks."""
        own = torch.arange(len(self.contexts), device=hashes.device) * self.size
        return hashes % self.size + own, hashes // self.size % CHECKS

    def remember(self, tokens: Tensor, learn: Tensor | None, state: State, present: State) -> Slots:
        """Store what followed each context, and look the new contexts up.

        Args:
            tokens: ``[B, T]``.
            learn: 0 for rows that store nothing, ``[B]``; 1 by default.
            state: State before the chunk.
            present: State after the chunk; the memory's tensors are added.

        Returns:
            What the slots of the contexts before the first token and after each token hold,
            ``[B, T + 1, n]`` each.
        """
        seen = torch.cat([state["context_tokens"], tokens + 1], dim=1)
        present["context_tokens"] = newest(seen, LONGEST_CONTEXT - 1)
        visits = self.visits(self.hashes(seen))
        if learn is None:
            learn = torch.ones(len(tokens), device=tokens.device)
        slots, table = self._stepped(tokens, learn, visits, state)
        present["memory_slots"] = table
        last = visits[0][:, -1]
        held = [last, table.gather(1, last).long(), *(entry[:, -1] for entry in slots)]
        present["context_slots"] = torch.stack(held, dim=-1)
        return slots

    def _stepped(
        self, tokens: Tensor, learn: Tensor, visits: tuple[Tensor, Tensor], state: State
    ) -> tuple[Slots, Tensor]:
        """Store and look up token by token.

        Args:
            tokens: ``[B, T]``.
            learn: ``[B]``.
            visits: Places and checks of the contexts after each token, ``[B, T, n]``.
            state: State before the chunk.

        Returns:
            What the slots hold, ``[B, T + 1, n]`` each, and the table after the chunk.
        """
        places, checks = visits
        table = state["memory_slots"].clone()
        place, stored, *entries = state["context_slots"].unbind(-1)
        slots = Slots(*entries)
        learnt = (learn > 0).unsqueeze(1)
        found = [torch.stack(slots, dim=-1)]
        for step in range(tokens.shape[1]):
            after = slots.followed_by(tokens[:, step : step + 1], self.transitions)
            # Where nothing is learnt, the slot is stored as it was found: a step that was undone
            # may have left its own.
            kept = torch.where(learnt, after.pack(self.vocab_size), stored)
            table.scatter_(1, place, kept.to(table.dtype))
            place = places[:, step]
            stored = table.gather(1, place).long()
            slots = Slots.unpack(stored, self.vocab_size).of(checks[:, step])
            found.append(torch.stack(slots, dim=-1))
        return Slots(*torch.stack(found, dim=1).unbind(-1)), table

    def forward(
        self,
        tokens: Tensor,
        learn: Tensor | None,
        logits: Tensor,
        features: Tensor,
        slots: Slots,
        state: State,
        present: State,
        trust: Tensor | None = None,
    ) -> Tensor:
        """Mix what followed the contexts into a prediction.

        The online weights (:mod:`.adaptation`) follow the tokens, except in training: what is
        trained are the weights that a stream begins with.

        Args:
            tokens: ``[B, T]``.
            learn: Below 1 for rows whose online weights stay as they are, ``[B]``; 1 by default.
            logits: Logits without the memory, ``[B, T, V]``.
            features: Features of the last CNN, ``[B, T, F]``.
            slots: Result of :meth:`remember`.
            state: State before the chunk.
            present: State after the chunk; what the online weights need is added.
            trust: Factor for each row's share of the memory, ``[B]``; 1 by default.

        Returns:
            Log-probabilities, ``[B, T, V]``.
        """
        evidence = self._evidence(torch.softmax(logits, dim=-1), features, slots)
        if not self.adapts:
            return mix(evidence, None, trust).logits
        if self.training:
            predicted = mix(evidence, state["adapted"].unsqueeze(1), trust)
            last = (state["adapted"], predicted.shares[:, -1], predicted.mixed[:, -1])
            present.update(zip(ONLINE, last, strict=True))
            return predicted.logits
        # Which of the two tokens came that had followed the context before.
        before = torch.stack([slots.first, slots.second], dim=-1)[:, :-1]  # [B, T, n, 2]
        came = (before == tokens.view(*tokens.shape, 1, 1)).to(logits.dtype)
        if learn is None:
            learn = torch.ones(len(tokens), device=tokens.device)
        learns = (learn >= 1).to(logits.dtype).view(1, -1, 1).expand(tokens.shape[1], -1, -1)
        by_row = (tokens.unsqueeze(2), came, *evidence)
        over_time = (learns, *(entry.transpose(0, 1) for entry in by_row))
        online = tuple(state[name] for name in ONLINE)
        steps = []
        for now in zip(*over_time, strict=True):
            online, step = self._follow(online, now, trust)
            steps.append(step)
        present.update(zip(ONLINE, online, strict=True))
        return torch.stack(steps, dim=1)

    def target_logits(
        self,
        targets: Tensor,
        network: Tensor,
        features: Tensor,
        slots: Slots,
        state: State,
        present: State,
        trust: Tensor | None = None,
    ) -> Tensor:
        """Mix the memory into the prediction of known targets, as training needs it.

        :meth:`forward` gives the same in training, for every token of the vocabulary: with a
        large one, that takes as long as all else.

        Args:
            targets: The tokens that followed, ``[B, T]``.
            network: Their log-probabilities without the memory, ``[B, T]``.
            features: Features of the last CNN, ``[B, T, F]``.
            slots: Result of :meth:`remember`.
            state: State before the chunk; its online weights are zero, since training moves none.
            present: State after the chunk; the online weights are added.
            trust: Factor for each row's share of the memory, ``[B]``; 1 by default.

        Returns:
            Log-probabilities of the targets, ``[B, T]``.
        """
        if self.adapts:
            present.update({name: state[name] for name in ONLINE})
        evidence = self._evidence(network.exp().unsqueeze(-1), features, slots)
        total, shares = divide(evidence, None, trust)
        met = (evidence.tokens == targets.view(*targets.shape, 1, 1)).to(shares.dtype)
        chance = evidence.network.squeeze(-1) / total.squeeze(-1) + (shares * met).sum((-2, -1))
        return torch.log(chance.clamp_min(FLOOR))

    def _evidence(self, network: Tensor, features: Tensor, slots: Slots) -> Evidence:
        after = Slots(*(entry[:, 1:] for entry in slots))
        at = after.pattern + torch.arange(len(self.contexts), device=network.device) * PATTERNS
        return Evidence(
            F.embedding(at, self.scores().view(-1, 1)).squeeze(-1) + self.gate(features),
            F.embedding(at, self.shares().view(-1, 1)).squeeze(-1),
            torch.stack([after.first, after.second], dim=-1),
            network,
        )

    def _follow(
        self, online: tuple[Tensor, ...], now: tuple[Tensor, ...], trust: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Read a token, and predict the next one."""
        adapted, shares, mixed = online
        learn, token, came, *evidence = now
        adapted = adapt(adapted, shares, mixed, came, token, learn)
        predicted = mix(Evidence(*evidence), adapted, trust)
        return (adapted, predicted.shares, predicted.mixed), predicted.logits


def _in_word(character: str) -> bool:
    return character.isalnum() or character in "'_\N{RIGHT SINGLE QUOTATION MARK}"
