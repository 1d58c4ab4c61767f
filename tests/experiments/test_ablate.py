"""The grid, its processes and what survives a crash."""

import csv
import gzip
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.evaluation.retrieval import METRICS as METRICS_OF_RETRIEVAL
from hyperofa.evaluation.scores import Scores
from hyperofa.experiments import ablate as ablation
from hyperofa.experiments import cells
from hyperofa.experiments.ablate import ablate, find_gpus, read_outcome, run_all
from hyperofa.experiments.grid import WIDTH, expand, nested, shown
from hyperofa.experiments.report import TIMES
from hyperofa.experiments.results import tabulate
from hyperofa.experiments.statistics import Interval, holm, mean_interval, mean_over_seeds, paired_difference
from hyperofa.presets import find_config
from hyperofa.runtime.folders import sha256_file
from hyperofa.runtime.processes import bar_hidden
from tests import forked
from tests.conftest import CONFIGS, ENGLISH, GERMAN, QUIET

METHODS = {
    "Random": {"export.method": "random"},
    "OFA": {"export.method": "ofa"},
    "HYPEROFA": {"export.method": "hyperofa", "fit.config": "net.yaml"},
}


# --- the grid --------------------------------------------------------------------------------------------------------


def plan(methods=METHODS, grid=None, **common):
    return expand(methods, {key.replace("_", ".", 1): value for key, value in common.items()}, grid or {}, "code")


def test_each_method_meets_each_point_of_the_grid_once():
    cells_of = plan(grid={WIDTH: [4, None], "seed": [0, 1, 2], "fit.model.net": ["MLP", "BiLSTM"]})
    by_method = {name: [cell for cell in cells_of if cell.method == name] for name in METHODS}
    # OFA has neither a seed nor a net; the noise of `random` has a seed.
    assert {name: len(found) for name, found in by_method.items()} == {"Random": 6, "OFA": 2, "HYPEROFA": 12}
    assert len({cell.id for cell in cells_of}) == len(cells_of)
    assert [cell.width for cell in by_method["OFA"]] == [4, None]
    assert all(cell.seed == 0 and not cell.run for cell in by_method["OFA"])
    assert {cell.settings["fit.model.net"] for cell in by_method["HYPEROFA"]} == {"MLP", "BiLSTM"}


def test_cells_share_bundles_and_runs():
    cells_of = plan(grid={WIDTH: [4, 8], "seed": [0, 1], "evaluate.layer": [-1, 8]})
    assert len({cell.bundle for cell in cells_of}) == 2
    trained = [cell for cell in cells_of if cell.run]
    assert len(trained) == 8
    assert len({cell.run for cell in trained}) == 4  # the layer of the evaluation changes no training


def test_a_method_may_have_a_grid_of_its_own():
    methods = {
        "OFA": METHODS["OFA"],
        "HYPEROFA": {**METHODS["HYPEROFA"], "grid": {"fit.model.distance": ["l1", "mse"]}},
    }
    assert [cell.axes for cell in plan(methods)] == [{}, {"fit.model.distance": "l1"}, {"fit.model.distance": "mse"}]


def test_settings_fill_the_names_of_files():
    methods = {"HYPEROFA": {"export.method": "hyperofa", "fit.config": "paper/{prepare.coordinate_dim}-{seed}.yaml"}}
    found = plan(methods, {WIDTH: [100, None], "seed": [3]})
    assert [cell.settings["fit.config"] for cell in found] == ["paper/100-3.yaml", "paper/full-3.yaml"]
    with pytest.raises(InputError, match=r"expected a setting in braces, such as .* found \{fit.width\}"):
        plan({"HYPEROFA": {"export.method": "hyperofa", "fit.config": "{fit.width}.yaml"}})


