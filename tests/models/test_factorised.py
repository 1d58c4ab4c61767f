"""Factorised embeddings: every layout, logits as dense, loaded with and without this package, trained, saved again."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

import hyperofa
from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.export.export import export
from hyperofa.models.card import auto_class
from hyperofa.models.factorised import factor_owners, factorise, is_factorised, parameter_count, read_rows
from hyperofa.models.loading import load_model
from hyperofa.models.manifest import verify
from hyperofa.models.saving import save_model
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.pretraining.runs import read_new_rows
from tests.conftest import ENGLISH, GERMAN
from tests.models.families import BART, CASES, DIM, FAMILIES, SIZE, SPECIALS, build, kept, make, outputs, text_of

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.mark.parametrize(
    ("name", "tied"), CASES, ids=[f"{name}-{'tied' if tied else 'untied'}" for name, tied in CASES]
)
def test_every_layout_speaks_as_the_dense_model(name, tied, tmp_path):
    dense, model = kept(name, tied)
    ids = text_of(SIZE, 1)
    expected = outputs(dense, ids)[0]
    save_model(model, tmp_path)
    loaded = hyperofa.load_model(tmp_path)
    for found in (model, loaded):
        torch.testing.assert_close(outputs(found, ids)[0], expected, **TOLERANCE)
        assert is_factorised(found)
        assert auto_class(found) == auto_class(dense)
    owners = factor_owners(loaded)
    rows, width = read_vocabulary(dense).input_rows.shape
    assert len(owners) == (1 if tied else 2)
    saved = load_file(tmp_path / "model.safetensors")
    assert not [key for key, value in saved.items() if value.shape == (rows, width) and "position" not in key]
    out = read_vocabulary(dense).output_rows
    fewer = rows * width - DIM * (rows + width) + (0 if tied else rows * out.shape[1] - DIM * (rows + out.shape[1]))
    assert parameter_count(dense) - parameter_count(loaded) == fewer
    assert parameter_count(loaded) == parameter_count(model)


@pytest.mark.parametrize(
    ("name", "tied"),
    [
        ("xlm-r", True),
        ("bert", False),
        ("gpt2", True),
        ("llama", False),
        ("gemma3", True),
        ("bart", True),
        ("mt5", False),
    ],
)
def test_plain_transformers_loads_it(name, tied, tmp_path):
    """By the module in the folder; the same after another round of saving; a classifier can start from it."""
    dense, model = make(name, tied)
    expected = outputs(dense, text_of(SIZE, 1))[0]
    model.save_pretrained(tmp_path / "0")
    for turn in range(2):
        loaded = FAMILIES[name][1].from_pretrained(tmp_path / str(turn), trust_remote_code=True).eval()
        assert type(loaded).__module__.startswith("transformers_modules")
        torch.testing.assert_close(outputs(loaded, text_of(SIZE, 1))[0], expected, **TOLERANCE)
        assert is_factorised(loaded)
        loaded.save_pretrained(tmp_path / str(turn + 1))
        names = {path.name for path in (tmp_path / str(turn + 1)).iterdir()}
        assert names - {"generation_config.json"} == {"config.json", "model.safetensors", "modeling_factorised.py"}
    body = AutoModel.from_pretrained(tmp_path / "2", trust_remote_code=True)
    assert is_factorised(body)
    with pytest.raises(ValueError, match="trust_remote_code=True"):  # no silent model with random rows
        FAMILIES[name][1].from_pretrained(tmp_path / "2", trust_remote_code=False)


@pytest.mark.skipif("internlm3" not in CONFIG_MAPPING, reason="transformers 5.23 knows it")
def test_a_model_of_another_familys_class_is_refused():
    """Of a Llama with the config of InternLM 3 no Auto class would find the factorised one."""
    with pytest.raises(InputError, match=r"factorised: LlamaForCausalLM is not supported: it is made from .*LM3Config"):
        factorise(build_of("internlm3"), np.zeros((SIZE, 4), np.float32), np.zeros((4, 16), np.float32))


def build_of(kind):
    settings = {"vocab_size": SIZE, **SPECIALS, **FAMILIES["llama"][2]}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))


def test_half_precision_and_padded_rows(tmp_path):
    dense, model = make("gpt2", dtype=torch.bfloat16, size=35)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.dtype == torch.bfloat16
    rows = read_rows(loaded)
    assert rows.input_rows.shape == (40, DIM)
    assert rows.tied
    np.testing.assert_allclose(rows.input_rows[35:], np.tile(rows.input_rows[:35].mean(0), (5, 1)), atol=0.02)
    text = text_of(35, 1)
    torch.testing.assert_close(outputs(loaded, text)[0], outputs(dense, text)[0], atol=0.3, rtol=0.05)


def test_new_classes_start_from_it(tmp_path):
    _, model = make("roberta")
    model.save_pretrained(tmp_path)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, trust_remote_code=True, num_labels=3
    )
    assert classifier(input_ids=torch.as_tensor(text_of(SIZE, 1))).logits.shape == (2, 3)
    owner, expected = factor_owners(classifier)[0], factor_owners(model)[0]
    assert torch.equal(owner.coordinates, expected.coordinates)


def test_generation(tmp_path):
    dense, model = make("gpt2")
    ids = torch.as_tensor(text_of(SIZE, 1)[:1])
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert torch.equal(model.generate(ids, **given), dense.generate(ids, **given))


@pytest.mark.parametrize(("name", "tied"), [("xlm-r", True), ("llama", False)])
def test_the_trainer_of_transformers_trains_and_saves_it(name, tied, tmp_path):
    _, model = make(name, tied)
    model.save_pretrained(tmp_path / "start")
    model = FAMILIES[name][1].from_pretrained(tmp_path / "start", trust_remote_code=True)
    before = {key: value.clone() for key, value in model.named_parameters()}
    ids = torch.as_tensor(text_of(SIZE, 1)[0])
    data = [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}] * 8
    arguments = TrainingArguments(
        tmp_path / "run", max_steps=4, learning_rate=1e-2, per_device_train_batch_size=2, report_to=[], use_cpu=True,
        disable_tqdm=True, logging_steps=1, save_steps=4, dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=data)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert {key.rpartition(".")[2] for key in changed} >= {"coordinates", "primitives"}
    trainer.save_model(tmp_path / "end")
    for folder in (tmp_path / "end", tmp_path / "run" / "checkpoint-4"):
        for loaded in (FAMILIES[name][1].from_pretrained(folder, trust_remote_code=True), load_model(folder)):
            torch.testing.assert_close(
                outputs(loaded.eval(), ids[None])[0], outputs(model.eval(), ids[None])[0], **TOLERANCE
            )
    names = {path.name for path in (tmp_path / "end").iterdir()}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl")) and name != "training_args.bin"]


@pytest.fixture(scope="module")
def exported(bundles, tmp_path_factory):
    """A bundle of K = 8 < E, exported dense and factorised by the command line."""
    root = tmp_path_factory.mktemp("exported")
    for kind in ("false", "true"):
        flags = ["--method", "ofa", "--output", str(root / kind), "--factorised", kind, "--pad_to_multiple_of", "16"]
        main(["export", "--bundle", str(bundles["bert8"]), *flags])
    return root


def test_an_export_is_dense_or_factorised(bundles, exported, capsys):
    bundle = Bundle.load(bundles["bert8"])
    dense, model = load_model(exported / "false"), load_model(exported / "true")
    assert not is_factorised(dense)
    rows = read_rows(model)
    assert rows.input_rows.shape[1] == bundle.meta.input_dim == 8
    new = read_new_rows(exported / "true")
    old = read_vocabulary(dense)
    product = rows.input_rows @ bundle.input_primitives
    np.testing.assert_allclose(product[new], old.input_rows[new], atol=1e-5)
    np.testing.assert_array_equal(rows.bias, old.bias)
    copies = np.setdiff1d(np.arange(bundle.meta.target_tokens), new)
    assert np.abs(product[copies] - old.input_rows[copies]).max() > 0.01  # dense copies are the source's own rows
    size, width = old.input_rows.shape
    assert parameter_count(dense) - parameter_count(model) == size * width - 8 * (size + width)
    manifest = json.loads((exported / "true" / "manifest.json").read_text())
    assert manifest["parameters"] == parameter_count(model)
    assert "trust_remote_code=True" in (exported / "true" / "README.md").read_text()
    assert "trust_remote_code" not in (exported / "false" / "README.md").read_text()
    found = export(bundles["bert8"], "mean", exported / "again", factorised=True)
    assert str(found).endswith(f"factorised, {parameter_count(load_model(exported / 'again')):,} parameters")


def test_verify_knows_its_rows(exported, tmp_path):
    folder = exported / "true"
    assert verify(folder).intact
    model = load_model(folder)
    with torch.no_grad():
        factor_owners(model)[0].coordinates[7] += 1
    before = (folder / "model.safetensors").read_bytes()
    model.save_pretrained(tmp_path)
    (folder / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    try:
        assert "1 input rows: 7" in verify(folder).summary()
    finally:
        (folder / "model.safetensors").write_bytes(before)


def test_the_commands_take_it(exported, bundles, tmp_path):
    """Evaluate it, measure its safety, and train it in two phases: phase one moves coordinates of new rows alone."""
    folder, source = exported / "true", Bundle.load(bundles["bert8"]).meta.source_model
    text = tmp_path / "text.txt"
    text.write_text("\n".join(ENGLISH + GERMAN) + "\n", encoding="utf-8")
    assert evaluate(folder, source, text=[text])["shift"]["kl_mean"]["text"] >= 0
    before = read_rows(load_model(folder))
    primitives = factor_owners(load_model(folder))[0].primitives
    flags = ["--training.new_steps", "3", "--training.steps", "0", "--training.learning_rate", "0.01"]
    flags += ["--training.block_size", "32", "--training.batch_size", "4", "--trainer.accelerator", "cpu"]
    main(["pretrain", "--model", str(folder), "--text", str(text), "--output", str(tmp_path / "out"), *flags])
    trained = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", trust_remote_code=True)
    after = read_rows(trained)
    moved = np.flatnonzero((after.input_rows != before.input_rows).any(1))
    assert set(moved.tolist()) <= set(read_new_rows(folder).tolist())
    assert len(moved) > 10
    assert torch.equal(factor_owners(trained)[0].primitives, primitives)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == Bundle.load(bundles["bert8"]).meta.target_tokens


def test_mistakes(bundles, tmp_path):
    with pytest.raises(InputError, match="factorised=True: expected a bundle of fewer coordinates than the 24 columns"):
        export(bundles["bert"], "ofa", tmp_path / "out", factorised=True)
    good = np.zeros((SIZE, DIM), np.float32), np.zeros((DIM, 16), np.float32)
    with pytest.raises(InputError, match="output_primitives: expected none for this model"):
        factorise(build("gpt2"), np.zeros((SIZE, 2 * DIM)), good[1], good[1])
    with pytest.raises(InputError, match="output_primitives: expected some for this model"):
        factorise(build("llama", False), *good)
    with pytest.raises(InputError, match="expected width 5 and primitives of width 16, found 6 and 16"):
        factorise(build("gpt2"), np.zeros((SIZE, 6)), good[1])
    with pytest.raises(InputError, match="coordinates: expected at most 37 rows, found 38"):
        factorise(build("gpt2"), np.zeros((38, DIM)), good[1])
    _, model = make("gpt2")
    with pytest.raises(InputError, match=r"expected token embeddings in an nn.Embedding, found FactorisedEmbedding"):
        factorise(model, *good)
    separate = FAMILIES["bart"][1].from_config(
        transformers.AutoConfig.for_model("bart", vocab_size=SIZE, **SPECIALS, **BART, tie_word_embeddings=False)
    )
    with torch.no_grad():
        for part in (separate.model.encoder, separate.model.decoder):
            part.embed_tokens.weight.copy_(separate.model.shared.weight)
    with pytest.raises(
        InputError, match=r"BartForConditionalGeneration is not supported: .*is a vocabulary of its own"
    ):
        factorise(separate, np.zeros((SIZE, 2 * DIM)), good[1], good[1])
    with pytest.raises(AttributeError, match="has no attribute nothing"):
        _ = hyperofa.nothing
