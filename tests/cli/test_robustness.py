"""`visionforge robustness`: from a run to JSON, a table and a page; what it cannot do is one line."""

import csv
import json
import shutil

import numpy as np
import pytest

import visionforge as vf
from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.data.corruption import Corruption

SOME = ["--corruptions", "gaussian_noise,jpeg_compression,horizontal_flip", "--severities", "1,5"]


def fitted(folder, **changes):
    assert main(["fit", *flags(trainer__default_root_dir=folder, trainer__max_epochs=1, **changes)]) == 0
    return run_folders(folder)[-1]


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    """A run of the same data by another network; do not change it."""
    return fitted(tmp_path_factory.mktemp("other"), seed_everything=7)


def content_of(folder):
    return json.loads((folder / "robustness.json").read_text())


def rows_of(folder):
    with (folder / "robustness.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def measured(quick_run, tmp_path, capsys):
    """What the command wrote of a run, and what it said."""
    assert main(["robustness", "--run", str(quick_run), "--out", "some", *SOME]) == 0
    return tmp_path / "some", capsys.readouterr().out


# --- results


def test_files_and_what_is_said(measured):
    folder, said = measured
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".lock" and path.name[0] != ".") == [
        "robustness.csv",
        "robustness.html",
        "robustness.json",
    ]
    content = content_of(folder)
    assert (content["images"], content["split"], content["partial"], content["seed"]) == (32, "test", None, 0)
    asked = [(each["corruption"], each["severity"]) for each in content["conditions"]]
    noise, jpeg = "gaussian_noise", "jpeg_compression"
    assert asked == [(noise, 1), (noise, 5), (jpeg, 1), (jpeg, 5), ("horizontal_flip", 1)]
    rows = rows_of(folder)
    assert [row["corruption"] for row in rows] == ["clean", *(name for name, _ in asked)]
    for row, each in zip(rows[1:], content["conditions"], strict=True):
        assert float(row["error"]) == each["error"]["value"]
        assert float(row["accuracy"]) == pytest.approx(1 - each["error"]["value"])
    lines = said.splitlines()
    assert lines[0] == "synthetic test split, 32 images, best.ckpt"
    mean = content["mean"]
    assert f"{mean['error']['value']:.4f}" in next(line for line in lines if line.startswith("mean corruption error"))
    assert lines[-1] == "page: some/robustness.html"


def test_clean_images_have_the_metrics_of_the_test(quick_run, measured):
    tested = json.loads((quick_run / "metrics.json").read_text())
    reading = tested["with_tta"] or tested["without_tta"]
    found = content_of(measured[0])["clean"]
    assert found["metrics"] == pytest.approx({name: reading[name] for name in found["metrics"]}, abs=1e-6)
    assert found["error"]["value"] == pytest.approx(1 - reading["accuracy"])
    tempered = tested["calibration"]["with_tta" if tested["with_tta"] else "without_tta"]["after"]
    assert found["with_temperature"] == pytest.approx({name: tempered[name] for name in found["with_temperature"]})


def test_the_page_is_whole_and_shows_every_condition(measured):
    page = (measured[0] / "robustness.html").read_text()
    assert page.count("<img ") == 1 + 3 + 5, "the curves, the image for each corruption, and every condition"
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('class="group"') == 3
    for text in ("gaussian noise", "horizontal flip", "no AlexNet", "best.ckpt"):
        assert text in page


