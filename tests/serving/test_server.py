"""The command as a process of its own: its address, what signals do, and its page in a browser."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import visionforge as vf
from tests.cli.test_predict_images import noise
from tests.evaluation.test_explain import model_of
from tests.export.test_formats import export, knowing
from tests.serving import browser
from tests.serving.helpers import encoded, png
from visionforge.cli.main import main

pytest.importorskip("starlette")
pytest.importorskip("onnxruntime")

# A finder before all others, so that no torch can be imported
WITHOUT_TORCH = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "lightning", "pytorch_lightning", "torchmetrics"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from visionforge.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An exported network of three classes with sets and a score; do not change it."""
    folder = tmp_path_factory.mktemp("artifact")
    export(knowing(model_of("mini_cnn"), "energy"), folder, formats=("onnx",))
    (folder / "a.png").write_bytes(png())
    return folder / "model.onnx"


@pytest.fixture
def served(artifact):
    """A function that starts `serve` without torch; gives the process and the port."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-c", WITHOUT_TORCH, "serve", str(artifact), "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        line = process.stdout.readline()
        found = re.fullmatch(r".*model\.onnx: http://[\d.]+:(\d+) \(Ctrl-C ends it\)\n", line)
        assert found, line + process.stderr.read()
        return process, int(found[1])

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def post(port, content, kind="application/json"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/predict", content, {"content-type": kind})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_waits_for_requests_in_work(served, name):
    process, port = served("--max_wait_ms", "20000", "--batch_size", "2")
    content = json.dumps({"images": [encoded(png())]}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as other:
        head = ("POST /predict HTTP/1.1", "Host: localhost", "Content-Type: application/json")
        other.sendall("\r\n".join([*head, f"Content-Length: {len(content)}", "", ""]).encode())
        time.sleep(0.2)
        connection.request("POST", "/predict", content, {"content-type": "application/json"})
        time.sleep(0.4)  # it waits for the picture of the other one
        os.kill(process.pid, getattr(signal, name))
        time.sleep(0.2)
        other.sendall(content)
        assert other.recv(100).startswith(b"HTTP/1.1 200 OK")
        response = connection.getresponse()
        assert response.status == 200
        assert len(json.loads(response.read())["predictions"]) == 1
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out == "stopped; everything was answered\n"


def test_predict_and_serve_need_no_torch(served, artifact, tmp_path):
    """The same numbers, too, as with it."""
    (tmp_path / "p").mkdir()
    paths = [tmp_path / "p" / f"{number}.png" for number in range(3)]
    for path, value in zip(paths, (10, 120, 250), strict=True):
        path.write_bytes(png(value, (40, 30)))
    asked = ["predict", "--model", str(artifact), "--images", "p", "--out"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *asked, "without.jsonl"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert main([*asked, "with.jsonl"]) == 0
    assert (tmp_path / "with.jsonl").read_text() == (tmp_path / "without.jsonl").read_text()
    _, port = served()
    status, said = post(port, json.dumps({"images": [encoded(path.read_bytes()) for path in paths]}).encode())
    assert status == 200
    for answer, line in zip(said["predictions"], (tmp_path / "with.jsonl").read_text().splitlines(), strict=True):
        row = json.loads(line)
        assert answer["prediction"] == row["prediction"]
        assert answer["ood_score"] == pytest.approx(row["ood_score"], rel=1e-6)
        for name, value in answer["probabilities"].items():
            assert value == pytest.approx(row[f"probability_{name}"], rel=1e-5)


@pytest.mark.slow
def test_functions_that_predict_and_serve_need_no_torch(artifact, tmp_path):
    """Not only the commands."""
    (tmp_path / "one.png").write_bytes(png(120, (40, 30)))
    head = WITHOUT_TORCH.rpartition("from visionforge")[0]
    code = (
        f"{head}import visionforge as vf\n"
        f"print(vf.predict({str(artifact)!r}, 'one.png').table['prediction'][0])\n"
        f"print(type(vf.serving_app({str(artifact)!r})).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-1] == "Starlette"


def test_what_needs_torch_says_so(tmp_path):
    (tmp_path / "x.safetensors").touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "serve", "x.safetensors"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: x.safetensors: needs torch: pip install torch torchvision\n"


@pytest.mark.parametrize(
    ("flags", "statuses"),
    [
        ((), {"evil.example": 400, "localhost": 200, "127.0.0.1:8000": 200}),
        (("--host", "0.0.0.0"), {"evil.example": 200, "localhost": 200}),
        (("--host", "0.0.0.0", "--allowed_hosts", "mine.example"), {"evil.example": 400, "mine.example": 200}),
    ],
)
def test_names_by_which_browsers_may_ask(served, flags, statuses):
    _, port = served(*flags)
    for host, status in statuses.items():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/health", headers={"host": host})
        response = connection.getresponse()
        assert response.status == status
        assert response.getheader("server") is None


def test_an_address_that_is_taken_or_is_none_is_one_line(refuse):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (line,) = refuse("serve", "x.onnx", "--port", str(port))
        assert line.startswith(f"--port: {port} of 127.0.0.1 cannot be listened at (")
        assert line.endswith("choose another, or 0")
    (line,) = refuse("serve", "x.onnx", "--port", "70000")
    assert line == "--port: 70000 is not allowed; allowed: 0 (one that is free) to 65535"
    assert refuse("serve", "x.onnx", "--host", "no such name")[0].startswith("--host: no such name is no address")
    assert refuse("serve", "x.onnx", "--port", "0") == ["source: x.onnx does not exist"]
    assert refuse("serve", "x.onnx", "--max_queue", "0")[0].startswith("--max_queue: 0 is not allowed")
    assert refuse("serve")[0].startswith("serve: the following arguments are required: SOURCE")


def test_a_package_that_is_missing_is_told(refuse, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    (line,) = refuse("serve", "x.onnx")
    assert line == 'serve: needs uvicorn: pip install "visionforge-lightning[serve]"'


def test_the_runtime_has_as_many_threads_as_are_asked_for(artifact, monkeypatch):
    import onnxruntime

    given = []
    make = onnxruntime.InferenceSession

    def session(data, options, **further):
        given.append(options.intra_op_num_threads)
        return make(data, options, **further)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    vf.serving_app(artifact, num_threads=1)
    vf.predict(artifact, [artifact.with_name("a.png")], num_threads=2, out="a.csv")
    vf.serving_app(artifact)
    assert given == [1, 2, 0]


@pytest.mark.slow
@pytest.mark.skipif(browser.found() is None, reason="no Chromium here")
def test_a_browser_shows_what_is_said(served, tmp_path):
    from PIL import Image

    Image.fromarray(noise(1)[0]).save(tmp_path / "<b>bee.png")
    (tmp_path / "bad.png").write_bytes(b"text")
    _, port = served()
    with browser.browser(browser.found()) as page:
        page.open(f"http://127.0.0.1:{port}/")
        page.choose("#files", tmp_path / "<b>bee.png", tmp_path / "bad.png")
        page.until("document.getElementById('status').textContent === '2 pictures answered'")
        text = page.value("document.getElementById('results').innerText")
        assert "The file is no picture." in text
        assert "<b>bee.png" in text
        status, said = post(port, json.dumps({"images": [encoded((tmp_path / "<b>bee.png").read_bytes())]}).encode())
        assert status == 200
        (answer,) = said["predictions"]
        assert f"Set of classes: {', '.join(answer['set'])}." in text
        best = max(answer["probabilities"], key=answer["probabilities"].get)
        assert f"{best}\n{100 * answer['probabilities'][best]:.1f} %" in text
        assert page.value("document.querySelectorAll('.bars li').length") == 3
        assert page.value("document.querySelector('.picture img').naturalWidth") == 28
        # dropped, as with a mouse
        code = f"""(() => {{
          const given = new DataTransfer();
          const bytes = Uint8Array.from(atob("{encoded(png())}"), (each) => each.charCodeAt(0));
          given.items.add(new File([bytes], "dropped.png"));
          const dropped = new DragEvent("drop", {{ dataTransfer: given, bubbles: true }});
          document.getElementById("drop").dispatchEvent(dropped);
        }})()"""
        page.value(code)
        page.until("document.getElementById('status').textContent === '3 pictures answered'")
        assert "dropped.png" in page.value("document.querySelector('.result h2').innerText")
        # with the keyboard alone: the first stop is the choice of files, which has a name
        for kind in ("keyDown", "keyUp"):
            page.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert page.value("document.activeElement.id") == "files"
        assert page.value("document.activeElement.getAttribute('aria-label')") == "Pictures"
        page.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert page.value("document.documentElement.scrollWidth") <= 390
        refused = [each for each in page.complaints() if "422" not in each]  # of the file that is none
        assert not refused
