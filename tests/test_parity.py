"""Golden values: what the published code computes on small fixed inputs, and whether we compute it too."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hyperofa.bundle.factorization import factorize
from hyperofa.nets.bilstm import BiLSTM
from hyperofa.nets.inputs import FEATURES, WordSets
from hyperofa.nets.setformer import SetFormer
from hyperofa.training import losses
from tests import reference
from tests.golden import GOLDEN, SOURCES, TARGET, WORDS, backend, entries, load

PAD = 2000


@pytest.fixture(scope="module")
def summary():
    return json.loads((GOLDEN / "summary.json").read_text())


@pytest.fixture(scope="module")
def words():
    """Spellings and `(2000, 16)` float32 vectors, in the order of the file."""
    lines = (line.split(" ") for line in gzip.decompress(WORDS.read_bytes()).decode().splitlines()[1:])
    spellings, *columns = zip(*lines, strict=True)
    return SimpleNamespace(spellings=spellings, vectors=np.array(columns, dtype=np.float32).T)


@pytest.fixture(scope="module", params=SOURCES)
def golden(request, words):
    """Inputs and golden values of one source tokenizer, and its word matches in the reference's way."""
    tokenizers = {"source": backend(request.param), "target": backend(TARGET)}

    def matches(side, languages=None):
        encode = tokenizers[side].encode
        return reference.word_matches(
            words.spellings, lambda text: encode(text, add_special_tokens=False).ids, languages
        )

    loaded = load(request.param)
    loaded.matches = matches
    return loaded


def word_sets(word_ids, words):
    """Reference input, padded with the index after the last word, as a batch of ours."""
    ids = torch.from_numpy(word_ids)
    table = torch.from_numpy(np.vstack((words.vectors, np.zeros_like(words.vectors[:1]))))
    return WordSets(table[ids], torch.ones(*ids.shape, len(FEATURES)), ids != PAD)


def load_reference_weights(net, weights, prefixes):
    """Fill a net from the reference's parameters; every one must find its place."""
    renamed = {}
    for name, value in weights.items():
        prefix, rest = name.split(".", 1)
        renamed[f"{prefixes.get(prefix, prefix)}.{rest}"] = torch.from_numpy(value)
    net.load_state_dict(renamed, strict=True)
    return net.eval()


def trainable(net):
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


# --- the package ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", ["0.1", "0.25", "0.5"])
def test_losses(temperature, summary):
    arrays = np.load(GOLDEN / "losses.npz")
    predicted, expected = torch.from_numpy(arrays["predictions"]), torch.from_numpy(arrays["targets"])
    loss = losses.token_loss(predicted, expected, contrastive_weight=0.1, temperature=float(temperature), distance="l1")
    golden_loss = summary["losses"][temperature]
    assert float(loss.total) == pytest.approx(golden_loss["total"], abs=1e-6)
    assert float(loss.contrastive) == pytest.approx(golden_loss["contrastive"], abs=1e-6)
    assert float(loss.distance) == pytest.approx(golden_loss["normalised_l1"], abs=1e-6)


@pytest.mark.parametrize("scaling", ["coordinates", "primitives"])
def test_low_rank(golden, scaling):
    factors = factorize(golden.embeddings, 8, scaling=scaling)
    rows = factors.coordinates @ factors.primitives
    np.testing.assert_allclose(entries(rows), golden.arrays["low_rank"], atol=1e-4)
    if scaling == "primitives":
        norms = np.linalg.norm(factors.coordinates, axis=0)
        np.testing.assert_allclose(norms, golden.arrays["singular_coordinates_norms"], atol=1e-5)


@torch.no_grad()
def test_bilstm(words, summary):
    arrays = np.load(GOLDEN / "bilstm.npz")
    net = BiLSTM(16, 10, hidden_dim=20, num_layers=2)
    load_reference_weights(net, load_file(GOLDEN / "bilstm.safetensors"), {"linear_output_layers": "head"})
    np.testing.assert_allclose(net(word_sets(arrays["word_ids"], words)), arrays["output"], atol=1e-5)
    assert trainable(net) == summary["bilstm"]["trainable"]


@torch.no_grad()
def test_setformer(words, summary):
    arrays = np.load(GOLDEN / "setformer.npz")
    net = SetFormer(16, 10, num_heads=4, num_layers=2)
    prefixes = {"linear_output_layers": "head", "encoder_block": "encoder"}
    load_reference_weights(net, load_file(GOLDEN / "setformer.safetensors"), prefixes)
    np.testing.assert_allclose(net(word_sets(arrays["word_ids"], words)), arrays["output"], atol=1e-5)
    assert trainable(net) == summary["setformer"]["trainable"]


