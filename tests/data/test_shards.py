"""Sharded archives: the images of one array, from a folder or an address, within bounds, and never anything else."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import visionforge as vf
from tests.conftest import flags, run_folders
from tests.training.helpers import MINI, fit, weights
from visionforge.cli.main import main
from visionforge.data.batches import ArrayDataset, EpochSampler, drawn_by_weight
from visionforge.data.records import records_of
from visionforge.data.registry import dataset_info, synthetic_info
from visionforge.data.shard_files import cache_limit
from visionforge.data.shard_index import read_index, shard_folder
from visionforge.data.sharded import open_sharded
from visionforge.data.sharding import shard_dataset, write_shards
from visionforge.data.source import load_split, prepare
from visionforge.errors import DataError, SettingsError

COUNTS = {"train": 90, "val": 30, "test": 31}
SHAPE = (16, 16, 3)


def info_of(name: str = "many"):
    settings = vf.ImageDataModule(dataset="synthetic").settings.synthetic
    changes = {"name": name, "source": "archive", "resolutions": (16,)}
    return synthetic_info(settings.model_copy(update={"classes": 3})).model_copy(update=changes)


def blocks(step: int = 7, counts=None):
    """Yield the same images in blocks of some size, splits mixed."""
    rng = np.random.default_rng(0)
    arrays = {s: rng.integers(0, 256, (n, *SHAPE), np.uint8) for s, n in (counts or COUNTS).items()}
    for start in range(0, max(COUNTS.values()), step):
        for split, images in arrays.items():
            part = images[start : start + step]
            if len(part):
                yield split, part, np.arange(start, start + len(part)) % 3


def whole(split: str) -> np.ndarray:
    return np.concatenate([images for of, images, _ in blocks() if of == split])


@pytest.fixture
def made(tmp_path):
    return write_shards(info_of(), 16, blocks(), output=tmp_path / "data", shard_mb=0.01)


@pytest.mark.parametrize("step", [1, 13, 90])
def test_files_are_a_function_of_the_images(step, tmp_path, made):
    again = write_shards(info_of("other"), 16, blocks(step), output=tmp_path / "again", shard_mb=0.01)
    one, two = (shard_folder(each.index) for each in (made, again))
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in two.iterdir())
    assert len(names) == 1 + made.shards == 14  # 13 images of 768 bytes in a shard
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    assert made.size == sum(path.stat().st_size for path in one.iterdir())
    assert made.info.splits.model_dump() == COUNTS
    np.testing.assert_array_equal(np.load(one / "train-000001.npy"), whole("train")[13:26])  # anything reads a shard


def test_images_are_those_of_one_array(made, tmp_path):
    for split in COUNTS:
        arrays = open_sharded(made.index, made.info, 16, split, download=False)
        expected, images = whole(split), arrays.images
        assert images.shape == expected.shape
        assert (images.ndim, images.nbytes, len(images)) == (4, expected.nbytes, len(expected))
        np.testing.assert_array_equal(np.asarray(images), expected)
        np.testing.assert_array_equal(arrays.labels, np.arange(len(expected)) % 3)
        for key in ((1, 2), np.ones(3, bool), np.zeros((2, 2), np.int64)):
            with pytest.raises(IndexError, match="images are chosen by"):
                images[key]
        for key in (0, -1, slice(5, 29, 3), [3, 3, 12, 13, 2], np.arange(len(expected)) % 5 == 0, slice(9, 9)):
            np.testing.assert_array_equal(images[key], expected[key])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(images))[[1, 20]], expected[[1, 20]])
        with pytest.raises(IndexError):
            images[len(expected)]
        for in_memory in (True, False):
            dataset = ArrayDataset(arrays, in_memory=in_memory)
            batch, labels = dataset.__getitems__([20, 3])
            np.testing.assert_array_equal(batch.numpy(), np.moveaxis(expected[[20, 3]], -1, 1))
            assert labels.tolist() == [2, 0]


def test_shards_that_are_not_open_are_opened_again(made, monkeypatch):
    monkeypatch.setattr("visionforge.data.sharded.OPEN_FILES", 2)
    images = open_sharded(made.index, made.info, 16, "train", download=False).images
    for _ in range(2):
        np.testing.assert_array_equal(images[np.arange(89, -1, -1)], whole("train")[::-1])
    assert len(images._open) == 2


def test_training_is_the_same_wherever_images_lie(tmp_path):
    root = str(tmp_path / "data")
    info = dataset_info("digits")
    shard_dataset(info, "digits_sharded", output=root, shard_mb=0.02)
    found = []
    for changes in (
        {"dataset": "digits"},
        {"dataset": "digits_sharded", "cache": "mmap"},
        {"dataset": "digits_sharded"},
    ):
        module = vf.ImageDataModule(**changes, resolution=8, root=root, max_samples=200, batch_size=32)
        network = vf.ImageClassifier(spec=module.spec, backbone=MINI)
        fit(network, 1, module)
        found.append(weights(network))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_archive_with_names_and_groups_is_copied(tmp_path):
    from PIL import Image

    for number in range(60):
        folder = tmp_path / "pictures" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 12), number, np.uint8)).save(folder / f"{number:02d}.png")
    assert main(["datasets", "import", str(tmp_path / "pictures"), "--name", "mine", "--resolution", "12"]) == 0
    assert main(["datasets", "shard", "mine", "--name", "mine_sharded", "--shard-mb", "0.01"]) == 0
    one, two = (vf.ImageDataModule(dataset=name, resolution=12) for name in ("mine", "mine_sharded"))
    for split in COUNTS:
        np.testing.assert_array_equal(one.dataset_for(split).images, two.dataset_for(split).images)
        assert torch.equal(one.dataset_for(split).labels, two.dataset_for(split).labels)
        assert one.side_table(split).names == two.side_table(split).names
    assert main(["datasets", "check", "mine_sharded"]) == main(["datasets", "check", "mine"])
    assert main(["datasets", "stats", "mine_sharded"]) == 0
    assert main(["datasets", "show", "mine_sharded", "--output", str(tmp_path / "shown.png")]) == 0


def test_folds_read_shards(made, tmp_path):
    root = str(tmp_path / "data")
    one, two = (
        vf.ImageDataModule(dataset="many", resolution=16, root=root, folds=3, fold=1, cache=cache)
        for cache in ("ram", "mmap")
    )
    for split in COUNTS:
        assert torch.equal(one.dataset_for(split).images, two.dataset_for(split).images)


# --- what is refused


def test_check_reads_every_file(made, tmp_path, capsys):
    arguments = ["datasets", "check", "many", "--root", str(tmp_path / "data"), "--json"]
    assert main(arguments) == 0
    capsys.readouterr()
    path = shard_folder(made.index) / "val-000001.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    assert main(arguments) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert checks[-1] == {"check": "files", "ok": False, "found": "val-000001.npy is damaged"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["train"].pop(), "77 images of train|78 images of train, the catalog says 90"),
        (lambda c: c.update(test=[{}] * 10), "test"),
        (lambda c: c["train"][0].update(file="../x.npy"), r"train: '../x.npy' is not allowed"),
        (lambda c: c["train"][0].update(file="/etc/x.npy"), r"train: '/etc/x.npy' is not allowed"),
        (lambda c: c["train"][0].update(bytes=10**9), "are not those of 13 images"),
        (lambda c: c["train"][0].update(offset=10**6), "train: 1000000 is not allowed"),
        (lambda c: c["train"].append(c["train"][0]), "stands there twice"),
        (lambda c: c.update(format=2), "format"),
        (lambda c: c.update(shape=[16, 16]), "are not those of 13 images"),
        (lambda c: c.pop("labels"), "labels"),
        (lambda c: c["labels"].update(bytes=10**12), "1,000,000,000,000 bytes, expected labels.npz"),
        (lambda c: c["labels"].update(file="other.npz"), "expected labels.npz of this data set"),
        (lambda c: c["val"][0].update(file="val-000000.npz"), "val: 'val-000000.npz' is not allowed"),
    ],
)
def test_index_of_others_is_not_trusted(change, said, made):
    content = json.loads(made.index.read_text())
    change(content)
    made.index.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        read_index(made.index, made.info, 16, None)


def test_index_that_has_changed_is_not_the_one_of_the_catalog(made):
    made.index.write_text(made.index.read_text() + " ")
    with pytest.raises(DataError, match=r"MD5 is .*, the catalog says"):
        load_split(made.info, 16, str(made.index.parent), "train")
    made.index.write_text("{" * 100_000)
    with pytest.raises(DataError, match="cannot be read as an index of shards"):
        load_split(made.info, 16, str(made.index.parent), "train")


def test_missing_and_cut_shards_are_one_line(made):
    images = open_sharded(made.index, made.info, 16, "train", download=False).images
    (shard_folder(made.index) / "train-000001.npy").unlink()
    (shard_folder(made.index) / "train-000002.npy").write_bytes(b"short")
    with pytest.raises(DataError, match=r"train-000001.npy: missing, and there is no address to get it from"):
        images[13]
    with pytest.raises(DataError, match=r"train-000002.npy: 5 bytes, its index says"):
        images[26]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.full(5, 3)}, "labels of train: 5 of 95 labels out of range"),
        ({"labels": np.zeros(4)}, "4 labels for 5 images"),
        ({"images": np.zeros((5, 16, 16), np.uint8)}, r"the shape \(5, 16, 16\), expected uint8 \(N, 16, 16, 3\)"),
        ({"images": np.zeros((5, *SHAPE))}, "images of float64"),
        ({"split": "valid"}, "split: 'valid' is not allowed"),
    ],
)
def test_blocks_that_do_not_fit_leave_nothing(changes, said, tmp_path):
    given = {"split": "train", "images": np.zeros((5, *SHAPE), np.uint8), "labels": np.zeros(5, np.int64), **changes}
    some = [*blocks(), tuple(given.values())]
    with pytest.raises(DataError, match=said):
        write_shards(info_of(), 16, some, output=tmp_path / "data")
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []


def test_arguments_that_are_refused(tmp_path, made, refuse):
    assert "--name: 'Many' is not allowed" in refuse("datasets", "shard", "digits", "--name", "Many")[0]
    assert "it is built in" in refuse("datasets", "shard", "digits", "--name", "bloodmnist")[0]
    assert "--shard-mb: 0.001 is not" in refuse("datasets", "shard", "digits", "--name", "x", "--shard-mb", "0.001")[0]
    for url in ("host", "http://host/sets", "https://host/sets?signed=1"):
        assert f"--url: '{url}' is not" in refuse("datasets", "shard", "digits", "--name", "x", "--url", url)[0]
    assert "exists already" in refuse("datasets", "shard", "digits", "--name", "many")[0]
    with pytest.raises(SettingsError, match="its images have masks"):
        write_shards(info_of().model_copy(update={"task": "segmentation"}), 16, [])
    with pytest.raises(DataError, match="there is no image of val; each split needs one"):
        write_shards(info_of("less"), 16, blocks(counts={"train": 9, "test": 9}), output=tmp_path / "data")


def test_a_block_may_be_used_again(tmp_path, made):
    def reused():
        images, labels = np.empty((7, *SHAPE), np.uint8), np.empty(7, np.int64)
        for split, some, classes in blocks():
            images[: len(some)], labels[: len(some)] = some, classes
            yield split, images[: len(some)], labels[: len(some)]
            images[:], labels[:] = 0, -1

    again = write_shards(info_of("again"), 16, reused(), output=tmp_path / "again", shard_mb=0.01)
    assert again.info.archives[16].md5 == made.info.archives[16].md5


def test_the_same_name_with_other_content_is_not_taken(tmp_path, made):
    path = shard_folder(made.index) / "test-000000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DataError, match="is there already, with other content; move it away"):
        write_shards(info_of(), 16, blocks(), output=tmp_path / "data", shard_mb=0.01, replace=True)


@pytest.mark.slow
def test_killed_writer_leaves_nothing_that_stays(tmp_path):
    code = (
        "import time; from pathlib import Path\n"
        "from tests.data.test_shards import *\n"
        "def slow():\n"
        "    for block in blocks():\n"
        "        yield block; time.sleep(0.05)\n"
        f"write_shards(info_of(), 16, slow(), output=Path({str(tmp_path)!r}) / 'data', shard_mb=0.01)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    work = tmp_path / "data" / ".many.writing.shards"
    deadline = time.monotonic() + 60
    while not list(work.glob("train-*.npy")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert work.is_dir()
    assert not list((tmp_path / "data").glob("*.shards.json"))
    made = write_shards(info_of(), 16, blocks(), output=tmp_path / "data", shard_mb=0.01)
    assert not work.exists()
    assert made.entry.is_file()


# --- from an address


@pytest.fixture
def served(server, tmp_path):
    """A data set of which this machine has nothing but its entry."""
    made = write_shards(info_of(), 16, blocks(), output=tmp_path / "there", shard_mb=0.01, url=f"{server.url}/sets/")
    for path in (made.index, *shard_folder(made.index).iterdir()):
        server.files[f"sets/{path.relative_to(made.index.parent)}"] = path.read_bytes()
    return made


def cached(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache" / "visionforge" / "shards").glob("*/*.npy"))


def module_of(tmp_path, **changes):
    settings = {"dataset": "many", "resolution": 16, "root": str(tmp_path / "here"), "cache": "mmap", "batch_size": 16}
    return vf.ImageDataModule(**{**settings, **changes})


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_are_got_when_they_are_needed(served, server, tmp_path, monkeypatch, workers):
    monkeypatch.setenv("VISIONFORGE_SHARDS_GB", str(9 * 10_200 / 1e9))  # of 13 shards
    module = module_of(tmp_path, num_workers=workers, sampler={"name": "blocks", "size": 13, "together": 2})
    monkeypatch.setattr("visionforge.data.shard_files.SCHEDULED", 16)
    module.prepare_data()
    module.setup("fit")
    assert not cached(tmp_path)
    for epoch in range(2):
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)
        order = loader.sampler.positions()
        images = torch.cat([batch for batch, _ in loader])
        expected = torch.from_numpy(np.moveaxis(whole("train"), -1, 1)[order[: len(images)]])
        assert torch.equal(images, expected)
        assert sum(path.stat().st_size for path in cached(tmp_path)) <= 9 * 10_200
    assert not (tmp_path / "here" / shard_folder(served.index).name).exists()
    test = torch.cat([batch for batch, _ in (module.setup("test"), module.test_dataloader())[1]])
    assert torch.equal(test, torch.from_numpy(np.moveaxis(whole("test"), -1, 1).copy()))


def test_a_cached_shard_that_was_cut_is_got_again(served, tmp_path):
    module = module_of(tmp_path)
    module.prepare_data()
    module.setup("fit")
    train = module.dataset_for("train")
    train.at(torch.arange(90))
    assert len(cached(tmp_path)) == 7
    cached(tmp_path)[0].write_bytes(b"cut")
    again = module_of(tmp_path).dataset_for("train").at(torch.arange(90))[0]
    assert torch.equal(again, torch.from_numpy(np.moveaxis(whole("train"), -1, 1).copy()))


def test_a_fit_and_its_test_need_nothing_but_the_entry(served, tmp_path):
    settings = flags(
        data__dataset="many", data__resolution=16, data__root=tmp_path / "here", data__cache="mmap",
        trainer__default_root_dir=tmp_path / "outputs", trainer__max_epochs=1,
    )  # fmt: skip
    assert main(["fit", *settings]) == 0
    (run,) = run_folders(tmp_path / "outputs")
    assert json.loads((run / "metrics.json").read_text())["images"] == 31
    assert not list((tmp_path / "here").glob("*.shards"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_cannot_be_got_is_one_line_from_every_process(served, server, tmp_path, workers):
    name = next(name for name in server.files if name.endswith("val-000000.npy"))
    module = module_of(tmp_path, num_workers=workers)
    module.prepare_data()
    module.setup("validate")
    server.files[name] = b"\0" * len(server.files[name])
    with pytest.raises(DataError, match=r"the download has SHA-256 .*, expected") as caught:
        list(module.val_dataloader())
    assert len(caught.value.problems) == 1
    assert "Traceback" not in str(caught.value)


def test_folds_of_shards_that_are_got_are_refused(served, tmp_path):
    module = module_of(tmp_path, folds=3, fold=0)
    with pytest.raises(DataError, match=r"data\.folds: need all shards on this machine"):
        module.dataset_for("train")


def test_cache_that_is_too_small_for_a_shard_or_no_folder(served, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_SHARDS_GB", str(9_000 / 1e9))
    with pytest.raises(DataError, match=r"has 0\.00 GB, and the cache of shards may have 0\.00 GB; raise"):
        module_of(tmp_path).dataset_for("val").at(torch.tensor([0]))
    monkeypatch.delenv("VISIONFORGE_SHARDS_GB")
    (tmp_path / "cache" / "visionforge").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(tmp_path / "cache" / "visionforge" / "shards", ignore_errors=True)
    (tmp_path / "cache" / "visionforge" / "shards").write_text("no folder")
    with pytest.raises(DataError, match="shards"):
        module_of(tmp_path).dataset_for("val").at(torch.tensor([0]))


def test_removed_shards_are_let_go(served, tmp_path):
    images = load_split(served.info, 16, str(prepared(served, tmp_path)), "train", download=True).images
    images[[0, 20]]
    assert len(images._open) == 2
    for path in cached(tmp_path):
        path.unlink()
    images[40]
    assert len(images._open) == 1


def prepared(served, tmp_path) -> Path:
    prepare(served.info, 16, str(tmp_path / "here"), download=True)
    return tmp_path / "here"


def test_download_mends_what_is_damaged(served, tmp_path):
    arguments = ["datasets", "download", "many", "--root", str(tmp_path / "here")]
    assert main(arguments) == 0
    folder = tmp_path / "here" / shard_folder(served.index).name
    whole_file = (folder / "train-000001.npy").read_bytes()
    (folder / "train-000001.npy").write_bytes(whole_file[:-1] + b"\0")
    (folder / "val-000000.npy").write_bytes(b"cut")
    assert main(arguments) == 0
    assert (folder / "train-000001.npy").read_bytes() == whole_file
    assert main(["datasets", "check", "many", "--root", str(tmp_path / "here")]) == 0


def test_whole_set_is_downloaded(served, server, tmp_path, capsys):
    assert main(["datasets", "download", "many", "--root", str(tmp_path / "here")]) == 0
    assert f"{served.size:,} bytes, verified" in capsys.readouterr().out
    before = len(server.requests)
    module = module_of(tmp_path, download=False)
    assert torch.equal(module.dataset_for("val").images, torch.from_numpy(np.moveaxis(whole("val"), -1, 1).copy()))
    assert len(server.requests) == before
    assert not cached(tmp_path)


def test_order_that_needs_more_than_the_cache_is_refused(served, tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONFORGE_SHARDS_GB", str(5 * 10_200 / 1e9))
    module = module_of(tmp_path)
    module.prepare_data()
    module.setup("fit")
    with pytest.raises(
        DataError, match=r"blocks, with fewer together, raise VISIONFORGE_SHARDS_GB, or get all of them"
    ):
        next(iter(module.train_dataloader()))
    monkeypatch.setenv("VISIONFORGE_SHARDS_GB", "much")
    with pytest.raises(SettingsError, match="VISIONFORGE_SHARDS_GB: 'much' is not allowed"):
        cache_limit()


def test_shard_that_is_not_what_the_index_says_is_discarded(served, server, tmp_path):
    name = next(name for name in server.files if name.endswith("train-000000.npy"))
    server.files[name] = server.files[name][:-1] + b"\0"
    module = module_of(tmp_path)
    module.prepare_data()
    module.setup("fit")
    with pytest.raises(DataError, match=r"the download has SHA-256 .*, expected"):
        module.dataset_for("train").at(torch.tensor([0]))
    assert not cached(tmp_path)


def test_without_download_nothing_is_asked_for(served, server, tmp_path):
    assert main(["datasets", "download", "many", "--root", str(tmp_path / "here")]) == 0
    (tmp_path / "here" / shard_folder(served.index).name / "train-000000.npy").unlink()
    before = len(server.requests)
    module = module_of(tmp_path, download=False)
    with pytest.raises(DataError, match=r"train-000000.npy: missing"):
        module.dataset_for("train").at(torch.tensor([0]))
    assert len(server.requests) == before


def test_object_store(served, server, tmp_path, monkeypatch):
    """The address of an object store is read by its package, for which one in memory stands."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Store(MemoryFileSystem):
        protocol = "s3"
        store, pseudo_dirs = {}, [""]

        @classmethod
        def _strip_protocol(cls, path):
            return path.removeprefix("s3:/")

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Store)
    for name, content in server.files.items():
        Store().pipe_file(f"/bucket/{name}", content)
    archive = served.info.archives[16].model_copy(update={"url": f"s3://bucket/sets/{served.index.name}"})
    entry = served.info.model_copy(update={"name": "stored", "archives": {16: archive}})
    monkeypatch.setattr("visionforge.data.registry._registered", {})  # it is forgotten afterwards
    vf.register_dataset(entry)
    module = module_of(tmp_path, dataset="stored")
    assert torch.equal(module.dataset_for("val").images, torch.from_numpy(np.moveaxis(whole("val"), -1, 1).copy()))
    Store().rm(f"/bucket/sets/{shard_folder(served.index).name}/test-000000.npy")
    with pytest.raises(DataError, match=r"s3://bucket/.*test-000000.npy: cannot be read"):
        module.dataset_for("test").at(torch.tensor([0]))


