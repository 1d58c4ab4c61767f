"""From trained hypernetworks to the coordinates of target tokens, and to a whole vocabulary of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from lightning import Callback, LightningModule, Trainer

from hyperofa.bundle.bundle import Bundle, Side
from hyperofa.errors import InputError
from hyperofa.export.confidence import LEAST, Confidence, PredictHeld, assess
from hyperofa.methods.baselines import InitInputs, OFAConfig, Predictions, blend, ofa
from hyperofa.methods.fallbacks import Filled, plan_and_fill, target_inputs
from hyperofa.methods.registry import Method
from hyperofa.runtime.folders import whole_file
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.tokens.canonical import OverlapKind
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.metrics import TokenMetrics
from hyperofa.training.predict_tokens import predict_tokens
from hyperofa.training.word_table import Placement
from hyperofa.vectors.centring import unit_rows


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


def predict_vocabulary(
    bundle: Bundle,
    method: Method,
    nets: Sequence[Hypernetwork],
    mixing: OFAConfig,
    ofa_share: float | None = 0.0,
    copied: Sequence[OverlapKind] | None = None,
    least_confidence: float = 0.0,
    cache: ShardCache = IN_MEMORY,
) -> tuple[Filled, Confidence | None]:
    """A whole target vocabulary by the mean prediction of some nets, blended with OFA.

    Args:
        bundle: the inputs.
        method: what becomes of the rows that are not predicted.
        nets: at least one.
        mixing: of OFA.
        ofa_share: part of OFA, `None` for what does best on the validation tokens.
        copied: kinds of overlap that are copied; those that the first net was not trained on if `None`.
        least_confidence: rows of a lower one are not predicted.
        cache: where shards of the rows are kept, and who shares it.

    Returns:
        The vocabulary, and how far its predicted rows can be trusted, if that can be said.

    Raises:
        InputError: it cannot be said, and a least confidence is asked for.
    """
    inputs = target_inputs(bundle)
    named = {f"net-{number}": net for number, net in enumerate(nets)}
    every = [predict(net, bundle, cache=cache, name=name, inputs=inputs) for name, net in named.items()]
    rows = Predictions(np.mean([each.coordinates for each in every], axis=0), every[0].known)
    agreement = agreement_of([each.coordinates for each in every], rows.coordinates)
    share = learned_share(bundle, nets[0], mixing) if ofa_share is None else ofa_share
    if share > 0:
        rows = blend(rows, ofa(inputs, mixing, cache), share)
    kinds = nets[0].copied if copied is None else copied
    filled = plan_and_fill(inputs, rows, kinds, method.fallback)
    held = predictor_of_held(bundle, nets, share, mixing)
    confidence = assess(bundle, filled.plan.of("predicted"), agreement, held, cache)
    if least_confidence > 0:
        if confidence is None:
            raise InputError(
                f"--least_confidence: expected {LEAST} validation tokens or more, by which predictions are judged, "
                f"found {least_confidence} with --bundle {bundle.path}, which says nothing of them; leave it out, or "
                "prepare with a larger --validation_share"
            )
        trusted = replace(rows, known=rows.known & ~(confidence.values < least_confidence))
        filled = plan_and_fill(inputs, trusted, kinds, method.fallback)
    return filled, confidence


def predictor_of_held(bundle: Bundle, nets: Sequence[Hypernetwork], share: float, mixing: OFAConfig) -> PredictHeld:
    """How tokens that are not trained on are predicted, as the target's are but from training tokens alone.

    Args:
        bundle: the inputs.
        nets: at least one, of which the mean is taken.
        share: part of OFA.
        mixing: of OFA.
    """

    def predict_held(side: Side, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        every = [predict_tokens(net, bundle, side, ids, bundle.split["train"]) for net in nets]
        mean = np.mean(every, axis=0)
        rows = Predictions(mean, np.ones(len(ids), bool))
        if share > 0:
            rows = blend(rows, ofa(_held_inputs(bundle, side, ids), mixing), share)
        return rows.coordinates, agreement_of(every, mean)

    return predict_held


def agreement_of(every: Sequence[np.ndarray], mean: np.ndarray) -> np.ndarray | None:
    """How far several nets agree on each of n rows.

    Args:
        every: rows `(n, K)` of each net.
        mean: `(n, K)`, of them all.

    Returns:
        `(n,)` mean cosine of each net's row with the mean; `None` of one net.
    """
    if len(every) == 1:
        return None
    unit = unit_rows(mean)[0]
    return np.mean([(unit_rows(rows)[0] * unit).sum(1) for rows in every], axis=0)


def _held_inputs(bundle: Bundle, side: Side, ids: np.ndarray) -> InitInputs:
    """What a method is given to initialise some tokens, with words, from the training tokens alone."""
    usable = np.zeros(bundle.meta.source_tokens, bool)
    usable[bundle.split["train"]] = True
    wanted, none = np.asarray(bundle.pooled(side)[ids]), sp.csr_matrix((len(ids), len(usable)))
    coordinates, pooled = np.asarray(bundle.coordinates), bundle.pooled("source")
    return InitInputs(coordinates, pooled, usable, wanted, np.ones(len(ids), bool), none)


def learned_share(bundle: Bundle, trained: Hypernetwork, mixing: OFAConfig) -> float:
    """The part of OFA, in tenths, with which blended rows best single out the validation tokens among the source's.

    Args:
        bundle: the inputs.
        trained: the net; here it sees only the training tokens, and so does OFA.
        mixing: of OFA.
    """
    ids, others = bundle.split["val"], bundle.split["train"]
    coordinates = np.asarray(bundle.coordinates)
    mixed = ofa(_held_inputs(bundle, "source", ids), mixing)
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
