import numpy as np
import pytest
from conftest import write_vectors

from hyperofa.translation import Translator, split_text
from hyperofa.vectors import WordVectors, convert_vectors

COUNT = 40


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> WordVectors:
    """English and two languages whose word `xN` has nearly the vector of English `eN`."""
    folder = tmp_path_factory.mktemp("aligned")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((COUNT, 16))
    rows = {}
    for language, letter in (("eng", "e"), ("deu", "d"), ("tur", "t")):
        noise = 0.05 * rng.standard_normal((COUNT, 16))
        rows |= {f"{language}:{letter}{number}": row for number, row in enumerate(vectors + noise)}
    return convert_vectors([str(write_vectors(folder / "words.vec", rows))], folder / "store")


@pytest.mark.parametrize(("language", "letter"), [("deu", "d"), ("tur", "t")])
def test_planted_translations_are_found(words, language, letter):
    texts = [" ".join(f"e{number}" for number in range(COUNT))]
    translator = Translator(words, ["eng"], texts, progress=False)
    assert translator.coverage == COUNT
    assert translator.languages == ["deu", "tur"]
    translated = translator.translate(texts[0], language, np.random.default_rng(0)).split()
    right = sum(word == f"{letter}{number}" for number, word in enumerate(translated))
    assert right > 0.9 * COUNT


def test_punctuation_capitals_and_unknown_words_stay(words):
    text = '"E3, unknown (e4) E5!"'
    translator = Translator(words, ["eng"], [text], progress=False)
    assert translator.coverage == 3
    assert translator.translate(text, "deu", np.random.default_rng(1)) == '"D3, unknown (d4) D5!"'


def test_equal_seeds_translate_equally(words):
    text = " ".join(f"e{number}" for number in range(COUNT))
    first, second = (Translator(words, ["eng"], [text], progress=False) for _ in range(2))
    for seed in range(3):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        assert first.translate(text, "tur", rngs[0]) == second.translate(text, "tur", rngs[1])


def test_text_without_known_words_has_no_languages(words):
    translator = Translator(words, ["eng"], ["nothing of this"], progress=False)
    assert translator.languages == []
    assert translator.coverage == 0


def test_words_of_a_dense_cluster_are_told_apart(tmp_path):
    """A genre that few languages have: its words are nearer to each other than others are to their translations."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((80, 32))
    vectors[60:] = rng.standard_normal(32) + 0.2 * vectors[60:]
    rows = {
        f"{language}:{letter}{number}": row + 0.02 * rng.standard_normal(32)
        for language, letter in (("eng", "e"), ("deu", "d"))
        for number, row in enumerate(vectors)
    }
    words = convert_vectors([str(write_vectors(tmp_path / "words.vec", rows))], tmp_path / "store")
    translator = Translator(words, ["eng"], [f"e{number}" for number in range(80)], progress=False)
    rng = np.random.default_rng(0)
    right = [
        translator.translate(f"e{number}", "deu", rng) == f"d{number}" for number in range(60, 80) for _ in range(9)
    ]
    assert np.mean(right) > 0.9


def test_text_is_cut_at_spaces_and_dashes():
    assert split_text("«So--he said…") == [("«", "So", ""), ("", "he", ""), ("", "said", "…")]
    assert split_text("mother-in-law don't 42") == [("", "mother-in-law", ""), ("", "don't", ""), ("", "42", "")]
    assert split_text("... ") == [("...", "", "")]
