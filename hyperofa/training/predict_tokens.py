"""The loop of predictions: a net says the coordinates of as many tokens as are asked for, a shard at a time."""

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device

from hyperofa.bundle.bundle import Bundle, Side
from hyperofa.runtime.devices import best_device
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.word_sets import (
    WordIndices,
    WordSetTable,
    make_memory,
    nearest_indices,
    self_indices,
    tell_usage,
)
from hyperofa.training.word_table import Placement, load_table
from hyperofa.vectors.neighbours import NeighbourIndex

SHARD = 8_192
"""Tokens of a shard: what a kill costs."""


def predict_tokens(
    trained: Hypernetwork,
    bundle: Bundle,
    side: Side,
    ids: np.ndarray,
    remembered: np.ndarray,
    batch_size: int = 1024,
    cache: ShardCache = IN_MEMORY,
    name: str = "net",
    word_table: Placement = "auto",
) -> np.ndarray:
    """What a net says of some tokens.

    Args:
        trained: the net.
        bundle: the inputs.
        side: whose tokens.
        ids: `(n,)` int64 of them, all with words.
        remembered: `(M,)` source tokens that the net may look at.
        batch_size: tokens at a time.
        cache: where shards of the rows are kept, and who shares it.
        name: of the net among others, there.
        word_table: where word vectors are, see `word_table.load_table`.

    Returns:
        `(n, K)` float32 coordinates.
    """
    device = best_device()
    net = trained.net.to(device)
    indices_by_side = self_indices(bundle, remembered)
    memory = tell_usage(net, make_memory(bundle, remembered), bundle, indices_by_side)
    with torch.inference_mode():
        memory = net.remember(memory.to(device))
    neighbours = net.looks_at(int(bundle.source.covered.sum()))
    keys = None if neighbours is None else NeighbourIndex(memory.keys.numpy(force=True))
    self_index = indices_by_side[side]
    table = WordSetTable(bundle, side, trained.max_words, trained.words)
    vectors = load_table([table], word_table, device)
    by_size = np.argsort(table.counts[ids], kind="stable")
    order = ids[by_size]

    @torch.inference_mode()
    def predict(span: slice) -> np.ndarray:
        tokens = order[span]
        seen, indices = memory, self_index[tokens]
        if neighbours is not None and keys is not None:
            found = nearest_indices(bundle.pooled(side)[tokens], indices, keys, min(neighbours, keys.count))
            seen = memory._replace(neighbour_ids=torch.from_numpy(found).to(device))
            seen = seen.usage_of(torch.from_numpy(indices).to(device))
            indices = np.arange(len(tokens))
        parts = []
        for start in range(0, len(tokens), batch_size):
            batch = slice(start, start + batch_size)
            sets = move_data_to_device(table.sets(tokens[batch]), device)
            if isinstance(sets, WordIndices):
                sets = sets.fetch(vectors)
            parts.append(net(sets, seen, torch.from_numpy(indices[batch]).to(device)).float())
        return torch.cat(parts).cpu().numpy()  # once a shard: a GPU works on while batches are made

    shards = cache.shards(name, len(ids), SHARD, f"predicting {side} tokens")
    for span in shards:
        shards.keep(span, predict(span))
    rows = np.empty((len(ids), bundle.meta.coordinate_dim), np.float32)
    (rows[by_size],) = shards.joined()
    return rows
