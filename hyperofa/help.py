"""What `hyperofa COMMAND --help` says: what it does, an example, and its flags in plain words.

All of it is read from the signatures and docstrings of what the command calls; of Lightning's Trainer, which takes a
minute to list, the flags that one needs most.
"""

import ast
import inspect
import json
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hyperofa import nets, vectors
from hyperofa.signatures import read_calls, read_signature

EXAMPLES = {
    "demo": "hyperofa demo --output data/demo",
    "doctor": "hyperofa doctor --source_model bert-base-uncased --target_tokenizer TOKENIZER --source_languages eng "
    "--vectors eng=wiki.en.vec deu=wiki.de.vec --text english.txt deu=german.txt --picture rows.svg",
    "prepare": "hyperofa prepare --source_model bert-base-uncased --target_tokenizer TOKENIZER "
    "--vectors eng=wiki.en.vec deu=wiki.de.vec --source_languages eng --output data/bundle",
    "fit": "hyperofa fit --config fit --data.bundle data/bundle --data.text english.txt",
    "validate": "hyperofa validate --config fit --data.bundle data/bundle --data.text text.txt --ckpt_path best.ckpt",
    "test": "hyperofa test --config fit --data.bundle data/bundle --data.streams tokens --ckpt_path best.ckpt",
    "predict": "hyperofa predict --config fit --data.bundle data/bundle --data.streams tokens --ckpt_path best.ckpt",
    "export": "hyperofa export --bundle data/bundle --method hyperofa --checkpoint best.ckpt --output data/model",
    "expand": "hyperofa expand --source_model gpt2 --text german.txt --count 1000 --output data/expanded",
    "trim": "hyperofa trim --source_model data/model --text german.txt english.txt --output data/trimmed",
    "verify": "hyperofa verify data/model",
    "evaluate": "hyperofa evaluate --model data/model --source_model bert-base-uncased --data DATA --languages deu fra",
    "pretrain": "hyperofa pretrain --model data/model --text german.txt --training.steps 2000 --output data/trained",
    "distill": "hyperofa distill --model data/model --source_model all-MiniLM-L6-v2 --parallel deu=pairs.tsv "
    "--output data/distilled",
    "hewitt": "hyperofa hewitt --config hewitt --text german.txt --vectors deu=wiki.de.vec --output data/hewitt",
    "ablate": "hyperofa ablate --config ablate --output data/ablation",
    "config": "hyperofa config show fit",
    "completion": "hyperofa completion bash",
    "vectors train": "hyperofa vectors train --text eng=eng.tsv deu=deu.tsv --output data/words",
    "vectors align": "hyperofa vectors align --vectors deu=data/own --into data/words --parallel eng=pairs.tsv "
    "--output data/german",
    "vectors info": "hyperofa vectors info --vectors data/words --tokenizer TOKENIZER",
    "vectors convert": "hyperofa vectors convert --vectors wiki.de.vec --output german.vec",
    "vectors merge": "hyperofa vectors merge --vectors eng=wiki.en.vec deu=wiki.de.vec --output data/words",
}
"""A command line of each command."""

_DATA, _MODEL = "hyperofa.training.datamodule:HyperDataModule", "hyperofa.training.module:HyperModule"
NETS = {name: f"hyperofa.nets.{module}:{name}" for name, module in nets.NETS.items()}
"""Nets of this package, and where they are; the default first."""

