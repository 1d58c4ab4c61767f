"""What settings may name is a class that its place takes, of a module that is trusted; nothing else is imported."""

import subprocess
import sys

import pytest
import yaml

from hyperofa.cli import main
from tests.conftest import CONFIGS, QUIET, TINY_TOKENS

TOUCH = {"command": "touch OPENED"}
COMMANDER = "def command(command): open(command, 'w')\nopen('IMPORTED', 'w')\n"


@pytest.fixture
def fit_words(bundles, tmp_path, monkeypatch):
    """The words of a short `fit`, with settings that win over those of its config."""
    monkeypatch.chdir(tmp_path)

    def words(settings: dict[str, object], command: str = "fit") -> list[str]:
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        configs = ["--config", str(CONFIGS / "tokens.yaml"), "--config", str(tmp_path / "settings.yaml")]
        return [command, *configs, "--data.bundle", str(bundles["bert8"]), *QUIET, "--trainer.max_epochs", "1"]

    return words


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def spec(path: str, **arguments: object) -> dict[str, object]:
    return {"class_path": path, "init_args": arguments}


CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"


@pytest.mark.parametrize(
    "settings",
    [
        {"model": {"net": spec("os.system", **TOUCH)}},
        {"model": {"net": {"class_path": "os.system", "dict_kwargs": TOUCH}}},
        {"model": {"net": "os.system"}},
        {"model": {"net": "net.yaml"}},
        {"model": {"net": spec("subprocess.Popen", args=["touch", "OPENED"])}},
        {"model": {"net": spec("torch.load", f="x")}},
        {"model": {"net": spec("commander.command", command="OPENED")}},
        {"model": {"net": spec("hyperofa.experiments.cells.spawn", command=["touch", "OPENED"])}},
        {"model": {"net": spec("hyperofa.nets.registry.build", spec={"class": "MLP"})}},
        {"model": {"net": spec(CHECKPOINT)}},
        {"trainer": {"logger": spec("os.system", **TOUCH)}},
        {"trainer": {"logger": [spec("commander.command", command="OPENED")]}},
        {"trainer": {"callbacks": [spec("os.system", **TOUCH)]}},
        {"trainer": {"callbacks": [spec("hyperofa.nets.MLP")]}},
        {"trainer": {"callbacks": [{"class_path": CHECKPOINT, "init_args": {"every_n_epochs": spec("os.system")}}]}},
        {"trainer": {"callbacks": [spec("lightning.pytorch.callbacks.LambdaCallback", setup="os.system")]}},
        {"trainer": {"plugins": [spec("os.system", **TOUCH)]}},
        {"trainer": {"profiler": spec("os.system", **TOUCH)}},
        {"trainer": {"strategy": spec("os.system", **TOUCH)}},
        {"trainer": {"accelerator": spec("os.system", **TOUCH)}},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_what_is_no_class_for_its_place_is_not_called(settings, fit_words, tmp_path, capsys):
    (tmp_path / "commander.py").write_text(COMMANDER, encoding="utf-8")
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(spec("os.system", **TOUCH)), encoding="utf-8")
    words = fit_words(settings)
    before = set(tmp_path.iterdir())
    error = refusal(words, capsys)
    assert "Traceback" not in error
    assert set(tmp_path.iterdir()) == before
    assert "commander" not in sys.modules


def test_it_is_told_in_a_line(fit_words, capsys):
    error = refusal(fit_words({"model": {"net": spec("os.system", **TOUCH)}}, "predict"), capsys)
    expected = "--model.net: expected a class of hyperofa or of Lightning that fits here, or one of a module given with"
    assert error.splitlines()[-1] == f"hyperofa: {expected} --trust, found os.system (see hyperofa predict --help)"


def test_it_is_told_alike_where_no_class_is_taken(fit_words, capsys):
    error = refusal(fit_words({"data": {"views": spec("os.system", **TOUCH)}}, "predict"), capsys)
    assert "expected a class of hyperofa or of Lightning that fits here" in error.splitlines()[-1]
    assert "set_parsing_settings" not in error


def test_flags_are_checked_as_files_are(fit_words, tmp_path, capsys):
    words = fit_words({})
    before = set(tmp_path.iterdir())
    for flags in (["--model.net", "os.system"], ["--model.net.help", "os.system"], ["--model", "net: os.system"]):
        refusal([*words, *flags], capsys)
        assert set(tmp_path.iterdir()) == before


WATCHER = """
from lightning import Callback
class Watcher(Callback):
    def on_fit_end(self, trainer, module):
        open("SEEN", "w").close()
"""


def test_the_user_may_trust_a_module(fit_words, tmp_path, monkeypatch, capsys):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "watching_callbacks.py").write_text(WATCHER, encoding="utf-8")
    words = [*fit_words({"trainer": {"callbacks": [spec("watching_callbacks.Watcher")]}}), *TINY_TOKENS]
    words += ["--trainer.max_epochs", "1", "--trainer.logger", "false"]
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    assert "given with --trust, found watching_callbacks.Watcher" in refusal(words, capsys)
    assert "--trust nowhere_at_all: expected a module that Python finds" in refusal(
        [*words, "--trust", "nowhere_at_all"], capsys
    )
    assert "--trust: expected the name of a module, such as my_nets, found ''" in refusal([*words, "--trust"], capsys)
    monkeypatch.setattr("hyperofa.runtime.trust._trusted", [])
    main([*words, "--trust", "watching_callbacks"])
    assert (tmp_path / "SEEN").is_file()


def test_a_file_cannot_ask_for_trust(fit_words, capsys):
    error = refusal(fit_words({"trust": "commander", "model": {"net": "commander.command"}}), capsys)
    assert "commander" in error or "trust" in error
    assert "commander" not in sys.modules


def test_nothing_of_the_current_folder_is_imported(tmp_path):
    for name in ("numpy", "torch", "yaml", "runpy_unknown", "deepspeed"):
        (tmp_path / f"{name}.py").write_text("open('IMPORTED', 'w').close()\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hyperofa", "fit", "--trainer.strategy", "deepspeed", "--data.bundle", "none"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "none: expected a folder" in done.stderr or "deepspeed" in done.stderr.lower()
    assert not (tmp_path / "IMPORTED").exists()
