"""`visionforge models`: the list, and what one backbone costs and sees."""

import json

import pytest

from visionforge.cli.main import main


def test_list(capsys):
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    for name in ("resnet18", "vit_tiny", "mini_cnn"):
        assert f"\n{name} " in shown
    assert main(["models", "list", "*net*"]) == 0
    assert "vit_tiny" not in capsys.readouterr().out
    assert main(["models", "list", "torchvision/*vgg*"]) == 0
    assert "torchvision/vgg11_bn\n" in capsys.readouterr().out
    assert main(["models", "list", "swin*", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "swin_v2_t"


def test_info(capsys):
    assert main(["models", "info", "resnet18", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["weights"][0] == "IMAGENET1K_V1"
    assert "a1_in1k" in content["weights"], "a tag of timm's"
    small, _, large = content["profiles"]
    assert large["parameters"] == 11_689_512
    assert round(large["multiply_adds"] / 1e6) == 1814
    assert small["scale"] == 4
    assert main(["models", "info", "resnet18"]) == 0
    shown = capsys.readouterr().out
    assert "28 → 14 → 7 → 4" in shown
    assert "1,814 M" in shown


def test_options_change_the_answer(capsys):
    answers = set()
    for options in ([], ["--channels", "1"], ["--classes", "2"], ["--no-adapt-stem"], ["--resolution", "32"]):
        assert main(["models", "info", "resnet18", "--resolution", "64", *options]) == 0
        answers.add(capsys.readouterr().out)
    assert len(answers) == 5


def test_library_models_have_facts_too(capsys):
    assert main(["models", "info", "timm/resnet10t", "--resolution", "32"]) == 0
    assert "c3_in1k" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["list", "zzz*"], "models list: no backbone matches 'zzz*'; registered: convnext_tiny, "),
        (["info", "resnet81"], "model.backbone.name: 'resnet81' is unknown; nearest: resnet18"),
        (["info", "vit_tiny", "--resolution", "30"], "resolution: 30 is not allowed for vit_tiny"),
        (["info", "resnet18", "--classes", "0"], "models info: --classes: 0 is not allowed; at least 1"),
        (["info", "resnet18", "--resolution", "0"], "resolution: 0 is not allowed for resnet18; at least 8"),
        (
            ["info", "vit_tiny", "--volumes"],
            "model.backbone.name: vit_tiny does not take volumes; allowed: efficientnet_",
        ),
        (
            ["info", "resnet18", "--volume-convolution", "acs"],
            "model.backbone.volume_convolution: acs is for volumes, the",
        ),
        (["info"], "models info: the following arguments are required: name"),
        ([], "models: the following arguments are required: command"),
    ],
)
def test_mistakes(refuse, arguments, complaint):
    (line,) = refuse("models", *arguments, keeps=("cache", "torch"))
    assert line.startswith(complaint)


def test_models_of_volumes(capsys):
    flags = ["--volumes", "--channels", "1", "--classes", "2"]
    assert main(["models", "info", "resnet18", *flags]) == 0
    shown = capsys.readouterr().out
    for told in ("28×28×28", "64×64×64", "14 → 7 → 4 → 2", "images and volumes"):
        assert told in shown
    assert main(["models", "info", "resnet18", *flags, "--volume-convolution", "acs"]) == 0
    assert capsys.readouterr().out != shown
    assert main(["models", "list", "*", "--json"]) == 0
    dims = {each["name"]: each["spatial_dims"] for each in json.loads(capsys.readouterr().out)}
    assert dims["resnet18"] == [2, 3]
    assert dims["vit_tiny"] == [2]
