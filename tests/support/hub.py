"""A local server that speaks what the Hugging Face Hub's own clients ask of it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["Hub", "serve_hub"]

_REPOSITORY = r"/api/(?:models|datasets)/(?P<name>[\w.-]+/[\w.-]+)"
_INFO = re.compile(rf"{_REPOSITORY}(?:/revision/(?P<revision>[^/?]+))?")
_TREE = re.compile(rf"{_REPOSITORY}/tree/(?P<revision>[^/?]+)(?:/(?P<path>.*))?")
_PATHS = re.compile(rf"{_REPOSITORY}/paths-info/(?P<revision>[^/?]+)")
_PREUPLOAD = re.compile(rf"{_REPOSITORY}/preupload/[^/?]+")
_COMMIT = re.compile(rf"{_REPOSITORY}/commit/(?P<revision>[^/?]+)")
_FILE = re.compile(
    r"/(?:datasets/)?(?P<name>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/?]+)/(?P<path>.+)"
)


class Hub:
    """Repositories: for each name, the files of each revision; ``main`` is the default."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.url = ""

    def add(self, name: str, folder: Path, revision: str = "main") -> None:
        """Put a folder's files into a repository."""
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.repositories.setdefault(name, {})[revision] = files

    def files(self, name: str, revision: str | None) -> dict[str, bytes] | None:
        """The files of a revision, which may be given by its commit."""
        revisions = self.repositories.get(name, {})
        for known, files in revisions.items():
            if (revision or "main") in (known, commit(files)):
                return files
        return None

    def environment(self, home: Path) -> dict[str, str]:
        """What lets a process use this hub, and a cache of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": "hf_of_the_test",
            "HF_HUB_DISABLE_XET": "1",  # a protocol of its own, for large files
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "no_proxy": "127.0.0.1",
        }


def commit(files: dict[str, bytes]) -> str:
    """What names a revision for good."""
    digest = hashlib.sha1(usedforsecurity=False)
    for path, data in sorted(files.items()):
        digest.update(path.encode() + b"\0" + data)
    return digest.hexdigest()


@contextlib.contextmanager
def serve_hub() -> Iterator[Hub]:
    """Serve an empty hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if match := _FILE.fullmatch(path):
            return self._send_file(match["name"], match["revision"], match["path"])
        for pattern, answer in ((_INFO, self._info), (_TREE, self._tree)):
            if match := pattern.fullmatch(path):
                files = self.served.files(match["name"], match["revision"])
                if files is None:
                    return self._refuse(match["name"])
                return self._send_json(answer(match["name"], files))
        return self._refuse(path)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'owner'}/{asked['name'].rpartition('/')[2]}"
            self.served.repositories.setdefault(name, {"main": {}})
            return self._send_json({"url": f"{self.served.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self._send_json({"errors": [], "warnings": []})
        if match := _PREUPLOAD.fullmatch(path):
            names = [entry["path"] for entry in json.loads(body)["files"]]
            modes = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]
            return self._send_json({"files": modes})
        if match := _COMMIT.fullmatch(path):
            return self._commit(match["name"], match["revision"], body)
        if match := _PATHS.fullmatch(path):
            files = self.served.files(match["name"], match["revision"]) or {}
            return self._send_json(self._tree(match["name"], files))
        return self._refuse(path)

    def _info(self, name: str, files: dict[str, bytes]) -> dict[str, Any]:
        siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        known = {"id": name, "private": False, "gated": False, "disabled": False, "tags": []}
        return {**known, "sha": commit(files), "siblings": siblings, "usedStorage": 0}

    def _tree(self, name: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": path, "size": len(data), "oid": commit({path: data})}
            for path, data in files.items()
        ]

    def _commit(self, name: str, revision: str, body: bytes) -> None:
        files = self.served.repositories[name].setdefault(revision, {})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                assert line["value"]["encoding"] == "base64"
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        url = f"{self.served.url}/{name}/commit/{commit(files)}"
        self._send_json({"commitUrl": url, "commitOid": commit(files), "success": True})

    def _send_file(self, name: str, revision: str, path: str) -> None:
        files = self.served.files(name, revision)
        if files is None or path not in files:
            return self._refuse(f"{name}/{path}", "EntryNotFound" if files else "RepoNotFound")
        more = {"X-Repo-Commit": commit(files), "ETag": f'"{commit({path: files[path]})}"'}
        return self._send(200, files[path], more)

    def _send_json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, what: str, code: str = "RepoNotFound") -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Error-Message": f"{what} not found"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
