"""Plain words on what to do better before a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyperofa.bundle.fertility import NONE_LOST
from hyperofa.inspection.coverage import LanguageCoverage, ScriptCoverage, TextCoverage

_FEWEST_SOURCE = 100
"""Source tokens with words below which a net has nothing to learn from."""

_INFORMED = ("copied", "predicted", "containing", "pieces", "subtokens")
_LEAST_INFORMED = 0.5  # of all rows; below it a run is wasted
_NOTED = 0.03  # share of rows without information that is worth a word
_LITTLE_TEXT = 0.2  # share of a text's words with vectors below which training on it is wasted
_SOME_TEXT = 0.8  # below which another kind of text, or more vectors, would help


@dataclass(frozen=True)
class Advice:
    """One thing to do, or to know.

    Attributes:
        text: in plain words.
        wasted: whether a run without it would be.
    """

    text: str
    wasted: bool = False

    def __str__(self) -> str:
        return f"{'wasted' if self.wasted else 'note'}: {self.text}"


def advise(
    origins: Mapping[str, int],
    scripts: Sequence[ScriptCoverage],
    languages: Sequence[LanguageCoverage],
    texts: Sequence[TextCoverage],
    without_role: Sequence[str],
    source_covered: int,
    source_languages: Sequence[str] | None,
    target_languages: Sequence[str] | None,
    no_text: bool,
) -> list[Advice]:
    """What the findings of a diagnosis mean.

    Args:
        origins: rows of each origin.
        scripts: the same by script.
        languages: of the vectors.
        texts: those given.
        without_role: special tokens that nothing is known of.
        source_covered: source tokens with words.
        source_languages: that the source model knows, if they are named.
        target_languages: that the new vocabulary is for, if they are named.
        no_text: whether a net would be trained on tokens alone.
    """
    found = []
    total = max(1, sum(origins.values()))
    blind = total - sum(origins.get(origin, 0) for origin in _INFORMED)
    if source_covered < _FEWEST_SOURCE:
        found.append(
            Advice(
                f"{source_covered} source tokens have words, too few to learn from; give vectors of the languages that "
                "the source model knows, and name these as --source_languages",
                wasted=True,
            )
        )
    if origins.get("predicted", 0) == 0:
        found.append(Advice("no row would be predicted; every row is copied or a fall-back", wasted=True))
    if blind > _NOTED * total:
        worst = sorted(scripts, key=lambda each: _blind(each), reverse=True)
        names = ", ".join(f"{each.script} ({_blind(each):,})" for each in worst[:3] if _blind(each))
        found.append(
            Advice(
                f"{blind:,} of {total:,} rows ({blind / total:.0%}) would say nothing of their token; most in {names}: "
                "give vectors of languages in these scripts, see `hyperofa vectors train`",
                wasted=blind > (1 - _LEAST_INFORMED) * total,
            )
        )
    wanted = [each for each in languages if target_languages is None or each.language in target_languages]
    lost = [each for each in wanted if each.fertility.unknown[1] > NONE_LOST]
    if lost:
        named = ", ".join(f"{each.fertility.unknown[1]:.0%} of {each.language}" for each in lost)
        found.append(Advice(f"the target tokenizer has no tokens for {named} words"))
    foreign = [each for each in wanted if each.language not in (source_languages or ())]
    if longer := [each.language for each in foreign if each.fertility.longer]:
        found.append(
            Advice(f"the target tokenizer cuts words no more sparingly than the source's in {' '.join(longer)}")
        )
    left_out = [each.language for each in foreign if not each.fertility.served]
    if target_languages is None and 0 < len(left_out) < len(foreign):
        found.append(
            Advice(
                f"the target tokenizer seems not to be for {' '.join(left_out)}: training text is not translated into "
                "these; name the languages that it is for, --target_languages"
            )
        )
    if missing := sorted(set(source_languages or ()).difference(target_languages or source_languages or ())):
        found.append(
            Advice(
                f"words of {' '.join(missing)} describe no target token, so that its text would be read less well; if "
                "that matters, name it among --target_languages too"
            )
        )
    if source_languages is None:
        found.append(Advice("name the languages that the source model knows, --source_languages: it is worth a lot"))
    for text in texts:
        found += _of_text(text, languages)
    if no_text:
        found.append(Advice("no text yet: give `fit` some; a net that learns from tokens alone is much weaker"))
    if without_role:
        named = " ".join(without_role[:8]) + " …" * (len(without_role) > 8)
        found.append(Advice(f"special tokens that the source model has no counterpart of: {named}"))
    return found


def _of_text(text: TextCoverage, languages: Sequence[LanguageCoverage]) -> list[Advice]:
    """What to say of one text."""
    if text.language not in {each.language for each in languages}:
        return [Advice(f"{text.path}: the vectors have no words of {text.language or 'its language'}", wasted=True)]
    if text.share >= _SOME_TEXT:
        return []
    missing = ", ".join(text.missing)
    return [
        Advice(
            f"{text.path}: {1 - text.share:.0%} of its words have no {text.language} vector, such as {missing}; it is "
            "of another kind than the text that the vectors were made from",
            wasted=text.share < _LITTLE_TEXT,
        )
    ]


def _blind(script: ScriptCoverage) -> int:
    return script.tokens - sum(script.origins.get(origin, 0) for origin in _INFORMED)
