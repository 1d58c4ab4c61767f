"""From a trained hypernetwork to the coordinates of target tokens."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from lightning import Callback, LightningModule, Trainer

from hyperofa.bundle.bundle import Bundle
from hyperofa.methods.baselines import InitInputs, OFAConfig, Predictions, blend, ofa
from hyperofa.runtime.folders import whole_file
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.metrics import TokenMetrics
from hyperofa.training.predict_tokens import predict_tokens
from hyperofa.training.word_table import Placement


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
    inputs: InitInputs | None = None,
) -> Predictions:
    """Coordinates of every target token that has words.

    Args:
        trained: the net; it looks at all source tokens that have words.
        bundle: the inputs.
        batch_size: tokens at a time.
        cache: where shards of the rows are kept, and who shares it.
        name: of the net among others, there.
        word_table: where word vectors are, see `training.word_table.load_table`.
        inputs: of `target_inputs(bundle)`, if they are at hand: which tokens have words.

    Returns:
        Rows of T tokens, known where the token has words.
    """
    known, usable = (
        (bundle.target.covered, bundle.source.covered) if inputs is None else (inputs.covered, inputs.usable)
    )
    rows = np.zeros((len(known), bundle.meta.coordinate_dim), np.float32)
    ids, remembered = np.flatnonzero(known), np.flatnonzero(usable)
    rows[ids] = predict_tokens(trained, bundle, "target", ids, remembered, batch_size, cache, name, word_table)
    return Predictions(rows, known)


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
    predicted = Predictions(predict_tokens(trained, bundle, "source", ids, others), mixed.known)
    shares = [tenths / 10 for tenths in range(11)]
    return max(
        shares,
        key=lambda share: _mrr(blend(predicted, mixed, share).coordinates, coordinates[ids], coordinates[others]),
    )


def _mrr(predicted: np.ndarray, expected: np.ndarray, others: np.ndarray) -> float:
    metric = TokenMetrics()
    metric.update(*(torch.from_numpy(np.array(part)) for part in (predicted, expected, others)))
    return float(metric.compute()["mrr"])
