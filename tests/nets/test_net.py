"""Hypernetworks: order, padding, empty sets, gradients, precision, and plain numpy beside them."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperofa import nets
from hyperofa.errors import InputError
from hyperofa.nets.bilstm import BiLSTM
from hyperofa.nets.inputs import FEATURES, WordSets
from hyperofa.nets.layers import pool
from hyperofa.nets.mlp import MLP
from hyperofa.nets.net import Net
from hyperofa.nets.setformer import SetFormer
from tests import reference

D, K = 12, 7
BUILD = {
    "mlp": lambda: MLP(D, K, hidden_dim=16),
    "mlp-mean": lambda: MLP(D, K, hidden_dim=16, num_layers=1, pooling="mean"),
    "mlp-linear": lambda: MLP(D, K, hidden_dim=16, num_layers=0),
    "bilstm": lambda: BiLSTM(D, K, hidden_dim=9, num_layers=2),
    "bilstm-1": lambda: BiLSTM(D, K, hidden_dim=9, num_layers=1),
    "setformer": lambda: SetFormer(D, K, num_heads=3, num_layers=2),
}
OTHERS = {"SourceAttention"}  # whose tests are a file of their own
UNORDERED = [name for name in BUILD if not name.startswith("bilstm")]
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def test_every_net_is_tried():
    assert {type(make()).__name__ for make in BUILD.values()} | OTHERS == set(nets.NETS)
    assert sorted(nets.__all__) == sorted([*nets.NETS, "Net"])


def net(name, seed=0):
    torch.manual_seed(seed)
    return BUILD[name]().eval()


def word_sets(lengths, width=None, seed=0):
    """Sets of the given lengths, padded with zeros to `width`."""
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    vectors = torch.randn(len(lengths), width, D, generator=generator) * mask[..., None]
    features = (torch.rand(len(lengths), width, len(FEATURES), generator=generator) + 0.01) * mask[..., None]
    return WordSets(vectors, features, mask)


def reorder(sets, order):
    """Permute the columns of each row by `order` `(B, W)`."""
    rows = torch.arange(len(order))[:, None]
    return WordSets(*(part[rows, order] for part in sets))


@settings(deadline=None, max_examples=15)
@given(LENGTHS, st.integers(0, 2**31))
@pytest.mark.parametrize("name", UNORDERED)
@torch.no_grad()
def test_order_of_words_plays_no_role(name, lengths, seed):
    sets = word_sets(lengths, 6, seed)
    order = torch.rand(len(lengths), 6, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    torch.testing.assert_close(net(name)(reorder(sets, order)), net(name)(sets), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_order_of_words_matters_to_the_bilstm():
    sets = word_sets([4])
    reversed_sets = reorder(sets, torch.tensor([[3, 2, 1, 0]]))
    assert not torch.allclose(net("bilstm")(sets), net("bilstm")(reversed_sets), atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(LENGTHS, st.integers(0, 4), st.integers(0, 2**31))
@pytest.mark.parametrize("name", BUILD)
@torch.no_grad()
def test_padding_never_matters(name, lengths, extra, seed):
    tight = word_sets(lengths, seed=seed)
    wide = max(lengths) + extra
    padding = torch.zeros(len(lengths), extra)
    garbage = WordSets(
        *(torch.cat((part, 100 + padding[..., None].expand(-1, -1, part.shape[2])), 1) for part in tight[:2]),
        torch.cat((tight.mask, padding.bool()), 1),
    )
    expected = net(name)(tight)
    torch.testing.assert_close(net(name)(garbage), expected, atol=1e-5, rtol=1e-4)
    # Each set alone, as if there were no batch.
    for row, length in enumerate(lengths):
        alone = WordSets(*(part[row : row + 1, :length] for part in tight))
        torch.testing.assert_close(net(name)(alone)[0], expected[row], atol=1e-5, rtol=1e-4)
    # Gaps between the words, in their order.
    gaps = torch.rand(len(lengths), wide, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    gaps = torch.stack([interleave(order, length) for order, length in zip(gaps, lengths, strict=True)])
    torch.testing.assert_close(net(name)(reorder(garbage, gaps)), expected, atol=1e-5, rtol=1e-4)


def interleave(order, length):
    """A permutation that spreads the first `length` columns, in order, among the padding."""
    spread = order.clone()
    spread[order < length] = torch.arange(length)
    return spread


@pytest.mark.parametrize("name", BUILD)
def test_gradients_are_finite_and_reach_every_parameter(name):
    model = net(name).train()
    output = model(word_sets([1, 5, 2, 9]))
    assert output.shape == (4, K)
    output.square().mean().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast_on_cpu(name, training):
    model = net(name).train(training)
    sets = word_sets([3, 1, 6])
    torch.manual_seed(1)
    exact = model(sets)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(sets)
    half.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    if not training:
        torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", BUILD)
def test_sets_without_words_are_refused(name):
    sets = word_sets([2, 3, 1])
    sets.mask[1] = False
    with pytest.raises(ValueError, match=r"at least one word in every set, found none in rows \[1\] \(1 of 3\)"):
        net(name)(sets)
    with pytest.raises(ValueError, match=r"found none in rows \[0, 1, 2\]"):
        net(name)(WordSets(*(part[:, :0] for part in sets)))


@pytest.mark.parametrize("name", BUILD)
def test_wrong_shapes_are_refused(name):
    vectors, features, mask = word_sets([2, 3])
    with pytest.raises(ValueError, match=r"\(B, W, 12\), \(B, W, 7\) and \(B, W\), found vectors \(2, 3, 11\)"):
        net(name)(WordSets(vectors[..., 1:], features, mask))
    with pytest.raises(ValueError, match=r"features \(2, 3, 6\)"):
        net(name)(WordSets(vectors, features[..., 1:], mask))
    with pytest.raises(ValueError, match=r"mask \(2, 2\)"):
        net(name)(WordSets(vectors, features, mask[:, 1:]))


@torch.no_grad()
def test_linear_mlp_is_a_linear_map_of_the_pooled_words():
    model, sets = net("mlp-linear"), word_sets([3, 1, 6])
    rows = [
        reference.pooled(vectors[mask].numpy(), features[mask, FEATURES.index("weight")].numpy())
        for vectors, features, mask in zip(*sets, strict=True)
    ]
    parameters = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = reference.linear(parameters, "output", reference.linear(parameters, "input", np.array(rows)))
    np.testing.assert_allclose(model(sets).numpy(), expected, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(LENGTHS, st.floats(1e-6, 1e6), st.integers(0, 2**31))
def test_pooling_is_a_convex_combination(lengths, scale, seed):
    sets = word_sets(lengths, 6, seed)
    weights = sets.features[..., 0]
    pooled = pool(sets.vectors, scale * weights, sets.mask)
    torch.testing.assert_close(pooled, pool(sets.vectors, weights, sets.mask), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pool(torch.ones_like(sets.vectors), weights, sets.mask), torch.ones(len(lengths), D))


def parameters_as_in_the_reference(model, prefixes):
    renamed = {}
    for name, value in model.state_dict().items():
        prefix, rest = name.split(".", 1)
        renamed[f"{prefixes.get(prefix, prefix)}.{rest}"] = value.double().numpy()
    return renamed


@torch.no_grad()
def test_bilstm_equals_numpy():
    model, sets = net("bilstm"), word_sets([3, 1, 6])
    parameters = parameters_as_in_the_reference(model, {"head": "linear_output_layers"})
    for row, (words, _, mask) in zip(model(sets), zip(*sets, strict=True), strict=True):
        np.testing.assert_allclose(row, reference.bilstm(parameters, words[mask].numpy()), atol=1e-5)


@torch.no_grad()
def test_setformer_equals_numpy():
    model, sets = net("setformer"), word_sets([3, 1, 6])
    prefixes = {"head": "linear_output_layers", "encoder": "encoder_block"}
    parameters = parameters_as_in_the_reference(model, prefixes)
    for row, (words, _, mask) in zip(model(sets), zip(*sets, strict=True), strict=True):
        np.testing.assert_allclose(row, reference.setformer(parameters, words[mask].numpy(), heads=3), atol=1e-5)


@pytest.mark.parametrize("name", BUILD)
def test_nets_hold_no_words_and_survive_a_pickle(name):
    model = net(name)
    assert isinstance(model, Net)
    assert (model.word_dim, model.coordinate_dim) == (D, K)
    copy = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(copy(word_sets([2])), model(word_sets([2])))
    assert not list(model.buffers())


@pytest.mark.parametrize(("build", "message"), [
    (lambda: MLP(D, 0), "net.coordinate_dim: expected a whole number > 0, found 0"),
    (lambda: MLP(D, K, hidden_dim=0), "net.hidden_dim: expected a whole number > 0, found 0"),
    (lambda: MLP(D, K, num_layers=-1), "net.num_layers: expected 0 or more blocks, found -1"),
    (lambda: MLP(D, K, pooling="max"), "net.pooling: expected 'weighted' or 'mean', found 'max'"),
    (lambda: MLP(D, K, dropout=1.0), "net.dropout: expected a probability from 0 to below 1, found 1.0"),
    (lambda: BiLSTM(D, K, num_layers=0), "net.num_layers: expected a whole number > 0, found 0"),
    (lambda: SetFormer(D, K, num_heads=5), r"divisor of the word width 12 \(such as \[1, 2, 3, 4, 6, 12\]\), found 5"),
])  # fmt: skip
def test_bad_settings(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_net_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Net(D, K)


@pytest.mark.parametrize(("build", "count"), [
    (lambda: BiLSTM(200, 100, hidden_dim=800, num_layers=2), 22_125_900),  # Table 1, RoBERTa-100
    (lambda: BiLSTM(200, 400, hidden_dim=1600, num_layers=4), 210_343_600),  # Table 1, XLM-R-400
    (lambda: SetFormer(200, 100, num_layers=28), 22_615_700),  # Table 4, "22M"
])  # fmt: skip
def test_sizes_of_the_paper_s_networks(build, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build().parameters()) == count
