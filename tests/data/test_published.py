"""Published files are found where they may be, downloaded where they are not, and never taken for others."""

import gzip

import numpy as np
import pytest
import yaml

from tests.data.published import idx_set, write
from visionforge.cli.main import main
from visionforge.data.download import ensure_archive
from visionforge.errors import DataError
from visionforge.fetch import Retries

QUICK = Retries(attempts=2, backoff_s=0.01, max_wait_s=0.1, timeout_s=1.0)


def with_original(info, **changes):
    return info.model_copy(update={"original": info.original.model_copy(update=changes)})


@pytest.mark.parametrize("place", ["archives", "archives of the name", "environment", "entry"])
def test_files_are_found_where_they_may_be(place, tmp_path, monkeypatch):
    info, files, arrays = idx_set()
    root, other = tmp_path / "data", tmp_path / "other"
    folder = {"archives": root, "archives of the name": root / "published"}.get(place, other)
    write(folder, files)
    if place == "environment":
        monkeypatch.setenv("VISIONFORGE_ORIGINALS", f"{tmp_path / 'none'}:{other}")
    if place == "entry":
        info = with_original(info, folders=(str(tmp_path / "none"), str(other)))
    path = ensure_archive(info, 8, str(root), download=False)
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["test_images"], arrays["test_images"])


def test_files_that_are_nowhere(tmp_path, monkeypatch):
    info, files, _ = idx_set()
    info = with_original(info, folders=(str(tmp_path / "system"),), package="dataset-published (Debian)")
    first, *others = files
    with pytest.raises(DataError) as caught:
        ensure_archive(info, 8, str(tmp_path / "data"), download=False)
    (line,) = caught.value.problems
    own = tmp_path / "data" / "published"
    assert line == (
        f"{own / first}: missing, and data.download is false; place https://localhost:1/{first} (at most "
        f"{len(files[first]) / 1e6:,.1f} MB, MD5 {info.original.train_images.md5}) in {own}, and from there "
        f"{', '.join(others)}, too, or install the package dataset-published (Debian)"
    )
    write(tmp_path / "system", {name: files[name] for name in others[:2]})  # what is there is not asked for
    with pytest.raises(DataError, match=f"and from there {others[2]}, too, or"):
        ensure_archive(info, 8, str(tmp_path / "data"), download=False)
    assert not (tmp_path / "data").exists()


def test_copy_that_was_packed_again_is_known_by_its_content(tmp_path):
    info, files, _ = idx_set()
    again = {name: gzip.compress(gzip.decompress(content), 1, mtime=7) for name, content in files.items()}
    assert all(again[name] != files[name] for name in files)
    write(tmp_path, again)
    path = ensure_archive(info, 8, str(tmp_path), download=False)
    write(tmp_path / "published", files)
    assert path.read_bytes() == ensure_archive(info, 8, str(tmp_path), download=False).read_bytes()


def test_content_is_not_asked_for_where_the_entry_has_none(tmp_path):
    info, files, _ = idx_set()
    name = info.original.test_labels.file
    file = info.original.test_labels.model_copy(update={"content_md5": None})
    write(tmp_path / "published", {**files, name: gzip.compress(gzip.decompress(files[name]), 1, mtime=7)})
    with pytest.raises(DataError, match=f"{name}: MD5 is [0-9a-f]*, the catalog says {file.md5}; delete it and get it"):
        ensure_archive(with_original(info, test_labels=file), 8, str(tmp_path), download=False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"x", "MD5 is 9dd4e461268c8034f5c8564e155c67a6, the catalog says"),
        (b"x" * 100_000, "has 100,000 bytes, more than"),
        (b"\x1f\x8b damaged", "is damaged"),
        (gzip.compress(bytes(300_000)), "MD5 is"),
    ],
    ids=["other", "large", "damaged", "bomb"],
)
def test_another_file_of_that_name_is_refused_in_the_own_folder_and_passed_over_elsewhere(content, problem, tmp_path):
    info, files, _ = idx_set()
    name = info.original.test_images.file
    write(tmp_path / "published", {**files, name: content})
    with pytest.raises(DataError) as caught:
        ensure_archive(info, 8, str(tmp_path), download=False)
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path / 'published' / name}: {problem}")
    assert line.endswith("; delete it and get it again")
    (tmp_path / "published" / name).unlink()
    write(tmp_path, {name: content})  # such as MNIST's, which have the names of Fashion-MNIST's
    with pytest.raises(DataError, match=f"{name}: missing"):
        ensure_archive(info, 8, str(tmp_path), download=False)
    info = with_original(info, folders=(str(tmp_path / "system"),))
    write(tmp_path / "system", files)
    assert ensure_archive(info, 8, str(tmp_path), download=False).is_file()


