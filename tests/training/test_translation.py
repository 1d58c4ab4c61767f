import numpy as np
import pytest

from hyperofa.errors import InputError
from hyperofa.training import translation
from hyperofa.training.translation import Translator, _balance, join_words, split_text
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.store import WordVectors
from tests.conftest import write_vectors

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
    return build_store([str(write_vectors(folder / "words.vec", rows))], folder / "store")


@pytest.mark.parametrize(("language", "letter"), [("deu", "d"), ("tur", "t")])
def test_planted_translations_are_found(words, language, letter):
    texts = [" ".join(f"e{number}" for number in range(COUNT))]
    translator = Translator(words, ["eng"], texts, progress=False)
    assert translator.languages == ["deu", "tur"]
    translated = translator.translate(texts[0], language, np.random.default_rng(0)).split()
    right = sum(word == f"{letter}{number}" for number, word in enumerate(translated))
    assert right > 0.9 * COUNT


@pytest.mark.parametrize(("into", "found"), [(["tur"], ["tur"]), (["tur", "eng"], ["tur"]), (["eng"], [])])
def test_only_languages_that_are_asked_for_are_translated_into(words, into, found):
    translator = Translator(words, ["eng"], ["e1 e2"], progress=False, into=into)
    assert translator.languages == found
    if found:
        assert translator.ids == {"tur": words.languages.index("tur")}
        assert {translator.draw_language("e1 e2", np.random.default_rng(0)) for _ in range(20)} == {"tur"}


@pytest.mark.parametrize(
    ("given", "flag"), [({"into": ["fra"]}, "translated_languages"), ({"source_languages": ["fra"]}, "text_languages")]
)
def test_languages_that_the_vectors_lack_are_told(words, given, flag):
    with pytest.raises(InputError, match=rf"^{flag}: language 'fra' is not among the word vectors; expected some"):
        Translator(**{"words": words, "source_languages": ["eng"], "texts": ["e1 e2"], **given})


def test_punctuation_capitals_and_unknown_words_stay(words):
    text = '"E3, unknown (e4) E5!"'
    translator = Translator(words, ["eng"], [text], progress=False)
    assert translator.translate(text, "deu", np.random.default_rng(1)) == '"D3, unknown (d4) D5!"'


@pytest.mark.parametrize(("words", "text"), [
    (["the", "old", "town"], "the old town"),
    (["神", "爱,", "世人."], "神爱,世人."),
    (["“亚伯", "John", "的", "son", "of"], "“亚伯John的son of"),
    (["ใน", "the", "“end”"], "ในthe “end”"),
    (["집에", "간다."], "집에 간다."),
    (["(天)", "“地”"], "(天)“地”"),
    (["...", "the", "!", "end"], "... the ! end"),
    ([], ""),
])  # fmt: skip
def test_words_are_joined_as_their_scripts_do(words, text):
    assert join_words(words) == text


def test_words_are_joined_in_one_pass(monkeypatch):
    """A long text without letters was gone back over for each of its words."""
    looked_at = []
    monkeypatch.setattr(translation, "is_outer", lambda character: looked_at.append(character) or True)
    assert join_words(["\0"] * 500) == " ".join("\0" * 500)
    assert len(looked_at) == 500


def test_equal_seeds_translate_equally(words):
    text = " ".join(f"e{number}" for number in range(COUNT))
    first, second = (Translator(words, ["eng"], [text], progress=False) for _ in range(2))
    for seed in range(3):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        assert first.translate(text, "tur", rngs[0]) == second.translate(text, "tur", rngs[1])


def test_text_without_known_words_has_no_languages(words):
    translator = Translator(words, ["eng"], ["nothing of this"], progress=False)
    assert translator.languages == []


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
    words = build_store([str(write_vectors(tmp_path / "words.vec", rows))], tmp_path / "store")
    translator = Translator(words, ["eng"], [f"e{number}" for number in range(80)], progress=False)
    rng = np.random.default_rng(0)
    right = [
        translator.translate(f"e{number}", "deu", rng) == f"d{number}" for number in range(60, 80) for _ in range(9)
    ]
    assert np.mean(right) > 0.9


GENRES = [" ".join(f"e{number}" for number in range(start, start + 5)) for start in range(0, 80, 5)]


@pytest.fixture(scope="module")
def genres(tmp_path_factory) -> Translator:
    """English and German have words of two kinds, Italian those below 60 and Bengali the others, a dense cluster."""
    folder = tmp_path_factory.mktemp("genres")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((80, 32))
    vectors[60:] = rng.standard_normal(32) + 0.2 * vectors[60:]
    known = {"eng": range(80), "deu": range(80), "ita": range(60), "ben": range(60, 80)}
    rows = {
        f"{language}:{language[0]}{number}": vectors[number] + 0.02 * rng.standard_normal(32)
        for language, numbers in known.items()
        for number in numbers
    }
    words = build_store([str(write_vectors(folder / "words.vec", rows))], folder / "store")
    return Translator(words, ["eng"], GENRES, progress=False)


def test_texts_go_to_languages_that_have_their_words(genres):
    rng = np.random.default_rng(0)
    first, second = (
        [genres.draw_language(text, rng) for text in texts for _ in range(200)] for texts in (GENRES[:12], GENRES[12:])
    )
    assert first.count("ben") < len(first) / 20
    assert second.count("ita") < len(second) / 20
    assert {"deu", "ita"} <= set(first)


def test_languages_that_translate_less_are_drawn_as_often():
    chances = np.random.default_rng(0).uniform(0.1, 1, (50, 3)) * [1, 0.01, 10]
    drawn = chances * _balance(chances)
    np.testing.assert_allclose((drawn / drawn.sum(1, keepdims=True)).mean(0), 1 / 3, atol=1e-3)


@pytest.mark.parametrize("drawing", ["even", "fitting"])
def test_text_of_unknown_words_goes_to_any_language(words, drawing):
    translator = Translator(words, ["eng"], ["e1 e2"], progress=False, drawing=drawing)
    rng = np.random.default_rng(0)
    assert {translator.draw_language("nothing of this", rng) for _ in range(100)} == {"deu", "tur"}


def test_text_is_cut_at_spaces_and_dashes():
    assert split_text("«So--he said…") == [("«", "So", ""), ("", "he", ""), ("", "said", "…")]
    assert split_text("mother-in-law don't 42") == [("", "mother-in-law", ""), ("", "don't", ""), ("", "42", "")]
    assert split_text("... ") == [("...", "", "")]
