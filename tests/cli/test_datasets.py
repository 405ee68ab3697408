"""`visionforge datasets` shows the catalog and checks archives."""

import json
import shutil

import numpy as np

from visionforge.cli.main import main
from visionforge.data.registry import dataset_names


def test_list_names_every_data_set_in_eighty_columns(capsys):
    assert main(["datasets", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(dataset_names())
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert not any("…" in line for line in lines)


def test_json_is_complete(capsys):
    assert main(["datasets", "list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in entries} == set(dataset_names())
    assert main(["datasets", "info", "chestmnist", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["classes"]) == 14


def test_info_says_where_from_and_how_to_cite(capsys):
    assert main(["datasets", "info", "retinamnist"]) == 0
    shown = capsys.readouterr().out
    for part in ("ordinal", "1,080", "bd4c0672f1bba3e3a89f0e4e876791e4", "CC BY 4.0", "doi:10.5281/zenodo.10519652"):
        assert part in shown


def test_good_archive_passes(capsys, archives):
    assert main(["datasets", "check", "breastmnist", "--root", str(archives)]) == 0
    assert capsys.readouterr().out.count("✓") == 5
    assert main(["datasets", "check", "breastmnist", "--root", str(archives), "--resolution", "64", "--json"]) == 0
    assert all(check["ok"] for check in json.loads(capsys.readouterr().out)["checks"])


def test_bad_archive_fails(capsys, archives, tmp_path):
    content = dict(np.load(archives / "breastmnist.npz"))
    content["test_labels"] = content["test_labels"] + 5
    np.savez(tmp_path / "breastmnist.npz", **content)
    assert main(["datasets", "check", "breastmnist", "--root", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "✗ MD5" in shown
    assert "✗ test data" in shown
    assert "✓ train data" in shown
    shutil.copyfile(archives / "retinamnist.npz", tmp_path / "breastmnist.npz")
    assert main(["datasets", "check", "breastmnist", "--root", str(tmp_path)]) == 1
    assert "✗ keys, dtypes, shapes and counts" in capsys.readouterr().out
