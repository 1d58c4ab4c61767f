"""Help fits a screen, is there at once, and lists what there is."""

import inspect
import os
import shlex
import subprocess
import sys
from importlib import import_module

import pytest
from jsonargparse import auto_parser
from lightning import Trainer

from hyperofa import cli, training_commands
from hyperofa.cli import main
from hyperofa.errors import InputError, did_you_mean
from hyperofa.flags import Parser, gather_lists
from hyperofa.help import EXAMPLES, NETS, SUBJECTS, TRAINER, flags_of
from hyperofa.nets import registry
from hyperofa.presets import use_presets
from hyperofa.signatures import read_signature

ALL = [*cli.COMMANDS, *cli.TRAINING_COMMANDS]


@pytest.fixture
def shown(capsys, monkeypatch):
    """Prints help on a terminal of a width; the text."""

    def show(*words: str, columns: int = 100) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("command", ALL)
def test_help_is_plain_and_as_wide_as_the_terminal(shown, command, columns):
    text = shown(*command.split(), "--help", columns=columns)
    assert all(len(line) <= columns for line in text.splitlines())
    assert not any(word in text for word in ("Annotated", "Optional", "Union", "Literal", "<class", "null,"))
    assert f"  hyperofa {command}" in text or command not in EXAMPLES
    assert "--trust MODULE" in text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_lists_every_flag(shown, command):
    parser = auto_parser(read_signature(cli.COMMANDS[command]), as_positional=False, parser_class=Parser)
    groups = {"--help", "--print_config"}
    flags = {name for name in parser._option_string_actions if name.startswith("--") and not name.endswith("+")}
    groups |= {name for name in flags if any(other.startswith(f"{name}.") for other in flags)}
    text = shown(*command.split(), "--help")
    assert flags - groups
    assert all(f"  {name} " in text for name in flags - groups)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_many_flags_stand_under_headings(shown, command):
    own = [flag.name for flag in flags_of(cli.COMMANDS[command]) if "." not in flag.name]
    headed = [flag for subject in SUBJECTS.get(command, {}).values() for flag in subject]
    assert len(own) - len(headed) <= 9
    assert set(headed) <= set(own)
    assert len(set(headed)) == len(headed)
    text = shown(*command.split(), "--help")
    assert all(f"\n\n{heading}:\n" in text for heading in SUBJECTS.get(command, {}))


@pytest.mark.parametrize("command", cli.TRAINING_COMMANDS)
def test_help_on_training_fits_a_screen(shown, command):
    text = shown(*command.split(), "--help", columns=120)
    assert len(text.splitlines()) < 75
    assert f"`hyperofa {command} --help all`" in text
    assert "--data.streams text|tokens|both" in text
    assert "folder written by `hyperofa prepare`. (required)" in text


def test_help_all_is_lightnings(shown):
    text = shown("fit", "--help", "all")
    assert "--trainer.gradient_clip_val" in text
    assert "--data.word_dropout" in text
    assert "at least 1" in text
    assert "Annotated" not in text


def test_what_is_listed_by_hand_is_there():
    assert set(TRAINER) <= set(inspect.signature(Trainer).parameters)
    nets = {name: f"{net.__module__}:{net.__name__}" for name, net in registry.NETS.items() if "." not in name}
    assert list(nets.items()) == list(NETS.items())
    assert set(EXAMPLES) <= set(ALL)


@pytest.mark.parametrize("net", NETS)
def test_a_constructor_read_from_source_is_the_class_s(net):
    module, _, name = NETS[net].partition(":")
    read, made = read_signature(NETS[net]), getattr(import_module(module), name)
    assert read.__doc__ == made.__doc__
    defaults = [
        {name: each.default for name, each in inspect.signature(function).parameters.items()}
        for function in (read, made)
    ]
    assert defaults[0] == defaults[1]


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_are_right(command):
    program, *words = shlex.split(EXAMPLES[command])
    name = " ".join(words[: len(command.split())])
    assert (program, name) == ("hyperofa", command)
    words = words[len(command.split()) :]
    if command in cli.TRAINING_COMMANDS:
        words = [word for word in words if word not in ("--ckpt_path", "best.ckpt")]  # which is looked into
        if command == "fit":
            training_commands.parse(use_presets([name, *words]))
        else:
            with pytest.raises(InputError, match="ckpt_path: expected a checkpoint"):
                training_commands.parse(use_presets([name, *words]))
    elif command not in cli._WITHOUT_FLAGS:
        function = read_signature(cli.COMMANDS[command])
        parser = auto_parser(function, as_positional=False, parser_class=Parser)
        parser.parse_args(gather_lists(use_presets([name, *words])[1:], {"": function}))


@pytest.mark.parametrize("command", ["fit", "test", "export"])
def test_help_is_there_at_once(command):
    """CPU time, of which a busy machine takes no more; an interpreter alone takes a tenth of the limit."""
    done = subprocess.run([sys.executable, "-m", "hyperofa", command, "--help"], capture_output=True, timeout=60)
    assert done.returncode == 0
    before = os.times()
    subprocess.run([sys.executable, "-m", "hyperofa", command, "--help"], capture_output=True, timeout=60)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 1.5


@pytest.mark.parametrize(
    ("line", "nearest"),
    [
        ("exprot --bundle b", "export"),
        ("export --bundle b --output o --method ofa_tunde", "ofa_tuned"),
        ("prepare --source_model m --target_tokenizer t --vectors v --output o --vectors_dtype float23", "float32"),
        ("prepare --source_model m --target_tokenizer t --vectors v --output o --vectors_dtype FLOAT16", "float16"),
        ("fit --model.net SourceAtention", "SourceAttention"),
        ("fit --trainer.logger TensorBordLogger", "TensorBoardLogger"),
    ],
)
def test_a_wrong_value_names_the_nearest_right_one(line, nearest, bundles, tmp_path, capsys):
    words = [
        str(bundles["bert"]) if word == "b" else str(tmp_path / "o") if word == "o" else word for word in line.split()
    ]
    with pytest.raises(SystemExit):
        main(words)
    assert capsys.readouterr().err.partition("; did you mean ")[2].startswith(f"{nearest}?")


def test_nothing_is_near_what_is_far():
    assert did_you_mean("xyz", ["mean", "ofa"]) == ""
