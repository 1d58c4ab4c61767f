"""What loggers with tables are shown of the tokens that a net learns."""

import csv
import os
import re
from importlib import import_module
from types import NoneType
from typing import get_args, get_type_hints

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import Logger

import hyperofa
from hyperofa.cli import main
from hyperofa.closing import _NEXT, close, duration
from hyperofa.commands import COMMANDS
from hyperofa.export.watching import TITLE, TokenTable, nearest_source_tokens
from hyperofa.runtime.processes import bar_hidden, bars_on_terminals
from tests.conftest import CONFIGS, QUIET, TINY_TEXT


class Silent(Logger):
    """Takes numbers, and forgets them."""

    name, version = "silent", 0

    @property
    def experiment(self):
        return self

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *_, **__):
        pass


class Board(Silent):
    """Takes what TensorBoard's logger takes."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def add_text(self, title, text, step):
        self.texts.append((title, text, step))


class Tables(Silent):
    """Takes what W&B's logger takes."""

    def __init__(self):
        super().__init__()
        self.tables = []

    def log_table(self, title, columns, data, step):
        self.tables.append((title, columns, data, step))


def test_tables_reach_the_loggers_that_show_them(bundles, tmp_path):
    board, tables = Board(), Tables()
    few = {"max_epochs": 2, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"}
    loggers = [board, tables, CSVLogger(tmp_path)]
    net = hyperofa.fit(bundles["bert"], net="MLP", trainer={**few, "logger": loggers, "callbacks": [TokenTable(4, 3)]})
    assert [title for title, *_ in board.texts] == [TITLE] * 2
    assert [step for *_, step in board.texts] == sorted({step for *_, step in board.texts})
    _, columns, rows, _ = tables.tables[-1]
    assert columns == ["token", "1.", "2.", "3."]
    assert (len(rows), {len(row) for row in rows}) == (4, {4})
    assert board.texts[-1][1].count("\n") == 5
    bundle = hyperofa.Bundle.load(bundles["bert"])
    overlap = set(bundle.overlap.target_ids.tolist())
    ids = bundle.tokenizer("target").convert_ids_to_tokens
    shown = {row[0] for row in rows}
    assert shown <= {ids(token) for token in np.flatnonzero(bundle.target.covered).tolist() if token not in overlap}
    assert net.net is not None


def test_the_nearest_come_first_with_their_cosines(bundles, fitted):
    bundle = hyperofa.Bundle.load(bundles["bert"])
    trained = hyperofa.Hypernetwork.load(fitted["tokens"] / "checkpoints" / "best.ckpt")
    rows = nearest_source_tokens(trained, bundle, 3, 4)
    assert len(rows) == 3
    for _, *found in rows:
        cosines = [float(each.rpartition(" ")[2]) for each in found]
        assert cosines == sorted(cosines, reverse=True)
        assert max(cosines) <= 1


def test_a_log_file_gets_a_line_an_epoch_and_no_bars(bundles, text_file, tmp_path, capfd):
    folder = ["--trainer.logger.init_args.save_dir", str(tmp_path)]
    quiet = [word for word in QUIET if "progress_bar" not in word]
    quiet.remove("false")
    flags = ["--data.bundle", str(bundles["bert"]), "--data.text", str(text_file), *folder, *TINY_TEXT, *quiet]
    main(["fit", "--config", str(CONFIGS / "fit.yaml"), *flags])
    said = capfd.readouterr()
    own = re.sub(r"\r?Loading weights.*", "", said.err)  # transformers' bar heeds what was set before it was imported
    assert "\r" not in own
    assert "epoch 1 of 2, step 3: val/score " in said.err
    assert "epoch 2 of 2, step 6: " in said.err
    best = tmp_path / "fit" / "version_0" / "checkpoints" / "best.ckpt"
    assert f"best checkpoint: {best}" in said.out
    assert said.err.splitlines()[-1].endswith(f"--checkpoint {best} --output DIR")
    with (tmp_path / "fit" / "version_0" / "metrics.csv").open(encoding="utf-8") as file:
        assert TITLE not in next(csv.reader(file))


def test_bars_are_for_terminals(monkeypatch, capfd):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with bars_on_terminals():
        assert bar_hidden()
    assert "TQDM_DISABLE" not in os.environ
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with bars_on_terminals():
        assert not bar_hidden()
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "0")
    with bars_on_terminals():
        assert not bar_hidden()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.6, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599.7, "1 h 0 min"),
        (7320, "2 h 2 min"),
    ],
)
def test_durations_read_well(seconds, said):
    assert duration(seconds) == said


def test_a_command_ends_with_what_it_wrote_and_what_comes_next(bundles, tmp_path, capfd):
    main(["export", "--bundle", str(bundles["bert"]), "--method", "mean", "--output", str(tmp_path / "model")])
    said = capfd.readouterr()
    wrote, *steps = said.err.splitlines()[-3:]
    assert wrote.startswith(f"wrote {tmp_path / 'model'} in ")
    assert [step.startswith("next: hyperofa ") for step in steps] == [True, True]
    assert "next:" not in said.out
    for command in COMMANDS.keys() & _NEXT.keys():
        module, _, function = COMMANDS[command].partition(":")
        result = get_type_hints(getattr(import_module(module), function))["return"]
        for kind in set(get_args(result) or [result]) - {str, NoneType}:  # which say what was not written
            assert "path" in {*dir(kind), *getattr(kind, "__dataclass_fields__", ())}, command
    for nothing in (("config", tmp_path), ("export", None)):
        close(*nothing, 1)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("architecture", "command"), [
    ("BertModel", "distill"), ("BertForMaskedLM", "pretrain"), ("GPT2LMHeadModel", "pretrain"), (None, "pretrain"),
])  # fmt: skip
def test_a_model_without_a_head_learns_from_parallel_text(architecture, command, tmp_path, capfd):
    if architecture is not None:
        (tmp_path / "config.json").write_text(f'{{"architectures": ["{architecture}"]}}', encoding="utf-8")
    close("export", tmp_path, 1)
    assert f"next: hyperofa {command} --config {command} --model {tmp_path} " in capfd.readouterr().err