_WIDTHS = ("word_dim", "coordinate_dim")  # no flags: the bundle has them
_SHORT = {
    "data": ("bundle", "text", "text_languages", "translated_languages", "parallel", "views.parallel", "streams",
             "judges", "steps", "copied", "num_workers", "word_table"),
    "model": ("learning_rate", "precision", "gradient_checkpointing", "compile"),
}  # fmt: skip
TRAINER = {
    "max_epochs": ("N", "epochs of --data.steps batches each."),
    "devices": ("N", "processes on this machine, one a GPU."),
    "num_nodes": ("N", "machines; `hyperofa config show cluster.sbatch` is a job for SLURM."),
    "strategy": ("TEXT", "how they work together, such as ddp."),
    "accelerator": ("TEXT", "cpu, gpu or auto."),
    "precision": ("TEXT", "of the net, such as bf16-mixed; that of the source model is --model.precision."),
    "callbacks": ("CLASS", "Lightning's, or your own with --trust."),
    "logger": ("CLASS", "where the metrics go, such as TensorBoardLogger."),
    "enable_progress_bar": ("true|false", "whether there is one."),
}
"""Flags of Lightning's Trainer that a run needs most."""

_WORDS = ("source_languages", "target_languages", "max_words", "duplicate_words", "vectors_dtype", "allow_pickle")
SUBJECTS: dict[str, dict[str, tuple[str, ...]]] = {
    "doctor": {"words": _WORDS, "what it looks at": ("text", "method", "coordinate_dim", "measure", "seed", "picture")},
    "prepare": {
        "words": _WORDS,
        "training": ("coordinate_dim", "validation_share", "test_share", "seed", "reference"),
        "folder": ("overwrite", "push_to_hub"),
    },
    "export": {
        "rows": ("checkpoint", "copied", "ofa_share", "least_confidence", "parallel", "seed"),
        "folder": ("source_model", "factorised", "pad_to_multiple_of", "text", "scores", "overwrite", "push_to_hub"),
    },
    "distill": {
        "what is held out": ("validation_parallel", "validation_pairs"),
        "run": ("baseline", "new_rows", "resume", "overwrite"),
    },
    "hewitt": {
        "comparison": ("methods", "checkpoint", "epochs", "words", "count", "validation_lines", "max_words"),
        "folder": ("keep_models", "overwrite"),
    },
    "ablate": {
        "cells": ("prepare", "fit", "export", "evaluate", "pretrain", "methods", "grid", "version"),
        "report": ("baseline", "metric", "title"),
        "where and how": ("gpus", "jobs", "slurm", "cell", "keep_models", "print_commands"),
    },
    "vectors train": {
        "words": ("min_count", "max_words", "prefixes"),
        "space": ("aligned", "into", "method", "dim", "epochs", "shortest_ngram", "longest_ngram", "buckets", "seed"),
        "folder": ("overwrite", "allow_pickle"),
    },
    "vectors align": {
        "pairs": ("dictionary", "parallel", "identical", "languages", "held_out", "frequent_words"),
        "rotation": ("method", "rounds", "seed"),
        "files": ("prefixes", "allow_pickle", "overwrite"),
    },
}  # fmt: skip
"""Flags of the commands that have many, by heading; the others come first."""

_VALUES = {bool: "true|false", int: "N", float: "X", str: "TEXT", PathLike: "TEXT", Path: "PATH", dict: "{KEY: VALUE}"}
_LISTED = "`methods.registry.METHODS`"  # which are listed below the flags
_INDENT = 34
_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


@dataclass(frozen=True)
class Flag:
    """A flag as help shows it.

    Attributes:
        name: without dashes.
        value: what stands after it.
        about: what it does.
        default: empty where there is none, or where `about` says what happens then.
        required: whether there must be one.
    """

    name: str
    value: str
    about: str
    default: str = ""
    required: bool = False


_EVERY_COMMAND = (
    Flag("config", "FILE", "settings from a YAML file or a preset (`hyperofa config list`); flags win over them."),
    Flag("print_config", "", "print all settings as such a file, and run nothing."),
    Flag("trust", "MODULE", "import it, and let settings name the classes in it."),
    Flag("trust_remote_code", "true", "run the code that models and tokenizers bring along; read it first."),
)


