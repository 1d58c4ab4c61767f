"""A user's mistake ends in one line on standard error and exit code 2, with nothing half-written."""

import gzip
import inspect
import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from hyperofa.cli import COMMANDS, TRAINING_COMMANDS, main
from hyperofa.errors import InputError
from hyperofa.signatures import read_signature
from hyperofa.training.datamodule import HyperDataModule
from tests.conftest import (
    CONFIGS,
    QUIET,
    SPECIALS,
    TINY_TEXT,
    TINY_TOKENS,
    WORD_DIM,
    train_unigram,
    wrap,
    write_vectors,
)


def foreign_flags(command: str, message: str) -> set[str]:
    """Flags in a message that the command does not have, and nobody gave; what stands in backticks is another's."""
    message = re.sub(r"unrecognized arguments: [^;(]*|`[^`]*`", "", message)
    named = set(re.findall(r"(?<![\w-])--([a-z_]+)(\.?)", message))
    known = {"config", "help", "trust", "trust_remote_code"}
    if command in TRAINING_COMMANDS:
        known |= {"ckpt_path", "data", "model", "seed_everything", "trainer"}
        return {name for name, dot in named if not dot} - known
    return {name for name, _ in named} - known - set(inspect.signature(read_signature(COMMANDS[command])).parameters)


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a command that must be refused; the line it ends with. `left`: what it may leave in `tmp_path`."""

    def run(*words: object, left: tuple[str, ...] = ()) -> str:
        before = {path for path in tmp_path.rglob("*")}
        with pytest.raises(SystemExit) as exit_info:
            main([str(word) for word in words])
        assert exit_info.value.code == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        last = error.rstrip("\n").split("\n")[-1].split("\r")[-1]
        new = {str(path.relative_to(tmp_path)) for path in set(tmp_path.rglob("*")) - before}
        assert {name for name in new if not name.endswith(".lock")} <= set(left)
        assert last.startswith("hyperofa: ")
        command = " ".join(map(str, words[:2])) if words[0] == "vectors" else str(words[0])
        assert command not in COMMANDS | TRAINING_COMMANDS or not foreign_flags(command, last)
        return last.removeprefix("hyperofa: ")

    return run


@pytest.fixture
def prepare_words(model_folders, tokenizer_folders, vector_file, tmp_path):
    """The words of a `prepare` command, with flags replaced."""

    def words(**flags: object) -> list[object]:
        given = {
            "source_model": model_folders["bert"],
            "target_tokenizer": tokenizer_folders["unigram"],
            "vectors": vector_file,
            "output": tmp_path / "bundle",
            **flags,
        }
        return ["prepare", *(part for name, value in given.items() for part in (f"--{name}", value))]

    return words


def cut(lines: list[str]) -> list[str]:
    return lines[: len(lines) // 2]


def cut_row(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1][: len(lines[-1]) // 2]]


def narrow(lines: list[str]) -> list[str]:
    return [*lines[:5], lines[5].rpartition(" ")[0], *lines[6:]]


def with_nan(lines: list[str]) -> list[str]:
    return [*lines[:5], f"{lines[5].rpartition(' ')[0]} nan", *lines[6:]]


def doubled(lines: list[str]) -> list[str]:
    return [*lines[:5], lines[4], *lines[6:]]


def no_rows(lines: list[str]) -> list[str]:
    return []


DAMAGE = [
    (cut, r"words\.vec: the header says 145 words, found 72; is the file cut\?"),
    (cut_row, r"words\.vec, line 146: expected a word and 12 numbers, found \d+"),
    (narrow, r"words\.vec, line 6: expected a word and 12 numbers, found 11"),
    (with_nan, r"words\.vec, line 6: expected finite numbers, found NaN or inf"),
    (doubled, r"words\.vec, line 6: the word '.*' \(eng\) was already at .*, line 5; .*--duplicate_words first"),
    (no_rows, r"words\.vec: expected word vectors, found an empty file"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=lambda part: getattr(part, "__name__", ""))
def test_vector_files(damage, message, prepare_words, refused, vector_file, tmp_path):
    lines = vector_file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    path = tmp_path / "words.vec"
    path.write_text("".join(f"{line}\n" for line in damage(lines)), encoding="utf-8")
    match(message, refused(*prepare_words(vectors=path)))


def match(pattern: str, text: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


def test_vectors_that_are_all_the_same(prepare_words, refused, tmp_path):
    path = write_vectors(tmp_path / "same.vec", {f"eng:{word}": np.ones(12) for word in ("the", "river", "town")})
    match("--vectors: expected vectors that differ, found one for all 3 words", refused(*prepare_words(vectors=path)))


def test_a_key_that_comes_twice(prepare_words, refused, bundles, tmp_path):
    (tmp_path / "twice.yaml").write_text("seed: 1\nmax_words: 100\nseed: 2\n")
    match(r"line 3: the key 'seed' was there already", refused(*prepare_words(), "--config", tmp_path / "twice.yaml"))
    (tmp_path / "fit.yaml").write_text("data:\n  steps: 1\n  seed: 1\n  steps: 2\nmodel: {}\n")
    words = ["fit", "--config", tmp_path / "fit.yaml", "--data.bundle", bundles["bert"], *QUIET]
    match(r"line 4: the key 'steps' was there already", refused(*words))


def test_a_config_that_unpacks_to_ever_more(prepare_words, refused, tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
    (tmp_path / "bomb.yaml").write_text(bomb)
    match("more than 100,000 values", refused(*prepare_words(), "--config", tmp_path / "bomb.yaml"))
    (tmp_path / "int.yaml").write_text("seed: !!int x\n")
    match("a value that cannot be read: invalid literal", refused("fit", "--config", tmp_path / "int.yaml"))


def test_null_for_what_has_a_value(refused, model_folders, bundles, tmp_path):
    path = tmp_path / "null.yaml"
    for command, flag, flags in (
        ("evaluate", "sentences", ["--model", model_folders["bert"], "--source_model", model_folders["bert"]]),
        ("export", "mixing.neighbours", ["--bundle", bundles["bert"], "--method", "ofa", "--output", tmp_path / "out"]),
    ):
        *parents, name = flag.split(".")
        path.write_text("".join(f"{parent}:\n  " for parent in parents) + f"{name}: null\n")
        match(rf"--{flag}: expected a value, found null", refused(command, "--config", path, *flags))


@pytest.mark.parametrize("chance", [-1, 1, float("nan")])
def test_chances_out_of_range(chance, bundles):
    with pytest.raises(InputError, match=r"word_dropout: expected a number from 0 to below 1"):
        HyperDataModule(str(bundles["bert8"]), word_dropout=chance)


def test_cut_gzip(prepare_words, refused, vector_file, tmp_path):
    path = tmp_path / "words.vec.gz"
    data = gzip.compress(vector_file.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    match(r"words\.vec\.gz: damaged gzip file, is it cut\?", refused(*prepare_words(vectors=path)))


@pytest.mark.parametrize("content", [None, {}, {"config.json": '{"model_type": "bert", "vocab_size": 9}'}])
def test_tokenizer_folder_without_a_tokenizer(content, prepare_words, refused, tmp_path):
    folder = tmp_path / "tokenizer"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    message = r"--target_tokenizer .*tokenizer: expected a (folder or hub id with a|fast) tokenizer"
    said = refused(*prepare_words(target_tokenizer=folder))
    match(message, said)
    assert not said.endswith(":")


def test_tokens_that_share_an_id(prepare_words, refused, tokenizer_folders, tmp_path):
    shutil.copytree(tokenizer_folders["wordpiece"], tmp_path / "tokenizer")
    path = tmp_path / "tokenizer" / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state["model"]["vocab"]["zz"] = state["model"]["vocab"]["the"]
    path.write_text(json.dumps(state), encoding="utf-8")
    ids = AutoTokenizer.from_pretrained(path.parent).get_vocab()
    if not {"zz", "the"} <= ids.keys():
        pytest.skip("this version of transformers itself leaves one out")
    message = r"--target_tokenizer: expected an id of its own for each token, found \d+ for both '(the|zz)' and "
    match(message, refused(*prepare_words(target_tokenizer=tmp_path / "tokenizer")))


def test_model_folder_without_a_model(prepare_words, refused, tokenizer_folders):
    message = r"--source_model .*wordpiece: expected a folder or hub id with a Hugging Face model"
    match(message, refused(*prepare_words(source_model=tokenizer_folders["wordpiece"])))


def test_unknown_languages(prepare_words, refused):
    for side in ("source", "target"):
        message = rf"--{side}_languages: language 'xyz' is not among the word vectors; expected some of: deu, eng"
        match(message, refused(*prepare_words(**{f"{side}_languages": "xyz"})))


def test_nothing_in_common(prepare_words, refused, tmp_path):
    path = write_vectors(tmp_path / "odd.vec", {"eng:☃☃": np.ones(3), "eng:☂": np.arange(3) + 1.0})
    match(r"--source_model .*: none of its \d+ tokens is in a word of --vectors", refused(*prepare_words(vectors=path)))


def test_output_that_exists(prepare_words, refused, bundles, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "notes").write_text("mine")
    match(r"bundle already exists and is not empty; give another --output", refused(*prepare_words()))
    export = ["export", "--bundle", bundles["bert"], "--method", "mean", "--output", tmp_path / "bundle"]
    match(r"already exists and is not empty", refused(*export))
    (tmp_path / "file").write_text("")
    match(r"expected a folder to write to, found a file", refused(*export[:-1], tmp_path / "file"))


def test_scores_that_are_none(refused, bundles, tmp_path):
    export = ["export", "--bundle", bundles["bert"], "--method", "mean", "--output", tmp_path / "model", "--scores"]
    match(r"--scores gone\.json: expected a JSON file, found none$", refused(*export, "gone.json"))
    (tmp_path / "text.json").write_text("no JSON")
    match(r"--scores .*text\.json: expected JSON, found something else", refused(*export, tmp_path / "text.json"))
    flags = ["--pad_to_multiple_of", 10**12]
    match(r"--pad_to_multiple_of: expected a number from 1 to 65536, found", refused(*export[:-1], *flags))


def test_a_bundle_of_another_model(refused, bundles, model_folders, tmp_path):
    export = ["export", "--bundle", bundles["bert"], "--method", "mean", "--output", tmp_path / "model"]
    message = r"--source_model .*roberta: expected the model that --bundle .*bert was prepared with"
    match(message, refused(*export, "--source_model", model_folders["roberta"]))
    match(r"--bundle .*models.*: expected a", refused(*export[:1], "--bundle", model_folders["bert"], *export[3:]))


class Bomb:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


@pytest.fixture
def checkpoints(fitted, tmp_path) -> dict[str, tuple[Path, str]]:
    """Files that are no checkpoint to use, and the end of the message."""
    good = torch.load(fitted["tokens"] / "checkpoints" / "best.ckpt", weights_only=True)
    files = {
        name: tmp_path / f"{name}.ckpt" for name in ("text", "empty", "bomb", "pickle", "foreign", "class", "short")
    }
    files["text"].write_text("no checkpoint\n")
    files["empty"].write_text("")
    torch.save({"hyperofa": {}, "state_dict": Bomb(tmp_path / "exploded")}, files["bomb"])
    files["pickle"].write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    torch.save({"state_dict": {}}, files["foreign"])
    torch.save({**good, "hyperofa": {**good["hyperofa"], "net": {"class": "os.system"}}}, files["class"])
    torch.save({**good, "state_dict": dict(list(good["state_dict"].items())[1:])}, files["short"])
    kind = r"expected a checkpoint of `hyperofa fit`"
    endings = {
        "foreign": rf"{kind}, found one of something else",
        "class": r"expected a registered net, found 'os\.system'",
    }
    endings["short"] = r"expected the weights of a MLP; .*Missing key"
    files["gone"] = tmp_path / "gone.ckpt"
    endings["gone"] = rf"{kind}, found no file"
    return {name: (path, endings.get(name, kind)) for name, path in files.items()}


@pytest.mark.parametrize("name", ["text", "empty", "bomb", "pickle", "foreign", "class", "short", "gone"])
def test_checkpoints_that_are_none(name, checkpoints, refused, bundles, tmp_path):
    path, ending = checkpoints[name]
    export = ["export", "--bundle", bundles["bert"], "--method", "hyperofa", "--output", tmp_path / "model"]
    error = refused(*export, "--checkpoint", path)
    match(rf"--checkpoint .*{name}\.ckpt: {ending}", error)
    assert "weights_only" not in error
    if name not in ("class", "short"):
        test = ["test", "--config", CONFIGS / "tokens.yaml", "--data.bundle", bundles["bert"], *QUIET]
        match(rf"--ckpt_path .*{name}\.ckpt: {ending}", refused(*test, "--ckpt_path", path))
    assert not (tmp_path / "exploded").exists()


def test_checkpoints_for_something_else(fitted, refused, bundles, tmp_path):
    checkpoint = fitted["tokens"] / "checkpoints" / "best.ckpt"
    widths = r"expected a net of word width 12 and coordinate width 8 for --bundle .*bert8, found 12 and 24"
    space = (
        r"expected a net for the vectors, source model and source languages of --bundle .*roberta, found one trained"
    )
    for name, message in (("bert8", widths), ("roberta", space)):
        export = ["export", "--bundle", bundles[name], "--method", "hyperofa", "--output", tmp_path / "model"]
        match(rf"--checkpoint .*best\.ckpt: {message}", refused(*export, "--checkpoint", checkpoint))
    common = ["--config", CONFIGS / "tokens.yaml", *TINY_TOKENS, *QUIET, "--trainer.logger", "false"]
    common += ["--trainer.default_root_dir", tmp_path, "--ckpt_path", checkpoint]
    for name, message in (("bert8", "expected a checkpoint of .*found .*use its config"), ("roberta", "source model")):
        found = refused("test", *common, "--data.bundle", bundles[name], left=("config.yaml",))
        match(f"--ckpt_path: .*{message}", found)
    gone = ("--data.bundle", tmp_path / "gone")
    match(r"--data\.bundle .*gone: expected a folder written by `hyperofa prep", refused("test", *common, *gone))


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_net_that_is_not_trained_is_not_measured(command, refused, bundles, tmp_path):
    words = [command, "--config", CONFIGS / "tokens.yaml", *QUIET, "--data.bundle", bundles["bert"]]
    words += ["--trainer.logger", "false", "--trainer.default_root_dir", tmp_path]
    match(rf"--ckpt_path: expected a checkpoint of `hyperofa fit` to {command}, found none", refused(*words))
    for name in ("best", "last", "hpc", "registry:net"):  # which Lightning would look for itself
        match(rf"--ckpt_path {name}: expected a checkpoint .*, found no file", refused(*words, "--ckpt_path", name))


@pytest.mark.parametrize("found", ["another", "none"])
def test_text_is_read_by_the_model_of_the_bundle(found, refused, model_folders, bundles, text_file, tmp_path):
    """The folder of the source model holds another one since, or is gone."""
    other, source = tmp_path / "bundle", str(model_folders["roberta"]) if found == "another" else "models/bert"
    shutil.copytree(bundles["bert8"], other)
    meta = json.loads((other / "meta.json").read_text())
    (other / "meta.json").write_text(json.dumps(meta | {"source_model": source}))
    words = [
        "fit",
        "--config",
        CONFIGS / "fit.yaml",
        *QUIET,
        *TINY_TEXT,
        "--data.bundle",
        other,
        "--data.text",
        text_file,
    ]
    words += ["--trainer.logger", "false", "--trainer.default_root_dir", tmp_path]
    if found == "another":
        message = (
            rf"--data.bundle {other}: its source model, .*roberta: expected the model that --data.bundle {other} was"
        )
        match(message, refused(*words, left=("config.yaml",)))
    else:
        message = rf"--data.bundle {other}: its source model, as `prepare` was given it, models/bert: expected a folder"
        match(message, refused(*words))


def test_method_and_checkpoint_belong_together(refused, fitted, bundles, tmp_path):
    export = ["export", "--bundle", bundles["bert"], "--output", tmp_path / "model", "--method"]
    match(r"--checkpoint: expected a trained net for --method hyperofa, .*; found none", refused(*export, "hyperofa"))
    checkpoint = fitted["tokens"] / "checkpoints" / "best.ckpt"
    match(
        r"expected none for --method mean, .* found .*best\.ckpt", refused(*export, "mean", "--checkpoint", checkpoint)
    )
    assert "--method" in refused(*export, "magic")


def test_training_text(refused, bundles, tmp_path):
    fit = ["fit", "--config", CONFIGS / "fit.yaml", "--data.bundle", bundles["bert"], *QUIET]
    fit += ["--trainer.logger.init_args.save_dir", tmp_path / "runs"]
    match(r"--data\.text: expected a file of source-language sentences", refused(*fit))
    for content, message in (
        (None, "expected a text file, found none"),
        ("\n \n", "expected sentences, one a line, found none"),
        ("one\ntwo\n", ""),
    ):
        path = tmp_path / "lines.txt"
        if content is not None:
            path.write_text(content)
        found = refused(*fit, "--data.text", path)
        match(rf"--data\.text.*{message}", found)
    match("expected 20 sentences at least, .* found 2", found)
    broken = gzip.compress(b"a sentence or two\n" * 400)
    for name, data in (("cut.gz", broken[:-9]), ("bits.gz", broken[:20] + b"\0\0\0\0" + broken[24:])):
        (tmp_path / name).write_bytes(data)
        match(rf"--data\.text .*{name}: expected UTF-8 text", refused(*fit, "--data.text", tmp_path / name))


def test_bundles_that_are_none(refused, tmp_path):
    tokens = ["fit", "--config", CONFIGS / "tokens.yaml", "--data.bundle", tmp_path / "nowhere", *QUIET]
    match(r"nowhere: expected a folder written by `hyperofa prepare`", refused(*tokens))
    export = ["export", "--bundle", tmp_path / "nowhere", "--method", "mean", "--output", tmp_path / "model"]
    match(r"--bundle .*nowhere: expected a folder written by `hyperofa prepare`", refused(*export))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "9" * 5_000 + "}"], ids=["brackets", "digits"])
def test_json_that_cannot_be_read(text, refused, bundles, tmp_path):
    shutil.copytree(bundles["bert"], tmp_path / "bundle")
    (tmp_path / "bundle" / "meta.json").write_text(text)
    export = ["export", "--bundle", tmp_path / "bundle", "--method", "mean", "--output", tmp_path / "model"]
    match(r"meta\.json: expected JSON, found something else", refused(*export))


def test_settings_that_do_not_fit(refused, bundles, tmp_path):
    fit = ["fit", "--config", CONFIGS / "tokens.yaml", "--data.bundle", bundles["bert"], *QUIET]
    fit += ["--trainer.default_root_dir", tmp_path, "--trainer.logger", "false"]
    match(r"--model\.learning_rate: expected a number above 0, found -1", refused(*fit, "--model.learning_rate=-1"))
    match(r"net\.hidden_dim: expected a whole number > 0", refused(*fit, "--model.net.init_args.hidden_dim", "0"))
    for size in ("hidden_dim", "num_layers"):
        message = r"--model\.net: expected a net of at most 4,294,967,296 weights in 8,192 parameters, found more"
        match(message, refused(*fit, f"--model.net.init_args.{size}", "1000000000"))
    endless = ["--trainer.max_epochs=-1", "--trainer.callbacks", "null"]
    match(r"--model\.schedule one_cycle: .*--trainer\.max_epochs", refused(*fit, *endless, left=("config.yaml",)))
    monitor = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"monitor": "val/nothing"}}
    (tmp_path / "monitor.yaml").write_text(json.dumps({"trainer": {"callbacks": [monitor]}}))
    few = [*TINY_TOKENS, "--trainer.max_epochs", "1"]
    found = refused(*fit, *few, "--config", tmp_path / "monitor.yaml", left=("config.yaml", "checkpoints"))
    match(r"ModelCheckpoint\(monitor='val/nothing'\)` could not find", found)


def test_misspelt_flags_and_keys(refused, prepare_words, bundles, tmp_path):
    assert "--vektors" in refused(*prepare_words(), "--vektors", "x")
    assert "--coordinate" in refused(*prepare_words(), "--coordinate", "8")  # no abbreviations
    fit = ["fit", "--config", CONFIGS / "tokens.yaml", "--data.bundle", bundles["bert"]]
    assert "--data.max_word" in refused(*fit, "--data.max_word", "3")
    (tmp_path / "config.yaml").write_text("data:\n  batchsize: 3\n")
    assert "batchsize" in refused(*fit, "--config", tmp_path / "config.yaml")
    (tmp_path / "prepare.yaml").write_text("sauce_model: x\n")
    assert "sauce_model" in refused("prepare", "--config", tmp_path / "prepare.yaml")
    assert "frobnicate" in refused("frobnicate")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fit --trainer.max_epoch 3", r"unrecognized .*--trainer\.max_epoch 3; did you mean --trainer\.max_epochs\?"),
        ("fit --trainer.max_epochs three", r"--trainer\.max_epochs: expected a whole number or null, found three"),
        ("fit --trainer.devices 0", r"--trainer: `Trainer\(devices='0'\)` value is not a valid input"),
        ("fit --trainer.strategy fast", r"--trainer: .*invalid strategy name: `strategy='fast'`"),
        ("fit --model.distance l3", r"--model\.distance: expected one of 'mse', 'l1', found l3 \(see hyperofa fit"),
        ("fit --model.net MLP --model.net.init_args.heads 3", r"--model\.net\.init_args\.heads: expected a setting"),
        ("fit --model.net MLP --model.net.init_args.num_layer 3", r"num_layer: expected .*; did you mean num_layers\?"),
        ("fit --model.net MLP --model.net.init_args.num_layers x", r"init_args\.num_layers: expected .*, found x"),
        ("fit --data 3", r"--data: expected \{name: value\} or a file of settings, found 3"),
        ("fit --config nowhere.yaml", r"--config: File does not exist: .*nowhere\.yaml"),
        ("export --bundl x", r"unrecognized .*--bundl x; did you mean --bundle\? \(see hyperofa export --help\)"),
        ("export --seed x", r"--seed: expected a whole number from 0 to 4294967295, found x"),
        ("export --method ofa", r"arguments are required: --bundle, --output"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_told_in_a_line(words, expected, refused, bundles):
    common = ["--config", CONFIGS / "tokens.yaml", "--data.bundle", bundles["bert"]] if "fit" in words else []
    command, *flags = words.split()
    match(expected, refused(command, *common, *flags))


def test_evaluation_data(refused, model_folders, tmp_path):
    common = ["evaluate", "--model", model_folders["bert"], "--source_model", model_folders["bert"], "--data", tmp_path]
    match(r"--data .*: expected heldout\.tsv\.gz or tatoeba", refused(*common))
    path = tmp_path / "heldout.tsv.gz"
    path.write_bytes(gzip.compress(b"eng\t1\tone\ndeu\t1\n"))
    match(r"heldout\.tsv\.gz line 2: expected 3 tab-separated columns, found 2", refused(*common))
    path.write_bytes(gzip.compress(b"deu\t1\teins\n"))
    match(r"heldout\.tsv\.gz: expected English \(eng\) in column 1", refused(*common))
    path.write_bytes(gzip.compress(b"eng\t1\tone\n")[:-4])
    match(r"heldout\.tsv\.gz: expected gzipped UTF-8 text", refused(*common))
    path.write_bytes(gzip.compress(b"eng\t1\tone\ndeu\t1\teins\n"))
    for texts, found in (  # what says nothing is no score, above all not a good one
        (["eng\t1\tone", "deu\t1\teins"], 1),
        (["eng\t1\tone", "eng\t2\ttwo", "deu\t3\tdrei", "deu\t4\tvier"], 0),
        (["eng\t1\tone", "eng\t2\tone", "deu\t1\teins", "deu\t2\teins"], 1),
        (["eng\t1\t", "eng\t2\t", "deu\t1\t", "deu\t2\t"], 1),
    ):
        path.write_bytes(gzip.compress("\n".join(texts).encode()))
        message = rf"--data .*: expected at least two different English .* into deu for SR-B, found {found}"
        match(message, refused(*common, "--languages", "deu"))
    path.write_bytes(gzip.compress(b"eng\t1\tone\ndeu\t1\teins\n"))
    match(r"--languages tur: expected languages with sentences", refused(*common, "--languages", "tur"))
    match(r"which has .*deu.*; found none; did you mean deu\?", refused(*common, "--languages", "de"))
    match(r"below\.json: expected .*tsv\.gz is a file", refused(*common, "--output", path / "below.json"))
    match(r"--sentences: expected at least 1, found 0", refused(*common, "--sentences", "0"))
    path.write_bytes(gzip.compress(b"eng\t1\tone\neng\t2\ttwo\ndeu\t1\teins\ndeu\t2\tzwei\n"))
    match(
        r"--model .*none: expected a folder or hub id", refused(*common[:1], "--model", tmp_path / "none", *common[3:])
    )


def test_labels_that_say_nothing(refused, model_folders, tmp_path):
    for folder, (train, test) in {
        "pos/{}.conllu": ("", "1\tder\t_\tDET" + "\t_" * 6),
        "ner/{}.bio": ("the B-LOC\n", "der O\n"),
    }.items():
        for name, text in (("eng/train", train), ("deu/test", test)):
            path = tmp_path / folder.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        models = ["--model", model_folders["bert"], "--source_model", model_folders["bert"]]
        found = refused("evaluate", *models, "--data", tmp_path)
        match(r"(train\.conllu: expected sentences|test\.bio: expected sentences with labels for NER).*none", found)
        shutil.rmtree(tmp_path / folder.partition("/")[0])


def test_a_model_of_nan_has_no_scores(refused, model_folders, tmp_path):
    shutil.copytree(model_folders["bert"], tmp_path / "nan")
    weights = {name: weight * float("nan") for name, weight in load_file(tmp_path / "nan/model.safetensors").items()}
    save_file(weights, tmp_path / "nan/model.safetensors", metadata={"format": "pt"})
    (tmp_path / "heldout.tsv.gz").write_bytes(gzip.compress(b"eng\t1\ta\neng\t2\tb\ndeu\t1\tc\ndeu\t2\td\n"))
    for models in (("nan", "bert"), ("bert", "nan")):
        folders = [tmp_path / name if name == "nan" else model_folders[name] for name in models]
        words = ["--model", folders[0], "--source_model", folders[1], "--data", tmp_path]
        match(
            r"found NaN or infinity for LM \w+ eng \(of",
            refused("evaluate", *words, "--output", tmp_path / "scores.json"),
        )


def test_vector_widths_must_agree(refused, prepare_words, vector_file, tmp_path):
    other = write_vectors(tmp_path / "other.vec", {"eng:a": np.ones(3)})
    found = refused(*prepare_words(), "--vectors", other)
    match(rf"other\.vec: expected vectors {WORD_DIM} wide as in .*, found 3", found)


def test_a_target_tokenizer_that_shares_nothing(prepare_words, refused, tmp_path):
    folder = wrap(train_unigram(["абв где жзи клм", "где абв", "клм жзи"], 40), tmp_path / "cyrillic", **SPECIALS)
    path = write_vectors(
        tmp_path / "eng.vec", {"eng:the": np.ones(3), "eng:river": np.arange(3), "eng:old": -np.ones(3)}
    )
    message = r"--target_tokenizer .*cyrillic: none of its tokens but special ones is in the source vocabulary"
    match(message, refused(*prepare_words(target_tokenizer=folder, vectors=path, target_languages="eng")))
