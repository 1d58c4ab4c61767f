"""Words by how they sound."""

import numpy as np
import pytest

from hyperofa.vectors.sounds import Sounds, alike_pairs, romanised

NAMES = ["jerusalem", "and", "egypt", "samuel", "water", "pharaoh", "abraham"]


def many(words, seed):
    """The words with 300 more, as n-grams are only rare or frequent where there are many."""
    rng = np.random.default_rng(seed)
    return words + ["".join(rng.choice(list("abdefgiklmnoprstuv"), 7)) for _ in range(300)]


@pytest.mark.parametrize(
    ("word", "language", "letters"),
    [
        ("예루살렘", "kor", "yerusalrem"),
        ("അബ്രാഹാം", "mal", "abraahaam"),
        ("Самуил", "rus", "samuil"),
        ("Ångström's", "swe", "aangstroems"),
        ("1984", "eng", ""),
    ],
)
def test_words_of_any_script_are_written_in_latin_letters(word, language, letters):
    assert romanised(word, language) == letters


@pytest.mark.parametrize(
    ("language", "words", "pairs"),
    [
        ("rus", ["и", "вода", "Самуил", "Иерусалим"], [[2, 3], [3, 0]]),
        ("kor", ["예루살렘", "물", "아브라함"], [[0, 0], [2, 6]]),
    ],
)
def test_names_are_alike_in_all_scripts(language, words, pairs):
    found = alike_pairs(Sounds.of(many(words, 0), language), Sounds.of(many(NAMES, 1), "eng"))
    assert found[(found < [len(words), len(NAMES)]).all(1)].tolist() == pairs
    assert len(found) < 30


def test_short_words_and_none_are_like_no_other():
    short = Sounds.of(["the", "of", "12345"], "eng")
    assert len(short.rows) == 0
    assert alike_pairs(short, Sounds.of(NAMES, "eng")).shape == (0, 2)
    assert alike_pairs(Sounds.of(NAMES, "eng"), short).shape == (0, 2)


def test_long_lists_are_compared_in_blocks(monkeypatch):
    monkeypatch.setattr("hyperofa.vectors.sounds.ROWS", 8)
    sounds = Sounds.of(NAMES, "eng")
    longer = [row for row, word in enumerate(NAMES) if len(word) > 3]
    assert alike_pairs(sounds, sounds).tolist() == [[row, row] for row in longer]
