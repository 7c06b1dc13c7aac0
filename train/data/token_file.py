"""Tokens of a corpus: in memory, or memory-mapped from a file.

A token file holds raw little-endian numbers and nothing else; a small JSON file beside it
describes them. A corpus larger than memory is written as a stream and then mapped.
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
    """A read-only sequence of tokens, in memory or mapped from a file.

    A slice is a view: nothing is read until :meth:`tensor`, :meth:`windows`, :meth:`take` or
    :meth:`blocks` is called.

    Args:
        numbers: The tokens, ``[length]``, of an unsigned type.

    Raises:
        UsageError: The array has another shape or type.
    """

    def __init__(self, numbers: Numbers) -> None:
        if numbers.ndim != 1 or numbers.dtype.kind != "u":
            raise UsageError(
                f"the tokens have shape {list(numbers.shape)} and type {numbers.dtype}; "
                "pass a one-dimensional array of an unsigned type, or use Tokens.of"
            )
        # A new view, so that making it read-only does not affect the caller's array.
        self._numbers = np.asarray(numbers)[:]
        self._numbers.flags.writeable = False

    @classmethod
    def of(cls, values: Tokens | Tensor | npt.ArrayLike) -> Tokens:
        """Convert a tensor, an array or a list, using the smallest type that holds it.

        Raises:
            UsageError: A number is negative, too large, or not whole.
        """
        if isinstance(values, Tokens):
            return values
        array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype.kind == "u" and array.dtype.itemsize <= 4:
            return cls(array)
        if array.size == 0:
            return cls(np.zeros(0, np.uint8))
        if array.dtype.kind not in "iu":
            raise UsageError(f"the tokens have type {array.dtype}; pass whole numbers")
        if array.min() < 0 or array.max() >= 2**32:
            raise UsageError(
                f"the tokens range from {array.min()} to {array.max()}; "
                "they must be between 0 and 4,294,967,295"
            )
        return cls(array.astype(token_dtype(int(array.max()) + 1)))

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, part: slice) -> Tokens:
        if not isinstance(part, slice):
            raise TypeError(f"the index is {part!r}; use a slice, such as tokens[0:10]")
        return Tokens(self._numbers[part])

    def __repr__(self) -> str:
        return f"Tokens({len(self):,} x {self._numbers.dtype.name})"

    @property
    def nbytes(self) -> int:
        """Size of the stored tokens in bytes."""
        return self._numbers.nbytes

    def tensor(self) -> Tensor:
        """Read all tokens into memory, ``[length]`` int64."""
        return torch.from_numpy(self._numbers.astype(np.int64))

    def windows(self, starts: Tensor, length: int) -> Tensor:
        """Read pieces of the text, which wraps around at its end.

        Args:
            starts: Start of each piece, ``[B]``; any whole numbers.
            length: Tokens in a piece.

        Returns:
            The tokens, ``[B, length]`` int64.

        Raises:
            CorpusError: The text is empty.
        """
        if not len(self):
            raise CorpusError("the text has no tokens; give a longer text")
        return self.take(starts.unsqueeze(1) + torch.arange(length))

    def take(self, places: Tensor) -> Tensor:
        """Read the tokens at any positions, in the same shape; the text wraps around."""
        numbers = self._numbers.take(places.cpu().numpy(), mode="wrap")
        return torch.from_numpy(numbers.astype(np.int64))

    def sha256(self) -> str:
        """SHA-256 of the tokens, the same in memory and in a file of any type."""
        digest = hashlib.sha256()
        for start in range(0, len(self), 1 << 20):
            digest.update(self._numbers[start : start + (1 << 20)].astype("<u4").tobytes())
        return digest.hexdigest()

    def blocks(self, size: int = 1 << 20) -> Iterator[Tensor]:
        """Iterate over the tokens in tensors ``[<= size]`` int64."""
        for start in range(0, len(self), size):
            yield self[start : start + size].tensor()


@dataclass(frozen=True)
class TokenHeader:
    """Content of the JSON file beside a token file.

    Attributes:
        dtype: Type of a token: ``uint8``, ``uint16`` or ``uint32``, little-endian.
        count: Number of tokens.
        vocab_size: Every token is below this.
        sha256: SHA-256 of the token file.
        about: Notes of the writer, as a JSON object.
    """

    dtype: str
    count: int
    vocab_size: int
    sha256: str
    about: dict[str, Any]


def token_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest little-endian type that holds every token below ``vocab_size``.

    Raises:
        UsageError: No type is large enough.
    """
    for name in _DTYPES:
        dtype: np.dtype[np.unsignedinteger[Any]] = np.dtype(name).newbyteorder("<")
        if vocab_size - 1 <= np.iinfo(dtype).max:
            return dtype
    raise UsageError(f"vocab_size is {vocab_size:,}; it must not exceed 4,294,967,296")


