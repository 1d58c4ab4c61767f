"""Pictures on disk: equal figures give equal bytes."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

_UNDATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def save_picture(figure: Figure, path: str | Path, dpi: int = 120) -> None:
    """Write a figure, without the date, and without the random names that SVG would give its parts.

    Args:
        figure: drawn.
        path: of the file, of the kind that its ending says.
        dpi: dots an inch, of a kind that has dots.
    """
    with rc_context({"svg.hashsalt": "hyperofa"}):
        figure.savefig(path, dpi=dpi, metadata=_UNDATED.get(Path(path).suffix))
