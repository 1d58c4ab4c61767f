"""A wrong value of any flag of any command is told in a line that says what is expected there."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any

import pytest
from jsonargparse import auto_parser

from hyperofa.cli import main
from hyperofa.commands import COMMANDS
from hyperofa.errors import InputError
from hyperofa.flags import Parser, expected, gather_lists
from hyperofa.runtime.ranges import Count, Seed, Share
from hyperofa.signatures import read_signature

HUGE = str(10**22)  # there is no room for it in an index
WRONG = ["many", "3", "-3", "2.5", "nan", "null", "[1, 2]", "{a: 1}", "yes?", HUGE]
RAW = re.compile(r"<class|typing\.|Union|subtypes|Given value|Expected a|\n|NoneType|None")


def flags_of(function: Callable[..., Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Flags of what a function takes, and whether they are required."""
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(parameter.annotation):
            yield from flags_of(parameter.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", parameter.default is inspect.Parameter.empty


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_value_of_any_flag(command):
    function = read_signature(COMMANDS[command])
    parser = auto_parser(function, as_positional=False, parser_class=Parser)
    flags = dict(flags_of(function))
    given = {flag: "x" for flag, required in flags.items() if required}
    told = []
    for flag in flags:
        for wrong in WRONG:
            words = [word for name, value in {**given, flag: wrong}.items() for word in (f"--{name}", value)]
            try:
                parser.parse_args(gather_lists(words, {"": function}))
            except InputError as error:
                told.append((flag, error.with_flags))
    assert told
    for flag, said in told:
        assert re.match(rf"--{re.escape(flag)}: expected .+, found .+", said)
        assert not RAW.search(said)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (bool, "true or false"),
        (Count | None, "a whole number, at least 1 or null"),
        (Seed, "a whole number from 0 to 4294967295"),
        (Share, "a number from 0 to 1"),
        (list[int], "a list of whole numbers"),
        (dict[str, dict], "{name: {name: value}}"),
        (dict[str, list] | None, "{name: [value, ...]} or null"),
    ],
)
def test_types_in_plain_words(kind, said):
    assert expected(kind) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vectors", "convert", "--vectors", "", "--output", "o"], "--vectors: expected a value, found nothing"),
        (["prepare", "--vectors=", "--output", "o"], "--vectors: expected a value, found nothing"),
        (["fit", "--data.bundle="], "--data.bundle: expected a value, found nothing"),
    ],
)
def test_a_variable_that_is_not_set_is_no_path(words, said, capsys):
    """It would be the current folder."""
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert capsys.readouterr().err == f"hyperofa: {said}\n"


def long_work(*_: Any, **__: Any) -> None:
    raise AssertionError("began before the mistake was told")


EARLY = [
    ("doctor", "hyperofa.inspection.doctor.prepare", "--text gone.txt", "--text gone.txt: expected a text file"),
    ("doctor", "hyperofa.inspection.doctor.prepare", "--method mena", "--method: expected one of .*mean"),
    ("doctor", "hyperofa.inspection.doctor.prepare", "--picture a.doc", "--picture a.doc: expected a file that ends"),
    ("doctor", "hyperofa.models.source.SourceModel.load", "--vectors gone.vec", "--vectors gone.vec: expected a file"),
    ("hewitt", "hyperofa.experiments.hewitt.expand", "--vectors gone.vec", "--vectors gone.vec: expected a file"),
    ("hewitt", "hyperofa.experiments.hewitt.expand", "--checkpoint gone.ckpt", "--checkpoint gone.ckpt: expected a ch"),
    ("hewitt", "hyperofa.experiments.hewitt.expand", "--training.block_size 2", "expected --training.block_size above"),
    ("hewitt", "hyperofa.experiments.hewitt.expand", "--trainer.accelerator abacus", "--trainer: .*abacus"),
    ("pretrain", "hyperofa.pretraining.pretrain.tokenise", "--training.block_size 2", "expected --training.block_size"),
    ("pretrain", "hyperofa.pretraining.pretrain.tokenise", "--trainer.precision 3-true", "--trainer: .*3-true"),
]


@pytest.mark.parametrize(("command", "work", "wrong", "said"), EARLY)
def test_a_mistake_is_told_before_anything_takes_long(
    command, work, wrong, said, model_folders, tokenizer_folders, vector_file, text_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(work, long_work)
    monkeypatch.chdir(tmp_path)
    model, text, vectors = (str(path) for path in (model_folders["bert"], text_file, vector_file))
    given = {
        "doctor": {"--target_tokenizer": str(tokenizer_folders["unigram"])},
        "hewitt": {"--text": text, "--output": "out"},
        "pretrain": {"--model": model, "--text": text, "--output": "out"},
    }[command]
    if command != "pretrain":
        given |= {"--source_model": model, "--vectors": vectors}
    given |= dict([wrong.split()])
    with pytest.raises(SystemExit, match="2"):
        main([command, *(word for pair in given.items() for word in pair)])
    assert re.search(f"hyperofa: {said}", capsys.readouterr().err)
    assert not [path for path in tmp_path.rglob("*") if not path.name.endswith(".lock")]