def header_path(path: Path) -> Path:
    """Path of the JSON file beside a token file."""
    return path.with_name(path.name + ".json")


def write_tokens(
    path: Path,
    blocks: Iterable[npt.NDArray[np.integer[Any]]],
    vocab_size: int,
    about: Mapping[str, Any] | None = None,
) -> Tokens:
    """Write a token file block by block; after a failure, the old file is still there.

    Args:
        path: The token file; its folder must exist.
        blocks: The tokens in order, in arrays of any length.
        vocab_size: Every token must be below this.
        about: Notes for the JSON file. The mapping is read after the last block, so the
            iteration over ``blocks`` may fill it.

    Returns:
        The tokens, mapped from the new file.

    Raises:
        CorpusError: The file cannot be written, or a token is out of range.
    """
    dtype, digest, count = token_dtype(vocab_size), hashlib.sha256(), 0
    with _storage_as_corpus_errors(), replace_file(path) as file:
        for block in blocks:
            if block.size and not 0 <= block.min() <= block.max() < vocab_size:
                raise CorpusError(
                    f"the tokens range from {block.min()} to {block.max()}, but the vocabulary has "
                    f"{vocab_size:,}; encode the text with the tokenizer of this vocabulary"
                )
            data = block.astype(dtype, copy=False).tobytes()
            file.write(data)
            digest.update(data)
            count += block.size
    # If the process dies before the header is written, the hashes differ and opening fails.
    header = TokenHeader(dtype.name, count, vocab_size, digest.hexdigest(), dict(about or {}))
    write_header(path, header)
    return open_tokens(path, verify=False)


def write_header(path: Path, header: TokenHeader) -> None:
    """Replace the JSON file beside a token file.

    Raises:
        CorpusError: It cannot be written.
    """
    content = {"format": _FORMAT, "format_version": _VERSION, **asdict(header)}
    with _storage_as_corpus_errors():
        write_atomic(header_path(path), (json.dumps(content, indent=1) + "\n").encode())


def read_header(path: Path) -> TokenHeader:
    """Read the JSON file beside a token file.

    Raises:
        CorpusError: The file is missing, damaged, or of an incompatible version.
    """
    beside = header_path(path)
    try:
        content = json.loads(beside.read_bytes())
        if content["format"] != _FORMAT:
            raise ValueError(f"format is {content['format']!r}")
        version = str(content["format_version"])
        if version.partition(".")[0] != _VERSION.partition(".")[0]:
            raise CorpusError(
                f"{beside} has format version {version}, but this rillet reads {_VERSION}; "
                "install a newer rillet, or delete the file to rebuild it"
            )
        header = TokenHeader(**{name: content[name] for name in TokenHeader.__annotations__})
        kinds = (str, int, int, str, dict)
        if [type(value) for value in vars(header).values()] != list(kinds):
            raise ValueError("a value has the wrong type")
        if header.dtype not in _DTYPES or header.count < 0:
            raise ValueError(f"dtype is {header.dtype!r} and count {header.count}")
    except OSError as error:
        raise CorpusError(f"{beside} cannot be read ({error.strerror}); {_REBUILD}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorpusError(
            f"{beside} is damaged or is not a token header ({error}); {_REBUILD}"
        ) from error
    return header


_REBUILD = "delete the token file and its .json file to rebuild them"


def open_tokens(path: Path, verify: bool = True) -> Tokens:
    """Map a token file into memory.

    Args:
        path: The token file.
        verify: Read the file once and check its hash.

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
                f"{header.count * dtype.itemsize:,}; {_REBUILD}"
            )
        if verify and sha256_file(path) != header.sha256:
            raise CorpusError(f"{path} is damaged: its hash is not the recorded one; {_REBUILD}")
        if not header.count:  # mmap rejects an empty file
            return Tokens(np.zeros(0, dtype))
        return Tokens(np.memmap(path, dtype, mode="r"))
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}); {_REBUILD}") from error


@contextmanager
def _storage_as_corpus_errors() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise CorpusError(str(error)) from error
