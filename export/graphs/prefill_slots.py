"""What the slots of a chunk's contexts hold, with one small loop over time.

Where a chunk visits a place twice, the second visit finds what the first one stored. Which visit
that is, whether it was of the same context, and the token that followed it are known beforehand.
So the loop carries only the slot's second token and its pattern, as one whole number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._higher_order_ops import scan

from ...runtime.context_slots import PATTERNS
from ...train.config.model_config import LONGEST_CONTEXT
from ...train.model.causal import newest
from ...train.model.context_memory import ContextMemory
from ...train.model.context_slots import Slots, slot_type, transitions
from ...train.model.state import State

__all__ = ["PrefillSlots"]


class PrefillSlots(nn.Module):
    """Store what followed each context of a chunk, and look the new contexts up.

    Args:
        inner: The trained memory.
    """

    changes: Tensor

    def __init__(self, inner: ContextMemory) -> None:
        super().__init__()
        self.inner = inner
        self.vocab_size, self.kind = inner.vocab_size, slot_type(inner.vocab_size)
        new, second, first = transitions().view(3, PATTERNS)
        # The first token keeps the second, so its change is added to what the loop carries.
        changes = [new, second, first - torch.arange(PATTERNS)]
        self.register_buffer("changes", torch.cat(changes))

    def forward(
        self, tokens: Tensor, learn: Tensor, past: State, present: State
    ) -> tuple[Tensor, Tensor]:
        """Read a chunk ``[B, T]``.

        Returns:
            What the contexts before the first token and after each token have met: two tokens,
            ``[B, T + 1, n, 2]``, and their pattern, ``[B, T + 1, n]``.
        """
        seen = torch.cat([past["context_tokens"], tokens + 1], dim=1)
        present["context_tokens"] = newest(seen, LONGEST_CONTEXT - 1)
        places, checks = self.inner.visits(self.inner.hashes(seen))
        learnt = (learn > 0).view(-1, 1, 1)
        # The visits: that before the chunk, and one after each token, [B, T + 1, n] each.
        before = past["context_slots"]
        table = past["memory_slots"].scatter(1, before[:, :, 0], before[:, :, 1].to(self.kind))
        old = table.gather(1, places.flatten(1)).view_as(places).long()
        there = torch.stack(Slots.unpack(old, self.vocab_size).of(checks), dim=3)
        there = torch.cat([before[:, :, 2:].unsqueeze(1), there], dim=1)
        check, first, second, pattern = there.unbind(3)
        visited = torch.cat([before[:, :, 0].unsqueeze(1), places], dim=1)
        newest_of, origin = _revisits(visited)
        origin = origin * learnt  # 0 for the table, else 1 + the earlier visit
        chained, earlier = origin > 0, (origin - 1).clamp_min(0)
        kept = chained & (check.gather(1, earlier) == check)
        token = tokens.unsqueeze(2).expand(-1, -1, visited.shape[2])
        first = torch.where(kept, token.gather(1, earlier), torch.where(chained, 0, first))
        rest = torch.where(chained, 0, second * PATTERNS + pattern)
        steps = torch.arange(visited.shape[1], device=tokens.device).view(1, -1, 1)
        row = torch.where(kept, earlier + visited.shape[1], steps)
        carried = self._follow(rest, row, first[:, :-1], token)
        rest = carried.gather(1, row)
        packed = (check[:, :-1] * self.vocab_size + token) * self.vocab_size * PATTERNS
        packed = packed + carried[:, visited.shape[1] :]
        at, values = visited[:, :-1].flatten(1), packed.gather(1, newest_of[:, :-1]).flatten(1)
        stored = torch.where(learnt.squeeze(2), values.to(self.kind), table.gather(1, at))
        table = present["memory_slots"] = table.scatter(1, at, stored)
        second, pattern = rest // PATTERNS, rest % PATTERNS
        place = visited[:, -1]
        held = [place, table.gather(1, place).long()]
        held += [entry[:, -1] for entry in (check, first, second, pattern)]
        present["context_slots"] = torch.stack(held, dim=2)
        return torch.stack([first, second], dim=3), pattern

    def _follow(self, rest: Tensor, row: Tensor, first: Tensor, token: Tensor) -> Tensor:
        """Run the loop.

        Args:
            rest: What each visit finds in the table, ``[B, T + 1, n]``.
            row: Where each visit finds its slot: in the table, or T + 1 + an earlier visit.
            first: The slot's first token at each visit but the last, ``[B, T, n]``.
            token: The token that follows it, ``[B, T, n]``.

        Returns:
            ``rest``, followed by what each visit but the last leaves, ``[B, 2 T + 1, n]``.
        """
        is_first = first == token
        carried = torch.cat([rest, torch.zeros_like(token)], dim=1)
        steps = torch.arange(token.shape[1], device=token.device).view(1, -1, 1)
        turns = (
            row[:, :-1],
            (steps + rest.shape[1]).expand_as(token),
            torch.where(is_first, -1, token),  # is compared with the second token
            torch.where(is_first, 2 * PATTERNS, 0),
            torch.where(is_first, 2 * PATTERNS, PATTERNS),
            is_first,
            first * PATTERNS,
        )
        over_time = tuple(entry.transpose(0, 1).unsqueeze(2) for entry in turns)  # [T, B, 1, n]
        final: Tensor = scan(self._turn, carried, over_time)[0]
        return final

    def _turn(self, carried: Tensor, now: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        row, target, token, new, known, is_first, first = now
        rest = carried.gather(1, row)
        case = torch.where(rest // PATTERNS == token, known, new)
        after = torch.where(is_first, rest, first) + self.changes[rest % PATTERNS + case]
        return carried.scatter(1, target, after), rest


def _revisits(visited: Tensor) -> tuple[Tensor, Tensor]:
    """Find the other visits to the same place, ``[B, T + 1, n]`` each.

    Returns:
        The newest visit but the last, and 1 + the newest before each visit, or 0.
    """
    by_context = visited.transpose(1, 2)
    same = (by_context.unsqueeze(3) == by_context.unsqueeze(2)).float()  # [B, n, T + 1, T + 1]
    numbers = torch.arange(1, visited.shape[1] + 1, device=visited.device)
    earlier = (numbers.unsqueeze(1) > numbers) * numbers
    stored = (numbers < visited.shape[1]) * numbers
    found = ((same * which.float()).amax(3).long().transpose(1, 2) for which in (stored, earlier))
    newest_of, origin = found
    return newest_of - 1, origin
