"""Alignment of parallel text: model 1 against its definition, words spread over tokens, a whole bundle."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import scipy.sparse as sp

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.export.export import export
from hyperofa.methods import alignment
from hyperofa.methods.fallbacks import target_inputs
from hyperofa.tokens.canonical import bare_backend

PAIRS = [
    ("the woman reads a book .", "the woman reads a book ."),
    ("the man reads a book .", "the man reads a book ."),
    ("the woman saw animals", "the woman saw animals"),
    ("the doctor gave the woman a book", "the doctor gave the woman a book"),
] * 3


def sentences(seed=0, count=120, words=12):
    """Sentences and their translations in another order; word w is translated by w + 1, modulo the words."""
    rng = np.random.default_rng(seed)
    source = [rng.integers(1, words + 1, rng.integers(2, 7)) for _ in range(count)]
    return source, [rng.permutation(s % words + 1) for s in source]


def slow_links(source, target, iterations):
    """Brown et al. 1993, in loops."""
    chance = defaultdict(lambda: 1.0)
    pairs = [([0, *s], list(t)) for s, t in zip(source, target, strict=True)]
    for _ in range(iterations):
        counts, totals = Counter(), Counter()
        for s, t in pairs:
            for word in t:
                sum_of = sum(chance[word, origin] for origin in s)
                for origin in s:
                    counts[word, origin] += chance[word, origin] / sum_of
                    totals[origin] += chance[word, origin] / sum_of
        chance = {key: count / totals[key[1]] for key, count in counts.items()}
    links = Counter()
    for s, t in pairs:
        for word in t:
            links[word, max(s, key=lambda origin, word=word: chance[word, origin])] += 1
    return {key: count for key, count in links.items() if key[1]}


def as_dict(links):
    return {(t, s): c for t, s, c in zip(links.row.tolist(), links.col.tolist(), links.data.tolist(), strict=True)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pairs", [7, 2048])
def test_model_1_equals_its_definition(monkeypatch, seed, pairs):
    monkeypatch.setattr(alignment, "_PAIRS", pairs)
    source, target = sentences(seed, count=30)
    assert as_dict(alignment.link_words(source, target)) == slow_links(source, target, alignment.ITERATIONS)


def test_a_dictionary_is_found_in_shuffled_translations():
    links = as_dict(alignment.link_words(*sentences()))
    right = sum(count for (word, origin), count in links.items() if word == origin % 12 + 1)
    assert right > 0.95 * sum(links.values())


def test_empty_sentences_align_nothing():
    empty, some = np.zeros(0, np.int64), np.array([1, 2])
    assert alignment.link_words([empty, some], [some, empty]).nnz == 0
    assert alignment.link_words([], []).nnz == 0


def test_links_are_spread_half_each_with_each_half_in_order():
    links = sp.coo_matrix(([8.0, 1.0], ([1, 2], [1, 1])), shape=(3, 2))
    matrix = alignment.spread(links, [(), (5, 6), (7,)], [(), (0, 1, 2, 3)], (9, 4)).toarray()
    np.testing.assert_allclose(matrix[5], [1 + 2, 1 + 2, 1, 1])
    np.testing.assert_allclose(matrix[6], [1, 1, 1 + 2, 1 + 2])
    assert not matrix[7].any()  # aligned once only
    uneven = alignment.spread(sp.coo_matrix(([6.0], ([0], [0]))), [(0, 1, 2)], [(0, 1)], (3, 2)).toarray()
    np.testing.assert_allclose(uneven, [[1.5 + 3, 1.5], [1.5 + 1.5, 1.5 + 1.5], [1.5, 1.5 + 3]])


@pytest.mark.parametrize(
    ("name", "words"),
    [("bert", ["the", "woman", "reads", "plants"]), ("roberta", ["the", "woman", ",", "reads", "plants", "."])],
)
def test_words_are_cut_where_letters_do_not_meet(bundles, name, words):
    """The bytes of RoBERTa's vocabulary know the comma; what a tokenizer does not know is left out."""
    bundle = Bundle.load(bundles[name])
    tokens, backend = bundle.tokens("source"), bare_backend(bundle.tokenizer("source"))
    found = alignment._Words.of(tokens, backend, ["the woman, reads plants."])
    texts = [b"".join(tokens[piece].text for piece in found.pieces[word]) for word in found.sentences[0]]
    assert [text.decode() for text in texts] == words


def test_a_bundle_aligns_tokens_with_those_that_spell_the_same_word(bundles):
    bundle = Bundle.load(bundles["bert"])
    inputs = target_inputs(bundle, parallel=PAIRS)
    assert inputs.aligned.shape == inputs.spelled.shape
    sources, targets, found = bundle.tokens("source"), bundle.tokens("target"), {}
    for token in np.flatnonzero(np.diff(inputs.aligned.indptr)):
        found[targets[token].text] = sources[inputs.aligned[token].toarray().argmax()].text
    whole = {text for text in found if text.decode() in " ".join(pair[1] for pair in PAIRS).split()}
    assert whole >= {b"a", b"the"}
    assert {text: found[text] for text in whole} == {text: text for text in whole}


def test_transtokenizer_exports_with_parallel_text_only(bundles, tmp_path):
    text = tmp_path / "pairs.tsv"
    text.write_text("\n".join("\t".join(pair) for pair in PAIRS), encoding="utf-8")
    with pytest.raises(InputError, match="parallel: expected parallel text"):
        export(bundles["bert"], "transtokenizer", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    exported = export(bundles["bert"], "transtokenizer", tmp_path / "model", parallel=[text])
    assert exported.counts["predicted"] > 3
    assert "408.04303" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
