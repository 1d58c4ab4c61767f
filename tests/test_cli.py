import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
import yaml
from jsonargparse import auto_parser

from hyperofa import cli
from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.flags import Parser, gather_lists
from hyperofa.signatures import read_signature
from hyperofa.vectors.formats import convert_vectors
from tests.conftest import CONFIGS, write_vectors


@pytest.mark.parametrize(
    "flags",
    [
        ["--vectors", "A", "--vectors", "B"],
        ["--vectors", "A", "B"],
        ["--vectors=A", "--vectors=B"],
        ["--vectors", '["A", "B"]'],
    ],
)
def test_lists_are_given_flag_by_flag_or_at_once(flags, bundles, model_folders, tokenizer_folders, tmp_path):
    """Norwegian is `no`, which YAML takes for false."""
    for name, language in (("a.vec", "no"), ("b.vec", "en")):
        rows = [f"{language}:{word} 1 {number}.5" for number, word in enumerate(("the", "river", "town", "rain"))]
        (tmp_path / name).write_text("\n".join([f"{len(rows)} 2", *rows]) + "\n")
    paths = {"A": str(tmp_path / "a.vec"), "B": str(tmp_path / "b.vec")}
    for letter, path in paths.items():
        flags = [flag.replace(letter, path) for flag in flags]
    config = {"source_model": str(model_folders["bert"]), "target_tokenizer": str(tokenizer_folders["unigram"])}
    config |= {"vectors": ["replaced by the flag"], "coordinate_dim": 4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["prepare", *flags, "--config", str(tmp_path / "config.yaml"), "--source_languages", "no"]
    main([*command, "--output", str(tmp_path / "bundle")])
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.words.languages == ("en", "no")
    assert bundle.meta.source_languages == ["no"]
    assert bundle.meta.coordinate_dim == 4


def test_a_list_may_be_unset(bundles, model_folders, tokenizer_folders, vector_file, tmp_path, capsys):
    command = ["prepare", "--source_model", str(model_folders["bert"]), "--vectors", str(vector_file)]
    command += ["--target_tokenizer", str(tokenizer_folders["unigram"]), "--output", str(tmp_path / "bundle")]
    main([*command, "--source_languages", "null"])
    assert Bundle.load(tmp_path / "bundle").meta.source_languages is None
    assert "target tokens with words" in capsys.readouterr().out


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])
    assert exit_info.value.code == 0
    listed = capsys.readouterr().out
    names = re.findall(r"^  ([a-z]+(?: [a-z]+)?)  +\S", listed, re.MULTILINE)
    assert sorted(names) == sorted([*cli.COMMANDS, *cli.TRAINING_COMMANDS])


def test_help_of_a_group_names_its_commands_alone(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["vectors", "--help"])
    listed = capsys.readouterr().out
    assert exit_info.value.code == 0
    assert "  vectors merge " in listed
    assert "  prepare " not in listed


def test_a_command_of_a_group_takes_flags_and_files(vector_file, tmp_path, capsys):
    (tmp_path / "merge.yaml").write_text(yaml.safe_dump({"vectors": [str(vector_file)], "duplicate_words": "first"}))
    main(["vectors", "merge", "--config", str(tmp_path / "merge.yaml"), "--output", str(tmp_path / "merged")])
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'merged'}: ")
    for words, said in (
        (["vectors", "mrge"], "found 'vectors mrge'"),
        (["vectors", "merge", "--output", "x", "--vectrs", "y"], "did you mean --vectors? (see hyperofa vectors merge"),
        (["vectors", "merge", "--output", "x"], "required: --vectors"),
    ):
        with pytest.raises(SystemExit) as exit_info:
            main(words)
        assert exit_info.value.code == 2
        assert said in capsys.readouterr().err


_LOADED = """
import sys
from hyperofa.cli import main
from hyperofa.errors import InputError
try:
    main(sys.argv[1:])
except SystemExit as error:
    heavy = {"torch", "transformers", "lightning", "scipy", "matplotlib"} & set(sys.modules)
    print("ended with", error.code, "after loading", sorted(heavy))
"""


_WRONG_NUMBER = "pretrain --model m --text t --output o --training.seed -1"


