import numpy as np
import pytest
import scipy.sparse as sp

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.methods import baselines
from hyperofa.methods.baselines import InitInputs, OFAConfig, Predictions
from hyperofa.methods.fallbacks import target_inputs
from hyperofa.tokens.canonical import bare_backend, canonical_tokens
from tests import reference


def make_task(wanted=30, source=60, width=7, dim=5, seed=0) -> InitInputs:
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((source, dim)).astype(np.float32)
    keys[10:14] = keys[20]  # tokens with the same words
    usable = (rng.random(source) < 0.8) | (np.arange(source) == 20)
    keys[~usable] *= usable[:3].sum() > 3  # some have words that may not be used, some no words
    covered = np.arange(wanted) % 4 != 3
    queries = rng.standard_normal((wanted, dim)).astype(np.float32) * covered[:, None]
    queries[0] = keys[20]
    coordinates = (rng.standard_normal((source, width)) * np.arange(1, width + 1) + 2).astype(np.float32)
    return InitInputs(coordinates, keys, usable, queries, covered, sp.csr_matrix((wanted, source)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("neighbours", "temperature"), [(10, 0.1), (3, 0.04)])
def test_ofa_equals_its_definition(seed, neighbours, temperature):
    inputs = make_task(seed=seed)
    rows = baselines.ofa(inputs, OFAConfig(neighbours, temperature, rescale=False))
    np.testing.assert_array_equal(rows.known, inputs.covered)
    usable = inputs.usable & inputs.keys.any(1)
    for token in np.flatnonzero(inputs.covered):
        mixtures = reference.ofa_mixtures(
            inputs.queries[token], inputs.keys[usable], inputs.coordinates[usable], neighbours, temperature, tie=1e-6
        )
        errors = [np.abs(mixture - rows.coordinates[token]).max() for mixture in mixtures]
        assert min(errors) < 1e-4
    np.testing.assert_allclose(rows.mixture @ inputs.coordinates, rows.coordinates, atol=1e-5)
    np.testing.assert_allclose(rows.mixture.sum(1)[inputs.covered], 1, rtol=1e-6)


def test_ofa_on_a_bundle_equals_its_definition(bundles):
    inputs = target_inputs(Bundle.load(bundles["roberta"]), "duplicates")
    rows = baselines.ofa(inputs, OFAConfig(neighbours=4, rescale=False))
    for token in np.flatnonzero(inputs.covered)[::7]:
        usable = np.flatnonzero(inputs.usable)
        found = reference.cosines(inputs.queries[token], inputs.keys[usable])
        chosen = rows.mixture[token].indices
        assert np.isin(chosen, usable).all()
        assert reference.cosines(inputs.queries[token], inputs.keys[chosen]).min() >= np.sort(found)[-4] - 1e-5
        weights = np.exp(reference.cosines(inputs.queries[token], inputs.keys[chosen]) / 0.1)
        np.testing.assert_allclose(rows.mixture[token].data, weights / weights.sum(), rtol=1e-3)


def test_rescaled_mixtures_have_the_length_of_source_rows():
    inputs = make_task()
    rows, plain = baselines.ofa(inputs, OFAConfig(neighbours=10)), baselines.ofa(inputs)
    length = np.linalg.norm(inputs.coordinates[inputs.usable], axis=1).mean()
    np.testing.assert_allclose(np.linalg.norm(rows.coordinates[inputs.covered], axis=1), length, rtol=1e-5)
    cosines = [reference.cosines(a, b[None])[0] for a, b in zip(rows.coordinates, plain.coordinates, strict=True)]
    np.testing.assert_allclose(np.array(cosines)[inputs.covered], 1, rtol=1e-5)


def test_fewer_source_tokens_than_neighbours():
    inputs = make_task()
    usable = np.zeros(60, bool)
    usable[[1, 2]] = inputs.usable[[1, 2]] = True
    few = InitInputs(
        inputs.coordinates, np.ones_like(inputs.keys), usable, inputs.queries, inputs.covered, inputs.spelled
    )
    assert set(baselines.ofa(few).mixture.indices) == {1, 2}


def test_mean_is_the_mean_for_every_token():
    inputs = make_task()
    rows = baselines.mean(inputs)
    assert rows.known.all()
    np.testing.assert_allclose(rows.coordinates, np.tile(inputs.coordinates.mean(0), (30, 1)), rtol=1e-5)


def test_noisy_mean_has_the_covariance_of_the_source_rows():
    inputs = make_task(wanted=40_000, width=3)
    rows = baselines.mean_noise(inputs, np.random.default_rng(0), 0.25).coordinates
    covariance = 0.25 * np.cov(inputs.coordinates, rowvar=False)
    np.testing.assert_allclose(np.cov(rows, rowvar=False), covariance, atol=0.03 * covariance.max())
    np.testing.assert_allclose(rows.mean(0), inputs.coordinates.mean(0), atol=0.03)


def test_random_has_the_mean_and_deviation_of_each_coordinate():
    inputs = make_task(wanted=40_000, width=3)
    rows = baselines.random(inputs, np.random.default_rng(0)).coordinates
    np.testing.assert_allclose(rows.mean(0), inputs.coordinates.mean(0), atol=0.05)
    np.testing.assert_allclose(rows.std(0), inputs.coordinates.std(0), rtol=0.03)
    assert abs(np.corrcoef(rows.T)[0, 1]) < 0.02
    np.testing.assert_array_equal(rows, baselines.random(inputs, np.random.default_rng(0)).coordinates)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_subtokens_equal_a_slow_loop(bundles, name):
    bundle = Bundle.load(bundles[name])
    inputs, source = target_inputs(bundle), bundle.tokenizer("source")
    rows = baselines.subtokens(inputs)
    for token_id, token in enumerate(canonical_tokens(bundle.tokenizer("target"))):
        try:
            text = None if token is None or token.special else (" " * token.starts_word) + token.text.decode()
        except UnicodeDecodeError:
            text = None
        pieces = [] if text is None or not text.strip() else source(text, add_special_tokens=False).input_ids
        if not pieces or source.unk_token_id in pieces:
            assert not rows.known[token_id]
        else:
            expected = np.mean([inputs.coordinates[piece] for piece in pieces], 0)
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
    inputs = InitInputs(np.eye(2), keys, np.ones(2, bool), queries, covered, sp.csr_matrix((len(queries), 2)))
    plain, corrected = (
        baselines.ofa(inputs, OFAConfig(neighbours=1, csls=csls)).mixture.toarray().argmax(1) for csls in (False, True)
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
    inputs = InitInputs(np.eye(40), keys, everyone, queries, everyone, sp.csr_matrix((40, 40)))
    hits = [
        (
            baselines.ofa(inputs, OFAConfig(neighbours=1, directions=choice)).mixture.toarray().argmax(1)
            == np.arange(40)
        ).mean()
        for choice in ("keep", directions)
    ]
    assert hits[1] > hits[0] + 0.2


def test_blend_moves_only_what_both_know():
    rows = Predictions(np.zeros((3, 2), np.float32), np.array([True, True, False]))
    others = Predictions(np.ones((3, 2), np.float32), np.array([True, False, True]))
    np.testing.assert_allclose(baselines.blend(rows, others, 0.25).coordinates[:2], [[0.25, 0.25], [0, 0]])


def test_a_mixture_needs_neighbours_and_a_temperature():
    with pytest.raises(InputError, match=r"mixing\.neighbours: expected at least 1, found 0"):
        OFAConfig(neighbours=0)
    with pytest.raises(InputError, match=r"mixing\.temperature: expected a number above 0, found 0"):
        OFAConfig(temperature=0)
