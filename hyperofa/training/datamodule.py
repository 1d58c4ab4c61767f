"""Batches for Lightning: source tokens with their word sets, and source sentences in several views.

Two streams feed a hypernetwork; either can be left out. *Tokens*: source tokens and the coordinates they have.
*Text*: source sentences and what the frozen PLM must still understand when rows are predicted: the sentence under the
source tokenizer (each token predicted from the others), under the target tokenizer, and translated word by word into
the languages of the vector file (`translation.Translator`).
"""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hyperofa.bundle.bundle import Bundle, Side, SplitName
from hyperofa.errors import InputError
from hyperofa.methods.fallbacks import fill_for_training, target_inputs
from hyperofa.methods.registry import method_named
from hyperofa.models.objectives import TextObjective, hiding_tokens, objective_at
from hyperofa.nets.inputs import Memory
from hyperofa.nets.net import Net
from hyperofa.reference import GROUP
from hyperofa.runtime.idle import changed_settings
from hyperofa.runtime.ranges import Chance, Count, Seed, Size, in_range
from hyperofa.tokens.canonical import OverlapKind, bare_backend
from hyperofa.training.batches import TokenBatch
from hyperofa.training.language_views import SURVEYED, LanguageTask
from hyperofa.training.samplers import Draw, GroupedBatches, RandomBatches
from hyperofa.training.text_views import MAX_TOKENS, NO_VIEWS, LanguagePart, TextViews, ViewCounts, ViewSide, read_texts
from hyperofa.training.translation import Drawing, Translator
from hyperofa.training.word_sets import (
    Augmentation,
    WordOrder,
    WordSetTable,
    list_neighbours,
    make_memory,
    self_indices,
    tell_usage,
)
from hyperofa.training.word_table import Placement, load_table

Judges = Literal["auto", "sentence", "language", "both"]


class _Tokens(Dataset[TokenBatch]):
    """Tokens of one side as a dataset whose items are whole batches."""

    def __init__(
        self,
        ids: np.ndarray,
        table: WordSetTable,
        self_index: np.ndarray,
        coordinates: np.ndarray,
        word_dropout: float | None,
    ) -> None:
        self._ids, self._table, self._self_index, self._coordinates = ids, table, self_index, coordinates
        self._word_dropout = word_dropout

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, draw: Draw) -> TokenBatch:
        ids = self._ids[draw.items]
        augment = self._word_dropout is not None
        sets = self._table.sets(ids, np.random.default_rng(draw.seed) if augment else None, self._word_dropout or 0.0)
        expected = torch.from_numpy(np.array(self._coordinates[ids], np.float32))
        return TokenBatch(torch.from_numpy(ids), sets, torch.from_numpy(self._self_index[ids]), expected)