@pytest.mark.parametrize(
    "line",
    ["", "exprot", "export --method mena", "pretrain --training.steps many", _WRONG_NUMBER, "--help"]
    + [f"{command} --help" for command in (*cli.COMMANDS, *cli.TRAINING_COMMANDS)],
)
def test_help_and_wrong_command_lines_load_nothing_heavy(line):
    done = subprocess.run([sys.executable, "-c", _LOADED, *line.split()], capture_output=True, text=True, timeout=60)
    code = 0 if line.endswith("--help") else 2
    assert done.stdout.endswith(f"ended with {code} after loading []\n"), done


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_signature_read_from_source_is_the_function_s(command):
    module, _, name = cli.COMMANDS[command].partition(":")
    function, read = getattr(import_module(module), name), read_signature(cli.COMMANDS[command])
    assert read.__doc__ == function.__doc__
    assert list(inspect.signature(read).parameters) == list(inspect.signature(function).parameters)
    helps = [auto_parser(each, as_positional=False, parser_class=Parser).format_help() for each in (read, function)]
    assert helps[0] == helps[1]


def test_other_flags_are_left_alone():
    words = ["export", "--method", "mean", "--copied", "role", "exact", "--seed=3"]
    expected = ["export", "--method", "mean", "--seed=3", "--copied", json.dumps(["role", "exact"])]
    assert gather_lists(words, {"": read_signature(cli.COMMANDS["export"])}) == expected


def test_the_config_for_colexnet_reads_its_layout(model_folders, tokenizer_folders, tmp_path):
    """A gensim file whose words look like `eng:$word$`, SentencePiece on both sides; only sizes and paths differ."""
    models = pytest.importorskip("gensim.models")
    vectors = models.KeyedVectors(5)
    words = ["eng:$the$", "eng:$river$", "eng:$town$", "eng:$rain$", "deu:$regen$", "deu:$stadt"]
    vectors.add_vectors(words, np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32))
    vectors.save(str(tmp_path / "colexnet.wv"))
    stand_ins = ["--source_model", str(model_folders["xlmr"]), "--target_tokenizer", str(tokenizer_folders["unigram"])]
    stand_ins += ["--vectors", str(tmp_path / "colexnet.wv"), "--coordinate_dim", "8"]
    main(["prepare", "--config", str(CONFIGS / "xlmr-glot500.yaml"), *stand_ins, "--output", str(tmp_path / "bundle")])
    bundle = Bundle.load(tmp_path / "bundle")
    assert list(bundle.words.words) == ["the", "river", "town", "rain", "regen", "stadt"]
    assert bundle.words.languages == ("deu", "eng")
    assert bundle.words.boundaries.tolist() == [3, 3, 3, 3, 3, 1]
    assert bundle.words.vectors.dtype == np.float16


def test_the_config_for_fasttext_reads_its_layout(model_folders, tokenizer_folders, tmp_path):
    """Text files without language codes, one a language, for RoBERTa with byte-level BPE."""
    rng, flags = np.random.default_rng(0), ["--vectors"]
    for language, words in (("eng", ["the", "river", "town", "rain"]), ("deu", ["Regen", "Stadt"])):
        path = write_vectors(tmp_path / f"wiki.{language[:2]}.align.vec", {w: rng.standard_normal(5) for w in words})
        flags.append(f"{language}={path}")
    flags += ["--source_model", str(model_folders["roberta"]), "--target_tokenizer", str(tokenizer_folders["unigram"])]
    main(["prepare", "--config", str(CONFIGS / "roberta-fasttext.yaml"), *flags, "--output", str(tmp_path / "bundle")])
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.words.languages == ("deu", "eng")
    assert bundle.meta.source_languages == ["eng"]
    assert bundle.target.covered.any()


_SMALLER = "; give this command more, or smaller input or batches"
_ROOM = "; make room where this command writes, or give an --output elsewhere"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied", "/srv/model"), "/srv/model: Permission denied"),
        (OSError(28, "No space left on device"), f"No space left on device{_ROOM}"),
        (OSError(28, "No space left on device", "/tmp/tmpx1"), f"No space left on device{_ROOM}"),
        (RuntimeError("serializing: No space left on device (os error 28)"), f"No space left on device{_ROOM}"),
        (OSError("0 bytes written"), "0 bytes written (OSError; HYPEROFA_TRACEBACK=1 shows where)"),
        (MemoryError(), f"not enough memory{_SMALLER}"),
        (MemoryError("std::bad_alloc"), f"not enough memory (std::bad_alloc){_SMALLER}"),
        (RuntimeError("CUDA out of memory. Tried"), f"not enough memory (CUDA out of memory. Tried){_SMALLER}"),
        (OSError(12, "Cannot allocate memory"), f"not enough memory ([Errno 12] Cannot allocate memory){_SMALLER}"),
    ],
)
def test_what_the_system_refuses_is_told_in_a_line(error, said, monkeypatch, capsys):
    """Exit code 1 is what `verify` says of a changed folder."""

    def refuse(*_):
        raise error

    monkeypatch.setattr("hyperofa.models.manifest.read_record", refuse)
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CONFIGS)])
    assert capsys.readouterr().err == f"hyperofa: {said}\n"


