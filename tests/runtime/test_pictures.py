"""Pictures tell nothing but what is drawn."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

import hyperofa
from hyperofa.runtime.pictures import save_picture
from hyperofa.training import curves


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


def test_curves_are_drawn_with_ticks(tmp_path, monkeypatch):
    """As users see them: other tests draw none."""
    drawn = []
    monkeypatch.setattr(curves, "save_picture", lambda figure, path: (save_picture(figure, path), drawn.append(figure)))
    rows = ["step,train/loss,val/mrr,val/mrr/deu", "0,2.5,,", "1,,0.25,0.25", "2,1.5,,", "3,,0.5,0.5"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows), encoding="utf-8")
    curves.plot_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["loss", "mrr", "mrr by language"]
    assert all(axes.xaxis.get_ticklabels() and axes.yaxis.get_ticklabels() for axes in figure.axes)


def test_every_picture_is_saved_here():
    package = Path(hyperofa.__file__).parent
    saving = {path.name for path in package.rglob("*.py") if ".savefig(" in path.read_text(encoding="utf-8")}
    assert saving == {"pictures.py"}
