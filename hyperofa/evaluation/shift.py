"""Do new tokens leave the model as it was? What they take from its next-token distributions, in nats and mass.

Hewitt (2021, "Initializing new word embeddings for pretrained language models"): where m tokens are added to a model of
n rows, and each gets the mean row (and the mean bias), each new logit is the mean of the old ones, so by Jensen the new
tokens add at most m/n of the partition function Z, whatever the context, and KL(old ‖ new) ≤ log(1 + m/n). Zero rows
have logit 0 instead; where a model's logits are all far below 0, they take nearly everything.

What is compared. Both models read the same contexts, made of tokens that both vocabularies have.

- *Expansion* (the target tokenizer has all source tokens under their old ids): contexts are the lines of the text as
  the source tokenizer cuts them. This is Hewitt's setting, and the numbers are exact.
- *Replacement*: contexts are runs of source tokens that the target has as well (the same bytes and word start, or the
  same special role). They are crops of the text, `text_share` says of how much of it. The old distribution is
  restricted to shared tokens and renormalised, else the divergence would be infinite; where a share k of its mass is
  kept, the bound becomes log(1 + m/(n k)). What the new model does with its own tokens is not judged here.

In both, new tokens are all target rows that stand for no source token, padding rows too; the KL divergence counts what
they take, and any change to shared rows on top. A masked model is asked for 15 % of the tokens, masked.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.evaluation.scores import Metric
from hyperofa.evaluation.task import UNNAMED, Finding, LoadedModel, Request, Task
from hyperofa.models.objectives import Objective, longest, mask_tokens, objective_of, special_affixes
from hyperofa.runtime.devices import best_device
from hyperofa.runtime.pictures import save_picture
from hyperofa.runtime.text_files import read_lines
from hyperofa.tokens.canonical import bare_backend, canonical_tokens, extends, find_overlap, plain_encoder

METRICS = {
    "kl_mean": Metric("KL(old ‖ new), mean", "nats", "lower", 4, main=True),
    "kl_max": Metric("KL(old ‖ new), highest", "nats", "lower", 4),
    "bound_mean": Metric("bound of mean rows", "nats", None, 4),
    "over_bound": Metric("share of positions over the bound", "", "lower", 4),
    "new_mass_mean": Metric("mass on new tokens, mean", "", "lower", 4),
    "new_mass_max": Metric("mass on new tokens, highest", "", "lower", 4),
    "kept_mean": Metric("old mass on shared tokens, mean", "", None, 4),
    "log_z_old_mean": Metric("log Z before, mean", "nats", None, 2),
    "log_z_new_mean": Metric("log Z after, mean", "nats", None, 2),
}
MASS_LIMIT = 0.01
_MAX_TOKENS = 128
_MIN_RUN = 4
_BATCH = 8


@dataclass(frozen=True)
class Pairs:
    """Rows of two models that stand for the same token; no row is in two pairs.

    Attributes:
        source_ids: `(N,)` int64.
        target_ids: `(N,)` int64.
        expanded: the target vocabulary holds the source's under the old ids.
    """

    source_ids: np.ndarray
    target_ids: np.ndarray
    expanded: bool


@dataclass(frozen=True)
class Divergence:
    """What became of N next-token distributions.

    Attributes:
        kl: `(N,)` nats, KL(old ‖ new) on the shared tokens.
        new_mass: `(N,)` probability that the new model gives to new tokens.
        kept: `(N,)` probability that the old model gives to shared tokens; 1 in an expansion.
        log_z_old: `(N,)` log partition function of the old model.
        log_z_new: `(N,)` of the new one.
    """

    kl: np.ndarray
    new_mass: np.ndarray
    kept: np.ndarray
    log_z_old: np.ndarray
    log_z_new: np.ndarray

    def bound(self, new_tokens: int, source_rows: int) -> np.ndarray:
        """`(N,)` nats, what mean initialisation of `new_tokens` rows cannot exceed: log(1 + m/(n · kept)).

        Args:
            new_tokens: m.
            source_rows: n.
        """
        return np.log1p(new_tokens / (source_rows * self.kept))


def compare(old: Tensor, new: Tensor, source_ids: Tensor, target_ids: Tensor) -> Divergence:
    """Compare next-token distributions of two models in the same contexts.

    Args:
        old: `(N, S)` logits of the old model.
        new: `(N, T)` logits of the new one.
        source_ids: `(P,)` int64, shared tokens in the old vocabulary.
        target_ids: `(P,)` int64, the same tokens in the new one.

    Returns:
        N of each number, computed in double precision.
    """
    old, new = old.double(), new.double()
    is_new = torch.ones(new.shape[1], dtype=torch.bool, device=new.device)
    is_new[target_ids] = False
    log_z_old, log_z_new = old.logsumexp(1), new.logsumexp(1)
    shared = old[:, source_ids]
    log_shared = shared.logsumexp(1)
    expected = shared - log_shared[:, None]
    surprise = torch.where(expected > -torch.inf, expected - (new[:, target_ids] - log_z_new[:, None]), 0.0)
    kl = (expected.exp() * surprise).sum(1)
    new_mass = (new[:, is_new].logsumexp(1) - log_z_new).exp() if is_new.any() else torch.zeros_like(kl)
    values = (kl, new_mass, (log_shared - log_z_old).exp(), log_z_old, log_z_new)
    return Divergence(*(value.cpu().numpy() for value in values))


@dataclass(frozen=True)
class DistributionShift:
    """What a new vocabulary takes from a model on a text.

    Attributes:
        divergence: by position.
        new_tokens: m, target rows that stand for no source token.
        source_rows: n.
        text_share: share of the text's tokens that the contexts are made of.
        expanded: whether the vocabulary was expanded; else it was replaced.
        greediest: the new tokens that get the most mass, with their mean mass.
    """

    divergence: Divergence
    new_tokens: int
    source_rows: int
    text_share: float
    expanded: bool
    greediest: dict[str, float]

    @property
    def new_mass(self) -> float:
        """Mean mass on new tokens."""
        return float(self.divergence.new_mass.mean())

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        found = self.divergence
        bound = found.bound(self.new_tokens, self.source_rows)
        return {
            "setting": "expansion" if self.expanded else "replacement",
            "positions": len(found.kl),
            "text_share": self.text_share,
            "new_tokens": self.new_tokens,
            "source_rows": self.source_rows,
            "kl_mean": float(found.kl.mean()),
            "kl_max": float(found.kl.max()),
            "bound_mean": float(bound.mean()),
            "over_bound": float((found.kl > bound + 1e-4).mean()),
            "new_mass_mean": self.new_mass,
            "new_mass_max": float(found.new_mass.max()),
            "kept_mean": float(found.kept.mean()),
            "log_z_old_mean": float(found.log_z_old.mean()),
            "log_z_new_mean": float(found.log_z_new.mean()),
            "greediest": self.greediest,
        }

    def __str__(self) -> str:
        found = self.as_dict()
        tokens = " ".join(f"{token!r}:{mass:.2%}" for token, mass in self.greediest.items())
        setting = found["setting"] + (
            "" if self.expanded else f", {self.text_share:.0%} of the text is in runs of shared tokens"
        )
        return "\n".join(
            [
                f"safety over {found['positions']:,} positions ({setting}), {self.new_tokens:,} new tokens",
                f"  KL(old || new)       mean {found['kl_mean']:.4f}  max {found['kl_max']:.4f} nats",
                f"  mean-init bound      {found['bound_mean']:.4f} nats, exceeded at {found['over_bound']:.1%}",
                f"  mass on new tokens   mean {found['new_mass_mean']:.2%}  max {found['new_mass_max']:.2%}  {tokens}",
                f"  log Z                {found['log_z_old_mean']:.2f} before, {found['log_z_new_mean']:.2f} after",
            ]
        )

    def warn(self, limit: float = MASS_LIMIT) -> None:
        """Warn, with the number, when new tokens take more than a share of the mass."""
        if self.new_mass > limit:
            found = self.as_dict()
            warnings.warn(
                f"the {self.new_tokens:,} new tokens take {self.new_mass:.1%} of the probability mass (more than "
                f"{limit:.0%}); KL(old || new) is {found['kl_mean']:.3f} nats, mean initialisation stays under "
                f"{found['bound_mean']:.3f}; train the new rows first, or use --method mean",
                stacklevel=2,
            )

    def plot(self, picture: Path) -> None:
        """Draw histograms over the positions: KL against the bound, mass on new tokens, log Z before and after."""
        found = self.divergence
        bound = found.bound(self.new_tokens, self.source_rows)
        figure = Figure(figsize=(12, 3.4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        left.hist(found.kl, bins=40)
        left.axvline(bound.mean(), color="black", linestyle="--", label="log(1 + m/n)" if self.expanded else "bound")
        left.set(xlabel="KL(old ‖ new), nats", ylabel="positions")
        left.legend()
        middle.hist(found.new_mass, bins=40, range=(0, max(1e-6, float(found.new_mass.max()))))
        middle.axvline(MASS_LIMIT, color="black", linestyle=":", label=f"{MASS_LIMIT:.0%}")
        middle.set(xlabel="mass on new tokens")
        middle.legend()
        ends = (min(found.log_z_old.min(), found.log_z_new.min()), max(found.log_z_old.max(), found.log_z_new.max()))
        span = (float(ends[0]) - 1e-6, float(ends[1]) + 1e-6)
        right.hist(found.log_z_old, bins=40, range=span, alpha=0.6, label="before")
        right.hist(found.log_z_new, bins=40, range=span, alpha=0.6, label="after")
        right.set(xlabel="log Z")
        right.legend()
        save_picture(figure, picture)


def measure(source: LoadedModel, target: LoadedModel, lines: Sequence[str], seed: int = 0) -> DistributionShift:
    """Measure what a new vocabulary takes from a model.

    Args:
        source: the untouched model and its tokenizer; moved to the GPU if there is one.
        target: the model with the new vocabulary and its tokenizer; likewise.
        lines: text that the source model knows.
        seed: of the choice of masked tokens.

    Raises:
        InputError: the two are not both causal or both masked, or the text has no run of shared tokens.
    """
    (old, old_tokenizer), (new, new_tokenizer) = source, target
    objective = objective_of(old, "--source_model")
    if objective_of(new) != objective:
        raise InputError(
            f"--model: expected a {objective} language model like --source_model, found {type(new).__name__}"
        )
    rows = [_rows(model) for model in (old, new)]
    pairs = pair_tokens(old_tokenizer, new_tokenizer, *rows)
    batches, text_share = _contexts(old, old_tokenizer, pairs, lines, objective, seed)
    device = best_device()
    for model in (old, new):
        torch.nn.Module.to(model.eval(), device)
    translation = torch.zeros(rows[0], dtype=torch.int64)
    translation[pairs.source_ids] = torch.from_numpy(pairs.target_ids)
    ids = tuple(torch.from_numpy(side).to(device) for side in (pairs.source_ids, pairs.target_ids))
    parts, mass = [], torch.zeros(rows[1], dtype=torch.float64, device=device)
    with torch.inference_mode():
        for batch, is_target in batches:
            before = old(input_ids=batch.to(device)).logits
            after = new(input_ids=translation[batch].to(device)).logits
            for row, at in enumerate(is_target):
                chosen = after[row][at.to(device)]
                mass += chosen.double().softmax(1).sum(0)
                parts.append(compare(before[row][at.to(device)], chosen, *ids))
    found = Divergence(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))
    mass[ids[1]] = 0
    top = mass.topk(min(5, rows[1] - len(pairs.target_ids)))
    names = new_tokenizer.convert_ids_to_tokens(top.indices.tolist())
    shares = (top.values / len(found.kl)).tolist()
    greediest = {
        str(name or f"row {token}"): share
        for name, token, share in zip(names, top.indices.tolist(), shares, strict=True)
    }
    return DistributionShift(found, rows[1] - len(pairs.target_ids), rows[0], text_share, pairs.expanded, greediest)


def pair_tokens(
    source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, source_rows: int, target_rows: int
) -> Pairs:
    """Pair the rows of two vocabularies that stand for the same token.

    Args:
        source: tokenizer of the old model.
        target: tokenizer of the new one.
        source_rows: rows of the old model, those without a token included.
        target_rows: rows of the new model.
    """
    if extends(target, source):
        old, new = source.get_vocab(), target.get_vocab()
        taken = np.isin(np.arange(source_rows), list(set(new.values()) - set(old.values())))
        ids = np.flatnonzero(~taken & (np.arange(source_rows) < target_rows))
        return Pairs(ids, ids, True)
    overlap = find_overlap(canonical_tokens(source), canonical_tokens(target), plain_encoder(source))
    overlap = overlap.choose(["role", "exact"])
    first = np.unique(overlap.source_ids, return_index=True)[1]
    return Pairs(overlap.source_ids[first], overlap.target_ids[first], False)


def _rows(model: PreTrainedModel) -> int:
    return int(cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0])


Batch = tuple[Tensor, list[Tensor]]


def _contexts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Pairs,
    lines: Sequence[str],
    objective: Objective,
    seed: int,
) -> tuple[list[Batch], float]:
    """Batches of source ids `(B, L)` with the positions asked of each row, and the share of the text in them."""
    shared = np.zeros(_rows(model), bool)
    shared[pairs.source_ids] = True
    before, after = ([token for token in part if shared[token]] for part in special_affixes(tokenizer))
    if objective == "causal":
        after = []
    mask_id = tokenizer.mask_token_id
    if objective == "masked" and (mask_id is None or not shared[mask_id]):
        raise InputError("--model: expected a mask token in both tokenizers of a masked language model, found none")
    room = longest(model, tokenizer, _MAX_TOKENS) - len(before) - len(after)
    backend = bare_backend(tokenizer)
    total = 0
    runs: list[np.ndarray] = []
    for encoding in backend.encode_batch_fast(list(lines), add_special_tokens=False):
        line = np.array(encoding.ids, np.int64)[:room]
        total += len(line)
        runs += _runs(line, shared[line], 1 if pairs.expanded else _MIN_RUN)
    if not runs:
        raise InputError(
            f"--text: expected lines with at least {_MIN_RUN} successive tokens that both vocabularies have, found none"
        )
    generator = np.random.default_rng(seed)
    batches = []
    runs.sort(key=len)
    for group in _equally_long(runs):
        ids = torch.tensor([[*before, *run.tolist(), *after] for run in group])
        inside = torch.zeros_like(ids, dtype=torch.bool)
        inside[:, len(before) : ids.shape[1] - len(after)] = True
        if objective == "masked":
            ids, inside = mask_tokens(ids, inside, int(mask_id), None, generator)
        else:
            inside[:, :] = True
        batches.append((ids, [row.nonzero()[:, 0] for row in inside]))
    return batches, sum(map(len, runs)) / total


def _runs(ids: np.ndarray, shared: np.ndarray, shortest: int) -> Iterator[np.ndarray]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], shared, [False]]).astype(np.int8)))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start >= shortest:
            yield ids[start:end]


def _equally_long(runs: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    """Batches of runs of one length: without padding, no model's pad id or positions matter."""
    start = 0
    while start < len(runs):
        end = start
        while end < len(runs) and end - start < _BATCH and len(runs[end]) == len(runs[start]):
            end += 1
        yield runs[start:end]
        start = end


@dataclass(frozen=True)
class _Text:
    """Lines that the source model knows."""

    lines: list[str]
    language: str = UNNAMED


def _read(request: Request) -> list[_Text]:
    lines = [line for path in request.text for line in read_lines([path], "--text")[: request.sentences]]
    return [_Text(lines)] if lines else []


def _score(texts: Sequence[_Text], target: LoadedModel, source: LoadedModel, request: Request) -> Finding:
    shift = measure(source, target, texts[0].lines)
    found = shift.as_dict()
    values = {metric: {UNNAMED: found.pop(metric)} for metric in METRICS}
    return Finding({"shift": values}, {"shift": found}, lambda path: shift.plot(path.with_suffix(".png")))


TASK = Task("shift", METRICS, "text", "text", _read, _score)
