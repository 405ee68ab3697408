"""Boxes of anybody's pictures: in pixels of the pictures as they are, as a table and in the format of COCO."""

import copy
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from tests.tasks.helpers import box_spec, noise
from tests.training.helpers import MINI
from visionforge.data.pictures import scaled_whole
from visionforge.engine.picture_outputs import COCO_HEAD, coco_file
from visionforge.engine.picture_predictions import predict_pictures
from visionforge.errors import RunError, SettingsError
from visionforge.inference.box_predictor import BoxPredictor
from visionforge.inference.tiling import tiled_boxes
from visionforge.runs.signals import Interruption
from visionforge.training.classifier import ImageClassifier

SIDE = 32
CORNERS = ("x1", "y1", "x2", "y2")


def made(spec):
    """Return an untrained detector that says something."""
    torch.manual_seed(1)
    detector = {"name": "retinanet", "width": 32, "score_threshold": 0.01, "max_detections": 30}
    model = ImageClassifier(MINI, detector=detector, spec=spec, tta="full")
    model.configure_model()
    return model.eval()


def saved(model, path):
    content = {"state_dict": model.state_dict(), "hyper_parameters": {**model.hparams, "restoring": True}}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, path)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network and its checkpoint."""
    model = made(box_spec())
    return model, saved(model, tmp_path_factory.mktemp("network") / "one.ckpt")


def picture(path, height, width, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(1, height, width, seed=seed)[0].permute(1, 2, 0).numpy()).save(path)
    return path


def predicted(trained, *pictures, out="said.csv", warned=None, **changes):
    warn = (lambda text: None) if warned is None else warned.append
    settings = {"checkpoint": trained[1], "out": Path(out), "accelerator": "cpu", "warn": warn, **changes}
    return predict_pictures(list(pictures), Interruption(), **settings)


def boxes_of(found, path):
    """Return the rows of a picture in the table, as [class name, score, x1, y1, x2, y2]."""
    with found.path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["path"] == str(path)]
    return [(row["class"], *(float(row[name]) for name in ("score", *CORNERS))) for row in rows]


def told(rows, spec):
    return [(spec.classes[int(row[0])], *row[1:].tolist()) for row in rows]


def alike(found, expected):
    assert [row[0] for row in found] == [row[0] for row in expected]
    assert len(found) > 3
    np.testing.assert_allclose([row[1:] for row in found], [row[1:] for row in expected], atol=2e-3)


def of_network(model, images, tta=None):
    found = torch.from_numpy(BoxPredictor(model, tta)(images).labels)
    return [rows[rows[:, 0] >= 0] for rows in found]


def test_a_picture_of_the_network_has_the_boxes_of_the_network(trained, tmp_path):
    model, _ = trained
    paths = [picture(tmp_path / f"{k}.png", SIDE, SIDE, seed=k) for k in range(3)]
    images = torch.cat([noise(1, SIDE, SIDE, seed=k) for k in range(3)])
    for tta in (None, False):
        found = predicted(trained, *paths, out=f"{tta}.csv", tta=tta)
        assert found.images == 3
        for path, rows in zip(paths, of_network(model, images, tta), strict=True):
            alike(boxes_of(found, path), told(rows, model.spec))


def test_layers_may_multiply_in_bfloat16(trained, tmp_path):
    path = picture(tmp_path / "p.png", SIDE, SIDE)
    full, less = (
        boxes_of(predicted(trained, path, out=f"{name}.csv", precision=name), path)
        for name in ("32-true", "bf16-mixed")
    )
    assert full != less
    model = copy.deepcopy(trained[0])
    model.arithmetic = torch.bfloat16
    (rows,) = of_network(model, noise(1, SIDE, SIDE, seed=0))
    alike(less, told(rows, model.spec))


@pytest.mark.parametrize("scale", ["fit", "native"])
def test_boxes_are_in_pixels_of_the_pictures(trained, tmp_path, scale):
    model, _ = trained
    for k, (height, width) in enumerate([(64, 64), (50, 81), (20, 90)]):
        path = picture(tmp_path / f"{k}.png", height, width, seed=k)
        found = predicted(trained, path, out=f"{k}.csv", scale=scale, overlap=0.5)
        image = torch.from_numpy(scaled_whole(Image.open(path), SIDE if scale == "fit" else None)).permute(2, 0, 1)
        iou = model.settings.detector.nms_iou
        rows = tiled_boxes(lambda tiles: of_network(model, tiles), image.contiguous(), SIDE, 0.5, iou)
        rows[:, 2:] *= torch.tensor([width / image.shape[2], height / image.shape[1]] * 2)
        alike(boxes_of(found, path), told(rows, model.spec))
        assert max(row[4] for row in boxes_of(found, path)) <= width


def test_what_lies_in_the_black_that_a_picture_was_padded_with_is_left_out(tmp_path):
    model = made(box_spec(fit="pad"))
    trained = model, saved(model, tmp_path / "one.ckpt")
    path = picture(tmp_path / "wide.png", 20, 80)
    rows = boxes_of(predicted(trained, path), path)
    assert len(rows) > 3
    assert max(row[5] for row in rows) <= 20
    image = scaled_whole(Image.open(path), SIDE, "pad")
    assert image.shape[:2] == (8, SIDE)
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    square[:8] = image
    (said,) = of_network(model, torch.from_numpy(square).permute(2, 0, 1)[None])
    assert len(rows) == int((said[:, 3] < 8).sum()) < len(said)


def test_the_file_of_coco_is_the_table(trained, tmp_path):
    paths = [picture(tmp_path / "p" / f"{k}.png", 40, 30 + k, seed=k) for k in range(3)]
    (tmp_path / "p" / "1b.png").write_text("none")
    warned = []
    found = predicted(trained, tmp_path / "p", warned=warned)
    assert (found.images, found.failed, len(warned)) == (3, 1, 1)
    coco = COCO(str(coco_file(found.path)))
    assert [image["file_name"] for image in coco.imgs.values()] == [str(path) for path in paths]
    assert [(image["width"], image["height"]) for image in coco.imgs.values()] == [(30 + k, 40) for k in range(3)]
    names = {category["id"]: category["name"] for category in coco.cats.values()}
    assert list(names.values()) == list(trained[0].spec.classes)
    for image, path in zip(coco.imgs, paths, strict=True):
        entries = coco.loadAnns(coco.getAnnIds(imgIds=[image]))
        rows = [
            (names[entry["category_id"]], entry["score"], x, y, x + w, y + h)
            for entry in entries
            for x, y, w, h in [entry["bbox"]]
        ]
        alike(boxes_of(found, path), rows)
    assert len(found.table) == len(coco.anns)


def test_pictures_without_boxes_are_in_the_file_of_coco_alone(tmp_path):
    model = made(box_spec())
    model.settings = model.settings.model_copy(
        update={"detector": model.settings.detector.model_copy(update={"score_threshold": 0.99})}
    )
    model.hparams["detector"]["score_threshold"] = 0.99
    trained = model, saved(model, tmp_path / "one.ckpt")
    found = predicted(trained, picture(tmp_path / "a.png", SIDE, SIDE))
    assert found.path.read_text().splitlines() == ["path,class,score,x1,y1,x2,y2"]
    content = json.loads(coco_file(found.path).read_text())
    assert (len(content["images"]), content["annotations"]) == (1, [])


def test_files_of_others_stay(trained, tmp_path):
    path = picture(tmp_path / "a.png", SIDE, SIDE)
    found = predicted(trained, path)
    before = coco_file(found.path).read_bytes()
    assert before.startswith(COCO_HEAD.encode())
    found.path.unlink()
    with pytest.raises(SettingsError, match=r"said\.coco\.json exists already; name another table, or add `overwrite`"):
        predicted(trained, path)
    assert predicted(trained, path, overwrite=True).images == 1
    assert coco_file(found.path).read_bytes() == before
    coco_file(found.path).write_text("{}")
    with pytest.raises(SettingsError, match=r"said\.coco\.json would be replaced, and was not written by predict"):
        predicted(trained, path, overwrite=True)
    assert coco_file(found.path).read_text() == "{}"
    (tmp_path / "mine.json").write_bytes(before)
    coco_file(found.path).unlink()
    coco_file(found.path).symlink_to(tmp_path / "mine.json")
    with pytest.raises(SettingsError, match="would be replaced"):
        predicted(trained, path, overwrite=True)


def test_nothing_is_written_if_no_picture_can_be_read(trained, tmp_path):
    for name in ("p", "q"):
        (tmp_path / name).mkdir()
    (tmp_path / "p" / "a.png").write_text("none")
    with pytest.raises(RunError, match="none of the 1 files could be read, so nothing was written"):
        predicted(trained, tmp_path / "p", out=tmp_path / "q" / "said.csv")
    assert list((tmp_path / "q").iterdir()) == []
