"""A hub on loopback that answers as the Hugging Face Hub does for the files of a repository."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/net"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        self.server.requests.append(f"{self.command} {self.path}")
        parts = self.path.strip("/").split("/")
        known = "/".join(parts[:2]) == REPOSITORY and parts[2:3] == ["resolve"]
        revision, name = (parts[3], "/".join(parts[4:])) if known else ("", "")
        if not known:
            self._refuse(401, "RepoNotFound")
        elif revision not in ("main", "v1", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif name not in self.server.files:
            self._refuse(404, "EntryNotFound")
        else:
            content = self.server.files[name]
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(self.server.sizes.get(name, len(content))))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    def _refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve files as the repository `REPOSITORY`; `requests` of what is yielded says what was asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.files, server.sizes, server.requests = files, {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def point_to(url, monkeypatch):
    """Let huggingface_hub ask another server, as HF_ENDPOINT would have when it was imported."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)