def test_only_what_is_missing_is_downloaded(server, tmp_path):
    info, server.files, arrays = idx_set(server.url)
    first, *others = server.files
    write(tmp_path, {first: server.files[first]})
    path = ensure_archive(info, 8, str(tmp_path), download=True, retries=QUICK)
    assert server.requests == others
    assert sorted(each.name for each in (tmp_path / "published").iterdir()) == sorted(others)
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["test_images"], arrays["test_images"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"x", "the download has MD5 9dd4e461268c8034f5c8564e155c67a6, expected"),
        (b"x" * 100_000, "100,000 bytes are more than this file can have"),
        (None, "missing, and the download failed (Not Found); place https://localhost"),
    ],
)
def test_download_that_is_not_the_file(content, problem, server, tmp_path):
    info, files, _ = idx_set(server.url)
    name = info.original.test_images.file
    server.files = {**files, name: content}
    with pytest.raises(DataError) as caught:
        ensure_archive(info, 8, str(tmp_path / "data"), download=True, retries=QUICK)
    (line,) = caught.value.problems
    assert problem in line
    assert not (tmp_path / "data" / "published_8.npz").exists()
    assert name not in {path.name for path in (tmp_path / "data" / "published").iterdir()}


def test_sha256_goes_before_md5(server, tmp_path):
    info, server.files, _ = idx_set(server.url)
    file = info.original.train_images.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DataError, match=r"the download has SHA-256 [0-9a-f]{64}, expected 0{64}"):
        ensure_archive(with_original(info, train_images=file), 8, str(tmp_path), download=True, retries=QUICK)


def test_commands_know_published_files(server, tmp_path, monkeypatch, capsys, refuse):
    info, server.files, _ = idx_set(server.url)
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    text = yaml.safe_dump(info.model_dump(mode="json"))
    write(tmp_path / "catalog", {"published.yaml": text.encode()})
    root = ("--root", str(tmp_path / "data"))
    (line,) = refuse("datasets", "check", "published", *root)
    assert "published_8.npz: missing; `visionforge datasets download published` gets it" in line
    assert main(["datasets", "info", "published"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "made once of the published files" in shown
    assert "validation images, by class, from seed 20261129" in shown
    for command in ("download", "check", "stats", "show"):
        assert main(["datasets", command, "published", *root]) == 0, capsys.readouterr().err
    assert "c0 8 20.0% 2 20.0% 4 20.0%" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "published.png").is_file()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format": "pickle"}, "original: format: 'pickle' is not allowed; allowed: idx, cifar, hdf5"),
        (
            {"train_images": {"url": "https://x", "file": "a/../b", "max_bytes": 1, "md5": "0" * 32}},
            "train_images.file",
        ),
        ({"splitseed": 1}, "original: splitseed: unknown setting; nearest: split_seed"),
    ],
)
def test_entries_that_are_not_valid_are_told_in_lines(change, problem, tmp_path, monkeypatch, refuse):
    info, _, _ = idx_set()
    content = info.model_dump(mode="json")
    content["original"].update(change)
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    write(tmp_path / "catalog", {"published.yaml": yaml.safe_dump(content).encode()})
    (line,) = refuse("datasets", "info", "published")
    assert line.startswith(f"{tmp_path / 'catalog' / 'published.yaml'}: original")
    assert problem in line