def test_ids_follow_the_inputs(tmp_path):
    config, vectors = tmp_path / "net.yaml", tmp_path / "words.vec"
    config.write_text("a")
    vectors.write_text("a")
    methods = {"HYPEROFA": {"export.method": "hyperofa", "fit.config": str(config)}}

    def ids(code="code", **common):
        from hyperofa.experiments.grid import _hash_path

        _hash_path.cache_clear()
        cell = expand(methods, {"prepare.vectors": [f"eng={vectors}"], **common}, {}, code)[0]
        return cell.bundle, cell.run, cell.id

    first = ids()
    assert ids() == first
    assert not set(ids("other")) & set(first)
    assert ids(**{"evaluate.sentences": 7})[:2] == first[:2]
    assert ids(**{"evaluate.sentences": 7})[2] != first[2]
    config.write_text("b")
    assert ids()[0] == first[0]
    assert ids()[1] != first[1]
    vectors.write_text("b")
    assert ids()[0] != first[0]


def test_names_are_no_files(tmp_path, monkeypatch):
    """A method, a language, a version: a folder that is called alike, where the command runs, changes nothing."""
    settings = {"export.method": "ofa", "export.copied": ["role"], "prepare.source_languages": ["eng"]}
    common = {"pretrain.evaluation.tasks": ["retrieval"], "prepare.vectors_dtype": "float16"}
    found = []
    monkeypatch.chdir(tmp_path)
    for name in ("", "OFA", "ofa", "role", "eng", "retrieval", "float16", "code"):
        if name:
            (tmp_path / name).write_text("something else")
        found.append(expand({"OFA": settings}, common, {"export.method": ["ofa"]}, "code")[0].id)
    assert len(set(found)) == 1


@pytest.mark.parametrize(("methods", "grid", "message"), [
    ({}, {}, "methods: expected at least one"),
    ({"OFA": {}}, {}, "methods: OFA: expected an export.method"),
    ({"OFA": {"export.method": "ofa", "model.net": "MLP"}}, {}, "expected keys such as prepare.coordinate_dim or"),
    (METHODS, {"seed": 3}, "grid: seed: expected a list of values, found 3"),
    (METHODS, {"seed": [1.7]}, "seed: expected a whole number from 0, found 1.7"),
])  # fmt: skip
def test_mistakes_are_named(methods, grid, message):
    with pytest.raises(InputError, match=message):
        plan(methods, grid)


@pytest.mark.parametrize(("value", "text"), [
    (None, "full"), (100, "100"), ("hyperofa.nets.MLP", "MLP"), ("net.yaml", "net.yaml"),
    ({"class_path": "hyperofa.nets.MLP", "init_args": {}}, "MLP"), ([1, 2], "[1, 2]"),
])  # fmt: skip
def test_values_are_shown_short(value, text):
    assert shown(value) == text


def test_dotted_keys_nest():
    flags = {"model.net": {"class_path": "MLP"}, "model.net.init_args.hidden_dim": 8, "data.seed": 1}
    expected = {"model": {"net": {"class_path": "MLP", "init_args": {"hidden_dim": 8}}}, "data": {"seed": 1}}
    assert nested(flags) == expected


# --- statistics ------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_intervals_hold_the_mean(values):
    interval = mean_interval(values, np.random.default_rng(0), 500)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert interval == mean_interval(values, np.random.default_rng(0), 500)


def test_intervals_against_the_normal_approximation():
    values = np.random.default_rng(0).normal(50, 10, 400)
    interval = mean_interval(values, np.random.default_rng(1))
    assert interval.mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1)


def test_intervals_cover():
    """Of 200 samples of 30 languages, about 95 % of the intervals hold the true mean (a little less: a bootstrap)."""
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.normal(0, 1, 30), rng, 1_000) for _ in range(200)]
    assert 0.88 < np.mean([low < 0 < high for _, low, high in intervals]) < 0.98


def test_pairing_sees_a_small_gain_among_unlike_languages():
    rng = np.random.default_rng(0)
    theirs = {f"l{number}": float(score) for number, score in enumerate(rng.uniform(0, 100, 30))}
    ours = {language: score + 1 + rng.normal(0, 0.5) for language, score in theirs.items()}
    difference = paired_difference(ours, theirs, np.random.default_rng(0))
    assert difference.excludes_zero
    assert difference.mean == pytest.approx(1, abs=0.3)
    assert not Interval(0.1, -0.1, 0.3).excludes_zero
    with pytest.raises(ValueError, match="expected languages in common"):
        paired_difference({"a": 1.0}, {"b": 1.0}, rng)


