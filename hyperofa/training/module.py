"""The LightningModule that trains a hypernetwork on source tokens, through the frozen PLM on source text, or both."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Adam, AdamW
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.models.objectives import longest
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.nets.inputs import Memory, WordSets
from hyperofa.nets.net import Net
from hyperofa.nets.registry import check_registered
from hyperofa.nets.sizes import check_size
from hyperofa.nets.source_attention import SourceAttention
from hyperofa.runtime.idle import changed_settings
from hyperofa.runtime.ranges import Count, NonNegative, Positive, in_range
from hyperofa.training.batches import TextBatch, TokenBatch
from hyperofa.training.checkpoints import RECORD, make_record, named_net
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.language_loss import HeadError, language_loss
from hyperofa.training.language_views import LanguageViews
from hyperofa.training.losses import Distance, token_loss
from hyperofa.training.metrics import MeansByGroup, SentenceRetrieval, TokenMetrics
from hyperofa.training.plm_loss import FrozenPLM, Precision, Sentences, sentence_loss
from hyperofa.training.text_views import MAX_TOKENS, VIEWS
from hyperofa.training.unread import tell_unread
from hyperofa.training.word_sets import WordIndices

_TENSORS, _ELEMENTS = 2**13, 2**32
_TOO_LARGE = f"--model.net: expected a net of at most {_ELEMENTS:,} weights in {_TENSORS:,} parameters, found more"


class HyperModule(lightning.LightningModule):
    """Trains a net; the memory and the PLM that it works with come from the data and stay out of the checkpoint.

    Args:
        word_dim: d; taken from the bundle.
        coordinate_dim: K; taken from the bundle.
        net: builds the hypernetwork from the two widths, with its own defaults; SourceAttention if not given.
        usage: tell the net how tokens are used, if it is one that can be told (`Net.ask_for_usage`).
        token_weight: weight of the loss on source tokens, where that stream is on.
        token_epochs: epochs in which that weight falls to zero, in equal steps; `None` to keep it.
        contrastive_weight: λ, the part of the contrastive loss in it; the rest is the distance.
        temperature: of the contrastive loss.
        distance: mse, or l1 as in the paper; both normalised.
        text_weight: weight of the losses through the PLM, where that stream is on.
        sentence_weight: weight of the loss between sentence vectors in it, where there are views for it.
        language_weight: weight of the language model's own loss in it, likewise.
        sentence_temperature: of the contrastive loss between sentences.
        cosine_weight: weight of 1 - cosine between a sentence and its view.
        hidden_weight: weight of the token-wise distance of hidden states, on views under the source tokenizer.
        kl_weight: weight of KL(source model ‖ predicted rows) over next-token distributions, on the same views.
        layers: hidden states that sentences are compared in, -1 the last.
        precision: of the PLM: float32, bfloat16, or auto for bfloat16 where the hardware is fast at it.
        gradient_checkpointing: trade time for memory in the PLM.
        optimizer: adamw or adam.
        learning_rate: its highest value.
        weight_decay: on weight matrices, with adamw.
        schedule: one_cycle (warm-up over a tenth, cosine down to zero), step (times `step_factor` every `step_epochs`
            epochs, as in the paper) or constant.
        step_epochs: see `schedule`.
        step_factor: see `schedule`.
        compile: compile the net (`torch.compile`); its checkpoints are those of a net that is not. On one core a step
            of `SourceAttention` is 1.1 to 1.2 times as fast, after a minute or two of compiling; `SetFormer` is slower.
    """

    # No buffers: DDP would send them to every process at every step.
    _memory: Memory
    _primitives: Tensor
    _output_primitives: Tensor | None = None
    _word_vectors: Tensor

    @in_range("model.")
    def __init__(
        self,
        word_dim: int,
        coordinate_dim: int,
        net: Callable[[int, int], Net] | None = None,
        usage: bool = True,
        token_weight: NonNegative = 1.0,
        token_epochs: Count | None = None,
        contrastive_weight: NonNegative = 0.1,
        temperature: Positive = 0.25,
        distance: Distance = "mse",
        text_weight: NonNegative = 1.0,
        sentence_weight: NonNegative = 1.0,
        language_weight: NonNegative = 1.0,
        sentence_temperature: Positive = 0.05,
        cosine_weight: NonNegative = 1.0,
        hidden_weight: NonNegative = 0.0,
        kl_weight: NonNegative = 0.0,
        layers: list[int] | None = None,
        precision: Precision = "auto",
        gradient_checkpointing: bool = False,
        optimizer: Literal["adamw", "adam"] = "adamw",
        learning_rate: Positive = 2e-3,
        weight_decay: NonNegative = 0.01,
        schedule: Literal["one_cycle", "step", "constant"] = "one_cycle",
        step_epochs: Count = 10,
        step_factor: Positive = 0.95,
        compile: bool = False,
    ) -> None:
        self._changed = changed_settings(HyperModule.__init__, locals())
        super().__init__()
        # A class as the default would, in jsonargparse, hand its arguments on to the class that is named instead.
        make = SourceAttention if net is None else net
        check_size(lambda: make(word_dim, coordinate_dim), _TOO_LARGE, _TENSORS, _ELEMENTS)
        self.net, self._usage = make(word_dim, coordinate_dim), usage
        check_registered(self.net)
        if compile:
            self.net.compile(dynamic=True)  # in place: the names of its weights stay; batches are of many shapes
        self._token_weight, self._token_epochs, self._text_weight = token_weight, token_epochs, text_weight
        self._token_loss = partial(
            token_loss, contrastive_weight=contrastive_weight, temperature=temperature, distance=distance
        )
        self._sentence_loss = partial(sentence_loss, temperature=sentence_temperature, cosine_weight=cosine_weight)
        self._sentence_weight, self._language_weight = sentence_weight, language_weight
        self._token_wise_weights = hidden_weight, kl_weight
        more = {"precision": precision, "gradient_checkpointing": gradient_checkpointing}
        self._plm_options: dict[str, Any] = {"layers": layers or [-1], **more}
        self._optimizer, self._learning_rate, self._weight_decay = optimizer, learning_rate, weight_decay
        self._schedule, self._decay = schedule, (step_epochs, step_factor)
        self._plm: list[FrozenPLM] = []  # in a list, lest it becomes a submodule
        self._token_metrics = TokenMetrics()
        self._side_metrics = torch.nn.ModuleDict({side: TokenMetrics() for side in ("input", "output")})
        self._retrieval = {view: SentenceRetrieval() for view in VIEWS[:2]}
        self._nats = MeansByGroup()
        self._metrics = torch.nn.ModuleList(self._retrieval.values())  # so that Lightning moves them

    @property
    def _data(self) -> HyperDataModule:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Take the memory, the word vectors and the primitives from the data, and load the PLM where text is read."""
        data = self._data
        if data.reads_text and stage in ("fit", "validate") and not self._plm:
            self._plm.append(self._load_plm(stage))
        if stage == "fit" and data.reads_text and self._usage:
            self.net.ask_for_usage(0 if data.objective is None else len(data.bundle.words.languages))
        if stage == "fit":
            tell_unread(self._changed, data)
        self._word_vectors = data.word_vectors
        self._memory = data.memory_of(self.net)
        self._primitives = torch.from_numpy(data.bundle.input_primitives.copy())
        outputs = data.bundle.output_primitives
        self._output_primitives = None if outputs is None else torch.from_numpy(outputs.copy())

    def _load_plm(self, stage: str) -> FrozenPLM:
        """The bundle's source model, with its head where that is to judge the text."""
        data = self._data
        path, flag = data.bundle.source_model, data.bundle.source_flag
        model = load_model(path, flag)
        data.bundle.check_source(read_vocabulary(model), f"{flag} {path}")
        data.cut_texts(longest(model, None, MAX_TOKENS), stage)
        try:
            return FrozenPLM(model, **self._plm_options, head=data.objective is not None)
        except HeadError as error:
            if not data.do_without_head(stage):
                raise
            rank_zero_warn(f"Sentence vectors alone judge the text. {error}")
            return FrozenPLM(load_model(path, flag), **self._plm_options)

    def on_fit_start(self) -> None:
        """Move what the net works with beside it."""
        self._memory = self._memory.to(self.device)
        self._primitives = self._primitives.to(self.device)
        if self._output_primitives is not None:
            self._output_primitives = self._output_primitives.to(self.device)
        for plm in self._plm:
            plm.to(self.device)

    on_validation_start = on_test_start = on_predict_start = on_fit_start

    def on_train_start(self) -> None:
        """Note the seed that the run began with."""
        self._seed = torch.initial_seed()

    def on_train_batch_start(self, batch: Any, batch_number: int) -> None:
        """Seed what an epoch draws by its number and process alone: a run that goes on draws the same."""
        if batch_number == 0:
            place = (self._seed, self.current_epoch, self.global_rank)
            torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1))

    def forward(self, sets: WordSets | WordIndices, self_index: Tensor) -> Tensor:
        """Coordinates `(B, K)` of B word sets; `self_index` as in `Net.forward`."""
        if isinstance(sets, WordIndices):
            sets = sets.fetch(self._word_vectors)
        return self.net(sets, self._memory, self_index)

    def training_step(self, batches: dict[str, TokenBatch | TextBatch], batch_number: int) -> Tensor:
        """Weighted sum of the losses of the streams."""
        losses = [self._step(batch, "train") for batch in batches.values()]
        return torch.stack(losses).sum()

    def validation_step(self, batch: TokenBatch | TextBatch, batch_number: int, dataloader_idx: int = 0) -> None:
        """Held-out tokens or sentences."""
        self._step(batch, "val")

    def test_step(self, batch: TokenBatch, batch_number: int) -> None:
        """Held-out source tokens."""
        self._step(batch, "test")

    def predict_step(self, batch: TokenBatch, batch_number: int) -> tuple[Tensor, Tensor]:
        """Target token ids `(B,)` and their coordinates `(B, K)`."""
        return batch.ids, self(batch.sets, batch.self_index)

    def _step(self, batch: TokenBatch | TextBatch, stage: str) -> Tensor:
        if isinstance(batch, TokenBatch):
            return self._present_token_weight() * self._token_step(batch, stage)
        return self._text_weight * self._text_step(batch, stage)

    def _present_token_weight(self) -> float:
        passed = 0.0 if self._token_epochs is None else self.current_epoch / self._token_epochs
        return self._token_weight * max(0.0, 1 - passed)

    def _token_step(self, batch: TokenBatch, stage: str) -> Tensor:
        predicted = self(batch.sets, batch.self_index)
        loss = self._token_loss(predicted, batch.expected)
        if stage == "train":
            self._log(stage, {"token_loss": loss.total}, len(batch.self_index))
        else:
            self._token_metrics.update(predicted, batch.expected, self._memory.values)
            split = len(self._primitives)
            if split < predicted.shape[1]:  # the head is untied
                for side, columns in (("input", slice(split)), ("output", slice(split, None))):
                    parts = (rows[:, columns] for rows in (predicted, batch.expected, self._memory.values))
                    self._side_metrics[side].update(*parts)  # type: ignore[operator]
            self._log(stage, {"token_loss": loss.total, "contrastive": loss.contrastive}, len(batch.self_index))
        return loss.total

    def _text_step(self, batch: TextBatch, stage: str) -> Tensor:
        predicted = self(batch.sets, batch.self_index)
        coordinates = batch.coordinates.to(predicted.dtype).index_put((batch.predicted,), predicted)
        rows = coordinates[:, : len(self._primitives)] @ self._primitives
        losses = []
        if len(batch.owners):
            losses.append(self._sentence_weight * self._sentence_step(batch, rows, stage))
        if batch.language is not None:
            losses.append(self._language_weight * self._language_step(batch.language, coordinates, rows, stage))
        total = torch.stack(losses).sum()
        self._log(stage, {"text_loss": total}, len(batch.owners) or len(batch.language.mask))  # type: ignore[union-attr]
        return total

    def _sentence_step(self, batch: TextBatch, rows: Tensor, stage: str) -> Tensor:
        """Views of sentences, read through predicted rows, against the sentences."""
        plm = self._plm[0]
        expected = plm.encode_ids(batch.source_ids, batch.source_mask)
        encoded = plm.encode(rows, batch.views)
        losses = {}
        spans = dict(zip(VIEWS, _spans(batch.counts), strict=True))
        for view, mine in spans.items():
            count = mine.stop - mine.start
            if not count:
                continue
            loss = self._sentence_loss(encoded[mine], expected, batch.owners[mine])
            losses[view] = (loss, count)
            if stage == "val":
                found = encoded[mine].flatten(1), expected[batch.owners[mine]].flatten(1)
                self._retrieval[view].update(*found, batch.languages[mine])
        total = torch.stack([loss * count for loss, count in losses.values()]).sum() / len(batch.owners)
        self_index = spans["source"]
        if any(self._token_wise_weights) and "source" in losses:
            length = int(batch.views.mask[self_index].sum(1).max())
            views = Sentences(batch.views.slots[self_index, :length], batch.views.mask[self_index, :length])
            distances = plm.token_losses(rows, views, batch.source_ids[batch.owners[self_index], :length])
            total = total + sum(w * x for w, x in zip(self._token_wise_weights, distances, strict=True))
        self._log(stage, {f"{view}_loss": loss for view, (loss, _) in losses.items()}, len(batch.owners))
        return total

    def _language_step(self, views: LanguageViews, coordinates: Tensor, rows: Tensor, stage: str) -> Tensor:
        """What the language model says of target text, in nats a token."""
        output_rows = rows
        if self._output_primitives is not None:
            output_rows = coordinates[:, len(self._primitives) :] @ self._output_primitives
        logits = self._plm[0].language_logits(rows, output_rows, views)
        nats = language_loss(logits, views.labels, views.chances)
        for view, mine in zip(VIEWS, _spans(views.counts), strict=True):
            if count := mine.stop - mine.start:
                found = {f"{view}_nats": nats[mine].detach().mean()}
                if stage == "val" and view == "translated":
                    found["score"] = -found["translated_nats"]
                    if views.languages is not None:
                        self._nats.update(nats[mine], views.languages[mine])
                self._log(stage, found, count)
        return nats.sum() / max(1, len(nats))

    def on_validation_epoch_end(self) -> None:
        """Metrics over all held-out tokens and sentences."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Metrics over all test tokens."""
        self._log_metrics("test")

    def _log_metrics(self, stage: str) -> None:
        values = {f"{stage}/{name}": value for name, value in self._token_metrics.compute().items()}
        self._token_metrics.reset()
        for side, metric in self._side_metrics.items():
            if metric.update_called:
                values |= {f"{stage}/{side}_{name}": value for name, value in metric.compute().items()}  # type: ignore[operator]
                metric.reset()  # type: ignore[operator]
        self.log_dict(values)
        for view, metric in self._retrieval.items():
            if metric.update_called:
                found, by_language = metric.compute()
                self.log(f"{stage}/{view}_mrr", found, prog_bar=True)
                self._log_languages(f"{stage}/{view}_mrr", by_language)
                if view == "translated" and self._data.objective is None:
                    self.log(f"{stage}/score", found)
                metric.reset()
        if self._nats.update_called:
            self._log_languages(f"{stage}/translated_nats", self._nats.compute()[1])
            self._nats.reset()

    def _log_languages(self, name: str, values: dict[int, Tensor]) -> None:
        languages = self._data.bundle.words.languages
        self.log_dict({f"{name}/{languages[number]}": value for number, value in values.items()})

    def _log(self, stage: str, values: dict[str, Tensor], size: int) -> None:
        self.log_dict(
            {f"{stage}/{name}": value for name, value in values.items()},
            batch_size=size, on_step=False, on_epoch=True, prog_bar=stage == "train", sync_dist=stage != "train",
            add_dataloader_idx=False,
        )  # fmt: skip

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        matrices = [p for p in self.net.parameters() if p.ndim > 1]
        others = [p for p in self.net.parameters() if p.ndim <= 1]
        kind = AdamW if self._optimizer == "adamw" else Adam
        decay = self._weight_decay if self._optimizer == "adamw" else 0.0
        groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = kind(groups, lr=self._learning_rate)
        if self._schedule == "constant":
            return optimizer
        if self._schedule == "step":
            epochs, factor = self._decay
            return [optimizer], [StepLR(optimizer, epochs, factor)]
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise InputError(
                "--model.schedule one_cycle: expected an end of training to plan for, found none; give "
                "--trainer.max_epochs or --trainer.max_steps, or --model.schedule constant"
            )
        warm_up = 0.1 if steps != 10 else 0.2  # torch would divide by the length of a warm-up from step 0 to step 0
        schedule = OneCycleLR(optimizer, self._learning_rate, total_steps=int(steps), pct_start=warm_up)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record the net's kind, arguments and widths, so that it can be rebuilt without a config; plain data only."""
        data = self._data
        checkpoint[RECORD] = make_record(
            self.net, data.bundle.meta.training_fingerprint, data.copied, data.max_words, data.words
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another net before its tensors fail to fit.

        Raises:
            InputError: the checkpoint's net is not this one, or was trained in another space.
        """
        found = checkpoint.get(RECORD, {})
        net = found.get("net") or {}
        unnamed = {"frequency": False, "languages": 0, "forms": False}  # by old ones
        if net.get("frequency") and not self.net.frequency:
            self.net.ask_for_usage(net.get("languages", 0), net.get("forms", False))
            self._memory = self._data.memory_of(self.net)
        ours, theirs = unnamed | self.net.spec(), unnamed | net
        if ours != theirs:
            raise InputError(
                f"--ckpt_path: expected a checkpoint of {named_net(ours, theirs)}, found one of "
                f"{named_net(theirs, ours)}; use its config.yaml as --config, on its bundle"
            )
        if found["space"] != self._data.bundle.meta.training_fingerprint:
            raise InputError(
                "--ckpt_path: expected a net for the vectors, source model and source languages of --data.bundle "
                f"{self._data.bundle.path}, found one trained on others"
            )


def _spans(counts: Sequence[int]) -> list[slice]:
    """Where so many of each kind stand, one kind after the other."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
