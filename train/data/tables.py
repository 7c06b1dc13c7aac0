"""Texts in tables: Parquet files, and data sets of Hugging Face's library, saved or on its hub.

A column of texts is read row by row, as the files of a folder are: two newlines after a row that
does not end with one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...runtime.errors import CorpusError, brief
from ...runtime.hub import HUB_PREFIX

__all__ = ["Table", "is_table", "open_table", "recorded_table"]

_OPTIONS = ("column", "config", "split")
_SAVED = ("dataset_info.json", "dataset_dict.json")
_ROWS = 256
"""Rows read at a time."""


class _Source(NamedTuple):
    """``hf:NAME@REVISION,split=train``, taken apart."""

    name: str
    revision: str | None
    options: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A column of texts.

    Attributes:
        name: What it is called in a model's card.
        identity: What tells it from all other texts.
        files: The files that hold it.
        size: Bytes of the texts, approximately.
        rows: Reads the texts from the first row on; a row may have none.
    """

    name: str
    identity: Hashable
    files: tuple[Path, ...]
    size: int
    rows: Callable[[], Iterator[str | None]]

    def texts(self) -> Iterator[str]:
        """The rows' texts, with what stands between them."""
        between = ""
        for text in self.rows():
            if text:
                yield between + text
                between = "" if text.endswith("\n") else "\n\n"


def is_table(source: str) -> bool:
    """Whether a source is a table: by its prefix, its suffix, or what its folder holds."""
    if source.startswith(HUB_PREFIX):
        return True
    path = Path(source)
    if path.suffix.lower() == ".parquet":
        return path.is_file()
    return any((path / name).is_file() for name in _SAVED)


def recorded_table(source: str) -> str:
    """A source as it may stand in a record: no folder of this machine is named."""
    name, comma, rest = source.removeprefix(HUB_PREFIX).partition(",")
    path = Path(name)
    return (
        HUB_PREFIX
        + (path.name if path.is_absolute() or ".." in path.parts else name)
        + (comma + rest)
    )


def open_table(source: str) -> Table:
    """Open a table; what lies on the hub is downloaded into the hub's cache first.

    Args:
        source: A Parquet file, a folder that ``Dataset.save_to_disk`` wrote, or
            ``hf:NAME[@REVISION][,config=C][,split=S][,column=T]``, where NAME is a data set on the
            hub, or such a file or folder.

    Raises:
        CorpusError: It cannot be read, or it is not clear which column holds the texts.
    """
    asked = _parse(source)
    try:
        import datasets
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise CorpusError(
            f"{source} needs {error.name}, which is not installed; install it with: "
            "pip install 'rillet[datasets]'"
        ) from error
    path = Path(asked.name)
    try:
        if path.is_file():
            return _parquet(source, path, parquet.ParquetFile(path), asked.options)
        if path.is_dir():
            loaded = datasets.load_from_disk(str(path))
        else:
            loaded = datasets.load_dataset(
                asked.name, asked.options.get("config"), revision=asked.revision
            )
    except CorpusError:
        raise
    except Exception as error:  # the library raises whatever the formats' libraries do
        raise CorpusError(
            f"{source} cannot be read as a data set ({brief(error)}); check the name and the "
            "network, or give a text file"
        ) from error
    return _data_set(source, path, loaded, asked.options)


def _parse(source: str) -> _Source:
    if not source.startswith(HUB_PREFIX):
        return _Source(source, None, {})
    name, *settings = source.removeprefix(HUB_PREFIX).split(",")
    options = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in _OPTIONS or not value:
            raise CorpusError(
                f"{source} has the option {setting!r}; there are {', '.join(_OPTIONS)}, each "
                "with a value, as in hf:owner/name,split=train"
            )
        options[key] = value
    if Path(name).exists():
        return _Source(name, None, options)
    name, _, revision = name.partition("@")
    return _Source(name, revision or None, options)


def _parquet(source: str, path: Path, file: Any, options: dict[str, str]) -> Table:
    kinds = {field.name: str(field.type) for field in file.schema_arrow}
    column = _column(source, kinds, options.get("column"))
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    size = sum(it.total_uncompressed_size for it in columns if it.path_in_schema == column)

    def rows() -> Iterator[str | None]:
        for batch in file.iter_batches(_ROWS, columns=[column]):
            yield from batch.column(0).to_pylist()

    status = path.stat()
    return Table(path.name, (status.st_dev, status.st_ino, column), (path,), size, rows)


def _data_set(source: str, path: Path, loaded: Any, options: dict[str, str]) -> Table:
    split = options.get("split", "train")
    if isinstance(loaded, dict):  # of splits
        if split not in loaded:
            raise CorpusError(
                f"{source} has no split {split!r}; it has {', '.join(sorted(loaded))}: choose one "
                "with hf:NAME,split=S"
            )
        loaded = loaded[split]
    kinds = {name: str(getattr(kind, "dtype", kind)) for name, kind in loaded.features.items()}
    column = _column(source, kinds, options.get("column"))
    texts = loaded.select_columns([column])

    def rows() -> Iterator[str | None]:
        for batch in texts.iter(_ROWS):
            yield from batch[column]

    files = tuple(Path(entry["filename"]) for entry in loaded.cache_files)
    name = path.resolve().name if path.is_dir() else source
    return Table(name, (files, column), files, int(texts.data.nbytes), rows)


def _column(source: str, kinds: dict[str, str], asked: str | None) -> str:
    """The column that holds the texts: the one asked for, ``text``, or the only one of texts."""
    texts = [name for name, kind in kinds.items() if kind in ("string", "large_string")]
    if asked is not None and asked not in texts:
        raise CorpusError(
            f"{source} has no column of texts {asked!r}; it has {', '.join(texts) or 'none'}"
        )
    found = asked or ("text" if "text" in texts else texts[0] if len(texts) == 1 else None)
    if found is None:
        raise CorpusError(
            f"{source} has {len(texts)} columns of texts ({', '.join(texts)}); choose one with "
            "hf:NAME,column=C"
        )
    return found
