"""Tables as corpora: Parquet files, saved data sets, and data sets on a hub of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets", reason="datasets is not installed")

from rillet.runtime import CorpusError  # noqa: E402
from rillet.train.data.corpus import Corpus  # noqa: E402
from rillet.train.data.text_sources import recorded_name  # noqa: E402
from support.command_line import here, rillet  # noqa: E402
from support.hub import serve_hub  # noqa: E402

ROWS = [*(f"Story {n} is of a cat, and of the hat it had.\n" for n in range(60)), "", None, "End."]
JOINED = "".join(row for row in ROWS[:-1] if row) + "End."


@pytest.fixture
def rows() -> Any:
    """Three columns, of which one is text by name, and one other is text."""
    return datasets.Dataset.from_dict(
        {"number": list(range(len(ROWS))), "text": ROWS, "title": [f"t{n}" for n in range(63)]}
    )


def read(source: str | Path) -> str:
    return "".join(Corpus(source).blocks())


def test_a_parquet_file_and_a_saved_data_set_read_the_same(rows: Any, tmp_path: Path) -> None:
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    rows.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"train": rows, "test": rows.select(range(50))}).save_to_disk(
        str(tmp_path / "splits")
    )
    for name in ("rows.parquet", "saved", "splits"):
        corpus = Corpus(tmp_path / name)
        assert "".join(corpus.blocks()) == JOINED
        assert "".join(corpus.blocks()) == JOINED  # a corpus is read more than once
        assert corpus.names == (name,)
        assert corpus.size == pytest.approx(len(JOINED), rel=0.9)
        assert Corpus(tmp_path / name).stamp() == corpus.stamp()
    assert read(f"hf:{tmp_path / 'splits'},split=test") == "".join(ROWS[:50])
    before = Corpus(tmp_path / "rows.parquet").stamp()
    rows.select(range(55)).to_parquet(str(tmp_path / "rows.parquet"))
    assert Corpus(tmp_path / "rows.parquet").stamp() != before


def test_rows_without_a_line_end_are_set_apart(tmp_path: Path) -> None:
    short = datasets.Dataset.from_dict({"story": ["A cat sat on the mat.", "So it was."] * 80})
    short.to_parquet(str(tmp_path / "rows.parquet"))
    expected = "\n\n".join(["A cat sat on the mat.", "So it was."] * 80)
    assert read(tmp_path / "rows.parquet") == expected
    (tmp_path / "more.txt").write_text("More.\n" * 9)
    both = Corpus([tmp_path / "rows.parquet", tmp_path / "more.txt"])
    assert "".join(both.blocks()) == expected + "\n\n" + "More.\n" * 9


def test_the_column_is_chosen(rows: Any, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    rows.rename_column("text", "story").save_to_disk(str(saved))
    for source, message in (
        (str(saved), "has 2 columns of texts (story, title); choose one with hf:NAME,column=C"),
        (f"hf:{saved},column=number", "has no column of texts 'number'; it has story, title"),
        (f"hf:{saved},colum=story", "has the option 'colum=story'; there are column, config"),
        (f"hf:{tmp_path / 'gone'}", "cannot be read as a data set"),
    ):
        with pytest.raises(CorpusError) as refused:
            Corpus(source)
        assert message in str(refused.value)
    assert read(f"hf:{saved},column=story") == JOINED
    datasets.DatasetDict({"test": rows}).save_to_disk(str(tmp_path / "splits"))
    with pytest.raises(CorpusError, match=r"has no split 'train'; it has test"):
        Corpus(tmp_path / "splits")


def test_damaged_tables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    for name in ("rows.parquet", "saved"):
        with pytest.raises(CorpusError, match="cannot be read as a data set"):
            Corpus(tmp_path / name)


def test_records_name_no_folder_of_this_machine(tmp_path: Path) -> None:
    assert recorded_name("hf:owner/name@v1,split=test") == "hf:owner/name@v1,split=test"
    assert recorded_name(f"hf:{tmp_path}/saved,column=story") == "hf:saved,column=story"


def test_a_model_is_trained_on_a_table(rows: Any, tmp_path: Path) -> None:
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    words = ["--corpus", "rows.parquet", "--out", "run", "--steps", "2", "--no-plot"]
    result = here("train", *words, "--set", "chunk=32", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()


def test_a_data_set_of_the_hub_is_read_and_kept_in_its_cache(rows: Any, tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    rows.to_parquet(str(tmp_path / "repository" / "train.parquet"))
    code = """
import sys  # noqa: E402
from rillet.train.data.corpus import Corpus  # noqa: E402
sys.stdout.write("".join(Corpus("hf:owner/stories").blocks()))
"""
    with serve_hub() as hub:
        hub.add("owner/stories", tmp_path / "repository")
        env = hub.environment(tmp_path / "home")
        for _ in range(2):  # the second time, from the cache
            result = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
            )
            assert result.stdout == JOINED, result.stderr
            env["HF_HUB_OFFLINE"] = "1"
        missing = rillet("train", "--corpus", "hf:owner/none", "--out", tmp_path / "run", env=env)
    assert missing.returncode == 1
    assert "hf:owner/none cannot be read as a data set" in missing.stderr