def overview(subjects: Mapping[str, Mapping[str, str]]) -> str:
    """What `hyperofa --help` says.

    Args:
        subjects: by heading, what each command does, by name.
    """
    width = max(len(name) for commands in subjects.values() for name in commands)
    lines = []
    for heading, commands in subjects.items():
        lines += ["", f"{heading}:", *(f"  {name:<{width}}  {summary}" for name, summary in commands.items())]
    usage = "usage: hyperofa COMMAND [--config FILE] [FLAGS]; hyperofa COMMAND --help"
    return "\n".join([usage, *lines, *_group("with any command", _EVERY_COMMAND), ""])


def command_help(name: str, command: str) -> str:
    """Help on a command of our own.

    Args:
        name: of the command.
        command: `module:function`.
    """
    function, flags = read_signature(command), flags_of(command)
    subjects = SUBJECTS.get(name, {})
    headed = {flag for subject in subjects.values() for flag in subject}
    alone = {flag.name: flag for flag in flags if "." not in flag.name}
    groups = {"": sorted((alone[flag] for flag in alone if flag not in headed), key=lambda flag: not flag.required)}
    groups |= {heading: [alone[flag] for flag in subject] for heading, subject in subjects.items()}
    for group in dict.fromkeys(flag.name.partition(".")[0] for flag in flags if "." in flag.name):
        title = f"{group}: {_documented(function)[group].rstrip('.')}"
        groups[title] = [flag for flag in flags if flag.name.startswith(f"{group}.")]
    page = _page(name, _summary(function), groups)
    return f"{page}\n{_methods()}" if "method" in alone and _LISTED in _documented(function)["method"] else page


def flags_of(command: str) -> list[Flag]:
    """The flags of a command of our own, but for those that every command takes.

    Args:
        command: `module:function`.
    """
    return list(_flags(read_signature(command)))


def training_help(name: str, summary: str) -> str:
    """Short help on a command of LightningCLI: what a run needs most.

    Args:
        name: of the command.
        summary: what it does.
    """
    groups = _training_groups(name)
    return _page(name, summary, groups) + f"\n`hyperofa {name} --help all` lists every flag, Lightning's own too.\n"


def training_flags(name: str) -> list[Flag]:
    """The flags that short help on a command of LightningCLI lists; `…` stands in none of them.

    Args:
        name: of the command.
    """
    return [flag for flags in _training_groups(name).values() for flag in flags if "…" not in flag.name]


def _training_groups(name: str) -> dict[str, list[Flag]]:
    """Flags of a command of LightningCLI that a run needs most, by heading."""
    about = "to go on from, of another run: last.ckpt" if name == "fit" else f"of `hyperofa fit`, to {name}"
    groups = {"": [Flag("ckpt_path", "PATH", f"checkpoint {about}.", required=name != "fit")]}
    for group, source in (("data", _DATA), ("model", _MODEL)):
        found = {flag.name: flag for flag in _flags(read_signature(source), f"{group}.")}
        groups[group] = [found[f"{group}.{flag}"] for flag in _SHORT[group]]
    choice = Flag("model.net", "|".join(NETS), "or a net of your own, with --trust.", next(iter(NETS)))
    of_nets = [Flag("model.net.init_args.…", "", f"of {net}: {_defaults(source)}") for net, source in NETS.items()]
    groups["model"] = [choice, *of_nets, *groups["model"]]
    groups["trainer"] = [Flag(f"trainer.{flag}", *said) for flag, said in TRAINER.items()]
    return groups


def _page(name: str, summary: str, groups: Mapping[str, Sequence[Flag]]) -> str:
    """Text no wider than the terminal.

    Args:
        name: of the command.
        summary: what it does.
        groups: flags by the heading above them.
    """
    lines = textwrap.wrap(summary, _width())
    if name in EXAMPLES:
        example = textwrap.wrap(EXAMPLES[name], _width() - 4, subsequent_indent="    ", **_WHOLE)
        lines += ["", "example:", "  " + " \\\n  ".join(example)]
    for title, flags in [*groups.items(), ("with any command", _EVERY_COMMAND)]:
        lines += _group(title, flags)
    return "\n".join([*lines, ""])


