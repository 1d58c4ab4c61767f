"""A run of `hyperofa fit` that was killed: what it leaves, how the next one finds it and goes on."""

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from hyperofa.errors import InputError
from hyperofa.runtime.folders import remove_partials
from hyperofa.runtime.processes import is_first_process
from hyperofa.training.checkpoints import partial_of, read_checkpoint, write_whole

MARK = ".unfinished"
"""In a run's folder until it ends: the key of the run, then each checkpoint that it wrote, one a line."""
_LAST = "last.ckpt"


class Resumption(Callback):
    """Keeps the state of training in `checkpoints/last.ckpt` of a run's folder, after every epoch and at the end.

    Unlike a checkpoint that `ModelCheckpoint` takes, it is of the moment when all of an epoch is done, schedules and
    log included; it holds the log so far, and no path. What goes on from it does what it would have done without a
    break, to the byte: checkpoints that were written after it are removed first, wherever they are.
    """

    def __init__(self) -> None:
        self._first_epoch = 0
        self._saving = self._finished = self._found = False
        self._folder: Path | None = None
        self._lock: FileLock | None = None
        self._parents: list[Path] = []
        self._written: list[str] = []

    def begin(self, logger: CSVLogger, key: str) -> str | None:
        """Take the folder of a killed run, if there is one, else a new one.

        Args:
            logger: of a run that is about to begin; it will write there.
            key: of all that decides the run. One that was killed is gone on with if it has the same.

        Returns:
            The checkpoint to go on from, `None` if there is none yet.

        Raises:
            InputError: the logger's folder is given, and holds another run, or one that goes on at this moment.
        """
        for kind in ("Experiment logs", "Checkpoint"):  # it holds the mark, or what there is to go on from
            warnings.filterwarnings("ignore", f"{kind} directory .* exists and is not empty")
        version = logger._version
        for folder in sorted(Path(logger.root_dir).glob("version_*")) if version is None else [Path(logger.log_dir)]:
            if _key(folder) != key:
                continue
            if is_first_process() and not self._take(folder):  # a job's other processes go where the first one is
                continue
            if version is None:
                logger._version = folder.name  # as if it had been given
            rank_zero_info(f"Going on with {folder}, which was not finished.")
            return self._go_on(folder, logger.log_dir)
        if is_first_process():
            while not self._take(Path(logger.log_dir)) or (version is None and os.path.lexists(logger.log_dir)):
                if version is not None:
                    raise InputError(
                        f"{logger.log_dir}: another `hyperofa fit` is writing there; wait for it, or give another "
                        "--trainer.logger.init_args.version"
                    )
                self._let_go()
                logger._version = int(logger.version) + 1  # another run has just begun there
            self._make(Path(logger.log_dir), key)
        return None

    def _go_on(self, folder: Path, log_dir: str) -> str | None:
        """Remove what was written after the last state of training; the path of this state, if it is there."""
        last = folder / "checkpoints" / _LAST
        known: set[str] = set()
        if last.is_file():
            try:
                callbacks = read_checkpoint(last, "--ckpt_path", resumable=True)["callbacks"]
                self._found = self.state_key in callbacks
                known = set(callbacks[self.state_key].get("written", [])) if self._found else known
            except InputError as error:
                rank_zero_info(f"{error.with_flags}; the run begins again.")
        if is_first_process():
            remove_partials(folder)
            for name in _written(folder):
                if name not in known:
                    (folder / name).unlink(missing_ok=True)
                partial_of(folder / name).unlink(missing_ok=True)
        return os.path.join(log_dir, "checkpoints", _LAST) if self._found else None

    def _make(self, folder: Path, key: str) -> None:
        """Make the folder of a run; it is never seen without its mark."""
        if any(folder.glob("checkpoints/*.ckpt")):
            self._let_go()
            raise InputError(
                f"{folder}: expected a new folder, or that of a killed run with the same settings, found another run; "
                "give another --trainer.logger.init_args.version, or remove it"
            )
        partial = folder if folder.is_dir() else folder.with_name(f".{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        (partial / MARK).write_text(key + "\n", encoding="utf-8")
        if partial != folder:
            partial.rename(folder)

    def _take(self, folder: Path) -> bool:
        """Whether no other process has the run; it is this one's until it ends."""
        self._parents += [parent for parent in folder.parents if not parent.exists()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._folder, self._lock = folder, lock
        return True

    def _let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._folder = self._lock = None

    def _note(self, path: str) -> None:
        """Keep in mind that a checkpoint is about to be written, for whoever goes on with the run."""
        if self._saving or self._folder is None:
            return
        place, inside = Path(path).resolve(), self._folder.resolve()
        name = os.fspath(place.relative_to(inside) if place.is_relative_to(inside) else place)
        if name not in self._written:
            self._written.append(name)
            with (self._folder / MARK).open("a", encoding="utf-8") as file:
                file.write(json.dumps(name) + "\n")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written whole or not at all."""
        write_whole(trainer, self._note)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the name `last.ckpt` in the run's folder for the state of training, and the other names for one run."""
        own = os.path.realpath(os.path.join(run_dir(trainer) or "", "checkpoints"))
        written = {(self._folder or Path()) / name for name in self._written}
        for callback in (each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)):
            if os.path.realpath(callback.dirpath or "") == own:
                callback.save_last = None  # this one does, later in the epoch
                if callback.filename == Path(_LAST).stem:
                    raise InputError(
                        "--trainer.callbacks: expected another filename of ModelCheckpoint than last, which the state "
                        "of training has"
                    )
            if other := _of_another_run(callback, written):
                raise InputError(
                    f"--trainer.callbacks: expected a dirpath of ModelCheckpoint without checkpoints of another run, "
                    f"found {other}; give another one, or remove it"
                )

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
        if self._folder is not None:
            (self._folder / MARK).unlink()
            self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the run to another process, and nothing of one that could not begin."""
        begun = self._folder is None or _written(self._folder) or (self._folder / "checkpoints" / _LAST).exists()
        if self._folder is not None and isinstance(exception, Exception) and not begun:
            (self._folder / MARK).unlink()
            if {path.name for path in self._folder.iterdir()} <= {"config.yaml"}:
                (self._folder / "config.yaml").unlink(missing_ok=True)
                self._folder.rmdir()
                if self._parents:  # nobody waits for the lock in a folder that this process has just made
                    self._folder.with_name(f".{self._folder.name}.lock").unlink(missing_ok=True)
                for parent in self._parents:
                    if not any(parent.iterdir()):
                        parent.rmdir()
        self._let_go()

    def _save(self, trainer: Trainer) -> None:
        folder = run_dir(trainer)
        if folder is None or not trainer.checkpoint_callbacks or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()
        self._saving = True
        trainer.save_checkpoint(os.path.join(folder, "checkpoints", _LAST), weights_only=False)
        self._saving = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the log, take paths out, and count the epoch that is about to begin as not begun."""
        if not self._saving:
            return
        metrics = Path(trainer.log_dir or "", "metrics.csv")
        log = metrics.read_bytes().decode() if metrics.is_file() else ""
        folder = run_dir(trainer)
        checkpoint["callbacks"] = {name: _moved(s, folder, ".") for name, s in checkpoint["callbacks"].items()}
        state = {"log": log, "finished": self._finished, "written": self._written}
        checkpoint["callbacks"][self.state_key] = state
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for count in progress.values():
            count["ready"] = count["started"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the log and the paths back."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state is None or trainer.state.fn != TrainerFn.FITTING:
            return
        folder = os.path.dirname(os.path.dirname(os.fspath(trainer.ckpt_path)))  # type: ignore[arg-type]
        own = run_dir(trainer)
        if own is not None and os.path.exists(own) and os.path.samefile(folder or ".", own):
            folder = own
        checkpoint["callbacks"] = {name: _moved(s, ".", folder) for name, s in checkpoint["callbacks"].items()}
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):  # which leaves this one out
                callback.current_score = checkpoint["callbacks"].get(callback.state_key, {}).get("current_score")
        self._first_epoch = checkpoint["epoch"]
        if self._found:
            self._written = list(state.get("written", []))
            trainer.should_stop |= state["finished"]  # killed while it was drawing its curves
        if trainer.is_global_zero:
            for logger in _logs(trainer):
                Path(logger.experiment.metrics_file_path).write_bytes(state["log"].encode())
                logger.experiment.metrics_keys = state["log"].partition("\r\n")[0].split(",")


def run_dir(trainer: Trainer) -> str | None:
    """The folder of a run, in which `ModelCheckpoint` makes `checkpoints`; called by all processes.

    It is the trainer's `log_dir`, but where a logger of a service (Weights & Biases) has one `log_dir` for all runs.
    """
    logger = trainer.logger
    if logger is None or isinstance(logger, (CSVLogger, TensorBoardLogger)):
        return trainer.log_dir
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    folder = os.path.join(logger.save_dir or trainer.default_root_dir, str(logger.name), version)
    return trainer.strategy.broadcast(folder)


def _logs(trainer: Trainer) -> list[CSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]


def _of_another_run(callback: ModelCheckpoint, written: set[Path]) -> Path | None:
    """A file that has a name of this run's checkpoints: Lightning would give these another one, and leave the old one.

    Args:
        callback: set up, and told what the run that it goes on with has kept.
        written: further checkpoints of that run.
    """
    kept = {callback.best_model_path, callback.last_model_path, *callback.best_k_models}
    own = {path.resolve() for path in (*written, *map(Path, filter(None, kept)))}
    named = "{}=" if callback.auto_insert_metric_name else ""
    parts = re.split(r"\{([^}:]*)[^}]*\}", callback.filename or "{epoch}-{step}")
    pattern = "".join(
        f"{re.escape(named.format(part))}.*" if number % 2 else re.escape(part) for number, part in enumerate(parts)
    )
    names = [pattern, *([re.escape(callback.CHECKPOINT_NAME_LAST)] if callback.save_last else [])]
    folder = Path(callback.dirpath or "")
    for path in sorted(folder.rglob(f"*{callback.FILE_EXTENSION}")):
        name = path.relative_to(folder).as_posix().removesuffix(callback.FILE_EXTENSION)
        if path.resolve() not in own and any(re.fullmatch(each, name) for each in names):
            return path
    return None


def _moved(state: Any, old: str | None, new: str) -> Any:
    """A callback's state with the paths below one folder put below another."""
    if isinstance(state, dict):
        return {_moved(name, old, new): _moved(value, old, new) for name, value in state.items()}
    below = None if old is None else os.path.join(old, "")  # a folder's name may end with a slash
    if isinstance(state, str) and below is not None and state.startswith(below):
        return os.path.join(new, state.removeprefix(below))
    return state


def warn_if_unfinished(checkpoint: str | Path) -> None:
    """Warn when a checkpoint is of a run that has not come to its end."""
    run = Path(checkpoint).absolute().parent.parent
    if is_unfinished(run):
        warnings.warn(
            f"{checkpoint}: the run in {run} is not finished, so a later epoch may do better; give the same `hyperofa "
            "fit` again to go on with it",
            stacklevel=2,
        )


def is_unfinished(folder: Path) -> bool:
    """Whether the run in a folder has not come to its end."""
    return (folder / MARK).is_file()


def _key(folder: Path) -> str | None:
    """The key of the unfinished run in a folder, `None` if there is none."""
    mark = folder / MARK
    return mark.read_text(encoding="utf-8").partition("\n")[0] if is_unfinished(folder) else None


def _written(folder: Path) -> list[str]:
    """The checkpoints that the unfinished run in a folder has begun to write, below the folder or with all of a path.

    Some were removed since; what other runs had written before is not among them.
    """
    lines = (folder / MARK).read_text(encoding="utf-8").split("\n")[1:-1]  # the last one may be cut
    return [json.loads(line) for line in lines]
