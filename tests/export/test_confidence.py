"""How far rows can be trusted: calibrated where it was not fitted, told in every place, heeded where that is asked."""

import csv
import json

import numpy as np
import pytest

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.errors import InputError
from hyperofa.export import confidence, prediction
from hyperofa.export.confidence import ABOUT, _Heaviest, assess, fit_monotone
from hyperofa.export.initialise import initialise
from hyperofa.export.prediction import agreement_of
from hyperofa.models.manifest import verify
from hyperofa.nets.source_attention import SourceAttention
from hyperofa.training.hypernetwork import Hypernetwork


@pytest.fixture(scope="module")
def bundle(model_folders, tokenizer_folders, vector_file, tmp_path_factory):
    """A bundle with many held-out tokens."""
    folder = tmp_path_factory.mktemp("held") / "bundle"
    prepare(
        source_model=str(model_folders["bert"]),
        target_tokenizer=str(tokenizer_folders["unigram"]),
        vectors=[str(vector_file)],
        source_languages=["eng"],
        validation_share=0.35,
        test_share=0.35,
        output=folder,
    )
    return Bundle.load(folder)


@pytest.fixture
def net(bundle):
    """One that knows nothing yet."""
    meta = bundle.meta
    net = SourceAttention(meta.word_dim, meta.coordinate_dim, hidden_dim=8).eval()
    return Hypernetwork(net, ("role", "symbol"), 32, training_fingerprint=meta.training_fingerprint)


@pytest.fixture
def few(monkeypatch):
    """A bundle of a test has enough tokens."""
    monkeypatch.setattr(confidence, "LEAST", 10)
    monkeypatch.setattr(confidence, "FEWEST", 1)  # its rows are noise, of which one in ten is right


def oracle(bundle, knows):
    """Predicts the true row of the tokens of either side that `knows` says of, and noise for others."""
    pairs = bundle.overlap.choose(("native",))
    truth = dict(zip(pairs.target_ids.tolist(), pairs.source_ids.tolist(), strict=True))
    rng = np.random.default_rng(0)

    def predict(side, ids):
        sources = [token if side == "source" else truth[token] for token in ids.tolist()]
        noise = rng.standard_normal((len(ids), bundle.meta.coordinate_dim)).astype(np.float32)
        return np.where(knows(side, ids)[:, None], bundle.coordinates[sources], noise), None

    return predict


def whole_words(bundle):
    def knows(side, ids):
        matches = bundle.matches(side)
        return np.array([matches.share[matches.indptr[i] : matches.indptr[i + 1]].max() == 1 for i in ids])

    return knows


def test_the_regression_says_how_often_it_is_right():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4_000, 3)) * [1, 5, 0.1]
    chance = 1 / (1 + np.exp(-(features @ [1.5, 0.2, 0] - 0.3)))
    right = rng.random(4_000) < chance
    model = fit_monotone(features[:2_000], right[:2_000])
    said, truly = model(features[2_000:]), right[2_000:]
    for low in np.arange(0.05, 0.95, 0.1):
        some = (said >= low) & (said < low + 0.1)
        assert abs(said[some].mean() - truly[some].mean()) < 0.09
    np.testing.assert_allclose(said, chance[2_000:], atol=0.06)


def test_more_evidence_never_means_less_confidence():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(500, 2))
    right = rng.random(500) < 1 / (1 + np.exp(-(features @ [1, -2])))  # the second speaks against what it should
    model = fit_monotone(features, right)
    assert model.weights[1] > 0.5
    assert model.weights[2] == 0
    far = np.array([[100.0, 0.0], [features[:, 0].max(), 0.0]])  # beyond what was seen, nothing more is said
    assert model(far)[0] == model(far)[1] < 1


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_heaviest_word_is_found(bundle, side):
    matches, ranks = bundle.matches(side), bundle.words.ranks
    weights, ids = matches.weights(ranks), np.flatnonzero(matches.covered)
    share, frequency = _Heaviest(matches, ranks).describe(ids)
    for n, token in enumerate(ids.tolist()):
        span = slice(matches.indptr[token], matches.indptr[token + 1])
        heaviest = span.start + int(np.argmax(weights[span]))
        assert share[n] == pytest.approx(np.log(matches.share[heaviest] * matches.covers[heaviest]))
        assert frequency[n] == pytest.approx(-0.5 * np.log1p(ranks[matches.words[heaviest]]))


def test_rows_are_trusted_for_what_was_right_among_held_out_ones(bundle, few):
    predicted = bundle.target.covered.copy()
    predicted[bundle.overlap.choose(("role", "symbol")).target_ids] = False
    knows = whole_words(bundle)
    found = assess(bundle, predicted, None, oracle(bundle, knows))
    np.testing.assert_array_equal(np.isfinite(found.values), predicted)
    ids = np.flatnonzero(predicted)
    whole = knows("target", ids)
    assert found.values[ids][whole].mean() > 0.7 > 0.5 > found.values[ids][~whole].mean()
    assert found.weights["share"] == max(found.weights.values())
    assert list(found.weights) == ["share", "frequency", "surroundings"]
    kinds = bundle.overlap.choose(("native",))
    covered = bundle.target.covered[kinds.target_ids]
    for part, count in (("val", found.fitted), ("test", len(found.expected))):
        held = bundle.split[part]
        assert count == len(held) + (np.isin(kinds.source_ids, held) & covered).sum()
    assert found.right[found.cosines > 0.999].all()
    assert sum(bin.rows for bin in found.bins) == predicted.sum()
    assert sum(bin.tokens for bin in found.bins) == len(found.expected)
    tested = [bin for bin in found.bins if bin.tokens]
    assert np.average([bin.found for bin in tested], weights=[bin.tokens for bin in tested]) == pytest.approx(
        found.right.mean()
    )
    assert all(bin.low <= bin.expected <= bin.low + 0.1 for bin in tested)


