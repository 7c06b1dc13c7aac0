"""Encode text to tokens, and decode tokens to text as they stream."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers

from .errors import BundleError, brief
from .files import as_path

__all__ = [
    "TextDecoder",
    "Tokenizer",
    "byte_level_alphabet",
    "escaped_bytes",
    "shown",
    "text_bytes",
]

_PIECE = 1 << 16
"""Characters encoded at a time: the library allocates 100 bytes or more for each."""

_WORDS = re.compile(r".*\S(?=\s)", re.DOTALL)
"""Text that ends just before white space: no BPE word spans that boundary."""

_ESCAPED = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as Python's ``surrogateescape`` keeps them in a text."""

_HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs that stand for nothing."""


def text_bytes(text: str) -> bytes:
    """A text as UTF-8; an escaped byte becomes itself, and half a surrogate pair is left out."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _HALVES.sub("", text).encode("utf-8", "surrogateescape")


def shown(text: str) -> str:
    """A text in which escaped bytes, which cannot be printed, have become U+FFFD."""
    if text.isascii() or not _ESCAPED.search(text):
        return text
    return text_bytes(text).decode("utf-8", "replace")


def escaped_bytes(text: str) -> bytes:
    """The bytes of a text that are not UTF-8."""
    return b"" if text.isascii() else text_bytes("".join(_ESCAPED.findall(text)))


class Tokenizer:
    """A tokenizer in Hugging Face's file format, extended for streaming.

    Args:
        source: The contents of ``tokenizer.json``.
        name: The file's name in error messages.

    Raises:
        BundleError: ``source`` is not a tokenizer, or one whose tokens are no pieces of text.
    """

    def __init__(self, source: str, name: str = "tokenizer.json") -> None:
        try:
            self._inner = tokenizers.Tokenizer.from_str(source)
        except BaseException as error:  # the library raises bare Exception and Rust panics
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise BundleError(f"{name} is not a tokenizer file ({brief(error)})") from error
        self.source = source
        self.vocab_size: int = self._inner.get_vocab_size()
        byte_level = _is_byte_level(source, name)
        self._bytes = [b""] * self.vocab_size
        known: set[str] = set()
        for token, number in self._inner.get_vocab().items():
            if not 0 <= number < self.vocab_size:
                raise BundleError(
                    f"{name} does not number its {self.vocab_size} tokens without gaps: "
                    f"{token!r} is {number}"
                )
            known.add(token)
            self._bytes[number] = (byte_level and _byte_level(token)) or token.encode()
        self._texts = [_whole(data) for data in self._bytes]
        self._known = None if byte_level else known
        self._can_cut_anywhere = all(len(token) == 1 for token in known)
        self._byte_numbers = _byte_numbers(source, self._bytes)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer file.

        Raises:
            BundleError: It cannot be read, or is no tokenizer that can be streamed.
            UsageError: The path can name no file here.
        """
        try:
            return cls(as_path(path).read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{path} cannot be read ({error})") from error

    def unknown(self, text: str) -> list[str]:
        """The distinct characters of a text that have no token, in order of appearance."""
        return [character for character in dict.fromkeys(text) if not self._has_token(character)]

    def _has_token(self, character: str) -> bool:
        if self._known is not None:
            return character in self._known
        if "\ud800" <= character <= "\udfff":
            return self.reads_any_bytes and _ESCAPED.match(character) is not None
        return True

    @property
    def is_byte_level(self) -> bool:
        """Whether its tokens are pieces of UTF-8; otherwise they are whole characters."""
        return self._known is None

    @property
    def reads_any_bytes(self) -> bool:
        """Whether it reads bytes that are not UTF-8, which a text holds by ``surrogateescape``."""
        return self._byte_numbers is not None

    def encode(self, text: str) -> list[int]:
        """Encode a text; characters without a token are skipped."""
        if self._byte_numbers is not None:
            return list(text_bytes(text).translate(self._byte_numbers))
        # Half a surrogate pair has no token.
        text = text.encode("utf-8", "ignore").decode()
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def encode_stream(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Encode a text of any length in constant memory.

        Args:
            texts: The text, in pieces of any size.

        Yields:
            Non-empty lists of tokens. Concatenated, they equal the result of :meth:`encode`,
            except where a BPE word is longer than 65,536 characters.
        """
        buffered = ""
        for text in texts:
            for start in range(0, len(text), _PIECE):
                buffered += text[start : start + _PIECE]
                if len(buffered) > _PIECE:
                    cut = _PIECE
                    if not self._can_cut_anywhere and (words := _WORDS.match(buffered, 0, _PIECE)):
                        cut = words.end()
                    if tokens := self.encode(buffered[:cut]):
                        yield tokens
                    buffered = buffered[cut:]
        if tokens := self.encode(buffered):
            yield tokens

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each token; do not modify."""
        return self._bytes

    def decode(self, tokens: list[int]) -> str:
        """Decode tokens; bytes that are not valid UTF-8 become U+FFFD."""
        return b"".join(self._bytes[token] for token in tokens).decode("utf-8", "replace")

    def decoder(self, exact: bool = False) -> TextDecoder:
        """Create a decoder for one stream.

        Args:
            exact: If the tokenizer reads any bytes, keep those that are not UTF-8, by
                ``surrogateescape``, instead of replacing them with U+FFFD.
        """
        return TextDecoder(self._bytes, self._texts, exact and self.reads_any_bytes)


class TextDecoder:
    """Decodes tokens one by one; bytes wait until they complete a character.

    Args:
        token_bytes: The bytes of each token.
        token_texts: The text of each token that is whole characters, ``None`` for the others.
        exact: Whether to keep bytes that are no text, rather than replace them.

    Attributes:
        pending: Bytes of a character that is still incomplete.
    """

    def __init__(
        self, token_bytes: list[bytes], token_texts: list[str | None], exact: bool = False
    ) -> None:
        self._bytes, self._texts = token_bytes, token_texts
        errors = "surrogateescape" if exact else "replace"
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)
        self.pending = b""

    def push(self, token: int) -> str:
        """The text that a token completes; empty while a character is incomplete."""
        text = self._texts[token]
        if text is not None and not self.pending:
            return text
        self._decoder.setstate((self.pending, 0))
        text = self._decoder.decode(self._bytes[token])
        self.pending = self._decoder.getstate()[0]
        return text


def _whole(data: bytes) -> str | None:
    """Some bytes as a text, if they are whole characters."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _byte_numbers(source: str, token_bytes: list[bytes]) -> bytes | None:
    """The token of each byte, if the tokenizer is nothing but a table of the 256 bytes."""
    file = json.loads(source)
    before, merges = file.get("pre_tokenizer") or {}, file.get("model", {}).get("merges")
    if merges or file.get("normalizer") or file.get("added_tokens"):
        return None
    if before.get("type") != "ByteLevel" or before.get("add_prefix_space"):
        return None
    if sorted(token_bytes) != [bytes([byte]) for byte in range(256)]:
        return None
    return bytes(token_bytes.index(bytes([byte])) for byte in range(256))


