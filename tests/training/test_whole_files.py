"""Checkpoints appear whole, the one before stays, and damage is found before it is trusted."""

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import REPOSITORY
from visionforge.engine.failure import how_it_ended, translate
from visionforge.errors import RunError, TrainingError
from visionforge.training.checkpoints import LAST, PREVIOUS, WholeFiles, checkpoint_to_resume, damage_of


def save(folder, value, name=LAST):
    WholeFiles().save_checkpoint({"state_dict": {"w": torch.full((1000,), float(value))}}, folder / name)


def value(path):
    return float(torch.load(path, weights_only=True)["state_dict"]["w"][0])


def test_the_one_before_is_kept(tmp_path):
    for number in range(4):
        save(tmp_path, number)
        save(tmp_path, 10 + number, "best.ckpt")
    assert {path.name: value(path) for path in tmp_path.iterdir()} == {LAST: 3, PREVIOUS: 2, "best.ckpt": 13}


def test_every_single_damaged_byte_of_the_tensors_is_found(tmp_path):
    save(tmp_path, 1.5)
    whole = (tmp_path / LAST).read_bytes()
    start = whole.index(torch.full((8,), 1.5).numpy().tobytes())
    for position in range(start, start + 4000, 97):
        content = bytearray(whole)
        content[position] ^= 1
        (tmp_path / "bad.ckpt").write_bytes(content)
        assert damage_of(tmp_path / "bad.ckpt") is not None
    assert damage_of(tmp_path / LAST) is None


@pytest.mark.parametrize("size", [0, 1, 100, 2000])
def test_cut_off_file_is_found(tmp_path, size):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:size])
    assert checkpoint_to_resume(tmp_path) == tmp_path / PREVIOUS


def test_newest_whole_one_is_chosen(tmp_path, caplog):
    assert checkpoint_to_resume(tmp_path) is None
    save(tmp_path, 1)
    assert checkpoint_to_resume(tmp_path) == tmp_path / LAST
    (tmp_path / LAST).write_bytes(b"PK nothing")
    with pytest.raises(RunError, match="damaged, so there is nothing to continue from"):
        checkpoint_to_resume(tmp_path)
    assert not caplog.text


def test_failed_write_keeps_the_old_file_and_no_temporary_one(tmp_path):
    save(tmp_path, 1)
    with pytest.raises(Exception, match="pickle"):
        WholeFiles().save_checkpoint({"state_dict": lambda: 0}, tmp_path / LAST)
    assert value(tmp_path / LAST) == 1
    assert [path.name for path in tmp_path.iterdir()] == [LAST]


@pytest.mark.slow
def test_killed_while_writing_leaves_the_old_file(tmp_path):
    """At many moments of an endless sequence of writes, both names hold whole files, and the newer is not older."""
    code = """
import sys
from pathlib import Path
import torch
from visionforge.training.checkpoints import WholeFiles
print("ready", flush=True)
number = 0
while True:
    number += 1
    content = {"state_dict": {"w": torch.full((200_000,), float(number))}}
    WholeFiles().save_checkpoint(content, Path(sys.argv[1]) / "last.ckpt")
    print(number, flush=True)
"""
    for round_number in range(3):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        for _ in range(3 + round_number):
            process.stdout.readline()
        process.kill()
        said = process.stdout.read().split()
        process.wait()
        newest = value(folder / LAST)
        assert damage_of(folder / LAST) is None
        assert damage_of(folder / PREVIOUS) is None
        assert newest >= max([2 + round_number, *map(int, said)])
        assert value(folder / PREVIOUS) in (newest - 1, newest)


def test_endings():
    with pytest.raises(RuntimeError) as found:
        torch.empty(1 << 60)
    told = translate(found.value)
    assert isinstance(told, TrainingError)
    assert "data.batch_size: out of memory" in str(told)
    assert how_it_ended(found.value)[0] == "interrupted"
    assert how_it_ended(told)[0] == "interrupted", "what the user is told does not change how the run ended"
    assert how_it_ended(MemoryError("x"))[0] == "interrupted"
    assert how_it_ended(OSError(28, os.strerror(28))) == ("interrupted", "no space left on device")
    assert how_it_ended(OSError(13, os.strerror(13))) == ("failed", "permission denied")
    assert how_it_ended(TrainingError("diverged")) == ("failed", "diverged")
    assert how_it_ended(KeyError("x")) == ("failed", "KeyError: 'x'")
