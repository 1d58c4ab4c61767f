"""The prepared artefact: everything a hypernetwork and the baselines need, in one folder without pickles.

meta.json             widths, counts, languages, seeds, versions, content hashes
words/                word-vector store (`vectors.WordVectors`)
language_means.npy    (L, d)  mean unit vector of each language
source/  target/      word matches of each side (`matching.Matches`), its tokenizer, its pooled vectors
source/model/         the source model, if it was given in memory
coordinates.npy       (S, K)  source rows: input coordinates, then the output ones where the head is untied
primitives_input.npy, primitives_output.npy   (K_in, E), (K_out, E)
bias.npy              (S,)    output bias of the source model, if it has one
overlap.npz           target ids, source ids, kinds (`tokens.Overlap`)
split.npz             ids of the covered source tokens: train, val, test
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from hyperofa import reference
from hyperofa.bundle.fertility import Fertility, languages_served, measure_languages
from hyperofa.bundle.meta import Meta
from hyperofa.bundle.native import with_native
from hyperofa.bundle.pooling import frequency_means
from hyperofa.bundle.sharing import fetch, push
from hyperofa.bundle.usage import Usage, token_usage
from hyperofa.errors import InputError
from hyperofa.models.vocabulary import Vocabulary, hash_rows
from hyperofa.runtime.records import are_ids, open_array, open_arrays
from hyperofa.tokens.canonical import (
    SPELLED_KINDS,
    Overlap,
    Token,
    canonical_tokens,
    extends,
    ignores_case,
    load_tokenizer,
)
from hyperofa.tokens.matching import Matches
from hyperofa.vectors.store import WordVectors

T = TypeVar("T")
_ROWS = 65_536  # looked at together
OWN_MODEL = "source/model"
Side = Literal["source", "target"]
SplitName = Literal["train", "val", "test"]
Pooling = Literal["weighted", "duplicates", "frequency"]


@dataclass(frozen=True)
class Bundle:
    """A prepared folder, memory-mapped, and a path to it. Made by `prepare.prepare`; open one with `Bundle.load`."""

    path: Path
    meta: Meta = field(repr=False)
    flag: str = field(default="--bundle", repr=False, compare=False)  # that named it, for errors

    @classmethod
    def load(cls, path: str | PathLike[str], flag: str = "--bundle") -> "Bundle":
        """Open a bundle.

        Args:
            path: its folder; or a bundle, which is opened already.
            flag: that named it, for errors.

        Raises:
            InputError: no bundle there, one of another layout, or a damaged one.
        """
        if isinstance(path, cls):
            return path
        path = Path(path)
        bundle = cls(path, Meta.read(path, flag), flag)
        bundle._check()
        return bundle

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "Bundle":
        """Open a bundle, of the Hugging Face hub too: arrays and JSON alone, no code.

        Args:
            name: folder, or repository of the hub.

        Raises:
            InputError: as `load`.
        """
        return cls.load(fetch(name))

    def push_to_hub(self, repository: str) -> str:
        """Upload it, word vectors and all; where it is then.

        Args:
            repository: `USER/NAME`; made as a private one if it is not there.

        Raises:
            InputError: no access to the repository.
        """
        return push(self.path, self.summary(), repository)

    def _check(self) -> None:
        """See that the parts are there and fit each other; large arrays are only measured, until they are read."""
        meta = self.meta
        wrong = meta.misfit()
        self._expect("meta.json", wrong is None, str(wrong))
        widths = (meta.word_dim, meta.embedding_dim, meta.input_dim, meta.output_dim + 1)
        sizes = (*widths, meta.source_tokens, meta.target_tokens)
        self._expect("meta.json", min(sizes) >= 1 and 0 <= meta.explained < 2, "widths and counts above 0")
        self._expect("words", self.words.dim == meta.word_dim, f"vectors {meta.word_dim} wide, found {self.words.dim}")
        self._measure("language_means.npy", self.language_means, (len(self.words.languages), meta.word_dim))
        self._measure("primitives_input.npy", self.input_primitives, (meta.input_dim, meta.embedding_dim))
        if self.output_primitives is not None:
            self._measure("primitives_output.npy", self.output_primitives, (meta.output_dim, meta.embedding_dim))
        for name in ("language_means", "input_primitives", "output_primitives"):
            array = getattr(self, name)
            self._expect(name, array is None or bool(np.isfinite(array).all()), "finite numbers, found NaN or inf")
        self._measure("coordinates.npy", self._array("coordinates.npy"), (meta.source_tokens, meta.coordinate_dim))
        tokens: dict[Side, int] = {"source": meta.source_tokens, "target": meta.target_tokens}
        for side, size in tokens.items():
            self._measure(f"{side}/pooled.npy", self.pooled(side), (size, meta.word_dim))
            indptr, words = self._array(f"{side}/indptr.npy"), self._array(f"{side}/words.npy")
            self._expect(f"{side}/indptr.npy", indptr.shape == (size + 1,), f"one entry more than its {size} tokens")
            whole = indptr[0] == 0 and indptr[-1] == len(words) and bool((np.diff(indptr) >= 0).all())
            self._expect(f"{side}/indptr.npy", whole, f"ascending numbers from 0 to {len(words)}")
        overlap = self._spelled_overlap
        same = len({part.shape for part in (overlap.target_ids, overlap.source_ids, overlap.kinds)}) == 1
        self._expect("overlap.npz", same and overlap.kinds.ndim == 1, "three lists of one length")
        bounds = ((overlap.target_ids, meta.target_tokens), (overlap.source_ids, meta.source_tokens))
        for ids, bound in (*bounds, (overlap.kinds, len(SPELLED_KINDS))):
            self._expect("overlap.npz", are_ids(ids, bound), f"ids from 0 to {bound - 1}")
        for ids in self.split.values():
            self._expect("split.npz", are_ids(ids, meta.source_tokens), f"ids from 0 to {meta.source_tokens - 1}")
        self._expect("split.npz", len(self.split["train"]) > 0, "tokens to train on")

    def _expect(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"{self.flag} {self.path}: {name}: expected {expected}; run `hyperofa prepare` again")

    def _measure(self, name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type = np.float32) -> None:
        found = f"{array.shape} {array.dtype}"
        self._expect(name, array.shape == shape and array.dtype == dtype, f"{shape} {np.dtype(dtype)}, found {found}")

    def check_source(self, vocabulary: Vocabulary, named: str) -> None:
        """Refuse a model that is not the one the bundle was prepared with.

        Args:
            vocabulary: of the model.
            named: how it was, flag and path, for the message.

        Raises:
            InputError: it has other embeddings.
        """
        if hash_rows(vocabulary) != self.meta.source_hash:
            raise InputError(
                f"{named}: expected the model that {self.flag} {self.path} was prepared with, found other embeddings; "
                "prepare again, or give the right one"
            )

    def _array(self, name: str) -> np.ndarray:
        with self._reporting(name):
            return open_array(self.path / name)

    def _arrays(self, name: str, keys: Sequence[str]) -> list[np.ndarray]:
        with self._reporting(name):
            return open_arrays(self.path / name, keys)

    @contextmanager
    def _reporting(self, name: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(
                f"{self.flag} {self.path}: expected {name} in it; {error.with_flags}; run `hyperofa prepare` again"
            ) from None

    @property
    def source_model(self) -> str:
        """Where the source model is: in the bundle if it was prepared from memory, else where it was at that time."""
        own = self.path / OWN_MODEL
        return str(own) if own.is_dir() else self.meta.source_model

    @property
    def source_flag(self) -> str:
        """What errors say of it, where no flag names it."""
        return f"{self.flag} {self.path}: its source model, as `prepare` was given it,"

    @cached_property
    def words(self) -> WordVectors:
        """The word vectors."""
        return WordVectors.load(self.path / "words")

    @cached_property
    def language_means(self) -> np.ndarray:
        """`(L, d)` float32, mean unit vector of each language."""
        return self._array("language_means.npy")

    @cached_property
    def source(self) -> Matches:
        """Words of each source token."""
        return self._matches("source")

    @cached_property
    def target(self) -> Matches:
        """Words of each target token."""
        return self._matches("target")

    def _matches(self, side: Side) -> Matches:
        matches = Matches.load(self.path / side)
        sizes = {len(getattr(matches, name)) for name in ("words", "share", "position", "variants")}
        whole = len(sizes) == 1 and are_ids(matches.words, len(self.words))
        self._expect(side, whole, f"matches of its {len(self.words)} words")
        shares = bool((matches.share > 0).all() and (matches.share <= 1).all())
        self._expect(f"{side}/share.npy", shares, "shares above 0, up to 1")
        if (cover := matches.cover) is not None:
            whole = len(cover) == len(matches.words) and bool((cover > 0).all() and (cover <= 1).all())
            self._expect(f"{side}/cover.npy", whole, "parts of tokens above 0, up to 1")
        return matches

    @cached_property
    def coordinates(self) -> np.ndarray:
        """`(S, K)` float32, the source rows."""
        rows = self._array("coordinates.npy")
        parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
        self._expect("coordinates.npy", all(np.isfinite(part).all() for part in parts), "finite numbers, found others")
        return rows

    @cached_property
    def input_primitives(self) -> np.ndarray:
        """`(K_in, E)` float32."""
        return self._array("primitives_input.npy")

    @cached_property
    def output_primitives(self) -> np.ndarray | None:
        """`(K_out, E)` float32, or `None` without an untied head."""
        return self._array("primitives_output.npy") if self.meta.output_dim else None

    @cached_property
    def bias(self) -> np.ndarray | None:
        """`(S,)` float32 bias of the source model's head, or `None`."""
        return self._array("bias.npy") if (self.path / "bias.npy").exists() else None

    @cached_property
    def overlap(self) -> Overlap:
        """Target tokens that the source has too; `native` ones are told where the source languages are known."""
        if self.meta.reference or self.meta.source_languages is None:
            return self._spelled_overlap
        uncased = ignores_case(self.tokenizer("source"))
        return with_native(self._spelled_overlap, self.target, self.words, self.meta.source_languages, uncased)

    @cached_property
    def _spelled_overlap(self) -> Overlap:
        """As the bundle stores it, without `native` ones."""
        return Overlap(*self._arrays("overlap.npz", ("target_ids", "source_ids", "kinds")))

    @cached_property
    def split(self) -> dict[SplitName, np.ndarray]:
        """Ids of the covered source tokens of each part, ascending."""
        names: tuple[SplitName, ...] = get_args(SplitName)
        return dict(zip(names, self._arrays("split.npz", names), strict=True))

    def matches(self, side: Side) -> Matches:
        """`source` or `target`."""
        return self.source if side == "source" else self.target

    def pooled(self, side: Side, pooling: Pooling = "weighted") -> np.ndarray:
        """Each token's words as one vector, `(tokens, d)` float; zero where it has none.

        Args:
            side: whose tokens.
            pooling: `weighted` (ours: by share and rank, unit vectors centred per language) or `duplicates` (OFA: raw
                vectors, a word counted once for each surface variant in which the token is found) or `frequency`
                (WECHSEL: raw vectors by how frequent the word is in its language).
        """
        if pooling == "weighted":
            return self._array(f"{side}/pooled.npy")
        matches = self.matches(side)
        if pooling == "frequency":
            return frequency_means(matches, self.words)
        return reference.word_means(matches, self.words.vectors)

    def tokenizer(self, side: Side) -> PreTrainedTokenizerBase:
        """The tokenizer of one side: one object for all, not to be saved, for a call may leave it truncating."""
        return self._once("tokenizer", side, lambda: self.load_tokenizer(side))

    def load_tokenizer(self, side: Side) -> PreTrainedTokenizerBase:
        """The same in an object of its own."""
        return load_tokenizer(self.path / side / "tokenizer", f"{self.flag} {self.path}")

    def tokens(self, side: Side) -> list[Token | None]:
        """Canonical tokens of one side by id."""
        return self._once("tokens", side, lambda: canonical_tokens(self.tokenizer(side)))

    def usage(self, side: Side) -> Usage:
        """How the tokens of one side are used, in text of the languages that the two vocabularies are for."""
        return self._once("usage", side, lambda: self._count_usage(side))

    def _count_usage(self, side: Side) -> Usage:
        known = self.meta.source_languages
        size = self.meta.source_tokens if side == "source" else self.meta.target_tokens
        spoken = None if known is None else [*known, *self.new_languages]
        return token_usage(self.tokenizer(side), self.words, size, spoken)

    @cached_property
    def fertility(self) -> dict[str, Fertility]:
        """What both tokenizers make of each language's words."""
        return measure_languages(self.words, (self.tokenizer("source"), self.tokenizer("target")))

    @property
    def new_languages(self) -> list[str]:
        """Languages that the new vocabulary is for: those named as its, else those whose words it cuts better."""
        known, named = self.meta.source_languages or (), self.meta.target_languages
        return languages_served(self.fertility, known) if named is None else sorted(set(named) - {"", *known})

    def _once(self, what: str, side: Side, make: Callable[[], T]) -> T:
        """What was made of one side when it was first asked for."""
        if (what, side) not in self._made:
            self._made[what, side] = make()
        return cast(T, self._made[what, side])

    @cached_property
    def _made(self) -> dict[tuple[str, Side], Any]:
        return {}

    @cached_property
    def expands(self) -> bool:
        """Whether the target vocabulary is the source's with new tokens, so that old rows must stay as they are."""
        return not self.meta.reference and extends(self.tokenizer("target"), self.tokenizer("source"))

    def rows(self, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Embedding rows of coordinates.

        Args:
            coordinates: `(N, K)`.

        Returns:
            Input rows `(N, E)` and output rows `(N, E)`, the latter `None` without an untied head.
        """
        split = self.meta.input_dim
        inputs = coordinates[:, :split] @ self.input_primitives
        outputs = self.output_primitives
        return inputs, None if outputs is None else coordinates[:, split:] @ outputs

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """The table of counts that `hyperofa prepare` prints."""
        rows = [(name.replace("_", " "), f"{count:,}") for name, count in self.meta.counts.items()]
        rows.append(("coordinate dim (explained)", f"{self.meta.coordinate_dim} ({self.meta.explained:.1%})"))
        width = max(len(name) for name, _ in rows)
        return "\n".join([f"bundle {self.path}", *(f"  {name:<{width}}  {value:>12}" for name, value in rows)])