def _is_byte_level(source: str, name: str) -> bool:
    """Whether a token's characters stand for bytes; refuses what is decoded in other ways.

    A stream decodes token by token, so the text of a token must not depend on its neighbours.
    """
    decoder = json.loads(source).get("decoder")
    parts = [decoder] if not decoder or decoder["type"] != "Sequence" else decoder["decoders"]
    kinds = [part["type"] if part else "none, which puts spaces between tokens" for part in parts]
    first, rest = kinds[:1], kinds[1:]
    if unsupported := [kind for kind in kinds if kind not in ("ByteLevel", "Fuse")]:
        raise BundleError(
            f"{name} has the decoder {unsupported[0]}, with which a token's text depends on its "
            "neighbours; use a tokenizer with the decoder ByteLevel or Fuse"
        )
    if not first or "ByteLevel" in rest:
        raise BundleError(
            f"{name} has the decoders {', '.join(kinds) or 'of an empty Sequence'}; use a "
            "tokenizer with the decoder ByteLevel or Fuse"
        )
    return first == ["ByteLevel"]


def _byte_level(token: str) -> bytes | None:
    """The bytes that a token's characters stand for; ``None`` if one of them stands for none."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:  # an added token, which is text
        return None


def byte_level_alphabet() -> list[str]:
    """The character that represents each byte in a byte-level vocabulary (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


_BYTE_OF = {symbol: byte for byte, symbol in enumerate(byte_level_alphabet())}
