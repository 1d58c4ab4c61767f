"""The commands of LightningCLI: train a hypernetwork, and measure one."""

import sys
import traceback
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, cast, get_args

from jsonargparse import ArgumentParser, Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.trainer.connectors import checkpoint_connector

from hyperofa.class_paths import check_classes
from hyperofa.errors import InputError
from hyperofa.export.prediction import CoordinateFile
from hyperofa.export.watching import TokenTable
from hyperofa.flags import Parser, gather_lists
from hyperofa.runtime.folders import whole_file
from hyperofa.runtime.processes import bar_hidden
from hyperofa.training.checkpoints import read_checkpoint
from hyperofa.training.curves import EpochLines
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.divergence import StopDiverged
from hyperofa.training.fit import run_key, train
from hyperofa.training.module import HyperModule
from hyperofa.training.resumption import Resumption, run_dir, warn_if_unfinished
from hyperofa.training.trainers import hush_lightning, refusals_told


class LightningParser(Parser, LightningArgumentParser):
    """Lightning's parser, which says in one line what is wrong."""


class SavedConfig(SaveConfigCallback):
    """Keeps the settings in `config.yaml` of the run's folder, over nothing but the settings of another run."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say where, which all processes must be asked."""
        self._folder = Path(run_dir(trainer) or "")
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it; what measures a net leaves the settings that are there.

        Raises:
            InputError: there is a file of that name that no run wrote, or that this run reads.
        """
        path = self._folder / self.config_filename
        if stage != "fit" and path.is_file():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            self.parser.save(self.config, partial, skip_unset=False, overwrite=True)
            if path.is_file() and not self._may_replace(path, partial.read_bytes()):
                raise InputError(
                    f"{path}: expected no such file, or the settings of another run, found a config of yours; rename "
                    "it, or give another --trainer.default_root_dir or folder of the logger"
                )

    def _may_replace(self, path: Path, settings: bytes) -> bool:
        found = path.read_bytes()
        read = any(path.samefile(each.absolute) for each in self.config.get("config") or [])
        return found == settings or (not read and found.startswith(settings[: settings.index(b"==")]))


def whole_numbers_first(parser: ArgumentParser) -> None:
    """Let flags that take integers and floats read `1` as an integer.

    `typing` keeps a union in the order in which any module first wrote it, and values are read as its first type that
    fits: with some versions of torch `--trainer.limit_train_batches 1` was all of them.

    Args:
        parser: whose flags; changed.
    """
    for action in parser._actions:
        kinds = get_args(getattr(action, "_typehint", None))
        if int in kinds and float in kinds:
            cast(Any, action)._typehint = reduce(or_, sorted(kinds, key=lambda kind: kind is float))


class HyperCLI(LightningCLI):
    """LightningCLI whose module takes its widths from the bundle.

    Attributes:
        best: the checkpoint that `fit` ended with.
    """

    best: str | None = None

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args` without Lightning's warning that there is a command line too; check a checkpoint to load.

        Lightning opens the checkpoint next, and has no words for a user whose file is none.
        """
        self.config = parser.parse_args(args)
        command = self.config.subcommand
        config = self.config[command]
        check_classes(config)
        if config.get("ckpt_path") is not None:
            read_checkpoint(config.ckpt_path, "--ckpt_path", resumable=command == "fit")
            if command != "fit":
                warn_if_unfinished(config.ckpt_path)
        elif command != "fit":
            raise InputError(f"--ckpt_path: expected a checkpoint of `hyperofa fit` to {command}, found none")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the widths; a whole number for a flag that also takes a fraction is a number of batches."""
        whole_numbers_first(parser)
        for width in ("word_dim", "coordinate_dim"):
            parser.link_arguments(f"data.{width}", f"model.{width}", apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer, without a progress bar where none is drawn; what it refuses is the user's mistake."""
        settings = self.config_init[self.config_init.subcommand].trainer
        own = any(isinstance(each, ProgressBar) for each in settings.callbacks or [])
        if settings.enable_progress_bar is None and bar_hidden() and not own:
            kwargs["enable_progress_bar"] = False
        with refusals_told():
            return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run; what fails while a checkpoint is loaded is the checkpoint's fault."""
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            modules = {frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)}
            if isinstance(error, InputError) or checkpoint_connector.__name__ not in modules:
                raise
            path = self.trainer.ckpt_path or self.config_init[subcommand].ckpt_path
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"--ckpt_path {path}: expected a checkpoint of `hyperofa fit` for these settings, "
                f"found one that does not load ({reason})"
            ) from None

    def fit(self, model: HyperModule, datamodule: HyperDataModule, ckpt_path: str | None = None, **others: Any) -> None:
        """Train in place of `Trainer.fit`; say which checkpoint to go on with.

        Args:
            model: what is trained.
            datamodule: what it is trained on.
            ckpt_path: to begin from, if no run of the same settings and input was killed.
            others: of `Trainer.fit`.
        """
        settings = self._parser("fit").dump(self.config["fit"], skip_unset=False)
        key = run_key(settings, datamodule, *([] if ckpt_path is None else [ckpt_path]))
        self.best = train(self.trainer, model, datamodule, key, ckpt_path, **others)
        if self.best and self.trainer.is_global_zero:
            sys.stdout.write(f"best checkpoint: {self.best}\n")


class _Parsed(Exception):
    """A command line was parsed, and no more is wanted."""


class _ParsingCLI(HyperCLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        raise _Parsed(self.config[self.config.subcommand])


def parse(words: list[str]) -> Namespace:
    """Parse a command line as `run` does, and stop there.

    Args:
        words: the command and its flags.

    Returns:
        The command's settings.

    Raises:
        InputError: flags that the command does not have or take.
    """
    try:
        run(words, _ParsingCLI)
    except _Parsed as known:
        return cast(Namespace, known.args[0])
    raise AssertionError("a command line was not parsed")


def _of_one_command(command: str, command_line: type[HyperCLI]) -> type[HyperCLI]:
    """The same without the other commands' parsers, which take half of the time that parsing takes."""
    skipped = command_line.subcommands()[command]
    return type(command_line.__name__, (command_line,), {"subcommands": staticmethod(lambda: {command: skipped})})


def run(words: list[str], command_line: type[HyperCLI] = HyperCLI) -> str | None:
    """Run one of the commands.

    Args:
        words: the command and its flags.
        command_line: what parses them.

    Returns:
        The checkpoint that `fit` chose.

    Raises:
        InputError: a mistake of the user.
    """
    hush_lightning()
    done = _of_one_command(words[0], command_line)(
        HyperModule,
        HyperDataModule,
        args=gather_lists(words, {"data.": HyperDataModule, "model.": HyperModule}),
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_callback=SavedConfig,
        save_config_kwargs={"save_to_log_dir": False},
        # Lightning's own sampler would undo the grouping of batches by size; ours shares them out among processes.
        trainer_defaults={
            "use_distributed_sampler": False,
            "callbacks": [CoordinateFile(), StopDiverged(), Resumption(), EpochLines(), TokenTable()],
        },
        parser_class=LightningParser,
        parser_kwargs={"prog": "hyperofa", "allow_abbrev": False},
    )
    return done.best
