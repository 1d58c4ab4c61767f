"""From a bundle and a method to a model with a new vocabulary, in memory or in a folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.bundle.bundle import Bundle
from hyperofa.evaluation.scores import Scores, hub_results, numbers_in
from hyperofa.evaluation.shift import measure
from hyperofa.export.checks import check_choice, check_factorised, text_sample
from hyperofa.export.confidence import Confidence
from hyperofa.export.prediction import predict_vocabulary
from hyperofa.methods.baselines import TUNED_OFA, OFAConfig
from hyperofa.methods.fallbacks import ORIGINS, Filled, plan_and_fill, target_inputs
from hyperofa.methods.registry import Context, Method
from hyperofa.models.card import CardFields
from hyperofa.models.factorised import factorise, parameter_count
from hyperofa.models.folder import Making, finish, write_model
from hyperofa.models.source import ModelLike, SourceModel, source_of
from hyperofa.models.vocabulary import Vocabulary, read_vocabulary, replace_vocabulary
from hyperofa.reference import lost_bias
from hyperofa.runtime.calls import Call, written_call
from hyperofa.runtime.folders import new_folder
from hyperofa.runtime.hub import check_repository, push_folder
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.runtime.text_files import read_pairs
from hyperofa.tokens.canonical import OVERLAP_KINDS, OverlapKind
from hyperofa.training.hypernetwork import Hypernetwork, trained_on

HypernetworkLike = str | Path | Hypernetwork
_COLUMNS = ("id", "token", "origin", "overlap", "words", "norm", "sources", "confidence")


@dataclass(frozen=True)
class Export:
    """A written model folder, the number of rows of each origin, of parameters if factorised, and where it went to.

    `confidence` says how far its predicted rows can be trusted, where that is known.
    """

    path: Path
    method: str
    counts: dict[str, int]
    parameters: int | None = None
    url: str | None = None
    confidence: Confidence | None = None

    def __str__(self) -> str:
        rows = ", ".join(f"{count:,} {origin}" for origin, count in self.counts.items() if count)
        size = "" if self.parameters is None else f"; factorised, {self.parameters:,} parameters"
        there = "" if self.url is None else f"; uploaded to {self.url}"
        trust = "" if self.confidence is None else f"; {self.confidence}"
        return f"{self.path}: {self.method}, rows {rows}{trust}{size}{there}"


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
        confidence: of the rows that a net predicted; `None` for other methods, and where it is not known.
    """

    bundle: Bundle
    method: Method
    filled: Filled
    source: SourceModel
    call: Call
    facts: dict[str, Any] = field(repr=False)
    confidence: Confidence | None = field(default=None, repr=False)

    @property
    def coordinates(self) -> np.ndarray:
        """`(T, K)` float32."""
        return self.filled.coordinates

    @property
    def origins(self) -> np.ndarray:
        """`(T,)` str, where each row came from: one of `fallbacks.ORIGINS`."""
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
        scores: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        card: CardFields | None = None,
        push_to_hub: str | None = None,
    ) -> Export:
        """Write the model, its tokenizer, and where each row came from; transformers alone can load the folder.

        Args:
            folder: model folder to write.
            factorised: as for `to_model`.
            pad_to_multiple_of: as for `to_model`.
            text: files of text that the source model knows; what the new tokens take is measured on it.
            scores: results of an evaluation of this very model, for its card.
            overwrite: replace a folder that is already there.
            card: what its card tells the hub.
            push_to_hub: repository of the hub to upload the folder to, `USER/NAME`; made as a private one if need be.

        Raises:
            InputError: as for `to_model`, a folder that is there, or no access to the repository.
        """
        check_repository(push_to_hub)
        lines = text_sample(text)
        inputs = [self.bundle.path, self.source.name, *text]
        told = scores.as_dict() if isinstance(scores, Scores) else scores
        with new_folder(folder, overwrite, kind="model", inputs=inputs) as partial_folder:
            model = self.write(partial_folder, factorised, pad_to_multiple_of, told, card, push_to_hub)
            parameters = self.finish(partial_folder, model, lines)
        url = None if push_to_hub is None else push_folder(folder, push_to_hub)
        return self.told(Path(folder), parameters if factorised else None, url)

    def told(self, path: Path, parameters: int | None, url: str | None) -> Export:
        """What is told of a folder that these rows were written to.

        Args:
            path: the folder.
            parameters: of the model, if it is factorised.
            url: where it went to.
        """
        return Export(path, self.method.name, self.counts(), parameters, url, self.confidence)

    def write(
        self,
        folder: Path,
        factorised: bool,
        pad_to_multiple_of: int | None,
        scores: Any,
        card: CardFields | None = None,
        repository: str | None = None,
    ) -> PreTrainedModel:
        """Write all but the manifest; what was written.

        Args:
            folder: is there.
            factorised: as for `to_model`.
            pad_to_multiple_of: as for `to_model`.
            scores: what the JSON file of an evaluation holds.
            card: as for `save`.
            repository: of the hub, where the folder will go.
        """
        model, norms = self._realise(factorised, pad_to_multiple_of)
        self.tokenizer().save_pretrained(folder)
        making, rows, counts = self._making(card, repository), self._provenance(norms), self.counts()
        write_model(model, folder, making, _COLUMNS, rows, counts, numbers_in(scores), hub_results(scores))
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

    def _making(self, card: CardFields | None = None, repository: str | None = None) -> Making:
        method, source, meta = self.method, self.source, self.bundle.meta
        trust = "" if self.confidence is None else f" Predicted rows have a {self.confidence.told()}"
        described = {*(meta.target_languages or self.bundle.words.languages), *(meta.source_languages or [])}
        return Making(
            method.name,
            method.story() + trust,
            meta.source_model,
            self.call,
            method.citation,
            source.name if source.in_memory is None else None,
            tuple(sorted(described - {""})),
            card,
            repository,
        )

    def _realise(self, factorised: bool, multiple: int | None) -> tuple[PreTrainedModel, np.ndarray]:
        """The model, and the length of each input row `(T,)`."""
        if factorised:
            check_factorised(self.bundle)
        model, vocabulary = load_source(self.bundle, self.source)
        return model, _put_rows(self.bundle, vocabulary, self.filled, model, multiple, factorised)

    def _provenance(self, norms: np.ndarray) -> Iterator[Sequence[Any]]:
        """One line a target token, of `_COLUMNS`: how many words it has, how long its row is, how far to trust it."""
        bundle, plan, mixture = self.bundle, self.filled.plan, self.filled.mixture
        names = bundle.tokenizer("source").convert_ids_to_tokens(list(range(bundle.meta.source_tokens)))
        tokens = bundle.tokenizer("target").convert_ids_to_tokens(list(range(bundle.meta.target_tokens)))
        words = bundle.target.counts
        confidence = np.full(len(words), np.nan) if self.confidence is None else self.confidence.values
        for token, name in enumerate(tokens):
            span = slice(mixture.indptr[token], mixture.indptr[token + 1])
            parts = sorted(zip(-mixture.data[span], mixture.indices[span], strict=True))
            sources = " ".join(f"{names[source]}:{-weight:.4f}" for weight, source in parts)
            origin = ORIGINS[plan.origins[token]]
            kind = OVERLAP_KINDS[plan.kinds[token]] if origin == "copied" else ""
            trust = "" if np.isnan(confidence[token]) else f"{confidence[token]:.3f}"
            yield [token, name, origin, kind, words[token], f"{norms[token]:.4f}", sources, trust]


