"""The command line: own commands are typed functions, training commands are Lightning's."""

import inspect
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from jsonargparse import auto_cli
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from hyperofa.bundle.prepare import prepare
from hyperofa.class_paths import check_classes, restrict_class_paths
from hyperofa.demo.demo import demo
from hyperofa.errors import InputError
from hyperofa.evaluation.retrieval import evaluate
from hyperofa.experiments.ablate import ablate
from hyperofa.experiments.hewitt import hewitt
from hyperofa.export.export import export
from hyperofa.export.prediction import CoordinateFile, read_checkpoint
from hyperofa.flags import LightningParser, Parser, gather_lists
from hyperofa.models.expand import expand
from hyperofa.models.manifest import verify
from hyperofa.models.trim import trim
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.runtime.folders import fingerprint, sha256_text
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.module import HyperModule
from hyperofa.training.resumption import Resumption, is_first_process

COMMANDS: dict[str, Any] = {
    "demo": demo,
    "prepare": prepare,
    "export": export,
    "expand": expand,
    "trim": trim,
    "verify": verify,
    "evaluate": evaluate,
    "pretrain": pretrain,
    "hewitt": hewitt,
    "ablate": ablate,
}
LIGHTNING_COMMANDS = {
    "fit": "Train a hypernetwork on a bundle; takes all that Lightning's Trainer takes.",
    "validate": "Measure a checkpoint on the held-out tokens and sentences.",
    "test": "Measure a checkpoint on the test tokens.",
    "predict": "Write the coordinates that a checkpoint predicts for the target tokens.",
}
_FIRST_FLAGS = {"verify": "--model"}  # of commands that take a word without one
_TRUST = "--trust MODULE with any command: import it, and let settings name the classes in it."
_CHECKPOINT_NAMES = ("best", "last", "hpc")  # that the Trainer looks up itself


class HyperCLI(LightningCLI):
    """LightningCLI whose module takes its widths from the bundle."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args` without Lightning's warning that there is a command line too; check a checkpoint to load.

        Lightning opens the checkpoint next, and has no words for a user whose file is none.
        """
        self.config = parser.parse_args(args)
        check_classes(self.config[self.config.subcommand])
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path not in (None, *_CHECKPOINT_NAMES):
            checkpoint = read_checkpoint(path, "--ckpt_path")
            if self.config.subcommand == "fit" and "optimizer_states" not in checkpoint:
                raise InputError(
                    f"--ckpt_path {path}: expected a checkpoint that training can go on from, found the net "
                    "alone; give last.ckpt"
                )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the widths."""
        for width in ("word_dim", "coordinate_dim"):
            parser.link_arguments(f"data.{width}", f"model.{width}", apply_on="instantiate")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the Trainer; what it refuses is the user's mistake."""
        try:
            return super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError) as error:
            raise InputError(f"--trainer: {error}") from None

    def before_fit(self) -> None:
        """Go on with a run of the same settings and input that was killed, unless a checkpoint is given."""
        config, data, logger = self.config["fit"], self.datamodule, self.trainer.logger
        if config.ckpt_path is None and isinstance(logger, CSVLogger):
            resumption = next(each for each in self.trainer.callbacks if isinstance(each, Resumption))  # type: ignore[attr-defined]
            settings = self._parser("fit").dump(config, skip_none=False)
            key = sha256_text(settings, fingerprint(*data.files))
            self.config_init["fit"].ckpt_path = resumption.begin(logger, key)

    def after_fit(self) -> None:
        """Say which checkpoint to go on with."""
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if best and self.trainer.is_global_zero:
            sys.stdout.write(f"best checkpoint: {best}\n")


def main(args: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        args: command and flags; those of the process if not given.

    A mistake of the user ends with its message on standard error and exit code 2.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        (sys.stdout if words else sys.stderr).write(_overview())
        sys.exit(0 if words else 2)
    try:
        words = restrict_class_paths(words)
        if words[0] in LIGHTNING_COMMANDS:
            _run_lightning(words)
        else:
            result = _run_own(words)
            if result is not None and is_first_process():
                sys.stdout.write(f"{result.summary() if hasattr(result, 'summary') else result}\n")
                if getattr(result, "intact", True) is False:
                    sys.exit(1)
    except (InputError, MisconfigurationException) as error:
        sys.stderr.write(f"hyperofa: {' '.join(str(error).split())}\n")
        sys.exit(2)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("💡")


def _overview() -> str:
    """What `hyperofa --help` says."""
    own = {name: (inspect.getdoc(command) or "").partition("\n")[0] for name, command in COMMANDS.items()}
    commands = {**own, **LIGHTNING_COMMANDS}
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in commands.items()]
    return "\n".join(
        ["usage: hyperofa COMMAND [--config FILE] [FLAGS]; hyperofa COMMAND --help", "", *lines, "", _TRUST, ""]
    )


def _run_own(words: list[str]) -> Any:
    if words[0] not in COMMANDS:
        raise InputError(
            f"expected one of the commands {', '.join([*COMMANDS, *LIGHTNING_COMMANDS])}, found {words[0]!r}"
        )
    if words[0] in _FIRST_FLAGS and len(words) > 1 and not words[1].startswith("-"):
        words = [words[0], _FIRST_FLAGS[words[0]], *words[1:]]
    words = gather_lists(words, {"": COMMANDS[words[0]]})
    return auto_cli(
        dict(COMMANDS), args=words, parser_class=Parser, prog="hyperofa", as_positional=False, allow_abbrev=False
    )


def _run_lightning(words: list[str]) -> None:
    for category in (DeprecationWarning, FutureWarning):  # Lightning's own, which a user can do nothing about
        warnings.filterwarnings("ignore", category=category, module=r"lightning\.")
    logging.getLogger(rank_zero.__name__).addFilter(_is_no_advertisement)
    HyperCLI(
        HyperModule,
        HyperDataModule,
        args=gather_lists(words, {"data.": HyperDataModule, "model.": HyperModule}),
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        # Lightning's own sampler would undo the grouping of batches by size; ours shares them out among processes.
        trainer_defaults={"use_distributed_sampler": False, "callbacks": [CoordinateFile(), Resumption()]},
        parser_class=LightningParser,
        parser_kwargs={"prog": "hyperofa", "allow_abbrev": False},
    )
