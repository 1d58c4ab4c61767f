import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.methods.fallbacks import target_inputs
from hyperofa.tokens.canonical import Token
from hyperofa.tokens.composition import words_within
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.store import WordVectors
from tests.conftest import ENGLISH, wrap, write_vectors

WORDS = [
    "zho:的",
    "zho:后裔",
    "zho:亚伯拉罕",
    "zho:亚伯",
    "zho:后",
    "jpn:后",
    "jpn:的",
    "tha:น้ำ",
    "eng:the",
    "eng:god",
    "eng:of",
]


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> WordVectors:
    """A few words of languages with and without spaces, the most frequent first."""
    folder = tmp_path_factory.mktemp("unspaced")
    rows = {word: np.eye(len(WORDS))[number] for number, word in enumerate(WORDS)}
    return build_store([str(write_vectors(folder / "words.vec", rows))], folder / "store")


def found(words, text, starts_word=True, languages=None):
    """Language and word → (cover, position) of one token."""
    token = Token(text if isinstance(text, bytes) else text.encode(), starts_word)
    matches = words_within([None, token], words, languages, 3)
    assert matches.indptr.tolist() == [0, 0, len(matches.words), len(matches.words)]
    assert (matches.share == 1).all()
    assert not matches.variants.any()
    return {
        f"{words.languages[words.language_ids[row]]}:{words.words[int(row)]}": (round(float(cover), 3), position)
        for row, cover, position in zip(matches.words, matches.covers, matches.position, strict=True)
    }


def test_a_token_is_cut_into_the_words_of_one_language(words):
    expected = {
        "zho:亚伯拉罕": (0.571, 0),
        "zho:的": (0.143, pytest.approx(4 / 7)),
        "zho:后裔": (0.286, pytest.approx(5 / 7)),
    }
    assert found(words, "亚伯拉罕的后裔") == expected
    assert found(words, "亚伯拉罕的后裔", starts_word=False) == expected  # no mark where no spaces are
    assert found(words, "亚伯拉罕的后裔", languages=["jpn"]).keys() == {"jpn:的", "jpn:后"}


def test_languages_that_explain_as_much_share_a_token(words):
    assert found(words, "的后") == {
        **{f"{language}:的": (0.5, 0) for language in ("zho", "jpn")},
        **{f"{language}:后": (0.5, 0.5) for language in ("zho", "jpn")},
    }


def test_a_token_that_is_a_word_has_that_word_alone(words):
    assert found(words, "后裔") == {"zho:后裔": (1, 0)}
    assert found(words, "น้ำ") == {"tha:น้ำ": (1, 0)}


def test_a_word_that_stands_twice_covers_both(words):
    assert found(words, "的的") == {"zho:的": (1, 0), "jpn:的": (1, 0)}


def test_unknown_characters_and_punctuation_belong_to_no_word(words):
    assert found(words, "，的龘后裔。") == {"zho:的": (0.25, 0.2), "zho:后裔": (0.5, pytest.approx(3 / 5))}
    assert found(words, "龘") == {}


def test_in_a_spaced_script_whole_words_beside_a_space_or_punctuation_count(words):
    assert found(words, "God;") == {"eng:god": (1, 0)}
    assert found(words, "of the") == {"eng:of": (0.4, 0), "eng:the": (0.6, 0.5)}
    assert found(words, "the") == {}  # a word that contains the token: the other direction
    assert found(words, "the;", starts_word=False) == {}  # the end of another word (lathe;)
    assert found(words, " the", starts_word=False) == {"eng:the": (1, 0.25)}


@pytest.mark.parametrize("token", [b"\xe7\x9a", b"", b" ", "。".encode()])
def test_what_spells_no_word_has_none(words, token):
    assert found(words, token) == {}