def initialise(
    bundle: Bundle | str | Path,
    method: str = "hyperofa",
    *,
    hypernetwork: HypernetworkLike | Sequence[HypernetworkLike] | None = None,
    source_model: ModelLike | None = None,
    mixing: OFAConfig = TUNED_OFA,
    ofa_share: float | None = 0.0,
    copied: Sequence[OverlapKind] | None = None,
    parallel: Sequence[str | Path] = (),
    seed: int = 0,
    least_confidence: float = 0.0,
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
        parallel: files of parallel text, a source sentence, a tab and its translation a line, for transtokenizer.
        seed: of the noise of seeded methods.
        least_confidence: rows that hyperofa predicts with a lower confidence fall back like those of tokens without
            words; 0 for none.
        cache: where shards of long work are kept, and who shares it.

    Returns:
        The rows; `to_model` and `save` put them into the model.

    Raises:
        InputError: no such method or net, or inputs that do not belong together.

    Example:
        >>> import hyperofa
        >>> initialised = hyperofa.initialise("bundle", "ofa_tuned")
        >>> initialised
        Initialised(method='ofa_tuned', rows=... copied, ... predicted, ...)
        >>> model, tokenizer = initialised.to_model(), initialised.tokenizer()
        >>> model.get_input_embeddings().num_embeddings == len(tokenizer)
        True
        >>> print(hyperofa.initialise("bundle", hypernetwork="best.ckpt").save("my_model"))
        my_model: hyperofa, rows ... predicted...
    """
    call = written_call(initialise, {**locals(), "cache": IN_MEMORY})
    bundle = Bundle.load(bundle)
    given = [] if hypernetwork is None else hypernetwork if isinstance(hypernetwork, Sequence) else [hypernetwork]
    nets: list[HypernetworkLike] = [hypernetwork] if isinstance(hypernetwork, str) else list(given)
    chosen = check_choice(bundle, method, nets, ofa_share, least_confidence, mixing, parallel)
    source = source_of(source_model or bundle.source_model)
    load_source(bundle, source)
    confidence = None
    if chosen.trained:
        trained = [trained_on(bundle, net) for net in nets]
        filled, confidence = predict_vocabulary(
            bundle, chosen, trained, mixing, ofa_share, copied, least_confidence, cache
        )
    else:
        pairs = read_pairs(parallel, "--parallel") if parallel else None
        inputs = target_inputs(bundle, chosen.pooling, pairs)
        rows = chosen.predict(inputs, Context(seed, mixing, cache))
        filled = plan_and_fill(inputs, rows, chosen.copied if copied is None else copied, chosen.fallback)
    digests = [net.digest for net in trained] if chosen.trained else []
    trust = None if confidence is None else confidence.as_dict()
    facts = {"seed": seed, "checkpoint": digests, "confidence": trust}
    return Initialised(bundle, chosen, filled, source, call, facts, confidence)


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
    bundle.check_source(vocabulary, f"--source_model {source.name}")
    return model, vocabulary


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
    copies = filled.plan.ids("copied")
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