def test_parameter_counts_of_the_paper_s_networks(summary):
    counts = {}
    for model, layers in (("roberta", 2), ("xlmr", 4)):
        for width, hidden in ((100, 800), (200, 800), (400, 1600)):
            with torch.device("meta"):
                counts[f"{model}-{width}"] = trainable(BiLSTM(200, width, hidden_dim=hidden, num_layers=layers))
    assert counts == summary["paper_parameter_counts"]


# --- tests/reference.py itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", ["0.1", "0.25", "0.5"])
def test_reference_losses(temperature, summary):
    arrays = np.load(GOLDEN / "losses.npz")
    pair = arrays["predictions"], arrays["targets"]
    golden_loss = summary["losses"][temperature]
    assert reference.contrastive(*pair, float(temperature)) == pytest.approx(golden_loss["contrastive"], abs=2e-6)
    assert reference.normalised_l1(*pair) == pytest.approx(golden_loss["normalised_l1"], abs=1e-6)
    assert reference.token_loss(*pair, 0.1, float(temperature), "l1") == pytest.approx(golden_loss["total"], abs=1e-6)


def test_reference_low_rank(golden):
    coordinates, primitives, _ = reference.factorize(golden.embeddings, 8)
    np.testing.assert_allclose(entries(coordinates @ primitives), golden.arrays["low_rank"], atol=1e-5)


@pytest.mark.parametrize("side", ["source", "target"])
def test_reference_words_of_tokens(golden, words, side):
    matches = golden.matches(side)
    expected = getattr(golden, f"{side}_words")
    assert {str(token): sorted(set(indices)) for token, indices in matches.items()} == expected
    means = golden.arrays[f"{side}_in_word_space"]
    ours = reference.duplicate_weighted_mean(matches, words.vectors, len(means))
    np.testing.assert_allclose(entries(ours), means, atol=1e-6)


def test_reference_words_of_one_language(golden, words):
    means = golden.arrays["source_in_word_space_eng"]
    matches = golden.matches("source", {"eng"})
    ours = reference.duplicate_weighted_mean(matches, words.vectors, len(means))
    np.testing.assert_allclose(entries(ours), means, atol=1e-6)


def test_reference_ofa(golden, words):
    expected = golden.arrays["ofa"]
    source, target = (
        reference.duplicate_weighted_mean(golden.matches(side), words.vectors, size)
        for side, size in (("source", len(golden.embeddings)), ("target", len(expected)))
    )
    copied = reference.copied_rows(golden.overlap["fuzzy"])
    fallback = reference.fallback_rows(golden.embeddings, len(expected))
    not_found = []
    for token, query in enumerate(target):
        if token in copied:
            admissible = [golden.embeddings[copied[token]]]
        elif query.any():
            admissible = reference.ofa_mixtures(query, source, golden.embeddings)
        else:
            admissible = [fallback[token]]
            not_found.append(token)
        column = token % golden.embeddings.shape[1]
        assert min(abs(row[column] - expected[token]) for row in admissible) < 1e-5, token
    assert not_found == golden.not_found


def test_reference_random_and_assembled(golden):
    arrays, copied = golden.arrays, reference.copied_rows(golden.overlap["fuzzy"])
    random = reference.random_baseline(copied, golden.embeddings, len(arrays["random"]))
    np.testing.assert_allclose(entries(random), arrays["random"], atol=1e-5)
    predictions = dict(zip(arrays["prediction_ids"].tolist(), arrays["predictions"], strict=True))
    rows = {token: np.full(golden.embeddings.shape[1], value) for token, value in predictions.items()}
    assembled = reference.assembled(copied, rows, golden.embeddings, len(arrays["assembled"]))
    np.testing.assert_allclose(entries(assembled), arrays["assembled"], atol=1e-5)


@pytest.mark.parametrize(("name", "forward"), [
    ("bilstm", reference.bilstm),
    ("setformer", lambda weights, words: reference.setformer(weights, words, heads=4)),
])  # fmt: skip
def test_reference_networks(name, forward, words):
    arrays, weights = np.load(GOLDEN / f"{name}.npz"), load_file(GOLDEN / f"{name}.safetensors")
    for ids, output in zip(arrays["word_ids"], arrays["output"], strict=True):
        np.testing.assert_allclose(forward(weights, words.vectors[ids[ids != PAD]]), output, atol=1e-5)
