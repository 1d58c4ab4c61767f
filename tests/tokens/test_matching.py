import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from hyperofa.tokens.canonical import bare_backend, load_tokenizer
from hyperofa.tokens.matching import Matches, match_words
from hyperofa.tokens.spellings import Twins, surface_variants

WORDS = ["the", "river", "churches", "fließt", "", "the", "7"]
ODD = [
    "<s>",
    "x<s>y",
    "[mask]",
    "[CLS",
    " x",
    "▁the",
    "the▁",
    "İstanbul",
    "ΟΔΟΣ",
    "\u0301a",
    "\u200da",
    "dž",
    "ß",
    "don't",
]


def slow_matches(backend, words, flags, num_tokens):
    """The definition, one word at a time: token → word → (share, position, variants)."""
    table = {}
    for w, word in enumerate(words):
        for surface in surface_variants(word, flags[w]):
            ids = backend.encode(surface, add_special_tokens=False).ids
            for token in set(ids):
                share, position, variants = table.setdefault(token, {}).get(w, (0, 1, 0))
                here = (
                    max(share, ids.count(token) / len(ids)),
                    min(position, ids.index(token) / len(ids)),
                    variants + 1,
                )
                table[token][w] = here
    return table


@pytest.mark.parametrize("family", ["wordpiece", "bytelevel", "unigram"])
@pytest.mark.parametrize("chunk", [1, 3, 20_000])
def test_matches_equal_the_definition(tokenizer_folders, family, chunk, monkeypatch):
    monkeypatch.setattr("hyperofa.tokens.matching._CHUNK", chunk)
    tokenizer = load_tokenizer(tokenizer_folders[family])
    backend, flags = bare_backend(tokenizer), [1, 1, 1, 0, 1, 1, 1]
    matches = match_words(backend, WORDS, flags, num_tokens=len(tokenizer))
    expected = slow_matches(backend, WORDS, flags, len(tokenizer))
    assert matches.covered.sum() == len(expected)
    for token, words in expected.items():
        span = slice(matches.indptr[token], matches.indptr[token + 1])
        assert matches.words[span].tolist() == sorted(words)
        found = zip(matches.share[span], matches.position[span], matches.variants[span], strict=True)
        np.testing.assert_allclose(list(found), [words[w] for w in sorted(words)], rtol=1e-6)


@pytest.mark.parametrize("source", ["wordpiece", "bytelevel", "unigram", "cased", "dummy"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ODD) | st.text(max_size=6), min_size=1, max_size=5))
def test_twins_are_tokenised_alike(tokenizer_folders, source, words):
    family = {"cased": "wordpiece", "dummy": "unigram"}.get(source, source)
    backend = bare_backend(load_tokenizer(tokenizer_folders[family]))
    if source == "cased":
        backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    if source == "dummy":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    flags, num_tokens = [1] * len(words), backend.get_vocab_size()
    matches = match_words(backend, words, flags, num_tokens=num_tokens)
    expected = slow_matches(backend, words, flags, num_tokens)
    found = {
        token: {
            int(matches.words[i]): (matches.share[i], matches.position[i], matches.variants[i])
            for i in range(matches.indptr[token], matches.indptr[token + 1])
        }
        for token in np.flatnonzero(matches.covered).tolist()
    }
    assert found.keys() == expected.keys()
    for token, owners in expected.items():
        assert found[token].keys() == owners.keys()
        for word, values in owners.items():
            np.testing.assert_allclose(found[token][word], values, rtol=1e-6)


def test_twins_of_each_family(tokenizer_folders):
    backends = {name: bare_backend(load_tokenizer(folder)) for name, folder in tokenizer_folders.items()}
    spelled = {name: Twins(backend).distinct("haus", ("haus", " haus", " Haus")) for name, backend in backends.items()}
    assert spelled["wordpiece"] == {"haus": 3}
    assert spelled["unigram"] == {"haus": 2, "Haus": 1}
    assert spelled["bytelevel"] == {"haus": 1, " haus": 1, " Haus": 1}


def test_ignored_tokens_have_no_words(tokenizer_folders):
    tokenizer = load_tokenizer(tokenizer_folders["wordpiece"])
    backend = bare_backend(tokenizer)
    unknown = tokenizer.unk_token_id
    assert match_words(backend, ["ß€"], [1], num_tokens=len(tokenizer)).covered[unknown]
    assert not match_words(backend, ["ß€"], [1], num_tokens=len(tokenizer), ignored=[unknown]).covered.any()


def test_variants_of_pieces_and_words():
    assert surface_variants("haus", 1) == ("haus", " haus", " Haus")
    assert surface_variants("Haus", 1) == ("Haus", " Haus")
    assert surface_variants("haus", 0) == ("haus",)


def test_save_and_load_round_trip(tokenizer_folders, tmp_path):
    tokenizer = load_tokenizer(tokenizer_folders["unigram"])
    matches = match_words(bare_backend(tokenizer), WORDS, [1] * len(WORDS), num_tokens=len(tokenizer))
    matches.save(tmp_path)
    loaded = Matches.load(tmp_path)
    for name in Matches.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(matches, name))


def test_weights_follow_share_and_rank():
    matches = Matches(np.array([0, 2]), np.array([0, 1]), np.array([0.5, 1.0]), np.zeros(2), np.ones(2))
    np.testing.assert_allclose(matches.weights(np.array([3, 0])), [0.5**2 / 2, 1.0])
