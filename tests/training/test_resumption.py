"""What a run leaves when it ends too early, whatever checkpoints it keeps, and two runs in one folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from lightning.pytorch.loggers.logger import Logger

from hyperofa.cli import main
from hyperofa.runtime.folders import sha256_file
from hyperofa.training.resumption import Resumption
from tests.conftest import CONFIGS, QUIET, TINY_TOKENS

TORCH_SAVE = torch.save
MRR = {"monitor": "val/mrr", "mode": "max"}
SETTINGS = {
    "elsewhere": MRR | {"dirpath": "elsewhere", "filename": "best", "save_weights_only": True},
    "all": {"save_top_k": -1, "filename": "{epoch}"},
    "two": MRR | {"save_top_k": 2, "filename": "{step}"},
    "last too": MRR | {"filename": "best", "save_last": True, "save_weights_only": True},
    "link": MRR | {"filename": "best", "save_last": "link"},
    "steps": {"every_n_train_steps": 1, "save_top_k": -1, "dirpath": "elsewhere", "save_weights_only": True},
}


class Service(Logger):
    """As those of services: one folder for the files of all runs, each of which has a name given from outside."""

    name, version, save_dir = "project", None, "here"

    def __init__(self, run: str) -> None:
        self.version = run

    def log_metrics(self, metrics, step=None):
        """Keep nothing."""

    def log_hyperparams(self, params, *args, **kwargs):
        """Keep nothing."""


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): sha256_file(path) for path in found}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """One folder for all runs: `last.ckpt` names that of checkpoints which are not kept in the run's own."""
    folder = tmp_path_factory.mktemp("runs") / "here"
    folder.mkdir()
    return folder


def empty(folder: Path) -> None:
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def fit_words(bundles, here, monkeypatch):
    """The words of a `fit` of three epochs in the current folder."""
    monkeypatch.chdir(here)
    empty(here)

    def words(checkpoint: dict[str, object] = SETTINGS["elsewhere"]) -> list[str]:
        keep = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoint}
        flags = ["--trainer.callbacks", json.dumps([keep]), "--trainer.logger.init_args.save_dir", "runs"]
        flags += ["--trainer.max_epochs", "3", "--data.batch_size", "64", "--data.bundle", str(bundles["bert8"])]
        return ["fit", "--config", str(CONFIGS / "tokens.yaml"), *QUIET, *TINY_TOKENS, *flags]

    return words


_WHOLE: dict[tuple[str, ...], dict[str, str]] = {}


def undisturbed(words: list[str]) -> dict[str, str]:
    """The files of a run, which is removed. Made once for all tests with the same words."""
    if tuple(words) not in _WHOLE:
        main(words)
        _WHOLE[tuple(words)] = files(Path.cwd())
        empty(Path.cwd())
    return _WHOLE[tuple(words)]


def interrupted(words: list[str], epoch: int) -> None:
    """Run until the checkpoints of an epoch are written, but not the state that follows them."""
    save = Resumption._save

    def stop(self, trainer):
        if trainer.current_epoch > epoch:
            raise KeyboardInterrupt
        save(self, trainer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resumption, "_save", stop)
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            main(words)
    assert Path("runs/tokens/version_0/.unfinished").is_file()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_killed_run_ends_with_the_checkpoints_of_one_that_was_not(name, fit_words):
    words = fit_words(SETTINGS[name])
    whole = undisturbed(words)
    interrupted(words, 0)
    interrupted(words, 1)
    main(words)
    found = files(Path.cwd())
    assert found.keys() == whole.keys()
    if name != "steps":  # within an epoch, Lightning's own counts remember whether there was a validation before
        assert found == whole
    assert any(name.endswith(".ckpt") and not name.endswith("last.ckpt") for name in whole)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    place = data.index(b"/data/0") + 100
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [cut, flipped, lambda data: b""], ids=["cut", "flipped", "empty"])
def test_a_damaged_state_of_training_is_not_for_ever(damage, fit_words, caplog):
    words = fit_words()
    whole = undisturbed(words)
    interrupted(words, 1)
    last = Path("runs/tokens/version_0/checkpoints/last.ckpt")
    last.write_bytes(damage(last.read_bytes()))
    main(words)
    assert "the run begins again" in caplog.text
    assert files(Path.cwd()) == whole