def test_special_tokens_have_no_words(words):
    assert not words_within([Token("的".encode(), False, special=True)], words, None, 1).covered.any()


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="亚伯拉罕的后裔龘", min_size=1, max_size=8))
def test_the_cut_is_the_cheapest_of_all(words, text):
    """Against every way to cut a text, scored by Zipf's law."""
    size, total = 5, np.log(1 + np.log(1 + 5))  # five Chinese words
    costs = {word[4:]: total + np.log(1 + rank) for rank, word in enumerate(w for w in WORDS if w.startswith("zho"))}
    unknown = total + np.log(1 + size) + 3

    def ways(rest):
        if not rest:
            yield 0.0, ()
        for end in range(1, len(rest) + 1):
            word = rest[:end]
            for cost, words_after in ways(rest[end:]):
                if word in costs:
                    yield costs[word] + cost, (word, *words_after)
                elif end == 1:
                    yield unknown + cost, words_after

    best = min(cost for cost, _ in ways(text))
    allowed = [set(chosen) for cost, chosen in ways(text) if cost < best + 1e-9]
    assert {word[4:] for word in found(words, text, languages=["zho"])} in allowed


@pytest.fixture
def raw_text(model_folders, tmp_path) -> dict:
    """Vectors of Chinese words beside the English ones, and a tokenizer of raw text."""
    names = [f"zho:{word}" for word in ("天地", "人", "和", "天", "地")]
    names += [f"eng:{word}" for word in sorted({word for line in ENGLISH for word in line.split()})]
    rows = dict(zip(names, np.random.default_rng(0).standard_normal((len(names), 12)), strict=True))
    pieces = [
        "<unk>",
        "▁",
        "▁the",
        "▁天地",
        "天地",
        "天地人和",
        "▁人和天地",
        "the▁river;",
        "人",
        "和",
        *"theriv;oldwnsa天地",
    ]
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in dict.fromkeys(pieces)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    folder = wrap(backend, tmp_path / "unspaced", unk_token="<unk>")
    vectors = [str(write_vectors(tmp_path / "unspaced.vec", rows))]
    source = str(model_folders["bert"])
    return {"source_model": source, "target_tokenizer": str(folder), "vectors": vectors, "source_languages": ["eng"]}


def words_of(bundle, piece):
    token = bundle.tokenizer("target").get_vocab()[piece]
    span = slice(bundle.target.indptr[token], bundle.target.indptr[token + 1])
    return dict(zip(bundle.words.words[bundle.target.words[span]], bundle.target.covers[span].tolist(), strict=True))


@pytest.mark.parametrize("shard", [2, 100])
def test_tokens_are_described_in_both_directions(raw_text, tmp_path, shard, monkeypatch):
    monkeypatch.setattr("hyperofa.bundle.pooling.SHARD", shard)
    bundle = prepare(**raw_text, output=tmp_path / "bundle")
    assert words_of(bundle, "天地人和") == {"天地": 0.5, "人": 0.25, "和": 0.25}
    assert words_of(bundle, "▁人和天地") == {"人": 0.25, "和": 0.25, "天地": 0.5}
    assert words_of(bundle, "the▁river;") == {"river": pytest.approx(5 / 8)}
    assert words_of(bundle, "天地") == {"天地": 1}  # as within a text, without the mark
    assert bundle.pooled("target")[bundle.target.covered].any(1).all()


def test_the_published_way_knows_no_words_within_a_token(raw_text, tmp_path):
    published = prepare(**raw_text, output=tmp_path / "published", reference=True)
    assert words_of(published, "天地人和") == words_of(published, "天地") == {}
    assert not (tmp_path / "published" / "target" / "cover.npy").exists()
    both = prepare(**raw_text, output=tmp_path / "both")
    token = both.tokenizer("target").get_vocab()["天地人和"]
    assert not target_inputs(both, "duplicates").covered[token]
    assert target_inputs(both).covered[token]


def test_bundles_of_before_have_no_covers(bundles):
    bundle = Bundle.load(bundles["bert"])
    assert bundle.target.cover is None
    np.testing.assert_array_equal(bundle.target.covers, np.ones(len(bundle.target.words)))
