"""See from the inputs alone, before any training, what a run would give and what it would take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.errors import InputError
from hyperofa.inspection.advice import Advice, advise
from hyperofa.inspection.costs import Stage, measure_export, measure_training, timed
from hyperofa.inspection.coverage import (
    LanguageCoverage,
    ScriptCoverage,
    TextCoverage,
    cover_languages,
    cover_scripts,
    cover_texts,
)
from hyperofa.inspection.picture import check_picture, draw
from hyperofa.methods.fallbacks import ORIGINS, Plan, plan_rows, target_inputs
from hyperofa.methods.registry import Context, Method, method_named
from hyperofa.models.source import ModelLike, TokenizerLike
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.ranges import Count, Seed, in_range
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.runtime.text_files import check_texts
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.vectors.spelling import split_spec

_LARGEST = 12  # rows of a table; what comes after them is summed up


@dataclass(frozen=True)
class Diagnosis:
    """What a run on some inputs would give.

    Attributes:
        method: that the rows are for.
        origins: how many target rows will be of each origin, as `export` will report them.
        scripts: the same by script.
        languages: words, tokens and fertility of each language of the vectors.
        texts: how much of each text has vectors.
        parameters: of the embeddings (and an untied head) before and after.
        without_role: special tokens of the target tokenizer that no special token of the source does the work of.
        stages: time and memory; none where they were not asked for.
        advice: what to do better.
    """

    method: str
    origins: dict[str, int]
    scripts: list[ScriptCoverage]
    languages: list[LanguageCoverage]
    texts: list[TextCoverage]
    parameters: tuple[int, int]
    without_role: list[str]
    stages: list[Stage]
    advice: list[Advice]

    @property
    def intact(self) -> bool:
        """Whether a run is worth its time; `hyperofa doctor` ends with exit code 1 if not."""
        return not any(each.wasted for each in self.advice)

    def short(self) -> str:
        """The rows and the advice, a line each: what `hyperofa prepare` prints."""
        rows = ", ".join(f"{count:,} {origin}" for origin, count in self.origins.items() if count)
        return "\n".join([f"rows by {self.method}: {rows}", *map(str, self.advice)])

    def __str__(self) -> str:
        before, after = self.parameters
        lines = [
            *_table("script", [(each.script, each.tokens, each.origins) for each in self.scripts], self.origins),
            "",
            f"{'language':<10}{'words':>10}{'tokens':>9}  tokens a word      words unknown",
            f"{'':<29}  source → target    source → target",
        ]
        for each in self.languages:
            (before_cut, cut), (before_lost, lost) = each.fertility
            fertility, unknown = f"{before_cut:.2f} → {cut:.2f}", f"{before_lost:.1%} → {lost:.1%}"
            name = each.language or "unknown"
            lines.append(f"{name:<10}{each.words:>10,}{each.tokens:>9,}  {fertility:<17}  {unknown}")
        lines += [
            "",
            f"embedding parameters: {before:,} → {after:,} ({after / before:.2f} times)",
            *(
                f"{text.path}: {text.share:.1%} of its words have {text.language or 'no'} vectors"
                for text in self.texts
            ),
        ]
        if self.stages:
            lines += ["", "stage        seconds   memory, MiB"]
            lines += [
                f"{stage.name:<10}{stage.seconds:>10,.1f}{stage.mebibytes:>12,.0f}{'  (projected)' * stage.projected}"
                for stage in self.stages
            ]
        return "\n".join([*lines, "", self.short()])


@in_range()
def doctor(
    source_model: ModelLike,
    target_tokenizer: TokenizerLike,
    vectors: list[str],
    text: list[str] | None = None,
    source_languages: list[str] | None = None,
    target_languages: list[str] | None = None,
    coordinate_dim: Count | None = None,
    method: str = "hyperofa",
    measure: bool = True,
    picture: FilePath | None = None,
    seed: Seed = 0,
    vectors_dtype: Literal["float32", "float16"] = "float32",
    max_words: Count | None = None,
    duplicate_words: Literal["error", "first"] = "error",
    allow_pickle: bool = False,
) -> Diagnosis:
    """Say what a run on these inputs would give and take, and what to do better; exit code 1 if it would be wasted.

    It prepares a bundle aside, plans every row as `export` does, takes a few training steps, and writes a model aside.

    Args:
        source_model: folder or hub id of the PLM that gets a new vocabulary. In Python also `(model, tokenizer)`.
        target_tokenizer: folder or hub id of the tokenizer with that vocabulary; in Python also a tokenizer.
        vectors: word-vector files of one space (`vectors.READERS`, or a store folder); LANG=FILE names the language
            of a file whose words carry none. Give the flag again for each further file.
        text: files of sentences, one a line: those to train on, and, as LANG=FILE, what the new model is to read.
        source_languages: ISO 639-3 codes of the languages the PLM knows. All languages if not given.
        target_languages: those that the vocabulary is for: their words alone describe target tokens, and text is
            translated into them. Name the source's too if it is to be read as before. All if not given.
        coordinate_dim: K, width of the factorised embeddings; the full embedding width if not given.
        method: that the rows shall be made by.
        measure: find out what each stage takes on this machine.
        picture: file to draw the rows by script in: .svg, .png or .pdf.
        seed: of the split.
        vectors_dtype: how the bundle stores the vectors.
        max_words: read at most this many words of each file; they are the most frequent ones.
        duplicate_words: what to do when a file has a word twice: stop, or keep its first vector.
        allow_pickle: open gensim files, which can run code; only for files you trust.

    Returns:
        What was found; it prints as a table.

    Raises:
        InputError: an input is missing or damaged.

    Example:
        >>> import hyperofa
        >>> found = hyperofa.doctor("bert", "tokenizer", ["words.vec"], ["english.txt"], ["eng"], measure=False)
        >>> found.origins["predicted"] > found.origins["mean"]
        True
        >>> print(found.short())
        rows by hyperofa: ... copied, ... predicted...
    """
    trained = method_named(method).trained
    check_texts([split_spec(spec)[1] for spec in text or []], "--text")
    if text and trained and not source_languages:
        raise InputError(
            f"--source_languages: expected those of --text {text[0]}, which training would translate, found none; name "
            "the languages that the model knows"
        )
    if picture is not None:
        check_picture(picture)
    with scratch_folder("hyperofa-doctor-") as scratch:
        bundle, stage = timed(
            "prepare",
            lambda: prepare(
                source_model,
                target_tokenizer,
                vectors,
                scratch / "bundle",
                source_languages=source_languages,
                target_languages=target_languages,
                coordinate_dim=coordinate_dim,
                seed=seed,
                vectors_dtype=vectors_dtype,
                max_words=max_words,
                duplicate_words=duplicate_words,
                allow_pickle=allow_pickle,
            ),
        )
        found = diagnose(bundle, method, text or [], [stage] if measure else [])
    if picture is not None:
        draw(found.scripts, found.languages, picture)
    return found


def diagnose(
    bundle: Bundle | str | Path, method: str = "hyperofa", text: Sequence[str] = (), stages: Sequence[Stage] = ()
) -> Diagnosis:
    """Say the same of a bundle that is there.

    Args:
        bundle: what `prepare` returned, or its folder.
        method: as for `doctor`.
        text: as for `doctor`.
        stages: what has been measured; with any, training and export are measured too.

    Raises:
        InputError: as `doctor`.

    Example:
        >>> import hyperofa
        >>> found = hyperofa.diagnose("bundle", "ofa_tuned")
        >>> found.origins == hyperofa.initialise("bundle", "ofa_tuned").counts()
        True
    """
    bundle = Bundle.load(bundle)
    chosen = method_named(method, reference=bundle.meta.reference)
    known = bundle.meta.source_languages
    trained_on = [str(path) for code, path in map(split_spec, text) if code is None or known is None or code in known]
    plan = plan_of(bundle, chosen, trained_on)
    measured = list(stages)
    if stages:
        if not chosen.trained:
            measured.append(measure_export(bundle, method))
        elif trained_on:
            measured.extend(measure_training(bundle, trained_on, method))
    meta = bundle.meta
    sides = 1 + (meta.output_dim > 0)
    origins = np.bincount(plan.origins, minlength=len(ORIGINS)).tolist()
    special = [n for n, token in enumerate(bundle.tokens("target")) if token is not None and token.special]
    roles = bundle.overlap.choose(("role",)).target_ids
    lacking = [n for n in special if n not in set(roles.tolist())]
    found = Diagnosis(
        method=method,
        origins=dict(zip(ORIGINS, origins, strict=True)),
        scripts=cover_scripts(plan),
        languages=cover_languages(bundle),
        texts=cover_texts(text, bundle.words),
        parameters=(
            meta.source_tokens * meta.embedding_dim * sides,
            meta.target_tokens * meta.embedding_dim * sides,
        ),
        without_role=[str(name) for name in bundle.tokenizer("target").convert_ids_to_tokens(lacking)],
        stages=measured,
        advice=[],
    )
    found.advice.extend(
        advise(
            found.origins, found.scripts, found.languages, found.texts, found.without_role,
            int(bundle.source.covered.sum()), known, meta.target_languages, chosen.trained and not trained_on,
        )
    )  # fmt: skip
    return found


def plan_of(bundle: Bundle, method: Method, text: Sequence[str]) -> Plan:
    """What each target row will be in an export by this method with its default settings.

    Args:
        bundle: the inputs.
        method: of the rows.
        text: that a net would be trained on; it decides whether a language model keeps its own tokens.
    """
    inputs = target_inputs(bundle, method.pooling)
    if not method.trained:
        rows = method.predict(inputs, Context(0))
        known = rows.known if method.fallback == "ladder" else rows.known & rows.coordinates.any(1)
        return plan_rows(inputs, known, method.copied, method.fallback)
    copied = HyperDataModule(bundle, list(text)).copied
    return plan_rows(inputs, inputs.covered, copied, method.fallback)


def _table(name: str, rows: Sequence[tuple[str, int, dict[str, int]]], origins: dict[str, int]) -> list[str]:
    """Rows of one kind and how many are of each origin, the last line the sum."""
    shown = [origin for origin, count in origins.items() if count]
    rest = rows[_LARGEST:]
    if rest:
        others = {origin: sum(each[2].get(origin, 0) for each in rest) for origin in shown}
        rows = [*rows[:_LARGEST], (f"{len(rest)} others", sum(each[1] for each in rest), others)]
    total = ("all", sum(each[1] for each in rows), origins)
    width = 2 + max(len(each[0]) for each in rows)
    lines = [f"{name:<{width}}{'tokens':>9}" + "".join(f"{origin:>11}" for origin in shown)]
    for title, count, numbers in (*rows, total):
        lines.append(f"{title:<{width}}{count:>9,}" + "".join(f"{numbers.get(origin, 0):>11,}" for origin in shown))
    return lines
