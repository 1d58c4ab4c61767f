"""A diagnosis at a glance: rows by script, and how finely words are cut."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hyperofa.errors import InputError
from hyperofa.inspection.coverage import LanguageCoverage, ScriptCoverage
from hyperofa.methods.fallbacks import ORIGINS
from hyperofa.runtime.files import FilePath, check_file, new_file
from hyperofa.runtime.pictures import save_picture

_LARGEST = 12
# Okabe and Ito (2008), from what is known for sure to what is not.
_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#F0E442", "#D55E00", "#CC79A7", "#999999")


def check_picture(path: FilePath) -> None:
    """See that a picture can be written there.

    Args:
        path: as for `draw`.

    Raises:
        InputError: another ending, or no place for a file.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise InputError(f"--picture {path}: expected a file that ends in .svg, .png or .pdf")
    check_file(path, overwrite=True)


def draw(scripts: Sequence[ScriptCoverage], languages: Sequence[LanguageCoverage], path: FilePath) -> None:
    """Draw a diagnosis.

    Args:
        scripts: rows by origin, of the largest ones.
        languages: fertility under both tokenizers.
        path: .svg, .png or .pdf; replaced if it is there.

    Raises:
        InputError: another ending.
    """
    path = Path(path)
    check_picture(path)
    shown = scripts[:_LARGEST][::-1]
    height = 1.5 + 0.22 * max(len(shown), len(languages))
    figure = Figure(figsize=(10, height), layout="constrained")
    rows, cuts = figure.subplots(1, 2)
    left = [0] * len(shown)
    for number, origin in enumerate(ORIGINS):
        counts = [each.origins.get(origin, 0) for each in shown]
        if any(counts):
            names = [each.script for each in shown]
            rows.barh(names, counts, left=left, label=origin, color=_COLOURS[number % len(_COLOURS)])
            left = [a + b for a, b in zip(left, counts, strict=True)]
    rows.set_title("target rows by script")
    rows.legend(fontsize=7)
    places = range(len(languages))
    for side, name in enumerate(("source", "target")):
        values = [each.fertility.tokens[side] for each in languages]
        cuts.barh([place + 0.4 * side for place in places], values, 0.4, label=name, color=_COLOURS[2 * side])
    cuts.set_yticks([place + 0.2 for place in places], [each.language for each in languages], fontsize=7)
    cuts.set_title("tokens a word")
    cuts.legend(fontsize=7)
    with new_file(path, overwrite=True) as file:
        save_picture(figure, file, dpi=100)
