"""From a bundle and a method to a Hugging Face folder that loads without this package, with the origin of every row."""

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.evaluation.scores import numbers_in
from hyperofa.evaluation.shift import measure
from hyperofa.export.prediction import Trained, learned_share, load_trained, predict
from hyperofa.methods import baselines
from hyperofa.methods.baselines import OFAConfig, Predictions
from hyperofa.methods.fallbacks import ORIGINS, Filled, plan_and_fill, target_inputs
from hyperofa.methods.registry import Context, Method, method_named
from hyperofa.models.card import model_card
from hyperofa.models.factorised import factorise, parameter_count
from hyperofa.models.loading import load_model
from hyperofa.models.manifest import command, seal
from hyperofa.models.vocabulary import Vocabulary, read_vocabulary, replace_vocabulary
from hyperofa.reference import lost_bias
from hyperofa.runtime.folders import fingerprint, read_json, resumed_folder, sha256_file, sha256_text, versions
from hyperofa.runtime.processes import process_group
from hyperofa.runtime.sharding import ShardCache
from hyperofa.runtime.text_files import read_lines
from hyperofa.tokens.canonical import OVERLAP_KINDS, OverlapKind

_SHARDS = "shards"
_SAFETY_LINES = 100


@dataclass(frozen=True)
class Export:
    """A written model folder, the number of rows of each origin, and of parameters if the embeddings are factorised."""

    path: Path
    method: str
    counts: dict[str, int]
    parameters: int | None = None

    def __str__(self) -> str:
        rows = ", ".join(f"{count:,} {origin}" for origin, count in self.counts.items() if count)
        size = "" if self.parameters is None else f"; factorised, {self.parameters:,} parameters"
        return f"{self.path}: {self.method}, rows {rows}{size}"


