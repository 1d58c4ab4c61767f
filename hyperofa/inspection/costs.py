"""What each stage takes on this machine: run where it is short, projected from a few steps where it is long."""

import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import lightning

from hyperofa.bundle.bundle import Bundle
from hyperofa.export.initialise import initialise
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.training.fit import ON_TEXT, fit
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.text_views import read_texts
from hyperofa.training.translation import Translator, known_words

_STEPS = 6  # training steps that are taken to measure one; the first two warm up
_WARM = 2
_LINES = 10_000  # of the text that these are taken on, evenly spaced
_LANGUAGES = 4  # that words are paired with to measure it, small and large
T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """What a stage of the pipeline takes.

    Attributes:
        name: its command.
        seconds: wall time.
        mebibytes: memory of the process at its largest until the end of the stage.
        projected: whether the time is projected from a part of the work.
    """

    name: str
    seconds: float
    mebibytes: float
    projected: bool = False


def timed(name: str, work: Callable[[], T]) -> tuple[T, Stage]:
    """The result of some work, and what it took.

    Args:
        name: of the stage.
        work: takes nothing.
    """
    start = time.perf_counter()
    found = work()
    return found, Stage(name, time.perf_counter() - start, peak_memory())


def peak_memory() -> float:
    """Most memory that this process has had, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class _Clock(lightning.Callback):
    """How long all before the first step, each step, and a validation took."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.before, self.validating, self._last = 0.0, 0.0, 0.0
        self.steps: list[float] = []

    def on_train_start(self, *_: Any) -> None:
        self._last = time.perf_counter()
        self.before = self._last - self.begun

    def on_train_batch_end(self, *_: Any) -> None:
        now = time.perf_counter()
        self.steps.append(now - self._last)
        self._last = now

    def on_validation_start(self, *_: Any) -> None:
        self._last = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        self.validating = time.perf_counter() - self._last


def measure_training(bundle: Bundle, text: Sequence[str], method: str) -> list[Stage]:
    """Project training with default settings from a few of its steps; export with the net, which knows nothing yet.

    Args:
        bundle: prepared inputs.
        text: files in a language that the source model knows.
        method: whose rows a net makes.
    """
    _, counting = timed("usage", lambda: [bundle.usage(side) for side in ("source", "target")])
    net, fitting = _measure_fit(bundle, text)
    stages = fitting, measure_export(bundle, method, net)
    # Here the bundle counts once for both; each is a process of its own otherwise.
    return [replace(stage, seconds=stage.seconds + counting.seconds) for stage in stages]


def _measure_fit(bundle: Bundle, text: Sequence[str]) -> tuple[Hypernetwork, Stage]:
    """The net after a few steps, on a part of the text and in one language, and what all steps on all would take."""
    clock, known = _Clock(), bundle.meta.source_languages or ()
    settings = {"max_epochs": 1, "limit_train_batches": _STEPS, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    lines, _ = read_texts(text, ())
    part = lines[:: max(1, -(-len(lines) // _LINES))]
    sizes = _words_by_language(bundle)
    some = sorted(sizes, key=lambda language: sizes[language])[:: max(1, -(-len(sizes) // _LANGUAGES))]
    with warnings.catch_warnings(), scratch_folder("hyperofa-doctor-") as scratch:
        warnings.filterwarnings("ignore", "The number of training batches")
        (scratch / "part.txt").write_text("\n".join(part), encoding="utf-8")
        trainer = {**settings, "callbacks": [clock], "enable_progress_bar": False}
        net = fit(bundle, scratch / "part.txt", trainer=trainer, translated_languages=some[:1])
    # Every word of the text is compared with every word of each language, once.
    _, pairing = timed("pairing", lambda: Translator(bundle.words, known, part, progress=False, into=some))
    compared = len(known_words(bundle.words, known, lines)) * sum(sizes.values())
    here = len(known_words(bundle.words, known, part)) * sum(sizes[language] for language in some)
    step = statistics.median(clock.steps[_WARM:] or clock.steps)
    epochs, steps = ON_TEXT.trainer["max_epochs"], ON_TEXT.options["steps"]
    seconds = clock.before + pairing.seconds * compared / max(1, here) + epochs * (steps * step + clock.validating)
    return net, Stage("fit", seconds, peak_memory(), projected=True)


def _words_by_language(bundle: Bundle) -> dict[str, int]:
    """How many words the languages have that text is translated into."""
    return {language: len(bundle.words.select([language])) for language in bundle.new_languages}


def measure_export(bundle: Bundle, method: str, net: Hypernetwork | None = None) -> Stage:
    """Initialise and write a model.

    Args:
        bundle: prepared inputs.
        method: by which.
        net: the hypernetwork of a method that needs one.
    """
    with scratch_folder("hyperofa-doctor-") as scratch:
        return timed("export", lambda: initialise(bundle, method, hypernetwork=net).save(scratch / "model"))[1]
