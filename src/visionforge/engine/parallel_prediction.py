"""Batches of pictures that several threads ask the same network about, each on one core.

A small network that is given all cores for a batch waits for the slowest of them after every layer, while other threads
decode the next pictures. A batch for each core waits for nobody.
"""

import queue
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from visionforge.data.stream import in_order
from visionforge.inference.artifacts import ArtifactPredictor

if TYPE_CHECKING:
    from visionforge.inference.predictions import Predictor

Given = TypeVar("Given")
Found = TypeVar("Found")
LEAST_PICTURES = 16  # of a thread's batch; with fewer, starting the layers would cost as much as the layers
LEAST_BATCHES = 2  # of the whole size; with fewer, cores would have nothing to do for most of the time


def predictors_for(
    predictor: "Predictor", threads: int, pictures: int, batch_size: int
) -> "tuple[list[Predictor], int]":
    """Return predictors of the same weights for as many threads as are worth it, and the size of their batches.

    All of them together have no more pictures in work than one would have, and so no more memory.

    Args:
        predictor: The network, or an artifact, whose runtime has threads of its own.
        threads: Cores that may be used.
        pictures: How many there are.
        batch_size: Pictures that may be worked on at once.
    """
    count = min(threads, batch_size // LEAST_PICTURES)
    worth = count > 1 and pictures >= LEAST_BATCHES * batch_size
    if not worth or isinstance(predictor, ArtifactPredictor):
        return [predictor], batch_size
    from visionforge.inference.predictor import NetworkPredictor

    if not isinstance(predictor, NetworkPredictor) or predictor.device.type != "cpu":
        return [predictor], batch_size
    return [predictor, *(predictor.sharing_weights() for _ in range(count - 1))], batch_size // count


def said_of(
    predictors: "list[Predictor]", given: Iterable[Given], ask: "Callable[[Predictor, Given], Found]"
) -> Generator[tuple[Given, Found], None, None]:
    """Yield what was given, in its order, with what was found of it; a few are worked on ahead.

    Close the generator to stop early: what has begun is finished, and nothing else begins.

    Args:
        predictors: One for each thread; a single one is asked in this thread.
        given: Batches.
        ask: Asks one of the predictors.
    """
    if len(predictors) == 1:
        for each in given:
            yield each, ask(predictors[0], each)
        return
    import torch

    threads = torch.get_num_threads()
    free: queue.SimpleQueue[Predictor] = queue.SimpleQueue()
    for predictor in predictors:
        free.put(predictor)

    def work(each: Given) -> tuple[Given, Found]:
        mine = free.get()
        try:
            return each, ask(mine, each)
        finally:
            free.put(mine)

    pool = ThreadPoolExecutor(len(predictors), "visionforge-predict", lambda: torch.set_num_threads(1))
    try:
        yield from in_order(pool, (partial(work, each) for each in given), len(predictors))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # which is also that of threads to come
