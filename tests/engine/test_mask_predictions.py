"""Masks of anybody's pictures: of their own size, whatever it is, as files that replace nothing of the user's."""

import contextlib
import csv
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tasks.helpers import FLAGS, mask_model, mask_spec, noise
from visionforge.data.pictures import scaled_whole
from visionforge.engine import mask_predictions
from visionforge.engine.mask_predictions import mask_name
from visionforge.engine.picture_outputs import mask_folder
from visionforge.engine.picture_predictions import predict_pictures
from visionforge.errors import RunError, SettingsError, VisionForgeError
from visionforge.inference.mask_predictor import MaskPredictor
from visionforge.inference.tiling import predict_tiled
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.runs.staging import staging

SIDE = 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network and its checkpoint."""
    path = tmp_path_factory.mktemp("network") / "one.ckpt"
    model = mask_model(mask_spec(flags=FLAGS.model_copy(update={"rotation": "none"})), tta="full")
    content = {"state_dict": model.state_dict(), "hyper_parameters": {**model.hparams, "restoring": True}}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, path)
    return model, str(path)


def picture(path, height, width, mode="RGB", seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise(1, height, width, seed=seed)[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def predicted(trained, *pictures, out="said.csv", warned=None, **changes):
    warn = (lambda text: None) if warned is None else warned.append
    settings = {"checkpoint": trained[1], "out": Path(out), "accelerator": "cpu", "warn": warn, **changes}
    return predict_pictures(list(pictures), Interruption(), **settings)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def mask_of(found, row):
    return np.asarray(Image.open(found.path.parent / row["mask"]))


def reference(model, path, scaled=True, overlap=0.25):
    """Return the mask of a picture by its own steps."""
    shown = Image.open(path).convert("RGB")
    image = torch.from_numpy(scaled_whole(shown, SIDE if scaled else None)).permute(2, 0, 1)
    given = predict_tiled(MaskPredictor(model).outputs, image.contiguous(), SIDE, overlap)
    if given.shape[1:] != (shown.height, shown.width):
        given = torch.nn.functional.interpolate(given[None], (shown.height, shown.width), mode="bilinear")[0]
    return given.argmax(dim=0).numpy(), float(given.max(dim=0).values.mean())


def test_masks_of_an_earlier_call_are_no_pictures(trained, tmp_path):
    for number in range(3):
        picture(tmp_path / "own" / f"{number}.png", 16, 16, seed=number)
    picture(tmp_path / "own" / "more" / "said_masks" / "a.png", 16, 16)  # of somebody else
    for _ in range(2):
        assert predicted(trained, tmp_path / "own", out=tmp_path / "own" / "said.csv", overwrite=True).images == 4


@pytest.mark.parametrize("scale", [None, "fit", "native"])
def test_masks_are_of_the_size_of_the_pictures(trained, tmp_path, scale):
    sizes = [(16, 16), (9, 40), (50, 37), (5, 7), (16, 33), (1, 3)]
    paths = [picture(tmp_path / "p" / f"{k}.png", *size, seed=k) for k, size in enumerate(sizes)]
    found = predicted(trained, tmp_path / "p", scale=scale)
    written = rows(found.path)
    assert [row["path"] for row in written] == [str(path) for path in paths]
    for row, path, size in zip(written, paths, sizes, strict=True):
        mask = mask_of(found, row)
        assert mask.shape == size
        expected, sure = reference(trained[0], path, scale != "native")
        assert (mask == expected).mean() > 0.995  # resampled class by class, ties aside
        assert float(row["confidence"]) == pytest.approx(sure, abs=1e-4)
        assert row["views"] == "1"
        counts = [int(row[f"predicted_pixels_{name}"]) for name in trained[0].spec.classes]
        assert counts == np.bincount(mask.ravel(), minlength=3).tolist()
    assert found.images == len(sizes)
    assert len(set(np.concatenate([mask_of(found, row).ravel() for row in written]).tolist())) == 3


def test_layers_may_multiply_in_bfloat16(trained, tmp_path):
    path = picture(tmp_path / "p.png", 40, 40)
    full, less = (predicted(trained, path, out=f"{name}.csv", precision=name) for name in ("32-true", "bf16-mixed"))
    (one,), (other,) = rows(full.path), rows(less.path)
    assert one["confidence"] != other["confidence"]
    assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=0.02)
    assert (mask_of(full, one) == mask_of(less, other)).mean() > 0.95


def test_a_picture_of_the_network_has_the_mask_of_the_network(trained, tmp_path):
    images = noise(3, seed=3)
    for k, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{k}.png")
    found = predicted(trained, *(tmp_path / f"{k}.png" for k in range(3)))
    said = MaskPredictor(trained[0])(images)
    for row, mask, sure in zip(rows(found.path), said.labels, said.sure, strict=True):
        np.testing.assert_array_equal(mask_of(found, row), mask)
        assert float(row["confidence"]) == pytest.approx(sure, abs=1e-6)
    plain = predicted(trained, tmp_path / "0.png", out="plain.csv", tta=False)
    np.testing.assert_array_equal(
        mask_of(plain, rows(plain.path)[0]), MaskPredictor(trained[0], False)(images).labels[0]
    )
    assert rows(plain.path)[0]["views"] == "0"


def test_scale_and_overlap_change_masks(trained, tmp_path):
    path = picture(tmp_path / "one.png", 40, 52)
    masks = []
    for k, changes in enumerate(({}, {"scale": "native"}, {"scale": "native", "overlap": 0.7}, {"overlap": 0.7})):
        found = predicted(trained, path, out=f"{k}.csv", **changes)
        masks.append(mask_of(found, rows(found.path)[0]).tobytes())
    assert len(set(masks)) == 4
    batches = [predicted(trained, path, out=f"b{k}.csv", batch_size=k, scale="native") for k in (1, 3)]
    one, two = (mask_of(found, rows(found.path)[0]) for found in batches)
    assert (one == two).mean() > 0.999
    assert (one.tobytes() == masks[1]) or (one == np.frombuffer(masks[1], np.uint8).reshape(40, 52)).mean() > 0.999


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK", "1", "I;16"])
def test_pictures_of_any_colours(trained, tmp_path, mode):
    path = tmp_path / "one.tif"
    if mode == "I;16":
        Image.fromarray(np.random.default_rng(0).integers(0, 60_000, (20, 30), dtype=np.uint16)).save(path)
    else:
        picture(path, 20, 30, mode)
    found = predicted(trained, path)
    assert mask_of(found, rows(found.path)[0]).shape == (20, 30)


@pytest.mark.slow
def test_a_grey_network_takes_coloured_pictures_and_archives(tmp_path):
    model = mask_model(mask_spec(channels=1))
    content = {"state_dict": model.state_dict(), "hyper_parameters": {**model.hparams, "restoring": True}}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, tmp_path / "grey.ckpt")
    picture(tmp_path / "p" / "one.png", 20, 30)
    grey = noise(4, channels=1)
    np.savez(tmp_path / "p" / "two.npz", test_images=grey[:, 0].numpy())
    found = predicted((model, str(tmp_path / "grey.ckpt")), tmp_path / "p" / "one.png", tmp_path / "p" / "two.npz")
    written = rows(found.path)
    assert len(written) == 5
    masks = MaskPredictor(model)(grey).labels
    for k, row in enumerate(written[1:]):
        assert row["path"].endswith(f"two.npz:test/{k:06d}")
        np.testing.assert_array_equal(mask_of(found, row), masks[k])


def test_colour_archives_of_another_size_are_scaled(trained, tmp_path):
    images = noise(2, 24, 24).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "two.npz", val_images=images)
    found = predicted(trained, tmp_path / "two.npz", split="val")
    for row, image in zip(rows(found.path), images, strict=True):
        Image.fromarray(image).save(tmp_path / "one.png")
        assert (mask_of(found, row) == reference(trained[0], tmp_path / "one.png")[0]).mean() > 0.995


# --- what cannot be read or written


def test_files_that_cannot_be_read_are_in_the_table_of_errors(trained, tmp_path):
    for k in (0, 2):
        picture(tmp_path / "p" / f"{k}.png", 20, 20)
    (tmp_path / "p" / "1.png").write_bytes(b"nothing")
    warned = []
    found = predicted(trained, tmp_path / "p", warned=warned)
    assert (found.images, found.failed) == (2, 1)
    assert [row["mask"] for row in rows(found.path)] == ["said_masks/000000_0.png", "said_masks/000002_2.png"]
    (bad,) = rows(found.errors)
    assert bad == {"path": str(tmp_path / "p" / "1.png"), "reason": "is no picture"}
    assert warned == [f"{tmp_path / 'p' / '1.png'}: is no picture"]
    (tmp_path / "p" / "1.png").unlink()
    again = predicted(trained, tmp_path / "p", overwrite=True)
    assert again.errors is None
    assert not found.errors.exists()


def test_a_picture_that_is_too_large_to_predict_is_one_of_those_that_failed(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("visionforge.inference.tiling._MOST_VALUES", 3 * 600)
    picture(tmp_path / "p" / "0.png", 20, 20)
    picture(tmp_path / "p" / "1.png", 30, 40)
    found = predicted(trained, tmp_path / "p", scale="native")
    assert (found.images, found.failed) == (1, 1)
    assert "40 × 30 pixels and 3 classes is too large to predict at once" in rows(found.errors)[0]["reason"]


def test_if_none_can_be_read_nothing_is_left(trained, tmp_path):
    (tmp_path / "p").mkdir()
    for k in range(3):
        (tmp_path / "p" / f"{k}.png").write_bytes(b"nothing")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match="pictures: none of the 3 files could be read, so nothing was written"):
        predicted(trained, tmp_path / "p")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_exists_already_is_refused(trained, tmp_path):
    path = picture(tmp_path / "one.png", 20, 20)
    found = predicted(trained, path)
    with pytest.raises(SettingsError, match=r"out: said\.csv exists already; name another file, or add `overwrite`"):
        predicted(trained, path)
    found.path.unlink()
    with pytest.raises(SettingsError, match="out: said_masks exists already; name another table, or add `overwrite`"):
        predicted(trained, path)
    first = mask_of(found, {"mask": "said_masks/000000_one.png"})
    again = predicted(trained, path, overwrite=True)
    np.testing.assert_array_equal(mask_of(again, rows(again.path)[0]), first)
    (tmp_path / "b_masks").write_text("mine")
    with pytest.raises(SettingsError, match="out: b_masks is no folder for the masks; name another table"):
        predicted(trained, path, out="b.csv", overwrite=True)


@pytest.mark.parametrize("kind", ["text", "picture", "link", "folder"])
def test_what_is_not_ours_in_the_folder_of_masks_is_not_replaced(trained, tmp_path, kind):
    path = picture(tmp_path / "one.png", 20, 20)
    theirs = tmp_path / "said_masks" / "000000_one.png"
    theirs.parent.mkdir()
    match kind:
        case "text":
            theirs.write_text("mine")
        case "picture":
            Image.new("L", (4, 4)).save(theirs)
        case "folder":
            theirs.mkdir()
        case "link":
            (tmp_path / "mine.txt").write_text("mine")
            theirs.symlink_to(tmp_path / "mine.txt")
    before = None if kind == "folder" else theirs.read_bytes()
    with pytest.raises(VisionForgeError, match=r"000000_one.png would be replaced, and was not written by predict"):
        predicted(trained, path, overwrite=True)
    assert kind == "folder" or theirs.read_bytes() == before
    assert theirs.is_symlink() == (kind == "link")
    assert not (tmp_path / "said.csv").exists()


def test_nothing_is_written_if_a_mask_would_replace_what_is_not_ours(trained, tmp_path):
    for k in range(3):
        picture(tmp_path / "p" / f"{k}.png", 20, 20)
    (tmp_path / "said_masks").mkdir()
    (tmp_path / "said_masks" / "000002_2.png").write_text("mine")
    with pytest.raises(RunError, match="would be replaced"):
        predicted(trained, tmp_path / "p", overwrite=True)
    assert [path.name for path in (tmp_path / "said_masks").iterdir()] == ["000002_2.png"]


def test_interrupted_it_leaves_nothing_behind(trained, tmp_path):
    for k in range(4):
        picture(tmp_path / "p" / f"{k}.png", 20, 20)
    before = sorted(tmp_path.rglob("*"))
    interruption = Interruption()

    def stop(done, total):
        if done == 2:
            interruption.requested = signal.SIGTERM

    with pytest.raises(Interrupted):
        predict_pictures(
            [tmp_path / "p"], interruption, checkpoint=trained[1], out=tmp_path / "said.csv", accelerator="cpu",
            progress=stop,
        )  # fmt: skip
    assert sorted(tmp_path.rglob("*")) == before
    assert predicted(trained, tmp_path / "p").images == 4


KILLED = """
import os, signal, sys
from pathlib import Path
from visionforge.engine.picture_predictions import predict_pictures
from visionforge.runs.signals import Interruption

