"""Long work in shards: spread over processes, kept when one is killed, put together at the end."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as BackendTokenizer
from tqdm import tqdm

from hyperofa.artifacts import new_folder
from hyperofa.matching import Matches, match_words
from hyperofa.pooling import pool
from hyperofa.ranks import ALONE, Ranks
from hyperofa.store import WordVectors
from hyperofa.surfaces import Variants

SHARD = 131_072
"""Words of a shard; sets what memory is needed, and what a kill costs."""


@dataclass(frozen=True)
class Work:
    """A computation in shards.

    Attributes:
        folder: where the shards are kept until all is done; `None` to keep them in memory.
        ranks: the processes that share the work; with more than one, there is a folder that all of them see.
    """

    folder: Path | None = None
    ranks: Ranks = ALONE

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
        silent = not self.ranks.first or len(spans) == 1
        kept = {}
        with tqdm(total=count, desc=progress, unit=" rows", unit_scale=True, disable=silent) as bar:
            for span in self.ranks.mine(spans):
                path = None if self.folder is None else self.folder / name / f"{span.start}.npz"
                if path is None:
                    kept[span.start] = compute(span)
                elif not path.is_file():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    partial = path.with_suffix(f".{os.getpid()}.npz")
                    np.savez(partial, *compute(span))
                    partial.replace(path)
                bar.update((span.stop - span.start) * self.ranks.size)
        self.ranks.wait()
        if self.folder is not None:
            for span in spans:
                with np.load(self.folder / name / f"{span.start}.npz") as arrays:
                    kept[span.start] = tuple(arrays[key] for key in arrays.files)
        return tuple(np.concatenate(parts) for parts in zip(*(kept[span.start] for span in spans), strict=True))


IN_MEMORY = Work()


def match_shards(
    tokenizer: BackendTokenizer,
    words: WordVectors,
    languages: Sequence[str] | None,
    folder: Path,
    ranks: Ranks,
    *,
    num_tokens: int,
    ignored: Iterable[int],
    variants: Variants,
    progress: str,
) -> None:
    """Write the matches of each shard of this process into `folder`, less those that are there already.

    Args:
        tokenizer: as for `match_words`.
        words: the store.
        languages: whose words to match; all if `None`.
        folder: of all shards, shared by the processes.
        ranks: the processes.
        num_tokens: as for `match_words`.
        ignored: as for `match_words`.
        variants: as for `match_words`.
        progress: name of the progress bar.
    """
    chosen = None if languages is None else words.language_ids_of(languages)
    spans = ranks.mine([np.arange(start, min(start + SHARD, len(words))) for start in range(0, len(words), SHARD)])
    total = sum(map(len, spans))
    with tqdm(total=total, desc=progress, unit=" words", unit_scale=True, disable=not ranks.first) as bar:
        for span in spans:
            path = folder / f"{span[0] // SHARD:05}"
            ids = span if chosen is None else span[np.isin(words.language_ids[span], chosen)]
            if not path.is_dir():
                matches = match_words(
                    tokenizer,
                    words.words[ids],
                    words.boundaries[ids],
                    num_tokens=num_tokens,
                    ids=ids,
                    ignored=ignored,
                    variants=variants,
                    tokenised=bar.update,
                )
                with new_folder(path) as shard:
                    matches.save(shard)
                bar.update(len(span) - len(ids))
            else:
                bar.update(len(span))


def merge_shards(folder: Path, words: WordVectors, means: np.ndarray, output: Path) -> Matches:
    """Write all shards' matches as one, and the pooled vectors of the tokens, into `output`.

    Args:
        folder: of the shards, all of them there.
        words: the store.
        means: `(L, d)` mean unit vector of each language.
        output: folder of one side of a bundle.
    """
    shards = [Matches.load(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    matches = Matches.merge(shards, output)
    np.save(output / "pooled.npy", pool(tqdm(shards, desc=f"pooling {output.name} tokens"), words, means))
    return matches
