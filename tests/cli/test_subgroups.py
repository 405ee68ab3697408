"""From a CSV file with age, sex and site to a report that finds the site whose labels are noisy."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import visionforge as vf
from visionforge.cli.main import main


def write_source(folder, count=600):
    """Write pictures of a square above or below; a half of the labels of one site are drawn at random."""
    rng = np.random.default_rng(0)
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "finding", "site", "age", "sex"])
        for k in range(count):
            kind, site = int(rng.integers(2)), "abc"[rng.integers(3)]
            picture = rng.integers(60, 120, (12, 12)).astype(np.uint8)
            picture[1 + 6 * kind : 5 + 6 * kind, 2:9] = 230
            Image.fromarray(picture).save(folder / f"{k}.png")
            label = int(rng.integers(2)) if site == "c" and rng.random() < 0.7 else kind
            writer.writerow([f"{k}.png", ("above", "below")[label], site, int(rng.integers(20, 90)), "fm"[k % 2]])
    return folder / "list.csv"


@pytest.mark.slow
def test_a_site_with_noisy_labels_is_found_in_imported_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))
    source = write_source(tmp_path)
    keep = ["--columns", "site,age,sex", "--label-column", "finding", "--fractions", "0.4", "0.1", "0.5"]
    assert main(["datasets", "import", str(source), "--name", "sites", "--resolution", "12", *keep]) == 0
    small = ["--data.dataset", "sites", "--data.resolution", "12", "--trainer.accelerator", "cpu"]
    small += ["--model.backbone.name", "mini_cnn", "--model.backbone.pretrained", "false", "--data.batch_size", "40"]
    wrong = ["--evaluation.subgroups", "[sites]"]
    assert main(["fit", *small, *wrong]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: evaluation.subgroups")]
    assert "'sites' is not kept with sites; allowed: site, age, sex; " in line
    few = ["--trainer.max_epochs", "4", "--evaluation.resamples", "300", "--evaluation.figures", "false"]
    assert main(["fit", *small, *few]) == 0
    assert "! by site, " in capsys.readouterr().out
    run = vf.open_run("outputs/latest")
    found = json.loads((run.path / "metrics.json").read_text())
    columns = found["subgroups"]["columns"]
    assert list(columns) == ["site", "age", "sex"]
    gap = columns["site"]["gaps"]["accuracy"]
    assert gap["lowest"] == "c"
    assert gap["p_holm"] < 0.05
    assert gap["interval"][0] > 0
    assert all(each["p_holm"] > 0.05 for name in ("age", "sex") for each in columns[name]["gaps"].values())
    assert any(line.startswith("by site, ") for line in found["warnings"])
    table = run.predictions
    assert run.result.subgroups == columns
    assert run.result.warnings == found["warnings"]
    assert set(table["site"]) == {"a", "b", "c"}
    subgroup = table[table["site"] == "c"]
    assert columns["site"]["subgroups"]["c"]["images"] == len(subgroup)
    right = (subgroup["truth"] == subgroup["prediction"]).mean()
    assert abs(columns["site"]["subgroups"]["c"]["metrics"]["accuracy"] - right) < 1e-9
    only = ["--evaluation.subgroups", "[sex]", "--trainer.limit_test_batches", "2", "--evaluation.resamples", "20"]
    assert main(["test", "--run", str(run.path), *only]) == 0
    (again,) = (run.path / "evaluations").glob("*/metrics.json")
    partial = json.loads(again.read_text())
    counts = {name: each["images"] for name, each in partial["subgroups"]["columns"]["sex"]["subgroups"].items()}
    assert list(partial["subgroups"]["columns"]) == ["sex"]
    assert sum(counts.values()) == partial["partial"]["images"] == 80
