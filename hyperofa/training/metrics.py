"""What validation measures, as torchmetrics: right over batches and processes."""

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric

_SHORTEST = 1e-12  # `normalize` makes a unit vector of nothing shorter


class TokenMetrics(Metric):
    """How close predicted coordinates come to a token's own, and whether they single it out.

    The answer is looked for among the token's own coordinates and those of the memory.

    Computes a dictionary: `cosine`; `norm_ratio`, predicted length over expected length; `mrr`, the mean reciprocal
    rank of the right token by cosine; `hit10`, the share of ranks up to 10. A prediction that is not finite makes them
    NaN; one of length zero points nowhere, and ranks last.
    """

    full_state_update = False
    total: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, expected: Tensor, others: Tensor) -> None:
        """Add a batch.

        Args:
            predicted: `(B, K)`.
            expected: `(B, K)`.
            others: `(M, K)` coordinates of wrong answers.
        """
        predicted, expected = predicted.float(), expected.float()
        unit = normalize(predicted, dim=1)
        cosine = (unit * normalize(expected, dim=1)).sum(1)
        # The right answer may be among the others, where its cosine is rounded in another way.
        better = unit @ normalize(others.float(), dim=1).T > cosine.unsqueeze(1) + 1e-6
        length = predicted.norm(dim=1)
        rank = (1 + better.sum(1)).where(length > _SHORTEST, 1 + len(others))
        ratio = length / expected.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        columns = torch.stack([cosine, ratio, 1 / rank, (rank <= 10).float()], 1)
        columns[~length.isfinite()] = torch.nan  # no comparison with NaN is true, so that nothing would rank before it
        self.sums += columns.sum(0).double()
        self.total += len(rank)

    def compute(self) -> dict[str, Tensor]:
        """Means over all tokens."""
        means = (self.sums / self.total).float()
        return dict(zip(("cosine", "norm_ratio", "mrr", "hit10"), means, strict=True))


class MeansByGroup(Metric):
    """Means over all values and over those of each group, as of texts and their languages."""

    full_state_update = False
    values: list[Tensor]
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")
        self.add_state("groups", [], dist_reduce_fx="cat")

    def update(self, values: Tensor, groups: Tensor) -> None:
        """Add a batch.

        Args:
            values: `(B,)`.
            groups: `(B,)` int64, below 0 for none.
        """
        self.values.append(values.detach())
        self.groups.append(groups)

    def compute(self) -> tuple[Tensor, dict[int, Tensor]]:
        """The mean over all, and by group."""
        return _means(_joined(self.values), _joined(self.groups))


class SentenceRetrieval(Metric):
    """Mean reciprocal rank at which each sentence finds its own counterpart among all of them, by cosine.

    NaN if a sentence is not finite.
    """

    full_state_update = False
    queries: list[Tensor]
    keys: list[Tensor]
    groups: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("queries", [], dist_reduce_fx="cat")
        self.add_state("keys", [], dist_reduce_fx="cat")
        self.add_state("groups", [], dist_reduce_fx="cat")

    def update(self, queries: Tensor, keys: Tensor, groups: Tensor) -> None:
        """Add a batch of `(B, E)` unit vectors and their counterparts.

        Args:
            queries: `(B, E)`.
            keys: `(B, E)`, the right one of each query in its row.
            groups: `(B,)` int64 of the queries, below 0 for none.
        """
        self.queries.append(queries.detach())
        self.keys.append(keys.detach())
        self.groups.append(groups)

    def compute(self) -> tuple[Tensor, dict[int, Tensor]]:
        """The mean over all sentences, and by group."""
        scores = _joined(self.queries) @ _joined(self.keys).T
        ranks = 1 + (scores > scores.diagonal().unsqueeze(1)).sum(1)
        return _means((1 / ranks).where(scores.isfinite().all(1), torch.nan).float(), _joined(self.groups))


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """A state, which is one tensor once processes have shared it."""
    return torch.cat(list(state)) if isinstance(state, list) else state


def _means(values: Tensor, groups: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    ids = [group for group in groups.unique().tolist() if group >= 0]
    return values.mean(), {group: values[groups == group].mean() for group in ids}
