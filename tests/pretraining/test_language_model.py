"""A run that was killed goes on when the same call is made again, and ends with the same bytes."""

from pathlib import Path

import pytest
from huggingface_hub import metadata_load

from hyperofa.errors import InputError
from hyperofa.pretraining import runs
from hyperofa.pretraining.language_model import LanguageModelling
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.pretraining.settings import EvaluationOptions
from hyperofa.pretraining.trainer import Saving
from hyperofa.runtime.marks import unfinished_key
from tests import forked
from tests.pretraining.conftest import LINES, QUIET, Interrupted, interrupt, make_causal, small


@pytest.fixture(scope="module")
def world(folders, test_data, tmp_path_factory):
    """Two models with dropout and new rows, text in two languages, test data."""
    root = tmp_path_factory.mktemp("interrupted")
    for name in ("one", "two"):
        model = make_causal(folders["causal"], root / name)
        (model / "provenance.tsv").write_text("id\torigin\n7\tmean\n", encoding="utf-8")
    for name, lines in (("deu", LINES[1::2]), ("eng", LINES[::2])):
        (root / f"{name}.txt").write_text("\n".join(lines * 10) + "\n", encoding="utf-8")
    return root, test_data


def arguments(world):
    root, data = world
    return {
        "model": {"one": root / "one", "two": root / "two"},
        "text": [f"deu={root / 'deu.txt'}", f"eng={root / 'eng.txt'}"],
        "training": small(steps=4, new_steps=2, save_every=2),
        "trainer": QUIET,
        "evaluation": EvaluationOptions(data=data, source_model=str(root / "one"), sentences=2, every=4),
    }


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that tell times."""
    timed = ("seconds.json", "seconds.png")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name not in timed}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    return pretrain(output=output, **arguments(world))


def test_each_model_has_a_card_that_the_hub_reads(whole):
    for name, trained in whole.items():
        told = metadata_load(trained.path / "README.md")
        assert (told["tags"], told["pipeline_tag"]) == (["hyperofa", "continual-pretraining"], "text-generation")
        text = (trained.path / "README.md").read_text(encoding="utf-8")
        assert f"# {name}, pretrained on" in text
        assert "after 6 more steps of pretraining, the first 2 of them of its new rows alone" in text
        first, last = trained.curve[0].languages, trained.curve[-1].languages
        assert [line for line in text.splitlines() if line.startswith(("| deu", "| eng"))] == [
            f"| {language} | {first[language]:.3f} | {last[language]:.3f} |" for language in ("deu", "eng")
        ]


PLACES = {
    "before the first step": (LanguageModelling, "training_step", 0),
    "before a point of the curve": (LanguageModelling, "training_step", 3),
    "when a model is kept but not noted": (Saving, "on_train_epoch_end", 1),
    "when the last point is noted": (runs, "write_trained", 0),
    "within the second model": (LanguageModelling, "training_step", 9),
    "when all models are written": (runs, "write_comparison", 0),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_same_call_goes_on(place, world, whole, tmp_path, monkeypatch):
    owner, name, calls = PLACES[place]
    interrupt(monkeypatch, owner, name, calls)
    with pytest.raises(Interrupted):
        pretrain(output=tmp_path / "out", **arguments(world))
    monkeypatch.undo()
    resumed = pretrain(output=tmp_path / "out", **arguments(world))
    assert {name: [p.bits_per_byte for p in model.curve] for name, model in resumed.items()} == {
        name: [p.bits_per_byte for p in model.curve] for name, model in whole.items()
    }
    expected, found = contents(whole.path), contents(tmp_path / "out")
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_another_run_is_not_taken_for_it(world, tmp_path, monkeypatch):
    given = arguments(world)
    with pytest.raises(InputError, match=r"resume: expected an interrupted run in output .*, found none"):
        pretrain(output=tmp_path / "out", resume=True, **given)
    assert not (tmp_path / "out").exists()

    def interrupted(*_):
        raise Interrupted

    monkeypatch.setattr(LanguageModelling, "training_step", interrupted)
    with pytest.raises(Interrupted):
        pretrain(output=tmp_path / "out", **given)
    monkeypatch.undo()
    other = given | {"training": small(steps=2)}
    with pytest.raises(InputError, match=r"found one with other settings, models or text"):
        pretrain(output=tmp_path / "out", resume=True, **other)
    with pytest.raises(InputError, match=r"already exists and is not empty; .*go on with the run there"):
        pretrain(output=tmp_path / "out", **other)
    pretrain(output=tmp_path / "out", overwrite=True, **other)
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_killed_again_and_again(world, whole, tmp_path):
    """SIGKILL at several moments of a process; the last one goes to the end."""
    output = tmp_path / "run" / "out"

    def made():
        return (output / "curves.json").exists() and unfinished_key(output) is None

    seconds = forked.run(lambda: pretrain(output=Path("out"), **arguments(world)), tmp_path / "alone")
    work = lambda: pretrain(output=output, **arguments(world))  # noqa: E731
    assert forked.run_killed(work, tmp_path / "run", made, seconds, kills=5, seed=0) > 0
    expected, found = contents(whole.path), contents(output)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
