"""`visionforge datasets` shows the catalog and checks archives."""

import csv
import json
import shutil

import matplotlib.image
import numpy as np
import pytest
from PIL import Image

import visionforge as vf
from tests.conftest import QUICK, flags, run_folders
from tests.data.test_listing import pictures
from visionforge.cli.main import main
from visionforge.data.registry import dataset_names


def test_list_names_every_data_set_in_eighty_columns(capsys):
    assert main(["datasets", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if not line.startswith("on disk: ")]
    assert [line.split()[0] for line in rows[1:]] == list(dataset_names())
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


@pytest.mark.slow
def test_good_archive_passes(capsys, archives):
    assert main(["datasets", "check", "retinamnist", "--root", str(archives)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("✓") == 9
    assert "✗" not in shown
    larger = ["--resolution", "64", "--exactly", "--json"]
    assert main(["datasets", "check", "breastmnist", "--root", str(archives), *larger]) == 0
    assert all(check["ok"] for check in json.loads(capsys.readouterr().out)["checks"][:5])


@pytest.mark.slow
def test_image_in_two_splits_is_found_in_published_data(capsys, archives):
    """BreastMNIST at 28 pixels really has one image in both training and test split."""
    content = np.load(archives / "breastmnist.npz")
    assert np.array_equal(content["train_images"][115], content["test_images"][76])
    assert main(["datasets", "check", "breastmnist", "--root", str(archives)]) == 0
    shown = capsys.readouterr().out
    assert "✗ train and test: 1 image in both (train 115 = test 76); 3" in shown
    assert "✗ val and test: no image in both; 4 nearly equal (val 1 ≈ test 81; " in shown
    assert "✗ labels of duplicates: " in shown
    assert main(["datasets", "check", "breastmnist", "--root", str(archives), "--strict"]) == 1


def test_stats_count_and_compute(capsys, archives):
    assert main(["datasets", "stats", "breastmnist", "--root", str(archives), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["classes"]["malignant"] == {"train": 147, "val": 21, "test": 42}
    assert content["mean"] == [pytest.approx(0.3276, abs=1e-4)]
    assert main(["datasets", "stats", "synthetic"]) == 0
    assert "largest to smallest class 1.0" in capsys.readouterr().out


@pytest.mark.parametrize("preset", ["none", "strong"])
def test_show_writes_a_sheet(capsys, archives, tmp_path, preset):
    arguments = ["--root", str(archives), "--preset", preset, "--output", "sheet.png"]
    assert main(["datasets", "show", "retinamnist", *arguments]) == 0
    sheet = matplotlib.image.imread(tmp_path / "sheet.png")
    assert sheet.std() > 0.1
    assert "sheet.png" in capsys.readouterr().out


def test_download_of_a_present_archive_verifies_it(capsys, archives):
    assert main(["datasets", "download", "breastmnist", "--root", str(archives), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == 559580


def test_imported_pictures_train(capsys, tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 180)):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.normal(level, 20, (30, 34)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{number}.png")
    (tmp_path / "pics" / "dark" / "text.png").write_text("no picture")
    assert main(["datasets", "import", "pics", "--name", "mine", "--resolution", "16"]) == 0
    shown = capsys.readouterr().out
    assert "✗ pics/dark/text.png: is no picture; left out" in shown
    assert "✓ mine: binary, 2 classes, 42 train / 6 val / 12 test; 1 broken" in shown
    command = next(line for line in shown.splitlines() if "visionforge fit" in line).split()[2:]
    quick = ["--model.backbone.name", "mini_cnn", "--model.backbone.pretrained", "false"]
    assert main([*command, *quick, "--data.batch_size", "8", "--trainer.max_epochs", "4"]) == 0
    (run,) = run_folders(tmp_path / "outputs")
    assert json.loads((run / "metrics.json").read_text())["without_tta"]["auc"] == 1.0
    assert main(["datasets", "list"]) == 0
    assert "mine" in capsys.readouterr().out


def test_import_refuses_and_tells(capsys, tmp_path, refuse):
    rng = np.random.default_rng(0)
    (tmp_path / "pics").mkdir()
    rows = []
    pixels = rng.integers(0, 256, (20, 16, 16)).astype(np.uint8)
    pixels[19] = pixels[18]
    for number in range(20):
        Image.fromarray(pixels[number]).save(tmp_path / "pics" / f"{number}.png")
        rows.append(
            f"{number}.png,{'cat' if number % 2 else 'dog'},p{number // 2},{'test' if number > 18 else 'train'}"
        )
    (tmp_path / "pics" / "list.csv").write_text("\n".join(["path,label,patient,split", *rows]))
    command = ["datasets", "import", "pics/list.csv", "--name", "mine", "--resolution", "16"]
    (line,) = refuse(*command)
    assert line.startswith("pics/list.csv: the column patient may say which pictures belong together; ")
    assert line.endswith("choose --group-column patient, or --no-groups if that does not matter")
    (line,) = refuse(*command, "--group-column", "patient")
    assert "1 of 10 groups of the column patient lie in several splits: p9 (train, test)" in line
    assert refuse(*command[:4], "Mine", "--no-groups") == [
        "--name: 'Mine' is not allowed; allowed: small letters a to z, digits and _, at most 60"
    ]
    assert main([*command, "--no-groups"]) == 0
    shown = capsys.readouterr().out
    assert "! the source has no val: val (2 pictures) taken from train, by class" in shown
    assert "share 1 picture with equal pixels (18.png = 19.png)" in shown
    assert main(["datasets", "check", "mine", "--strict"]) == 1
    shown = capsys.readouterr().out
    assert "and test: 1 image in both" in shown
    assert "18.png = test 19.png)" in shown
    assert main([*command, "--no-groups", "--replace", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 3


def test_broken_entry_of_the_user_does_not_hide_the_others(capsys, tmp_path, monkeypatch):
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries" / "wrong.yaml").write_text("name: wrong\n")
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "entries"))
    assert main(["datasets", "list"]) == 0
    output = capsys.readouterr()
    assert "breastmnist" in output.out
    assert "wrong.yaml: " in output.err
    assert main(["datasets", "info", "wrong"]) == 2


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


def test_a_sheet_replaces_only_a_sheet(tmp_path, refuse):
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"three years")
    (line,) = refuse("datasets", "show", "digits", "--output", str(mine))
    assert line == "--output: mine.png exists already, and visionforge has not made it; name another file"
    assert mine.read_bytes() == b"three years"
    for _ in range(2):
        assert main(["datasets", "show", "digits", "--output", str(tmp_path / "sheet.png")]) == 0


@pytest.mark.slow
def test_pairs_are_shown_on_a_page_and_in_a_table(capsys, archives, tmp_path, refuse):
    command = ["datasets", "check", "breastmnist", "--root", str(archives), "--pictures", "pairs"]
    for _ in range(2):  # its own files are replaced
        assert main(command) == 0
    assert "✓ pairs/index.html" in capsys.readouterr().out
    page = (tmp_path / "pairs" / "index.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<figure") * 2 == page.count("data:image/png")
    assert "Train and test: equal pixels (1)" in page
    with (tmp_path / "pairs" / "pairs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["kind"] == "equal"
    assert (rows[0]["first_position"], rows[0]["second_position"], rows[0]["labels_differ"]) == ("115", "76", "true")
    assert page.count('<figure class="conflict">') == 2 * sum(row["labels_differ"] == "true" for row in rows)
    (tmp_path / "pairs" / "pairs.csv").write_text("mine")
    (line,) = refuse(*command)
    assert line.startswith("--pictures: pairs/pairs.csv is not as this command wrote it, so it is not replaced")


def test_more_pairs_than_a_page_shows_are_counted(monkeypatch, archives, tmp_path):
    from visionforge.reporting import pairs_page

    monkeypatch.setattr(pairs_page, "MOST_SHOWN", 2)
    report = vf.check_dataset("breastmnist", root=archives, pictures=tmp_path / "pairs")
    assert report.page == tmp_path / "pairs" / "index.html"
    page = report.page.read_text(encoding="utf-8")
    more = len(report.duplicates.between("train", "test", "near")) - 2
    assert f"{more} more in pairs.csv." in page


@pytest.mark.slow
def test_a_trained_network_says_what_is_alike(capsys, archives, tmp_path, refuse):
    quick = {**QUICK, "trainer.max_epochs": 1, "evaluation.resamples": 0}
    run = vf.fit(**quick, **{"trainer.default_root_dir": str(tmp_path / "outputs")})
    command = ["datasets", "check", "breastmnist", "--root", str(archives)]
    assert main([*command, "--embedding", str(run.path), "--json"]) == 0
    by_network = json.loads(capsys.readouterr().out)["pairs"]
    assert "alike" in {pair["kind"] for pair in by_network}
    assert main([*command, "--embedding", "pixels", "--json"]) == 0
    by_pixels = json.loads(capsys.readouterr().out)["pairs"]
    alike = [
        [(p["first_position"], p["second_position"]) for p in each if p["kind"] == "alike"]
        for each in (by_network, by_pixels)
    ]
    assert alike[0] != alike[1]
    assert refuse(*command, "--embedding", "nothing")[0].startswith("--embedding: nothing is no folder")
    (line,) = refuse(*command, "--resolution", "64", "--embedding", str(run.path))
    assert "takes images of 28×28 pixels, these have 64" in line
    (line,) = refuse(*command, "--exactly", "--embedding", "pixels")
    assert line.startswith("--embedding: is not used")
    (line,) = refuse("datasets", "check", "adrenalmnist3d", "--root", str(archives), "--embedding", "pixels")
    assert "has volumes" in line


def test_what_an_import_told_is_kept_and_stands_in_every_report(capsys, tmp_path):
    pictures(*(tmp_path / "photos" / name for name in ("cat", "Cat")), count=30)
    (tmp_path / "photos" / "cat" / "broken.png").write_text("no picture")
    told = "1 picture could not be read and is left out (broken.png: is no picture); the classes Cat and cat differ in"
    assert main(["datasets", "import", str(tmp_path / "photos")]) == 0
    given = flags(data__dataset="photos", trainer__max_epochs=1, evaluation__report="true")
    assert main(["fit", *given]) == 0
    (run,) = run_folders(tmp_path / "outputs")
    assert told in (run / "report.html").read_text(encoding="utf-8")
    for command in (["datasets", "info", "photos"], ["runs", "show", str(run)]):
        capsys.readouterr()
        assert main(command) == 0
        assert told in " ".join(capsys.readouterr().out.split())


def test_a_fit_warns_of_what_splits_share(capsys, archives, tmp_path):
    given = flags(data__dataset="breastmnist", data__root=archives, trainer__max_epochs=1, evaluation__report="true")
    assert main(["fit", *given]) == 0
    said = capsys.readouterr()
    warning = "breastmnist: 1 image of test is in train, too; see `visionforge datasets check breastmnist`"
    assert (said.out + said.err).count(warning) == 1
    (run,) = run_folders(tmp_path / "outputs")
    assert warning in (run / "run.log").read_text(encoding="utf-8")
    assert json.loads((run / "run.json").read_text())["data"]["shared with train"] == "1 image of test is in train, too"
    assert "1 image of test is in train, too" in (run / "report.html").read_text(encoding="utf-8")