def export(
    bundle: Path,
    method: str,
    output: Path,
    checkpoint: list[Path] | None = None,
    source_model: str | None = None,
    mixing: OFAConfig = OFAConfig(),  # noqa: B008  frozen
    ofa_share: float | None = 0.0,
    copied: list[OverlapKind] | None = None,
    pad_to_multiple_of: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    text: list[Path] | None = None,
    scores: Path | None = None,
    factorised: bool = False,
) -> Export:
    """Write the source model with the target vocabulary, its rows initialised by one method.

    Killed, it goes on where it was when called again with the same flags. Under `torchrun` the processes share the
    prediction; the folder has the same bytes.

    Args:
        bundle: folder written by `hyperofa prepare`; after --reference true, hyperofa, ofa and random do as the
            published code does.
        method: hyperofa (needs --checkpoint); ofa (as published: k = 10, T = 0.1, overlap by role, exact and case);
            ofa_tuned (our pooling, k = 3, rescaled); subtokens (mean of the source tokens that spell a token); mean;
            mean_noise (Hewitt's, covariance noise of scale 1e-5); random (normal, like the source rows); small_noise
            (normal around zero, standard deviation 0.02, transformers' default) and zeros, to see what they break; or
            one that you have registered.
        output: model folder to write.
        checkpoint: trained hypernetwork of `hyperofa fit`; the mean over several of them if the flag is repeated.
        mixing: how ofa_tuned, and the OFA that hyperofa is blended with, mix source rows.
        ofa_share: part of ofa_tuned in every row that hyperofa predicts, from 0 to 1; null for the share that does best
            on the validation tokens.
        source_model: where the source model is now, if it moved since `hyperofa prepare`.
        copied: kinds of overlap whose rows are copied (role, exact, case, symbol); other tokens of the overlap are
            predicted if the method can. The method's own choice if not given.
        pad_to_multiple_of: round the number of rows up to a multiple of this.
        seed: of the noise of mean_noise, random and small_noise.
        overwrite: replace a folder that is already there.
        text: files of text that the source model knows, one sentence a line. If given, what the new tokens take from
            a causal or masked language model is measured on their first lines and written to the manifest, with a
            warning above 1 % of the mass; see `hyperofa evaluate`.
        scores: JSON file of an evaluation of this very model, for its card.
        factorised: keep the embeddings as coordinates F and primitives P, the parameters that the papers count; needs a
            bundle of --coordinate_dim below the embedding width. All rows are F P then, copied ones too.

    Returns:
        What was written.

    Raises:
        InputError: an input is missing or belongs to another bundle.
    """
    opened = Bundle.load(bundle)
    chosen = method_named(method, reference=opened.meta.reference)
    if chosen.trained != bool(checkpoint):
        raise InputError(
            "--checkpoint: expected the checkpoint of a trained net with --method hyperofa, and none with others; "
            f"found --method {method} with {' '.join(map(str, checkpoint or [])) or 'none'}"
        )
    widest = max(opened.meta.input_dim, opened.meta.output_dim)
    if factorised and widest >= opened.meta.embedding_dim:
        raise InputError(
            f"--factorised true: expected a bundle of fewer coordinates than the {opened.meta.embedding_dim} columns "
            f"of the embeddings, found {widest} in --bundle {bundle}; prepare one with --coordinate_dim"
        )
    if ofa_share is not None and not 0 <= ofa_share <= 1:
        raise InputError(f"--ofa_share: expected a number from 0 to 1, or null, found {ofa_share}")
    source_model = source_model or opened.meta.source_model
    measured = None if scores is None else numbers_in(read_json(scores))
    lines = [line for path in text or [] for line in read_lines([path], "--text")[:_SAFETY_LINES]]
    files = fingerprint(bundle, source_model, *(checkpoint or []), *(text or []), *([] if scores is None else [scores]))
    settings = (method, mixing, ofa_share, copied, pad_to_multiple_of, seed, factorised)
    key = sha256_text(files, f"{settings} {versions()}")
    with process_group() as group, resumed_folder(output, key, overwrite, group) as folder:
        model = load_model(source_model)
        vocabulary = read_vocabulary(model)
        opened.check_source(vocabulary, source_model)
        cache = ShardCache(folder / _SHARDS, group)
        if checkpoint:
            nets = [load_trained(path, opened) for path in checkpoint]
            filled = _from_nets(opened, chosen, nets, mixing, ofa_share, copied, cache)
        else:
            filled = _from_function(opened, chosen, Context(seed, mixing, cache), copied)
        parameters = None
        if group.first:
            norms = _put_rows(opened, vocabulary, filled, model, pad_to_multiple_of, factorised)
            parameters = parameter_count(model)
            safety = None
            if lines:
                source = load_model(source_model), opened.tokenizer("source")
                safety = measure(source, (model, opened.tokenizer("target")), lines)
                safety.warn()
            record = {
                "method": method,
                "seed": seed,
                "source_model": opened.meta.source_model,
                "source_hash": opened.meta.source_hash,
                "target_hash": opened.meta.target_hash,
                "space": opened.meta.training_fingerprint,
                "checkpoint": [sha256_file(path) for path in checkpoint or []],
                "counts": filled.counts(),
                "parameters": parameters,
                "factorised": factorised,
                "safety": None if safety is None else safety.as_dict(),
            }
            _write(folder, opened, chosen, model, filled, norms, record, measured)
    return Export(output, method, filled.counts(), parameters if factorised else None)


def _from_nets(
    bundle: Bundle,
    method: Method,
    nets: Sequence[Trained],
    mixing: OFAConfig,
    ofa_share: float | None,
    copied: Sequence[OverlapKind] | None,
    cache: ShardCache,
) -> Filled:
    """The mean prediction of the nets, blended with OFA."""
    predictions = [predict(net, bundle, cache=cache, name=f"net-{number}") for number, net in enumerate(nets)]
    rows = Predictions(np.mean([each.coordinates for each in predictions], axis=0), predictions[0].known)
    inputs = target_inputs(bundle)
    share = learned_share(bundle, nets[0], mixing) if ofa_share is None else ofa_share
    if share > 0:
        rows = baselines.blend(rows, baselines.ofa(inputs, mixing, cache), share)
    return plan_and_fill(bundle, inputs, rows, nets[0].copied if copied is None else copied, method.fallback)


