"""The commands of the how-to pages run, page by page, in the folder of a reader who has what the page talks about.

What a reader replaces is replaced here: runs, data sets that have to be downloaded (by small ones of the same kind),
and the length of trainings, by flags at the end of a command.
"""

import csv
import importlib.util
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.fleet import Fleet
from tests.conftest import REPOSITORY
from tests.runs.helpers import wait_for
from tests.test_docs import DOCS, blocks_of, commands_of, expanded

SHORT = ("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.batch_size", "8")
FIGURES = ("--evaluation.resamples", "0", "--evaluation.figures", "false", "--evaluation.explanations", "0")
TRAINED = ("fit", "probe", "tune")
CLASSES = ("sound", "tumour")
SIDE = 32


def picture(label: int, seed: int) -> np.ndarray:
    """A disc that is brighter in the second class, on noise."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    noise = np.random.default_rng(seed).integers(0, 60, (SIDE, SIDE))
    disc = (rows - 16) ** 2 + (columns - 16) ** 2 < 64
    return (noise + disc * (60 + 120 * label)).astype(np.uint8)


def photos(folder: Path, each: int = 20) -> Path:
    """A folder of each class, as most people have them."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(picture(label, 1000 * label + number)).save(folder / name / f"{name}_{number:02d}.png")
    return folder


def patients(folder: Path) -> None:
    """A table of the photos, two of each patient."""
    with (folder / "patients.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "patient_id", "age", "sex"])
        for number, path in enumerate(sorted((folder / "photos").rglob("*.png"))):
            writer.writerow(
                [path.relative_to(folder), path.parent.name, f"p{number // 2}", 40 + number, "fm"[number % 2]]
            )


@dataclass
class Reader:
    """Somebody who types what a page says.

    Attributes:
        folder: Where.
        fleet: Runs commands.
    """

    folder: Path
    fleet: Fleet

    def run(self, *words: str, says: int = 0) -> str:
        """Run a command that ends with a status, and return what it printed."""
        done = self.fleet.run(*words)
        assert done.status == says, f"visionforge {' '.join(words)}\n{done.out}\n{done.err}"
        return done.out

    def data(self, name: str, *words: str, source: Path | None = None) -> None:
        """Import photos, or what else there is, as a data set."""
        found = source or (self.folder / "photos")
        if not found.exists():
            photos(found)
        self.run("datasets", "import", str(found), "--name", name, *words)

    def fit(self, *words: str, data: str = "small", backbone: str = "mini_cnn") -> None:
        """Train a network for an epoch."""
        self.run("fit", "--data.dataset", data, "--model.backbone.name", backbone, *words, *SHORT, *FIGURES)

    def newest(self, count: int = 1) -> list[str]:
        """Return the names of the newest runs."""
        runs = [path.parent for path in (self.folder / "outputs").glob("*/run.json") if not path.parent.is_symlink()]
        return [path.name for path in sorted(runs, key=lambda path: (path / "run.json").stat().st_mtime)[-count:]]


# --- what a page needs, and how its commands are made runnable


def small(reader: Reader) -> None:
    reader.data("small", "--resolution", "28")


def trained(reader: Reader) -> None:
    small(reader)
    reader.fit()


def mine(reader: Reader) -> None:
    photos(reader.folder / "pics")
    reader.data("mine", "--resolution", "28", source=reader.folder / "pics")


def corrections(reader: Reader, words: list[str]) -> None:
    """Fill in a row of the table that the audit has written."""
    found = reader.folder / "audit_mine" / "suspicious.csv"
    if "--corrections" not in words or not found.is_file():
        return
    rows = list(csv.DictReader(found.open()))
    if not rows:
        pytest.fail("the audit suspects nothing: there is no row to fill in")
    rows[0]["corrected"] = "remove"
    with (reader.folder / "suspicious.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def wrong_labels(reader: Reader) -> None:
    """Photos of which some lie in the wrong folder."""
    folder = photos(reader.folder / "pics", 40)
    for number in (3, 7, 11):
        first, second = (folder / name / f"{name}_{number:02d}.png" for name in CLASSES)
        swapped = first.read_bytes(), second.read_bytes()
        second.write_bytes(swapped[0])
        first.write_bytes(swapped[1])
    reader.data("mine", "--resolution", "28", source=folder)


def own_photos(reader: Reader) -> None:
    photos(reader.folder / "photos", 30)
    patients(reader.folder)


def boxes(reader: Reader) -> None:
    """Pictures with boxes in the layout of Pascal VOC."""
    root = reader.folder / "VOC2012"
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir(parents=True)
    for number in range(24):
        name, label = f"p{number:02d}", CLASSES[number % 2]
        Image.fromarray(picture(number % 2, number)).resize((64, 64)).save(root / "JPEGImages" / f"{name}.jpg")
        box = "<xmin>17</xmin><ymin>17</ymin><xmax>48</xmax><ymax>48</ymax>"
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>64</width><height>64</height><depth>3</depth></size>"
            f"<object><name>{label}</name><bndbox>{box}</bndbox></object></annotation>"
        )


def nuclei(reader: Reader) -> None:
    """Pictures and masks, and larger pictures."""
    for part in ("images", "masks"):
        (reader.folder / "nuclei" / part).mkdir(parents=True)
    (reader.folder / "slides").mkdir()
    for number in range(12):
        image = picture(1, number)
        Image.fromarray(image).save(reader.folder / "nuclei" / "images" / f"{number}.png")
        Image.fromarray(np.uint8(image > 100) * 255).save(reader.folder / "nuclei" / "masks" / f"{number}.png")
    Image.fromarray(picture(1, 99)).resize((80, 64)).save(reader.folder / "slides" / "large.png")


def several_labels(reader: Reader) -> None:
    photos(reader.folder / "photos")
    with (reader.folder / "list.csv").open("w") as file:
        file.write("path,findings\n")
        for number, path in enumerate(sorted((reader.folder / "photos").rglob("*.png"))):
            file.write(f"{path.relative_to(reader.folder)},{('a', 'b', 'a|b', '')[number % 4]}\n")
    reader.run(
        "datasets", "import", "list.csv", "--name", "findings", "--label-column", "findings", "--task", "multi-label"
    )


def grades(reader: Reader) -> None:
    reader.data("grades", "--task", "ordinal", "--resolution", "28")


def volumes(reader: Reader) -> None:
    for label, name in enumerate(CLASSES):
        (reader.folder / "volumes" / name).mkdir(parents=True)
        for number in range(12):
            cube = np.repeat(picture(label, number)[None, 2:30, 2:30], 28, axis=0)
            np.save(reader.folder / "volumes" / name / f"{number}.npy", cube)
    reader.data("cubes", "--resolution", "28", source=reader.folder / "volumes")
    (reader.folder / "scans").mkdir()
    np.save(reader.folder / "scans" / "one.npy", cube)
    np.savez(reader.folder / "mine.npz", test_images=cube[None])
    import nibabel

    nibabel.save(nibabel.Nifti1Image(cube.astype(np.int16), np.eye(4)), reader.folder / "scan.nii.gz")


def larger_and_weights(reader: Reader) -> None:
    reader.data("small", "--resolution", "64")
    imagenet(reader)


def imagenet(reader: Reader) -> None:
    """A file of weights where the page takes those of ImageNet."""
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), reader.folder / "resnet18.pth")


