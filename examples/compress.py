"""Compress a file by what a stream predicts of it; the same engine decompresses it, bit for bit.

python examples/compress.py models/shakespeare-nano play.txt play.small
python examples/compress.py models/shakespeare-nano play.small play.txt --decompress

A byte model such as bible-nano takes any file, another one texts of the characters that it knows.
The memory learns the file while it is read: --no-memory shows what that is worth. A prediction must
be the same to the last bit on both sides, so decompress with the same bundle, version and kind of
processor; a checksum tells whether all was well. Needs `pip install constriction`.
"""

from __future__ import annotations

import struct
import sys
import zlib
from argparse import ArgumentParser, RawTextHelpFormatter
from pathlib import Path
from typing import Any

import constriction
import numpy as np

import rillet.runtime
from rillet.runtime import Model, RilletError, Session

MARK, HEADER = b"rlcs", struct.Struct("<4s?QI")  # mark, whether with a memory, tokens, checksum


def begin(model: Model, memory: bool, before: bytes) -> tuple[Session, Any]:
    """A stream that learns all it reads, and what it predicts first."""
    session = model.session(learn="all", memory=memory)
    session.feed_tokens([model.start_token])
    session.feed(before.decode("utf-8", "surrogateescape"))
    return session, distribution(session.logits)


def distribution(logits: object) -> Any:
    """Log-probabilities as the coder wants them."""
    chances = np.exp(np.asarray(logits, np.float32))
    return constriction.stream.model.Categorical(chances, perfect=False)


def compress(model: Model, data: bytes, memory: bool = True, before: bytes = b"") -> bytes:
    """Compress bytes: likely ones take little room."""
    tokens = model.tokenizer.encode(data.decode("utf-8", "surrogateescape"))
    if b"".join(model.tokenizer.token_bytes[token] for token in tokens) != data:
        sys.exit("Error: the file has characters that the model does not know; use a byte model")
    coder = constriction.stream.queue.RangeEncoder()
    session, predicted = begin(model, memory, before)
    for token in tokens:
        coder.encode(token, predicted)
        predicted = distribution(session.step(token))
    packed: bytes = coder.get_compressed().tobytes()
    return HEADER.pack(MARK, memory, len(tokens), zlib.crc32(data)) + packed


def decompress(model: Model, packed: bytes, before: bytes = b"") -> bytes:
    """The bytes that were compressed."""
    if not packed.startswith(MARK) or len(packed) < HEADER.size or len(packed) % 4 != 1:
        sys.exit("Error: that is no file that this program compressed")
    _, memory, length, checksum = HEADER.unpack_from(packed)
    words = np.frombuffer(packed, np.uint32, offset=HEADER.size)
    coder = constriction.stream.queue.RangeDecoder(words)
    session, predicted = begin(model, memory, before)
    data = bytearray()
    for _ in range(length):
        token = int(coder.decode(predicted))
        data += model.tokenizer.token_bytes[token]
        predicted = distribution(session.step(token))
    if zlib.crc32(data) != checksum:
        sys.exit("Error: what was decompressed is damaged; use the same bundle, version, processor")
    return bytes(data)


def main() -> None:
    """Compress or decompress a file."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--decompress", action="store_true")
    parser.add_argument("--no-memory", action="store_true", help="compress without learning")
    options = parser.parse_args()
    model = rillet.runtime.load(options.bundle)
    data = options.source.read_bytes()
    if options.decompress:
        result = decompress(model, data)
    else:
        result = compress(model, data, memory=not options.no_memory)
    options.target.write_bytes(result)
    print(f"{len(data)} bytes became {len(result)}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, RilletError) as error:
        sys.exit(f"Error: {error}")
