"""Pictures with boxes become a data set: one form of both formats, boxes on their objects, what is wrong is told."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.conftest import real_data
from visionforge.cli.main import main
from visionforge.config.schema.tasks import UnknownTaskError, task_named, task_names
from visionforge.data import MedMNISTDataModule
from visionforge.data.box_listing import list_boxes
from visionforge.data.coco import read_coco
from visionforge.data.importing import ImportSettings, import_images
from visionforge.data.info import SPLITS
from visionforge.data.registry import dataset_info
from visionforge.data.voc import read_voc
from visionforge.errors import DataError, SettingsError
from visionforge.reading import UnreadableError
from visionforge.training.monitor import monitor_for

WIDTH, HEIGHT = 40, 30
BOX = (4, 6, 14, 16)  # x1, y1, x2, y2, from 0


def picture(path, box=BOX, size=(WIDTH, HEIGHT), dark=0):
    """Save a picture that is bright in a box."""
    values = np.full((size[1], size[0], 3), dark, np.uint8)
    x1, y1, x2, y2 = (round(side) for side in box)
    values[max(0, y1) : y2, max(0, x1) : x2] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def voc_object(name="cat", box=BOX):
    x1, y1, x2, y2 = box
    sides = {"xmin": x1 + 1 if isinstance(x1, int) else x1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in sides.items())
    return f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"


def voc(path, objects=None, filename="", size=(WIDTH, HEIGHT)):
    """Write a file of Pascal VOC."""
    objects = [voc_object()] if objects is None else objects
    stated = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{filename}</filename>{stated}{''.join(objects)}</annotation>")


@pytest.fixture
def source(tmp_path):
    """Twelve pictures with a cat each, and every third with a dog."""
    folder = tmp_path / "pets"
    for number in range(12):
        box = (4 + number, 6, 14 + number, 16)
        picture(folder / "JPEGImages" / f"{number}.png", box, dark=number)
        dogs = [voc_object("dog", (30, 20, 38, 28))] if number % 3 == 0 else []
        voc(folder / "Annotations" / f"{number}.xml", [voc_object(box=box), *dogs], f"{number}.png")
    return folder


def coco_content(count=12, first=0, **image):
    images = [
        {"id": first + k, "file_name": f"{first + k}.png", "width": WIDTH, "height": HEIGHT, **image}
        for k in range(count)
    ]
    boxes = [
        {"id": k, "image_id": first + k, "category_id": 3, "bbox": [4, 6, 10, 10], "iscrowd": 0} for k in range(count)
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": boxes, "categories": categories}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def coco_source(tmp_path):
    """Twelve pictures in `images`, and one file of boxes."""
    for number in range(12):
        picture(tmp_path / "coco" / "images" / f"{number}.png", dark=number)
    content = coco_content()
    content["annotations"][0]["category_id"] = 7
    write(tmp_path / "coco" / "annotations" / "instances.json", content)
    return tmp_path / "coco"


def imported(source, **changes):
    try:
        return import_images(ImportSettings(**{"source": source, "name": "pets", "resolution": 20, **changes}))
    except UnknownTaskError:
        pytest.skip("the task detection is not there")


def refused(source, **changes):
    with pytest.raises((DataError, SettingsError)) as caught:
        imported(source, **changes)
    assert all(problem.isprintable() for problem in caught.value.problems)
    return "\n".join(caught.value.problems)


def arrays(report):
    """Return split → images and rows of its boxes, as the archive has them."""
    with np.load(report.archive) as archive:
        return {split: (archive[f"{split}_images"], archive[f"{split}_labels"]) for split in SPLITS}


# --- what becomes a data set


def test_pascal_voc_becomes_a_data_set(source):
    report = imported(source)
    info = dataset_info("pets")
    assert info == report.info
    assert (info.task, info.classes) == ("detection", ("cat", "dog"))
    assert info.splits.model_dump() == {"train": 8, "val": 2, "test": 2}
    for images, rows in arrays(report).values():
        assert rows.dtype == np.float64
        assert rows.shape[1] == 6
        assert (np.diff(rows[:, 0]) >= 0).all()
        assert set(rows[:, 0].astype(int)) == set(range(len(images)))
        for index, kind, x1, y1, x2, y2 in rows[rows[:, 1] == 0]:
            bright = images[int(index), ..., 0] > 125
            assert kind == 0
            assert np.flatnonzero(bright.any(axis=0))[[0, -1]].tolist() == pytest.approx([x1, x2 - 1], abs=0.51)
            assert np.flatnonzero(bright.any(axis=1))[[0, -1]].tolist() == pytest.approx([y1, y2 - 1], abs=0.51)
    dogs = np.concatenate([rows[rows[:, 1] == 1] for _, rows in arrays(report).values()])
    np.testing.assert_array_equal(dogs[:, 2:], [[15, 10, 19, 14]] * 4)  # half of the picture's, exactly


def test_lists_of_pascal_voc_divide(source):
    lists = source / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("0\n1\n2\n3\n4\n5\n")
    (lists / "val.txt").write_text("4\n5\n")
    (lists / "test.txt").write_text("6\n7\n\n8\n")
    report = imported(source)
    assert report.info.splits.model_dump() == {"train": 4, "val": 2, "test": 3}
    assert any("3 files of boxes are of pictures in none of the lists" in note for note in report.notes)
    (lists / "train.txt").write_text("0\n4\n")
    assert "4 is in train.txt, too" in refused(source, replace=True)
    (lists / "train.txt").write_text("0\nx\n")
    assert "1 pictures of its lists have no file" in refused(source, replace=True)


def test_coco_becomes_a_data_set(coco_source):
    report = imported(coco_source)
    assert report.info.classes == ("cat", "dog")  # by their numbers
    rows = np.concatenate([rows for _, rows in arrays(report).values()])
    assert sorted(rows[:, 1]) == [0] * 11 + [1]
    np.testing.assert_array_equal(rows[:, 2:], [[2, 3, 7, 8]] * 12)


def test_files_of_coco_divide(tmp_path):
    for split, first, count in (("train2017", 0, 6), ("val2017", 6, 3), ("test", 9, 3)):
        for number in range(first, first + count):
            picture(tmp_path / "coco" / split / f"{number}.png", dark=number)
        content = coco_content(count, first)
        content["annotations"][0]["category_id"] = 7
        write(tmp_path / "coco" / "annotations" / f"instances_{split}.json", content)
    write(tmp_path / "coco" / "annotations" / "captions_train2017.json", {})
    assert imported(tmp_path / "coco").info.splits.model_dump() == {"train": 6, "val": 3, "test": 3}
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "coco" / "annotations").rename(elsewhere)
    assert "its name says no split" not in refused(tmp_path / "coco", boxes=elsewhere, replace=True)
    (elsewhere / "captions_train2017.json").unlink()
    assert imported(tmp_path / "coco", boxes=elsewhere, replace=True).info.splits.train == 6
    (elsewhere / "instances_val2017.json").rename(elsewhere / "x.json")
    assert "x.json: its name says no split" in refused(tmp_path / "coco", boxes=elsewhere, replace=True)


def test_a_table_divides_pictures_with_boxes(source):
    rows = "".join(f"JPEGImages/{number}.png,{('train', 'val', 'test')[number % 3]}\n" for number in range(12))
    (source / "list.csv").write_text(f"path,split\n{rows}")
    info = imported(source / "list.csv", boxes=source / "Annotations").info
    assert info.splits.model_dump() == {"train": 4, "val": 4, "test": 4}
    picture(source / "JPEGImages" / "x.png")
    (source / "list.csv").write_text(f"path,split\n{rows}JPEGImages/x.png,val\n")
    assert "x.png: nothing says its boxes" in refused(source / "list.csv", boxes=source / "Annotations", replace=True)


def test_a_folder_of_boxes_elsewhere(tmp_path, source):
    (source / "Annotations").rename(tmp_path / "truth")
    (source / "JPEGImages").rename(tmp_path / "photos")
    assert imported(tmp_path / "photos", boxes=tmp_path / "truth").info.images == 12


def test_classes_are_ordered_as_asked(source):
    report = imported(source, classes="dog, cat, cow")
    assert report.info.classes == ("dog", "cat", "cow")
    assert any("has no pictures of cow" in note for note in report.notes)
    assert "classes: cat is a class of boxes, but not among dog, cow" in refused(
        source, classes="dog,cow", replace=True
    )


def test_pictures_without_boxes_are_allowed(source):
    voc(source / "Annotations" / "5.xml", [])
    report = imported(source)
    assert "1 of 12 pictures have no box" in report.notes
    assert sum(len(images) for images, _ in arrays(report).values()) == 12
    for number in range(12):
        voc(source / "Annotations" / f"{number}.xml", [])
    assert "none of its 12 pictures has a box" in refused(source, replace=True)


def test_broken_pictures_are_left_out_with_their_boxes(source):
    (source / "JPEGImages" / "5.png").write_bytes(b"no picture")
    report = imported(source)
    assert [path.name for path, _ in report.broken] == ["5.png"]
    assert report.info.images == 11


def test_pictures_without_files_are_told(source):
    (source / "Annotations" / "5.xml").unlink()
    assert any("1 pictures of" in note and "have no file of boxes" in note for note in imported(source).notes)


def test_the_real_blood_cells():
    report = imported(real_data("bccd") / "BCCD", resolution=64)
    assert report.info.splits.model_dump() == {"train": 205, "val": 87, "test": 72}
    assert report.info.classes == ("Platelets", "RBC", "WBC")
    rows = np.concatenate([rows for _, rows in arrays(report).values()])
    assert len(rows) == 4155 + 372 + 361 - 2
    assert "2 boxes are smaller than 1 pixel at 64 pixels; left out" in report.notes
    assert (rows[:, 2:] >= 0).all()
    assert (rows[:, [3, 5]] <= 48 + 1e-9).all()  # 640×480 pixels


@pytest.mark.skipif("detection" not in task_names(), reason="the task detection is not there")
def test_the_command_imports_boxes(source, capsys):
    flags = ["--name", "pets", "--resolution", "16"]
    assert main(["datasets", "import", str(source), *flags]) == 0
    assert "pets: detection, 2 classes" in capsys.readouterr().out
    assert main(["datasets", "import", str(source), *flags, "--replace", "--boxes", "none"]) == 2
    assert "--boxes: none does not exist" in capsys.readouterr().err


@pytest.mark.skipif("detection" not in task_names(), reason="the task detection is not there")
def test_check_statistics_and_sheet_of_boxes(source, capsys, tmp_path):
    voc(source / "Annotations" / "5.xml", [])
    assert main(["datasets", "import", str(source), "--name", "pets", "--resolution", "20", "--json"]) == 0
    capsys.readouterr()
    assert main(["datasets", "check", "pets"]) == 0
    assert " boxes" in capsys.readouterr().out
    assert main(["datasets", "stats", "pets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [sum(found["boxes"][split][kind] for split in SPLITS) for kind in range(2)] == [11, 4]
    assert sum(found["bare"].values()) == 1
    assert found["sides"][0] == [5, 5, 5]  # 10 pixels at half the size
    assert main(["datasets", "stats", "pets"]) == 0
    assert "5.0 / 5.0 / 5.0" in capsys.readouterr().out
    assert main(["datasets", "show", "pets", "--output", str(tmp_path / "sheet.png")]) == 0
    colours = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(colours - [230, 159, 0]).max(axis=1) < 25).sum() > 100  # the boxes of class 0


# --- boxes and pictures stay together


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (50, 37), (20, 20)])
def test_padding_keeps_every_box_exactly(tmp_path, size):
    box = (3, 5, size[0] - 2, size[1] - 4)
    for number in range(6):
        picture(tmp_path / "s" / "JPEGImages" / f"{number}.png", box, size, dark=number)
        voc(tmp_path / "s" / "Annotations" / f"{number}.xml", [voc_object(("cat", "dog")[number % 2], box)], size=size)
    report = imported(tmp_path / "s", resolution=32)
    scale = 32 / max(size)
    for images, rows in arrays(report).values():
        np.testing.assert_allclose(rows[:, 2:], [np.array(box) * scale] * len(rows), rtol=1e-12)
        # an independent reference: the area that is bright, and its centre
        weight = (images[0, ..., 0].astype(float) / 250).clip(0.03) - 0.03
        y, x = np.mgrid[:32, :32] + 0.5
        assert (x * weight).sum() / weight.sum() == pytest.approx((box[0] + box[2]) / 2 * scale, abs=0.15)
        assert (y * weight).sum() / weight.sum() == pytest.approx((box[1] + box[3]) / 2 * scale, abs=0.15)


def test_a_crop_cuts_boxes_and_leaves_out_what_is_gone(source):
    for number in range(12):
        boxes = [
            voc_object("in", (10, 5, 20, 15)),
            voc_object("half", (0, 5, 10, 15)),
            voc_object("out", (0, 5, 6, 15)),
        ]
        voc(source / "Annotations" / f"{number}.xml", boxes)
    report = imported(source, fit="crop", resolution=30)
    rows = np.concatenate([rows for _, rows in arrays(report).values()])
    assert report.info.classes == ("half", "in", "out")
    np.testing.assert_array_equal(rows[rows[:, 1] == 1, 2:], [[5, 5, 15, 15]] * 12)
    np.testing.assert_array_equal(rows[rows[:, 1] == 0, 2:], [[0, 5, 5, 15]] * 12)  # half of it is left
    assert (rows[:, 1] != 2).all()  # a sixth of it would be
    assert any("12 boxes lie outside of the middle square" in note for note in report.notes)


def test_boxes_that_become_tiny_are_left_out(source):
    voc(source / "Annotations" / "5.xml", [voc_object("cat", (4, 6, 5, 20))])
    assert "1 boxes are smaller than 1 pixel at 20 pixels; left out" in imported(source).notes
    for number in range(12):
        voc(source / "Annotations" / f"{number}.xml", [voc_object(each, (4, 6, 5, 20)) for each in ("cat", "dog")])
    assert "no box is left at 20 pixels" in refused(source, replace=True)


def test_pixels_of_both_formats_are_the_same(tmp_path):
    voc(tmp_path / "a.xml", [voc_object("cat", BOX)])
    write(tmp_path / "a.json", coco_content(1))
    one, two = read_voc(tmp_path / "a.xml").found, read_coco(tmp_path / "a.json").pictures[0][1]
    np.testing.assert_array_equal(one.boxes, [BOX])
    np.testing.assert_array_equal(two.boxes, [BOX])
    assert one.names == two.names == ("cat",)
    assert one.size == two.size == (WIDTH, HEIGHT)


# --- what is refused


@pytest.mark.parametrize(
    ("box", "told"),
    [
        (
            (4, 6, 42, 16),
            "5.xml: box 1 (cat) reaches from (4, 6) to (42, 16), counted from 0; allowed: within the 40×30",
        ),
        ((4, -3, 14, 16), "reaches from (4, -3)"),
        ((40, 6, 41, 16), "reaches from (40, 6)"),
        ((14, 6, 4, 16), "object 1 (cat) is -10×10 pixels; width and height have to be above 0"),
        ((4, 6, 4, 16), "object 1 (cat) is 0×10 pixels"),
        ((4, 6, "x", 16), "object 1 (cat): xmax is 'x', which is no finite number"),
        ((4, 6, "nan", 16), "object 1 (cat): xmax is 'nan', which is no finite number"),
        ((4, 6, "1" * 1000, 16), "which is no finite number"),
        ((4, 6, "1e308", 16), "reaches from"),
    ],
)
def test_boxes_that_are_none(source, box, told):
    voc(source / "Annotations" / "5.xml", [voc_object("cat", box)])
    assert told in refused(source)


def test_a_box_that_is_off_by_one_is_cut_off(source):
    voc(source / "Annotations" / "5.xml", [voc_object("cat", (-1, 6, 41, 31))])
    report = imported(source)
    assert "1 boxes reached up to 1 pixel beyond their pictures; cut off there" in report.notes
    rows = np.concatenate([rows for _, rows in arrays(report).values()])
    np.testing.assert_array_equal(rows[rows[:, 4] - rows[:, 2] > 10, 2:], [[0, 3, 20, 15]])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares a document type or entities"),
        ("<annotation><object>", "is no valid XML"),
        ("<html/>", "begins with <html>; files of Pascal VOC begin with <annotation>"),
        ("<annotation><object><bndbox/></object></annotation>", "object 1 has no name"),
        ("<annotation><object><name>a</name></object></annotation>", "has no <bndbox>"),
        ("<annotation>" + "<object/>" * 10_001 + "</annotation>", "has 10,001 boxes, more than 10,000"),
        ("x" * (1 << 23), "larger than 4,194,304 bytes"),
        (
            "<annotation><size><width>-3</width><height>4</height></size></annotation>",
            "states a width and height of -3",
        ),
        (
            "<annotation><size><width>3.5</width><height>4</height></size></annotation>",
            "states a width and height of 3.5",
        ),
    ],
)
def test_files_that_are_no_pascal_voc(source, text, told):
    (source / "Annotations" / "5.xml").write_text(text)
    problem = refused(source)
    assert "5.xml: " in problem
    assert told in problem


def test_entities_are_not_opened(tmp_path):
    (tmp_path / "secret").write_text("secret")
    text = f'<!DOCTYPE a [<!ENTITY b SYSTEM "file://{tmp_path}/secret">]><annotation><object><name>&b;</name></object></annotation>'
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
        with pytest.raises(UnreadableError):
            read_voc(tmp_path / "a.xml")


def test_another_size_than_the_picture(source):
    voc(source / "Annotations" / "5.xml", size=(30, 40))
    assert "5.xml: states 30×40 pixels, its picture has 40×30" in refused(source)
    for number in range(12):  # what says nothing is believed
        voc(source / "Annotations" / f"{number}.xml", [voc_object(("cat", "dog")[number % 2])], size=None)
    voc(source / "Annotations" / "3.xml", size=(0, 0))
    assert imported(source).info.images == 12


def test_a_picture_that_is_missing(source):
    (source / "JPEGImages" / "5.png").unlink()
    assert "5.xml: there is no picture 5 (its filename is 5.png)" in refused(source)


def test_a_filename_helps_where_the_names_differ(source):
    (source / "Annotations" / "5.xml").rename(source / "Annotations" / "five.xml")
    assert imported(source).info.images == 12


@pytest.mark.parametrize("name", ["../../secret.png", "{secret}", "link.png", "below/secret.png"])
def test_names_lead_nowhere_else(tmp_path, source, coco_source, name):
    picture(tmp_path / "secret.png")
    name = name.replace("{secret}", str(tmp_path / "secret.png"))
    for folder in (source / "JPEGImages", coco_source / "images"):
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        (folder / "below").symlink_to(tmp_path, target_is_directory=True)
    voc(source / "Annotations" / "other.xml", filename=name)
    assert "lies outside of the folder" in refused(source)
    (source / "Annotations" / "other.xml").unlink()
    voc(source / "Annotations" / "link.xml", filename="link.png")
    assert "lies outside of the folder" in refused(source)
    content = coco_content()
    content["images"][3]["file_name"] = name
    write(coco_source / "annotations" / "instances.json", content)
    assert "lies outside of the folder" in refused(coco_source)


def test_names_steer_no_terminal(source, coco_source):
    voc(source / "Annotations" / "other.xml", filename="&#x9b;31m&#10;line")
    assert "there is no picture other" in refused(source)
    content = coco_content()
    content["images"][3]["file_name"] = "\x1b[31m\0"
    write(coco_source / "annotations" / "instances.json", content)
    refused(coco_source)


def change(**values):
    return lambda content: content["annotations"][3].update(values)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (change(bbox=[4, 6, 50, 10]), "instances.json, image 3: box 1 (cat) reaches from (4, 6) to (54, 16)"),
        (change(bbox=[4, 6, -2, 0]), "annotation 3 is -2×0 pixels"),
        (change(bbox=[4, 6, -2, 10]), "annotation 3 is -2×10 pixels"),
        (change(bbox=[4, 6, 10]), "annotation 3 has the bbox [4, 6, 10]; four finite numbers are allowed"),
        (change(bbox=["4", 6, 10, 10]), "annotation 3 has the bbox ['4', 6, 10, 10]"),
        (change(bbox=[float("nan"), 6, 10, 10]), "annotation 3 has the bbox [None, 6, 10, 10]"),
        (change(bbox=[True, 6, 10, 10]), "annotation 3 has the bbox [True, 6, 10, 10]"),
        (change(bbox=None), "annotation 3 has the bbox None"),
        (change(category_id=5), "annotation 3 is of the category 5, which is not in categories; allowed: 3, 7"),
        (change(category_id=[]), "annotation 3 is of the category [], which is not in categories"),
        (change(image_id=99), "annotation 3 is of the image 99, which is not in images"),
        (change(image_id=True), "annotation 3 is of the image True, which is not in images"),
        (change(category_id=True), "annotation 3 is of the category True, which is not in categories"),
        (change(id=False), "has an annotation without an id"),
        (lambda c: c["images"][3].update(id=False), "has an image without an id, a number or a text"),
        (lambda c: c["categories"][0].update(id=True), "has a category without a whole number `id`"),
        (change(image_id={}), "annotation 3 is of the image {}, which is not in images"),
        (lambda c: c["images"][3].update(width=41), "image 3: states 41×30 pixels, its picture has 40×30"),
        (lambda c: c["images"][3].update(width="x"), "image 3 states a width and height of x and 30"),
        (lambda c: c["images"][3].update(id=2), "has two images with the same id"),
        (lambda c: c["images"][3].update(id=None), "has an image without an id"),
        (lambda c: c["images"][3].update(file_name="none.png"), "image 3: there is no picture none.png"),
        (lambda c: c["images"][3].update(file_name=3), "image 3 has no file_name"),
        (lambda c: c["images"][3].update(file_name="2.png"), "2.png has boxes in"),
        (lambda c: c.update(images=None), "has no list of objects images"),
        (lambda c: c.update(annotations=[1]), "has no list of objects annotations"),
        (lambda c: c.pop("categories"), "has no list of objects categories"),
        (lambda c: c["categories"][0].update(id="x"), "has a category without a whole number `id` and a `name`"),
        (lambda c: c["categories"][0].update(name=" "), "has a category without a whole number `id` and a `name`"),
        (lambda c: c["categories"][0].update(name="cat"), "has the category 3 (cat) twice"),
    ],
)
def test_files_that_are_no_coco(coco_source, changed, told):
    content = coco_content()
    changed(content)
    write(coco_source / "annotations" / "instances.json", content)
    assert told in refused(coco_source, classes="cat,dog")


def test_text_that_is_no_json(coco_source):
    path = coco_source / "annotations" / "instances.json"
    path.write_text("[]")
    assert "instances.json: is no JSON object with images, annotations and categories" in refused(coco_source)
    path.write_text("{")
    assert "instances.json: not valid JSON" in refused(coco_source)
    path.write_text("[" * 100_000)
    assert "is nested deeper than" in refused(coco_source)


def test_a_large_json_is_refused(coco_source, monkeypatch):
    monkeypatch.setattr("visionforge.data.coco.MAX_JSON_BYTES", 100)
    assert "instances.json: larger than 100 bytes" in refused(coco_source)


def test_groups_of_objects_are_left_out(coco_source):
    content = coco_content()
    content["annotations"][3]["category_id"] = 7
    content["annotations"] += [{**content["annotations"][0], "id": 50, "iscrowd": 1}] * 2
    write(coco_source / "annotations" / "instances.json", content)
    report = imported(coco_source)
    assert any("2 boxes are of groups (iscrowd); left out" in note for note in report.notes)
    assert sum(len(rows) for _, rows in arrays(report).values()) == 12


def test_lines_and_points_of_coco_are_left_out(coco_source):
    """COCO 2017 has such boxes; a whole data set is not refused for them."""
    content = coco_content()
    content["annotations"][3]["category_id"] = 7
    content["annotations"] += [
        {**content["annotations"][0], "id": 50, "bbox": box} for box in ([4, 6, 10, 0], [4, 6, 0.0, 9])
    ]
    write(coco_source / "annotations" / "instances.json", content)
    report = imported(coco_source)
    assert any("instances.json: 2 boxes are 0 pixels wide or high; left out" in note for note in report.notes)
    assert sum(len(rows) for _, rows in arrays(report).values()) == 12


def test_training_images_without_any_box_are_refused(tmp_path):
    """Of a validation or test split without any, metrics are undefined, which is told where they would stand."""
    sizes = {"train": 6, "valid": 3, "test": 3}
    for empty in ("train", "valid", "test"):
        first = 0
        for split, count in sizes.items():
            content = coco_content(count, first)
            content["annotations"] = [] if split == empty else content["annotations"]
            write(tmp_path / empty / split / "_annotations.coco.json", content)
            for number in range(first, first + count):
                picture(tmp_path / empty / split / f"{number}.png", dark=number)
            first += count
        imported(tmp_path / empty, name=f"no_{empty}", root=tmp_path)
        data = MedMNISTDataModule(dataset=f"no_{empty}", root=str(tmp_path), resolution=20, batch_size=3)
        if empty != "train":
            data.setup("fit")
            labels = data.dataset_for("val").labels.numpy()
            monitor, reason = monitor_for(labels, data.spec)
            told = ("val/loss", "none of its images has a box") if empty == "valid" else ("val/map", None)
            assert (monitor.name, reason) == told
            continue
        data.setup("test")  # which does not learn
        told = (
            "no_train: nothing can be learnt of the 6 images of its train split, because none of its images has a box; "
        )
        with pytest.raises(DataError, match=told + "divide the data so that train has such images"):
            data.setup("fit")
        settings = {"dataset": "no_train", "root": str(tmp_path), "resolution": 20, "batch_size": 2, "max_samples": 2}
        with pytest.raises(DataError, match=r"the 2 images .* has a box; raise data\.max_samples, or divide"):
            MedMNISTDataModule(**settings).setup("fit")


def test_categories_without_boxes_are_left_out(coco_source):
    content = coco_content()
    content["annotations"][3]["category_id"] = 7
    content["categories"].append({"id": 0, "name": "animals"})
    write(coco_source / "annotations" / "instances.json", content)
    report = imported(coco_source)
    assert report.info.classes == ("cat", "dog")
    assert "the categories animals have no box; left out" in report.notes


def test_categories_that_differ_between_files(tmp_path):
    for split, first in (("train", 0), ("val", 3)):
        content = coco_content(3, first)
        for number in range(first, first + 3):
            picture(tmp_path / "s" / "images" / f"{number}.png")
        content["categories"][0]["name"] = split
        write(tmp_path / "s" / "annotations" / f"{split}.json", content)
    assert "its categories are not those of" in refused(tmp_path / "s")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"task": "segmentation"}, "segmentation needs `masks`"),
        ({"ignore": 255}, "ignore: is for masks, not for boxes"),
        ({"mask_values": "foreground"}, "mask_values: is for masks, not for boxes"),
        ({"positive": "cat"}, "positive: is for binary"),
    ],
)
def test_settings_of_others(source, changes, told):
    assert told in refused(source, **changes)


def test_a_single_class_is_enough_unless_the_task_asks_for_more(coco_source, monkeypatch):
    write(coco_source / "annotations" / "instances.json", coco_content())
    assert imported(coco_source).info.classes == ("cat",)
    monkeypatch.setattr(type(task_named("detection")), "least_classes", 2)
    assert "has only the class cat; at least 2 are needed" in refused(coco_source, replace=True)
    assert imported(coco_source, classes="cat,other", replace=True).info.classes == ("cat", "other")


def test_what_boxes_may_be(tmp_path, source):
    assert "does not exist" in refused(source, boxes=tmp_path / "none")
    (tmp_path / "both").mkdir()
    (tmp_path / "both" / "a.xml").write_text("")
    (tmp_path / "both" / "a.json").write_text("")
    assert "holds 1 .xml and 1 .json files" in refused(source, boxes=tmp_path / "both")
    assert list_boxes(ImportSettings(tmp_path / "both", "x")) is None
