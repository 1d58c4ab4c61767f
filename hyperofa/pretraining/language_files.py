"""Files by language, to train and to measure on, and what is made of them once for all models of a run."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from hyperofa.errors import InputError
from hyperofa.evaluation.task import UNNAMED
from hyperofa.runtime.locks import locked
from hyperofa.vectors.spelling import split_spec

Part = Literal["train", "val"]
PARTS: tuple[Part, ...] = ("train", "val")
Files = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class LanguageFiles:
    """Files by language.

    Attributes:
        FLAG: command-line flag of what is trained on; that of what is measured on begins with `validation_`.
        train: to train on.
        val: to measure on; without any, some of `train` is held out.
        held_out: how much of each language, at most a tenth.
        seed: of the choice.
    """

    FLAG: ClassVar[str]

    train: dict[str, list[Path]]
    val: dict[str, list[Path]]
    held_out: int
    seed: int

    @classmethod
    def given(cls, train: Files, val: Files | None, held_out: int, seed: int) -> Self:
        """What somebody gave.

        Args:
            train: files, `LANGUAGE=FILE` or `FILE`.
            val: likewise.
            held_out: as the attribute.
            seed: likewise.

        Raises:
            InputError: no files.
        """
        measured = files_by_language(val, f"--validation_{cls.FLAG}") if val else {}
        return cls(files_by_language(train, f"--{cls.FLAG}"), measured, held_out, seed)

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [path for part in (self.train, self.val) for paths in part.values() for path in paths]

    @property
    def settings(self) -> dict[str, dict[str, list[str]]]:
        """Which they are, by flag."""
        parts = {self.FLAG: self.train, f"validation_{self.FLAG}": self.val}
        return {flag: {language: list(map(str, paths)) for language, paths in of.items()} for flag, of in parts.items()}

    def languages(self, part: Part) -> list[str]:
        """In the order in which they were given."""
        return list(self.val if part == "val" and self.val else self.train)

    def flag(self, part: Part, language: str = UNNAMED) -> str:
        """Whose files these are, for errors.

        Args:
            part: to train or to measure on.
            language: one of `languages(part)`.
        """
        flag = f"--validation_{self.FLAG}" if part == "val" and self.val else f"--{self.FLAG}"
        return flag if language == UNNAMED else f"{flag} {language}"


def files_by_language(specs: Files, flag: str) -> dict[str, list[Path]]:
    """Files by language, of `LANGUAGE=FILE` or `FILE`.

    Args:
        specs: one or several, as somebody gave them; those without a language are of one unnamed language.
        flag: command-line flag named in errors.

    Raises:
        InputError: no files.
    """
    found: dict[str, list[Path]] = {}
    for language, path in map(split_spec, map(str, [specs] if isinstance(specs, str | Path) else specs)):
        found.setdefault(UNNAMED if language is None else language, []).append(path)
    if not found:
        raise InputError(f"{flag}: expected files of text, found none")
    return found


def write_once(place: Path, files: LanguageFiles, write: Callable[[Part, str, Path], None]) -> None:
    """Write a folder for each part and language, unless all are there; whole or not at all.

    Args:
        place: folder of all.
        files: what they are made of.
        write: of a part and a language to a folder that is not there.
    """
    with locked(place):
        if place.is_dir():
            return
        partial = place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of a killed process
        for part in PARTS:
            for language in files.languages(part):
                write(part, language, partial / part / language)
        partial.rename(place)
