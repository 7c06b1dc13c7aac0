"""Training text: its sources, how it is read, and how it becomes tokens."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillet.export.bundle.folder import CARD
from rillet.runtime import CorpusError, UsageError
from rillet.runtime.cli.text_files import read_pieces
from rillet.train import infer
from rillet.train.checkpoint import CHECKPOINT_FILE
from rillet.train.cli.reporters import LOG_FILE
from rillet.train.data import text_sources, tokenizers
from rillet.train.data.corpus import MIN_CHARACTERS, Corpus, read_corpus
from rillet.train.data.named_texts import (
    BUILTIN,
    TINYSHAKESPEARE,
    Remote,
    builtin_corpus,
    cache_folder,
    fetch,
)
from rillet.train.data.own_files import BUNDLE_CARD, RUN_FILES
from rillet.train.data.text_sources import SUFFIXES
from rillet.train.data.tokenizers import make_tokenizer, prepare
from rillet.train.loop.resume import STATE_FILE

LINES = "".join(f"line {number} of a text, é and 水\n" for number in range(200))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    "text", [LINES, "no line ends " * 400, "two\nlines", "a\0b", "\ud800", "/" + "x" * 5000]
)
def test_a_text_is_no_file_name(text: str) -> None:
    """It is not printed whole, alone or in a list."""
    for sources in (text, [text], ["-", text], Path(text)):
        with pytest.raises(UsageError, match="looks like a text, not like the name") as refused:
            Corpus(sources)
        assert len(str(refused.value)) < 200


def test_a_name_may_have_a_line_end(tmp_path: Path) -> None:
    assert Corpus(write(tmp_path / "two\nlines.txt", LINES)).characters == len(LINES)


@pytest.mark.parametrize("source", [None, 5, 0.5, b"notes.txt", io.StringIO(LINES), object(), {}])
def test_what_is_no_name_is_refused(source: object) -> None:
    named = "there is no corpus" if source == {} else f"given as {type(source).__name__}; "
    with pytest.raises(UsageError, match=named):
        Corpus(source)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"given as {type(source).__name__}; "):
        infer([source])  # type: ignore[list-item]


def test_texts_are_joined_without_loss(tmp_path: Path) -> None:
    parts = [LINES, "no newline at the end", "\ufeffnor here", "", LINES]
    files = [write(tmp_path / f"{n}.txt", part) for n, part in enumerate(parts)]
    corpus = Corpus(files)
    expected = LINES + "no newline at the end\n\nnor here\n\n" + LINES
    assert "".join(corpus.blocks()) == expected
    assert corpus.names == ("0.txt", "1.txt", "2.txt", "3.txt", "4.txt")
    assert corpus.characters == len(expected)
    assert corpus.symbols == "".join(sorted(set(expected)))
    assert corpus.sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert corpus.size == sum(file.stat().st_size for file in files)


def test_a_folder_is_read_in_the_order_of_paths(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    outside = write(tmp_path / "secret.txt", "secret\n")
    for name in ("b.txt", "a/z.MD", "a.txt", "a/deep/er/x.rst", ".hidden/h.txt", ".h.txt"):
        write(folder / name, f"{name} {LINES}")
    write(folder / "picture.png", "no text")
    (folder / "out.txt").symlink_to(outside)
    (folder / "above").symlink_to(tmp_path)
    (folder / "0-again.txt").symlink_to(folder / "b.txt")
    (folder / "broken.txt").symlink_to(folder / "nowhere.txt")
    corpus = Corpus(folder)
    names = ("a.txt", "a/deep/er/x.rst", "a/z.MD", "b.txt")
    assert corpus.names == tuple(f"texts/{name}" for name in names)
    assert "".join(corpus.blocks()) == "".join(f"{name} {LINES}" for name in names)
    assert Corpus(folder, suffixes=(".rst",)).names == ("texts/a/deep/er/x.rst",)
    assert read_corpus(str(folder)) == "".join(corpus.blocks())


def test_a_folder_without_texts_is_rejected(tmp_path: Path) -> None:
    for name in ("1.pdf", "2.pdf", "README"):
        write(tmp_path / name, "x")
    with pytest.raises(CorpusError, match=r"it has 2 \.pdf, 1 without a suffix.*\.txt, \.text"):
        Corpus(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="it has no files"):
        Corpus(tmp_path / "empty")


def test_invalid_sources_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no corpus"):
        Corpus([])
    with pytest.raises(CorpusError, match=r"none\.txt does not exist; give a UTF-8 text file"):
        Corpus([write(tmp_path / "a.txt", LINES), tmp_path / "none.txt"])
    with pytest.raises(CorpusError, match="/dev/null is neither a file nor a pipe"):
        Corpus("/dev/null")
    short = [write(tmp_path / name, "short") for name in ("1.txt", "2.txt")]
    with pytest.raises(CorpusError, match=r"1\.txt \(and 1 more\) has only 12 characters"):
        Corpus(short).scan()


def fill(path: Path, data: bytes) -> threading.Thread:
    """Create a pipe and write to it from a thread."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,), daemon=True)
    writer.start()
    return writer


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_pipe_is_read_once_and_kept(tmp_path: Path, on_disk: bool) -> None:
    """Its text is that of a file, as often as it is read; on disk nothing is seen of it."""
    text = LINES * 40
    writer = fill(tmp_path / "notes", text.encode())
    spool = tmp_path / "run" if on_disk else None
    corpus = Corpus(tmp_path / "notes", spool=spool)
    writer.join()
    first, second = corpus.blocks(size=1000), corpus.blocks(size=300)
    assert "".join(next(first) + next(second) for _ in range(3))  # at once
    assert "".join(corpus.blocks()) == text
    same = Corpus(write(tmp_path / "file.txt", text))
    assert corpus.scan() == same.scan()
    assert corpus.names == ("the pipe notes",)
    assert corpus.size == same.size
    folder = tmp_path / "tokens"
    prepared = prepare(corpus, "char", folder)
    assert prepared.tokens.tensor().tolist() == prepared.tokenizer.encode(text)
    if spool is not None:
        assert list(spool.iterdir()) == []