class HyperDataModule(lightning.LightningDataModule):
    """Streams of source tokens and source text from a bundle.

    Args:
        bundle: folder written by `hyperofa prepare`.
        text: files of source-language sentences, one a line (.txt, .gz, .tsv: last column).
        streams: what is trained on: `text`, source `tokens`, or `both`; without text, `tokens` is all there is. For a
            model whose output embeddings are untied, `text` is `both` where no language model judges the text, as
            nothing else reaches those rows.
        batch_size: tokens a batch.
        max_words: words a token is described by, at most.
        words: which they are: the `heaviest`, or the first of a `set`, raw, as published.
        augmentation: of the words of a training token: `dropout`, or `sample` as published.
        word_dropout: chance of leaving out a word.
        batches: of source tokens: of similar size in `random` order, or `ascending` as published.
        sentences: source sentences a text batch.
        views: how these sentences are seen.
        judges: who judges the text: `sentence` vectors, the `language` model's own predictions, or `both`; `auto` takes
            sentence vectors of a model without a head, predictions of a causal one, and both of a masked one or one of
            T5's kind, which says the spans that are hidden; of other encoder-decoders sentence vectors alone.
        language_views: how text is seen that the language model predicts; none under the source tokenizer.
        language_crop: fewest and most words of these views.
        negatives: target tokens beside those of the text that compete in the language model's predictions.
        parallel: files of source sentences and their translations, tab-separated, for `views.parallel`.
        text_languages: languages of the text; the bundle's source languages if not given.
        translated_languages: those that it is translated into; `Bundle.new_languages` if not given.
        drawing: of the language that a sentence is translated into: those sooner that have words for it (`fitting`), or
            all alike (`even`).
        crop: fewest and most words of the sentences of a training batch.
        steps: text batches an epoch.
        validation_sentences: sentences held out to choose the checkpoint.
        copied: kinds of overlap whose target rows are copied, not predicted; role, symbol and native if not given.
        seed: of order and augmentation.
        num_workers: processes that make batches.
        word_table: where word vectors are: all that are needed on the trainer's `device`, in half precision, or
            `stream`ed from the bundle with each batch; `auto` for the device if it is a GPU with room.
    """

    @in_range("data.")
    def __init__(
        self,
        bundle: str | PathLike[str],
        text: list[str] | None = None,
        streams: Literal["text", "tokens", "both"] = "text",
        batch_size: Count = 256,
        max_words: Count = 32,
        words: WordOrder = "heaviest",
        augmentation: Augmentation = "dropout",
        word_dropout: Chance = 0.1,
        batches: Literal["random", "ascending"] = "random",
        sentences: Count = 96,
        views: ViewCounts = ViewCounts(),  # noqa: B008  frozen
        judges: Judges = "auto",
        language_views: ViewCounts = ViewCounts(translated=64, target=32),  # noqa: B008  frozen
        language_crop: tuple[int, int] = (8, 24),
        negatives: int = 1024,
        parallel: list[str] | None = None,
        text_languages: list[str] | None = None,
        translated_languages: list[str] | None = None,
        drawing: Drawing = "fitting",
        crop: tuple[int, int] = (4, 20),
        steps: Count = 50,
        validation_sentences: Count = 400,
        copied: Sequence[OverlapKind] | None = None,
        seed: Seed = 0,
        num_workers: Size = 0,
        word_table: Placement = "auto",
    ) -> None:
        self.changed = changed_settings(HyperDataModule.__init__, locals())
        """Settings that are not as they would be anyway."""
        super().__init__()
        self.bundle = Bundle.load(bundle, "--data.bundle")
        self._text_files, self._parallel_files = list(text or []), list(parallel or [])
        self._asked_streams, self._asked_copied, self._judges = streams, copied, judges
        self._text_languages, self._translated_languages, self._drawing = text_languages, translated_languages, drawing
        if views.parallel and not parallel:
            raise InputError("--data.parallel: expected a file of parallel text for --data.views.parallel, found none")
        if language_views.parallel and not parallel:
            raise InputError(
                "--data.parallel: expected a file of parallel text for --data.language_views.parallel, found none"
            )
        self._batch_size, self.max_words, self._word_dropout = batch_size, max_words, word_dropout
        self.words, self._augmentation, self._batches = words, augmentation, batches
        self._sentences, self._views, self._crop, self._steps = sentences, views, crop, steps
        # Who asks for parallel text means it for all that reads text.
        language_views = replace(language_views, parallel=max(language_views.parallel, views.parallel))
        self._language_views, self._language_crop, self._negatives = language_views, language_crop, negatives
        self._validation_sentences = validation_sentences
        self._seed, self._num_workers, self._residence = seed, num_workers, word_table
        self._longest = MAX_TOKENS
        self.word_dim, self.coordinate_dim = self.bundle.meta.word_dim, self.bundle.meta.coordinate_dim
        self._let_judge(self._objective())

    def _let_judge(self, objective: TextObjective | None) -> None:
        """Settle what follows from who judges the text.

        Args:
            objective: of the language model; `None` where sentence vectors judge alone.
        """
        self.objective = objective
        """What the language model is trained to say, where it judges the text."""
        self._sees_sentences = (
            self._judges == "both" or objective is None or (self._judges == "auto" and objective != "causal")
        )
        alone = objective is None and self.bundle.meta.output_dim > 0
        self.streams = "both" if self._asked_streams == "text" and alone else self._asked_streams
        self.copied = tuple(("role", "symbol", "native") if self._asked_copied is None else self._asked_copied)

    def _objective(self) -> TextObjective | None:
        """The source model's objective where it is to judge."""
        if not self._text_files or self._judges == "sentence":
            return None
        found = objective_at(self.bundle.source_model, self.bundle.source_flag)
        if found is not None and (found == "causal" or hiding_tokens(found, self.bundle.tokenizer("target"))):
            return found
        if self._judges != "auto":
            raise InputError(
                f"--data.judges {self._judges}: expected a causal language model, or a masked one and a mask token in "
                "the target tokenizer, or one of T5's kind and its <extra_id_0>, <extra_id_1> and pad token there, "
                f"found {self.bundle.source_model}; give --data.judges sentence"
            )
        return None

    def do_without_head(self, stage: str) -> bool:
        """Let sentence vectors judge alone, if that is left to choose, of a model whose head takes no other rows.

        Args:
            stage: that is being set up.

        Returns:
            Whether it was left to choose.
        """
        if self._judges != "auto":
            return False
        self._let_judge(None)
        self.setup(stage)
        return True

    def cut_texts(self, tokens: int, stage: str) -> None:
        """Show texts of so many tokens at most.

        Args:
            tokens: that the source model has positions for.
            stage: that is being set up.
        """
        if tokens < self._longest:
            self._longest = tokens
            self.setup(stage)

    @property
    def reads_text(self) -> bool:
        """Whether there is text, and so a PLM is needed."""
        return bool(self._text_files)

    @property
    def files(self) -> list[str | Path]:
        """All that it reads."""
        return [self.bundle.path, *self._text_files, *self._parallel_files]

    def setup(self, stage: str) -> None:
        """Build what the streams of this stage read; called by Lightning on every process."""
        if stage == "fit" and self.streams != "tokens" and not self._text_files:
            raise InputError(
                "--data.text: expected a file of source-language sentences, one a line, found none; give one, or train "
                "on the source tokens alone with --config tokens"
            )
        bundle = self.bundle
        # On text nothing is held out of the source tokens, since each is hidden from itself.
        whole = stage == "predict" or (self.streams == "text" and stage != "test")
        remembered = np.flatnonzero(bundle.source.covered) if whole else bundle.split["train"]
        self.memory = make_memory(bundle, remembered)
        self._self_index = self_indices(bundle, remembered)
        text = stage in ("fit", "validate") and self.reads_text
        self._sides: list[Side] = ["target"] if stage == "predict" else ["source", "target"] if text else ["source"]
        self._tables = {
            side: WordSetTable(bundle, side, self.max_words, self.words, self._augmentation) for side in self._sides
        }
        self.word_vectors = load_table(list(self._tables.values()), self._residence, self._device())
        if text:
            self._set_up_text()

    def memory_of(self, net: Net) -> Memory:
        """The memory, with what the net looks at: neighbours of the tokens that this stage predicts, their usage."""
        memory = tell_usage(net, self.memory, self.bundle, self._self_index)
        neighbours = net.looks_at(int(self.bundle.source.covered.sum()))
        if neighbours is None:
            return memory
        ids = {side: np.flatnonzero(self.bundle.matches(side).covered) for side in self._sides}
        return list_neighbours(memory, self.bundle, self._self_index, ids, neighbours)

    def _set_up_text(self) -> None:
        bundle = self.bundle
        languages = self._text_languages or bundle.meta.source_languages
        if languages is None:
            raise InputError(
                f"--data.text_languages: expected the languages of --data.text, as {bundle.flag} {bundle.path} names "
                "none that the model knows; give them, or run `hyperofa prepare` with --source_languages"
            )
        lines, pairs = read_texts(self._text_files, self._parallel_files)
        held_out = min(self._validation_sentences, len(lines) // 10)
        if held_out < 2:
            raise InputError(
                f"--data.text: expected 20 sentences at least, to train and validate on, found {len(lines)}"
            )
        order = np.random.default_rng(self._seed).permutation(len(lines))
        # A language that the vocabulary is not for would be seen in pieces.
        into = bundle.new_languages if self._translated_languages is None else self._translated_languages
        translator = Translator(bundle.words, languages, lines, drawing=self._drawing, into=into)
        fallback = method_named("hyperofa", reference=bundle.meta.reference).fallback
        target = fill_for_training(target_inputs(bundle), self.copied, fallback)
        sides = {
            "source": self._view_side("source", bundle.source.covered, bundle.coordinates),
            "target": self._view_side("target", target.plan.of("predicted"), target.coordinates),
        }
        task = None
        if self.objective is not None:
            rng = np.random.default_rng((self._seed, 1))
            surveyed = [text for i in order[held_out:][:SURVEYED] for text in self._seen(lines[i], translator, rng)]
            task = LanguageTask(
                self.objective,
                sides["target"].tokenizer,
                bundle.meta.target_tokens,
                hiding_tokens(self.objective, bundle.tokenizer("target")),
                bundle.tokenizer("target").pad_token_id if self.objective == "spans" else None,
                None if bundle.bias is None else target.bias(bundle.bias),
                self._negatives,
                surveyed,
            )
        whole = ViewCounts(translated=1, target=1)
        self._texts = {
            part: TextViews(
                [lines[i] for i in chosen],
                **sides,
                translator=translator,
                sentences=self._sentences,
                views=(self._views if self._sees_sentences else NO_VIEWS) if part == "train" else whole,
                parallel=pairs if part == "train" else (),
                crop=self._crop,
                augment=part == "train",
                word_dropout=self._word_dropout,
                language=None
                if task is None
                else LanguagePart(task, self._language_views if part == "train" else whole, self._language_crop),
            )
            for part, chosen in (("val", order[:held_out]), ("train", order[held_out:]))
        }

    def _seen(self, line: str, translator: Translator, rng: np.random.Generator) -> list[str]:
        """A line as often, in translation and as it is, as the language model is to see such views of it."""
        views = self._language_views
        language = translator.draw_language(line, rng) if translator.languages else None
        translated = line if language is None else translator.translate(line, language, rng)
        return [translated] * (views.translated > 0) + [line] * (views.target > 0)

    def _view_side(self, side: Side, predictable: np.ndarray, coordinates: np.ndarray) -> ViewSide:
        tokenizer = bare_backend(self.bundle.tokenizer(side))
        tokenizer.enable_truncation(self._longest)
        return ViewSide(tokenizer, self._tables[side], predictable, coordinates, self._self_index[side])

    def _tokens(self, part: SplitName) -> DataLoader[TokenBatch]:
        ids, table, train = self.bundle.split[part], self._tables["source"], part == "train"
        dropout = self._word_dropout if train else None
        dataset = _Tokens(ids, table, self._self_index["source"], self.bundle.coordinates, dropout)
        published: dict[str, Any] = (
            {"group": GROUP, "ascending": True} if train and self._batches == "ascending" else {}
        )
        sampler = GroupedBatches(table.counts[ids], self._batch_size, train, self._seed, *self._place(), **published)
        sampler.set_epoch(self._epoch())
        return self._loader(dataset, sampler)

    def _place(self) -> tuple[int, int]:
        """This process's rank and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _device(self) -> torch.device:
        """Where the net will run."""
        return self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")

    def _epoch(self) -> int:
        """The epoch that begins: workers draw from it before Lightning names it."""
        return self.trainer.current_epoch if self.trainer is not None else 0

    def _loader(self, dataset: Dataset[Any], sampler: Sampler[Draw]) -> DataLoader[Any]:
        workers = self._num_workers
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self._device().type == "cuda",
        )

    def train_dataloader(self) -> Any:
        """The training streams by name; an epoch is as long as the longer of them."""
        loaders: dict[str, DataLoader[Any]] = {}
        if self.streams != "text":
            loaders["tokens"] = self._tokens("train")
        if self.streams != "tokens":
            sampler = RandomBatches(self._steps, self._seed, self._place()[0])
            sampler.set_epoch(self._epoch())
            loaders["text"] = self._loader(self._texts["train"], sampler)
        return loaders

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Held-out tokens, then held-out sentences if there is text."""
        loaders = [self._tokens("val")]
        if self._text_files:
            texts = self._texts["val"]
            sizes = np.zeros(len(texts))
            sampler = GroupedBatches(sizes, self._sentences, False, self._seed, *self._place())
            loaders.append(self._loader(texts, sampler))
        return loaders

    def test_dataloader(self) -> DataLoader[TokenBatch]:
        """The test tokens: the same for every method on the bundle."""
        return self._tokens("test")

    def predict_dataloader(self) -> DataLoader[TokenBatch]:
        """The target tokens that have words."""
        meta, table = self.bundle.meta, self._tables["target"]
        ids = np.flatnonzero(self.bundle.target.covered)
        wanted = np.broadcast_to(np.float32(0), (meta.target_tokens, meta.coordinate_dim))
        dataset = _Tokens(ids, table, self._self_index["target"], wanted, None)
        sampler = GroupedBatches(table.counts[ids], self._batch_size, False, self._seed, *self._place())
        return self._loader(dataset, sampler)
