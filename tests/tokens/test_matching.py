import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from hyperofa.tokens.canonical import bare_backend, load_tokenizer
from hyperofa.tokens.matching import Matches, match_words
from hyperofa.tokens.spellings import Twins, surface_variants, without_marks

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
    assert matches.cover is None
    assert loaded.cover is None
    for name in Matches.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(matches, name))


def matches_of(rows, tokens):
    """Matches of (token, word, share, cover) in ascending order."""
    token, word, share, cover = (np.array(column) for column in zip(*rows, strict=True))
    indptr = np.searchsorted(token, np.arange(tokens + 1))
    return Matches(indptr, word.astype(np.int32), share, np.zeros(len(word)), np.ones(len(word), np.uint8), cover)


def rows_of(matches):
    return list(zip(matches.tokens.tolist(), matches.words.tolist(), matches.share, matches.covers, strict=True))


def test_matches_of_both_directions_are_joined_and_merged(tmp_path):
    containing = [(0, 1, 0.5, 1), (0, 4, 1, 1), (2, 5, 0.25, 1)]
    within = [(0, 0, 1, 0.5), (0, 4, 1, 0.7), (1, 3, 1, 1)]
    first, second = matches_of(containing, 3), matches_of(within, 3)
    both = sorted([*containing, *(row for row in within if row[1] != 4)])
    assert rows_of(first.with_others(second)) == both
    parts = [first.with_others(second).between(*span) for span in ((0, 2), (2, 5), (5, 9))]
    assert rows_of(Matches.merge(parts, tmp_path / "merged")) == both
    assert rows_of(Matches.merge([matches_of([(0, 9, 1, 1)], 3), second], tmp_path / "more"))[0] == (0, 9, 1, 1)


@pytest.mark.parametrize("scheme", ["always", "first"])
def test_words_without_spaces_are_tokenised_as_within_a_text(scheme):
    pieces = ["<unk>", "▁天地", "天地", "人", "▁the", "t", "h", "e", "▁"]
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)

    def tokens(word, unspaced):
        matches = match_words(backend, [word], [3], num_tokens=len(pieces), unspaced=unspaced)
        return {pieces[token]: float(matches.share[matches.indptr[token]]) for token in np.flatnonzero(matches.covered)}

    assert tokens("天地人", False) == {"▁天地": 0.5, "人": 0.5}
    assert tokens("天地人", True) == {"▁天地": 0.5, "天地": 0.5, "人": 0.5}
    assert tokens("the", True) == tokens("the", False)


def test_tokenizers_that_mark_nothing_have_no_other_side(tokenizer_folders):
    backends = {name: bare_backend(load_tokenizer(folder)) for name, folder in tokenizer_folders.items()}
    assert without_marks(backends["wordpiece"]) is None
    assert without_marks(backends["bytelevel"]) is None
    within = without_marks(backends["unigram"])
    assert within is not None
    assert within.encode("the").tokens[0] != "▁the"


def test_weights_follow_share_and_rank():
    matches = Matches(np.array([0, 2]), np.array([0, 1]), np.array([0.5, 1.0]), np.zeros(2), np.ones(2))
    np.testing.assert_allclose(matches.weights(np.array([3, 0])), [0.5**2 / 2, 1.0])


def test_parts_of_a_token_weigh_what_they_cover():
    matches = matches_of([(0, 0, 1, 0.25), (0, 1, 1, 0.75), (0, 2, 1, 1)], 1)
    np.testing.assert_allclose(matches.weights(np.array([3, 99, 3])), [0.25, 0.75, 0.5])
