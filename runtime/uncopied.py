"""Objects that neither ``copy`` nor ``pickle`` copies."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex

from .errors import UsageError

__all__ = ["Uncopied"]


class Uncopied:
    """Refuses ``copy.copy``, ``copy.deepcopy`` and ``pickle``.

    A copy would share half of its state with the original, and change it.

    Attributes:
        instead: What to use, as a clause.
    """

    __slots__ = ()

    instead: ClassVar[str]

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse, for `copy` and `pickle` both ask here.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{type(self).__name__} objects can be neither copied nor pickled; {self.instead}"
        )
