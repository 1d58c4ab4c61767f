"""From a checkpoint to coordinates: load a trained net without its training code, and predict target tokens."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from hyperofa.baselines import Rows
from hyperofa.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.nets import Memory, Net, build
from hyperofa.plm import best_device
from hyperofa.tokens import OverlapKind
from hyperofa.wordsets import WordSetTable, make_memory


@dataclass(frozen=True)
class Trained:
    """A hypernetwork as `hyperofa fit` left it.

    Attributes:
        net: in evaluation mode.
        copied: kinds of overlap it was not trained to predict.
        max_words: words a token is described by.
    """

    net: Net
    copied: tuple[OverlapKind, ...]
    max_words: int


def load_trained(path: str | Path, bundle: Bundle) -> Trained:
    """Load a checkpoint; only tensors and plain data are read from it, no code.

    Args:
        path: `.ckpt` file of `hyperofa fit`.
        bundle: what it will be used on.

    Raises:
        InputError: no checkpoint of a hypernetwork, or one for another space: other vectors, another source model or
            other widths.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"--checkpoint {path}: expected a checkpoint of `hyperofa fit`, found no file") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"--checkpoint {path}: expected a checkpoint of `hyperofa fit`; {reason}") from None
    recorded = checkpoint.get("hyperofa") if isinstance(checkpoint, dict) else None
    if recorded is None:
        raise InputError(f"--checkpoint {path}: expected a checkpoint of `hyperofa fit`, found one of something else")
    net = build(recorded["net"])
    widths, expected = (net.word_dim, net.coordinate_dim), (bundle.meta.word_dim, bundle.meta.coordinate_dim)
    if widths != expected:
        raise InputError(
            f"--checkpoint {path}: expected a net of word width {expected[0]} and coordinate width {expected[1]} for "
            f"--bundle {bundle.path}, found {widths[0]} and {widths[1]}"
        )
    if recorded["space"] != bundle.meta.space:
        raise InputError(
            f"--checkpoint {path}: expected a net for the vectors, source model and source languages of --bundle "
            f"{bundle.path}, found one trained on others; train on this bundle"
        )
    weights = {name.removeprefix("net."): value for name, value in checkpoint["state_dict"].items()}
    net.load_state_dict(weights)
    return Trained(net.eval(), tuple(recorded["copied"]), recorded["max_words"])


@torch.inference_mode()
def predict(trained: Trained, bundle: Bundle, batch_size: int = 1024) -> Rows:
    """Coordinates of every target token that has words.

    Args:
        trained: the net; it looks at all source tokens that have words.
        bundle: the inputs.
        batch_size: tokens at a time.

    Returns:
        Rows of T tokens, known where the token has words.
    """
    device = best_device()
    net = trained.net.to(device)
    memory = Memory(*(part.to(device) for part in make_memory(bundle, np.flatnonzero(bundle.source.covered))))
    table = WordSetTable(bundle, "target", trained.max_words)
    rows = np.zeros((bundle.meta.target_tokens, bundle.meta.coordinate_dim), np.float32)
    ids = np.flatnonzero(bundle.target.covered)
    ids = ids[np.argsort(table.counts[ids], kind="stable")]
    for start in tqdm(range(0, len(ids), batch_size), desc="predicting", unit=" batches"):
        chosen = ids[start : start + batch_size]
        sets = table.sets(chosen)
        rows[chosen] = net(type(sets)(*(part.to(device) for part in sets)), memory).float().cpu().numpy()
    return Rows(rows, bundle.target.covered)
