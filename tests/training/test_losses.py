"""Losses against plain numpy, their limits, precision and errors."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperofa.errors import InputError
from hyperofa.training import losses
from tests import reference

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(0, 2**31), st.sampled_from((0.1, 0.25, 0.5, 2.0)))


def pair(rows=8, width=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, width, generator=generator, dtype=dtype) for _ in range(2))


@settings(deadline=None, max_examples=50)
@given(SHAPES)
def test_every_loss_equals_the_numpy_reference(drawn):
    rows, width, seed, temperature = drawn
    predicted, expected = pair(rows, width, seed)
    p, e = predicted.numpy(), expected.numpy()
    assert float(losses.contrastive(predicted, expected, temperature)) == pytest.approx(
        reference.contrastive(p, e, temperature)
    )
    assert float(losses.mse(predicted, expected)) == pytest.approx(reference.mse(p, e))
    assert float(losses.mse(predicted, expected, normalise=True)) == pytest.approx(reference.mse(p, e, normalise=True))
    assert float(losses.normalised_l1(predicted, expected)) == pytest.approx(reference.normalised_l1(p, e))
    for distance in ("mse", "l1"):
        total = losses.token_loss(
            predicted, expected, contrastive_weight=0.3, temperature=temperature, distance=distance
        ).total
        assert float(total) == pytest.approx(reference.token_loss(p, e, 0.3, temperature, distance))


@settings(deadline=None, max_examples=50)
@given(SHAPES)
def test_cosine_distance_equals_the_numpy_reference(drawn):
    rows, width, seed, _ = drawn
    predicted, expected = pair(rows, width, seed)
    p, e = predicted.numpy(), expected.numpy()
    distances = [1 - reference.cosines(row, e[[i]])[0] for i, row in enumerate(p)]
    assert float(losses.cosine_distance(predicted, expected)) == pytest.approx(np.mean(distances))


def test_parts_add_up_and_weights_of_zero_and_one_leave_one_part():
    predicted, expected = pair()
    loss = losses.token_loss(predicted, expected, contrastive_weight=0.1, temperature=0.5)
    assert float(loss.total) == pytest.approx(0.1 * float(loss.contrastive) + 0.9 * float(loss.distance))
    assert losses.token_loss(predicted, expected, contrastive_weight=1).total == loss_part(predicted, expected, 1)
    assert losses.token_loss(predicted, expected, contrastive_weight=0).total == loss_part(predicted, expected, 2)


def loss_part(predicted, expected, index):
    return losses.token_loss(predicted, expected)[index]


def test_distances_have_no_scale_and_zero_predictions_cost_one():
    predicted, expected = pair()
    for distance in (losses.normalised_l1, lambda p, e: losses.mse(p, e, normalise=True)):
        assert float(distance(1000 * predicted, 1000 * expected)) == pytest.approx(float(distance(predicted, expected)))
        assert float(distance(torch.zeros_like(expected), expected)) == pytest.approx(1)
        assert float(distance(expected, expected)) == 0


def test_limits_of_the_contrastive_loss():
    predicted, _ = pair(rows=1)
    assert float(losses.contrastive(predicted, -predicted, 0.1)) == 0  # one row: nothing to be confused with
    basis = torch.eye(4)
    assert float(losses.contrastive(basis, basis, 0.01)) == pytest.approx(0, abs=1e-6)
    assert float(losses.contrastive(basis, torch.ones(4, 4), 0.5)) == pytest.approx(np.log(4), rel=1e-6)


def test_only_predictions_search_as_in_the_reference_code():
    predicted, expected = pair()
    assert float(losses.contrastive(predicted, expected, 0.2)) != pytest.approx(
        float(losses.contrastive(expected, predicted, 0.2))
    )


def test_cosine_distance_takes_any_leading_dimensions():
    rows = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert float(losses.cosine_distance(rows, 2 * rows)) == pytest.approx(0, abs=1e-6)
    assert float(losses.cosine_distance(rows, -rows)) == pytest.approx(2)


def test_zero_rows_give_finite_losses_and_gradients():
    predicted, expected = pair(dtype=torch.float32)
    expected[0] = 0
    for target in (expected, torch.zeros_like(expected)):
        for distance in ("mse", "l1"):
            leaf = predicted.clone().requires_grad_()
            loss = losses.token_loss(leaf, target, distance=distance).total
            loss.backward()
            assert loss.isfinite()
            assert leaf.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_lifted(dtype):
    predicted, expected = (x.to(dtype) for x in pair(64, 16))
    exact = losses.token_loss(predicted.double(), expected.double(), temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.token_loss(predicted, expected, temperature=0.05)
        lifted = losses.token_loss(predicted.float(), expected.float(), temperature=0.05)
    assert loss.total.dtype == torch.float32
    assert float(loss.total) == pytest.approx(float(exact.total), rel=1e-5)
    assert float(lifted.total) == pytest.approx(float(exact.total), rel=1e-5)


@pytest.mark.parametrize("loss", [
    lambda p, e: losses.contrastive(p, e, 0.5),
    losses.mse,
    losses.normalised_l1,
    losses.cosine_distance,
    losses.token_loss,
])  # fmt: skip
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(ValueError, match=r"found predicted \(4, 3\) and expected \(4, 1\)"):
        loss(torch.ones(4, 3), torch.ones(4, 1))
    with pytest.raises(ValueError, match=r"non-empty.*found predicted \(0, 3\)"):
        loss(torch.ones(0, 3), torch.ones(0, 3))


def test_token_losses_want_matrices():
    with pytest.raises(ValueError, match=r"same shape \(B, K\), found predicted \(3,\)"):
        losses.mse(torch.ones(3), torch.ones(3))


@pytest.mark.parametrize("temperature", [0, -0.1, float("nan"), float("inf")])
def test_bad_temperature(temperature):
    predicted, expected = pair()
    with pytest.raises(InputError, match="temperature: expected a number > 0"):
        losses.contrastive(predicted, expected, temperature)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_bad_weight(weight):
    with pytest.raises(InputError, match="contrastive_weight: expected a number from 0 to 1, found"):
        losses.token_loss(*pair(), contrastive_weight=weight)


def test_bad_distance():
    with pytest.raises(InputError, match=r"distance: expected one of mse, .*; found 'l2'"):
        losses.token_loss(*pair(), distance="l2")


def test_every_distance_has_a_name_that_flags_take():
    assert list(losses.DISTANCES) == list(get_args(losses.Distance))
