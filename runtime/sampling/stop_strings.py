"""Find the texts that end a generation, wherever token boundaries fall."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """Searches for stop strings in a text that arrives in pieces.

    Text that may still become the beginning of a stop string is held back, and nothing else is. The
    string that completes first ends the text; of several that end at the same character, the
    longest. Each character takes O(number of strings) amortised time (Knuth, Morris and Pratt).

    Args:
        strings: The stop strings, none of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._borders = [_borders(string) for string in self._strings]
        self._matched = [0] * len(self._strings)
        self.held = ""

    def twin(self) -> StopStrings:
        """A copy that searches on its own from here."""
        twin = copy.copy(self)
        self._matched = self._matched.copy()  # the twin keeps the other list
        return twin

    def push(self, text: str, may_end: bool = True) -> tuple[str, str | None]:
        """Add the next piece of text.

        Args:
            text: The piece; may be empty.
            may_end: Whether a stop string that is complete here ends the text.

        Returns:
            The text that can be shown now, and the stop string if one is complete. The text before
            it is shown; the rest of the piece is dropped.
        """
        if not self._strings:
            return text, None
        pending = self.held + text
        for at in range(len(self.held), len(pending)):
            complete = self._advance(pending[at])
            if complete is not None and may_end:
                self.reset()
                return pending[: at + 1 - len(complete)], complete
        keep = len(pending) - max(self._matched)
        self.held = pending[keep:]
        return pending[:keep], None

    def undo_point(self) -> Callable[[], None]:
        """Return what brings the search back to this moment."""
        if not self._strings:
            return self.reset
        held, matched = self.held, self._matched.copy()

        def undo() -> None:
            self.held, self._matched = held, matched.copy()

        return undo

    def flush(self) -> str:
        """Release the text held back, at the end of the text."""
        held = self.held
        self.reset()
        return held

    def reset(self) -> None:
        """Start over, as if nothing had been read."""
        self._matched = [0] * len(self._strings)
        self.held = ""

    def _advance(self, character: str) -> str | None:
        """Read a character; the longest stop string that it completes, if any."""
        complete: str | None = None
        for index, string in enumerate(self._strings):
            borders, matched = self._borders[index], self._matched[index]
            while matched and string[matched] != character:
                matched = borders[matched - 1]
            if string[matched] == character:
                matched += 1
            if matched == len(string):
                if complete is None or len(string) > len(complete):
                    complete = string
                matched = borders[matched - 1]
            self._matched[index] = matched
        return complete


def _borders(string: str) -> list[int]:
    """Length of the longest proper border of each prefix, where a failed match resumes."""
    borders = [0] * len(string)
    length = 0
    for at in range(1, len(string)):
        while length and string[at] != string[length]:
            length = borders[length - 1]
        if string[at] == string[length]:
            length += 1
        borders[at] = length
    return borders
