"""Points of a curve: what a model is worth after some steps, on what is held out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Self, get_type_hints

from hyperofa.evaluation.scores import Scores
from hyperofa.runtime.records import check_kind

_NONE = Scores({}, {})


@dataclass(frozen=True, kw_only=True)
class Point(ABC):
    """What any curve has; each kind of training has a kind of points.

    Attributes:
        MEASURE: what `value` is called.
        COLUMNS: attributes that a table has.
        READ: attributes that count what was trained on so far, by all processes.
        PANELS: attributes that a picture of one curve has, and their names.
        step: optimizer steps so far.
        train_loss: mean over the steps since the last point; nan at the first.
        loss: of what is held out.
        tokens: read in training so far, special ones too, by all processes.
        seconds: of training so far, without what is measured and written on the way.
        languages: `value` of each language.
        scores: of the evaluation tasks; empty where none was run.
    """

    MEASURE: ClassVar[str]
    COLUMNS: ClassVar[tuple[str, ...]]
    READ: ClassVar[tuple[str, str]]
    PANELS: ClassVar[Mapping[str, str]]

    step: int
    train_loss: float
    loss: float
    tokens: int = 0
    seconds: float = 0.0
    languages: Mapping[str, float] = field(default_factory=dict)
    scores: Scores = _NONE

    @property
    @abstractmethod
    def value(self) -> float:
        """The number that curves are compared by, lower is better."""

    @property
    @abstractmethod
    def numbers(self) -> str:
        """The point in words."""

    def of(self, language: str | None = None) -> float:
        """The number that curves are compared by, of a language.

        Args:
            language: one of `languages`; all if not given.
        """
        return self.value if language is None else self.languages[language]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, from which `from_dict` makes the same point."""
        plain = asdict(replace(self, scores=_NONE))
        plain |= {"languages": dict(self.languages), "scores": self.scores.as_dict()}
        return plain | {"train_loss": None if math.isnan(self.train_loss) else self.train_loss}  # JSON has no NaN

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """The point of `as_dict`.

        Raises:
            InputError: it is something else.
        """
        hints = {name: hint for name, hint in get_type_hints(cls).items() if not name.isupper()}
        kinds = hints | {"train_loss": float | None, "scores": dict[str, Any]}
        check_kind(found, kinds, "expected a point of a curve")
        loss = math.nan if found["train_loss"] is None else found["train_loss"]
        read = {"train_loss": loss, "scores": Scores.from_dict(found["scores"])}
        return cls(**{name: found[name] for name in kinds} | read)

    def without_times(self) -> dict[str, Any]:
        """All that is the same for equal seeds, as plain data."""
        return {name: value for name, value in self.as_dict().items() if name != "seconds"}


@dataclass(frozen=True, kw_only=True)
class LanguagePoint(Point):
    """What a language model is worth; losses are in nats a token.

    Attributes:
        perplexity: e to the loss.
        bits_per_byte: of the text that the asked tokens stand for.
        bytes: of the text that the tokens read so far stand for.
    """

    MEASURE = "bits per byte"
    COLUMNS = ("step", "train_loss", "loss", "perplexity", "bits_per_byte", "tokens", "bytes")
    READ = ("tokens", "bytes")
    PANELS: ClassVar = {"perplexity": "validation perplexity", "bits_per_byte": MEASURE}

    perplexity: float
    bits_per_byte: float
    bytes: int = 0

    @property
    def value(self) -> float:
        """Bits per byte: of models with different tokenizers losses a token do not compare."""
        return self.bits_per_byte

    @property
    def numbers(self) -> str:
        """Perplexity and bits per byte."""
        return f"perplexity {self.perplexity:>10.2f}  {self.MEASURE} {self.bits_per_byte:.4f}"


@dataclass(frozen=True, kw_only=True)
class SentencePoint(Point):
    """What a sentence encoder is worth.

    Attributes:
        found: percent of the held-out translations that are nearest to their own sentence among those of their batch.
        pairs: read in training so far, by all processes.
    """

    MEASURE = "distillation loss"
    COLUMNS = ("step", "train_loss", "loss", "found", "tokens", "pairs")
    READ = ("tokens", "pairs")
    PANELS: ClassVar = {"loss": MEASURE, "found": "% found among their batch"}

    found: float
    pairs: int = 0

    @property
    def value(self) -> float:
        """The loss of the held-out pairs."""
        return self.loss

    @property
    def numbers(self) -> str:
        """Loss and how many are found."""
        return f"{self.MEASURE} {self.loss:.4f}  found among their batch {self.found:.1f} %"