def test_json(quick_run, capsys):
    assert main(["robustness", "--run", str(quick_run), "--json", "--out", "x", *SOME]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["mean"]["error"]["value"] > 0
    assert len(printed["conditions"]) == 5


def test_by_default_all_that_applies_beside_the_runs_own_results(quick_run, tmp_path, capsys):
    run = shutil.copytree(quick_run, tmp_path / "run")
    assert main(["robustness", "--run", str(run), "--severities", "3", "--limit", "8"]) == 0
    folder = run / "evaluations" / "robustness_best"
    content = content_of(folder)
    names = [each["corruption"] for each in content["conditions"]]
    flags_of = vf.open_run(run).model.spec.flags
    assert names == [name for name in Corruption.family.names if Corruption(name=name).applies(3, flags_of)]
    assert content["partial"] == {"images": 8, "of": 32, "reason": "limit 8"}
    assert "8 of 32 images only (limit 8)" in capsys.readouterr().out
    assert "8 of 32 images only (limit 8)" in (folder / "robustness.html").read_text()
    assert main(["robustness", "--run", str(run), "--split", "val", *SOME]) == 0
    assert content_of(run / "evaluations" / "robustness_val_best")["split"] == "val"


def test_seed_and_severity_change_the_outcome_and_nothing_else_does(quick_run, tmp_path):
    def errors(name, *more):
        command = ["robustness", "--run", str(quick_run), "--corruptions", "shot_noise", "--out", name, *more]
        assert main(command) == 0
        content = content_of(tmp_path / name)
        return [each["metrics"]["log_loss"] for each in content["conditions"]]

    assert errors("a") == errors("b")
    assert errors("c", "--seed", "1") != errors("a", "--overwrite")
    assert errors("d", "--severities", "2") == errors("a", "--overwrite")[1:2]


def test_files_of_others_are_kept(quick_run, measured, capsys):
    folder, _ = measured
    command = ["robustness", "--run", str(quick_run), "--out", "some", *SOME]
    assert main(command) == 2
    assert "--out: some has a robustness.json already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    (folder / "robustness.csv").write_text("mine")
    capsys.readouterr()
    assert main([*command, "--overwrite"]) == 2
    assert "is not as this command wrote it" in capsys.readouterr().err
    assert (folder / "robustness.csv").read_text() == "mine"


def test_last_checkpoint_and_lone_file(quick_run, tmp_path):
    assert main(["robustness", "--run", str(quick_run), "--ckpt_path", "last", "--out", "last", *SOME]) == 0
    assert content_of(tmp_path / "last")["checkpoint"] == "last.ckpt"
    shutil.copy(quick_run / "checkpoints" / "best.ckpt", tmp_path / "alone.ckpt")
    assert main(["robustness", "--ckpt_path", "alone.ckpt", *SOME]) == 0
    assert content_of(tmp_path / "robustness")["run"] == "alone.ckpt"


# --- beside another network


def test_baseline(quick_run, other_run, tmp_path, capsys):
    command = ["robustness", "--run", str(quick_run), "--out", "both", *SOME]
    assert main([*command, "--baseline", str(other_run)]) == 0
    content = content_of(tmp_path / "both")
    assert main(["robustness", "--run", str(other_run), "--out", "theirs", *SOME]) == 0
    theirs = content_of(tmp_path / "theirs")
    found = content["baseline"]
    assert found["error"] == pytest.approx(theirs["mean"]["error"]["value"])
    names = ("gaussian_noise", "jpeg_compression")
    ratios = [content["corruptions"][n]["error"]["value"] / theirs["corruptions"][n]["error"]["value"] for n in names]
    assert found["mce"]["value"] == pytest.approx(np.mean(ratios))
    assert f"mCE, {other_run.name} is 1: {np.mean(ratios):.4f}" in capsys.readouterr().out
    assert "Beside the baseline" in (tmp_path / "both" / "robustness.html").read_text()
    checkpoint = other_run / "checkpoints" / "best.ckpt"
    assert main([*command, "--overwrite", "--baseline", str(checkpoint)]) == 0
    assert content_of(tmp_path / "both")["baseline"] == found


def test_a_baseline_of_other_images_is_refused(refuse, quick_run, tmp_path, tmp_path_factory):
    fewer = fitted(tmp_path_factory.mktemp("fewer"), data__synthetic__test=20)
    (line,) = refuse("robustness", "--run", str(quick_run), "--baseline", str(fewer), "--out", "x", *SOME)
    assert line.startswith("--baseline: ")
    assert "is not of the same images and classes" in line


# --- tasks


@pytest.mark.parametrize("task", ["binary", "multi-label", "ordinal"])
def test_tasks_of_whole_images(tmp_path, tmp_path_factory, task):
    run = fitted(tmp_path_factory.mktemp(task), data__synthetic__task=task, data__synthetic__channels=1)
    assert main(["robustness", "--run", str(run), "--out", "x", "--severities", "5", "--limit", "16"]) == 0
    content = content_of(tmp_path / "x")
    assert content["task"] == task
    assert not {"stain_shift", "saturation_up"} & {*content["corruptions"]}, "the images are grey"
    assert all(0 <= each["error"]["value"] <= 1 for each in content["conditions"])


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_masks_and_boxes_are_refused(refuse, tmp_path_factory, task):
    network = {"model__backbone__name": "resnet18"} if task == "detection" else {}
    run = fitted(
        tmp_path_factory.mktemp(task),
        data__synthetic__task=task,
        data__synthetic__train=16,
        data__synthetic__val=4,
        data__synthetic__test=4,
        data__resolution=32,
        **network,
    )
    (line,) = refuse("robustness", "--run", str(run))
    assert line.startswith(f"robustness: there are no corruptions for {task} networks; allowed: classes or labels")


def test_volumes_are_refused(refuse, archives, tmp_path_factory):
    run = fitted(
        tmp_path_factory.mktemp("volumes"),
        data__dataset="adrenalmnist3d",
        data__root=archives,
        data__max_samples=8,
        data__batch_size=4,
        model__tta="off",
        trainer__limit_val_batches=1,
        trainer__limit_test_batches=1,
    )
    (line,) = refuse("robustness", "--run", str(run))
    assert line.startswith("robustness: there are no corruptions for volumes")


# --- mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--corruptions", "gaussian_nois"], "--corruptions: 'gaussian_nois' is unknown; nearest: gaussian_noise"),
        (["--corruptions", ","], "--corruptions: there is none; allowed: gaussian_noise"),
        (["--severities", "0,6"], "--severities: 0, 6 is not allowed; allowed: 1, 2, 3, 4, 5"),
        (["--severities", "two"], "--severities: two is not allowed"),
        (["--severities", ","], "--severities: none is not allowed"),
        (["--limit", "0"], "--limit: 0 is not allowed; allowed: from 1"),
        (["--seed", "-1"], "--seed: -1 is not allowed"),
        (["--baseline", "nothing"], "--baseline: nothing is no folder"),
        (["--baseline", "none.ckpt"], "--baseline: none.ckpt does not exist"),
        (["--run", "nothing"], "--run: nothing is no folder"),
        (["--split", "tets"], "robustness: argument --split: invalid choice"),
    ],
)
def test_mistakes(refuse, quick_run, arguments, said):
    base = {"--run": str(quick_run), "--out": "x"} | dict(zip(arguments[::2], arguments[1::2], strict=True))
    (line,) = refuse("robustness", *(text for pair in base.items() for text in pair))
    assert line.startswith(said)


