"""A whole target vocabulary from a method's rows: copy the overlap, predict, fall back, never leave a row to chance.

Every method goes through the same steps and differs in the predicted rows alone. First `plan_rows` says what each row
will be, of the tokens alone; then `fill` computes the rows:

    copied      the token is in the source vocabulary
    predicted   the method knows it (it has words)
    containing  mean of the rows above of tokens that contain it, the shorter the weightier
    pieces      mean of the rows above of the fewest tokens that spell it
    subtokens   mean of the source tokens that spell it
    script      mean of the rows above in its script
    mean        mean of the source rows

The order is that of a measurement (`benchmarks/ladder.py`). In reference mode what is neither copied nor
predicted is `noise`, as in the published code.

A net is trained among the rows that its export will have: of the same plan, and with the same values but for the means
of predicted rows, see `fill_for_training`.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp

from hyperofa import reference
from hyperofa.bundle.bundle import Bundle, Pooling
from hyperofa.methods.alignment import align
from hyperofa.methods.baselines import TUNED_OFA, InitInputs, Predictions, ofa, spell
from hyperofa.methods.relatives import pieces_of_tokens, tokens_with
from hyperofa.tokens.canonical import OverlapKind, Token, bare_backend
from hyperofa.tokens.matching import Matches

Origin = Literal["copied", "predicted", "containing", "pieces", "subtokens", "script", "mean", "noise"]
Fallback = Literal["ladder", "noise", "noise_in_sequence"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
_OPEN = len(ORIGINS)
_OF_ITS_OWN: tuple[Origin, ...] = ("copied", "predicted", "subtokens")  # rows that others' means are made of


@dataclass(frozen=True, eq=False)
class Plan:
    """What each of T target rows will be, before any is computed.

    Attributes:
        origins: `(T,)` uint8, index into `ORIGINS`.
        mixture: `(T, S)` sparse, the weights of source rows that are known by now: one 1 where a row is `copied`, the
            pieces where it is of `subtokens`.
        relatives: `(T, T)` sparse, the weights of other target rows where a row is `containing` or `pieces`.
        scripts: `(T,)` str, the script of each token, see `script`.
        kinds: `(T,)` uint8, how a copied token is found in the source vocabulary, index into `OVERLAP_KINDS`.
        fallback: what becomes of the rows that nothing is known of.
    """

    origins: np.ndarray
    mixture: sp.csr_matrix
    relatives: sp.csr_matrix
    kinds: np.ndarray
    scripts: np.ndarray
    fallback: Fallback

    def of(self, *origins: Origin) -> np.ndarray:
        """`(T,)` bool, whether a target token is of one of some origins."""
        return np.isin(self.origins, [ORIGINS.index(origin) for origin in origins])

    def ids(self, *origins: Origin) -> np.ndarray:
        """`(N,)` int64 ascending, the target tokens of some origins."""
        return np.flatnonzero(self.of(*origins))


@dataclass(frozen=True, eq=False)
class Filled:
    """Coordinates for a whole target vocabulary, and where each row came from.

    Attributes:
        coordinates: `(T, K)` float32.
        plan: what was filled.
        mixture: `(T, S)` sparse, weights of source tokens where a row is a mixture of theirs.
    """

    coordinates: np.ndarray
    plan: Plan
    mixture: sp.csr_matrix

    @property
    def origins(self) -> np.ndarray:
        """`(T,)` uint8, index into `ORIGINS`."""
        return self.plan.origins

    def counts(self) -> dict[str, int]:
        """Rows of each origin."""
        return {origin: int((self.origins == number).sum()) for number, origin in enumerate(ORIGINS)}

    def bias(self, source: np.ndarray) -> np.ndarray:
        """`(T,)` float32 biases of the head: a copied token's own, the mean for others.

        Args:
            source: `(S,)` those of the source model.
        """
        found = np.full(len(self.origins), source.mean(), np.float32)
        copies = self.plan.ids("copied")
        found[copies] = source[self.mixture[copies].indices]
        return found


def target_inputs(
    bundle: Bundle, pooling: Pooling = "weighted", parallel: Sequence[tuple[str, str]] | None = None
) -> InitInputs:
    """What a method is given to initialise all target tokens of a bundle.

    Args:
        bundle: the inputs.
        pooling: how words become one vector, see `Bundle.pooled`; OFA as published uses `duplicates`.
        parallel: source sentences and their translations, if there are any.
    """
    keys, queries = (bundle.pooled(side, pooling) for side in ("source", "target"))
    usable, covered = (_covered(bundle.matches(side), pooling) for side in ("source", "target"))
    source_tokens, tokens, overlap = bundle.tokens("source"), bundle.tokens("target"), bundle.overlap
    unknown = next((i for i, token in enumerate(source_tokens) if token is not None and "unk" in token.roles), None)
    spelled = spell(tokens, bare_backend(bundle.tokenizer("source")), unknown, bundle.meta.source_tokens)
    shared = overlap.choose(("role", "exact"))
    anchors = sp.csr_matrix((np.ones(len(shared)), (shared.target_ids, shared.source_ids)), shape=spelled.shape)
    aligned = None if parallel is None else align(bundle, parallel)
    return InitInputs(
        bundle.coordinates, keys, usable, queries, covered, spelled, anchors, aligned,
        tokens, overlap, bundle.expands,
    )  # fmt: skip


def _covered(matches: Matches, pooling: Pooling) -> np.ndarray:
    """`(tokens,)` bool, tokens that a pooling makes something of: the published one knows no words within a token."""
    if pooling == "weighted" or matches.cover is None:
        return matches.covered
    return np.bincount(matches.tokens, matches.variants, len(matches.counts)) > 0


def plan_rows(
    inputs: InitInputs, known: np.ndarray, copied: Sequence[OverlapKind], fallback: Fallback = "ladder"
) -> Plan:
    """Decide what each target row will be: copied, predicted, or which fall-back.

    Args:
        inputs: of `target_inputs`.
        known: `(T,)` bool, tokens that the method has an answer for; of a net those that have words, `inputs.covered`.
        copied: kinds of overlap that are copied; tokens of other kinds are predicted if they can be. The old tokens of
            an expanded vocabulary are copied in any case.
        fallback: for the rows that the method leaves open: what we know of the token, or the noise of the reference.

    Returns:
        The plan; it depends on no row but, in reference mode, on which source rows are zero.

    Raises:
        ValueError: the inputs are of no vocabulary.
    """
    if inputs.overlap is None:
        raise ValueError("expected the inputs of a target vocabulary, found those of other tokens")
    overlap = inputs.overlap.choose((*copied, "exact") if inputs.expands else copied)
    rest = inputs.overlap.choose()
    tokens, spelled = inputs.tokens, inputs.spelled
    origins = np.full(len(known), _OPEN, np.uint8)
    copies = np.zeros(len(known), np.int64)  # the source row of each copied one
    kinds = np.zeros(len(known), np.uint8)

    def settle(origin: Origin, ids: np.ndarray) -> np.ndarray:
        """Give an origin to those of the ids that have none; which these are."""
        is_open = origins[ids] == _OPEN
        origins[ids[is_open]] = ORIGINS.index(origin)
        return is_open

    settle("copied", overlap.target_ids)
    copies[overlap.target_ids], kinds[overlap.target_ids] = overlap.source_ids, overlap.kinds
    settle("predicted", np.flatnonzero(known))
    if fallback != "ladder":
        zero = ~inputs.coordinates[overlap.source_ids].any(1)
        origins[overlap.target_ids[zero]] = _OPEN  # to the published code zero rows are open ones
        settle("noise", np.arange(len(known)))
    # A token in the overlap that the method does not know is better copied than guessed, whatever the kind.
    late = settle("copied", rest.target_ids)
    copies[rest.target_ids[late]], kinds[rest.target_ids[late]] = rest.source_ids[late], rest.kinds[late]
    usable = origins != _OPEN
    containing = tokens_with(tokens, np.flatnonzero(origins == _OPEN), usable)
    settle("containing", np.flatnonzero(np.diff(containing.indptr)))
    pieces = pieces_of_tokens(tokens, np.flatnonzero(origins == _OPEN), usable)
    settle("pieces", np.flatnonzero(np.diff(pieces.indptr)))
    settle("subtokens", np.flatnonzero(np.diff(spelled.indptr)))
    scripts = np.array([script(token) for token in tokens])
    of_its_own = np.isin(origins, [ORIGINS.index(name) for name in _OF_ITS_OWN])
    settle("script", np.flatnonzero(np.isin(scripts, sorted(set(scripts[of_its_own]) - {""}))))
    settle("mean", np.arange(len(known)))

    ids = np.flatnonzero(origins == ORIGINS.index("copied"))
    mixture = sp.csr_matrix((np.ones(len(ids)), (ids, copies[ids])), shape=spelled.shape)
    mixture += _rows_where(origins == ORIGINS.index("subtokens"), spelled)
    return Plan(origins, mixture.tocsr(), (containing + pieces).tocsr(), kinds, scripts, fallback)


def fill(plan: Plan, source: np.ndarray, rows: Predictions) -> Filled:
    """Compute every row that a plan names.

    Args:
        plan: what each of T rows will be.
        source: `(S, K)` coordinates of the source rows.
        rows: of the tokens that are predicted; those of other tokens are not looked at.

    Raises:
        ValueError: a row that is to be predicted is not known.
    """
    predicted = plan.ids("predicted")
    if not rows.known[predicted].all():
        raise ValueError(f"expected rows for {len(predicted)} tokens, found {int(rows.known[predicted].sum())}")
    coordinates = np.zeros((len(plan.origins), source.shape[1]), np.float32)
    coordinates[predicted] = rows.coordinates[predicted]
    copied, spelled = plan.ids("copied"), plan.ids("subtokens")
    coordinates[copied] = source[plan.mixture[copied].indices]
    coordinates[spelled] = (plan.mixture[spelled] @ source).astype(np.float32)
    related = plan.ids("containing", "pieces")
    coordinates[related] = (plan.relatives[related] @ coordinates).astype(np.float32)
    settled, open_ids = plan.ids(*_OF_ITS_OWN), plan.ids("script")
    for name in sorted(set(plan.scripts[open_ids])):
        like = settled[plan.scripts[settled] == name]
        coordinates[open_ids[plan.scripts[open_ids] == name]] = coordinates[like].mean(0)
    coordinates[plan.ids("mean")] = source.mean(0)
    if plan.fallback != "ladder":
        open_ids = plan.ids("noise")
        is_open = np.zeros(len(plan.origins), bool)
        is_open[open_ids] = True
        coordinates[open_ids] = getattr(reference, plan.fallback)(source, is_open)
    mixture = plan.mixture
    if rows.mixture is not None:
        mixture = mixture + _rows_where(plan.origins == ORIGINS.index("predicted"), rows.mixture)
    return Filled(coordinates, plan, mixture.tocsr())


def plan_and_fill(
    inputs: InitInputs, rows: Predictions, copied: Sequence[OverlapKind], fallback: Fallback = "ladder"
) -> Filled:
    """The target vocabulary of a method that has said all it knows.

    Args:
        inputs: what the method was given.
        rows: what it says of all T target tokens.
        copied: as for `plan_rows`.
        fallback: as for `plan_rows`; in reference mode a zero row is one that the method does not know.
    """
    if fallback != "ladder":
        rows = replace(rows, known=rows.known & rows.coordinates.any(1))
    return fill(plan_rows(inputs, rows.known, copied, fallback), inputs.coordinates, rows)


def fill_for_training(inputs: InitInputs, copied: Sequence[OverlapKind], fallback: Fallback = "ladder") -> Filled:
    """The target vocabulary that a net is trained in, its own rows among it still open.

    The plan is that of the export. So are the rows, but for means of predicted ones (`containing`, `pieces`, `script`):
    the net's rows are not there yet, and those of tuned OFA stand in for them, as an untrained `SourceAttention` begins
    as such a mixture. The net's own would take a prediction of the whole vocabulary, anew whenever it has learned.

    Args:
        inputs: of `target_inputs`.
        copied: kinds of overlap that the net does not predict.
        fallback: as for `plan_rows`.

    Returns:
        The rows; those of origin `predicted` are the net's to say.
    """
    return fill(plan_rows(inputs, inputs.covered, copied, fallback), inputs.coordinates, ofa(inputs, TUNED_OFA))


def _rows_where(keep: np.ndarray, matrix: sp.csr_matrix) -> sp.csr_matrix:
    return sp.diags(keep.astype(np.float32)) @ matrix


def script(token: Token | None) -> str:
    """The script of a token's first letter, as Unicode names it (LATIN, CYRILLIC, …); empty without a letter."""
    text = "" if token is None or token.special else token.text.decode(errors="ignore")
    letter = next((character for character in text if character.isalpha()), None)
    return "" if letter is None else unicodedata.name(letter, "").split(" ")[0]
