"""Source sentences in the views that the losses through the PLM read."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer as BackendTokenizer
from torch.utils.data import Dataset

from hyperofa.runtime.ranges import Size, check_ranges
from hyperofa.runtime.text_files import in_pieces, read_lines, read_pairs
from hyperofa.training.batches import TextBatch, join, pad
from hyperofa.training.language_views import IGNORED, Asked, LanguageTask, LanguageViews, Line
from hyperofa.training.plm_loss import Sentences
from hyperofa.training.samplers import Draw
from hyperofa.training.translation import Translator
from hyperofa.training.word_sets import WordSetTable

MAX_TOKENS = 128
LONGEST_PIECE = 64 * MAX_TOKENS
"""Characters of a line that are looked at together: more than so many tokens have."""


def read_texts(files: Sequence[str], parallel: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Sentences to train on, in pieces where a line has no end, and pairs of them.

    Args:
        files: of sentences, one a line.
        parallel: files of a sentence and its translation a line.
    """
    lines = [piece for line in read_lines(files) for piece in in_pieces(line, LONGEST_PIECE)]
    return lines, [(one[:LONGEST_PIECE], other[:LONGEST_PIECE]) for one, other in read_pairs(parallel)]


@dataclass(frozen=True)
class ViewCounts:
    """How many views of each kind a training batch has.

    Attributes:
        translated: word by word into a language of the vector file, drawn at random, under the target tokenizer.
        target: the source sentence under the target tokenizer.
        source: the source sentence under its own tokenizer, each token predicted from the others.
        parallel: a true translation, from parallel text, under the target tokenizer.
    """

    translated: Size = 96
    target: Size = 0
    source: Size = 0
    parallel: Size = 0

    def __post_init__(self) -> None:
        check_ranges(self, "data.views.")


VIEWS = tuple(field.name for field in fields(ViewCounts))
NO_VIEWS = ViewCounts(translated=0)


@dataclass(frozen=True)
class ViewSide:
    """One vocabulary as the views need it.

    Attributes:
        tokenizer: Rust tokenizer that cuts what the source model has no positions for, `MAX_TOKENS` at most.
        table: word sets of its tokens.
        predictable: `(tokens,)` bool, tokens whose rows are predicted.
        coordinates: `(tokens, K)` rows of the others.
        self_index: `(tokens,)` int64, see `TextBatch.self_index`.
    """

    tokenizer: BackendTokenizer
    table: WordSetTable
    predictable: np.ndarray
    coordinates: np.ndarray
    self_index: np.ndarray


@dataclass(frozen=True)
class LanguagePart:
    """What of a batch the language model is asked for.

    Attributes:
        task: asks it.
        views: how many views of each kind a training batch has; those under the source tokenizer are left out.
        crop: fewest and most words of a view.
    """

    task: LanguageTask
    views: ViewCounts
    crop: tuple[int, int]