def end(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint, pictures, out = sys.argv[1:]
predict_pictures(
    [Path(pictures)], Interruption(), checkpoint=checkpoint, out=Path(out), accelerator="cpu", progress=end
)
"""


@pytest.mark.slow
def test_what_a_killed_call_left_is_removed_by_the_next(trained, tmp_path):
    for k in range(3):
        picture(tmp_path / "p" / f"{k}.png", 20, 20)
    arguments = [trained[1], str(tmp_path / "p"), str(tmp_path / "said.csv")]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.glob(".said_masks.*/files")
    assert sorted(path.name for path in left.iterdir()) == ["000000_0.png", "000001_1.png"]
    (left / ".000002_2.png.abcd1234.tmp").touch()  # as if it had been killed while it wrote
    (left / ".000003_3.png.abcd1234.tmp").write_bytes((left / "000000_0.png").read_bytes()[:-20])
    (tmp_path / ".said_masks.mine0000").mkdir()
    shutil.copy(left / "000000_0.png", tmp_path / ".said_masks.mine0000")
    predicted(trained, tmp_path / "p", out=tmp_path / "other.csv")
    assert len(list(left.iterdir())) == 4
    found = predicted(trained, tmp_path / "p", out=tmp_path / "said.csv")
    assert found.images == 3
    assert not left.parent.exists()
    hidden = [path.name for path in tmp_path.iterdir() if path.name.startswith(".said_masks")]
    assert hidden == [".said_masks.mine0000"]
    assert [path.name for path in (tmp_path / ".said_masks.mine0000").iterdir()] == ["000000_0.png"]


def test_of_what_a_killed_call_left_everything_else_stays(trained, tmp_path):
    path = picture(tmp_path / "p" / "0.png", 20, 20)
    with contextlib.suppress(KeyboardInterrupt), staging(tmp_path / "said_masks", lambda path: True) as files:
        kept = files.parent.rename(tmp_path / ".kept")
        raise KeyboardInterrupt  # which removes nothing: it has another name
    left = kept.rename(files.parent)
    Image.new("L", (4, 4)).save(left / "files" / "000000_0.png")
    (left / "files" / "000001_1.png").write_text("mine")
    (left / "files" / ".000002_2.png.abcd1234.tmp").write_text("mine")
    (left / "files" / "notes.txt").touch()
    before = sorted(left.rglob("*"))
    predicted(trained, path, out=tmp_path / "said.csv")
    assert sorted(left.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "half"}, "scale: half is not allowed; allowed: fit, native"),
        ({"overlap": 0.8}, "overlap: 0.8 is not allowed; allowed: 0 to 0.75"),
        ({"overlap": -0.1}, "overlap: -0.1 is not allowed"),
        ({"overlap": float("nan")}, "overlap: nan is not allowed"),
    ],
)
def test_tiles_out_of_their_range_are_one_line(trained, tmp_path, changes, message):
    path = picture(tmp_path / "one.png", 20, 20)
    with pytest.raises(SettingsError, match=re.escape(message)):
        predicted(trained, path, **changes)
    assert not (tmp_path / "said.csv").exists()


# --- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("scans/knee one.jpg", "000003_knee_one.png"),
        ("a/../../etc/passwd", "000003_passwd.png"),
        ("..", "000003_picture.png"),
        ("a/.hidden.png", "000003_hidden.png"),
        ("ärzte/\x1b[31m\n‮x.png", "000003_31m_x.png"),
        ("C:\\temp\\x:y*?.png", "000003_C_temp_x_y.png"),
        ("set.npz:test/000012", "000003_000012.png"),
        ("病院.png", "000003_picture.png"),
        (f"{'x' * 300}.png", f"000003_{'x' * 60}.png"),
        ("-rf.png", "000003_-rf.png"),
    ],
)
def test_names_of_masks_are_safe(name, expected):
    found = mask_name(3, name)
    assert found == expected
    assert re.fullmatch(r"[0-9]{6}_[A-Za-z0-9._-]{1,60}\.png", found)


def test_pictures_of_odd_names_are_told_apart(trained, tmp_path):
    names = ["a b.png", "a_b.png", "-.png", "ä.png", "=1+1.png"]
    for name in names:
        picture(tmp_path / "p" / name, 8, 8)
    found = predicted(trained, tmp_path / "p")
    masks = [row["mask"] for row in rows(found.path)]
    assert len(set(masks)) == len(names)
    assert {path.name for path in mask_folder(found.path).iterdir()} == {mask.split("/")[1] for mask in masks}
    assert mask_predictions.mask_folder(found.path).name == "said_masks"


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_tables_of_other_formats(trained, tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    path = picture(tmp_path / "one.png", 20, 20)
    found = predicted(trained, path, out=f"said.{suffix}")
    assert found.table["mask"].tolist() == ["said_masks/000000_one.png"]
    assert mask_of(found, {"mask": found.table["mask"][0]}).shape == (20, 20)


def test_a_network_of_padded_pictures_is_shown_padded_ones(tmp_path):
    model = mask_model(mask_spec(flags=FLAGS, fit="pad"), tta="off")
    checkpoint = tmp_path / "one.ckpt"
    content = {"state_dict": model.state_dict(), "hyper_parameters": {**model.hparams, "restoring": True}}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, checkpoint)
    path = picture(tmp_path / "p.png", 8, SIDE)
    found = predicted((model, str(checkpoint)), path, out=tmp_path / "said.csv")
    square = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    square[0, :, :8] = torch.from_numpy(np.asarray(Image.open(path))).permute(2, 0, 1)
    expected = MaskPredictor(model)(square).labels[0, :8]
    np.testing.assert_array_equal(mask_of(found, rows(found.path)[0]), expected)


def test_masks_of_an_earlier_call_are_removed_and_a_linked_folder_is_refused(trained, tmp_path):
    for k in range(3):
        picture(tmp_path / "p" / f"{k}.png", SIDE, SIDE, seed=k)
    found = predicted(trained, tmp_path / "p", out=tmp_path / "said.csv")
    folder = mask_folder(found.path)
    (folder / "000009_mine.png").write_bytes((tmp_path / "p" / "0.png").read_bytes())  # of somebody else
    (tmp_path / "p" / "2.png").unlink()
    predicted(trained, tmp_path / "p", out=tmp_path / "said.csv", overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["000000_0.png", "000001_1.png", "000009_mine.png"]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="said_masks is no folder for the masks"):
        predicted(trained, tmp_path / "p", out=tmp_path / "said.csv", overwrite=True)
