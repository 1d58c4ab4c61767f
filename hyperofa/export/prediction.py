"""From a trained hypernetwork to the coordinates of target tokens."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device

from hyperofa.bundle.bundle import Bundle, Side
from hyperofa.methods.baselines import InitInputs, OFAConfig, Predictions, blend, ofa
from hyperofa.runtime.devices import best_device
from hyperofa.runtime.folders import whole_file
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.metrics import TokenMetrics
from hyperofa.training.word_sets import (
    WordIndices,
    WordSetTable,
    make_memory,
    nearest_indices,
    self_indices,
    tell_frequencies,
)
from hyperofa.training.word_table import Placement, load_table
from hyperofa.vectors.neighbours import NeighbourIndex

SHARD = 8_192
"""Tokens of a shard: what a kill costs."""


class CoordinateFile(Callback):
    """Keeps what `hyperofa predict` computes: token `ids` and their `coordinates`, a file for each process."""

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `coordinates-RANK.npz` into the run's folder."""
        predictions = zip(*trainer.predict_loop.predictions, strict=True)
        ids, coordinates = (torch.cat(parts).float().cpu().numpy() for parts in predictions)
        path = Path(trainer.log_dir or trainer.default_root_dir) / f"coordinates-{trainer.global_rank}.npz"
        with whole_file(path) as partial:
            np.savez(partial, ids=ids.astype(np.int64), coordinates=coordinates)


def predict(
    trained: Hypernetwork,
    bundle: Bundle,
    batch_size: int = 1024,
    cache: ShardCache = IN_MEMORY,
    name: str = "net",
    word_table: Placement = "auto",
) -> Predictions:
    """Coordinates of every target token that has words.

    Args:
        trained: the net; it looks at all source tokens that have words.
        bundle: the inputs.
        batch_size: tokens at a time.
        cache: where shards of the rows are kept, and who shares it.
        name: of the net among others, there.
        word_table: where word vectors are, see `wordtable.load_table`.

    Returns:
        Rows of T tokens, known where the token has words.
    """
    rows = np.zeros((bundle.meta.target_tokens, bundle.meta.coordinate_dim), np.float32)
    ids = np.flatnonzero(bundle.target.covered)
    remembered = np.flatnonzero(bundle.source.covered)
    rows[ids] = _coordinates(trained, bundle, "target", ids, remembered, batch_size, cache, name, word_table)
    return Predictions(rows, bundle.target.covered)


def predict_some(trained: Hypernetwork, bundle: Bundle, ids: np.ndarray) -> np.ndarray:
    """Coordinates `(n, K)` of a few target tokens, all with words.

    Args:
        trained: the net; it looks at all source tokens that have words.
        bundle: the inputs.
        ids: `(n,)` int64 of the tokens.
    """
    return _coordinates(trained, bundle, "target", ids, np.flatnonzero(bundle.source.covered))


def _coordinates(
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
    """Predicted coordinates `(n, K)` of tokens of one side, all with words, from the source tokens remembered."""
    device = best_device()
    net = trained.net.to(device)
    indices_by_side = self_indices(bundle, remembered)
    memory = make_memory(bundle, remembered)
    if net.frequency:
        memory = tell_frequencies(memory, bundle, indices_by_side)
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
    def shard(span: slice) -> tuple[np.ndarray]:
        tokens = order[span]
        seen, indices = memory, self_index[tokens]
        if neighbours is not None and keys is not None:
            found = nearest_indices(bundle.pooled(side)[tokens], indices, keys, min(neighbours, keys.count))
            seen = memory._replace(neighbour_ids=torch.from_numpy(found).to(device))
            if memory.log_frequencies is not None:
                seen = seen._replace(log_frequencies=memory.log_frequencies[torch.from_numpy(indices).to(device)])
            indices = np.arange(len(tokens))
        parts = []
        for start in range(0, len(tokens), batch_size):
            batch = slice(start, start + batch_size)
            sets = move_data_to_device(table.sets(tokens[batch]), device)
            if isinstance(sets, WordIndices):
                sets = sets.fetch(vectors)
            parts.append(net(sets, seen, torch.from_numpy(indices[batch]).to(device)).float())
        return (torch.cat(parts).cpu().numpy(),)  # once a shard: a GPU works on while batches are made

    rows = np.empty((len(ids), bundle.meta.coordinate_dim), np.float32)
    (found,) = cache.arrays(name, shard, len(ids), SHARD, f"predicting {side} tokens")
    rows[by_size] = found
    return rows


def learned_share(bundle: Bundle, trained: Hypernetwork, mixing: OFAConfig) -> float:
    """The part of OFA, in tenths, with which blended rows best single out the validation tokens among the source's.

    Args:
        bundle: the inputs.
        trained: the net; here it sees only the training tokens, and so does OFA.
        mixing: of OFA.
    """
    ids, others = bundle.split["val"], bundle.split["train"]
    usable = np.zeros(bundle.meta.source_tokens, bool)
    usable[others] = True
    pooled, coordinates = bundle.pooled("source"), np.asarray(bundle.coordinates)
    nothing = sp.csr_matrix((len(ids), len(usable)))
    inputs = InitInputs(coordinates, pooled, usable, np.asarray(pooled[ids]), np.ones(len(ids), bool), nothing)
    mixed = ofa(inputs, mixing)
    predicted = Predictions(_coordinates(trained, bundle, "source", ids, others), mixed.known)
    shares = [tenths / 10 for tenths in range(11)]
    return max(
        shares,
        key=lambda share: _mrr(blend(predicted, mixed, share).coordinates, coordinates[ids], coordinates[others]),
    )


def _mrr(predicted: np.ndarray, expected: np.ndarray, others: np.ndarray) -> float:
    metric = TokenMetrics()
    metric.update(*(torch.from_numpy(np.array(part)) for part in (predicted, expected, others)))
    return float(metric.compute()["mrr"])