class TextViews(Dataset[TextBatch]):
    """Crops of source sentences and their views.

    Args:
        lines: source sentences.
        source: the source vocabulary.
        target: the target vocabulary.
        translator: makes the `translated` view.
        sentences: B, crops a batch, when the items are drawn here.
        views: how many views of each kind a batch has when augmenting, view i of a kind being of crop i modulo B; else
            every sentence has one view of each kind that is asked for.
        parallel: source sentences and their translations, for views of that kind; never cropped.
        crop: fewest and most words of a crop.
        augment: draw crops, word order and words at random, and drop words; else whole lines and full word sets.
        word_dropout: chance of leaving out a word of a word set, when augmenting.
        language: what the language model is asked for; `None` for nothing.
    """

    def __init__(
        self,
        lines: Sequence[str],
        source: ViewSide,
        target: ViewSide,
        translator: Translator,
        sentences: int,
        views: ViewCounts,
        crop: tuple[int, int],
        augment: bool,
        word_dropout: float = 0.0,
        parallel: Sequence[tuple[str, str]] = (),
        language: LanguagePart | None = None,
    ) -> None:
        self._lines, self._source, self._target, self._translator = lines, source, target, translator
        self._sentences, self._views, self._crop = sentences, views, crop
        self._augment, self._word_dropout, self._parallel = augment, word_dropout, parallel
        self._language = language

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, draw: Draw) -> TextBatch:
        rng = np.random.default_rng(draw.seed)
        items = draw.items if len(draw.items) else rng.integers(len(self._lines), size=self._sentences)
        # One length a batch: no padding to speak of.
        length = int(rng.integers(self._crop[0], self._crop[1] + 1)) if self._augment else self._crop[1]
        crops = [self._cropped(self._lines[item], length, rng).text for item in items]
        views: list[_View] = []
        for kind in VIEWS:
            count = getattr(self._views, kind)
            if kind == "parallel":
                for number in rng.integers(max(1, len(self._parallel)), size=count):
                    sentence, translation = self._parallel[number]
                    views.append(_View(translation, len(crops), kind))
                    crops.append(sentence)
                continue
            for number in range(count if self._augment else len(items) * (count > 0)):
                owner = number % len(items)
                text, language = self._seen(crops[owner], kind, rng)
                views.append(_View(text, owner, kind, language))
        asked = None if self._language is None else self._asked(self._language, draw.items, rng)
        return self._batch(crops if views else [], views, asked, rng)

    def _asked(self, language: LanguagePart, items: np.ndarray, rng: np.random.Generator) -> "_Questions":
        """Target text for the language model; of every item one view of each kind when not augmenting."""
        lines = []
        length = int(rng.integers(language.crop[0], language.crop[1] + 1)) if self._augment else language.crop[1]
        for kind, name in enumerate(VIEWS):
            count = getattr(language.views, name) if name != "source" else 0
            if name == "parallel":
                texts = [self._parallel[i][1] for i in rng.integers(max(1, len(self._parallel)), size=count)]
                lines += [Line(text, kind, True, True) for text in texts]
                continue
            chosen = items if len(items) else rng.integers(len(self._lines), size=count)
            for item in chosen if count else ():
                crop = self._cropped(self._lines[item], length, rng)
                text, spoken = self._seen(crop.text, name, rng)
                lines.append(Line(text, kind, crop.starts, crop.ends, spoken))
        asked = language.task.ask(lines, rng)
        kinds, languages = (np.array(each) for each in zip(*((x.kind, x.language) for x in lines), strict=True))
        return _Questions(asked, kinds, languages, language.task.rivals(rng))

    def _seen(self, crop: str, kind: str, rng: np.random.Generator) -> tuple[str, int]:
        """A view of a crop, and its language where it is translated, else -1."""
        if kind != "translated" or not self._translator.languages:
            return crop, -1
        language = self._translator.draw_language(crop, rng)
        # A text whose words are all left out says nothing: the original stands in.
        return self._translator.translate(crop, language, rng) or crop, self._translator.ids[language]

    def _cropped(self, line: str, length: int, rng: np.random.Generator) -> "_Crop":
        words = line.split()
        start = int(rng.integers(max(1, len(words) - length + 1))) if self._augment else 0
        return _Crop(" ".join(words[start : start + length]), start == 0, start + length >= len(words))

    def _batch(
        self, crops: list[str], views: list["_View"], asked: "_Questions | None", rng: np.random.Generator
    ) -> TextBatch:
        source, target = self._source, self._target
        offset = len(source.predictable)  # target token t is number offset + t in the joint vocabulary
        originals = [encoding.ids for encoding in source.tokenizer.encode_batch_fast(crops)]
        encoded = iter(target.tokenizer.encode_batch_fast([view.text for view in views if view.kind != "source"]))
        sequences = [
            np.array(originals[view.owner]) if view.kind == "source" else np.array(next(encoded).ids) + offset
            for view in views
        ]
        padded, mask = pad(sequences)
        present = [padded.ravel()]
        if asked is not None:
            heard = asked.asked.heard or []
            present += [ids + offset for ids in (*asked.asked.shown, *asked.asked.labels(), *heard, asked.rivals)]
        tokens = np.unique(np.concatenate(present))
        is_target = tokens >= offset
        ids = np.where(is_target, tokens - offset, tokens)

        coordinates = np.zeros((len(tokens), source.coordinates.shape[1]), np.float32)
        predictable, self_index = np.zeros(len(tokens), bool), np.empty(len(tokens), np.int64)
        for side, mine in ((source, ~is_target), (target, is_target)):
            coordinates[mine] = side.coordinates[ids[mine]]
            predictable[mine], self_index[mine] = side.predictable[ids[mine]], side.self_index[ids[mine]]
        predicted = np.flatnonzero(predictable)
        coordinates[predicted] = 0
        augmenting = rng if self._augment else None
        parts = [
            side.table.sets(ids[predicted[mine[predicted]]], augmenting, self._word_dropout)
            for side, mine in ((source, ~is_target), (target, is_target))
        ]
        source_ids, source_mask = pad([np.array(ids) for ids in originals])
        return TextBatch(
            source_ids=torch.from_numpy(source_ids),
            source_mask=torch.from_numpy(source_mask),
            views=Sentences(torch.from_numpy(np.searchsorted(tokens, padded)), torch.from_numpy(mask)),
            owners=torch.tensor([view.owner for view in views], dtype=torch.int64),
            counts=[sum(view.kind == kind for view in views) for kind in VIEWS],
            languages=torch.tensor([view.language for view in views], dtype=torch.int64),
            coordinates=torch.from_numpy(coordinates),
            predicted=torch.from_numpy(predicted),
            sets=join(parts),
            self_index=torch.from_numpy(self_index[predicted]),
            language=None if asked is None else self._language_views(asked, tokens - offset),
        )

    def _language_views(self, questions: "_Questions", tokens: np.ndarray) -> LanguageViews:
        """Over a table of `tokens` `(U,)`, ascending target ids, source tokens being below 0."""
        assert self._language is not None
        task, asked = self._language.task, questions.asked
        slots, mask = pad([np.searchsorted(tokens, ids) for ids in asked.shown])
        heard, heard_mask = None, None
        if asked.heard is not None:
            heard, heard_mask = pad([np.searchsorted(tokens, ids) for ids in asked.heard])
        answering = mask if heard_mask is None else heard_mask
        said = np.full(answering.shape, IGNORED)
        said[answering == 1] = np.concatenate(asked.said)
        positions = np.flatnonzero(said != IGNORED)  # in the order of the texts, which is that of their kinds
        labels = np.searchsorted(tokens, said.ravel()[positions])
        texts = positions // answering.shape[1]
        own = np.flatnonzero(tokens >= 0)
        chances, bias = np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.float32)
        chances[own], bias[own] = task.chances(tokens[own], int(mask.sum())), task.bias[tokens[own]]
        return LanguageViews(
            slots=torch.from_numpy(slots),
            mask=torch.from_numpy(mask),
            positions=torch.from_numpy(positions),
            labels=torch.from_numpy(labels),
            counts=np.bincount(questions.kinds[texts], minlength=len(VIEWS)).tolist(),
            chances=torch.from_numpy(chances),
            bias=torch.from_numpy(bias),
            heard=None if heard is None else torch.from_numpy(heard),
            heard_mask=None if heard_mask is None else torch.from_numpy(heard_mask),
            languages=torch.from_numpy(questions.languages[texts]),
        )


class _Questions(NamedTuple):
    """What a language model is asked, the kinds and languages of these texts, and further tokens that compete."""

    asked: Asked
    kinds: np.ndarray
    languages: np.ndarray
    rivals: np.ndarray


class _Crop(NamedTuple):
    """Words of a line, and whether it starts and ends with them."""

    text: str
    starts: bool
    ends: bool


class _View(NamedTuple):
    text: str
    owner: int
    kind: str
    language: int = -1
