"""Every file says which version wrote it, and one of a later format is one line."""

import json
import shutil

import pytest
import torch

from visionforge.cli.main import main
from visionforge.distribution import newer, own_version, written_by
from visionforge.errors import RunError
from visionforge.inference.contract import Contract, read_contract
from visionforge.runs.manifest import read_manifest
from visionforge.training.loading import read_checkpoint

LATER = {"format": 99, "version": "7.0"}


def test_files_of_a_run_name_the_version(quick_run):
    for name in ("best", "last"):
        content = torch.load(quick_run / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["visionforge"] == written_by() == {"format": 1, "version": own_version()}
    manifest = json.loads((quick_run / "run.json").read_text())
    assert (manifest["format"], manifest["version"]) == (1, own_version())


def test_a_checkpoint_of_a_later_format_is_one_line(quick_run, tmp_path, capsys):
    content = torch.load(quick_run / "checkpoints" / "best.ckpt", weights_only=True)
    path = tmp_path / "later.ckpt"
    torch.save({**content, "visionforge": LATER}, path)
    line = (
        f"was written by visionforge 7.0; visionforge {own_version()} does not know its format 99: install that version"
    )
    with pytest.raises(RunError, match=line):
        read_checkpoint(path)
    assert main(["test", "--ckpt_path", str(path)]) == 2
    assert line in capsys.readouterr().err


@pytest.mark.parametrize("stored", [None, "1", {"format": "99"}, {"format": 1, "version": 3}, {}])
def test_a_checkpoint_that_says_nothing_is_read(quick_run, tmp_path, stored):
    """As those of version 0.1.0's first runs, which knew no format."""
    content = torch.load(quick_run / "checkpoints" / "best.ckpt", weights_only=True)
    path = tmp_path / "other.ckpt"
    torch.save({**content, "visionforge": stored}, path)
    assert read_checkpoint(path)["state_dict"].keys() == content["state_dict"].keys()


def test_a_run_of_a_later_format_is_one_line(quick_run, tmp_path, capsys):
    run = tmp_path / quick_run.name
    shutil.copytree(quick_run, run)
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, **LATER}))
    with pytest.raises(RunError, match=r"run\.json: was written by visionforge 7\.0; "):
        read_manifest(run / "run.json")
    assert main(["runs", "list", "--outputs", str(tmp_path)]) == 0
    assert "was written by visionforge 7.0" in capsys.readouterr().err
    manifest.pop("version")
    (run / "run.json").write_text(json.dumps(manifest))
    assert read_manifest(run / "run.json").version is None


def test_an_artifact_of_a_later_format_is_one_line():
    assert Contract.model_fields["version"].default == own_version()
    text = json.dumps({"format_version": 2, "version": "7.0", "spec": {"unknown": 1}})
    with pytest.raises(RunError, match=r"x\.onnx: was written by visionforge 7\.0; "):
        read_contract(text, "x.onnx")


def test_metadata_that_is_nested_too_deep_is_one_line():
    with pytest.raises(RunError, match=r"x\.onnx: its metadata cannot be read \(is nested deeper"):
        read_contract("[" * 100_000, "x.onnx")


@pytest.mark.parametrize(
    ("form", "version", "told"),
    [
        (1, "9", None),
        (0, "9", None),
        (True, "9", None),
        ("2", "9", None),
        (2, "9.1", "visionforge 9.1"),
        (2, 9, "a later one"),
        (2, "\x1b[31m", "a later one"),
        (2, "x" * 500, "visionforge " + "x" * 40),
    ],
)
def test_what_is_told_of_a_later_version(form, version, told):
    line = newer(form, 1, version)
    assert line is None if told is None else line is not None and line.startswith(f"was written by {told};")
