from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import hyperofa
from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.usage import token_usage
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.vectors.spelling import WORD_START

VOCABULARY = ["▁die", "▁Die", "▁Haus", "s", "▁the", "▁house", "▁", "?"]


class Words:
    """Two languages, and pieces of words."""

    words = np.array(["the", "house", "die", "Haus", "s", "unsaid"])
    languages = ("deu", "eng")
    language_ids = np.array([1, 1, 0, 0, 0, 0])
    ranks = np.array([0, 1, 0, 1, 3, 10**6])
    boundaries = np.array([WORD_START, WORD_START, WORD_START, WORD_START, 0, WORD_START])


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({token: number for number, token in enumerate(VOCABULARY)}, unk_token="?"))
    return spaced(words)


def spaced(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_words_count_as_they_stand_in_text():
    """Each language alike; of a word that can be capitalised a tenth is; pieces have no space before them."""
    german, english = 1 + 1 / 2 + 1 / 4, 1 + 1 / 2
    shares = np.array([0.9 / german, 0.1 / german, 0.5 / german, 0.25 / german, 0.9 / english, 0.45 / english, 0, 0])
    shares[7] = (0.1 + 0.05) / english  # the capitalised English words are unknown
    expected = np.log(shares / 2 * len(VOCABULARY) + 0.01)
    found = token_usage(tokenizer(), Words, len(VOCABULARY))
    np.testing.assert_allclose(found.log_frequencies, expected, rtol=1e-5)


def test_tokens_are_of_the_languages_that_use_them():
    """By how often they occur per word of each, `hat` in a third of the German and two thirds of the English words."""

    class Both(Words):
        words = np.array(["hat", "so", "hat", "so", "the"])
        language_ids = np.array([0, 0, 1, 1, 1])
        ranks = np.array([1, 0, 1, 3, 0])
        boundaries = np.full(5, WORD_START)

    german, english = 0.5 / 1.5, 0.5 / 1.75
    known = Tokenizer(models.WordLevel({"▁hat": 0, "▁the": 1, "?": 2, "unused": 3}, unk_token="?"))
    found = token_usage(spaced(known), Both, 4)
    assert found.languages.shape == (4, 2)
    np.testing.assert_array_equal(found.languages[[0, 1]], [[0, 1], [1, 0]])
    np.testing.assert_allclose(found.shares[0], np.array([german, english]) / (german + english), rtol=1e-6)
    np.testing.assert_allclose(found.shares[[1, 3]], [[1, 0], [0, 0]])  # no language is known to use the last


def test_tokens_are_parts_of_words():
    """`Haus` begins all of its words, is all of half of them, and ends these; `s` ends what it does not begin."""

    class Pieces(Words):
        words = np.array(["Haus", "Hauss", "the", "s"])
        language_ids = np.array([0, 0, 1, 0])
        ranks = np.array([1, 1, 0, 1])
        boundaries = np.array([WORD_START, WORD_START, WORD_START, 0])

    vocabulary = {"?": 0, "▁Haus": 1, "s": 2, "▁the": 3, "▁The": 4, "unused": 5}
    pieces = Tokenizer(models.Unigram([(piece, -1.0) for piece in vocabulary], unk_id=0))
    forms = token_usage(spaced(pieces), Pieces, len(vocabulary)).forms
    np.testing.assert_allclose(forms[1], [1, 0.5, 0.5, 1])
    np.testing.assert_allclose(forms[2], [0.5, 1, 0.5, 0])
    np.testing.assert_allclose(forms[[3, 4]], [[1, 1, 1, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(forms[[0, 5]], np.tile(forms[1:5].mean(0), (2, 1)))


def test_text_is_of_the_languages_that_the_vocabularies_are_for(bundles):
    """What is not translated into trains no row for a language."""
    bundle = Bundle.load(bundles["bert"])
    german = bundle.words.languages.index("deu")
    for named, found in ((None, True), (["deu"], True), (["eng"], False)):
        usage = replace(bundle, meta=replace(bundle.meta, target_languages=named)).usage("target")
        assert (usage.languages[usage.shares > 0] == german).any() == found


def test_no_words_make_all_tokens_alike():
    class Nothing(Words):
        words, language_ids, ranks, boundaries = (np.array([], part.dtype) for part in (
            Words.words, Words.language_ids, Words.ranks, Words.boundaries
        ))  # fmt: skip

    found = token_usage(tokenizer(), Nothing, 3)
    assert found.log_frequencies.dtype == found.shares.dtype == np.float32
    assert found.log_frequencies == pytest.approx(np.log(0.01))
    assert not found.shares.any()
    assert not found.forms.any()


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """Sizes of the vocabularies whose usage was counted."""
    sizes = []
    monkeypatch.setattr(
        "hyperofa.bundle.bundle.token_usage", lambda *given: sizes.append(given[2]) or token_usage(*given)
    )
    return sizes


def test_an_export_counts_usage_once_a_side(bundles, fitted, counted):
    """It predicts target tokens, and held-out ones of both sides to know how far its rows can be trusted."""
    bundle = Bundle.load(bundles["bert"])
    hypernetwork = Hypernetwork.load(fitted["fit"] / "checkpoints" / "best.ckpt", bundle)
    hyperofa.initialise(bundle, "hyperofa", hypernetwork=hypernetwork)
    assert sorted(counted) == sorted([bundle.meta.source_tokens, bundle.meta.target_tokens])


def test_a_process_counts_usage_once_a_side(bundles, text_file, counted):
    """Training, validation and export of one bundle that is open."""
    bundle = Bundle.load(bundles["bert"])
    assert Bundle.load(bundle) is bundle
    few = {"max_epochs": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    hypernetwork = hyperofa.fit(bundle, text_file, trainer=few, steps=1)
    hypernetwork.validate(bundle, text_file)
    hyperofa.initialise(bundle, "hyperofa", hypernetwork=hypernetwork)
    assert sorted(counted) == sorted([bundle.meta.source_tokens, bundle.meta.target_tokens])
