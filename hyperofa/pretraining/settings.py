"""How a model is trained on and what is measured on the way, as the flags of `pretrain` and `distill` say it."""

from dataclasses import dataclass
from pathlib import Path

from hyperofa.errors import InputError
from hyperofa.runtime.ranges import Count, NonNegative, Positive, Seed, Share, Size, check_ranges


@dataclass(frozen=True)
class Training:
    """How a model is trained.

    Attributes:
        steps: optimizer steps on all parameters.
        new_steps: steps before these on the new rows alone: the old rows stay as they are, bit by bit.
        evaluate_every: steps between two points of the curve; what a killed run goes on from is written at each.
        save_every: steps between two models that are kept, in `checkpoints/step-N`, each a Hugging Face folder; a
            multiple of evaluate_every, 0 for none.
        batch_size: blocks of text, or pairs of sentences, a step and process.
        accumulate: batches whose gradients make one step.
        block_size: tokens a block, or a sentence, at most; never more than the model has positions for.
        learning_rate: highest value. Each phase warms up; the second falls linearly to 0.
        new_learning_rate: of the first phase, the same if not given.
        warmup_steps: of each phase.
        weight_decay: on weight matrices; none on embeddings, biases and norms.
        clip: largest norm of the gradient.
        sampling: of several languages, each is drawn in proportion to its bytes of text, or pairs, to this power: 1 as
            much as there is, 0 all alike; XLM-R (Conneau et al. 2020, §3.1) takes 0.3.
        seed: of the order, the masks and the dropout.
    """

    steps: Size = 1000
    new_steps: Size = 0
    evaluate_every: Count = 100
    save_every: Size = 0
    batch_size: Count = 16
    accumulate: Count = 1
    block_size: Count = 256
    learning_rate: Positive = 5e-5
    new_learning_rate: Positive | None = None
    warmup_steps: Size = 50
    weight_decay: NonNegative = 0.01
    clip: NonNegative = 1.0
    sampling: Share = 0.3
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_ranges(self, "training.")
        if self.steps + self.new_steps < 1:
            raise InputError("--training.steps, --training.new_steps: expected at least one step, found none")
        if self.save_every % self.evaluate_every:
            raise InputError(
                f"--training.save_every: expected a multiple of --training.evaluate_every {self.evaluate_every}, found "
                f"{self.save_every}"
            )

    @property
    def total(self) -> int:
        """Steps of both phases."""
        return self.new_steps + self.steps

    def rate(self, step: int) -> float:
        """What `learning_rate` is multiplied with at a step."""
        first = step < self.new_steps
        own = step if first else step - self.new_steps
        warm = min(1.0, (own + 1) / (self.warmup_steps + 1))
        if first:
            return warm * (self.new_learning_rate or self.learning_rate) / self.learning_rate
        return warm * max(0.0, 1 - own / self.steps) if self.steps else warm


@dataclass(frozen=True)
class DistillationLoss:
    """What makes a sentence lie where the source model has it.

    Attributes:
        temperature: of InfoNCE over the batch: each text must find its own sentence.
        contrastive_weight: of that.
        cosine_weight: of the mean of 1 - cosine.
        source_share: share of a batch in which a sentence of the source language stands for its translation, so that
            what the model knew stays known; where only new rows are trained, it hardly forgets.
        layer: hidden state whose mean over the tokens is a sentence's vector, -1 the last.
    """

    temperature: Positive = 0.05
    contrastive_weight: NonNegative = 1.0
    cosine_weight: NonNegative = 1.0
    source_share: Share = 0.0
    layer: int = -1

    def __post_init__(self) -> None:
        check_ranges(self, "loss.")
        if not self.contrastive_weight + self.cosine_weight:
            raise InputError("--loss.contrastive_weight, --loss.cosine_weight: expected one above 0, found both 0")


@dataclass(frozen=True)
class TrainerOptions:
    """Options of Lightning's Trainer.

    Attributes:
        accelerator: auto, cpu, gpu, …
        devices: processes on each node.
        num_nodes: machines.
        strategy: auto, ddp, …
        precision: 32-true, bf16-mixed, …; or auto, bf16-mixed where the hardware is fast at it.
        progress: show a progress bar.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: Count = 1
    strategy: str = "auto"
    precision: str = "32-true"
    progress: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, "trainer.")


@dataclass(frozen=True)
class EvaluationOptions:
    """What of `hyperofa evaluate` is run on the way.

    Attributes:
        data: folder with test data, as `hyperofa evaluate --data` reads it; nothing is run without data or text.
        text: files of text that the source model knows.
        source_model: folder or hub id of the model that the vocabulary was made for, which tasks compare with.
        tasks: which tasks, by name, such as retrieval or language_model; all that there is data for if not given.
        languages: only these, all if not given.
        sentences: at most this many of each language.
        layer: hidden state that sentences are compared in, -1 the last.
        every: steps between two evaluations, a multiple of --training.evaluate_every; before and after training there
            is one in any case. At each point of the curve if not given.
    """

    data: Path | None = None
    text: list[Path] | None = None
    source_model: str | None = None
    tasks: list[str] | None = None
    languages: list[str] | None = None
    sentences: Count = 500
    layer: int = -1
    every: Count | None = None

    def __post_init__(self) -> None:
        check_ranges(self, "evaluation.")

    @property
    def asked(self) -> bool:
        """Whether there is anything to run."""
        return self.data is not None or bool(self.text)
