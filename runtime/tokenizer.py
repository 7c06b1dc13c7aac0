"""Text to tokens, and tokens to text as it streams."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import tokenizers

from .errors import BundleError, brief

__all__ = ["TextDecoder", "Tokenizer", "byte_level_alphabet"]

_PIECE = 1 << 16
"""Characters that are encoded at a time: the library takes 100 bytes and more for each."""

_WORDS = re.compile(r".*\S(?=\s)", re.DOTALL)
"""Text that ends before white space begins: no word of BPE spans that place."""


class Tokenizer:
    """A tokenizer file of Hugging Face's format, and what streaming needs beside it.

    Args:
        source: The content of ``tokenizer.json``.
        name: What to call the file in an error message.

    Raises:
        BundleError: The content is no tokenizer.
    """

    def __init__(self, source: str, name: str = "tokenizer.json") -> None:
        try:
            self._inner = tokenizers.Tokenizer.from_str(source)
        except BaseException as error:  # the library raises bare Exception, and panics
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise BundleError(f"{name} is not a tokenizer file ({brief(error)})") from error
        self.source = source
        self.vocab_size: int = self._inner.get_vocab_size()
        byte_level = _has_byte_level_decoder(source)
        byte_of = {symbol: byte for byte, symbol in enumerate(byte_level_alphabet())}
        self._bytes = [b""] * self.vocab_size
        known: set[str] = set()
        for token, number in self._inner.get_vocab().items():
            if not 0 <= number < self.vocab_size:
                raise BundleError(f"{name} numbers its tokens with gaps: {token!r} is {number}")
            known.add(token)
            if byte_level:
                self._bytes[number] = bytes(byte_of.get(character, 63) for character in token)
            else:
                self._bytes[number] = token.encode("utf-8", "replace")
        self._known = None if byte_level else known
        self._cuts_anywhere = not json.loads(source).get("model", {}).get("merges")

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer file."""
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{path} cannot be read ({error})") from error

    def unknown(self, text: str) -> list[str]:
        """Characters of a text that have no token, each once, in order of appearance."""
        return [character for character in dict.fromkeys(text) if not self._has(character)]

    def _has(self, character: str) -> bool:
        if self._known is None:
            return not "\ud800" <= character <= "\udfff"
        return character in self._known

    def encode(self, text: str) -> list[int]:
        """Token numbers of a text; characters without a token are left out."""
        # Half a surrogate pair, as from a command line that is not UTF-8, has no token.
        text = text.encode("utf-8", "ignore").decode()
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def encode_stream(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Encode a text of any length in constant memory.

        Args:
            texts: The text, in pieces of any size.

        Yields:
            Token numbers, none of the lists empty. Joined, they are those of :meth:`encode`,
            except where a word of BPE is longer than 65,536 characters.
        """
        held = ""
        for text in texts:
            for start in range(0, len(text), _PIECE):
                held += text[start : start + _PIECE]
                if len(held) > _PIECE:
                    cut = _PIECE
                    if not self._cuts_anywhere and (found := _WORDS.match(held, 0, _PIECE)):
                        cut = found.end()
                    if tokens := self.encode(held[:cut]):
                        yield tokens
                    held = held[cut:]
        if tokens := self.encode(held):
            yield tokens

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each token; not to be changed."""
        return self._bytes

    def decode(self, tokens: list[int]) -> str:
        """The text of whole tokens; bytes that make no character become U+FFFD."""
        return b"".join(self._bytes[token] for token in tokens).decode("utf-8", "replace")

    def decoder(self) -> TextDecoder:
        """A decoder for one stream."""
        return TextDecoder(self._bytes)


class TextDecoder:
    """Turns tokens into text one by one; bytes wait until they are a character."""

    def __init__(self, token_bytes: list[bytes]) -> None:
        self._bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        return self._decoder.decode(self._bytes[token])

    @property
    def pending(self) -> bytes:
        """Bytes that wait for the rest of their character."""
        return self._decoder.getstate()[0]

    @pending.setter
    def pending(self, value: bytes) -> None:
        self._decoder.setstate((value, 0))


def _has_byte_level_decoder(source: str) -> bool:
    decoder = json.loads(source).get("decoder")
    return isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"


def byte_level_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in plain else next(spare)) for byte in range(256)]