def test_tokens_of_a_pipe_are_reused_for_the_same_text_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [LINES, LINES, LINES.replace("é", "e")]
    hashes = []
    for text in texts:
        writer = fill(tmp_path / "notes", text.encode())
        hashes.append(prepare(Corpus(tmp_path / "notes"), "byte", tmp_path / "tokens").sha256)
        writer.join()
        (tmp_path / "notes").unlink()
    assert hashes == [hashlib.sha256(text.encode()).hexdigest() for text in texts]


def test_an_empty_pipe_is_an_empty_text(tmp_path: Path) -> None:
    for spool in (None, tmp_path):
        fill(tmp_path / "notes", b"")
        with pytest.raises(CorpusError, match="is empty"):
            Corpus(tmp_path / "notes", spool=spool).scan()
        (tmp_path / "notes").unlink()


def test_a_text_given_twice_is_read_once(tmp_path: Path) -> None:
    """By its name, below a folder, through a link: one text, or it would be held out as well."""
    path = write(tmp_path / "texts" / "a.txt", LINES)
    other = write(tmp_path / "texts" / "b.txt", "another\n")
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    corpus = Corpus([path, path, path.parent, link, other])
    assert corpus.names == ("a.txt", "texts/b.txt")
    assert "".join(corpus.blocks()) == LINES + "another\n"
    assert corpus.notes == [
        f"{name} is given more than once; it is read once"
        for name in ("a.txt", "texts/a.txt", "link.txt", "b.txt")
    ]
    assert Corpus([path, other]).notes == []


def test_what_rillet_wrote_is_no_text(tmp_path: Path) -> None:
    """A model's card below a folder of notes is left out, and the notes beside it are kept."""
    write(tmp_path / "notes" / "a.txt", LINES)
    model = tmp_path / "notes" / "model"
    write(model / "README.md", "# A model card\n")
    write(model / "mine.md", "My own remarks\n")
    assert Corpus(tmp_path / "notes").names == (
        "notes/a.txt",
        "notes/model/README.md",
        "notes/model/mine.md",
    )
    write(model / "bundle.json", '{"format": "rillet-bundle", "files": {"more.txt": "0"}}')
    write(model / "more.txt", "listed\n")
    corpus = Corpus(tmp_path / "notes")
    assert corpus.names == ("notes/a.txt", "notes/model/mine.md")
    (note,) = corpus.notes
    assert "model/README.md, model/more.txt were left out: rillet's own" in note
    run = tmp_path / "notes" / "run"
    write(run / "checkpoint.safetensors", "")
    write(run / "tokens" / "notes.txt", "no text\n")
    assert Corpus(tmp_path / "notes").names == ("notes/a.txt", "notes/model/mine.md")


