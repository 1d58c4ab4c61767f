"""Which languages a new vocabulary is for."""

from dataclasses import replace

import pytest

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.fertility import Fertility, languages_served, measure_words

SHORTER = Fertility((2.0, 1.2), (0.0, 0.0))
AS_LONG = Fertility((1.2, 1.2), (0.0, 0.0))
WITHOUT_TOKENS = Fertility((2.0, 1.0), (0.0, 0.2))
WRITTEN_AT_LAST = Fertility((1.0, 1.3), (0.9, 0.0))  # one unknown token a word, before


def test_frequent_words_weigh_more(bundles):
    bundle = Bundle.load(bundles["bert"])
    backend = bundle.tokenizer("source").backend_tokenizer
    lengths = [len(backend.encode(word, add_special_tokens=False).ids) for word in ("the", "grandmother's")]
    fertility, unknown = measure_words(backend, ["the", "grandmother's"], None)
    assert fertility == pytest.approx((lengths[0] + lengths[1] / 2) / 1.5)
    assert unknown == 0
    unk = bundle.tokenizer("source").unk_token_id
    assert measure_words(backend, ["the", "中"], unk)[1] == pytest.approx(1 / 3)


def test_a_vocabulary_is_for_languages_that_it_cuts_better():
    fertility = {
        "swh": SHORTER,
        "fra": AS_LONG,
        "rus": WITHOUT_TOKENS,
        "mal": WRITTEN_AT_LAST,
        "": SHORTER,
        "eng": SHORTER,
    }
    assert languages_served(fertility, ["eng"]) == ["mal", "swh"]
    assert languages_served({"fra": AS_LONG, "rus": WITHOUT_TOKENS, "eng": SHORTER}, ["eng"]) == ["fra", "rus"]
    assert languages_served({"eng": SHORTER}, ["eng"]) == []


def test_languages_that_are_named_count(bundles):
    bundle = Bundle.load(bundles["bert"])
    assert set(bundle.fertility) == {"deu", "eng"}
    assert bundle.new_languages == ["deu"]
    for named, found in ((["eng"], []), (["eng", "deu"], ["deu"])):
        assert replace(bundle, meta=replace(bundle.meta, target_languages=named)).new_languages == found


@pytest.mark.parametrize("side", [0, 1])
def test_both_tokenizers_are_measured(bundles, side):
    bundle = Bundle.load(bundles["bert"])
    tokenizer = bundle.tokenizer(("source", "target")[side])
    german = bundle.words.words[bundle.words.select(["deu"])]
    found = measure_words(tokenizer.backend_tokenizer, german, tokenizer.unk_token_id)
    assert (bundle.fertility["deu"].tokens[side], bundle.fertility["deu"].unknown[side]) == found