def _from_function(bundle: Bundle, method: Method, context: Context, copied: Sequence[OverlapKind] | None) -> Filled:
    """What a method without training says."""
    inputs = target_inputs(bundle, method.pooling)
    return plan_and_fill(
        bundle, inputs, method.predict(inputs, context), method.copied if copied is None else copied, method.fallback
    )


def _put_rows(
    bundle: Bundle,
    vocabulary: Vocabulary,
    filled: Filled,
    model: PreTrainedModel,
    multiple: int | None,
    factorised: bool,
) -> np.ndarray:
    """Coordinates to rows; copied tokens get the source model's own rows and bias, others the mean bias.

    Returns:
        `(T,)` lengths of the input rows.
    """
    inputs, outputs = bundle.rows(filled.coordinates)
    copies = np.flatnonzero(filled.origins == ORIGINS.index("copied"))
    sources = filled.mixture[copies].indices
    if not factorised:
        inputs[copies] = vocabulary.input_rows[sources]
    if outputs is not None and vocabulary.output_rows is not None and not factorised:
        outputs[copies] = vocabulary.output_rows[sources]
    bias = None
    if vocabulary.bias is not None:
        bias = np.full(len(inputs), vocabulary.bias.mean(), np.float32)
        bias[copies] = vocabulary.bias[sources]
        if bundle.meta.reference:
            bias = lost_bias(len(inputs), bundle.meta.input_dim)
    pairs = bundle.overlap.choose()
    replace_vocabulary(
        model,
        inputs,
        output_rows=outputs,
        bias=bias,
        special_ids=bundle.tokenizer("target"),
        moved=dict(zip(pairs.source_ids.tolist(), pairs.target_ids.tolist(), strict=True)),
        pad_to_multiple_of=multiple,
        copy_rows=False,
    )
    if factorised:
        factorise(model, filled.coordinates, bundle.input_primitives, bundle.output_primitives)
    return np.sqrt(np.einsum("te,te->t", inputs, inputs))


def _write(
    folder: Path,
    bundle: Bundle,
    method: Method,
    model: PreTrainedModel,
    filled: Filled,
    norms: np.ndarray,
    record: dict[str, Any],
    scores: Any,
) -> None:
    """Write the model, its tokenizer, and all that tells where they come from."""
    model.save_pretrained(folder)
    bundle.load_tokenizer("target").save_pretrained(folder)
    _write_provenance(bundle, filled, norms, folder / "provenance.tsv")
    card = model_card(
        model,
        base_model=bundle.meta.source_model,
        method=method.name,
        story=method.story(),
        citation=method.citation,
        counts=filled.counts(),
        command=command(),
        scores=scores,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder / _SHARDS, ignore_errors=True)
    seal(folder, model, record)


def _write_provenance(bundle: Bundle, filled: Filled, norms: np.ndarray, path: Path) -> None:
    """One line a target token: its origin, kind of overlap, number of words, length of the row, source tokens."""
    names = bundle.tokenizer("source").convert_ids_to_tokens(list(range(bundle.meta.source_tokens)))
    tokens = bundle.tokenizer("target").convert_ids_to_tokens(list(range(bundle.meta.target_tokens)))
    pairs = bundle.overlap
    places = zip(pairs.target_ids[::-1].tolist(), pairs.source_ids[::-1].tolist(), strict=True)
    kinds = dict(zip(places, pairs.kinds[::-1].tolist(), strict=True))  # of several kinds the first counts
    words, mixture = bundle.target.counts, filled.mixture
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["id", "token", "origin", "overlap", "words", "norm", "sources"])
        for token, name in enumerate(tokens):
            span = slice(mixture.indptr[token], mixture.indptr[token + 1])
            parts = sorted(zip(-mixture.data[span], mixture.indices[span], strict=True))
            sources = " ".join(f"{names[source]}:{-weight:.4f}" for weight, source in parts)
            origin = ORIGINS[filled.origins[token]]
            kind = OVERLAP_KINDS[kinds[token, parts[0][1]]] if origin == "copied" else ""
            table.writerow([token, name, origin, kind, words[token], f"{norms[token]:.4f}", sources])
