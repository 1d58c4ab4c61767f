"""Covered source tokens to train on, to choose a checkpoint with, and to test on."""

from collections.abc import Sequence

import numpy as np

from hyperofa.bundle.bundle import SplitName
from hyperofa.errors import InputError
from hyperofa.tokens.canonical import Token, fold_case


def split_tokens(
    tokens: Sequence[Token | None], covered: np.ndarray, validation_share: float, test_share: float, seed: int
) -> dict[SplitName, np.ndarray]:
    """Split the covered tokens so that all case and word-start variants of a string fall on one side.

    Args:
        tokens: canonical source tokens by id.
        covered: `(S,)` bool, tokens with words.
        validation_share: part of the strings for `val`.
        test_share: part of the strings for `test`.
        seed: of the shuffle.

    Returns:
        Token ids, ascending; `val` and `test` have at least one token each.

    Raises:
        InputError: too few strings are covered, or the shares leave none to train on.
    """
    groups: dict[bytes, list[int]] = {}
    for token_id in np.flatnonzero(covered).tolist():
        token = tokens[token_id] if token_id < len(tokens) else None
        if token is not None:
            groups.setdefault(fold_case(token), []).append(token_id)
    if len(groups) < 3:
        raise InputError(
            f"expected words for at least 3 source tokens to train, validate and test on, found {len(groups)}"
        )
    keys = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(keys))
    num_val, num_test = (max(1, round(share * len(keys))) for share in (validation_share, test_share))
    if num_val + num_test >= len(keys):
        raise InputError(
            f"--validation_share {validation_share} and --test_share {test_share} leave none of {len(keys)} strings to "
            "train on; give smaller ones"
        )

    def tokens_of(cut: np.ndarray) -> np.ndarray:
        return np.array(sorted(token_id for key in cut for token_id in groups[keys[key]]), np.int64)

    return {
        "train": tokens_of(order[num_val + num_test :]),
        "val": tokens_of(order[:num_val]),
        "test": tokens_of(order[num_val : num_val + num_test]),
    }
