"""Token numbers of a corpus: in memory or mapped from a file, read piece by piece.

A token file is raw little-endian numbers and nothing else; a small JSON file beside it
says what they are. A corpus larger than memory is written as a stream and mapped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...runtime.errors import CorpusError, StorageError, UsageError
from ...runtime.files import replace_file, sha256_file, write_atomic

__all__ = [
    "TokenHeader",
    "Tokens",
    "header_path",
    "open_tokens",
    "read_header",
    "token_dtype",
    "write_tokens",
]

_FORMAT, _VERSION = "rillet-tokens", "1.0"
_DTYPES = ("uint8", "uint16", "uint32")

Numbers = npt.NDArray[np.unsignedinteger[Any]]


class Tokens:
    """A read-only sequence of token numbers, in memory or mapped from a file.

    A slice is a view: nothing is read before :meth:`tensor`, :meth:`windows` or
    :meth:`blocks` asks for numbers.

    Args:
        numbers: The token numbers, ``[length]``, of an unsigned type.
    """

    def __init__(self, numbers: Numbers) -> None:
        if numbers.ndim != 1 or numbers.dtype.kind != "u":
            raise UsageError(
                f"token numbers have shape {list(numbers.shape)} and type {numbers.dtype}; "
                "give one dimension of an unsigned type, or use Tokens.of"
            )
        # A view of its own, so that making it read-only leaves the caller's array alone.
        self._numbers = np.asarray(numbers)[:]
        self._numbers.flags.writeable = False

    @classmethod
    def of(cls, values: Tokens | Tensor | npt.ArrayLike) -> Tokens:
        """Tokens of a tensor, an array or a list, in the smallest type that holds them.

        Raises:
            UsageError: There is a negative number, or one that is not whole.
        """
        if isinstance(values, Tokens):
            return values
        array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype.kind == "u" and array.dtype.itemsize <= 4:
            return cls(array)
        if array.size == 0:
            return cls(np.zeros(0, np.uint8))
        if array.dtype.kind not in "iu":
            raise UsageError(f"token numbers are of type {array.dtype}; give whole numbers")
        if array.min() < 0 or array.max() >= 2**32:
            raise UsageError(
                f"token numbers run from {array.min()} to {array.max()}; "
                "they must lie between 0 and 4,294,967,295"
            )
        return cls(array.astype(token_dtype(int(array.max()) + 1)))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, part: slice) -> Tokens:
        if not isinstance(part, slice):
            raise TypeError(f"the index is {part!r}; take a slice, such as tokens[0:10]")
        return Tokens(self._numbers[part])

    def __repr__(self) -> str:
        return f"Tokens({len(self):,} x {self._numbers.dtype.name})"

    @property
    def nbytes(self) -> int:
        """Bytes that the numbers take where they are stored."""
        return self._numbers.nbytes

    def tensor(self) -> Tensor:
        """All numbers, read into memory, ``[length]`` of int64."""
        return torch.from_numpy(self._numbers.astype(np.int64))

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """Pieces of the text, which begins again where it ends.

        Args:
            starts: Where each piece starts, ``[B]``; any whole numbers.
            length: Tokens in a piece.

        Returns:
            Token numbers, ``[B, length]`` of int64.

        Raises:
            CorpusError: There are no tokens at all.
        """
        if not len(self):
            raise CorpusError("there are no tokens to take a window of; give a longer text")
        return self.take(starts.unsqueeze(1) + torch.arange(length))

    def take(self, places: Tensor) -> Tensor:
        """Token numbers at any places, of the same shape; the text begins again at its end."""
        numbers = self._numbers.take(places.cpu().numpy(), mode="wrap")
        return torch.from_numpy(numbers.astype(np.int64))

    def blocks(self, size: int = 1 << 20) -> Iterator[Tensor]:
        """The numbers in order, in tensors of at most ``size``, ``[<= size]`` of int64."""
        for start in range(0, len(self), size):
            yield self[start : start + size].tensor()


@dataclass(frozen=True)
class TokenHeader:
    """What the JSON file beside a token file says.

    Attributes:
        dtype: Type of a number: ``uint8``, ``uint16`` or ``uint32``, little-endian.
        count: How many numbers there are.
        vocab_size: Every number is below this.
        sha256: Of the token file.
        about: Whatever the writer wanted to be known, as a JSON object.
    """

    dtype: str
    count: int
    vocab_size: int
    sha256: str
    about: dict[str, Any]


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest little-endian type that holds every number below ``vocab_size``."""
    for name in _DTYPES:
        dtype: np.dtype[np.unsignedinteger[Any]] = np.dtype(name).newbyteorder("<")
        if vocab_size - 1 <= np.iinfo(dtype).max:
            return dtype
    raise UsageError(f"vocab_size is {vocab_size:,}; a token file holds up to 4,294,967,296")


