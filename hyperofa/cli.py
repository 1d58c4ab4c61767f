"""The command line: own commands are typed functions, training commands are Lightning's."""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_origin

from jsonargparse import auto_cli
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from hyperofa.datamodule import HyperDataModule
from hyperofa.demo import demo
from hyperofa.errors import InputError
from hyperofa.evaluation import evaluate
from hyperofa.export import export
from hyperofa.module import HyperModule
from hyperofa.prepare import prepare

COMMANDS: dict[str, Any] = {"demo": demo, "prepare": prepare, "export": export, "evaluate": evaluate}
LIGHTNING_COMMANDS = ("fit", "validate", "test", "predict")


class HyperCLI(LightningCLI):
    """LightningCLI whose module takes its widths from the bundle."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the widths."""
        for width in ("word_dim", "coordinate_dim"):
            parser.link_arguments(f"data.{width}", f"model.{width}", apply_on="instantiate")


def main(args: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        args: command and flags; those of the process if not given.

    A mistake of the user ends with its message on standard error and exit code 2.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        if words and words[0] in LIGHTNING_COMMANDS:
            _run_lightning(words)
        else:
            result = _run_own(words)
            if result is not None:
                sys.stdout.write(f"{result.summary() if hasattr(result, 'summary') else result}\n")
    except InputError as error:
        sys.stderr.write(f"hyperofa: {error}\n")
        sys.exit(2)


def _run_own(words: list[str]) -> Any:
    command = COMMANDS.get(words[0]) if words else None
    if command is not None:
        words = _appending(command, words)
    return auto_cli(dict(COMMANDS), args=words, prog="hyperofa", as_positional=False)


def _run_lightning(words: list[str]) -> None:
    HyperCLI(
        HyperModule,
        HyperDataModule,
        args=words,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        save_config_kwargs={"overwrite": True},
        # Lightning's own sampler would undo the grouping of batches by size; ours shares them out among processes.
        trainer_defaults={"use_distributed_sampler": False},
        parser_kwargs={"prog": "hyperofa"},
    )


def _appending(command: Callable[..., Any], words: list[str]) -> list[str]:
    """Let a flag of list type be given once for each item: `--vectors A --vectors B`."""
    lists = {
        f"--{name}"
        for name, parameter in inspect.signature(command).parameters.items()
        if get_origin(parameter.annotation) is list or "list[" in str(parameter.annotation)
    }
    return [f"{word}+" if word in lists else word for word in words]