def test_the_files_of_a_run_are_known() -> None:
    assert {CHECKPOINT_FILE, STATE_FILE, LOG_FILE} < set(RUN_FILES)
    assert CARD == BUNDLE_CARD


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
    ],
)
def test_utf_16_is_named_with_its_conversion(tmp_path: Path, encoding: str, name: str) -> None:
    text = "The quick brown fox, naïve and old.\n" * 100
    path = write(tmp_path / "wide.txt", text, encoding)
    command = f"iconv -f {name} -t UTF-8"
    with pytest.raises(CorpusError, match=f"is {name}, not UTF-8; convert it first: {command}"):
        Corpus(path).scan()
    with pytest.raises(CorpusError, match=command):
        list(read_pieces(path))
    converted = subprocess.run([*command.split(), path], capture_output=True, check=True).stdout
    assert converted.decode() == text


def test_zeros_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "zeros.txt", LINES + "st\0ray\0\n")
    assert Corpus(path).scan().zeros == 2
    for _ in range(2):  # encoded, and reused
        assert prepare(Corpus(path), "auto", tmp_path / "tokens").zeros == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; give at least 2,000 characters"),
        (b" \n" * 3000, "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"short", "has only 5 characters; give at least 2,000"),
        (b"a" * 2_000, "is 'a' all the way through, so there is nothing to learn"),
    ],
)
def test_a_text_that_is_too_short_is_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read_corpus(str(path))


def test_line_endings_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "line é\r\n".encode() * 500)
    assert read_corpus(str(path)) == "line é\r\n" * 500


def test_the_builtin_corpus() -> None:
    corpus = Corpus(BUILTIN)
    assert "".join(corpus.blocks()) == builtin_corpus() == read_corpus(BUILTIN)
    assert corpus.names == (BUILTIN,)
    assert corpus.size == len(builtin_corpus().encode())
    assert corpus.stamp() == Corpus(BUILTIN).stamp()


@given(
    text=st.text(st.sampled_from("a\n\r é水\U0001f600"), max_size=300),
    size=st.integers(1, 50),
)
def test_pieces_join_to_the_text(
    text: str, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text += "bc" * MIN_CHARACTERS
    path = write(tmp_path_factory.getbasetemp() / "pieces.txt", text)
    corpus = Corpus(path)
    pieces = list(corpus.blocks(size=size))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= size for piece in pieces)
    for piece in pieces[:-1]:
        assert piece.endswith("\n") or "\n" not in piece
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert (corpus.characters, set(corpus.symbols)) == (len(text), set(text))


def test_large_files_come_in_pieces_with_progress(tmp_path: Path) -> None:
    path = write(tmp_path / "large.txt", LINES * 700)
    seen: list[tuple[str, int, int]] = []
    corpus = Corpus(path)
    pieces = list(corpus.blocks(lambda *state: seen.append(state), "looking"))
    assert len(pieces) > 3
    assert "".join(pieces) == LINES * 700
    assert all(piece.endswith("\n") and len(piece) <= 1 << 20 for piece in pieces)
    assert len(seen) == len(pieces)
    assert seen[-1] == ("looking", path.stat().st_size, path.stat().st_size)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("bad", "byte"), [(b"\xff", "0xff"), (b"\xe6\xb0", "0xe6"), (b"\xed\xa0\x80", "0xed")]
)
@pytest.mark.parametrize("end", [b"", b" and on\n"])
@pytest.mark.parametrize("before", [0, 16_382, 50_001])
def test_a_byte_that_is_not_utf_8_is_named(
    tmp_path: Path, bom: bytes, bad: bytes, byte: str, end: bytes, before: int
) -> None:
    path, good = tmp_path / "bad.txt", write(tmp_path / "good.txt", LINES)
    path.write_bytes(bom + b"a" * before + bad + end)
    message = rf"bad\.txt is not UTF-8: byte {byte} at offset {before + len(bom):,}; convert"
    with pytest.raises(CorpusError, match=message):
        Corpus([good, path]).scan()


