"""Batches of pictures that several threads ask the same network about, each on one core.

A small network that is given all cores for a batch waits for the slowest of them after every layer, while other threads
decode the next pictures. A batch for each core waits for nobody.
"""

import queue
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from visionforge.inference.predictor import NetworkPredictor

if TYPE_CHECKING:
    from visionforge.inference.predictor import Predictor

Given = TypeVar("Given")
Found = TypeVar("Found")
LEAST_BATCHES = 2  # for each thread; with fewer, most cores would have nothing to do for most of the time


def predictors_for(predictor: "Predictor", threads: int, batches: float) -> "list[Predictor]":
    """Return predictors of the same weights for as many threads as are worth it; one where that is one.

    Args:
        predictor: The network, or an artifact, whose runtime has threads of its own.
        threads: Cores that may be used.
        batches: How many batches there will be.
    """
    worth = threads > 1 and batches >= LEAST_BATCHES * threads
    if not worth or not isinstance(predictor, NetworkPredictor) or predictor.device.type != "cpu":
        return [predictor]
    return [predictor, *(predictor.sharing_weights() for _ in range(threads - 1))]


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

    def work(each: Given) -> Found:
        mine = free.get()
        try:
            return ask(mine, each)
        finally:
            free.put(mine)

    pool = ThreadPoolExecutor(len(predictors), "visionforge-predict", lambda: torch.set_num_threads(1))
    waiting: deque[tuple[Given, Future[Any]]] = deque()
    try:
        for each in given:
            waiting.append((each, pool.submit(work, each)))
            if len(waiting) > len(predictors):
                done, found = waiting.popleft()
                yield done, found.result()
        while waiting:
            done, found = waiting.popleft()
            yield done, found.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # which is also that of threads to come