def test_a_panic_in_rust_is_told_in_a_line(monkeypatch, capsys):
    """It is no `Exception`."""

    class PanicException(BaseException):
        pass

    def panic(*_):
        raise PanicException("no threads")

    monkeypatch.setattr("hyperofa.models.manifest.read_record", panic)
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CONFIGS)])
    assert capsys.readouterr().err == "hyperofa: no threads (PanicException; HYPEROFA_TRACEBACK=1 shows where)\n"


def test_no_memory_for_what_is_ours_is_no_fault_of_ours(monkeypatch, capsys):
    monkeypatch.setattr("hyperofa.models.manifest.read_record", lambda *_: bytearray(2**60))
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CONFIGS)])
    assert capsys.readouterr().err == f"hyperofa: not enough memory{_SMALLER}\n"


def test_no_memory_for_a_file_is_no_fault_of_the_file(monkeypatch, capsys):
    def refuse(*_):
        try:
            raise RuntimeError("can't start new thread")
        except RuntimeError as error:
            raise InputError(f"model: expected a model; {error}") from None

    monkeypatch.setattr("hyperofa.models.manifest.read_record", refuse)
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CONFIGS)])
    assert capsys.readouterr().err == f"hyperofa: not enough memory (can't start new thread){_SMALLER}\n"


@pytest.mark.parametrize("by_lightning", [False, True])
def test_ctrl_c_is_told_in_a_line(by_lightning, monkeypatch, capsys):
    """Exit code 1, which Lightning gives, is what `verify` says of a changed folder."""

    def interrupt(*_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            if by_lightning:
                sys.exit(1)
            raise

    monkeypatch.setattr("hyperofa.models.manifest.read_record", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main(["verify", str(CONFIGS)])
    assert capsys.readouterr().err == "hyperofa: interrupted\n"


def test_what_a_library_refuses_is_told_in_a_line(monkeypatch, capsys):
    monkeypatch.setattr("hyperofa.models.manifest.read_record", lambda *_: yaml.safe_load("["))
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CONFIGS)])
    said = capsys.readouterr().err
    assert said.startswith("hyperofa: while parsing a flow node")
    assert said.endswith("(ParserError; HYPEROFA_TRACEBACK=1 shows where)\n")
    assert said.count("\n") == 1
    monkeypatch.setenv("HYPEROFA_TRACEBACK", "1")
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CONFIGS)])
    assert capsys.readouterr().err.startswith("Traceback")


def test_a_fault_of_ours_shows_where_it_is(monkeypatch, capsys):
    monkeypatch.setattr("hyperofa.models.manifest.MANIFEST", None)
    with pytest.raises(SystemExit, match="2"):
        main(["verify", str(CONFIGS)])
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "manifest.py" in said


def test_odd_paths_and_files_are_told_in_a_line(tmp_path, capsys):
    (tmp_path / "latin.yaml").write_bytes("model: Füße".encode("latin-1"))
    (tmp_path / "file").write_text("mine")
    long = "x" * 300
    for words, said in {
        ("verify", "--config", tmp_path / "latin.yaml"): "latin.yaml: expected UTF-8 text",
        ("verify", long): "File name too long",
        ("demo", "--output", long): "File name too long",
        (
            "demo",
            "--output",
            "/proc/none/out",
        ): "/proc/none cannot be made (No such file or directory); give another --o",
        ("demo", "--output", "/proc/out"): "nothing can be made in /proc (No such file or directory); give another --o",
        ("demo", "--output", tmp_path / "file" / "out"): "file is a file; give another --output",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            main(list(map(str, words)))
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "latin.yaml"]


@pytest.mark.parametrize("command", [["--help"], ["hewitt", "--help"], ["verify", "--Füße…"]])
def test_a_terminal_that_knows_ascii_alone(command):
    ascii_alone = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "hyperofa", *command], capture_output=True, env=ascii_alone)
    assert b"Traceback" not in done.stderr
    assert done.returncode == (0 if "--help" in command else 2)


def test_a_locale_of_another_encoding_changes_no_result(vector_file, tmp_path):
    """Not the names of files, nor what libraries read and write: an English config of ours has Greek letters in it."""
    (tmp_path / "Füße").mkdir()
    (tmp_path / "слова.yaml").write_text(f"# β\nvectors: [{vector_file}]\noutput: Füße/größe.vec\n", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-P", "-m", "hyperofa", "vectors", "convert", "--config", "слова.yaml".encode()]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    convert_vectors([str(vector_file)], tmp_path / "here.vec")
    assert (tmp_path / "Füße" / "größe.vec").read_bytes() == (tmp_path / "here.vec").read_bytes()
    command += ["--output", "other.vec", "--vectors", "нет".encode()]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "нет" in done.stderr.decode()
