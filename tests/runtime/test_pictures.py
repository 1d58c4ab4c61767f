"""Pictures tell nothing but what is drawn."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

import hyperofa
from hyperofa.runtime.pictures import save_picture


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_equal_figures_give_equal_bytes(ending, tmp_path, monkeypatch):
    for name, now in (("one", "0"), ("two", "1000000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", now)
        figure = Figure()
        axes = figure.add_subplot()
        axes.plot([1, 2], [2, 1], label="a line")
        axes.set_clip_on(True)
        axes.legend()
        save_picture(figure, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_every_picture_is_saved_here():
    package = Path(hyperofa.__file__).parent
    saving = {path.name for path in package.rglob("*.py") if ".savefig(" in path.read_text(encoding="utf-8")}
    assert saving == {"pictures.py"}
