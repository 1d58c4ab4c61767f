"""From word vectors, a source model and a target tokenizer to a bundle: match, overlap, pool, split, factorise."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from hyperofa import reference as published
from hyperofa.bundle.bundle import OWN_MODEL, Bundle, Side, SplitName
from hyperofa.bundle.factorization import Scaling, check_width, factorize
from hyperofa.bundle.meta import FORMAT, Meta
from hyperofa.bundle.pooling import match_shards, merge_shards
from hyperofa.bundle.split import split_tokens
from hyperofa.errors import InputError
from hyperofa.models.saving import save_model
from hyperofa.models.source import ModelLike, TokenizerLike, content_hash, source_of, tokenizer_of
from hyperofa.models.vocabulary import Vocabulary, check_tokenizer, hash_rows, read_vocabulary
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.folders import fingerprint, resumed_folder, write_json
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.hub import check_repository
from hyperofa.runtime.processes import ProcessGroup, process_group
from hyperofa.runtime.ranges import Count, Seed, in_range
from hyperofa.runtime.versions import versions
from hyperofa.tokens.canonical import (
    Overlap,
    Token,
    bare_backend,
    canonical_tokens,
    extends,
    find_overlap,
    plain_encoder,
    with_identity,
)
from hyperofa.tokens.matching import Matches
from hyperofa.tokens.spellings import Variants, surface_variants
from hyperofa.vectors.centring import language_means
from hyperofa.vectors.conversion import build_store, open_specs
from hyperofa.vectors.spelling import SpellingChoice, split_spec
from hyperofa.vectors.store import ROWS, WordVectors

_SHARDS = "shards"


@in_range()
def prepare(
    source_model: ModelLike,
    target_tokenizer: TokenizerLike,
    vectors: list[str],
    output: FilePath,
    source_languages: list[str] | None = None,
    target_languages: list[str] | None = None,
    coordinate_dim: Count | None = None,
    validation_share: float = 0.05,
    test_share: float = 0.05,
    seed: Seed = 0,
    vectors_dtype: Literal["float32", "float16"] = "float32",
    max_words: Count | None = None,
    duplicate_words: Literal["error", "first"] = "error",
    allow_pickle: bool = False,
    reference: bool = False,
    overwrite: bool = False,
    push_to_hub: str | None = None,
) -> Bundle:
    """Bring word vectors, a source model and a target tokenizer together in one bundle folder.

    Killed, it goes on where it was when called again with the same flags. Under `torchrun` the processes share the
    matching; the bundle has the same bytes.

    Args:
        source_model: folder or hub id of the PLM that gets a new vocabulary. In Python also `(model, tokenizer)`, of
            which the bundle keeps a copy.
        target_tokenizer: folder or hub id of the tokenizer with that vocabulary; in Python also a tokenizer.
        vectors: word-vector files of one space (`vectors.READERS`, or a store folder); LANG=FILE names the language
            of a file whose words carry none. Give the flag again for each further file.
        output: bundle folder to write.
        source_languages: ISO 639-3 codes of the languages the PLM knows: only their words describe source tokens.
            All languages if not given.
        target_languages: those that the vocabulary is for: their words alone describe target tokens, and text is
            translated into them. Name the source's too if it is to be read as before. All if not given.
        coordinate_dim: K, width of the factorised embeddings; the full embedding width if not given.
        validation_share: part of the covered source tokens held out to choose a checkpoint.
        test_share: part held out for `hyperofa test`.
        seed: of the split.
        vectors_dtype: how the bundle stores the vectors.
        max_words: read at most this many words of each file; they are the most frequent ones.
        duplicate_words: what to do when a file has a word twice: stop, or keep its first vector.
        allow_pickle: open gensim files, which can run code; only for files you trust.
        reference: take each step as the published code does, quirks included; it splits 97 / 2.5 / 0.5 % with seed 42,
            and the baselines follow it on such a bundle. See `hyperofa.reference.QUIRKS`.
        overwrite: replace a bundle that is already there.
        push_to_hub: repository of the Hugging Face hub to upload the bundle to, USER/NAME, word vectors and all; made
            as a private one if it is not there.

    Returns:
        The bundle.

    Raises:
        InputError: an input is missing or damaged, or nothing in the target vocabulary could be initialised.

    Example:
        >>> import hyperofa
        >>> bundle = hyperofa.prepare("bert", "tokenizer", ["words.vec"], "my_bundle", source_languages=["eng"])
        >>> print(bundle.summary())
        bundle my_bundle
        ...
    """
    if not (0 < validation_share < 1 and 0 < test_share < 1 and validation_share + test_share < 1):
        raise InputError(
            "expected --validation_share and --test_share above 0 and together below 1, found "
            f"{validation_share} and {test_share}"
        )
    check_repository(push_to_hub)
    steps = _PUBLISHED if reference else _OURS
    if reference:
        if (validation_share, test_share, seed) != (0.05, 0.05, 0):
            raise InputError(
                "--reference true: expected no --validation_share, --test_share or --seed, for the published split is "
                "97 / 2.5 / 0.5 % with seed 42; leave them out"
            )
        seed = published.SPLIT_SEED
    model, given = source_of(source_model), tokenizer_of(target_tokenizer)
    inputs: list[str | Path] = [model.name, given.name, *(split_spec(spec)[1] for spec in vectors)]
    files = fingerprint(*inputs)
    if model.in_memory is not None:
        files += hash_rows(read_vocabulary(model.in_memory[0])) + content_hash(model.in_memory[1])
    if given.in_memory is not None:
        files += content_hash(given.in_memory)
    open_specs(vectors, allow_pickle)
    words = _Words(vectors, vectors_dtype, max_words, duplicate_words, allow_pickle)
    settings = (
        words,
        source_languages,
        target_languages,
        coordinate_dim,
        validation_share,
        test_share,
        seed,
        reference,
    )
    with process_group() as group:
        key = sha256_text(files, f"{settings} {versions()}")
        with resumed_folder(output, key, overwrite, group, kind="bundle", inputs=inputs) as folder:
            if not (folder / "meta.json").is_file():
                target, source = given.load(), model.load_tokenizer()
                plm = model.load()
                check_tokenizer(plm, source, target)
                vocabulary = read_vocabulary(plm)
                check_width(vocabulary.input_rows, coordinate_dim)
                sides = (
                    _Side("source", model.name, source, len(vocabulary.input_rows), source_languages),
                    _Side("target", given.name, target, None, target_languages),
                )
                pairs = _find_shared(sides, steps) if group.first else None
                store = _convert(words, steps, sides, folder, group)
                _match(sides, store, steps, folder, group)
                if pairs is not None:
                    if model.in_memory is not None:
                        save_model(plm, folder / OWN_MODEL)
                        sides[0].tokenizer.save_pretrained(folder / OWN_MODEL)
                        model.copy_company(folder / OWN_MODEL)
                    shares = (validation_share, test_share, seed)
                    _finish(folder, sides, pairs, vocabulary, store, steps, shares, coordinate_dim)
            if group.first:
                shutil.rmtree(folder / _SHARDS, ignore_errors=True)
        prepared = Bundle.load(output)
        if group.first and push_to_hub is not None:
            prepared.push_to_hub(push_to_hub)
        return prepared


@dataclass(frozen=True)
class _Words:
    """Which vectors to take, and how."""

    files: list[str]
    dtype: Literal["float32", "float16"]
    max_words: int | None
    duplicates: Literal["error", "first"]
    allow_pickle: bool


class _Side:
    """A vocabulary: its tokenizer, where that came from, its canonical tokens, and the languages that describe it."""

    def __init__(
        self, name: Side, origin: str, tokenizer: PreTrainedTokenizerBase, rows: int | None, languages: list[str] | None
    ) -> None:
        self.name, self.origin, self.tokenizer, self.languages = name, origin, tokenizer, languages
        self.tokens = canonical_tokens(tokenizer)
        self.size = len(self.tokens) if rows is None else rows
        if len(self.tokens) > self.size:
            raise InputError(
                f"--source_model {origin}: expected at least {len(self.tokens)} embedding rows for its tokenizer, "
                f"found {rows}"
            )


def _find_shared(sides: tuple[_Side, _Side], steps: "_Steps") -> Overlap:
    """The tokens that both vocabularies have."""
    source, target = sides
    pairs = steps.overlap(source, target)
    if extends(target.tokenizer, source.tokenizer) and steps is not _PUBLISHED:
        return with_identity(pairs, len(source.tokens))
    return pairs


def _convert(words: _Words, steps: "_Steps", sides: Sequence[_Side], folder: Path, group: ProcessGroup) -> WordVectors:
    """Convert the vectors, in one process, and see that they have the languages."""
    if group.first:
        if not (folder / "words").is_dir():
            build_store(
                words.files,
                folder / "words",
                dtype=words.dtype,
                max_words=words.max_words,
                duplicates=words.duplicates,
                allow_pickle=words.allow_pickle,
                spelling=steps.spelling,
            )
        vectors = WordVectors.load(folder / "words").vectors
        parts = (vectors[start : start + ROWS] for start in range(0, len(vectors), ROWS))
        if len(vectors) > 1 and all((part == vectors[0]).all() for part in parts):
            raise InputError(f"--vectors: expected vectors that differ, found one for all {len(vectors)} words")
        for side in sides:
            WordVectors.load(folder / "words").language_ids_of(side.languages or [], f"--{side.name}_languages")
    group.wait()
    return WordVectors.load(folder / "words")


def _match(sides: Sequence[_Side], words: WordVectors, steps: "_Steps", folder: Path, group: ProcessGroup) -> None:
    """Match and pool both sides; each process its shards, the first one the rest."""
    for side in sides:
        special = [number for number, token in enumerate(side.tokens) if token is not None and token.special]
        match_shards(
            bare_backend(side.tokenizer),
            words,
            side.languages,
            folder / _SHARDS / side.name,
            group,
            num_tokens=side.size,
            ignored=() if steps.words_of_special_tokens else special,
            variants=steps.variants,
            unspaced=steps.both_directions,
            progress=f"matching {side.name} tokens",
        )
    group.wait()
    if group.first:
        means = language_means(words.vectors, words.language_ids, len(words.languages))
        np.save(folder / "language_means.npy", means)
        for side in sides:
            tokens = side.tokens if steps.both_directions else None
            shards = folder / _SHARDS / side.name
            merge_shards(shards, words, means, folder / side.name, tokens, side.languages, side.size)
            side.tokenizer.save_pretrained(folder / side.name / "tokenizer")


def _finish(
    folder: Path,
    sides: tuple[_Side, _Side],
    pairs: Overlap,
    vocabulary: Vocabulary,
    words: WordVectors,
    steps: "_Steps",
    split: tuple[float, float, int],
    coordinate_dim: int | None,
) -> None:
    """Split, factorise, and write down what it all is."""
    source, target = sides
    matches = {side.name: Matches.load(folder / side.name) for side in sides}
    np.savez(folder / "overlap.npz", target_ids=pairs.target_ids, source_ids=pairs.source_ids, kinds=pairs.kinds)
    covered = (target.tokens[token_id] for token_id in np.flatnonzero(matches["target"].covered).tolist())
    described = any(token is not None and token.text.strip() for token in covered)
    if len(pairs.choose(("exact", "case"))) == 0 and not described:
        raise InputError(
            f"--target_tokenizer {target.origin}: none of its tokens but special ones is in the source "
            "vocabulary or in a word of --vectors; expected vectors in the languages and script of that tokenizer"
        )
    if not matches["source"].covered.any():
        raise InputError(
            f"--source_model {source.origin}: none of its {source.size} tokens is in a word of --vectors"
            + (f" of --source_languages {' '.join(source.languages)}" if source.languages else "")
            + "; expected vectors in the languages the model knows"
        )
    parts = steps.split(source.tokens, matches["source"].covered, *split)
    np.savez(folder / "split.npz", train=parts["train"], val=parts["val"], test=parts["test"])
    input_dim, output_dim, explained = _write_factors(vocabulary, coordinate_dim, steps.scaling, folder)

    reference = steps is _PUBLISHED
    source_hash = hash_rows(vocabulary)
    fixed = f"{sorted(source.languages or [])} {input_dim}+{output_dim}{' reference' * reference}"
    vocab = sorted(target.tokenizer.get_vocab().items())
    meta = Meta(
        format=FORMAT,
        source_model=source.origin,
        source_hash=source_hash,
        target_hash=sha256_text(*(f"{text}\t{token}" for text, token in vocab)),
        training_fingerprint=sha256_text(source_hash, words.content_hash, fixed),
        word_dim=words.dim,
        embedding_dim=vocabulary.input_rows.shape[1],
        input_dim=input_dim,
        output_dim=output_dim,
        source_tokens=source.size,
        target_tokens=target.size,
        source_languages=source.languages,
        target_languages=target.languages,
        explained=explained,
        counts=_count(words, matches["source"], matches["target"], pairs, target.tokens, parts),
        seed=split[-1],
        versions=versions(),
        reference=reference,
    )
    write_json(folder / ".meta.json", meta.as_json())
    (folder / ".meta.json").rename(folder / "meta.json")


@dataclass(frozen=True)
class _Steps:
    """What the two modes do differently; see `reference.QUIRKS`."""

    spelling: SpellingChoice
    variants: Variants
    both_directions: bool
    words_of_special_tokens: bool
    overlap: Callable[[_Side, _Side], Overlap]
    split: Callable[[Sequence[Token | None], np.ndarray, float, float, int], dict[SplitName, np.ndarray]]
    scaling: Scaling


_OURS = _Steps(
    "auto",
    surface_variants,
    True,
    False,
    lambda source, target: find_overlap(source.tokens, target.tokens, plain_encoder(source.tokenizer)),
    split_tokens,
    "coordinates",
)
_PUBLISHED = _Steps(
    "reference",
    published.surface_variants,
    False,
    True,
    lambda source, target: published.find_overlap(source.tokenizer, target.tokenizer),
    lambda _tokens, covered, *_shares: published.split_tokens(np.flatnonzero(covered).tolist()),
    "primitives",
)


def _write_factors(
    vocabulary: Vocabulary, coordinate_dim: int | None, scaling: Scaling, folder: Path
) -> tuple[int, int, float]:
    """Factorise input and untied output rows; widths K_in, K_out and the explained part of the input rows."""
    factors = factorize(vocabulary.input_rows, coordinate_dim, scaling=scaling)
    np.save(folder / "primitives_input.npy", factors.primitives)
    coordinates, output_dim = factors.coordinates, 0
    if vocabulary.output_rows is not None and not vocabulary.tied:
        output = factorize(vocabulary.output_rows, coordinate_dim, scaling=scaling)
        # Losses and lengths look at both sides as one: neither may drown the other.
        balance = _ratio(np.linalg.norm(factors.coordinates), np.linalg.norm(output.coordinates))
        np.save(folder / "primitives_output.npy", output.primitives / balance)
        coordinates, output_dim = np.hstack([coordinates, output.coordinates * balance]), output.coordinates.shape[1]
    np.save(folder / "coordinates.npy", coordinates)
    if vocabulary.bias is not None:
        np.save(folder / "bias.npy", vocabulary.bias)
    return factors.coordinates.shape[1], output_dim, float(factors.explained)


def _ratio(one: np.floating, other: np.floating) -> np.float32:
    return np.float32(one / other) if one > 0 and other > 0 else np.float32(1)


def _count(
    words: WordVectors,
    source: Matches,
    target: Matches,
    overlap: Overlap,
    target_tokens: Sequence[Token | None],
    split: dict[SplitName, np.ndarray],
) -> dict[str, int]:
    in_overlap = np.zeros(len(target.counts), bool)
    in_overlap[overlap.target_ids] = True
    return {
        "words": len(words.words),
        "languages": len(words.languages),
        "source_tokens": len(source.counts),
        "source_tokens_with_words": int(source.covered.sum()),
        "target_tokens": sum(token is not None for token in target_tokens),
        "target_tokens_in_overlap": int(in_overlap.sum()),
        "target_tokens_with_words": int(target.covered.sum()),
        "target_tokens_to_predict": int((target.covered & ~in_overlap).sum()),
        "target_tokens_with_neither": sum(token is not None for token in target_tokens)
        - int((target.covered | in_overlap).sum()),
        "words_per_covered_target_token": round(len(target.words) / max(1, int(target.covered.sum()))),
        **{f"split_{name}": len(ids) for name, ids in split.items()},
    }
