"""Long work in shards: spread over processes, kept when one is killed, put together at the end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hyperofa.runtime.folders import whole_file
from hyperofa.runtime.processes import SINGLE_PROCESS, ProcessGroup, bar_hidden


@dataclass(frozen=True)
class ShardCache:
    """A computation in shards.

    Attributes:
        folder: where the shards are kept until all is done; `None` to keep them in memory.
        group: the processes that share the work; with more than one, there is a folder that all of them see.
    """

    folder: Path | None = None
    group: ProcessGroup = SINGLE_PROCESS

    def arrays(
        self, name: str, compute: Callable[[slice], tuple[np.ndarray, ...]], count: int, size: int, progress: str
    ) -> tuple[np.ndarray, ...]:
        """Compute rows of arrays, a shard at a time; each process its own, and all of them get all.

        Args:
            name: of the computation, in the folder.
            compute: the arrays of a span of the rows; the same whoever asks, and when.
            count: N, rows in all; at least 1.
            size: rows of a shard.
            progress: name of the progress bar.

        Returns:
            Arrays of N rows.
        """
        spans = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        silent = bar_hidden(not self.group.first or len(spans) == 1)
        kept = {}
        with tqdm(total=count, desc=progress, unit=" rows", unit_scale=True, disable=silent) as bar:
            for span in self.group.mine(spans):
                path = None if self.folder is None else self.folder / name / f"{span.start}.npz"
                if path is None:
                    kept[span.start] = compute(span)
                elif not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with whole_file(path) as partial:
                        np.savez(partial, *compute(span))
                bar.update((span.stop - span.start) * self.group.size)
        self.group.wait()
        if self.folder is not None:
            for span in spans:
                with np.load(self.folder / name / f"{span.start}.npz") as arrays:
                    kept[span.start] = tuple(arrays[key] for key in arrays.files)
        return tuple(np.concatenate(parts) for parts in zip(*(kept[span.start] for span in spans), strict=True))


IN_MEMORY = ShardCache()
