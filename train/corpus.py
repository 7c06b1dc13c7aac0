"""Text to train on."""

from __future__ import annotations

from pathlib import Path

from ..runtime.errors import CorpusError

__all__ = ["BUILTIN", "MINIMUM", "builtin_corpus", "read_corpus"]

BUILTIN = "builtin:pydoc"
"""Name of the corpus that every Python brings along."""

MINIMUM = 2_000
"""Fewest characters that a model can be trained on."""


def read_corpus(name: str) -> str:
    """Read a text to train on.

    Args:
        name: A UTF-8 text file, or :data:`BUILTIN`.

    Returns:
        The text, line ends as they are.

    Raises:
        CorpusError: The file is missing, not UTF-8, or too short.
    """
    text = builtin_corpus() if name == BUILTIN else _read_file(Path(name))
    if not text.strip():
        raise CorpusError(f"{name} is empty; give a text of at least {MINIMUM:,} characters")
    if len(text) < MINIMUM:
        raise CorpusError(
            f"{name} has only {len(text):,} characters; give a text of at least {MINIMUM:,}"
        )
    return text


def builtin_corpus() -> str:
    """Python's own reference texts: English, on every machine, without a network.

    Raises:
        CorpusError: This Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise CorpusError(
            "this Python was installed without pydoc_data; give a text with --corpus FILE"
        ) from error
    return "\n\n".join(topics[name] for name in sorted(topics))


def _read_file(path: Path) -> str:
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; give one UTF-8 text file")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise CorpusError(f"{path} does not exist; give a UTF-8 text file") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror})") from error
    try:
        # A byte order mark is not text.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start:,}; "
            "convert it first, for example with: iconv -t UTF-8 -f LATIN1"
        ) from error
