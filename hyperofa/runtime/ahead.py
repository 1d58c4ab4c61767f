"""Work on the next item while the last is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def ahead(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """What some work makes of each item, in order: a thread is one item ahead, for work that runs beside Python.

    Args:
        work: on one item; what it raises is raised here.
        items: to work on.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[U] | None = None
        for item in items:
            following = pool.submit(work, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