def test_out_that_cannot_be_used_is_told_before_any_work(refuse, quick_run, tmp_path):
    (tmp_path / "file").write_text("mine")
    (line,) = refuse("robustness", "--run", str(quick_run), "--out", "file")
    assert line.startswith("--out: file is a file")
    (line,) = refuse("robustness", "--run", str(quick_run), "--out", str(quick_run))
    assert "is the folder of a run" in line


# --- Python


def test_from_python(quick_run, measured, tmp_path, capsys):
    found = vf.robustness(
        quick_run, corruptions=SOME[1].split(","), severities=(5, 1), out="python", baseline=vf.open_run(quick_run)
    )
    assert capsys.readouterr().out == ""
    ours, theirs = content_of(tmp_path / "python"), content_of(measured[0])
    assert ours["conditions"] == theirs["conditions"]
    assert found.content["mean"] == theirs["mean"]
    assert found.mean_error == theirs["mean"]["error"]["value"]
    assert found.mean_increase == theirs["mean"]["increase"]["value"]
    assert list(found.table["severity"]) == [0, 1, 5, 1, 5, 1]
    assert found.table["increase_low"].isna()[0]
    assert repr(found).endswith("32 images: python")
    assert "python/robustness.html" in found._repr_html_()
    weak = Corruption(name="gaussian_noise", severities=(0.0,))
    one = vf.robustness(quick_run, corruptions=[weak], out="weak")
    assert one.mean_increase == 0
    flip = vf.robustness(quick_run, corruptions="horizontal_flip", out="flip")
    assert flip.mean_error is None
    assert "corrupted" not in repr(flip)
    with pytest.raises(vf.SettingsError, match="corruptions: '7' is unknown"):
        vf.robustness(quick_run, corruptions=[7], out="y")


def test_the_run_may_stand_without_its_flag(quick_run, tmp_path, capsys, refuse):
    asked = ["--corruptions", "gaussian_noise", "--severities", "5", "--limit", "8", "--json"]
    given = (["--run", str(quick_run)], [str(quick_run)])
    found = []
    for place, named in enumerate(given):
        assert main(["robustness", *named, *asked, "--out", str(tmp_path / str(place))]) == 0
        found.append(json.loads(capsys.readouterr().out)["conditions"])
    assert found[0] == found[1]
    assert "are two runs; name one" in refuse("robustness", "one", "--run", "two")[0]