def test_languages_and_their_sentences_are_drawn():
    """Against as many samples drawn in a loop, one by one."""
    rng = np.random.default_rng(0)
    theirs = {name: (rng.random(60) < 0.4) * 100.0 for name in "abcde"}
    ours = {name: np.where(rng.random(60) < 0.2, 100.0, hits) for name, hits in theirs.items()}
    found = paired_difference(ours, theirs, np.random.default_rng(0))
    slow = []
    for _ in range(4_000):
        names = rng.choice(list(theirs), 5)
        drawn = [(name, rng.integers(60, size=60)) for name in names]
        slow.append(np.mean([(ours[name] - theirs[name])[ids].mean() for name, ids in drawn]))
    assert found.mean == pytest.approx(np.mean([(ours[name] - theirs[name]).mean() for name in ours]))
    assert (found.low, found.high) == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.7)
    assert found.chance == pytest.approx(2 / 10_001)
    swapped = paired_difference(theirs, ours, np.random.default_rng(0))
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx((-found.mean, -found.high, -found.low), abs=0.7)


def test_differences_of_other_sentences_are_those_of_means():
    ours, theirs = {"a": np.array([0.0, 100.0]), "b": 60.0}, {"a": np.array([0.0, 0.0, 100.0, 0.0]), "b": 60.0}
    assert paired_difference(ours, theirs, np.random.default_rng(0)).mean == pytest.approx(12.5)


def test_chances_of_no_difference_are_even():
    """Under no difference, one test in twenty is below 0.05, fewer where languages are alike; NaN says nothing."""
    rng = np.random.default_rng(0)

    def share(unlike):
        sides = ({str(n): rng.random(8) + rng.normal(0, unlike) for n in range(20)} for _ in range(300))
        chances = [paired_difference(ours, theirs, rng, 200).chance for ours, theirs in zip(sides, sides, strict=True)]
        return np.mean(np.array(chances) < 0.05)

    assert 0.02 < share(unlike=1.0) < 0.12
    assert share(unlike=0.0) < 0.05
    assert paired_difference({"a": float("nan")}, {"a": 1.0}, rng).chance == 1


