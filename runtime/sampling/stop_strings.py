"""Finding the texts that end a generation, wherever tokens begin and end."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopStrings"]


class StopStrings:
    """Looks for stop strings in a text that comes in pieces.

    What may yet turn out to be the beginning of one is held back, and nothing else is. The
    string that is complete first ends the text; of several that end in the same place, the
    longest. Each character takes O(number of strings), amortised (Knuth, Morris and Pratt).

    Args:
        strings: The stop strings, none of them empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._borders = [_borders(string) for string in self._strings]
        self._matched = [0] * len(self._strings)
        self.held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Take the next piece of text.

        Args:
            text: The piece; may be empty.

        Returns:
            What can be shown now, and the stop string that was found, if one was. What came
            before it is shown, what comes after it in this piece is dropped.
        """
        if not self._strings:
            return text, None
        pending = self.held + text
        for at in range(len(self.held), len(pending)):
            found = self._advance(pending[at])
            if found is not None:
                self.reset()
                return pending[: at + 1 - len(found)], found
        keep = len(pending) - max(self._matched)
        self.held = pending[keep:]
        return pending[:keep], None

    def mark(self) -> tuple[str, list[int]]:
        """Note this moment, for :meth:`rewind`."""
        return self.held, self._matched.copy()

    def rewind(self, mark: tuple[str, list[int]]) -> None:
        """Return to a moment that :meth:`mark` noted."""
        self.held, matched = mark
        self._matched = matched.copy()

    def flush(self) -> str:
        """What was held back, since no more text comes."""
        held = self.held
        self.reset()
        return held

    def reset(self) -> None:
        """Forget what was read."""
        self._matched = [0] * len(self._strings)
        self.held = ""

    def _advance(self, character: str) -> str | None:
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
    """Length of the longest proper border of each prefix: where a failed match goes on."""
    borders = [0] * len(string)
    length = 0
    for at in range(1, len(string)):
        while length and string[at] != string[length]:
            length = borders[length - 1]
        if string[at] == string[length]:
            length += 1
        borders[at] = length
    return borders