def test_a_corpus_that_changes_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "text.txt", LINES)
    corpus = Corpus(path)
    before = corpus.stamp()
    assert corpus.scan() is corpus.scan()
    write(path, LINES.replace("199", "200"))
    assert corpus.stamp() != before
    with pytest.raises(CorpusError, match="changed while it was being read"):
        list(corpus.blocks())


class Server(ThreadingHTTPServer):
    """Answers every request with the same bytes, and counts the requests."""

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.data, self.requests = data, 0

    def remote(self, data: bytes, path: str = "/input.txt") -> Remote:
        url = f"http://127.0.0.1:{self.server_port}{path}"
        return Remote("little", url, len(data), hashlib.sha256(data).hexdigest())


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(self.server.data)))
        self.end_headers()
        self.wfile.write(self.server.data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(LINES.encode()) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_named_corpus_is_downloaded_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RILLET_CACHE", str(tmp_path / "new" / "cache"))
    monkeypatch.setattr(text_sources, "TINYSHAKESPEARE", server.remote(LINES.encode()))
    for _ in range(2):
        corpus = Corpus("little")
        assert "".join(corpus.blocks()) == LINES
        assert corpus.names == ("little",)
    assert server.requests == 1
    path = cache_folder() / "little.txt"
    path.write_bytes(b"damaged")
    assert read_corpus("little") == LINES
    assert server.requests == 2
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("other", [LINES[:-1] + "!", LINES + "more", LINES[:-1]])
def test_a_download_with_a_wrong_hash_is_discarded(
    tmp_path: Path, server: Server, other: str
) -> None:
    expected = server.remote(LINES.encode())
    server.data = other.encode()
    with pytest.raises(CorpusError, match=rf"instead of .* {expected.sha256}; give the file"):
        fetch(expected, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_stops_at_the_expected_size(tmp_path: Path, server: Server) -> None:
    server.data = b"x" * 1_000_000
    with pytest.raises(CorpusError, match="sent 101 bytes"):
        fetch(server.remote(b"y" * 100), tmp_path)


def test_a_failed_download_asks_for_the_file(tmp_path: Path, server: Server) -> None:
    data = LINES.encode()
    closed = Remote("little", "http://127.0.0.1:1/input.txt", len(data), "0" * 64)
    for remote in (server.remote(data, "/none"), closed):
        message = r"little cannot be downloaded.*--corpus FILE"
        with pytest.raises(CorpusError, match=message) as caught:
            fetch(remote, tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="cannot be downloaded"):
        fetch(server.remote(data), tmp_path / "file" / "cache")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_cache_folder_can_be_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RILLET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rillet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "rillet"


def test_tinyshakespeare_has_its_recorded_size_and_hash(
    tinyshakespeare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RILLET_CACHE", str(tmp_path))
    write(tmp_path / "tinyshakespeare.txt", tinyshakespeare)
    corpus = Corpus("tinyshakespeare")
    assert (corpus.characters, len(corpus.symbols)) == (TINYSHAKESPEARE.size, 65)
    assert TINYSHAKESPEARE.url.startswith("https://")
    assert corpus.sha256 == TINYSHAKESPEARE.sha256


@pytest.mark.parametrize("kind", tokenizers.TOKENIZERS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_corpus_becomes_tokens(tmp_path: Path, kind: str, on_disk: bool) -> None:
    corpus = Corpus([write(tmp_path / "1.txt", LINES), write(tmp_path / "2.txt", "The end")])
    seen: list[str] = []
    folder = tmp_path / "deep" / "tokens" if on_disk else None
    prepared = prepare(corpus, kind, folder, lambda what, *_: seen.append(what))
    text = LINES + "The end"
    assert prepared.tokenizer.source == make_tokenizer(text, kind).source
    assert prepared.tokens.tensor().tolist() == prepared.tokenizer.encode(text)
    assert (prepared.characters, prepared.names) == (len(text), ("1.txt", "2.txt"))
    assert prepared.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert prepared.unknown == ()
    assert seen == (["encoding"] if kind == "byte" else ["reading", "encoding"])


def corpus_symbols(path: Path) -> str:
    return "".join(sorted(set(read_corpus(str(path)))))


def test_tokens_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = write(tmp_path / "text.txt", LINES), tmp_path / "tokens"
    first = prepare(Corpus(path), "bpe", folder, vocab_size=300)
    names = {"corpus.tokens", "corpus.tokens.json", "tokenizer.json"}
    before = {name: (folder / name).read_bytes() for name in names}
    calls: list[str] = []

    def counted(*arguments: object) -> object:
        calls.append("encoded")
        return encode(*arguments)

    encode = tokenizers.encode_blocks
    monkeypatch.setattr(tokenizers, "encode_blocks", counted)

    def again(text: str | None = None, kind: str = "bpe", size: int | None = 300) -> int:
        """How often the text was encoded."""
        calls.clear()
        if text is not None:
            write(path, text)
        corpus = Corpus(path)
        prepared = prepare(corpus, kind, folder, vocab_size=size)
        expected = prepared.tokenizer.encode(read_corpus(str(path)))
        assert prepared.tokens.tensor().tolist() == expected
        assert prepared.sha256 == corpus.sha256
        assert {entry.name for entry in folder.iterdir()} == names
        return len(calls)

    with monkeypatch.context() as patch:
        patch.setattr(Corpus, "blocks", partial(pytest.fail, "the text was read"))
        same = prepare(Corpus(path), "bpe", folder, vocab_size=300)
    assert (same.sha256, same.names) == (first.sha256, first.names)
    assert {name: (folder / name).read_bytes() for name in names} == before
    os.utime(path, (1, 1))
    assert again() == 0  # another modification time, but the same text
    assert str(tmp_path) not in (folder / "corpus.tokens.json").read_text()
    assert again(size=310) == 1
    assert again(kind="auto", size=None) == 1
    assert again(kind="auto", size=None) == 0
    assert again(LINES[:-2] + ".\n", "auto", None) == 1
    for name in names:
        (folder / name).write_bytes((folder / name).read_bytes()[:-3])
        assert again(kind="auto", size=None) == 1, name
    partial_tokenizer = make_tokenizer("only these", "char")
    for count in (1, 0):
        calls.clear()
        prepared = prepare(Corpus(path), partial_tokenizer, folder)
        expected = partial_tokenizer.encode(read_corpus(str(path)))
        assert prepared.tokens.tensor().tolist() == expected
        assert prepared.unknown == tuple(partial_tokenizer.unknown(corpus_symbols(path)))
        assert len(calls) == count


def test_a_scanned_corpus_whose_file_changed_is_read_again(tmp_path: Path) -> None:
    path, folder = write(tmp_path / "text.txt", LINES), tmp_path / "tokens"
    corpus = Corpus(path)
    prepare(corpus, "char", folder)
    changed = LINES.replace("é", "e")
    write(path, changed)
    prepared = prepare(corpus, "char", folder)
    assert prepared.tokens.tensor().tolist() == prepared.tokenizer.encode(changed)
    assert prepared.sha256 == hashlib.sha256(changed.encode()).hexdigest()


def test_a_failure_keeps_the_old_tokens(tmp_path: Path) -> None:
    path, folder = write(tmp_path / "text.txt", LINES), tmp_path / "tokens"
    prepare(Corpus(path), "byte", folder)
    before = (folder / "corpus.tokens").read_bytes()
    with pytest.raises(CorpusError, match=r"has none of the corpus's \d+ characters, such as"):
        prepare(Corpus(path), make_tokenizer("XYZ", "char"), folder)
    path.write_bytes(LINES.encode() * 20 + b"\xff")
    with pytest.raises(CorpusError, match="not UTF-8"):
        prepare(Corpus(path), "auto", folder)
    with pytest.raises(CorpusError, match="not UTF-8"):
        prepare(Corpus(path), "bpe", folder)
    assert (folder / "corpus.tokens").read_bytes() == before
    assert len(list(folder.iterdir())) == 3


def test_a_large_corpus_needs_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "MAX_IN_MEMORY", 1_000)
    with pytest.raises(UsageError, match="the 1,000 that are kept in memory; give a folder"):
        prepare(Corpus(write(tmp_path / "text.txt", LINES)))


@pytest.mark.parametrize(
    "kind", ["byte", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("char", "bpe"))]
)
def test_memory_stays_bounded(tmp_path: Path, kind: str) -> None:
    """Peak memory grows by less than 150 MB over a corpus of 60 MB and its co-occurrences.

    BPE would take minutes for that much text; half of it is enough to show any growth.
    """
    path, blocks = tmp_path / "large.txt", 30 if kind == "bpe" else 60
    with path.open("wb") as file:
        for number in range(blocks):
            lines = (f"{number} {index * 7919 % 9973} some words\n" for index in range(52_000))
            file.write("".join(lines).encode())
    assert path.stat().st_size > blocks * 900_000
    script = (
        "import json, resource, sys; from pathlib import Path\n"
        "from rillet.train.data.corpus import Corpus\n"
        "from rillet.train.data.tokenizers import prepare\n"
        "from rillet.train.model.embedder import fit_codes\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3\n"
        "before = peak()\n"
        "prepared = prepare(Corpus(sys.argv[1]), sys.argv[2], Path(sys.argv[1] + '.tokens'))\n"
        "encoded = peak()\n"
        "fit_codes(prepared.tokens, prepared.tokenizer.vocab_size, 16)\n"
        "print(json.dumps([encoded - before, peak() - before, len(prepared.tokens)]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path), kind], capture_output=True, text=True, check=True
    )
    encoded, fitted, tokens = json.loads(result.stdout)
    assert encoded < 150, f"encoding took {encoded:.0f} MB"
    assert fitted < 250, f"with codes, {fitted:.0f} MB"  # includes mapped pages of the token file
    assert tokens > 5_000_000


def test_suffixes_are_lower_case() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)


ANY_BYTES = bytes(range(256)) * 20


def test_bytes_that_are_no_text_are_tokens(tmp_path: Path) -> None:
    """In files of any cut, and with the hash of the file itself."""
    path, folder = tmp_path / "any.bin", tmp_path / "tokens"
    path.write_bytes(ANY_BYTES)
    for _ in range(2):  # the second time they are reused
        prepared = prepare(Corpus(path), "byte", folder)
        tokens = prepared.tokens.tensor().tolist()
        assert b"".join(prepared.tokenizer.token_bytes[token] for token in tokens) == ANY_BYTES
        assert prepared.sha256 == hashlib.sha256(ANY_BYTES).hexdigest()
        assert prepared.unknown == ()
    assert len(prepare(Corpus(path), prepared.tokenizer).tokens) == len(ANY_BYTES)
    for kind in ("char", "bpe", "auto"):
        with pytest.raises(CorpusError, match=r"byte 0x80 at offset 128.*tokenizer byte"):
            prepare(Corpus(path), kind)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_text_with_stray_bytes_needs_byte_tokens(kind: str) -> None:
    text = ANY_BYTES.decode("utf-8", "surrogateescape")
    with pytest.raises(CorpusError, match="the byte 0x80, which is not UTF-8"):
        make_tokenizer(text, kind)
    assert make_tokenizer(text).reads_any_bytes


def test_a_configuration_for_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / "any.bin"
    path.write_bytes(ANY_BYTES)
    config = infer(Corpus(path).as_bytes())
    assert (config.training.tokenizer, config.vocab_size) == ("byte", 256)
    with pytest.raises(CorpusError, match="tokenizer byte"):
        infer(path)


LOG = "".join(f"request {n * 7919 % 1000} from {n * 31 % 97} took a while\n" for n in range(900))


@pytest.mark.parametrize("text", [builtin_corpus()[:60_000], LOG], ids=["prose", "log"])
@pytest.mark.parametrize("first", [0x410, 0x905, 0x4E00], ids=["Cyrillic", "Devanagari", "Han"])
def test_repetition_does_not_depend_on_the_alphabet(tmp_path: Path, text: str, first: int) -> None:
    """A character is a character, however many bytes its place in Unicode takes."""
    other = "".join(chr(first + ord(c) - 65) if c.isascii() and c.isalpha() else c for c in text)
    latin = infer(write(tmp_path / "latin.txt", text), memory_key="reservoir")
    same = infer(write(tmp_path / "other.txt", other), memory_key="reservoir")
    assert (same.memory, same.reasons[-2]) == (latin.memory, latin.reasons[-2])
    assert ("repetitive" in latin.reasons[-2]) == (text is LOG)
