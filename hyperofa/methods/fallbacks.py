"""A whole target vocabulary from a method's rows: copy the overlap, predict, fall back, never leave a row to chance.

Every method goes through the same steps and differs in the predicted rows alone. Rows are filled in this order:

    copied      the token is in the source vocabulary
    predicted   the method knows it (it has words)
    subtokens   mean of the source tokens that spell it
    script      mean of the rows so far in its script
    mean        mean of the source rows

In reference mode the last three are `noise` instead, as in the published code.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp

from hyperofa import reference
from hyperofa.bundle.bundle import Bundle, Pooling
from hyperofa.methods import baselines
from hyperofa.methods.baselines import InitInputs, Predictions
from hyperofa.tokens.canonical import Overlap, OverlapKind, Token, bare_backend

Origin = Literal["copied", "predicted", "subtokens", "script", "mean", "noise"]
Fallback = Literal["ladder", "noise", "noise_in_sequence"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)


@dataclass(frozen=True)
class Initialisation:
    """Coordinates for a whole target vocabulary, and where each row came from.

    Attributes:
        coordinates: `(T, K)` float32.
        origins: `(T,)` uint8, index into `ORIGINS`.
        mixture: `(T, S)` sparse, weights of source tokens where a row is a mixture of theirs.
    """

    coordinates: np.ndarray
    origins: np.ndarray
    mixture: sp.csr_matrix

    def counts(self) -> dict[str, int]:
        """Rows of each origin."""
        return {origin: int((self.origins == number).sum()) for number, origin in enumerate(ORIGINS)}


def target_inputs(bundle: Bundle, pooling: Pooling = "weighted") -> InitInputs:
    """What a method is given to initialise all target tokens of a bundle.

    Args:
        bundle: the inputs.
        pooling: how words become one vector, see `Bundle.pooled`; OFA as published uses `duplicates`.
    """
    source_tokens = bundle.tokens("source")
    tokenizer = bundle.tokenizer("source")
    unknown = next((i for i, token in enumerate(source_tokens) if token is not None and "unk" in token.roles), None)
    target_tokens = bundle.tokens("target")
    spelled = baselines.spell(target_tokens, bare_backend(tokenizer), unknown, bundle.meta.source_tokens)
    keys, queries = (bundle.pooled(side, pooling) for side in ("source", "target"))
    return InitInputs(bundle.coordinates, keys, bundle.source.covered, queries, bundle.target.covered, spelled)


def initialise(
    bundle: Bundle, rows: Predictions, inputs: InitInputs, copied: Sequence[OverlapKind], fallback: Fallback = "ladder"
) -> Initialisation:
    """Fill a target vocabulary: copy, take the method's rows, fall back.

    Args:
        bundle: the inputs.
        rows: what the method says of all T target tokens.
        inputs: what the method was given.
        copied: kinds of overlap that are copied; tokens of other kinds are predicted if they can be. The old tokens of
            an expanded vocabulary are copied in any case.
        fallback: for the rows that the method leaves open: what we know of the token, or the noise of the reference.

    Returns:
        Rows for every token, each with its origin.
    """
    tokens = bundle.tokens("target")
    size, num_source = inputs.spelled.shape
    coordinates = np.zeros((size, bundle.meta.coordinate_dim), np.float32)
    origins = np.full(size, ORIGINS.index("mean"), np.uint8)
    open_rows = np.ones(size, bool)

    def fill(origin: Origin, ids: np.ndarray, values: np.ndarray) -> None:
        coordinates[ids], origins[ids], open_rows[ids] = values, ORIGINS.index(origin), False

    overlap = bundle.overlap.choose((*copied, "exact") if bundle.expands else copied)
    fill("copied", overlap.target_ids, bundle.coordinates[overlap.source_ids])
    predicted = np.flatnonzero(open_rows & rows.known)
    fill("predicted", predicted, rows.coordinates[predicted])
    if fallback != "ladder":
        open_rows |= ~coordinates.any(1)  # the published code takes every zero row for an open one
        noise = getattr(reference, fallback)(bundle.coordinates, open_rows)
        fill("noise", np.flatnonzero(open_rows), noise)
    spelled = baselines.subtokens(inputs)
    # A token in the overlap that the method does not know is better copied than guessed, whatever the kind.
    rest = bundle.overlap.choose()
    missing = open_rows[rest.target_ids]
    fill("copied", rest.target_ids[missing], bundle.coordinates[rest.source_ids[missing]])
    ids = np.flatnonzero(open_rows & spelled.known)
    fill("subtokens", ids, spelled.coordinates[ids])
    scripts = np.array([script(token) for token in tokens])
    for name in sorted(set(scripts[open_rows]) - {""}):
        same = ~open_rows & (scripts == name)
        if same.any():
            fill("script", np.flatnonzero(open_rows & (scripts == name)), coordinates[same].mean(0))
    fill("mean", np.flatnonzero(open_rows), bundle.coordinates.mean(0))

    pairs = [np.concatenate(ids) for ids in zip(_ids(overlap), _ids(rest, missing), strict=True)]
    copies = sp.csr_matrix((np.ones(len(pairs[0])), tuple(pairs)), shape=(size, num_source))
    mixture = _rows_where(origins == ORIGINS.index("copied"), copies)
    mixture += _rows_where(origins == ORIGINS.index("subtokens"), spelled.mixture)
    if rows.mixture is not None:
        mixture += _rows_where(origins == ORIGINS.index("predicted"), rows.mixture)
    return Initialisation(coordinates, origins, mixture.tocsr())


def _ids(overlap: Overlap, chosen: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    return overlap.target_ids[chosen], overlap.source_ids[chosen]


def _rows_where(keep: np.ndarray, matrix: sp.csr_matrix) -> sp.csr_matrix:
    return sp.diags(keep.astype(np.float32)) @ matrix


def script(token: Token | None) -> str:
    """The script of a token's first letter, as Unicode names it (LATIN, CYRILLIC, …); empty without a letter."""
    text = "" if token is None or token.special else token.text.decode(errors="ignore")
    letter = next((character for character in text if character.isalpha()), None)
    return "" if letter is None else unicodedata.name(letter, "").split(" ")[0]
