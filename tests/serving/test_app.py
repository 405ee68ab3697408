"""The routes, their limits, and that what they say is what `predict` says."""

import base64
import gzip
import io
import json
import re
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import visionforge as vf
from tests.cli.test_predict_images import checkpoint, photos  # noqa: F401  # a fixture
from tests.engine.test_box_predictions import made, picture, saved
from tests.evaluation.test_explain import model_of
from tests.export.test_formats import export, knowing
from tests.runs.helpers import wait_for
from tests.serving.helpers import CLASSES, Stub, encoded, files, png
from tests.tasks.helpers import box_spec, mask_model
from visionforge.errors import RunError, SettingsError

pytest.importorskip("starlette")
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from visionforge.serving.app import service_app
from visionforge.serving.settings import ServingSettings


@pytest.fixture
def asked():
    """A function that gives a client of a stub; its settings are those that are given."""
    open_clients = []

    def make(stub=None, hosts=None, **settings):
        given = ServingSettings(**{"max_wait_ms": 0.0, **settings})
        client = TestClient(service_app((stub or Stub()).network(), given, allowed_hosts=hosts, threads=2))
        open_clients.append(client.__enter__())
        return client

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)


# --- what is said


def rows(network, pictures, **settings):
    vf.predict(network, pictures, out="said.jsonl", overwrite=True, batch_size=12, **settings)
    with open("said.jsonl", encoding="utf-8") as file:  # noqa: PTH123
        return [json.loads(line) for line in file]


def answers(network, pictures, **settings):
    settings = {"max_wait_ms": 2000, "batch_size": 12, **settings}
    paths = sorted(pictures.iterdir())
    with TestClient(vf.serving_app(network, **settings)) as client:
        given = client.post("/predict", files=files(*(path.read_bytes() for path in paths), names=map(str, paths)))
        assert given.status_code == 200, given.text
        return given.json()["predictions"]


def assert_same(row, answer, classes):
    """Compare a row of the table with an answer, number by number."""
    for kind in ("probability", "raw_probability", "raw_tta_probability"):
        plural = kind.replace("probability", "probabilities")
        assert (f"{kind}_{classes[0]}" in row) == (plural in answer)
        for name, value in answer.get(plural, {}).items():
            assert row.pop(f"{kind}_{name}") == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert row.pop("path").endswith(answer["name"])
    for name, value in row.items():
        if name in ("set", "prediction") and isinstance(answer[name], list):
            assert value == "|".join(answer[name])
        elif isinstance(value, float):
            assert answer[name] == pytest.approx(value, rel=1e-6, abs=1e-9)
        else:
            assert answer[name] == value
    assert set(answer) - {"name", "probabilities", "raw_probabilities", "raw_tta_probabilities"} == set(row)


@pytest.mark.parametrize("tta", ["off", "full"])
@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label", "ordinal"])
def test_every_task_says_what_predict_says(photos, task, tta):  # noqa: F811
    classes = ("no", "yes") if task == "binary" else ("ant", "bee", "cat", "dog")
    checkpoint("x.ckpt", task, classes, tta, loss="ordinal" if task == "ordinal" else "auto")
    wanted, found = rows("x.ckpt", photos), answers("x.ckpt", photos)
    assert len(wanted) == len(found) == 12
    for row, answer in zip(wanted, found, strict=True):
        assert_same(row, answer, classes)
    assert isinstance(found[0]["prediction"], list) == (task == "multi-label")


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_artifacts_say_their_sets_and_how_far_out_images_are(photos, tmp_path, kind):  # noqa: F811
    pytest.importorskip("onnxruntime")
    model = knowing(model_of("mini_cnn", classes=4), "energy")
    export(model, tmp_path, formats=(kind,))
    path = tmp_path / f"model.{kind}"
    wanted, found = rows(path, photos), answers(path, photos)
    for row, answer in zip(wanted, found, strict=True):
        assert {"set", "abstain", "ood_score"} <= set(answer)
        assert_same(row, answer, model.spec.classes)


