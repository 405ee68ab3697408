"""Threads wait until there is room for what they decode, and none waits for itself."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from visionforge.data import pictures
from visionforge.data.room import SMALL, Room


def most_at_once(room: Room, each: int, threads: int) -> int:
    """Return how much threads held at the same time."""
    held, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal held, most
        with room.holding(each):
            with lock:
                held += each
                most = max(most, held)
            time.sleep(0.02)
            with lock:
                held -= each

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(4 * threads)))
    return most


@pytest.mark.parametrize(("each", "expected"), [(SMALL, 4 * SMALL), (2 * SMALL, 4 * SMALL), (9 * SMALL, 9 * SMALL)])
def test_no_more_is_held_than_there_is_room_for(each, expected):
    assert most_at_once(Room(5 * SMALL), each, 4) == expected


def test_a_thread_that_holds_some_does_not_wait_for_itself():
    room = Room(2 * SMALL)
    with room.holding(2 * SMALL), room.holding(2 * SMALL):
        pass
    with room.holding(2 * SMALL):
        pass


def test_what_is_held_is_given_back_after_an_error():
    room = Room(2 * SMALL)
    for _ in range(3):
        with pytest.raises(ValueError, match="damaged"), room.holding(2 * SMALL):
            raise ValueError("damaged")


def test_pictures_hold_what_decoding_them_takes(tmp_path, monkeypatch):
    asked = []

    class Noted(Room):
        def holding(self, needed):
            asked.append(needed)
            return super().holding(needed)

    monkeypatch.setattr(pictures, "DECODING", Noted(1))
    Image.fromarray(np.zeros((700, 800), np.uint8)).save(tmp_path / "a.png")
    assert pictures.read_picture(tmp_path / "a.png", 28).shape == (28, 28)
    assert asked == [700 * 800 * 10]
