from collections import Counter

import numpy as np
import pytest

from hyperofa.demo.lexicon import LANGUAGES, lexicon
from hyperofa.demo.world import parallel_sentences, train_vectors


@pytest.fixture(scope="module")
def sentences():
    return parallel_sentences(6300, np.random.default_rng(0))


def test_equal_seeds_give_equal_sentences():
    first, again, other = (parallel_sentences(50, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_more_sentences_begin_with_the_same_ones(sentences):
    assert parallel_sentences(40, np.random.default_rng(0)) == sentences[:40]


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_distinct_and_of_fit_length(sentences, language):
    texts = [sentence[language] for sentence in sentences]
    lengths = [len(text.split()) for text in texts]
    assert len(set(texts)) == len(texts)
    assert min(lengths) >= (4 if language == "eng" else 3)
    assert max(lengths) <= 14
    assert all(text == " ".join(text.split()) for text in texts)
    assert not set("".join(texts)) & set("{}[]|/()#-_ADIİ")


def test_every_content_word_is_said(sentences):
    for language in ("eng", "ind"):
        said = {word for sentence in sentences for word in sentence[language].split()}
        assert sorted(c.word(language) for c in lexicon() if c.word(language) not in said) == []


def test_held_out_sentences_are_new(sentences):
    for language in LANGUAGES:
        train = {" ".join(sorted(sentence[language].split())) for sentence in sentences[:6000]}
        held_out = {" ".join(sorted(sentence[language].split())) for sentence in sentences[6000:]}
        assert not train & held_out


def test_equal_seeds_give_equal_vectors(tmp_path, sentences):
    def trained(seed, name):
        train_vectors(sentences[:200], dim=8, seed=seed, path=tmp_path / name)
        return (tmp_path / name).read_bytes()

    first = trained(0, "a.vec")
    assert first == trained(0, "b.vec")
    assert first != trained(1, "c.vec")


def test_vectors_find_translations(tmp_path, sentences):
    train_vectors(sentences[:1500], dim=32, seed=0, path=tmp_path / "a.vec")
    header, *rows = (tmp_path / "a.vec").read_text(encoding="utf-8").splitlines()
    counts = Counter(f"{lng}:{word}" for s in sentences[:1500] for lng in LANGUAGES for word in s[lng].split())
    words = [row.split(" ")[0] for row in rows]
    assert header == f"{len(counts)} 32"
    assert [counts[word] for word in words] == sorted(counts.values(), reverse=True)
    vectors = np.array([row.split(" ")[1:] for row in rows], dtype=np.float32)
    assert np.isfinite(vectors).all()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [i for i, word in enumerate(words) if word.startswith("ind:")]
    hits = [
        words[found[np.argmax(vectors[found] @ vectors[words.index(f"eng:{c.word('eng')}")])]] == f"ind:{c.word('ind')}"
        for c in lexicon()
        if counts[f"eng:{c.word('eng')}"] >= 5
    ]
    assert np.mean(hits) > 0.5