@pytest.mark.parametrize("full_from", [1, 2])
def test_a_full_disk_leaves_no_run_that_looks_finished(full_from, fit_words, monkeypatch, capsys):
    """The first file of the first epoch does not fit, or the second."""
    words = fit_words()
    whole = undisturbed(words)
    saved = []

    def save(checkpoint, file, *args, **options):
        saved.append(file)
        if len(saved) >= full_from:
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
        TORCH_SAVE(checkpoint, file, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(SystemExit, match="2"):
            main(words)
    assert "expected room for a checkpoint there" in capsys.readouterr().err
    assert Path("runs/tokens/version_0/.unfinished").is_file()
    assert not list(Path.cwd().rglob("*.partial"))
    main(words)
    assert files(Path.cwd()) == whole


def test_two_runs_do_not_write_into_one_folder(fit_words, capsys):
    words = [*fit_words(), "--trainer.max_epochs", "1"]
    given = [*words, "--trainer.logger.init_args.version", "mine"]
    Path("runs/tokens").mkdir(parents=True)
    with FileLock("runs/tokens/.mine.lock"), FileLock("runs/tokens/.version_0.lock"):
        with pytest.raises(SystemExit, match="2"):
            main(given)
        assert "runs/tokens/mine: another `hyperofa fit` is writing there; wait for it" in capsys.readouterr().err
        assert not Path("runs/tokens/mine").exists()
        main(words)
    assert Path("runs/tokens/version_1/checkpoints/last.ckpt").is_file()
    assert not Path("runs/tokens/version_0").exists()


def test_the_name_of_the_state_is_not_given_to_another(fit_words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(fit_words(MRR | {"filename": "last"}))
    assert "expected another filename of ModelCheckpoint than last" in capsys.readouterr().err


def test_checkpoints_of_another_run_are_not_written_beside(fit_words, capsys):
    """Lightning would write `best-v1.ckpt`, and leave another run's `best.ckpt` to be taken for this one's."""
    words = fit_words()
    main(words)
    before = files(Path.cwd())
    with pytest.raises(SystemExit, match="2"):
        main(words)
    expected = "without checkpoints of another run, found .*elsewhere/best.ckpt; give another one, or remove it"
    assert re.search(expected, capsys.readouterr().err)
    assert files(Path.cwd()) == before
    main(fit_words(SETTINGS["elsewhere"] | {"filename": "{epoch}"}))  # whose names are others
    kept = {path.name for path in Path("elsewhere").iterdir()}
    assert kept == {"best.ckpt", *(name for name in kept if re.fullmatch(r"epoch=\d\.ckpt", name))}
    assert len(kept) == 2


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_without_a_logger_too(fit_words, capsys):
    words = [*fit_words(MRR | {"filename": "best"}), "--trainer.max_epochs", "1", "--trainer.logger", "false"]
    words = [word for word in words if word not in ("--trainer.logger.init_args.save_dir", "runs")]
    main(words)
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "found checkpoints" in capsys.readouterr().err.replace(str(Path.cwd()) + "/", "")
    main([*words, "--ckpt_path", "checkpoints/best.ckpt"])  # of which it is the end


def test_runs_of_a_service_do_not_share_a_folder(fit_words):
    words = [*fit_words(MRR | {"filename": "best"}), "--trainer.max_epochs", "1", "--trust", __name__]
    words = [word for word in words if word not in ("--trainer.logger.init_args.save_dir", "runs")]
    for run in ("one", "two"):
        logger = {"class_path": f"{__name__}.Service", "init_args": {"run": run}}
        main([*words, "--trainer.logger", json.dumps(logger)])
    assert sorted(files(Path.cwd())) == [
        f"here/project/{run}/{name}"
        for run in ("one", "two")
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml")
    ]


def test_a_config_of_the_users_is_not_written_over(fit_words, capsys):
    words = [word for word in fit_words() if word not in ("--trainer.logger.init_args.save_dir", "runs")]
    words += ["--trainer.logger", "false", "--trainer.max_epochs", "1"]
    own = Path("config.yaml")
    own.write_text("# mine\nmodel:\n  learning_rate: 0.01\n", encoding="utf-8")
    for more in ([], ["--config", str(own)]):
        with pytest.raises(SystemExit, match="2"):
            main([*words, *more])
        assert "config.yaml: expected no such file, or the settings of another run" in capsys.readouterr().err
        assert list(files(Path.cwd())) == ["config.yaml"]
        assert own.read_text(encoding="utf-8").startswith("# mine")
    own.unlink()
    main(words)
    shutil.rmtree("elsewhere")
    shutil.rmtree("checkpoints")
    main([*words, "--model.learning_rate", "0.02"])  # over the settings of another run
    assert "learning_rate: 0.02" in own.read_text(encoding="utf-8")
    trained = own.read_bytes()
    (best,) = Path("elsewhere").glob("*.ckpt")
    main(["validate", "--config", str(own), "--ckpt_path", str(best)])  # whose settings are others
    assert own.read_bytes() == trained
    own.write_text(own.read_text(encoding="utf-8").replace("0.02", "0.03"), encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):  # edited since, and read
        main([*words, "--config", str(own), "--model.temperature", "0.2"])
    assert "learning_rate: 0.03" in own.read_text(encoding="utf-8")


def test_a_checkpoint_of_a_run_that_is_not_finished_is_used_with_a_warning(fit_words, bundles, tmp_path, capsys):
    interrupted(fit_words(MRR | {"filename": "best"}), 1)
    best = Path("runs/tokens/version_0/checkpoints/best.ckpt")
    export = ["export", "--bundle", str(bundles["bert8"]), "--method", "hyperofa", "--checkpoint", str(best)]
    with pytest.warns(UserWarning, match=r"best\.ckpt: the run in .*version_0 is not finished"):
        main([*export, "--output", str(tmp_path / "out")])
    assert (tmp_path / "out" / "model.safetensors").is_file()
