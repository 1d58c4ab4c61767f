"""Target tokens spelled like another, its pieces and those that contain it, for rows that nothing else tells of."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from hyperofa.tokens.canonical import Token, text_of
from hyperofa.tokens.segmentation import cheapest_cut

_LONGEST = 24  # characters of a piece
_UNSPELLED = 8.0  # pieces that a character costs which no usable token spells
_HALF = 0.5  # of a token's characters, that its pieces must spell


def pieces_of_tokens(tokens: Sequence[Token | None], wanted: np.ndarray, usable: np.ndarray) -> sp.csr_matrix:
    """The fewest other tokens that spell a token, weighted by their length.

    A piece that starts a word stands first alone; of tokens spelled alike the one with the right mark is taken, or else
    the other. Tokens of which less than half is spelled have none.

    Args:
        tokens: T canonical tokens by id.
        wanted: `(n,)` ids of those to spell.
        usable: `(T,)` bool, tokens that may be pieces.

    Returns:
        `(T, T)` sparse; rows of wanted tokens sum to 1 or are empty, all others are empty.
    """
    table = _table(tokens, usable)
    rows: list[tuple[int, int, float]] = []
    for token_id in wanted.tolist():
        token, text = tokens[token_id], _text(tokens[token_id])
        if token is None or not text:
            continue
        found = _fewest_pieces(text, token, token_id, table)
        spelled = sum(length for _, length in found)
        if spelled >= _HALF * len(text):
            rows += [(token_id, piece, length / spelled) for piece, length in found]
    return _matrix(rows, len(tokens))


def tokens_with(tokens: Sequence[Token | None], wanted: np.ndarray, usable: np.ndarray) -> sp.csr_matrix:
    """The tokens that contain a token, weighted by the square of the part of them that it is.

    Args:
        tokens: T canonical tokens by id.
        wanted: `(n,)` ids of those to find in others.
        usable: `(T,)` bool, tokens to look into.

    Returns:
        `(T, T)` sparse; rows of wanted tokens sum to 1 or are empty, all others are empty.
    """
    asked: dict[str, list[int]] = {}
    sizes: dict[str, set[int]] = {}  # lengths of what is asked for, by its first two characters
    for token_id in wanted.tolist():
        if text := _text(tokens[token_id]):
            asked.setdefault(text, []).append(token_id)
            sizes.setdefault(text[:2], set()).add(len(text))
    rows: list[tuple[int, int, float]] = []
    for other in np.flatnonzero(usable).tolist() if asked else ():
        text = _text(tokens[other])
        heads = ((i, head) for i in range(len(text)) for head in {text[i], text[i : i + 2]} if head in sizes)
        parts = {text[i : i + size] for i, head in heads for size in sizes[head]}
        for part in sorted(parts & asked.keys()):
            rows += [(token_id, other, (len(part) / len(text)) ** 2) for token_id in asked[part] if token_id != other]
    return _matrix(rows, len(tokens))


def _text(token: Token | None) -> str:
    """What a token spells in lower case; empty for special tokens and pieces of characters."""
    return (text_of(token) or "").lower()


def _table(tokens: Sequence[Token | None], usable: np.ndarray) -> dict[tuple[str, bool], int]:
    """The first usable token of each spelling and mark."""
    table: dict[tuple[str, bool], int] = {}
    for token_id in np.flatnonzero(usable).tolist():
        token, text = tokens[token_id], _text(tokens[token_id])
        if token is not None and text:
            table.setdefault((text, token.starts_word), token_id)
    return table


def _fewest_pieces(text: str, token: Token, own: int, table: dict[tuple[str, bool], int]) -> list[tuple[int, int]]:
    """The fewest pieces of a text, with their lengths; its own token is none of them."""

    def piece(start: int, end: int) -> int | None:
        marked = token.starts_word and start == 0
        found = (table.get((text[start:end], mark)) for mark in (marked, not marked))
        return next((token_id for token_id in found if token_id not in (None, own)), None)

    spans = cheapest_cut(text, lambda start, end: None if piece(start, end) is None else 1, _LONGEST, _UNSPELLED)
    return [(found, end - start) for start, end in spans if (found := piece(start, end)) is not None]


def _matrix(rows: list[tuple[int, int, float]], size: int) -> sp.csr_matrix:
    table = np.array(rows, np.float64).reshape(-1, 3)
    matrix = sp.csr_matrix((table[:, 2], (table[:, 0].astype(int), table[:, 1].astype(int))), shape=(size, size))
    totals = matrix.sum(1).A1
    return sp.diags(np.divide(1.0, totals, out=np.zeros(size), where=totals > 0)) @ matrix
