"""Downloads over real HTTPS from a server on loopback: whole and verified, or not there at all."""

import hashlib
import http.server
import ssl
import threading

import pytest
import trustme

from visionforge.data.download import data_root, ensure_archive, fetch
from visionforge.data.info import Archive
from visionforge.data.registry import dataset_info
from visionforge.errors import DataError

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, in several wrong ways."""

    def do_GET(self):
        kind = self.path.strip("/")
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "downgrade":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/x.npz")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if kind == "page" else "application/octet-stream")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if kind == "short" else CONTENT[::-1] if kind == "wrong" else CONTENT)

    def log_message(self, *_):
        """Stay silent."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"https://localhost:{httpd.server_port}"
        httpd.shutdown()


def test_good_file_arrives_whole(server, tmp_path):
    fetch(f"{server}/good", tmp_path / "x.npz", MD5)
    assert (tmp_path / "x.npz").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("kind", "error", "complaint"),
    [
        ("page", DataError, "sent a page"),
        ("wrong", DataError, "the catalog says"),
        ("downgrade", DataError, "not HTTPS"),
        ("short", OSError, None),
        ("missing", OSError, "404"),
    ],
)
def test_bad_answer_leaves_nothing(server, tmp_path, kind, error, complaint):
    folder = tmp_path / "archives"
    folder.mkdir()
    with pytest.raises(error, match=complaint):
        fetch(f"{server}/{kind}", folder / "x.npz", MD5)
    assert list(folder.iterdir()) == []


def test_plain_http_is_refused(tmp_path):
    with pytest.raises(DataError, match="only HTTPS"):
        fetch("http://localhost/x.npz", tmp_path / "x.npz", None)


def test_untrusted_server_is_refused_in_one_line(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    info = dataset_info("breastmnist").model_copy(update={"archives": {28: Archive(url=f"{server}/good", md5=MD5)}})
    with pytest.raises(DataError, match="the download failed"):
        ensure_archive(info, 28, str(tmp_path / "archives"), download=True)
    assert not (tmp_path / "archives").exists()


def test_missing_archive_is_downloaded_once(server, tmp_path):
    info = dataset_info("breastmnist").model_copy(update={"archives": {28: Archive(url=f"{server}/good", md5=MD5)}})
    folder = tmp_path / "archives"
    path = ensure_archive(info, 28, str(folder), download=True)
    assert path.read_bytes() == CONTENT
    gone = info.model_copy(update={"archives": {28: Archive(url="https://localhost:1/x", md5=MD5)}})
    assert ensure_archive(gone, 28, str(folder), download=True) == path


def test_root_is_flag_then_environment_then_cache(monkeypatch, tmp_path):
    assert data_root(None) == tmp_path / "cache" / "visionforge" / "datasets"
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "env"))
    assert data_root(None) == tmp_path / "env"
    assert data_root(str(tmp_path / "flag")) == tmp_path / "flag"
