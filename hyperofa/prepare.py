"""From word vectors, a source model and a target tokenizer to a bundle: match, overlap, pool, split, factorise."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from hyperofa import reference as published
from hyperofa.artifacts import new_folder, sha256_text, versions, write_json
from hyperofa.bundle import FORMAT, Bundle, Meta, SplitName
from hyperofa.errors import InputError
from hyperofa.factorization import Scaling, factorize
from hyperofa.matching import Matches, Variants, match_words, surface_variants
from hyperofa.plm import load_model
from hyperofa.pooling import pool
from hyperofa.readers import SpellingChoice
from hyperofa.store import WordVectors
from hyperofa.surgery import Vocabulary, read_vocabulary
from hyperofa.tokens import (
    Overlap,
    Token,
    bare_backend,
    canonical_tokens,
    extends,
    find_overlap,
    fold_case,
    load_tokenizer,
    with_identity,
)
from hyperofa.vectors import convert_vectors, language_means


def prepare(
    source_model: str,
    target_tokenizer: str,
    vectors: list[str],
    output: Path,
    source_languages: list[str] | None = None,
    target_languages: list[str] | None = None,
    coordinate_dim: int | None = None,
    validation_share: float = 0.05,
    test_share: float = 0.05,
    seed: int = 0,
    vectors_dtype: Literal["float32", "float16"] = "float32",
    max_words: int | None = None,
    duplicate_words: Literal["error", "first"] = "error",
    allow_pickle: bool = False,
    reference: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Bring word vectors, a source model and a target tokenizer together in one bundle folder.

    Args:
        source_model: folder or hub id of the PLM that gets a new vocabulary.
        target_tokenizer: folder or hub id of the tokenizer with that vocabulary.
        vectors: word-vector files of one space (.vec, .vec.gz, .bin, .wv, a store folder); LANG=FILE names the language
            of a file whose words carry none. Give the flag again for each further file.
        output: bundle folder to write.
        source_languages: ISO 639-3 codes of the languages the PLM knows: only their words describe source tokens.
            All languages if not given.
        target_languages: languages whose words describe target tokens. All if not given.
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

    Returns:
        The bundle.

    Raises:
        InputError: an input is missing or damaged, or nothing in the target vocabulary could be initialised.
    """
    if not (0 < validation_share < 1 and 0 < test_share < 1 and validation_share + test_share < 1):
        raise InputError(
            "expected --validation_share and --test_share above 0 and together below 1, found "
            f"{validation_share} and {test_share}"
        )
    steps = _PUBLISHED if reference else _OURS
    if reference:
        if (validation_share, test_share, seed) != (0.05, 0.05, 0):
            raise InputError(
                "--reference true: expected no --validation_share, --test_share or --seed, for the published split is "
                "97 / 2.5 / 0.5 % with seed 42; leave them out"
            )
        seed = published.SPLIT_SEED
    with new_folder(output, overwrite) as folder:
        target = load_tokenizer(target_tokenizer)
        source = load_tokenizer(source_model, "--source_model")
        vocabulary = read_vocabulary(load_model(source_model))
        words = convert_vectors(
            vectors,
            folder / "words",
            dtype=vectors_dtype,
            max_words=max_words,
            duplicates=duplicate_words,
            allow_pickle=allow_pickle,
            spelling=steps.spelling,
        )
        for flag, chosen in (("source", source_languages), ("target", target_languages)):
            _check_languages(words, chosen, f"--{flag}_languages")
        means = language_means(words.vectors, words.language_ids, len(words.languages))
        np.save(folder / "language_means.npy", means)

        source_tokens = canonical_tokens(source)
        num_source = len(vocabulary.input_rows)
        if len(source_tokens) > num_source:
            raise InputError(
                f"--source_model {source_model}: expected at least {len(source_tokens)} embedding rows for its "
                f"tokenizer, found {num_source}"
            )
        target_tokens = canonical_tokens(target)
        num_target = len(target_tokens)
        matches = {
            side: _match(tokenizer, tokens, count, words, languages, means, steps, folder / side)
            for side, tokenizer, tokens, count, languages in (
                ("source", source, source_tokens, num_source, source_languages),
                ("target", target, target_tokens, num_target, target_languages),
            )
        }
        pairs = steps.overlap(source, target)
        if extends(target, source) and not reference:
            pairs = with_identity(pairs, len(source_tokens))
        np.savez(folder / "overlap.npz", target_ids=pairs.target_ids, source_ids=pairs.source_ids, kinds=pairs.kinds)
        covered = (target_tokens[token_id] for token_id in np.flatnonzero(matches["target"].covered).tolist())
        described = any(token is not None and token.text.strip() for token in covered)
        if len(pairs.choose(("exact", "case"))) == 0 and not described:
            raise InputError(
                f"--target_tokenizer {target_tokenizer}: none of its tokens but special ones is in the source "
                "vocabulary or in a word of --vectors; expected vectors in the languages and script of that tokenizer"
            )
        if not matches["source"].covered.any():
            raise InputError(
                f"--source_model {source_model}: none of its {num_source} tokens is in a word of --vectors"
                + (f" of --source_languages {' '.join(source_languages)}" if source_languages else "")
                + "; expected vectors in the languages the model knows"
            )
        parts = steps.split(source_tokens, matches["source"].covered, validation_share, test_share, seed)
        np.savez(folder / "split.npz", train=parts["train"], val=parts["val"], test=parts["test"])
        input_dim, output_dim, explained = _write_factors(vocabulary, coordinate_dim, steps.scaling, folder)

        source_hash = hash_rows(vocabulary)
        fixed = f"{sorted(source_languages or [])} {input_dim}+{output_dim}{' reference' * reference}"
        meta = Meta(
            format=FORMAT,
            source_model=str(source_model),
            source_hash=source_hash,
            target_hash=sha256_text(*(f"{text}\t{token}" for text, token in sorted(target.get_vocab().items()))),
            space=sha256_text(source_hash, words.content_hash, fixed),
            word_dim=words.dim,
            embedding_dim=vocabulary.input_rows.shape[1],
            input_dim=input_dim,
            output_dim=output_dim,
            source_tokens=num_source,
            target_tokens=num_target,
            source_languages=source_languages,
            target_languages=target_languages,
            explained=explained,
            counts=_count(words, matches["source"], matches["target"], pairs, target_tokens, parts),
            seed=seed,
            versions=versions(),
            reference=reference,
        )
        write_json(folder / "meta.json", asdict(meta))
    return Bundle.load(output)


