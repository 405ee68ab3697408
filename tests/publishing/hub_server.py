"""A hub on loopback that keeps repositories as the Hugging Face Hub does: made, committed to, and read, in memory."""

import base64
import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_owner"
LARGE = (".safetensors", ".onnx")  # what is sent by the protocol of Git LFS


@dataclass
class Repository:
    """Commits with all their files, the newest of every branch, and whether others may see it."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        """Add a commit and return its name."""
        told = f"{len(self.commits)}{sorted(files)}".encode()
        name = hashlib.sha1(told, usedforsecurity=False).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        self.messages.append(message)
        return name

    def at(self, revision: str) -> str | None:
        """Return the commit of a branch or a commit."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a branch or a commit."""
        return self.commits[self.branches.get(revision, revision)]


class Hub(http.server.ThreadingHTTPServer):
    """The server.

    Attributes:
        repositories: By name.
        answers: Part of a path → status, headers and body that are sent in the place of the right answer.
        requests: What was asked for.
        tokens: With what.
        claims: Name of a file → size that is claimed of it.
        endless: Names of files whose bodies do not end.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.large: dict[str, bytes] = {}
        self.claims: dict[str, int] = {}
        self.endless: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """Clients that go away are part of the tests."""

    def made(self, name: str, files: dict[str, bytes], private: bool = False) -> Repository:
        """Return a new repository with a commit."""
        self.repositories[name] = Repository(private)
        self.repositories[name].commit("main", files)
        return self.repositories[name]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self):
        self._handle()

    def do_GET(self):
        self._handle()

    def do_POST(self):
        self._handle()

    def do_PUT(self):
        self._handle()

    def log_message(self, *args):
        pass

    def _handle(self):
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if not path.startswith(("/cdn/", "/lfs/")):
            self.server.tokens.add(token)
        for part, (status, headers, body) in self.server.answers.items():
            if part in f"{self.command} {path}":
                return self._send(status, body, headers)
        if token not in (None, TOKEN):
            message = "Invalid credentials in Authorization header"
            return self._send(401, b"", {"X-Error-Message": message})
        self.owner = token == TOKEN
        parts = path.strip("/").split("/")
        if path.startswith("/api/models/"):
            return self._model("/".join(parts[2:4]), parts[4:])
        if path.startswith("/api/repos/create"):
            return self._create()
        if path == "/api/validate-yaml":
            return self._json({"warnings": [], "errors": []})
        if parts[0] in ("cdn", "lfs"):
            return self._large(parts[1])
        if parts[2:5] == ["info", "lfs", "objects"]:
            return self._batch()
        if parts[2] == "resolve":
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self._send(404)

    # --- repositories

    def _found(self, name):
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.owner):
            self._send(404 if self.owner else 401, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def _create(self):
        given = json.loads(self.body)
        name = f"{given['organization']}/{given['name']}"
        if not self.owner:
            return self._send(401, b"", {"X-Error-Message": "Invalid username or password."})
        self.server.repositories[name] = Repository(given.get("visibility") == "private" or given.get("private", False))
        self.server.repositories[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial")
        return self._json({"url": f"{self.server.url}/{name}", "id": name, "name": name})

    def _model(self, name, rest):
        found = self._found(name)
        if found is None:
            return None
        kind = rest[0] if rest else "revision"
        revision = "/".join(rest[1:]) or "main"
        if kind == "branch":
            found.branches.setdefault(revision, found.branches["main"])
            return self._send(200)
        commit = found.at(revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        if kind == "revision":
            siblings = [{"rfilename": file} for file in found.files(commit)]
            return self._json({"id": name, "sha": commit, "private": found.private, "siblings": siblings})
        if not self.owner:
            return self._send(403, b"", {"X-Error-Message": "you may not write"})
        if kind == "preupload":
            return self._json(
                {"files": [self._mode(found, commit, each["path"]) for each in json.loads(self.body)["files"]]}
            )
        assert kind == "commit"
        return self._commit(name, found, revision)

    def _mode(self, found, commit, path):
        content = found.files(commit).get(path)
        large = path.endswith(LARGE)
        told = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if content is None:
            return told
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return {**told, "oid": hashlib.sha256(content).hexdigest() if large else git.hexdigest()}

    def _commit(self, name, found, revision):
        lines = [json.loads(line) for line in self.body.splitlines()]
        head = lines[0]["value"]
        if head.get("parentCommit") not in (None, found.branches[revision]):
            return self._send(412, b"", {"X-Error-Message": "A commit has happened since."})
        files = dict(found.files(revision))
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                del files[value["path"]]
        made = found.commit(revision, files, head["summary"])
        return self._json({"commitUrl": f"{self.server.url}/{name}/commit/{made}", "commitOid": made})

    # --- files

    def _batch(self):
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}", "header": {}}}}
            for each in json.loads(self.body)["objects"]
        ]
        return self._json({"transfer": "basic", "objects": objects})

    def _large(self, digest):
        if self.command == "PUT":
            self.server.large[digest] = self.body
            return self._send(200)
        return self._send(200, self.server.large[digest])

    def _resolve(self, name, revision, path):
        found = self._found(name)
        if found is None:
            return None
        commit = found.at(revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        headers = {"X-Repo-Commit": commit}
        if path not in found.files(commit):
            return self._send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
        content = found.files(commit)[path]
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        if path in self.server.endless:
            return self._flood(headers)
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            self.server.large[digest] = content
            headers |= {"Location": f"{self.server.url}/cdn/{digest}", "X-Linked-Size": str(len(content))}
            return self._send(302, b"", headers)
        if "gzip" in self.headers.get("Accept-Encoding", ""):  # texts come packed, if the client takes them
            content, headers["Content-Encoding"] = gzip.compress(content), "gzip"
        return self._send(200, content, headers, self.server.claims.get(path))

    # --- answers

    def _flood(self, headers):
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        while self.command != "HEAD":  # until the client goes away
            self.wfile.write(b"x" * 65536)

    def _json(self, content):
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status, body=b"", headers=None, size=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running() -> Iterator[Hub]:
    """Run a hub."""
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
