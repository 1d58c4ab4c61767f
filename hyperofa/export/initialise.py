"""From a bundle and a method to a model with a new vocabulary, in memory or in a folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.evaluation.shift import measure
from hyperofa.export.prediction import learned_share, predict
from hyperofa.methods import baselines
from hyperofa.methods.baselines import TUNED_OFA, OFAConfig, Predictions
from hyperofa.methods.fallbacks import ORIGINS, Filled, plan_and_fill, target_inputs
from hyperofa.methods.registry import Context, Method, method_named
from hyperofa.models.factorised import factorise, parameter_count
from hyperofa.models.folder import Making, finish, write_model
from hyperofa.models.source import ModelLike, SourceModel, source_of
from hyperofa.models.vocabulary import Vocabulary, read_vocabulary, replace_vocabulary
from hyperofa.reference import lost_bias
from hyperofa.runtime.calls import Call, written_call
from hyperofa.runtime.folders import new_folder
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.runtime.text_files import read_lines
from hyperofa.tokens.canonical import OVERLAP_KINDS, OverlapKind
from hyperofa.training.hypernetwork import Hypernetwork, trained_on

HypernetworkLike = str | Path | Hypernetwork
_SAFETY_LINES = 100
_COLUMNS = ("id", "token", "origin", "overlap", "words", "norm", "sources")


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


@dataclass(frozen=True, eq=False)
class Initialised:
    """The rows of a target vocabulary, and the model they are for.

    Attributes:
        bundle: what they were made from.
        method: how.
        filled: their coordinates and origins.
        source: the model whose vocabulary they replace.
        call: what made them.
        facts: what the manifest tells of that.
    """

    bundle: Bundle
    method: Method
    filled: Filled
    source: SourceModel
    call: Call
    facts: dict[str, Any] = field(repr=False)

    @property
    def coordinates(self) -> np.ndarray:
        """`(T, K)` float32."""
        return self.filled.coordinates

    @property
    def origins(self) -> np.ndarray:
        """`(T,)` str, where each row came from: copied, predicted, subtokens, script, mean or noise."""
        return np.array(ORIGINS)[self.filled.origins]

    def counts(self) -> dict[str, int]:
        """Rows of each origin."""
        return self.filled.counts()

    def __repr__(self) -> str:
        rows = ", ".join(f"{count:,} {origin}" for origin, count in self.counts().items() if count)
        return f"Initialised(method={self.method.name!r}, rows={rows})"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The target tokenizer, yours to change."""
        return self.bundle.load_tokenizer("target")

    def to_model(self, *, factorised: bool = False, pad_to_multiple_of: int | None = None) -> PreTrainedModel:
        """The source model with these rows; a new model each time.

        Args:
            factorised: keep the embeddings as coordinates F and primitives P; needs a bundle of fewer coordinates than
                the embeddings have columns. All rows are F P then, copied ones too.
            pad_to_multiple_of: round the number of rows up to a multiple of this.

        Raises:
            InputError: a bundle of full width, to be factorised; or the source model is no longer there.
        """
        return self._realise(factorised, pad_to_multiple_of)[0]

    def save(
        self,
        folder: str | Path,
        *,
        factorised: bool = False,
        pad_to_multiple_of: int | None = None,
        text: Sequence[str | Path] = (),
        scores: dict[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Export:
        """Write the model, its tokenizer, and where each row came from; transformers alone can load the folder.

        Args:
            folder: model folder to write.
            factorised: as for `to_model`.
            pad_to_multiple_of: as for `to_model`.
            text: files of text that the source model knows; what the new tokens take is measured on it.
            scores: results of an evaluation of this very model, for its card.
            overwrite: replace a folder that is already there.

        Raises:
            InputError: as for `to_model`, or a folder that is there.
        """
        lines = text_sample(text)
        inputs = [self.bundle.path, self.source.name, *text]
        with new_folder(folder, overwrite, kind="model", inputs=inputs) as partial_folder:
            model = self.write(partial_folder, factorised, pad_to_multiple_of, scores)
            parameters = self.finish(partial_folder, model, lines)
        return Export(Path(folder), self.method.name, self.counts(), parameters if factorised else None)

    def write(
        self, folder: Path, factorised: bool, pad_to_multiple_of: int | None, scores: dict[str, Any] | None
    ) -> PreTrainedModel:
        """Write all but the manifest; what was written.

        Args:
            folder: is there.
            factorised: as for `to_model`.
            pad_to_multiple_of: as for `to_model`.
            scores: as for `save`.
        """
        model, norms = self._realise(factorised, pad_to_multiple_of)
        self.tokenizer().save_pretrained(folder)
        write_model(model, folder, self._making(), _COLUMNS, self._provenance(norms), self.counts(), scores)
        return model

    def finish(self, folder: Path, model: PreTrainedModel, lines: Sequence[str]) -> int | None:
        """Measure the model on some text, if there is any, and write the manifest.

        Args:
            folder: what `write` wrote.
            model: what it returned.
            lines: of the text.

        Returns:
            Its parameters.
        """
        shift = None
        if lines:
            source = self.source.load(), self.bundle.tokenizer("source")
            shift = measure(source, (model, self.bundle.tokenizer("target")), lines)
            shift.warn()
        meta, parameters = self.bundle.meta, parameter_count(model)
        finish(
            folder,
            model,
            self._making(),
            self.counts(),
            source_model=meta.source_model,
            source_hash=meta.source_hash,
            target_hash=meta.target_hash,
            space=meta.training_fingerprint,
            parameters=parameters,
            factorised=type(model).__name__.startswith("Factorised"),
            safety=None if shift is None else shift.as_dict(),
            **self.facts,
        )
        return parameters

    def _making(self) -> Making:
        method = self.method
        return Making(method.name, method.story(), self.bundle.meta.source_model, self.call, method.citation)

    def _realise(self, factorised: bool, multiple: int | None) -> tuple[PreTrainedModel, np.ndarray]:
        """The model, and the length of each input row `(T,)`."""
        if factorised:
            check_factorised(self.bundle)
        model, vocabulary = load_source(self.bundle, self.source)
        return model, _put_rows(self.bundle, vocabulary, self.filled, model, multiple, factorised)

    def _provenance(self, norms: np.ndarray) -> Iterator[Sequence[Any]]:
        """One line a target token: its origin, kind of overlap, number of words, length of the row, source tokens."""
        bundle, mixture = self.bundle, self.filled.mixture
        names = bundle.tokenizer("source").convert_ids_to_tokens(list(range(bundle.meta.source_tokens)))
        tokens = bundle.tokenizer("target").convert_ids_to_tokens(list(range(bundle.meta.target_tokens)))
        words = bundle.target.counts
        for token, name in enumerate(tokens):
            span = slice(mixture.indptr[token], mixture.indptr[token + 1])
            parts = sorted(zip(-mixture.data[span], mixture.indices[span], strict=True))
            sources = " ".join(f"{names[source]}:{-weight:.4f}" for weight, source in parts)
            origin = ORIGINS[self.filled.origins[token]]
            kind = OVERLAP_KINDS[self.filled.kinds[token]] if origin == "copied" else ""
            yield [token, name, origin, kind, words[token], f"{norms[token]:.4f}", sources]


def initialise(
    bundle: Bundle | str | Path,
    method: str = "hyperofa",
    *,
    hypernetwork: HypernetworkLike | Sequence[HypernetworkLike] | None = None,
    source_model: ModelLike | None = None,
    mixing: OFAConfig = TUNED_OFA,
    ofa_share: float | None = 0.0,
    copied: Sequence[OverlapKind] | None = None,
    seed: int = 0,
    cache: ShardCache = IN_MEMORY,
) -> Initialised:
    """Initialise the target vocabulary of a bundle by one method.

    Args:
        bundle: what `prepare` returned, or its folder.
        method: name of a method, see `hyperofa.methods.registry.METHODS`.
        hypernetwork: what `fit` returned or a checkpoint of it, for the method `hyperofa`; the mean over several.
        source_model: the source model, if it is no longer where it was when the bundle was prepared.
        mixing: how ofa_tuned, and the OFA that hyperofa is blended with, mix source rows.
        ofa_share: part of ofa_tuned in every row that hyperofa predicts, from 0 to 1; `None` for the share that does
            best on the validation tokens.
        copied: kinds of overlap whose rows are copied; other tokens of the overlap are predicted if the method can.
            The method's own choice if not given.
        seed: of the noise of seeded methods.
        cache: where shards of long work are kept, and who shares it.

    Returns:
        The rows; `to_model` and `save` put them into the model.

    Raises:
        InputError: no such method or net, or inputs that do not belong together.

    Example:
        >>> import hyperofa
        >>> initialised = hyperofa.initialise("bundle", "ofa_tuned")
        >>> initialised
        Initialised(method='ofa_tuned', rows=... copied, ... predicted, ... subtokens)
        >>> model, tokenizer = initialised.to_model(), initialised.tokenizer()
        >>> model.get_input_embeddings().num_embeddings == len(tokenizer)
        True
        >>> print(hyperofa.initialise("bundle", hypernetwork="best.ckpt").save("my_model"))
        my_model: hyperofa, rows ... predicted...
    """
    call = written_call(initialise, {**locals(), "cache": IN_MEMORY})
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    given = [] if hypernetwork is None else hypernetwork if isinstance(hypernetwork, Sequence) else [hypernetwork]
    nets: list[HypernetworkLike] = [hypernetwork] if isinstance(hypernetwork, str) else list(given)
    chosen = check_choice(bundle, method, nets, ofa_share)
    source = source_of(source_model or bundle.source_model)
    load_source(bundle, source)
    if chosen.trained:
        trained = [trained_on(bundle, net) for net in nets]
        filled = _from_nets(bundle, chosen, trained, mixing, ofa_share, copied, cache)
    else:
        inputs = target_inputs(bundle, chosen.pooling)
        rows = chosen.predict(inputs, Context(seed, mixing, cache))
        filled = plan_and_fill(bundle, inputs, rows, chosen.copied if copied is None else copied, chosen.fallback)
    digests = [net.digest for net in trained] if chosen.trained else []
    return Initialised(bundle, chosen, filled, source, call, {"seed": seed, "checkpoint": digests})


def check_choice(bundle: Bundle, method: str, hypernetworks: Sequence[Any], ofa_share: float | None = 0.0) -> Method:
    """The method of a name, if all it needs is there and nothing else.

    Args:
        bundle: that it will be used on.
        method: its name.
        hypernetworks: trained nets or their checkpoints.
        ofa_share: see `initialise`.

    Raises:
        InputError: naming the flag.
    """
    chosen = method_named(method, reference=bundle.meta.reference)
    if chosen.trained != bool(hypernetworks):
        raise InputError(
            "--checkpoint: expected the checkpoint of a trained net with --method hyperofa, and none with others; "
            f"found --method {method} with {' '.join(map(str, hypernetworks)) or 'none'}"
        )
    if ofa_share is not None and not 0 <= ofa_share <= 1:
        raise InputError(f"--ofa_share: expected a number from 0 to 1, or null, found {ofa_share}")
    return chosen


def check_factorised(bundle: Bundle) -> None:
    """Refuse to factorise a model of full width.

    Raises:
        InputError: the bundle has as many coordinates as the embeddings have columns.
    """
    widest = max(bundle.meta.input_dim, bundle.meta.output_dim)
    if widest >= bundle.meta.embedding_dim:
        raise InputError(
            f"--factorised true: expected a bundle of fewer coordinates than the {bundle.meta.embedding_dim} columns "
            f"of the embeddings, found {widest} in --bundle {bundle.path}; prepare one with --coordinate_dim"
        )


def text_sample(text: Sequence[str | Path]) -> list[str]:
    """The first lines of each file, on which a new model is measured."""
    return [line for path in text for line in read_lines([path], "--text")[:_SAFETY_LINES]]


def load_source(bundle: Bundle, source: SourceModel) -> tuple[PreTrainedModel, Vocabulary]:
    """The source model and its vocabulary.

    Args:
        bundle: prepared with it.
        source: where it is.

    Raises:
        InputError: it has other embeddings.
    """
    model = source.load()
    vocabulary = read_vocabulary(model)
    bundle.check_source(vocabulary, source.name)
    return model, vocabulary


def _from_nets(
    bundle: Bundle,
    method: Method,
    nets: Sequence[Hypernetwork],
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
        bias = filled.bias(vocabulary.bias)
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
