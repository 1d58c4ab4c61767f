"""From a bundle and a method to a Hugging Face folder that loads without this package, with the origin of every row."""

import csv
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from transformers import PreTrainedModel

from hyperofa import baselines
from hyperofa.artifacts import new_folder, sha256_file, versions, write_json
from hyperofa.baselines import Rows, Task
from hyperofa.bundle import Bundle, Pooling
from hyperofa.errors import InputError
from hyperofa.initialisation import ORIGINS, Initialisation, initialise, target_task
from hyperofa.plm import load_model
from hyperofa.prediction import load_trained, predict
from hyperofa.prepare import hash_rows
from hyperofa.surgery import Vocabulary, read_vocabulary, replace_vocabulary
from hyperofa.tokens import OVERLAP_KINDS, OverlapKind

Method = Literal["hyperofa", "ofa", "ofa_tuned", "subtokens", "mean", "mean_noise", "random"]
METHODS: tuple[Method, ...] = get_args(Method)
HEWITT_NOISE = 1e-5


@dataclass(frozen=True)
class _Baseline:
    """A method without training: how it sees words, what it copies, and what it computes."""

    rows: Callable[[Task, np.random.Generator], Rows]
    pooling: Pooling = "weighted"
    copied: tuple[OverlapKind, ...] = OVERLAP_KINDS


_BASELINES: dict[str, _Baseline] = {
    "ofa": _Baseline(lambda task, _: baselines.ofa(task), "duplicates", ("role", "exact", "case")),
    "ofa_tuned": _Baseline(lambda task, _: baselines.ofa(task, neighbours=3, rescale=True)),
    "subtokens": _Baseline(lambda task, _: baselines.subtokens(task)),
    "mean": _Baseline(baselines.mean),
    "mean_noise": _Baseline(lambda task, rng: baselines.mean(task, rng, HEWITT_NOISE)),
    "random": _Baseline(baselines.random),
}


@dataclass(frozen=True)
class Export:
    """A written model folder and the number of rows of each origin."""

    path: Path
    method: str
    counts: dict[str, int]

    def __str__(self) -> str:
        rows = ", ".join(f"{count:,} {origin}" for origin, count in self.counts.items() if count)
        return f"{self.path}: {self.method}, rows {rows}"