def test_holm():
    """The example of Holm 1979 as textbooks have it; the order stays."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_seeds_are_averaged_by_language():
    assert mean_over_seeds([{"deu": 1.0, "rus": 2.0}, {"deu": 3.0}]) == {"deu": 2.0}
    assert mean_over_seeds([]) == {}
    with pytest.raises(ValueError, match="expected at least one value"):
        mean_interval([], np.random.default_rng(0))


# --- running ---------------------------------------------------------------------------------------------------------


def fake(output, fails=()):
    """A runner that finishes cells at once, or fails them, and notes what it ran on which device."""
    ran = []

    def run(cell, device):
        ran.append((cell.id, device))
        if cell.method in fails:
            (output / "cells" / cell.id / "log.txt").write_text("Segmentation fault\n")
            return -11
        numbers = {"top1": {"eng": 9.0, "deu": 1.0 + cell.seed}, "top10": {"eng": 9.0, "deu": 5.0}}
        result = {**Scores({"SR-B": numbers}, {"SR-B": METRICS_OF_RETRIEVAL}).as_dict(), "rows": {"copied": 1}}
        result |= {"coordinate_dim": 4, "explained": 1.0, "bundle": {}, "parameters": None, "versions": {}}
        cells.write_json(output / "cells" / cell.id / "result.json", result | {"seconds": {"export": 1.0}})
        return 0

    run.ran = ran
    return run


@pytest.fixture
def small_plan(tmp_path):
    found = plan(grid={"seed": [0, 1]}, prepare_source_model="m")
    for cell in found:
        cells.write_cell(tmp_path, cell)
    return tmp_path, found


def test_a_crash_of_one_cell_leaves_the_others(small_plan, capsys):
    output, found = small_plan
    outcomes = run_all(output, found, [None], fake(output, fails={"OFA"}))
    assert [outcome.status for outcome in outcomes] == ["finished", "failed", "finished", "finished", "finished"]
    assert outcomes[1].error == "the process ended with code -11\nSegmentation fault"
    said = capsys.readouterr().err
    assert "5/5" in said
    assert "OFA, full width, seed 0: failed: Segmentation fault" in said
    # The next start tries the failed one again, and nothing else.
    again = fake(output)
    assert {outcome.status for outcome in run_all(output, found, [None], again)} == {"finished"}
    assert [cell for cell, _ in again.ran] == [found[1].id]


def test_one_cell_a_gpu_at_a_time(small_plan):
    output, found = small_plan
    busy, most = [], []
    inner = fake(output)

    def run(cell, device):
        assert device not in busy
        busy.append(device)
        most.append(len(busy))
        time.sleep(0.05)
        busy.remove(device)
        return inner(cell, device)

    run_all(output, found, ["0", "3"], run)
    assert {device for _, device in inner.ran} == {"0", "3"}
    assert max(most) == 2


def test_gpus_are_those_one_may_use(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert find_gpus() == ["2", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert find_gpus() == ["0", "1"]


def test_commands_and_a_slurm_script(small_plan, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(ablation, "check_settings", lambda cells: None)  # of files that are not there
    folder = tmp_path_factory.mktemp("with space")
    settings = {"prepare": {"source_model": "m"}, "methods": METHODS, "grid": {"seed": [0, 1]}, "version": "v"}
    lines = ablate(folder, **settings, print_commands=True).splitlines()
    assert len(lines) == 5
    assert all(" -m hyperofa ablate --output " in line and " --cell " in line for line in lines)
    script = ablate(folder, **settings, slurm=True)
    assert "#SBATCH --array=0-4" in script
    # The shell reads from the script the words of the command that is printed.
    probe = script.replace('eval "exec ', "eval \"printf '%s\\n' ")
    result = subprocess.run(
        ["bash"],
        input=probe,
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == lines[3].rsplit(" ", 1)[-1]
    assert str(folder) in result.stdout.splitlines()


def test_unknown_cells_are_refused(tmp_path):
    with pytest.raises(InputError, match="cell='x': expected a cell of the ablation"):
        ablate(tmp_path, cell="x")
    with pytest.raises(InputError, match="jobs: expected at least 1"):
        ablate(tmp_path, methods=METHODS, jobs=0)


@pytest.mark.parametrize("change", [
    {"id": "../../elsewhere"}, {"bundle": "../../elsewhere"}, {"run": "../elsewhere"}, {"settings": None}, {"more": 1},
])  # fmt: skip
def test_a_cell_writes_nowhere_but_in_its_place(change, small_plan):
    output, found = small_plan
    path = output / "cells" / found[0].id / "cell.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    before = sorted(output.parent.rglob("*"))
    with pytest.raises(InputError, match=f"cell.*{found[0].id}.*: expected a cell of the ablation"):
        ablate(output, cell=found[0].id)
    with pytest.raises(InputError, match="expected a cell of the ablation"):
        ablate(output, cell=f"../cells/{found[0].id}")
    assert sorted(output.parent.rglob("*")) == before


@pytest.mark.parametrize(("name", "content"), [
    ("result.json", []), ("result.json", {"metrics": {"SR-B": -1}}), ("result.json", {"parameters": "x"}),
    ("result.json", {"hits": {"SR-B": {"top1": {"deu": 5}}}}), ("result.json", {"curve": [{"step": 1}]}),
    ("seconds.json", {"export": math.nan}), ("seconds.json", ["x"]), ("memory.json", None),
    ("failure.json", {"error": 5}),
])  # fmt: skip
def test_what_a_cell_left_is_damaged(name, content, small_plan):
    output, found = small_plan
    fake(output)(found[0], None)
    path = output / "cells" / found[0].id / name
    whole = json.loads(path.read_text()) if path.is_file() and isinstance(content, dict) else {}
    path.write_text(json.dumps(whole | content if whole else content))
    with pytest.raises(InputError, match=rf"{name}: expected .*, found .*(; remove it|as)"):
        read_outcome(output, found[0])


def test_settings_of_a_cell_that_are_none(small_plan):
    output, found = small_plan
    path = output / "cells" / found[0].id / "cell.json"
    cell = json.loads(path.read_text())
    for change, message in (
        ({"export.method": ["ofa"]}, r"expected an export.method \(.*\), found \['ofa'\]"),
        ({"x.y": 1}, "expected keys such as prepare.coordinate_dim .*, found x.y"),
    ):
        path.write_text(json.dumps(cell | {"settings": cell["settings"] | change}))
        with pytest.raises(InputError, match=f"cell.json: {message}"):
            ablate(output, cell=found[0].id)


# --- the real thing, tiny --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Verses of two languages."""
    folder = tmp_path_factory.mktemp("data")
    lines = [f"{language}\t{number}\t{text}" for language, texts in (("eng", ENGLISH), ("deu", GERMAN))
             for number, text in enumerate(texts)]  # fmt: skip
    with gzip.open(folder / "heldout.tsv.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def config(data, model_folders, tokenizer_folders, vector_file, tmp_path):
    """A grid of two widths and three methods, one of them trained for an instant."""
    quiet = {key.removeprefix("--"): value for key, value in zip(QUIET[::2], QUIET[1::2], strict=True)}
    net = {"class_path": "hyperofa.nets.MLP", "init_args": {"hidden_dim": 4, "num_layers": 1}}
    settings = {
        "prepare": {
            "source_model": str(model_folders["bert"]),
            "target_tokenizer": str(tokenizer_folders["unigram"]),
            "vectors": [str(vector_file)],
            "source_languages": ["eng"],
        },
        "evaluate": {"data": str(data), "sentences": 8},
        "methods": {
            "OFA": {"export.method": "ofa"},
            "HYPEROFA": {
                "export.method": "hyperofa",
                "fit.config": str(CONFIGS / "tokens.yaml"),
                "fit.model.net": net,
                "fit.trainer.max_epochs": 30,
                **{f"fit.{key}": yaml.safe_load(value) for key, value in quiet.items()},
            },
        },
        "grid": {WIDTH: [6]},
        "version": "test",  # colleagues may edit the package meanwhile
        "metric": "top1",
    }
    path = tmp_path / "ablate.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def rows_of(output):
    with (output / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files below a folder, by their paths; not of those that tell of time, or with what command."""
    other = {cells.TIMES, cells.MEMORY, TIMES, "log.txt", "report.html", "README.md", "manifest.json"}
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): sha256_file(path) for path in files if path.name not in other}


def test_an_ablation_killed_half_way_ends_as_one_left_alone(config, tmp_path, monkeypatch, capsys):
    killed, whole = tmp_path / "killed" / "out", tmp_path / "whole" / "out"
    for folder in (killed.parent, whole.parent):
        folder.mkdir()
    (killed.parent / "numpy.py").write_text("open('IMPORTED', 'w').close()\n")  # no child imports it
    child = forked.start(lambda: main(["ablate", "--config", str(config), "--output", "out"]), killed.parent)
    begun = "runs/.*.training/checkpoints/last.ckpt"
    forked.kill_when(lambda: list(killed.glob(begun)), child, killed.parent)
    assert not (killed / "results.csv").exists()
    assert not list(killed.glob("cells/hyperofa-*/result.json"))
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("cells/ofa-*/result.json")}
    assert len(finished) == 1
    assert len(list(killed.glob(begun))) == 1

    monkeypatch.chdir(killed.parent)
    main(["ablate", "--config", str(config), "--output", "out"])
    assert "already there" in capsys.readouterr().err
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    (log,) = killed.glob("runs/*/log.txt")
    assert "which was not finished" in log.read_text(encoding="utf-8")
    assert not (killed.parent / "IMPORTED").exists()

    # Left alone; here each cell runs in this process, which is faster.
    monkeypatch.chdir(whole.parent)
    monkeypatch.setattr(ablation, "_in_process", lambda output, keep: lambda cell, _: cells.run_cell(output, cell.id))
    main(["ablate", "--config", str(config), "--output", "out"])
    found = [contents(folder) for folder in (killed, whole)]
    assert found[0] == found[1]
    rows = rows_of(whole)
    assert [(row["method"], row["status"], row["prepare.coordinate_dim"]) for row in rows] == [
        ("OFA", "finished", "6"), ("HYPEROFA", "finished", "6"),
    ]  # fmt: skip
    for row in rows:
        assert 0 <= float(row["SR-B top1 deu"]) == float(row["SR-B top1"]) <= 100
        assert "SR-B top1 eng" not in row
    assert not rows[0]["parameters"]
    assert int(rows[1]["parameters"]) > 0
    assert len(list((whole / "bundles").glob("*/meta.json"))) == 1
    assert not list(whole.rglob("*.safetensors"))  # no exported weights are kept; the bundle has none

    # A third start runs nothing; a further method runs alone, on the bundle that is there.
    monkeypatch.setattr(ablation, "_in_process", lambda *_: lambda *_: pytest.fail("nothing is left to run"))
    main(["ablate", "--config", str(config), "--output", str(whole)])
    ran = []

    def note(output, keep):
        return lambda cell, _: ran.append(cell.method) or cells.run_cell(output, cell.id)

    monkeypatch.setattr(ablation, "_in_process", note)
    settings = yaml.safe_load(config.read_text())
    settings["methods"]["Mean"] = {"export.method": "mean"}
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    main(["ablate", "--config", str(config), "--output", str(whole), "--keep_models", "true"])
    assert ran == ["Mean"]
    assert len(rows_of(whole)) == 3
    assert len(list((whole / "bundles").glob("*/meta.json"))) == 1


def test_cells_that_refuse_their_input_say_so(config, tmp_path, monkeypatch, capsys):
    settings = yaml.safe_load(config.read_text())
    del settings["methods"]["HYPEROFA"]
    settings["prepare"]["source_model"] = str(tmp_path / "nowhere")
    config.write_text(yaml.safe_dump(settings))

    def run(output, keep):
        def cell_alone(cell, device):
            with pytest.raises(InputError):
                cells.run_cell(output, cell.id)
            return 2

        return cell_alone

    monkeypatch.setattr(ablation, "_in_process", run)
    with pytest.raises(SystemExit, match="1"):
        main(["ablate", "--config", str(config), "--output", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert f"--source_model {tmp_path / 'nowhere'}: expected" in said.out
    assert "1 failed of 1 cells" in said.out
    assert "every cell failed" in said.err.splitlines()[-1]
    assert {row["status"] for row in rows_of(tmp_path / "out")} == {"failed"}
    assert "--source_model" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("key", "value", "message"), [
    ("prepare.coordinate_dims", 3, r"\w+: prepare: .*coordinate_dims"),
    ("prepare.max_words", "many", r"\w+: prepare: .*max_words.*many"),
    ("export.mixing.temprature", 3, r"\w+: export: .*temprature"),
    ("evaluate.sentence", 3, r"\w+: evaluate: .*sentence"),
    ("fit.model.netto", "MLP", "HYPEROFA: fit: .*netto"),
    ("fit.trainer.max_epochs", "many", "HYPEROFA: fit: .*max_epochs: expected a whole number or null, found many"),
    ("fit.model.net", "os.system", "HYPEROFA: fit: .*expected a class of hyperofa"),
    ("fit.config", "nowhere.yaml", "HYPEROFA: fit: --config: .*nowhere.yaml"),
    ("prepare.vectors", ["nowhere.vec"], r"\w+: prepare: --vectors nowhere.vec: expected a file of word vectors"),
    ("fit.data.text", ["nowhere.txt"], "HYPEROFA: fit: --data.text nowhere.txt: expected a text file, found none"),
    ("evaluate.data", "nowhere", r"\w+: evaluate: --data nowhere: "),
    ("evaluate.languages", ["xxx"], r"\w+: evaluate: --languages xxx: expected languages with sentences"),
    ("pretrain.text", ["deu=nowhere.txt"], r"\w+: pretrain: --text nowhere.txt: expected a text file, found none"),
    ("fit.config", None, "HYPEROFA: fit: HYPEROFA: expected fit.config"),
])  # fmt: skip
def test_settings_are_checked_before_anything_runs(key, value, message, config, tmp_path, capsys):
    settings = yaml.safe_load(config.read_text())
    stage, _, flag = key.partition(".")
    settings.setdefault(stage, {})[flag] = value
    if stage == "fit":
        settings["methods"]["HYPEROFA"].pop(key, None)
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit, match="2"):
        main(["ablate", "--config", str(config), "--output", str(tmp_path / "out")])
    assert re.search(rf"^hyperofa: methods: {message}", capsys.readouterr().err.splitlines()[-1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["report.html", "plots/mine.svg", ".hyperofa"])
def test_reports_of_something_else_are_left_alone(name, config, tmp_path, capsys):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"kind": "bundle", "files": []}', encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["ablate", "--config", str(config), "--output", str(tmp_path / "out")])
    expected = rf"out: expected a new folder, or one of an earlier ablation, found {name.partition('/')[0]}, which is"
    assert re.search(expected, capsys.readouterr().err)
    assert [path] == [each for each in (tmp_path / "out").rglob("*") if each.is_file()]


def test_no_bars_where_they_are_turned_off(monkeypatch):
    assert not bar_hidden(False)
    assert bar_hidden(True)
    monkeypatch.setenv("TQDM_DISABLE", "1")  # as in the logs of cells, which would never be the same twice
    assert bar_hidden(False)


def test_children_end_with_their_parent(tmp_path):
    """A process started by a cell that is killed is killed as well."""
    program = (
        "import sys, time; from hyperofa.experiments.cells import spawn\n"
        "print(spawn([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        if "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            break
        time.sleep(0.05)
    assert time.monotonic() < deadline


def test_the_example_config_makes_cells():
    settings = yaml.safe_load((CONFIGS / "ablate.yaml").read_text(encoding="utf-8"))
    common = {f"{stage}.{key}": value for stage in ("prepare", "fit", "evaluate")
              for key, value in settings.get(stage, {}).items()}  # fmt: skip
    found = expand(settings["methods"], common, settings["grid"], "code")
    assert {cell.method for cell in found} == set(settings["methods"])
    for cell in found:
        for name in np.atleast_1d(cell.settings.get("fit.config", [])):
            assert Path(find_config(str(name))).is_file()
        assert json.dumps(cell.settings)


def test_text_alone_is_scored_tabulated_and_drawn(config, model_folders, tmp_path, monkeypatch):
    """Of a masked model, without sentences to retrieve: numbers where less is better, in a table of their own."""
    settings = yaml.safe_load(config.read_text())
    source = model_folders["roberta"]
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(["grandmother", "language", "church", "animals"])
    tokenizer.save_pretrained(tmp_path / "expanded")
    settings["prepare"] |= {"source_model": str(source), "target_tokenizer": str(tmp_path / "expanded")}
    (tmp_path / "text.txt").write_text("\n".join(ENGLISH) + "\n", encoding="utf-8")
    settings["evaluate"] = {"text": [str(tmp_path / "text.txt")]}
    settings["methods"] = {"OFA": {"export.method": "ofa"}, "Mean": {"export.method": "mean"}}
    monkeypatch.setattr(ablation, "_in_process", lambda output, keep: lambda cell, _: cells.run_cell(output, cell.id))
    result = ablate(tmp_path / "out", **settings)
    assert [outcome.status for outcome in result.outcomes] == ["finished", "finished"], result
    assert "KL(old ‖ new), mean over languages, in nats" in str(result)
    rows = rows_of(tmp_path / "out")
    kl = {row["method"]: float(row["shift kl_mean"]) for row in rows}
    assert kl == {row["method"]: float(row["shift kl_mean text"]) for row in rows}
    table = tabulate(result.outcomes, "OFA", "top10")
    assert table.best("6", "shift") == {min(kl, key=kl.get)}
    assert kl["OFA"] != kl["Mean"]
    assert "is best at shift" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "plots" / "languages-shift.svg").is_file()
    with pytest.raises(InputError, match=r"one of .*kl_mean, .*top1, top10; found topp10; did you mean top10\?"):
        ablate(tmp_path / "out", **settings | {"metric": "topp10"})
    with pytest.raises(InputError, match=r"baseline: expected one of the methods .*; found (\w+)x; did you mean \1\?"):
        ablate(tmp_path / "out", **settings | {"baseline": f"{list(settings['methods'])[-1]}x"})