def trained_and_weights(reader: Reader) -> None:
    trained(reader)
    imagenet(reader)


def matrix(reader: Reader) -> None:
    """Data sets for the page's matrix, whose trainings are made short."""
    small(reader)
    grades(reader)


def distribution(reader: Reader) -> None:
    trained(reader)
    reader.run("push", *reader.newest(), "--folder", "there", "--license", "mit")


def interrupted(reader: Reader, words: list[str]) -> None:
    """Where one is continued, a run that a signal has ended in its first epochs."""
    if words[:3] != ["fit", "--resume", "latest"]:
        return
    words = ("--data.dataset", "small", "--data.batch_size", "8", "--model.backbone.name", "mini_cnn", *FIGURES)
    before = saved(reader)
    pid = reader.fleet.start("fit", *words, "--trainer.max_epochs", "100", "--resume", "never")
    wait_for(lambda: saved(reader) - before)
    os.kill(pid, signal.SIGTERM)
    done = reader.fleet.wait()
    assert done.status == 128 + signal.SIGTERM, done.err


def saved(reader: Reader) -> set[Path]:
    """Return the checkpoints that trainings have written so far."""
    return set(reader.folder.glob("outputs/*/checkpoints/last.ckpt"))


@dataclass(frozen=True)
class Page:
    """What a page needs, and by what words of it are replaced.

    Attributes:
        prepare: Makes the files and runs that the page talks about.
        words: What stands in the place of a word.
        flags: What is added to commands that train.
        added: What is added at the end, after what makes trainings short, to commands of a name without `--run`.
        texts: What stands in the place of a text in the page's files.
        left_out: Beginnings of commands that are not run here.
        before: Called before each command.
    """

    prepare: Callable[[Reader], None] = small
    words: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    added: dict[str, tuple[str, ...]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    before: Callable[[Reader, list[str]], None] = lambda reader, words: None


REPLACED = {"breastmnist": "small", "pneumoniamnist": "small", "pathmnist": "small"}
PAGES = {
    "abstain": Page(),
    "audit": Page(
        wrong_labels,
        flags=("--model.backbone.name", "mini_cnn"),
        before=corrections,
    ),
    "benchmark": Page(  # the suite takes minutes, and has tests of its own
        matrix,
        {"4": "1"},
        texts={
            "breastmnist": "small",
            "retinamnist": "grades",
            "[default, tiny_28]": "[default]",
            "[1, 2, 3]": "[1]",
            "max_epochs: 30": "max_epochs: 1\ndata: {batch_size: 8}",
        },
        left_out=("benchmark --suite quick",),
    ),
    "clusters": Page(),  # `--print` is added: there is no cluster
    "cross-validation": Page(flags=("--model.backbone.name", "mini_cnn")),
    "detection": Page(boxes, {"256": "64"}, ("--data.resolution", "64", "--data.synthetic.train", "64")),
    "docker": Page(flags=("--model.backbone.name", "mini_cnn")),  # the command in the container, without it
    "features": Page(trained_and_weights, added={"embed": ("--model.backbone.weights", "resnet18.pth")}),
    "fine-tuning": Page(
        larger_and_weights,
        {"224": "64", "efficientnet_lite0": "resnet18"},
        ("--data.dataset", "small", "--data.resolution", "64", "--model.backbone.weights", "resnet18.pth"),
        added={"tune": ("--trainer.max_epochs", "6", "--tune.n_trials", "2")},
    ),
    "many-images": Page(words={"out": "shards"}),  # the fleet writes into a file of that name
    "multi-label": Page(several_labels, {"mine": "mine_labels"}),
    "ordinal": Page(grades, added={"fit": ("--trainer.max_epochs", "3")}),
    "own-data": Page(own_photos),
    "own-parts": Page(flags=("--data.max_samples", "64")),
    "probe": Page(trained_and_weights, {"224": "28"}, added={"probe": ("--model.backbone.weights", "resnet18.pth")}),
    "publish": Page(distribution),
    "resume": Page(before=interrupted),
    "robustness": Page(trained),
    "segmentation": Page(nuclei, {"256": "64"}, ("--data.resolution", "64")),
    "serve": Page(trained),  # serving has tests of its own, with a browser
    "volumes": Page(volumes),
}
CONFIGURATIONS = {
    "configs/chestmnist.yaml": "findings",
    "configs/retinamnist.yaml": "grades",
    "configs/resnet18_28.yaml": "small",
    "adrenal.yaml": "cubes",
}
NEEDS = {"volumes": ("nibabel", "onnx"), "segmentation": ("onnx",), "cross-validation": ("onnx",)}


def test_every_page_with_commands_is_run():
    with_commands = {
        page.stem
        for page in (DOCS / "howto").glob("*.md")
        if any(list(commands_of(block)) for block in blocks_of(page) if block.kind == "bash")
    }
    assert with_commands == {*PAGES}


def made_runnable(reader: Reader, page: Page, words: list[str]) -> list[str] | None:
    """Return a command of a page with what a reader has; None if it is not run."""
    if words[0] == "serve" or " ".join(words).startswith(page.left_out or ("\n",)):
        return None
    if words[0] == "submit":
        return [words[0], *([] if "--print" in words else ["--print"]), *words[1:]]
    runs = reader.newest(words.count("RUN"))
    given = []
    for word in words:
        if word == "RUN":
            given.append(runs.pop(0))
        elif word in ("ENSEMBLE", "RUN2") or "_a3f7c2" in word:
            given.append(f"outputs/{reader.newest()[0]}")
        else:
            given += expanded((REPLACED | page.words).get(word, word), reader.folder)
    if words[0] == "push":
        return [word for word in given if word not in ("OWNER/NAME", "--private")] + ["--folder", "pushed"]
    if words[0] == "pull":
        return ["pull", "./there", "--out", "NAME"]
    if words[0] in TRAINED and "--resume" not in words[:2]:
        data = [flag for name, data in CONFIGURATIONS.items() if name in words for flag in ("--data.dataset", data)]
        given += [*data, *page.flags, *SHORT, *FIGURES]
    return given if "--run" in words or "--resume" in words[:2] else [*given, *page.added.get(words[0], ())]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_page_run(name, tmp_path, monkeypatch):
    missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    page = PAGES[name]
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    monkeypatch.setenv("VISIONFORGE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    with closing(Fleet(tmp_path)) as fleet:
        reader = Reader(tmp_path, fleet)
        page.prepare(reader)
        for block in blocks_of(DOCS / "howto" / f"{name}.md"):
            if block.title:
                text = block.text
                for old, new in page.texts.items():
                    text = text.replace(old, new)
                (tmp_path / block.title).write_text(text, encoding="utf-8")
        for block in blocks_of(DOCS / "howto" / f"{name}.md"):
            if block.kind != "bash" or block.mark == "not run":
                continue
            for words in commands_of(block):
                page.before(reader, words)
                command = made_runnable(reader, page, words)
                if command is not None:
                    reader.run(*command)
