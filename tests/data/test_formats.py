"""Published files of each format are read as others read them; whatever is wrong with one is told in one line."""

import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
import torchvision
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from tests.data.published import (
    CIFAR_TEST,
    TRAIN,
    VAL,
    cifar_arrays,
    cifar_entry,
    cifar_members,
    idx,
    idx_set,
    made,
    pixels,
    pooled,
    refused,
    tar,
    write,
)

# --- IDX


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_as_torchvision_reads_them(packed, tmp_path):
    info, files, _ = idx_set()
    plain = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    write(tmp_path / "plain", plain)
    theirs = {name: read_sn3_pascalvincent_tensor(str(tmp_path / "plain" / name)).numpy() for name in plain}
    write(tmp_path / "data", files if packed else {name: plain[name.removesuffix(".gz")] for name in files})
    ours = made(info, tmp_path / "data")
    np.testing.assert_array_equal(ours["test_images"], theirs["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(ours["test_labels"], theirs["t10k-labels-idx1-ubyte"])
    whole = {"all_images": theirs["train-images-idx3-ubyte"], "all_labels": theirs["train-labels-idx1-ubyte"]}
    assert pooled(ours, "train", "val") == pooled(whole, "all")


COUNT = TRAIN + VAL
GOOD = idx(pixels(COUNT))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no IDX file (its magic number is wrong)"),
        (b"PK" + GOOD[2:], "is no IDX file (its magic number is wrong)"),
        (idx(pixels(COUNT), b"\0\0\x0d\3"), "holds numbers of type 0x0d, expected 0x08 (unsigned bytes)"),
        (GOOD[:9], "ends within its header"),
        (idx(pixels(COUNT), sides=(COUNT, 8, 9)), f"has the shape ({COUNT}, 8, 9), expected ({COUNT}, 8, 8)"),
        (idx(pixels(COUNT), sides=(2**32 - 1,) * 3), "has the shape (4294967295, 4294967295, 4294967295), expected"),
        (idx(pixels(COUNT)[0], sides=(8, 8)), f"has the shape (8, 8), expected ({COUNT}, 8, 8)"),
        (GOOD[:-5], "ends 5 bytes too early"),
        (GOOD + b"\0", "goes on where it should end"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_idx_file_that_is_not_what_it_should_be(content, problem, packed, tmp_path):
    info, files, _ = idx_set()
    name = info.original.train_images.file
    files[name] = gzip.compress(content) if packed else content
    file = info.original.train_images.model_copy(
        update={"md5": hashlib.md5(files[name]).hexdigest(), "max_bytes": max(1, len(files[name]))}
    )
    info = info.model_copy(update={"original": info.original.model_copy(update={"train_images": file})})
    write(tmp_path, files)
    line = refused(info, tmp_path)
    assert line.startswith(f"{tmp_path / name}: {problem}")
    assert line.endswith("; delete it and get it again")


def test_damaged_gzip_is_told(tmp_path):
    info, files, _ = idx_set()
    name = info.original.train_images.file
    middle = len(files[name]) // 2
    content = files[name][:middle] + bytes(64) + files[name][middle + 64 :]
    file = info.original.train_images.model_copy(update={"md5": hashlib.md5(content).hexdigest()})
    info = info.model_copy(update={"original": info.original.model_copy(update={"train_images": file})})
    write(tmp_path, {**files, name: content})
    assert name in refused(info, tmp_path)


# --- CIFAR's binary version


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_is_read_as_torchvision_reads_its_other_version(label_bytes, tmp_path):
    arrays = cifar_arrays(32)
    content = tar(cifar_members(arrays, label_bytes))
    write(tmp_path / "data", {"cifar.tar.gz": content})
    ours = made(cifar_entry(content, label_bytes, 32), tmp_path / "data", 32)

    class Theirs(torchvision.datasets.CIFAR10):
        """Reads the pickled files that this test has written."""

        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            pass

    folder = tmp_path / Theirs.base_folder
    folder.mkdir()
    for name, part in (("train", "train"), ("test", "test")):
        data = arrays[f"{part}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": arrays[f"{part}_labels"].tolist()}))
    Theirs.train_list, Theirs.test_list = [["train", ""]], [["test", ""]]
    train, test = Theirs(tmp_path, train=True), Theirs(tmp_path, train=False)
    np.testing.assert_array_equal(ours["test_images"], test.data)
    np.testing.assert_array_equal(ours["test_labels"], test.targets)
    assert pooled(ours, "train", "val") == pooled({"all_images": train.data, "all_labels": train.targets}, "all")
    first = ours["train_images"][0]
    position = next(k for k, image in enumerate(train.data) if np.array_equal(image, first))
    assert position < 8  # the order of the numbers in their names, not that in the archive


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def members(**changes):
    """Return the members of a good archive, with changes."""
    listed = cifar_members(cifar_arrays())
    listed.update({name.replace("__", "/"): content for name, content in changes.items()})
    return listed


def without(name):
    return {key: content for key, content in members().items() if key != name}


def of(listed):
    return [(tarfile.TarInfo(name), content) for name, content in listed.items()]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (tar(without(CIFAR_TEST)), f"lacks {CIFAR_TEST}"),
        (tar({**without(CIFAR_TEST), f"../{CIFAR_TEST}": members()[CIFAR_TEST]}), f"lacks {CIFAR_TEST}"),
        (tar({**without(CIFAR_TEST), f"/{CIFAR_TEST}": members()[CIFAR_TEST]}), f"lacks {CIFAR_TEST}"),
        (tar({**members(), CIFAR_TEST: members()[CIFAR_TEST][:-1]}), f"{CIFAR_TEST} has 3,859 bytes, expected 3,860"),
        (tar({**members(), CIFAR_TEST: bytes(10_000)}), f"{CIFAR_TEST} has 10,000 bytes, expected 3,860"),
        (tar([*of(members()), (tarfile.TarInfo(CIFAR_TEST), members()[CIFAR_TEST])]), f"{CIFAR_TEST} is there twice"),
        (tar([*of(without(CIFAR_TEST)), (link(CIFAR_TEST, "/etc/passwd"), b"")]), f"{CIFAR_TEST} is no file"),
        (tar({"padding": bytes(2 << 20), **members()}), "unpacks to more bytes than it can have"),
        (tar(members())[:-2000], ""),
        (gzip.compress(b"no archive" * 100), ""),
        (b"no gzip", ""),
    ],
    ids=["missing", "above", "absolute", "short", "long", "twice", "link", "bomb", "cut", "no tar", "no gzip"],
)
def test_cifar_archive_that_is_not_what_it_should_be(content, problem, tmp_path):
    folder = tmp_path / "in" / "here"
    write(folder, {"cifar.tar.gz": content})
    line = refused(cifar_entry(content), folder)
    assert line.startswith(f"{folder / 'cifar.tar.gz'}: {problem}")
    assert not (folder.parent / "batches").exists()


def test_long_header_of_a_tar_is_not_read_into_memory(tmp_path):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * (8 << 20)}):
        pass
    write(tmp_path, {"cifar.tar.gz": target.getvalue()})
    assert "unpacks to more bytes than it can have" in refused(cifar_entry(target.getvalue()), tmp_path)


def test_images_that_files_cannot_share_evenly(tmp_path):
    content = tar(members())
    info = cifar_entry(content)
    info = info.model_copy(update={"splits": info.splits.model_copy(update={"train": TRAIN + 1})})
    write(tmp_path, {"cifar.tar.gz": content})
    assert refused(info, tmp_path) == "original: 51 images cannot be in 2 files of one size"