def test_nothing_is_said_where_nothing_is_known(bundle, bundles, monkeypatch):
    predicted = bundle.target.covered.copy()
    knows = whole_words(bundle)
    assert assess(bundle, predicted, None, oracle(bundle, knows)) is None  # too few tokens
    monkeypatch.setattr(confidence, "LEAST", 10)
    assert assess(bundle, predicted, None, oracle(bundle, knows)) is not None
    assert assess(bundle, np.zeros_like(predicted), None, oracle(bundle, knows)) is None
    assert assess(bundle, predicted, None, oracle(bundle, lambda _, ids: np.ones(len(ids), bool))) is None  # all right

    def diverged(side, ids):
        return np.full((len(ids), bundle.meta.coordinate_dim), np.nan, np.float32), None

    assert assess(bundle, predicted, None, diverged) is None  # all wrong


@pytest.fixture
def judged(few, bundle, monkeypatch):
    """Held-out tokens are predicted rightly where they are whole words."""
    monkeypatch.setattr(prediction, "predictor_of_held", lambda *_: oracle(bundle, whole_words(bundle)))


def test_an_export_tells_it_in_every_place(bundle, net, judged, tmp_path):
    found = initialise(bundle, hypernetwork=net)
    written = found.save(tmp_path / "model")
    trust = found.confidence
    assert str(written).endswith(f"; {trust}")
    assert f"confidence {trust.mean:.2f} in the mean" in str(trust)
    with (tmp_path / "model" / "provenance.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert list(rows[0])[-1] == "confidence"
    for row, value in zip(rows, trust.values, strict=True):
        assert (row["confidence"] != "") == (row["origin"] == "predicted")
        assert row["confidence"] == "" or float(row["confidence"]) == pytest.approx(value, abs=6e-4)
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text(encoding="utf-8"))["confidence"]
    assert manifest == json.loads(json.dumps(trust.as_dict()))
    assert manifest["about"] == ABOUT
    assert f"{trust}; it is the {ABOUT}" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert verify(tmp_path / "model").intact


def test_nets_that_agree_are_trusted_for_it(bundle, few):
    predicted, knows = bundle.target.covered.copy(), whole_words(bundle)
    rows_of, agreement = oracle(bundle, knows), np.zeros(len(predicted))
    agreement[predicted] = knows("target", np.flatnonzero(predicted))
    found = assess(bundle, predicted, agreement, lambda side, ids: (rows_of(side, ids)[0], knows(side, ids) * 1.0))
    assert list(found.weights) == ["share", "frequency", "surroundings", "agreement"]
    assert found.weights["agreement"] > 0.1
    rows = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    assert agreement_of([rows], rows) is None
    np.testing.assert_allclose(agreement_of([rows, rows], rows), 1, atol=1e-6)
    assert (agreement_of([rows, rows[::-1]], (rows + rows[::-1]) / 2)[[0, 1, 3, 4]] < 0.95).all()


def test_rows_that_are_not_trusted_fall_back(bundle, net, judged):
    all_rows = initialise(bundle, hypernetwork=net)
    values, predicted = all_rows.confidence.values, all_rows.origins == "predicted"
    least = float(np.median(values[predicted]))
    found = initialise(bundle, hypernetwork=net, least_confidence=least)
    np.testing.assert_array_equal(found.confidence.values, values)
    np.testing.assert_array_equal(found.origins == "predicted", predicted & ~(values < least))
    assert 0 < (found.origins == "predicted").sum() < predicted.sum()
    kept = found.origins == "predicted"
    np.testing.assert_array_equal(found.coordinates[kept], all_rows.coordinates[kept])
    fallen = predicted & ~kept
    assert set(found.origins[fallen]) <= {"copied", "containing", "pieces", "subtokens", "script", "mean"}
    assert initialise(bundle, hypernetwork=net, least_confidence=0.0).counts() == all_rows.counts()


@pytest.mark.parametrize(
    ("method", "least", "message"),
    [
        ("hyperofa", 0.5, r"least_confidence: expected 100 validation tokens or more, .* found 0.5 with bundle"),
        ("hyperofa", 1.5, "least_confidence: expected a number from 0 to 1, found 1.5"),
        ("ofa_tuned", 0.5, "least_confidence: expected none but with method='hyperofa', found 0.5"),
    ],
)
def test_a_confidence_that_is_not_there_cannot_be_asked_for(bundle, net, method, least, message):
    given = {"hypernetwork": net} if method == "hyperofa" else {}
    with pytest.raises(InputError, match=message):
        initialise(bundle, method, least_confidence=least, **given)
