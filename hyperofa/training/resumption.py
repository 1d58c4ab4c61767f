"""A run of `hyperofa fit` that was killed: what it leaves, how the next one finds it and goes on."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from hyperofa.errors import InputError
from hyperofa.runtime.processes import is_first_process

_MARK = ".unfinished"
_LAST = "last.ckpt"


class Resumption(Callback):
    """Keeps the state of training in `checkpoints/last.ckpt` of a run's folder, after every epoch and at the end.

    Unlike a checkpoint that `ModelCheckpoint` takes, it is of the moment when all of an epoch is done, schedules and
    log included; it holds the log so far, and no path. What goes on from it does what it would have done without a
    break, to the byte.
    """

    def __init__(self) -> None:
        self._first_epoch = 0
        self._saving = self._finished = self._found = False
        self._mark: Path | None = None
        self._held: FileLock | None = None

    def begin(self, logger: CSVLogger, key: str) -> str | None:
        """Take the folder of a killed run, if there is one, else a new one.

        Args:
            logger: of a run that is about to begin; it will write there.
            key: of all that decides the run. One that was killed is gone on with if it has the same.

        Returns:
            The checkpoint to go on from, `None` if there is none yet.

        Raises:
            InputError: the logger's folder is given, and holds another run.
        """
        for kind in ("Experiment logs", "Checkpoint"):  # it holds the mark, or what there is to go on from
            warnings.filterwarnings("ignore", f"{kind} directory .* exists and is not empty")
        version = logger._version
        for folder in sorted(Path(logger.root_dir).glob("version_*")) if version is None else [Path(logger.log_dir)]:
            mark = folder / _MARK
            if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
                continue
            if is_first_process() and not self._lock(mark):  # a job's other processes go where the first one is
                continue
            if version is None:
                logger._version = folder.name  # as if it had been given
            rank_zero_info(f"Going on with {folder}, which was not finished.")
            self._found = (folder / "checkpoints" / _LAST).is_file()
            if self._found:
                return os.path.join(logger.log_dir, "checkpoints", _LAST)
            for left in folder.glob("checkpoints/*.ckpt") if is_first_process() else ():
                left.unlink()
            return None
        if is_first_process():
            self._make(Path(logger.log_dir), key)
        return None

    def _make(self, folder: Path, key: str) -> None:
        """Make the folder of a run; it is never seen without its mark."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not self._lock(folder / _MARK):
            raise InputError(
                f"{folder}: another `hyperofa fit` is writing there; wait for it, or give another "
                "--trainer.logger.init_args.version"
            )
        if any(folder.glob("checkpoints/*.ckpt")):
            self._let_go()
            raise InputError(
                f"{folder}: expected a new folder, or that of a killed run with the same settings, found another run; "
                "give another --trainer.logger.init_args.version, or remove it"
            )
        partial = folder if folder.is_dir() else folder.with_name(f".{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        (partial / _MARK).write_text(key, encoding="utf-8")
        if partial != folder:
            partial.rename(folder)

    def _lock(self, mark: Path) -> bool:
        """Whether no other process had the run; it is this one's until it ends."""
        held = FileLock(mark.parent.with_name(f".{mark.parent.name}.lock"))
        try:
            held.acquire(timeout=0)
        except Timeout:
            return False
        self._mark, self._held = mark, held
        return True

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.release()
        self._mark = self._held = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written whole or not at all."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch as any other: Lightning would take up the last one's end again."""
        if self._first_epoch:
            trainer.fit_loop.restarting = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state between two epochs."""
        if trainer.current_epoch > self._first_epoch:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state after the last one."""
        self._finished = True
        self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the mark away when all is done."""
        if self._mark is not None:
            self._mark.unlink()
            self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the run to another process, and nothing of one that could not begin."""
        if self._mark is None:
            return
        folder = self._mark.parent
        if isinstance(exception, Exception) and not (folder / "checkpoints" / _LAST).exists():
            (folder / _MARK).unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
        self._let_go()

    def _save(self, trainer: Trainer) -> None:
        if trainer.log_dir is None or not trainer.checkpoint_callbacks or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()
        self._saving = True
        trainer.save_checkpoint(os.path.join(trainer.log_dir, "checkpoints", _LAST), weights_only=False)
        self._saving = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the log, take paths out, and count the epoch that is about to begin as not begun."""
        if not self._saving:
            return
        metrics = Path(trainer.log_dir or "", "metrics.csv")
        log = metrics.read_bytes().decode() if metrics.is_file() else ""
        checkpoint["callbacks"] = {name: _moved(s, trainer.log_dir, ".") for name, s in checkpoint["callbacks"].items()}
        checkpoint["callbacks"][self.state_key] = {"log": log, "finished": self._finished}
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for count in progress.values():
            count["ready"] = count["started"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the log and the paths back."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is None or trainer.state.fn != TrainerFn.FITTING:
            return
        folder = os.path.dirname(os.path.dirname(os.fspath(trainer.ckpt_path)))  # type: ignore[arg-type]
        log_dir = trainer.log_dir
        if log_dir is not None and os.path.exists(log_dir) and os.path.samefile(folder or ".", log_dir):
            folder = log_dir
        checkpoint["callbacks"] = {name: _moved(s, ".", folder) for name, s in checkpoint["callbacks"].items()}
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):  # which leaves this one out
                callback.current_score = checkpoint["callbacks"].get(callback.state_key, {}).get("current_score")
        self._first_epoch = checkpoint["epoch"]
        if self._found and state["finished"]:
            trainer.should_stop = True  # killed while it was drawing its curves
        if trainer.is_global_zero:
            for logger in _logs(trainer):
                Path(logger.experiment.metrics_file_path).write_bytes(state["log"].encode())
                logger.experiment.metrics_keys = state["log"].partition("\r\n")[0].split(",")


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: a kill leaves the old file or the new one.

    Equal content gives equal bytes, whatever objects of it are the same one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save, in one step where `path` is on this machine; other file systems have steps of their own."""
        here = "://" not in str(path)
        target = f"{path}.partial" if here else path
        super().save_checkpoint(_canonical(checkpoint), target, storage_options)
        if here:
            os.replace(target, path)


def _canonical(value: Any) -> Any:
    """A copy that shares nothing but equal strings, which pickle writes once."""
    if isinstance(value, dict):
        return {_canonical(name): _canonical(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_canonical(each) for each in value)
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return sys.intern(value) if type(value) is str else value


def _logs(trainer: Trainer) -> list[CSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]


def _moved(state: Any, old: str | None, new: str) -> Any:
    """A callback's state with the paths below one folder put below another."""
    if isinstance(state, dict):
        return {_moved(name, old, new): _moved(value, old, new) for name, value in state.items()}
    if isinstance(state, str) and old is not None and state.startswith(old + os.sep):
        return new + state[len(old) :]
    return state
