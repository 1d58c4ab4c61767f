import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperofa.methods.relatives import pieces_of_tokens, tokens_with
from hyperofa.tokens.canonical import Token


def tokens_of(*texts):
    return [Token(text.removeprefix("_").encode(), text.startswith("_")) for text in texts]


def found(matrix, texts):
    """Texts and weights of the first row; the others are empty."""
    assert not matrix[1:].nnz
    return {
        texts[column]: pytest.approx(weight) for column, weight in zip(matrix[0].indices, matrix[0].data, strict=True)
    }


def related(find, *texts, usable=None):
    flags = np.array([False, *[True] * (len(texts) - 1)]) if usable is None else np.array(usable)
    return found(find(tokens_of(*texts), np.array([0]), flags), texts)


def test_a_token_is_spelled_by_the_fewest_pieces():
    assert related(pieces_of_tokens, "_unkindly", "_un", "kind", "ly", "kindly", "_u", "n") == {
        "_un": 0.25,
        "kindly": 0.75,
    }
    assert related(pieces_of_tokens, "_ab", "ab", "_a", "b") == {"ab": 1}  # but for its mark it is the same
    assert related(pieces_of_tokens, "_Ab", "_a", "a", "b", "_b") == {"_a": 0.5, "b": 0.5}


def test_of_a_token_that_is_hardly_spelled_nothing_is_said():
    assert related(pieces_of_tokens, "abcd", "ab") == {"ab": 1}
    assert related(pieces_of_tokens, "abcde", "ab") == {}
    assert related(pieces_of_tokens, "ab", "a", "b", usable=[False, False, False]) == {}


def test_tokens_that_contain_it_count_by_the_part_that_it_is():
    texts = ("陣", "陣營", "一陣風雨", "營")
    weights = {"陣營": 1 / 4, "一陣風雨": 1 / 16}
    assert related(tokens_with, *texts) == {text: weight / sum(weights.values()) for text, weight in weights.items()}
    assert related(tokens_with, "營", "陣") == {}


@pytest.mark.parametrize("find", [pieces_of_tokens, tokens_with])
@pytest.mark.parametrize(
    "odd", [None, Token(b"<s>", False, ("bos",), True), Token(b"\xe9\x99", False), Token(b"", True)]
)
def test_what_spells_nothing_has_no_relatives(find, odd):
    tokens = [odd, Token(b"<s>", False), Token(b"<s>a", False)]
    assert find(tokens, np.array([0]), np.array([False, True, True])).nnz == 0
    assert find([Token(b"<s>", False), odd], np.array([0]), np.array([False, True])).nnz == 0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="ab_c", min_size=1, max_size=5), min_size=2, max_size=12, unique=True))
def test_containing_is_what_it_says(texts):
    tokens = tokens_of(*texts)
    usable = np.arange(len(tokens)) % 2 == 1
    matrix = tokens_with(tokens, np.arange(len(tokens)), usable)
    for one, token in enumerate(tokens):
        holds = [
            i for i, other in enumerate(tokens) if usable[i] and i != one and token.text and token.text in other.text
        ]
        assert sorted(matrix[one].indices) == holds
        assert not holds or matrix[one].sum() == pytest.approx(1)