# --- orders of many images


def test_blocks_show_every_image_once_and_few_shards_at_a_time():
    from visionforge.config.schema import Sampler

    sampler = Sampler(name="blocks", size=10, together=3)
    order = sampler.indices(np.zeros(95), np.random.default_rng(0), 95)
    assert sorted(order.tolist()) == list(range(95))
    assert len(set((order[:30] // 10).tolist())) == 3
    assert not np.array_equal(order, sampler.indices(np.zeros(95), np.random.default_rng(1), 95))
    np.testing.assert_array_equal(order, sampler.indices(np.zeros(95), np.random.default_rng(0), 95))
    assert sampler.indices(np.zeros(95), np.random.default_rng(0), 95)[:30].max() > 29


def test_more_categories_than_multinomial_takes(monkeypatch):
    monkeypatch.setattr("visionforge.data.batches.MOST_CATEGORIES", 3)
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0], dtype=torch.float64)
    drawn = drawn_by_weight(weights, 40_000, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn, minlength=5) / len(drawn)
    assert share[[0, 2, 4]].sum() == 0
    assert abs(share[3] - 0.75) < 0.01
    sampler = EpochSampler(200_000, 0)
    assert list(sampler) == sampler.positions().tolist()


def test_the_system_is_told_of_what_follows_where_neighbours_are_needed(made, monkeypatch):
    told = []
    monkeypatch.setattr(os, "posix_fadvise", lambda handle, start, size, advice: told.append((start, size)))
    monkeypatch.setattr("visionforge.data.read_ahead.WINDOW_RECORDS", 26)
    images = open_sharded(made.index, made.info, 16, "train", download=False).images
    order = np.concatenate([np.random.default_rng(0).permutation(26), np.arange(40, 50), np.arange(26, 40)])
    ahead = images.look_ahead(order)
    ahead.advance(0)
    ahead._pool.shutdown()  # wait
    assert sum(size for _, size in told) == 50 * 768  # two windows, each stretch once
    assert all(start >= 128 for start, _ in told)
    told.clear()
    later = images.look_ahead(order)
    later.advance(26)  # a resumed epoch does not read what was trained on
    later._pool.shutdown()
    assert sum(size for _, size in told) == 24 * 768
    told.clear()
    shared = images.look_ahead(np.arange(0, 90, 3), processes=3)
    shared.advance(0)
    shared._pool.shutdown()
    assert told
    told.clear()
    sparse = images.look_ahead(np.arange(0, 90, 3))
    sparse.advance(0)
    sparse._pool.shutdown()
    assert told == []
    mapped = records_of(np.load(shard_folder(made.index) / "train-000000.npy", mmap_mode="r"))
    ahead = mapped.look_ahead(np.arange(13)[::-1])
    ahead.advance(0)
    ahead._pool.shutdown()
    assert told == [(128, 13 * 768)]
    np.testing.assert_array_equal(mapped[np.array([3, 1])], whole("train")[[3, 1]])
