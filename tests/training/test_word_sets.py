import numpy as np
import pytest
import torch

from hyperofa.bundle.bundle import Bundle
from hyperofa.nets.inputs import FEATURES
from hyperofa.training.word_sets import WordSetTable, make_memory
from hyperofa.vectors.centring import centred


@pytest.fixture
def bundle(bundles) -> Bundle:
    return Bundle.load(bundles["bert"])


@pytest.mark.parametrize("max_words", [3, 32])
@pytest.mark.parametrize("side", ["source", "target"])
def test_sets_hold_the_heaviest_words(bundle, side, max_words):
    matches, words = bundle.matches(side), bundle.words
    ids = np.flatnonzero(matches.covered)
    table = WordSetTable(bundle, side, max_words)
    np.testing.assert_array_equal(table.counts[ids], np.minimum(matches.counts[ids], max_words))
    sets = table.sets(ids)
    for row, token in enumerate(ids):
        span = range(matches.indptr[token], matches.indptr[token + 1])
        weights = {i: matches.share[i] ** 2 / np.sqrt(1 + words.ranks[matches.words[i]]) for i in span}
        best = sorted(span, key=lambda i: -weights[i])[:max_words]
        assert sets.mask[row].tolist() == [place < len(best) for place in range(sets.mask.shape[1])]
        assert not sets.vectors[row, len(best) :].any()
        features = dict(zip(FEATURES, sets.features[row, : len(best)].numpy().T, strict=True))
        np.testing.assert_allclose(features["weight"], [weights[i] for i in best], rtol=1e-5)
        rows = matches.words[best]
        np.testing.assert_allclose(features["share"], matches.share[best])
        np.testing.assert_array_equal(features["exact"], matches.share[best] == 1)
        np.testing.assert_allclose(features["log_rank"], np.log(1 + words.ranks[rows]), rtol=1e-6)
        np.testing.assert_allclose(features["position"], matches.position[best])
        english = words.language_ids[rows] == words.languages.index("eng")
        np.testing.assert_array_equal(features["source_language"], english)
        expected = centred(words.vectors[rows], words.language_ids[rows], bundle.language_means)
        np.testing.assert_allclose(sets.vectors[row, : len(best)], expected, atol=1e-6)


def test_augmentation_shuffles_and_drops_but_keeps_one(bundle):
    table = WordSetTable(bundle, "target", 16)
    ids = np.flatnonzero(bundle.target.covered)
    whole = table.sets(ids)
    for dropout in (0.0, 0.5, 1.0):
        sets = table.sets(ids, np.random.default_rng(0), dropout)
        assert sets.mask.any(1).all()
        for row in range(len(ids)):
            known = {tuple(vector) for vector in whole.vectors[row][whole.mask[row]].tolist()}
            seen = {tuple(vector) for vector in sets.vectors[row][sets.mask[row]].tolist()}
            assert seen <= known
            assert seen == known or dropout > 0
            assert len(seen) == 1 or dropout < 1
    again = table.sets(ids, np.random.default_rng(0), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(sets, again, strict=True))


def test_no_tokens_make_an_empty_batch(bundle):
    sets = WordSetTable(bundle, "source", 4).sets(np.empty(0, np.int64))
    assert sets.mask.shape == (0, 1)


def test_memory_has_unit_keys_and_the_source_rows(bundle):
    ids = bundle.split["val"]
    memory = make_memory(bundle, ids)
    torch.testing.assert_close(memory.keys.norm(dim=1), torch.ones(len(ids)))
    np.testing.assert_array_equal(memory.values, bundle.coordinates[ids])
