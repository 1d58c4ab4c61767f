from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperofa.tokens.segmentation import cheapest_cut

UNKNOWN, LONGEST = 5.0, 3


@given(st.text("ab", max_size=7), st.dictionaries(st.text("ab", min_size=1, max_size=4), st.integers(0, 9)))
def test_no_cut_is_cheaper(text, prices):
    spans = cheapest_cut(text, lambda start, end: prices.get(text[start:end]), LONGEST, UNKNOWN)

    def cost(pieces):
        return sum(min(prices.get(piece, 99), 99 if len(piece) > 1 else UNKNOWN) for piece in pieces)

    every = (
        [text[start:end] for start, end in zip((0, *cuts), (*cuts, len(text)), strict=True)]
        for number in range(len(text))
        for cuts in combinations(range(1, len(text)), number)
    )
    short = (pieces for pieces in every if max(map(len, pieces)) <= LONGEST)
    covered = sum(end - start for start, end in spans)
    total = sum(prices[text[start:end]] for start, end in spans) + UNKNOWN * (len(text) - covered)
    assert total == pytest.approx(min(map(cost, short), default=0))
    assert all(before <= after for (_, before), (after, _) in pairwise(spans))
