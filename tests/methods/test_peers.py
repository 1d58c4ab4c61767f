"""Other papers' methods: the numbers of their own packages, and what holds of them whatever the inputs."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.methods import peers
from hyperofa.methods.baselines import InitInputs
from hyperofa.methods.fallbacks import target_inputs
from tests.golden import GOLDEN

SHARED = 24
MIXING = {"wechsel": peers.wechsel, "focus": peers.focus, "omp": lambda inputs: peers.omp(inputs, 5)}
METHODS = {**MIXING, "clp": peers.clp}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "peers.npz") as arrays:
        return dict(arrays)


def of_golden(golden) -> InitInputs:
    count, size = len(golden["target"]), len(golden["source"])
    ids = np.arange(SHARED)
    anchors = sp.csr_matrix((np.ones(SHARED), (ids, ids)), shape=(count, size))
    everyone = np.ones(size, bool), np.ones(count, bool)
    nothing = sp.csr_matrix((count, size))
    return InitInputs(golden["rows"], golden["source"], everyone[0], golden["target"], everyone[1], nothing, anchors)


@pytest.mark.parametrize(
    ("name", "package"), [("wechsel", "wechsel"), ("focus", "deepfocus"), ("clp", "langsfer"), ("omp", "mergekit")]
)
def test_rows_are_those_of_the_published_package(golden, name, package):
    rows = METHODS[name](of_golden(golden))
    assert rows.known.all()
    np.testing.assert_allclose(rows.coordinates[-len(golden[package]) :], golden[package], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MIXING)
def test_rows_are_the_mixtures_that_are_recorded(golden, name):
    inputs = of_golden(golden)
    rows = MIXING[name](inputs)
    np.testing.assert_allclose(rows.mixture @ inputs.coordinates, rows.coordinates, atol=1e-5)
    if name != "omp":
        np.testing.assert_allclose(rows.mixture.sum(1), 1, rtol=1e-6)
        assert rows.mixture.data.min() >= 0


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_the_source_tokens_does_not_matter(golden, name):
    inputs = of_golden(golden)
    order = np.random.default_rng(0).permutation(len(inputs.keys))
    turned = replace(
        inputs, coordinates=inputs.coordinates[order], keys=inputs.keys[order], anchors=inputs.anchors[:, order]
    )
    found, expected = METHODS[name](turned).coordinates, METHODS[name](inputs).coordinates
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["focus", "omp"])
def test_a_shared_token_is_its_row(golden, name):
    inputs = of_golden(golden)
    np.testing.assert_allclose(METHODS[name](inputs).coordinates[:SHARED], inputs.coordinates[:SHARED], rtol=1e-6)


def test_a_token_with_the_vector_of_a_shared_one_gets_its_row(golden):
    """By matching pursuit always; by sparsemax where nothing else is near, as it takes all cosines within 1."""
    inputs = of_golden(golden)
    queries = inputs.queries.copy()
    queries[SHARED] = 3 * queries[7]
    np.testing.assert_allclose(
        peers.omp(replace(inputs, queries=queries)).coordinates[SHARED], inputs.coordinates[7], atol=1e-5
    )
    apart = np.vstack([np.eye(SHARED), np.eye(SHARED)[:6]]).astype(np.float32)
    found = peers.focus(replace(inputs, queries=apart)).coordinates[SHARED:]
    np.testing.assert_allclose(found, inputs.coordinates[:6], atol=1e-6)


@pytest.mark.parametrize("name", ["focus", "clp", "omp"])
def test_without_another_vocabulary_the_source_tokens_are_anchors(golden, name):
    inputs = of_golden(golden)
    usable = np.arange(len(inputs.keys)) % 3 > 0
    held_out = replace(inputs, anchors=None, usable=usable)
    among = np.flatnonzero(usable)
    same = replace(
        held_out,
        anchors=sp.csr_matrix((np.ones(len(among)), (among, among)), shape=(len(usable), len(usable))),
        queries=np.vstack([inputs.keys, inputs.queries]),
        covered=np.append(usable, inputs.covered),
    )
    same = replace(same, anchors=sp.vstack([same.anchors, sp.csr_matrix((30, len(usable)))]).tocsr())
    found, expected = METHODS[name](held_out), METHODS[name](same)
    np.testing.assert_array_equal(found.known, expected.known[len(usable) :])
    np.testing.assert_allclose(found.coordinates, expected.coordinates[len(usable) :], atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_tokens_without_words_are_not_known(golden, name):
    inputs = of_golden(golden)
    queries, covered = inputs.queries.copy(), inputs.covered.copy()
    queries[[3, 28]], covered[[3, 28]] = 0, False
    rows = METHODS[name](replace(inputs, queries=queries, covered=covered))
    np.testing.assert_array_equal(np.flatnonzero(~rows.known), [3, 28])
    without = METHODS[name](replace(inputs, anchors=sp.csr_matrix(inputs.anchors.shape), covered=covered))
    assert without.known.any() == (name == "wechsel")


def test_a_weighted_mean_of_next_to_nothing_is_not_known(golden):
    inputs = of_golden(golden)
    queries = inputs.queries - inputs.queries[:SHARED].mean(0)
    rows = peers.clp(replace(inputs, queries=queries))
    assert not rows.known[SHARED:].all()
    assert np.abs(rows.coordinates).max() < 30 * np.abs(inputs.coordinates).max()


@given(
    st.lists(st.lists(st.floats(-9, 9, width=32), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(1, 6)
)
def test_sparsemax_is_the_nearest_point_of_the_simplex(scores, likely):
    scores = np.array(scores)
    weights = peers.sparsemax(scores, likely)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-9)
    assert (weights >= 0).all()
    lost = np.where(weights > 0, np.inf, scores - weights).max(1, where=weights == 0, initial=-np.inf)
    kept = np.where(weights > 0, scores - weights, np.nan)
    assert (np.nanmax(kept, 1) - np.nanmin(kept, 1) < 1e-9).all()  # one threshold
    assert (lost <= np.nanmin(kept, 1) + 1e-9).all()


def test_pursuit_ends_with_what_least_squares_find(golden):
    targets, atoms = golden["target"][SHARED:], golden["target"][:SHARED]
    chosen, weights = peers.pursue(targets, atoms, 7)
    for target, ids, found in zip(targets, chosen, weights, strict=True):
        assert len(set(ids)) == 7
        np.testing.assert_allclose(found, np.linalg.lstsq(atoms[ids].T, target, rcond=None)[0], atol=1e-4)


def test_pursuit_takes_no_more_than_it_needs(golden):
    atoms = np.vstack([golden["target"][:4], golden["target"][:4]])
    chosen, weights = peers.pursue((2 * atoms[0] + atoms[1])[None], atoms, 8)
    assert np.isfinite(weights).all()
    np.testing.assert_allclose(weights[0] @ atoms[chosen[0]], 2 * atoms[0] + atoms[1], atol=1e-5)


def test_trans_tokenisation_is_the_mean_of_what_a_token_is_aligned_with(golden):
    inputs = of_golden(golden)
    counts = sp.csr_matrix(([3.0, 1.0], ([25, 25], [1, 7])), shape=(30, 40))
    rows = peers.transtokenizer(replace(inputs, aligned=counts))
    np.testing.assert_array_equal(np.flatnonzero(rows.known), [25])
    np.testing.assert_allclose(rows.coordinates[25], 0.75 * golden["rows"][1] + 0.25 * golden["rows"][7], rtol=1e-5)
    with pytest.raises(InputError, match="parallel: expected parallel text"):
        peers.transtokenizer(inputs)


@pytest.mark.parametrize("name", ["focus", "omp"])
def test_a_bundle_gives_its_overlap_as_anchors(bundles, name):
    bundle = Bundle.load(bundles["bert"])
    inputs = target_inputs(bundle)
    shared = bundle.overlap.choose(("role", "exact"))
    assert inputs.anchors.nnz == len(shared) > 20
    rows = METHODS[name](inputs)
    np.testing.assert_array_equal(rows.known, inputs.covered)
    assert set(rows.mixture.indices) <= set(shared.source_ids)


def test_wechsel_pools_by_frequency(bundles):
    bundle = Bundle.load(bundles["bert"])
    pooled, matches = bundle.pooled("target", "frequency"), bundle.target
    for token in np.flatnonzero(matches.covered)[::40]:
        words = matches.words[matches.indptr[token] : matches.indptr[token + 1]]
        weights = 1 / (1 + bundle.words.ranks[words].astype(float))
        expected = np.average(bundle.words.vectors[words], axis=0, weights=weights)
        np.testing.assert_allclose(pooled[token], expected, atol=1e-5)
