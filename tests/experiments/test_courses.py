"""Continual pretraining as a stage of an ablation's cells: curves, scores, steps saved, and a kill in between."""

import csv
import gzip
import json

import pytest

from hyperofa.errors import InputError
from hyperofa.experiments.ablate import ablate
from hyperofa.experiments.cells import run_cell
from hyperofa.experiments.courses import ALL, courses, curve_of, panels, to_markdown
from hyperofa.experiments.grid import expand
from hyperofa.experiments.results import Outcome
from hyperofa.pretraining.language_model import LanguageModelling
from tests.conftest import ENGLISH, GERMAN


def outcome(method, seed, values, width=None):
    """A cell that was trained 10 steps between two points, with a language that is twice as hard."""
    settings = {"m": {"export.method": "ofa"}}
    cell = next(
        iter(expand(settings, {"prepare.coordinate_dim": width, "pretrain.text": ["x"]}, {"seed": [seed]}, "c"))
    )
    points = [
        {"step": 10 * number, "loss": 1.0, "perplexity": 1.0, "bits_per_byte": value, "tokens": 0, "bytes": 0,
         "languages": {"deu": value, "fin": 2 * value}}
        for number, value in enumerate(values)
    ]  # fmt: skip
    named = type(cell)(**{**vars(cell), "method": method, "id": f"{method}-{seed}-{width}"})
    return Outcome(named, "finished", {"curve": points, "scores": {}, "metrics": {}})


def test_steps_are_saved_against_the_baseline_of_the_same_seed():
    cells = [outcome("OFA", 0, [4, 3, 2]), outcome("OFA", 1, [4, 2, 1])]
    cells += [outcome("ours", 0, [3, 1, 1]), outcome("ours", 1, [2, 1, 1])]
    found = {(each.row, each.language): each for each in courses(cells, "OFA")}
    ours = found["ours", ALL]
    assert (ours.before, ours.after, ours.seeds) == (2.5, 1, 2)
    assert ours.steps == (5 + 10) / 2
    assert ours.texts[-1] == "12 (62%)"
    assert found["OFA", ALL].texts[-1] == "0 (0%)"
    assert found["ours", "fin"].before == 5
    assert courses([*cells, outcome("bad", 0, [9, 9, 9])], "OFA")[-1].texts[-2:] == ["–", "–"]
    assert [each.steps for each in courses(cells[2:], "OFA")] == [None] * 3  # no baseline
    assert "| ours | 2.500 | 1.000 |" in to_markdown(courses(cells, "OFA"), "OFA")
    assert to_markdown([], "OFA") == ""
    assert list(panels(cells)) == ["bits per byte", "bits per byte deu", "bits per byte fin"]
    assert len(panels(cells)["bits per byte"]["ours"]) == 2


@pytest.fixture
def settings(model_folders, tokenizer_folders, vector_file, tmp_path):
    lines = [f"{language}\t{number}\t{text}" for language, texts in (("eng", ENGLISH), ("deu", GERMAN))
             for number, text in enumerate(texts)]  # fmt: skip
    with gzip.open(tmp_path / "heldout.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    (tmp_path / "deu.txt").write_text("\n".join(GERMAN * 4) + "\n", encoding="utf-8")
    return {
        "prepare": {
            "source_model": str(model_folders["bert"]), "target_tokenizer": str(tokenizer_folders["unigram"]),
            "vectors": [str(vector_file)], "source_languages": ["eng"],
        },
        "evaluate": {"data": str(tmp_path), "sentences": 4},
        "pretrain": {
            "text": [f"deu={tmp_path / 'deu.txt'}"], "training.steps": 4, "training.evaluate_every": 2,
            "training.batch_size": 2, "training.block_size": 24, "trainer.accelerator": "cpu",
            "evaluation.data": str(tmp_path), "evaluation.source_model": str(model_folders["bert"]),
            "evaluation.tasks": ["retrieval"], "evaluation.every": 4, "evaluation.sentences": 4,
        },
        "methods": {"OFA": {"export.method": "ofa"}, "mean": {"export.method": "mean"}},
        "version": "test",
    }  # fmt: skip


def test_cells_are_pretrained(settings, tmp_path, monkeypatch):
    output = tmp_path / "ablation"
    ablate(output, **settings, print_commands=True)
    names = sorted(path.name for path in (output / "cells").iterdir())

    class Killed(BaseException):
        pass

    step = LanguageModelling.training_step

    def killed(self, batch, number):
        if self.trainer.global_step == 3:
            raise Killed
        return step(self, batch, number)

    monkeypatch.setattr(LanguageModelling, "training_step", killed)
    with pytest.raises(Killed):
        run_cell(output, names[0])
    seen = []
    monkeypatch.setattr(LanguageModelling, "training_step", lambda *args: seen.append(0) or step(*args))
    for name in names:
        run_cell(output, name)
    assert len(seen) == 2 + 4  # the first went on at its last point
    found = ablate(output, **settings)
    assert [each.status for each in found.outcomes] == ["finished"] * 2
    for each in found.outcomes:
        assert [point.step for point in curve_of(each)] == [0, 2, 4]
        last = curve_of(each)[-1]
        assert each.scores["pretraining"]["bits_after"] == {"deu": last.bits_per_byte}
        assert set(each.scores["SR-B after pretraining"]["top10"]) == {"eng", "deu"}
        assert not list((output / "cells" / each.cell.id).rglob("*.safetensors"))
    with (output / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["step"]) for row in rows] == [(name, step) for name in ("OFA", "mean") for step in "024"]
    assert "Continual pretraining" in (output / "report.html").read_text()
    assert "steps to the end of OFA" in (output / "table.md").read_text()
    assert (output / "plots" / "pretraining.svg").exists()
    results = json.loads((output / "cells" / names[0] / "result.json").read_text())
    assert "seconds" not in results["curve"][0]


def test_settings_of_pretraining_are_checked_before_anything_runs(settings, tmp_path):
    settings["pretrain"]["training.stpes"] = 3
    with pytest.raises(InputError, match=r"methods: OFA: pretrain: .*stpes"):
        ablate(tmp_path / "out", **settings)
