"""Models and tokenizers from folders: nothing is run, and nothing made up."""

import json
import sys

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.models.saving import save_model
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.runtime.trust import remote_code_trusted, take_remote_code_flag, trust_flags
from hyperofa.tokens.canonical import load_tokenizer
from tests.conftest import ENGLISH, SPECIALS, train_byte_level, wrap
from tests.models.families import SIZE, build

CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
pathlib.Path(RAN).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder whose model and tokenizer are code of its own, and the file that appears when that is run."""
    monkeypatch.setattr(sys, "stdin", None)  # nobody is asked
    folder, ran = tmp_path / "own", tmp_path / "ran"
    wrap(train_byte_level(ENGLISH), folder, **SPECIALS)
    build("llama", vocab_size=len(load_tokenizer(folder))).save_pretrained(folder)
    (folder / "own.py").write_text(CODE.replace("RAN", repr(str(ran))), encoding="utf-8")
    maps = {
        "config.json": {
            "model_type": "own",
            "architectures": ["OwnForCausalLM"],
            "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "OwnTokenizer",
            "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
        },
    }
    for name, values in maps.items():
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")
    yield folder, ran
    take_remote_code_flag([])


def test_code_in_a_folder_is_not_run_unless_the_user_says_so(own, capsys):
    folder, ran = own
    with pytest.raises(InputError, match=r"source_model .*own: .* code of its own, .* trust_remote_code=True"):
        load_model(folder)
    commands = [
        ["prepare", "--vectors", "no.vec", "--target_tokenizer", str(folder), "--source_model", str(folder)],
        ["expand", "--words", "no.txt", "--source_model", str(folder)],
    ]
    for words in commands:
        with pytest.raises(SystemExit):
            main([*words, "--output", str(ran.parent / "out")])
    assert not ran.exists()
    assert "Traceback" not in capsys.readouterr().err


def test_code_that_is_trusted_is_run_and_saved(own, tmp_path):
    folder, ran = own
    assert type(load_tokenizer(folder, trust_remote_code=True)).__name__.startswith("OwnTokenizer")
    model = load_model(folder, trust_remote_code=True)
    assert ran.exists()
    assert type(model).__name__ == "OwnForCausalLM"
    assert len(read_vocabulary(model).input_rows) == len(AutoTokenizer.from_pretrained(folder, trust_remote_code=True))
    save_model(model, tmp_path / "out")
    assert (tmp_path / "out" / "own.py").is_file()
    ran.unlink()
    (tmp_path / "text.txt").write_text("\n".join(ENGLISH[:3]), encoding="utf-8")
    trim = ["trim", "--source_model", str(folder), "--text", str(tmp_path / "text.txt"), "--output"]
    main([*trim, str(tmp_path / "trimmed"), "--trust_remote_code", "true"])
    assert type(load_model(tmp_path / "trimmed", trust_remote_code=True)).__name__ == "OwnForCausalLM"
    with pytest.raises(SystemExit):
        main([*trim, str(tmp_path / "again")])


def test_the_flag_is_taken_from_the_command_line():
    assert take_remote_code_flag(["fit", "--trust_remote_code=true", "--seed", "1"]) == ["fit", "--seed", "1"]
    assert remote_code_trusted()
    assert trust_flags()[-2:] == ["--trust_remote_code", "true"]
    assert take_remote_code_flag(["fit", "--trust_remote_code", "false"]) == ["fit"]
    assert not remote_code_trusted()
    for wrong in (["--trust_remote_code"], ["--trust_remote_code", "yes"]):
        with pytest.raises(InputError, match="trust_remote_code: expected true or false, found"):
            take_remote_code_flag(wrong)


def without(folder, part):
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if part not in name}
    save_file(kept, path, metadata={"format": "pt"})


@pytest.mark.parametrize("part", ["embed_tokens", "lm_head", "layers.1"])
def test_weights_that_are_not_there_are_not_made_up(part, tmp_path):
    build("llama", tied=False).save_pretrained(tmp_path)
    without(tmp_path, part)
    with pytest.raises(InputError, match=rf"model .*expected all weights of LlamaForCausalLM, found none for .*{part}"):
        load_model(tmp_path, "--model")


def test_a_pooler_may_be_missing(tmp_path):
    build("bert", auto=AutoModel).save_pretrained(tmp_path)
    without(tmp_path, "pooler")
    assert len(read_vocabulary(load_model(tmp_path)).input_rows) == SIZE


def test_many_experts_are_no_endless_layers(tmp_path):
    """Doge names 16,384 of them, dense or not."""
    build("bert").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_experts": 16_384}), encoding="utf-8")
    assert load_model(tmp_path).config.num_experts == 16_384


@pytest.mark.parametrize(
    ("layers", "asked"), [(10**12, "num_hidden_layers 1,000,000,000,000,"), (9_000, "more than 1")]
)
def test_a_config_does_not_fill_the_memory(layers, asked, tmp_path, monkeypatch):
    build("bert").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8")
    monkeypatch.setattr("hyperofa.models.loading._UNSTORED", (100, 2))  # else it takes seconds
    with pytest.raises(InputError, match=rf"Hugging Face model; its config.json asks for {asked}"):
        load_model(tmp_path)
