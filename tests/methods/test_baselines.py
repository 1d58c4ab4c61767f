import numpy as np
import pytest
import scipy.sparse as sp

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.methods import baselines
from hyperofa.methods.baselines import Mixing, Rows, Task
from hyperofa.methods.fallbacks import target_task
from hyperofa.tokens.canonical import bare_backend, canonical_tokens
from tests import reference


def make_task(wanted=30, source=60, width=7, dim=5, seed=0) -> Task:
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((source, dim)).astype(np.float32)
    keys[10:14] = keys[20]  # tokens with the same words
    usable = (rng.random(source) < 0.8) | (np.arange(source) == 20)
    keys[~usable] *= usable[:3].sum() > 3  # some have words that may not be used, some no words
    covered = np.arange(wanted) % 4 != 3
    queries = rng.standard_normal((wanted, dim)).astype(np.float32) * covered[:, None]
    queries[0] = keys[20]
    coordinates = (rng.standard_normal((source, width)) * np.arange(1, width + 1) + 2).astype(np.float32)
    return Task(coordinates, keys, usable, queries, covered, sp.csr_matrix((wanted, source)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("neighbours", "temperature"), [(10, 0.1), (3, 0.04)])
def test_ofa_equals_its_definition(seed, neighbours, temperature):
    task = make_task(seed=seed)
    rows = baselines.ofa(task, Mixing(neighbours, temperature, rescale=False))
    np.testing.assert_array_equal(rows.known, task.covered)
    usable = task.usable & task.keys.any(1)
    for token in np.flatnonzero(task.covered):
        mixtures = reference.ofa_mixtures(
            task.queries[token], task.keys[usable], task.coordinates[usable], neighbours, temperature, tie=1e-6
        )
        errors = [np.abs(mixture - rows.coordinates[token]).max() for mixture in mixtures]
        assert min(errors) < 1e-4
    np.testing.assert_allclose(rows.mixture @ task.coordinates, rows.coordinates, atol=1e-5)
    np.testing.assert_allclose(rows.mixture.sum(1)[task.covered], 1, rtol=1e-6)


def test_ofa_on_a_bundle_equals_its_definition(bundles):
    task = target_task(Bundle.load(bundles["roberta"]), "duplicates")
    rows = baselines.ofa(task, Mixing(neighbours=4, rescale=False))
    for token in np.flatnonzero(task.covered)[::7]:
        usable = np.flatnonzero(task.usable)
        found = reference.cosines(task.queries[token], task.keys[usable])
        chosen = rows.mixture[token].indices
        assert np.isin(chosen, usable).all()
        assert reference.cosines(task.queries[token], task.keys[chosen]).min() >= np.sort(found)[-4] - 1e-5
        weights = np.exp(reference.cosines(task.queries[token], task.keys[chosen]) / 0.1)
        np.testing.assert_allclose(rows.mixture[token].data, weights / weights.sum(), rtol=1e-3)


def test_rescaled_mixtures_have_the_length_of_source_rows():
    task = make_task()
    rows, plain = baselines.ofa(task, Mixing(neighbours=10)), baselines.ofa(task)
    length = np.linalg.norm(task.coordinates[task.usable], axis=1).mean()
    np.testing.assert_allclose(np.linalg.norm(rows.coordinates[task.covered], axis=1), length, rtol=1e-5)
    cosines = [reference.cosines(a, b[None])[0] for a, b in zip(rows.coordinates, plain.coordinates, strict=True)]
    np.testing.assert_allclose(np.array(cosines)[task.covered], 1, rtol=1e-5)


def test_fewer_source_tokens_than_neighbours():
    task = make_task()
    usable = np.zeros(60, bool)
    usable[[1, 2]] = task.usable[[1, 2]] = True
    few = Task(task.coordinates, np.ones_like(task.keys), usable, task.queries, task.covered, task.spelled)
    assert set(baselines.ofa(few).mixture.indices) == {1, 2}


def test_mean_is_the_mean_for_every_token():
    task = make_task()
    rows = baselines.mean(task, np.random.default_rng(0))
    assert rows.known.all()
    np.testing.assert_allclose(rows.coordinates, np.tile(task.coordinates.mean(0), (30, 1)), rtol=1e-5)


def test_noisy_mean_has_the_covariance_of_the_source_rows():
    task = make_task(wanted=40_000, width=3)
    rows = baselines.mean(task, np.random.default_rng(0), noise=0.25).coordinates
    covariance = 0.25 * np.cov(task.coordinates, rowvar=False)
    np.testing.assert_allclose(np.cov(rows, rowvar=False), covariance, atol=0.03 * covariance.max())
    np.testing.assert_allclose(rows.mean(0), task.coordinates.mean(0), atol=0.03)


def test_random_has_the_mean_and_deviation_of_each_coordinate():
    task = make_task(wanted=40_000, width=3)
    rows = baselines.random(task, np.random.default_rng(0)).coordinates
    np.testing.assert_allclose(rows.mean(0), task.coordinates.mean(0), atol=0.05)
    np.testing.assert_allclose(rows.std(0), task.coordinates.std(0), rtol=0.03)
    assert abs(np.corrcoef(rows.T)[0, 1]) < 0.02
    np.testing.assert_array_equal(rows, baselines.random(task, np.random.default_rng(0)).coordinates)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_subtokens_equal_a_slow_loop(bundles, name):
    bundle = Bundle.load(bundles[name])
    task, source = target_task(bundle), bundle.tokenizer("source")
    rows = baselines.subtokens(task)
    for token_id, token in enumerate(canonical_tokens(bundle.tokenizer("target"))):
        try:
            text = None if token is None or token.special else (" " * token.starts_word) + token.text.decode()
        except UnicodeDecodeError:
            text = None
        pieces = [] if text is None or not text.strip() else source(text, add_special_tokens=False).input_ids
        if not pieces or source.unk_token_id in pieces:
            assert not rows.known[token_id]
        else:
            expected = np.mean([task.coordinates[piece] for piece in pieces], 0)
            np.testing.assert_allclose(rows.coordinates[token_id], expected, atol=1e-5)
            assert rows.known[token_id]
    assert rows.known.sum() > 100


def test_what_needs_the_unknown_token_is_not_spelled(bundles):
    bundle = Bundle.load(bundles["bert"])
    source, tokens = bundle.tokenizer("source"), canonical_tokens(bundle.tokenizer("target"))
    spelled = baselines.spell(tokens, bare_backend(source), source.unk_token_id, bundle.meta.source_tokens)
    assert spelled[:, source.unk_token_id].nnz == 0
    sharp_s = [i for i, token in enumerate(tokens) if "ß" in token.text.decode(errors="ignore")]
    assert sharp_s
    assert not np.diff(spelled.indptr)[sharp_s].any()


def test_csls_moves_away_from_hubs():
    """Key 0 is near to every query, key 1 to one alone: the corrected similarity takes key 1 for that one."""
    queries = np.eye(12, dtype=np.float32) + 0.4
    queries = np.vstack([queries, [[1.0] + [0.9] * 11]]).astype(np.float32)
    keys = np.vstack([np.ones(12), [1.0] + [0.0] * 11]).astype(np.float32)
    covered = np.ones(len(queries), bool)
    task = Task(np.eye(2), keys, np.ones(2, bool), queries, covered, sp.csr_matrix((len(queries), 2)))
    plain, corrected = (
        baselines.ofa(task, Mixing(neighbours=1, csls=csls)).mixture.toarray().argmax(1) for csls in (False, True)
    )
    assert plain[0] == 0
    assert corrected[0] == 1
    assert corrected[-1] == 0


@pytest.mark.parametrize("directions", ["remove", "whiten"])
def test_strong_common_directions_stop_counting(directions):
    """Behind one large shared direction, the small differences decide once it is removed or evened out."""
    rng = np.random.default_rng(0)
    meanings = rng.standard_normal((40, 16)).astype(np.float32)
    shared = rng.standard_normal((2, 16)).astype(np.float32)
    keys = meanings + 6 * shared[rng.integers(2, size=40)]
    queries = meanings + 6 * shared[rng.integers(2, size=40)]
    everyone = np.ones(40, bool)
    task = Task(np.eye(40), keys, everyone, queries, everyone, sp.csr_matrix((40, 40)))
    hits = [
        (
            baselines.ofa(task, Mixing(neighbours=1, directions=choice)).mixture.toarray().argmax(1) == np.arange(40)
        ).mean()
        for choice in ("keep", directions)
    ]
    assert hits[1] > hits[0] + 0.2


def test_blend_moves_only_what_both_know():
    rows = Rows(np.zeros((3, 2), np.float32), np.array([True, True, False]))
    others = Rows(np.ones((3, 2), np.float32), np.array([True, False, True]))
    np.testing.assert_allclose(baselines.blend(rows, others, 0.25).coordinates[:2], [[0.25, 0.25], [0, 0]])


@pytest.mark.parametrize("mixing", [Mixing(neighbours=0), Mixing(temperature=0)])
def test_a_mixture_needs_neighbours_and_a_temperature(mixing):
    with pytest.raises(InputError, match=r"--mixing: expected at least 1 neighbour and a temperature above 0"):
        baselines.ofa(make_task(), mixing)
