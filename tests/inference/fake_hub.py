"""A small stand-in for the hub's HTTP API on 127.0.0.1: enough to commit, list and fetch files."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class FakeHub(ThreadingHTTPServer):
    """Repositories in memory: name -> commit -> file name -> content.

    Attributes:
        commits: Per repository, the commits in order, each a mapping of files.
        branches: Per repository, branch or tag -> number of the commit.
        requests: ``METHOD path`` of what was asked, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, int]] = {}
        self.requests: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Add files on top of a branch; return the commit's hash."""
        history = self.commits.setdefault(name, [{}])
        heads = self.branches.setdefault(name, {"main": 0})
        history.append({**history[heads.get(branch, heads["main"])], **files})
        heads[branch] = len(history) - 1
        return self.hash(name, heads[branch])

    def hash(self, name: str, number: int) -> str:
        return hashlib.sha1(f"{name}/{number}".encode()).hexdigest()

    def find(self, name: str, revision: str) -> int | None:
        """Number of the commit that a branch or hash names."""
        if revision in self.branches[name]:
            return self.branches[name][revision]
        hashes = [self.hash(name, number) for number in range(len(self.commits[name]))]
        return hashes.index(revision) if revision in hashes else None


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
            self.server.commits.setdefault(name, [{}])
            self.server.branches.setdefault(name, {"main": 0})
            self._json({"url": f"{self.server.address}/{name}"})
        elif parts[:2] == ["api", "models"] and len(parts) > 4:
            self._api("/".join(parts[2:4]), parts[4], "/".join(parts[5:]), body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            self._error(404, "", "not served here")

    def _api(self, name: str, verb: str, rest: str, body: bytes) -> None:
        if name not in self.server.commits:
            self._error(404, "RepoNotFound", "Repository not found")
        elif verb == "preupload":
            files = [{**f, "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            self._json({"files": files})
        elif verb == "commit":
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"])
                     for line in lines if line["key"] == "file"}  # fmt: skip
            found = self.server.commit(name, files, rest)
            self._json({"commitUrl": f"{self.server.address}/{name}/commit/{found}",
                        "commitOid": found, "hookOutput": ""})  # fmt: skip
        elif verb == "revision":
            number = self.server.find(name, rest)
            if number is None:
                self._error(404, "RevisionNotFound", "Revision not found")
                return
            siblings = [{"rfilename": file} for file in self.server.commits[name][number]]
            self._json({"id": name, "sha": self.server.hash(name, number), "siblings": siblings})
        else:
            self._error(404, "", f"{verb} is not served here")

    def _file(self, name: str, revision: str, file: str) -> None:
        if name not in self.server.commits:
            self._error(404, "RepoNotFound", "Repository not found")
            return
        number = self.server.find(name, revision)
        if number is None:
            self._error(404, "RevisionNotFound", "Revision not found")
            return
        content = self.server.commits[name][number].get(file)
        commit = self.server.hash(name, number)
        if content is None:
            self._error(404, "EntryNotFound", "Entry not found", commit)
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str, text: str, commit: str | None = None) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", text)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def fake_hub(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    """A hub of its own, which the client talks to and caches in a folder of its own."""
    import huggingface_hub.utils
    from huggingface_hub import constants

    server = FakeHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Where huggingface_hub 0.26 looks for it.
    monkeypatch.setattr(
        "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    # Before 1.0 a session once made keeps to what held then, such as being offline.
    getattr(huggingface_hub.utils, "reset_sessions", lambda: None)()
    yield server
    server.shutdown()
    server.server_close()
