"""Downloads over real HTTPS from a server on loopback: whole and verified, or not there at all."""

import hashlib
import http.server
import multiprocessing
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate

import pytest

from visionforge.data.download import data_root, ensure_archive
from visionforge.data.info import Archive
from visionforge.data.registry import dataset_info
from visionforge.errors import DataError
from visionforge.fetch import Checksum, Retries, fetch

CONTENT = random.Random(0).randbytes(1 << 20)
MD5 = hashlib.md5(CONTENT).hexdigest()
LIMIT = len(CONTENT) + 1000
QUICK = Retries(attempts=3, backoff_s=0.01, max_wait_s=0.3, timeout_s=0.5)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT in several right and wrong ways; the first part of the path says which."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind = self.path.strip("/").split("/")[0]
        self.server.requests.append((kind, self.headers.get("Range")))
        seen = sum(1 for other, _ in self.server.requests if other == kind)
        answer = getattr(self, f"answer_{kind}", None)
        if answer is not None:
            answer(seen)
        else:
            self.send_content(CONTENT)
        self.close_connection = True

    def start_of_range(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def send_content(self, content, until=None, length=None, kind="application/octet-stream", ranges=True):
        start = self.start_of_range() if ranges else 0
        if start >= len(content) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content) - start if length is None else length))
        self.end_headers()
        self.wfile.write(content[start:until])
        self.wfile.flush()

    def refuse(self, code, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer_truncate(self, seen):
        self.send_content(CONTENT, until=self.start_of_range() + 300_000)

    def answer_stall(self, seen):
        self.send_content(CONTENT, until=self.start_of_range() + 400_000)
        time.sleep(0.8)

    def answer_reset(self, seen):
        if seen > 2:  # a reset may take what was already sent with it, so nothing need have arrived before
            self.send_content(CONTENT)
            return
        self.send_content(CONTENT, until=self.start_of_range() + 500_000)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def answer_dead(self, seen):
        self.send_content(CONTENT, until=1000)

    def answer_norange(self, seen):
        self.send_content(CONTENT, until=600_000 if seen == 1 else None, ranges=False)

    def answer_lies(self, seen):
        self.send_content(CONTENT, until=500_000, length=500_000)

    def answer_huge(self, seen):
        self.send_content(CONTENT, length=10**12)

    def answer_endless(self, seen):
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        for _ in range(4):
            self.wfile.write(CONTENT)

    def answer_page(self, seen):
        self.send_content(b"<html>login</html>", kind="text/html")

    def answer_wrong(self, seen):
        self.send_content(CONTENT[::-1])

    def answer_missing(self, seen):
        self.refuse(404)

    def answer_busy(self, seen):
        if seen == 1:
            self.refuse(429, Retry_After="0")
        elif seen == 2:
            self.refuse(503, Retry_After=formatdate(time.time() + 30, usegmt=True))
        else:
            self.send_content(CONTENT)

    def answer_closed(self, seen):
        self.refuse(503)

    def answer_downgrade(self, seen):
        self.refuse(302, Location="http://127.0.0.1:1/x.npz")

    def answer_moved(self, seen):
        self.refuse(302, Location="/good")

    def answer_slow(self, seen):
        start = self.start_of_range()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        for position in range(start, len(CONTENT), 16384):
            self.wfile.write(CONTENT[position : position + 16384])
            time.sleep(0.001)

    def log_message(self, *_):
        """Stay silent."""


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that are killed are part of the test."""


@pytest.fixture
def server(authority, monkeypatch):
    pem, context = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with Server(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests = []
        httpd.url = f"https://localhost:{httpd.server_port}"
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield httpd
        httpd.shutdown()


@pytest.fixture
def target(tmp_path):
    (tmp_path / "archives").mkdir()
    return tmp_path / "archives" / "x.npz"


def info_for(url: str):
    """Return an entry whose archive lies at `url`."""
    return dataset_info("breastmnist").model_copy(update={"archives": {28: Archive(url=url, md5=MD5)}})


@pytest.mark.parametrize("kind", ["good", "truncate", "stall", "reset", "norange", "busy", "moved"])
def test_file_arrives_whole(server, target, kind):
    fetch(f"{server.url}/{kind}", target, Checksum("md5", MD5), LIMIT, QUICK)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["x.npz"]


def test_failures_are_continued_not_repeated(server, target):
    fetch(f"{server.url}/truncate", target, Checksum("md5", MD5), LIMIT, QUICK)
    assert [wanted for _, wanted in server.requests] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_server_that_asks_to_wait_is_obeyed_within_bounds(server, target):
    started = time.monotonic()
    fetch(f"{server.url}/busy", target, Checksum("md5", MD5), LIMIT, QUICK)
    assert 0.25 < time.monotonic() - started < 2  # asked for 30 s, at most 0.3 s are granted
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("kind", "error", "complaint", "requests"),
    [
        ("page", DataError, "sent a page", 1),
        ("wrong", DataError, "expected", 1),
        ("lies", DataError, "expected", 1),
        ("downgrade", DataError, "not HTTPS", 1),
        ("huge", DataError, "more than this file can have", 1),
        ("endless", DataError, "more bytes than this file can have", 1),
        ("missing", OSError, "404", 1),
        ("closed", OSError, "the server answered 503, 3 times in a row", 3),
        ("dead", OSError, "the connection ended after 1,000", None),
    ],
)
def test_bad_answer_is_never_used(server, target, kind, error, complaint, requests):
    with pytest.raises(error, match=complaint):
        fetch(f"{server.url}/{kind}", target, Checksum("md5", MD5), LIMIT, QUICK)
    assert not target.exists()
    if requests is not None:
        assert len(server.requests) == requests


def test_part_of_another_file_is_not_kept(server, target):
    part = target.with_name("x.npz.part")
    for stale in (b"something else" * 1000, CONTENT + b"more"):
        part.write_bytes(stale)
        fetch(f"{server.url}/good", target, Checksum("md5", MD5), LIMIT, QUICK)
        assert target.read_bytes() == CONTENT
        assert not part.exists()
        target.unlink()


def test_whole_part_is_only_verified(server, target):
    target.with_name("x.npz.part").write_bytes(CONTENT)
    fetch(f"{server.url}/good", target, Checksum("md5", MD5), LIMIT, QUICK)
    assert target.read_bytes() == CONTENT


def test_plain_http_is_refused(target):
    with pytest.raises(DataError, match="only HTTPS"):
        fetch("http://localhost/x.npz", target, None, LIMIT)


def test_untrusted_server_is_refused_in_one_line(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DataError, match="the download failed"):
        ensure_archive(info_for(f"{server.url}/good"), 28, str(tmp_path / "new"), download=True)
    assert not (tmp_path / "new").exists()


def test_present_archive_needs_no_network(server, tmp_path):
    path = ensure_archive(info_for(f"{server.url}/good"), 28, str(tmp_path / "new"), download=True)
    assert path.read_bytes() == CONTENT
    assert ensure_archive(info_for("https://localhost:1/x"), 28, str(tmp_path / "new"), download=True) == path


def test_archive_without_an_address(tmp_path):
    info = dataset_info("breastmnist").model_copy(update={"archives": {28: Archive(url=None)}})
    with pytest.raises(DataError, match="no address to get it from"):
        ensure_archive(info, 28, str(tmp_path), download=True)


def download_in_another_process(info, folder, barrier):
    barrier.wait()
    assert ensure_archive(info, 28, folder, download=True).read_bytes() == CONTENT


def test_eight_processes_cause_one_download(server, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(8)
    arguments = (info_for(f"{server.url}/slow"), str(tmp_path / "new"), barrier)
    workers = [context.Process(target=download_in_another_process, args=arguments) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert len(server.requests) == 1


DOWNLOADER = """
import sys
from pathlib import Path
from visionforge.fetch import Checksum, fetch
print("ready", flush=True)
fetch(sys.argv[1], Path(sys.argv[2]), Checksum("md5", sys.argv[3]), int(sys.argv[4]))
"""


@pytest.mark.slow
def test_twenty_kills_end_with_a_good_file(server, target):
    """`kill -9` at random moments; every next start continues, and a bad file never gets the name."""
    generator, kills, finished = random.Random(1), 0, 0
    while kills < 20:
        command = [sys.executable, "-c", DOWNLOADER, f"{server.url}/slow", str(target), MD5, str(LIMIT)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=generator.uniform(0.0, 0.12))
            assert process.returncode == 0
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        if target.exists():
            assert target.read_bytes() == CONTENT
            target.unlink()
            finished += 1
    fetch(f"{server.url}/good", target, Checksum("md5", MD5), LIMIT)
    assert target.read_bytes() == CONTENT
    resumed = [wanted for _, wanted in server.requests if wanted]
    assert len(resumed) > 4


def test_root_is_flag_then_environment_then_cache(monkeypatch, tmp_path):
    assert data_root(None) == tmp_path / "cache" / "visionforge" / "datasets"
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "env"))
    assert data_root(None) == tmp_path / "env"
    assert data_root(str(tmp_path / "flag")) == tmp_path / "flag"