def _group(title: str, flags: Iterable[Flag]) -> list[str]:
    """The lines on some flags, below an empty one."""
    return [
        "",
        *textwrap.wrap(f"{title}:" if title else "", _width()),
        *(line for flag in flags for line in _lines(flag)),
    ]


def _width() -> int:
    """As wide as the terminal, but still read with ease."""
    return min(max(shutil.get_terminal_size().columns, 60), 120)


def _lines(flag: Flag) -> list[str]:
    """A flag, and beside it what it does."""
    head = f"  --{flag.name} {flag.value}".rstrip()
    rest = " (required)" if flag.required else f" (default: {flag.default})" if flag.default else ""
    text = textwrap.wrap(f"{flag.about}{rest}", _width() - _INDENT, **_WHOLE)
    lines = [f"{'':{_INDENT}}{line}" for line in text]
    if len(head) < _INDENT - 1 and lines:
        return [f"{head:<{_INDENT}}{text[0]}", *lines[1:]]
    return [head, *lines]


def _flags(function: Callable[..., Any], prefix: str = "") -> Iterator[Flag]:
    """The flags of what a function takes; of a dataclass those of its fields."""
    documented, hints = _documented(function), get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default = hints[name], parameter.default
        if is_dataclass(default):
            for flag in _flags(type(default), f"{prefix}{name}."):
                field = getattr(default, flag.name.rpartition(".")[2])
                yield replace(flag, default=_shown(field))
            continue
        value, limits = _describe(kind)
        about = documented.get(name, "")
        about = about.replace(_LISTED, "the methods below").replace("`vectors.READERS`", ", ".join(vectors.READERS))
        about = f"{about.removesuffix('.')}; {limits}." if limits else about
        required = default is inspect.Parameter.empty
        yield Flag(f"{prefix}{name}", value, about, "" if required else _shown(default), required)


def _describe(kind: Any) -> tuple[str, str]:
    """How a value is written, and its limits."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _describe(inner[0])[0], str(inner[1])
    if origin in (Union, UnionType):
        found = [_describe(each) for each in inner if each is not NoneType]
        return "|".join(dict.fromkeys(value for value, _ in found)), "; ".join(limits for _, limits in found if limits)
    if origin is Literal:
        return "|".join(map(str, inner)), ""
    if origin is tuple:
        return f"[{','.join(_describe(each)[0] for each in inner)}]", ""
    if origin in (list, Sequence) and inner[0] is int:
        return "[N,…]", ""
    if origin in (list, Sequence):
        return f"{_describe(inner[0])[0]} …", ""
    return _VALUES.get(origin or kind, "VALUE"), ""


def _shown(default: Any) -> str:
    """A default as one would give it; of what is unset the docstring says what happens."""
    if default is None:
        return ""
    return json.dumps(default) if isinstance(default, bool | list | tuple | dict) else str(default)


def _defaults(source: str) -> str:
    """What a net takes, and what it has without."""
    flags = [flag for flag in _flags(read_signature(source)) if flag.name not in _WIDTHS]
    return ", ".join(f"{flag.name}={flag.default}" for flag in flags)


def _summary(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").partition("\n")[0]


def _documented(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring says of each argument, or of each field."""
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n|\n)+)", f"{inspect.getdoc(function)}\n", re.MULTILINE)
    entries = re.split(r"^    (\w+): ", section[1], flags=re.MULTILINE)[1:] if section else []
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}


def _methods() -> str:
    """What the registry says of each method, a line each."""
    calls = read_calls("hyperofa.methods.registry", "_BUILT_IN", "Method")
    records = {name: about for name, about in ([ast.literal_eval(word) for word in call.args[:2]] for call in calls)}
    indent = max(map(len, records)) + 4
    wraps = {"width": _width(), "subsequent_indent": " " * indent, **_WHOLE}
    lines = [textwrap.wrap(f"  {name:<{indent - 2}}{about}", **wraps) for name, about in records.items()]
    return "\n".join(["methods:", *(line for wrapped in lines for line in wrapped), ""]).replace("`", "")
