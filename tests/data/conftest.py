"""A server of files on loopback, with a certificate that this process trusts."""

import http.server
import ssl
import threading

import pytest
import trustme


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the files of its server by name."""

    def do_GET(self):
        name = self.path.strip("/")
        self.server.requests.append(name)
        content = self.server.files.get(name)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        """Stay silent."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    ca = trustme.CA()
    pem = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return pem, context


@pytest.fixture
def server(authority, monkeypatch):
    pem, context = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.requests, httpd.files = [], {}
        httpd.url = f"https://localhost:{httpd.server_port}"
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield httpd
        httpd.shutdown()