@pytest.mark.parametrize("kind", [".npy", ".nii.gz"])
def test_volumes(tmp_path, kind):
    torch.manual_seed(0)
    spec = vf.TaskSpec(classes=2, channels=1, spatial_dims=3, resolution=16)
    model = vf.ImageClassifier("mini_cnn", spec=spec)
    model.configure_model()
    saved(model, tmp_path / "x.ckpt")
    folder = tmp_path / "volumes"
    folder.mkdir()
    volume = np.random.default_rng(0).integers(0, 256, (16, 16, 16), dtype=np.uint8)
    if kind == ".npy":
        np.save(folder / "a.npy", volume)
    else:
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "a.nii.gz")
    (row,), (answer,) = rows("x.ckpt", folder), answers("x.ckpt", folder)
    kept = dict(row)
    assert_same(row, answer, model.spec.classes)
    with TestClient(vf.serving_app("x.ckpt", max_pixels=1000)) as client:
        content = next(folder.iterdir()).read_bytes()
        told = client.post("/predict", files=files(content, png(), names=[f"a{kind}", "b.png"])).json()["predictions"]
        assert told[1]["error"].startswith("is no volume")
        assert ("16×16×16 voxels, more than 1,000" in told[0].get("error", "")) == (kind == ".nii.gz")
    with TestClient(vf.serving_app("x.ckpt")) as client:  # whose names say nothing
        for given in (
            {"json": {"images": [encoded(content)]}},
            {"files": files(content, names=[f"{'x' * 300}{kind}"])},
            {"files": files(gzip.decompress(content), names=["a"])} if kind == ".nii.gz" else {"files": files(content)},
        ):
            told = client.post("/predict", **given)
            assert told.status_code == 200, told.text
            (answer,) = told.json()["predictions"]
            assert_same({**kept, "path": answer["name"]}, answer, model.spec.classes)


def test_masks(tmp_path):
    saved(mask_model(tta="full"), tmp_path / "x.ckpt")
    for number, size in enumerate([(16, 16), (40, 21)]):
        picture(tmp_path / "p" / f"{number}.png", *size, seed=number)
    wanted, found = rows("x.ckpt", tmp_path / "p"), answers("x.ckpt", tmp_path / "p")
    for row, answer in zip(wanted, found, strict=True):
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
        np.testing.assert_array_equal(mask, np.asarray(Image.open(row["mask"])))
        assert (answer["height"], answer["width"]) == mask.shape
        assert answer["confidence"] == pytest.approx(row["confidence"], rel=1e-6)
        for name, count in answer["predicted_pixels"].items():
            assert row[f"predicted_pixels_{name}"] == count
    assert found[1]["height"] == 40


def test_boxes(tmp_path):
    saved(made(box_spec()), tmp_path / "x.ckpt")
    picture(tmp_path / "p" / "a.png", 50, 90)
    wanted, (found,) = rows("x.ckpt", tmp_path / "p"), answers("x.ckpt", tmp_path / "p")
    assert len(found["boxes"]) == len(wanted) > 5
    for row, box in zip(wanted, found["boxes"], strict=True):
        assert (row.pop("path"), row.pop("class")) == (str(tmp_path / "p" / "a.png"), box.pop("class"))
        assert box == pytest.approx(row)


def test_views_are_asked_or_not(photos):  # noqa: F811
    checkpoint("x.ckpt", tta="off")
    for tta in (True, False):
        row, answer = rows("x.ckpt", photos, tta=tta)[0], answers("x.ckpt", photos, tta=tta)[0]
        assert_same(row, answer, ("ant", "bee", "cat"))
        assert ("raw_tta_probabilities" in answer) == tta
        with TestClient(vf.serving_app("x.ckpt", tta=tta)) as client:
            assert (len(client.get("/contract").json()["inside"]["views"]) > 1) == tta


# --- requests


def test_json_and_multipart_are_answered_alike(asked):
    client = asked()
    one = client.post("/predict", files=files(png(10), png(250)))
    other = client.post("/predict", json={"images": [encoded(png(10)), encoded(png(250))]})
    assert one.status_code == other.status_code == 200
    first, second = one.json()["predictions"], other.json()["predictions"]
    assert [each.pop("name") for each in first] == ["0.png", "1.png"]
    assert [each.pop("name") for each in second] == ["images[0]", "images[1]"]
    assert first == second
    assert first[1]["prediction"] == "ant"
    assert first[1]["probabilities"]["<b>bee</b>"] == pytest.approx((1 - 250 / 255) / 2, rel=1e-5)