def _check_languages(words: WordVectors, languages: list[str] | None, flag: str) -> None:
    """Name the flag of a language that the vectors do not have."""
    try:
        words.language_ids_of(languages or [])
    except InputError as error:
        raise InputError(f"{flag}: {error}") from None


def _match(
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[Token | None],
    num_tokens: int,
    words: WordVectors,
    languages: list[str] | None,
    means: np.ndarray,
    steps: "_Steps",
    folder: Path,
) -> Matches:
    """Match, pool and save one side."""
    special = [token_id for token_id, token in enumerate(tokens) if token is not None and token.special]
    matches = match_words(
        bare_backend(tokenizer),
        words.words,
        words.boundaries,
        num_tokens=num_tokens,
        ignored=() if steps.words_of_special_tokens else special,
        variants=steps.variants,
        progress=f"matching {folder.name} tokens",
    )
    if languages is not None:
        matches = matches.restrict(np.isin(words.language_ids, words.language_ids_of(languages)))
    matches.save(folder)
    np.save(folder / "pooled.npy", pool(matches, matches.weights(words.ranks), words, means))
    tokenizer.save_pretrained(folder / "tokenizer")
    return matches


def split_tokens(
    tokens: Sequence[Token | None], covered: np.ndarray, validation_share: float, test_share: float, seed: int
) -> dict[SplitName, np.ndarray]:
    """Split the covered tokens so that all case and word-start variants of a string fall on one side.

    Args:
        tokens: canonical source tokens by id.
        covered: `(S,)` bool, tokens with words.
        validation_share: part of the strings for `val`.
        test_share: part of the strings for `test`.
        seed: of the shuffle.

    Returns:
        Token ids, ascending; `val` and `test` have at least one token each.

    Raises:
        InputError: too few strings are covered, or the shares leave none to train on.
    """
    groups: dict[bytes, list[int]] = {}
    for token_id in np.flatnonzero(covered).tolist():
        token = tokens[token_id] if token_id < len(tokens) else None
        if token is not None:
            groups.setdefault(fold_case(token), []).append(token_id)
    if len(groups) < 3:
        raise InputError(
            f"expected words for at least 3 source tokens to train, validate and test on, found {len(groups)}"
        )
    keys = sorted(groups)
    order = np.random.default_rng(seed).permutation(len(keys))
    num_val, num_test = (max(1, round(share * len(keys))) for share in (validation_share, test_share))
    if num_val + num_test >= len(keys):
        raise InputError(
            f"--validation_share {validation_share} and --test_share {test_share} leave none of {len(keys)} strings to "
            "train on; give smaller ones"
        )

    def tokens_of(cut: np.ndarray) -> np.ndarray:
        return np.array(sorted(token_id for key in cut for token_id in groups[keys[key]]), np.int64)

    return {
        "train": tokens_of(order[num_val + num_test :]),
        "val": tokens_of(order[:num_val]),
        "test": tokens_of(order[num_val : num_val + num_test]),
    }


@dataclass(frozen=True)
class _Steps:
    """What the two modes do differently; see `reference.QUIRKS`."""

    spelling: SpellingChoice
    variants: Variants
    words_of_special_tokens: bool
    overlap: Callable[[PreTrainedTokenizerBase, PreTrainedTokenizerBase], Overlap]
    split: Callable[[Sequence[Token | None], np.ndarray, float, float, int], dict[SplitName, np.ndarray]]
    scaling: Scaling


def _find_overlap(source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> Overlap:
    backend = bare_backend(source)
    return find_overlap(
        canonical_tokens(source),
        canonical_tokens(target),
        lambda text: backend.encode(text, add_special_tokens=False).ids,
    )


_OURS = _Steps("auto", surface_variants, False, _find_overlap, split_tokens, "coordinates")
_PUBLISHED = _Steps(
    "reference",
    published.surface_variants,
    True,
    published.find_overlap,
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


def hash_rows(vocabulary: Vocabulary) -> str:
    """Content hash of a PLM's input rows and untied output rows, by which a bundle knows its source model again."""
    digest = hashlib.sha256(np.ascontiguousarray(vocabulary.input_rows).tobytes())
    if vocabulary.output_rows is not None and not vocabulary.tied:
        digest.update(np.ascontiguousarray(vocabulary.output_rows).tobytes())
    return digest.hexdigest()


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