def header_path(path: Path) -> Path:
    """The JSON file beside a token file."""
    return path.with_name(path.name + ".json")


def write_tokens(
    path: Path,
    blocks: Iterable[npt.NDArray[np.integer[Any]]],
    vocab_size: int,
    about: Mapping[str, Any] | None = None,
) -> Tokens:
    """Write a token file, block by block; a failure leaves what was there before.

    Args:
        path: The token file; its folder must exist.
        blocks: The numbers in order, each block ``[any length]``.
        vocab_size: Every number must be below this.
        about: Anything else to note in the JSON file beside it. A mapping that ``blocks``
            fills on the way is read after the last block.

    Returns:
        The tokens, mapped from the new file.

    Raises:
        CorpusError: The file cannot be written, or a number is out of range.
    """
    dtype, digest, count = token_dtype(vocab_size), hashlib.sha256(), 0
    with _refusing(), replace_file(path) as file:
        for block in blocks:
            if block.size and not 0 <= block.min() <= block.max() < vocab_size:
                raise CorpusError(
                    f"token numbers run from {block.min()} to {block.max()}, and the vocabulary "
                    f"has {vocab_size:,}; make the tokens with the tokenizer they are meant for"
                )
            data = block.astype(dtype, copy=False).tobytes()
            file.write(data)
            digest.update(data)
            count += block.size
    # Should the process die between the two files, their hashes differ, and opening says so.
    header = TokenHeader(dtype.name, count, vocab_size, digest.hexdigest(), dict(about or {}))
    write_header(path, header)
    return open_tokens(path, verify=False)


def write_header(path: Path, header: TokenHeader) -> None:
    """Write the JSON file beside a token file anew."""
    content = {"format": _FORMAT, "format_version": _VERSION, **asdict(header)}
    write_atomic(header_path(path), (json.dumps(content, indent=1) + "\n").encode())


def read_header(path: Path) -> TokenHeader:
    """Read what the JSON file beside a token file says.

    Raises:
        CorpusError: It is missing, damaged, not ours, or of a newer version.
    """
    beside = header_path(path)
    try:
        content = json.loads(beside.read_bytes())
        if content["format"] != _FORMAT:
            raise ValueError(f"format is {content['format']!r}")
        version = str(content["format_version"])
        if version.partition(".")[0] != _VERSION.partition(".")[0]:
            raise CorpusError(
                f"{beside} has version {version}, and this is {_VERSION}; "
                "use a newer rillet, or remove the file to have it made again"
            )
        header = TokenHeader(**{name: content[name] for name in TokenHeader.__annotations__})
        kinds = (str, int, int, str, dict)
        if [type(value) for value in vars(header).values()] != list(kinds):
            raise ValueError("a value is of the wrong type")
        if header.dtype not in _DTYPES or header.count < 0:
            raise ValueError(f"dtype is {header.dtype!r} and count {header.count}")
    except OSError as error:
        raise CorpusError(f"{beside} cannot be read ({error.strerror}); {_AGAIN}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(f"{beside} is damaged or not ours ({error}); {_AGAIN}") from error
    return header


_AGAIN = "remove it and the token file to have them made again"


def open_tokens(path: Path, verify: bool = True) -> Tokens:
    """Map a token file; nothing of it stays in memory that is not used.

    Args:
        path: The token file.
        verify: Whether to read it once and compare its hash.

    Raises:
        CorpusError: The file is missing, truncated or damaged.
    """
    header = read_header(path)
    dtype = np.dtype(header.dtype).newbyteorder("<")
    try:
        size = path.stat().st_size
        if size != header.count * dtype.itemsize:
            raise CorpusError(
                f"{path} is damaged: it has {size:,} bytes instead of "
                f"{header.count * dtype.itemsize:,}; {_AGAIN}"
            )
        if verify and sha256_file(path) != header.sha256:
            raise CorpusError(f"{path} is damaged: its hash is another than noted; {_AGAIN}")
        if not header.count:  # an empty file cannot be mapped
            return Tokens(np.zeros(0, dtype))
        return Tokens(np.memmap(path, dtype, mode="r"))
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}); {_AGAIN}") from error


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise CorpusError(str(error)) from error
