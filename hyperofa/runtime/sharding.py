"""Long work in shards: spread over processes, kept when one is killed, put together at the end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hyperofa.runtime.folders import whole_file
from hyperofa.runtime.processes import SINGLE_PROCESS, ProcessGroup, bar_hidden


@dataclass(frozen=True)
class Shards:
    """Rows of arrays, computed a shard at a time; each process its own, and all of them get all.

        for span in shards:
            shards.keep(span, *arrays_of(span))
        whole = shards.joined()

    What a span holds must be the same whoever computes it, and when.

    Attributes:
        spans: of the rows, in order.
        folder: where they are kept until all is done; `None` to keep them in memory.
        group: the processes that share the work.
        progress: name of the progress bar.
    """

    spans: list[slice]
    folder: Path | None
    group: ProcessGroup
    progress: str
    _kept: dict[int, tuple[np.ndarray, ...]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[slice]:
        """The spans that this process computes and that are not there yet."""
        count, silent = self.spans[-1].stop, not self.group.first or len(self.spans) == 1
        with tqdm(total=count, desc=self.progress, unit=" rows", unit_scale=True, disable=bar_hidden(silent)) as bar:
            for span in self.group.mine(self.spans):
                path = self._path(span)
                if path is None or not path.is_file():
                    yield span
                bar.update((span.stop - span.start) * self.group.size)

    def keep(self, span: slice, *arrays: np.ndarray) -> None:
        """Keep the rows of a span.

        Args:
            span: of those that iteration gives.
            arrays: its rows, of as many arrays as every other span has.
        """
        path = self._path(span)
        if path is None:
            self._kept[span.start] = arrays
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            np.savez(partial, *arrays)

    def joined(self) -> tuple[np.ndarray, ...]:
        """The arrays, whole, once all processes have done their part."""
        self.group.wait()
        parts = (self._read(span) for span in self.spans)
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))

    def _path(self, span: slice) -> Path | None:
        return None if self.folder is None else self.folder / f"{span.start}.npz"

    def _read(self, span: slice) -> tuple[np.ndarray, ...]:
        path = self._path(span)
        if path is None:
            return self._kept[span.start]
        with np.load(path) as arrays:
            return tuple(arrays[key] for key in arrays.files)


@dataclass(frozen=True)
class ShardCache:
    """Where computations keep their shards.

    Attributes:
        folder: for all of them; `None` to keep them in memory.
        group: the processes that share the work; with more than one, there is a folder that all of them see.
    """

    folder: Path | None = None
    group: ProcessGroup = SINGLE_PROCESS

    def shards(self, name: str, count: int, size: int, progress: str) -> Shards:
        """The shards of a computation.

        Args:
            name: of the computation, in the folder.
            count: N, rows in all; at least 1.
            size: rows of a shard.
            progress: name of the progress bar.
        """
        spans = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        return Shards(spans, None if self.folder is None else self.folder / name, self.group, progress)


IN_MEMORY = ShardCache()
