import numpy as np
import pytest
import torch

from hyperofa.training.metrics import SentenceRetrieval, TokenMetrics


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_token_metrics_equal_brute_force():
    rng = np.random.default_rng(0)
    predicted, expected, others = (rng.standard_normal((n, 5)).astype(np.float32) for n in (23, 23, 60))
    expected += predicted
    metrics = TokenMetrics()
    for start in range(0, 23, 7):
        metrics.update(
            *(torch.from_numpy(part[start : start + 7]) for part in (predicted, expected)), torch.tensor(others)
        )
    ranks, cosines = [], (unit(predicted) * unit(expected)).sum(1)
    for row, cosine in zip(predicted, cosines, strict=True):
        ranks.append(1 + sum(other @ row / np.linalg.norm(other) / np.linalg.norm(row) > cosine for other in others))
    ratios = np.linalg.norm(predicted, axis=1) / np.linalg.norm(expected, axis=1)
    found = {name: value.item() for name, value in metrics.compute().items()}
    ranks = np.array(ranks)
    best = {"cosine": cosines.mean(), "norm_ratio": ratios.mean(), "mrr": (1 / ranks).mean()}
    assert found == pytest.approx({**best, "hit10": (ranks <= 10).mean()}, rel=1e-5)
    assert 0 < found["hit10"] < 1


def test_perfect_predictions_score_one():
    rows = torch.eye(4)
    metrics = TokenMetrics()
    metrics.update(rows * 2, rows, -rows)
    assert {name: value.item() for name, value in metrics.compute().items()} == {
        "cosine": 1, "norm_ratio": 2, "mrr": 1, "hit10": 1,
    }  # fmt: skip


def test_sentence_retrieval_equals_brute_force():
    rng = np.random.default_rng(1)
    keys = unit(rng.standard_normal((30, 6))).astype(np.float32)
    queries = unit(keys + rng.standard_normal((30, 6))).astype(np.float32)
    groups = rng.integers(-1, 3, 30)
    metric = SentenceRetrieval()
    for start in range(0, 30, 8):
        metric.update(*(torch.from_numpy(part[start : start + 8]) for part in (queries, keys, groups)))
    ranks = [1 + sum(query @ key > query @ keys[i] for key in keys) for i, query in enumerate(queries)]
    mean, by_group = metric.compute()
    reciprocal = np.array([1 / rank for rank in ranks])
    assert mean.item() == pytest.approx(reciprocal.mean(), rel=1e-5)
    assert {group: value.item() for group, value in by_group.items()} == pytest.approx(
        {group: reciprocal[groups == group].mean() for group in range(3)}, rel=1e-5
    )
    metric.reset()
    metric.update(torch.eye(3), torch.eye(3), torch.full((3,), -1))
    assert metric.compute() == (1, {})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_is_not_finite_has_no_rank(value):
    rows = torch.eye(4)
    predicted = rows.clone()
    predicted[1] = value
    metrics = TokenMetrics()
    metrics.update(predicted, rows, -rows)
    metrics.update(rows, rows, -rows)
    assert all(value.isnan() for value in metrics.compute().values())
    retrieval = SentenceRetrieval()
    retrieval.update(predicted * torch.nan, rows, torch.zeros(4, dtype=torch.int64))
    assert retrieval.compute()[0].isnan()


def test_a_prediction_without_direction_ranks_last():
    rows = torch.eye(4)
    metrics = TokenMetrics()
    metrics.update(torch.zeros(4, 4), rows, torch.cat([rows, -rows, rows, -rows]))
    assert metrics.compute()["mrr"].item() == pytest.approx(1 / 17)
    assert metrics.compute()["hit10"].item() == 0