def export(
    bundle: Path,
    method: Method,
    output: Path,
    checkpoint: Path | None = None,
    source_model: str | None = None,
    copied: list[OverlapKind] | None = None,
    pad_to_multiple_of: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Export:
    """Write the source model with the target vocabulary, its rows initialised by one method.

    Args:
        bundle: folder written by `hyperofa prepare`.
        method: hyperofa (needs --checkpoint); ofa (as published: k = 10, T = 0.1, overlap by role, exact and case);
            ofa_tuned (our pooling, k = 3, rescaled); subtokens (mean of the source tokens that spell a token); mean;
            mean_noise (Hewitt's, covariance noise of scale 1e-5); random (normal, like the source rows).
        output: model folder to write.
        checkpoint: trained hypernetwork of `hyperofa fit`.
        source_model: where the source model is now, if it moved since `hyperofa prepare`.
        copied: kinds of overlap whose rows are copied (role, exact, case, symbol); other tokens of the overlap are
            predicted if the method can. The method's own choice if not given.
        pad_to_multiple_of: round the number of rows up to a multiple of this.
        seed: of the noise of mean_noise and random.
        overwrite: replace a folder that is already there.

    Returns:
        What was written.

    Raises:
        InputError: an input is missing or belongs to another bundle.
    """
    opened = Bundle.load(bundle)
    if (method == "hyperofa") != (checkpoint is not None):
        raise InputError(
            "--checkpoint: expected the checkpoint of a trained net with --method hyperofa, and none with others; "
            f"found --method {method} with {checkpoint or 'none'}"
        )
    with new_folder(output, overwrite) as folder:
        model = load_model(source_model or opened.meta.source_model)
        vocabulary = read_vocabulary(model)
        if hash_rows(vocabulary) != opened.meta.source_hash:
            raise InputError(
                f"--source_model {source_model or opened.meta.source_model}: expected the model that --bundle {bundle} "
                "was prepared with, found other embeddings; prepare again, or give the right one"
            )
        filled = _initialise(opened, method, checkpoint, copied, seed)
        _put_rows(opened, vocabulary, filled, model, pad_to_multiple_of)
        model.save_pretrained(folder)
        opened.tokenizer("target").save_pretrained(folder)
        _write_provenance(opened, filled, folder / "provenance.tsv")
        manifest = {
            "method": method,
            "seed": seed,
            "source_model": opened.meta.source_model,
            "source_hash": opened.meta.source_hash,
            "target_hash": opened.meta.target_hash,
            "space": opened.meta.space,
            "checkpoint": None if checkpoint is None else sha256_file(checkpoint),
            "counts": filled.counts(),
            "versions": versions(),
            "command": shlex.join(["hyperofa", *sys.argv[1:]]),
            "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        }
        write_json(folder / "manifest.json", manifest)
    return Export(output, method, filled.counts())


def _initialise(
    bundle: Bundle, method: Method, checkpoint: Path | None, copied: Sequence[OverlapKind] | None, seed: int
) -> Initialisation:
    if checkpoint is not None:
        trained = load_trained(checkpoint, bundle)
        return initialise(bundle, predict(trained, bundle), target_task(bundle), copied or trained.copied)
    baseline = _BASELINES[method]
    task = target_task(bundle, baseline.pooling)
    rows = baseline.rows(task, np.random.default_rng(seed))
    return initialise(bundle, rows, task, copied or baseline.copied)


def _put_rows(
    bundle: Bundle, vocabulary: Vocabulary, filled: Initialisation, model: PreTrainedModel, multiple: int | None
) -> None:
    """Coordinates to rows; copied tokens get the source model's own rows and bias, others the mean bias."""
    inputs, outputs = bundle.rows(filled.coordinates)
    copies = np.flatnonzero(filled.origins == ORIGINS.index("copied"))
    sources = filled.mixture[copies].indices
    inputs[copies] = vocabulary.input_rows[sources]
    if outputs is not None and vocabulary.output_rows is not None:
        outputs[copies] = vocabulary.output_rows[sources]
    bias = None
    if vocabulary.bias is not None:
        bias = np.full(len(inputs), vocabulary.bias.mean(), np.float32)
        bias[copies] = vocabulary.bias[sources]
    pairs = bundle.overlap.choose()
    replace_vocabulary(
        model,
        inputs,
        output_rows=outputs,
        bias=bias,
        special_ids=bundle.tokenizer("target"),
        moved=dict(zip(pairs.source_ids.tolist(), pairs.target_ids.tolist(), strict=True)),
        pad_to_multiple_of=multiple,
    )


def _write_provenance(bundle: Bundle, filled: Initialisation, path: Path) -> None:
    """One line a target token: its origin, kind of overlap, number of words, length of the row, source tokens."""
    names = bundle.tokenizer("source").convert_ids_to_tokens(list(range(bundle.meta.source_tokens)))
    tokens = bundle.tokenizer("target").convert_ids_to_tokens(list(range(bundle.meta.target_tokens)))
    pairs = bundle.overlap.choose()
    kinds = dict(zip(pairs.target_ids.tolist(), pairs.kinds.tolist(), strict=True))
    norms = np.linalg.norm(bundle.rows(filled.coordinates)[0], axis=1)
    words, mixture = bundle.target.counts, filled.mixture
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["id", "token", "origin", "overlap", "words", "norm", "sources"])
        for token, name in enumerate(tokens):
            span = slice(mixture.indptr[token], mixture.indptr[token + 1])
            parts = sorted(zip(-mixture.data[span], mixture.indices[span], strict=True))
            sources = " ".join(f"{names[source]}:{-weight:.4f}" for weight, source in parts)
            kind = OVERLAP_KINDS[kinds[token]] if token in kinds else ""
            origin = ORIGINS[filled.origins[token]]
            table.writerow([token, name, origin, kind, words[token], f"{norms[token]:.4f}", sources])