def test_a_picture_that_cannot_be_read_is_an_error_of_its_own(asked):
    client = asked()
    given = client.post("/predict", files=files(b"text", png(), png()[:40], png(size=(1000, 2))))
    assert given.status_code == 200
    errors = [each.get("error", "") for each in given.json()["predictions"]]
    assert errors[0] == "is no picture"
    assert errors[1] == ""
    assert errors[2].startswith(("cannot be read", "is no picture"))
    assert errors[3] == "has 1000×2 pixels, longer than 100 times its width"
    given = client.post("/predict", json={"images": ["no base64!", encoded(png())]})
    assert [each.get("error") for each in given.json()["predictions"]] == ["is no base64", None]
    assert client.post("/predict", json={"images": ["@"]}).status_code == 422


def test_names_are_printable(asked):
    client = asked()
    name = "x\x1b[31m\u202egpj.<b>.png"
    (answer,) = client.post("/predict", files=files(png(), names=[name])).json()["predictions"]
    assert answer["name"].isprintable()
    assert "<b>" in answer["name"]


def header(width, height):
    """Return the beginning of a PNG of any size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (10_001, 10_000), (5_001, 5_000)])
def test_large_pictures_are_refused_before_they_are_decoded(asked, width, height):
    data = zlib.compress(b"\0" * 30_000_000)  # 30 MB of 30 kB
    body = b"IDAT" + data
    bomb = header(width, height) + struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    (answer,) = asked().post("/predict", files=files(bomb)).json()["predictions"]
    assert re.search("pixels, more than 25,000,000|exceeds limit", answer["error"])


def test_the_limit_of_pixels_is_the_one_that_is_set(asked):
    client = asked(max_pixels=99)
    told = client.post("/predict", files=files(png(size=(9, 11)), png(size=(10, 10)))).json()["predictions"]
    assert "error" not in told[0]
    assert told[1]["error"] == "has 10×10 pixels, more than 99"


def test_bytes_are_bounded_also_where_nobody_says_how_many(asked):
    client = asked(max_upload_mb=0.01)
    assert client.post("/predict", files=files(png())).status_code == 200
    read = []

    def chunks():
        for number in range(1000):
            read.append(number)
            yield b"x" * 1000

    for kind in ("application/json", "multipart/form-data; boundary=x"):
        told = client.post("/predict", content=chunks(), headers={"content-type": kind})
        assert told.status_code in (400, 413)  # what is no multipart is told at once
        told = client.post("/predict", content=b"x" * 20_000, headers={"content-type": kind})
        assert (told.status_code, told.json()["error"][:33]) == (413, "the request has more than 10,000 ")
    told = client.post("/predict", files=files(b"x" * 20_000))
    assert told.status_code == 413


def test_nothing_is_written_to_disk(asked, monkeypatch):
    def refuse(self):
        raise AssertionError("it was to stay in memory")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", refuse)
    assert asked().post("/predict", files=files(png() + bytes(5_000_000))).status_code == 200


def test_pictures_of_a_request_are_bounded(asked):
    client = asked(max_queue=3)
    assert client.post("/predict", files=files(*[png()] * 3)).status_code == 200
    assert client.post("/predict", files=files(*[png()] * 4)).status_code == 400
    assert client.post("/predict", json={"images": [""] * 4}).status_code == 400
    told = client.post("/predict", content=b"[" * 100_000, headers={"content-type": "application/json"})
    assert told.status_code == 400


FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--'


@pytest.mark.parametrize(
    ("content", "kind", "status", "told"),
    [
        (b"{", "application/json", 400, "not valid JSON"),
        (b"\xff", "application/json", 400, "utf-8"),
        (b"[1]", "application/json", 400, "allowed: {"),
        (b"[" * 200 + b"]" * 200, "application/json", 400, "nested"),
        (b'{"images": "x"}', "application/json", 400, "allowed: {"),
        (b'{"images": [1]}', "application/json", 400, "allowed: {"),
        (b'{"images": ["x"], "url": "http://x"}', "application/json", 400, "allowed: {"),
        (b'{"images": []}', "application/json", 400, "holds no picture"),
        (b"", "multipart/form-data; boundary=x", 400, "holds no picture"),
        (b"nothing of it", "multipart/form-data; boundary=x", 400, "multipart:"),
        (b"x", "multipart/form-data", 400, "multipart:"),
        (FIELD, "multipart/form-data; boundary=x", 400, "fields"),
        (b"x", "image/png", 415, "content-type: image/png is not allowed; allowed: multipart"),
        (b"x", "", 415, "content-type: none"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_told_in_one_line(asked, content, kind, status, told):
    given = asked().post("/predict", content=content, headers={"content-type": kind})
    assert given.status_code == status, given.text
    assert told in given.json()["error"]
    assert "\n" not in given.json()["error"]


def test_compressed_requests_are_not_unpacked(asked):
    content = gzip.compress(json.dumps({"images": [encoded(png())]}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    assert asked().post("/predict", content=content, headers=headers).status_code == 415


def test_other_paths_and_methods(asked):
    client = asked()
    assert client.get("/nothing").status_code == 404
    assert client.get("/nothing").json() == {"error": "Not Found"}
    for method, path in (("GET", "/predict"), ("PUT", "/predict"), ("OPTIONS", "/predict"), ("POST", "/health")):
        assert client.request(method, path).status_code == 405
    assert client.head("/").status_code == 200


# --- batches, and a full queue


def test_concurrent_requests_share_a_pass(asked):
    begun, free = threading.Event(), threading.Event()

    def wait():
        begun.set()
        free.wait(20)

    stub = Stub(wait)
    client = asked(stub, batch_size=6, max_wait_ms=5000)

    def ask(value):
        return client.post("/predict", files=files(png(value)))

    with ThreadPoolExecutor(7) as pool:
        first = pool.submit(ask, 0)
        assert begun.wait(20)
        later = [pool.submit(ask, value) for value in range(40, 46)]
        wait_for(lambda: "visionforge_waiting_pictures 7.0" in client.get("/metrics").text)
        free.set()
        assert first.result(20).status_code == 200
        given = [each.result(20) for each in later]
    assert stub.batches == [1, 6]
    found = [each.json()["predictions"][0]["probabilities"]["ant"] for each in given]
    assert found == pytest.approx([value / 255 for value in range(40, 46)])
    for most, passes in ((4, 1), (8, 2)):
        assert f'visionforge_batch_pictures_bucket{{le="{most}.0"}} {passes}.0' in client.get("/metrics").text


def test_what_is_beyond_the_queue_is_told_to_ask_again(asked):
    begun, free = threading.Event(), threading.Event()

    def wait():
        begun.set()
        free.wait(20)

    client = asked(Stub(wait), max_queue=2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/predict", files=files(png(), png()))
        assert begun.wait(20)
        told = client.post("/predict", files=files(png()))
        assert (told.status_code, told.headers["retry-after"]) == (503, "1")
        assert told.json()["error"] == "2 of 2 pictures wait already; ask again in a second"
        assert "visionforge_waiting_pictures 2.0" in client.get("/metrics").text
        free.set()
        assert first.result(20).status_code == 200
    assert client.post("/predict", files=files(png())).status_code == 200


def test_what_is_in_memory_of_all_requests_is_bounded(asked, monkeypatch):
    monkeypatch.setattr("visionforge.serving.uploads.HELD_BODIES", 1)
    begun, free = threading.Event(), threading.Event()

    def wait():
        begun.set()
        free.wait(20)

    client = asked(Stub(wait), max_upload_mb=0.001)
    big = png() + b"\0" * 500
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/predict", files=files(big))
        assert begun.wait(20)
        assert client.post("/predict", files=files(big)).status_code == 503
        free.set()
        assert first.result(20).status_code == 200
    assert client.post("/predict", files=files(big)).status_code == 200


def test_what_the_network_cannot_do_is_told(asked):
    def wait():
        raise RunError("its outputs are not finite")

    client = asked(Stub(wait))
    told = client.post("/predict", files=files(png()))
    assert (told.status_code, told.json()) == (500, {"error": "its outputs are not finite"})


def test_what_the_network_cannot_do_with_one_picture_is_its_own_error(asked):
    stub = Stub()
    answers = stub.answers

    def some(images):
        if (images > 250).any():
            raise RunError("its outputs are not finite")
        return answers(images)

    stub.answers = some
    client = asked(stub, max_wait_ms=200.0)
    told = client.post("/predict", files=files(png(10), png(255), png(20)))
    assert told.status_code == 200
    said = told.json()["predictions"]
    assert [answer.get("error") for answer in said] == [None, "its outputs are not finite", None]
    assert said[1]["name"] == "1.png"
    assert "visionforge_pictures_total 2.0" in client.get("/metrics").text


def test_an_application_can_be_begun_again():
    app = service_app(Stub().network(), ServingSettings(max_wait_ms=0.0), threads=1)
    for _ in range(2):
        with TestClient(app) as client:
            told = client.post("/predict", files=files(png()))
            assert (told.status_code, told.json()["predictions"][0]["prediction"]) == (200, "ant")


def test_what_nobody_foresaw_is_told_and_counted():
    stub = Stub(lambda: 1 / 0)
    app = service_app(stub.network(), ServingSettings(max_wait_ms=0.0), threads=1)
    with TestClient(app, raise_server_exceptions=False) as client:
        told = client.post("/predict", files=files(png()))
        assert (told.status_code, told.json()["error"][:26]) == (500, "something went wrong here;")
        assert 'path="/predict",status="500"} 1.0' in client.get("/metrics").text


# --- what browsers are told


def test_the_page_loads_nothing_and_names_are_escaped(asked):
    given = asked().get("/")
    assert "a &lt;i&gt;run&lt;/i&gt;" in given.text
    assert "<b>bee" not in given.text
    assert not re.search(r"""(src|href)=["'](?!data:)""", given.text)
    assert "http" not in given.text
    policy = given.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert {"default-src 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
    for name in ("/health", "/metrics", "/contract", "/nothing"):
        headers = asked().get(name).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_other_names_and_other_sites_are_refused(asked):
    client = asked(hosts=["localhost", "[::1]"])
    for host, status in {"localhost:80": 200, "[::1]:8000": 200, "evil.example": 400, "": 400}.items():
        assert client.get("/health", headers={"host": host}).status_code == status
    own = {"host": "localhost"}
    assert client.post("/predict", files=files(png()), headers=own).status_code == 200
    other = {**own, "sec-fetch-site": "cross-site"}
    assert client.post("/predict", files=files(png()), headers=other).status_code == 403
    assert client.get("/", headers=other).status_code == 200  # a link


def test_health_contract_and_metrics(asked):
    client = asked()
    client.post("/predict", files=files(png(), b"no"))
    assert client.get("/health").json() == {"status": "ok", "name": "a <i>run</i>", "task": "multi-class", "classes": 3}
    assert client.get("/contract").json()["output"]["classes"] == list(CLASSES)
    text = client.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    for name in ("pictures_total", "picture_errors_total", "batch_pictures_count", "predict_seconds_count"):
        assert f"visionforge_{name} 1.0" in text.text
    assert 'visionforge_requests_total{path="/predict",status="200"} 1.0' in text.text
    client.get("/some/name")
    assert 'requests_total{path="other",status="404"} 1.0' in client.get("/metrics").text


def test_it_can_be_mounted():
    app = service_app(Stub().network(), ServingSettings(), threads=1)
    client = TestClient(Starlette(routes=[Mount("/vision", app)]))
    assert client.post("/vision/predict", files=files(png())).status_code == 200
    assert client.get("/vision/").status_code == 200
    assert 'path="/predict",status="200"} 1.0' in client.get("/vision/metrics").text


# --- mistakes


@pytest.mark.parametrize(
    ("source", "settings", "told"),
    [
        ("nowhere", {}, "source: nowhere is no folder"),
        ("nowhere.onnx", {}, "source: nowhere.onnx does not exist"),
        ("nowhere.ckpt", {}, "source: nowhere.ckpt does not exist"),
        ("x.pt2", {}, "source: x.pt2 is of no format"),
        ("x.onnx", {"tta": True}, "tta: an artifact has its views inside"),
        ("x.onnx", {"accelerator": "cuda"}, "accelerator: artifacts run on the CPU"),
        ("x.ckpt", {"batch_size": 0}, "batch_size: 0 is not allowed; allowed: whole numbers from 1"),
        ("x.ckpt", {"max_queue": 0}, "max_queue: 0 is not allowed"),
        ("x.ckpt", {"max_pixels": 10**9}, "max_pixels: 1000000000 is not allowed"),
        ("x.ckpt", {"max_wait_ms": float("nan")}, "max_wait_ms: nan is not allowed; allowed: 0 to 60,000"),
        ("x.ckpt", {"max_upload_mb": 0}, "max_upload_mb: 0 is not allowed; allowed: above 0 to 1,024"),
        ("x.ckpt", {"num_threads": 0}, "num_threads: 0 is not allowed"),
        ("x.ckpt", {"allowed_hosts": ["a*b"]}, "allowed_hosts: a*b is not allowed; allowed: names, *.NAME"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path, source, settings, told):
    (tmp_path / "x.pt2").touch()
    with pytest.raises((SettingsError, RunError)) as raised:
        vf.serving_app(source, **settings)
    (line,) = raised.value.problems
    assert line.startswith(told), line
