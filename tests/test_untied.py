"""Untied output embeddings and expansion through the whole pipeline: prepare, fit, export, load with transformers."""

import csv

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.export import export
from hyperofa.models.expand import expand
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.tokens.canonical import load_tokenizer
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.language_loss import HeadError
from hyperofa.training.module import HyperModule
from hyperofa.training.text_views import VIEWS, ViewCounts
from tests import zoo
from tests.conftest import CONFIGS, ENGLISH, QUIET, SPECIALS, train_byte_level, train_wordpiece, wrap

SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
UNTIED = ("llama", "gpt-neox")
FAMILIES = ("bert", "gpt2", "llama", "gpt-neox", "tied-llama")
METHODS = ("ofa", "ofa_tuned", "subtokens", "mean", "random")
NEW = ["Fluss", "Großmutter", "hydrogel", "Stadt"]
_EXTRA_ROWS = 7  # more rows than tokens, as in padded models


def make_model(name, vocabulary, tokenizer):
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    if name == "bert":
        return BertForMaskedLM(BertConfig(vocab_size=vocabulary, pad_token_id=tokenizer.pad_token_id, **SIZES))
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=24, n_layer=1, n_head=2, n_positions=64, **ids))
    if name == "gpt-neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=vocabulary, tie_word_embeddings=False, **SIZES, **ids))
    tied = name == "tied-llama"
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=tied, **SIZES, **ids))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    for name in FAMILIES:
        folder = root / name
        if name == "bert":
            wrap(train_wordpiece(ENGLISH), folder, **zoo.BERT)
        elif name == "llama":
            wrap(zoo.train_metaspace_bpe(normalised=True), folder, **zoo.LLAMA)
        else:
            wrap(train_byte_level(ENGLISH), folder, **SPECIALS)
        tokenizer = load_tokenizer(folder)
        torch.manual_seed(0)
        model = make_model(name, len(tokenizer) + _EXTRA_ROWS, tokenizer)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.3)
        model.save_pretrained(folder)
    return {name: root / name for name in FAMILIES}


def make_bundle(source, target, vector_file, output):
    return prepare(
        source_model=str(source),
        target_tokenizer=str(target),
        vectors=[str(vector_file)],
        source_languages=["eng"],
        output=output,
    )


@pytest.fixture(scope="module")
def replaced(sources, tokenizer_folders, vector_file, tmp_path_factory):
    """Bundles that replace the vocabulary of the untied models."""
    root = tmp_path_factory.mktemp("replaced")
    target = tokenizer_folders["unigram"]
    return {name: make_bundle(sources[name], target, vector_file, root / name) for name in UNTIED}


@pytest.fixture(scope="module")
def expanded(sources, vector_file, tmp_path_factory):
    """Bundles that add four words to each model."""
    root = tmp_path_factory.mktemp("expanded")
    (root / "words.txt").write_text("\n".join(NEW), encoding="utf-8")
    for name, source in sources.items():
        expand(str(source), root / "tokenizers" / name, words=root / "words.txt")
    return {
        name: make_bundle(source, root / "tokenizers" / name, vector_file, root / name)
        for name, source in sources.items()
    }


def fit(bundle, folder, net):
    flags = ["--data.bundle", str(bundle.path), "--trainer.logger.init_args.save_dir", str(folder), *QUIET]
    flags += ["--model.net", f"hyperofa.nets.{net}", "--model.net.init_args.hidden_dim", "8"]
    main(["fit", "--config", str(CONFIGS / "tokens.yaml"), *flags, "--trainer.max_epochs", "1"])
    return next(folder.rglob("*.ckpt"))


@pytest.fixture(scope="module")
def checkpoints(replaced, expanded, tmp_path_factory):
    """A short run for each net on the untied Llama, and one on an expanded model."""
    root = tmp_path_factory.mktemp("runs")
    return {
        "SourceAttention": fit(replaced["llama"], root / "attention", "SourceAttention"),
        "MLP": fit(replaced["llama"], root / "mlp", "MLP"),
        "expanded": fit(expanded["llama"], root / "expanded", "SourceAttention"),
    }


def load(folder):
    loader = AutoModelForMaskedLM if "bert" in str(folder) else AutoModelForCausalLM
    return read_vocabulary(loader.from_pretrained(folder))


@pytest.mark.parametrize("name", UNTIED)
class TestReplacement:
    def test_the_bundle_has_coordinates_of_both_sides(self, replaced, sources, name):
        bundle, source = replaced[name], load(sources[name])
        assert bundle.meta.output_dim > 0
        inputs, outputs = bundle.rows(bundle.coordinates)
        np.testing.assert_allclose(inputs, source.input_rows, atol=1e-4)
        np.testing.assert_allclose(outputs, source.output_rows, atol=1e-4)

    @pytest.mark.parametrize("method", METHODS)
    def test_output_rows_follow_the_rule_of_the_input_rows(self, replaced, sources, tmp_path, name, method):
        export(replaced[name].path, method, tmp_path / "out")
        source, found = load(sources[name]), load(tmp_path / "out")
        assert not found.tied
        assert found.output_rows is not None
        origins = read_origins(tmp_path / "out")
        mixtures = read_mixtures(tmp_path / "out", replaced[name])
        for token, mixture in mixtures.items():
            scale = 1.0
            expected = [
                sum(w * rows[s] for s, w in mixture.items()) for rows in (source.input_rows, source.output_rows)
            ]
            if method == "ofa_tuned" and origins[token] == "predicted":
                # One length for a row's input and output coordinates together.
                scale = np.linalg.norm(found.input_rows[token]) / np.linalg.norm(expected[0])
            np.testing.assert_allclose(found.input_rows[token], scale * expected[0], atol=2e-3)
            np.testing.assert_allclose(found.output_rows[token], scale * expected[1], atol=2e-3)
        assert len(mixtures) > 50
        if method == "mean":
            new = [token for token, origin in origins.items() if origin == "predicted"]
            middle = source.output_rows.mean(0)
            np.testing.assert_allclose(found.output_rows[new], np.tile(middle, (len(new), 1)), atol=1e-4)
        if method == "random":
            new = [token for token, origin in origins.items() if origin == "predicted"]
            assert found.output_rows[new].std() == pytest.approx(source.output_rows.std(), rel=0.1)
            assert abs(np.corrcoef(found.output_rows[new].ravel(), found.input_rows[new].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("net", ["SourceAttention", "MLP"])
def test_a_hypernetwork_predicts_both_sides(replaced, checkpoints, tmp_path, net):
    result = export(replaced["llama"].path, "hyperofa", tmp_path / "out", checkpoint=[checkpoints[net]])
    assert result.counts["predicted"] > 0
    found, origins = load(tmp_path / "out"), read_origins(tmp_path / "out")
    new = [token for token, origin in origins.items() if origin == "predicted"]
    assert not found.tied
    assert len(np.unique(found.output_rows[new], axis=0)) > 1
    assert not np.allclose(found.output_rows[new], found.input_rows[new], atol=1e-2)


@pytest.mark.parametrize("name", FAMILIES)
class TestExpansion:
    @pytest.mark.parametrize("method", ["ofa", "mean", "subtokens"])
    def test_old_rows_stay_to_the_bit(self, expanded, sources, tmp_path, name, method):
        folder = tmp_path / name
        result = export(expanded[name].path, method, folder)
        self._compare(sources[name], folder)
        size = len(load_tokenizer(sources[name]))
        assert result.counts["copied"] == size
        tokenizer = load_tokenizer(folder)
        ids = tokenizer("the hydrogel, the Stadt", add_special_tokens=False)["input_ids"]
        assert sum(token >= size for token in ids) == 2

    @staticmethod
    def _compare(source, folder):
        old, new = load(source), load(folder)
        size = len(load_tokenizer(source))
        assert new.tied == old.tied
        assert len(new.input_rows) == len(load_tokenizer(folder)) > size
        assert np.array_equal(new.input_rows[:size], old.input_rows[:size])
        if old.output_rows is not None:
            assert np.array_equal(new.output_rows[:size], old.output_rows[:size])
        if old.bias is not None:
            assert np.array_equal(new.bias[:size], old.bias[:size])
            np.testing.assert_allclose(new.bias[size:], old.bias.mean(), rtol=1e-5)

    def test_every_old_token_is_paired_with_itself(self, expanded, sources, name):
        bundle = expanded[name]
        size = len(load_tokenizer(sources[name]))
        assert bundle.expands
        pairs = bundle.overlap.choose()
        old = pairs.target_ids < size
        assert np.array_equal(pairs.target_ids[old], np.arange(size))
        assert np.array_equal(pairs.source_ids[old], np.arange(size))

    def test_texts_without_new_words_give_the_same_logits_of_old_tokens(self, expanded, sources, tmp_path, name):
        folder = tmp_path / name
        export(expanded[name].path, "mean", folder)
        loader = AutoModelForMaskedLM if name == "bert" else AutoModelForCausalLM
        models = [loader.from_pretrained(path).eval() for path in (sources[name], folder)]
        tokenizers = [load_tokenizer(path) for path in (sources[name], folder)]
        size = len(tokenizers[0])
        with torch.no_grad():
            old, new = (
                model(**tokenizer(ENGLISH[0], return_tensors="pt", return_token_type_ids=False)).logits[..., :size]
                for model, tokenizer in zip(models, tokenizers, strict=True)
            )
        assert torch.equal(old, new) or torch.allclose(old, new, atol=1e-6)


def test_a_hypernetwork_keeps_old_rows_too(expanded, sources, checkpoints, tmp_path):
    folder = tmp_path / "llama"
    result = export(expanded["llama"].path, "hyperofa", folder, checkpoint=[checkpoints["expanded"]])
    TestExpansion._compare(sources["llama"], folder)
    assert result.counts["predicted"] >= 2
    asked = export(
        expanded["llama"].path,
        "hyperofa",
        folder,
        checkpoint=[checkpoints["expanded"]],
        copied=["role"],
        overwrite=True,
    )
    assert asked.counts == result.counts
    TestExpansion._compare(sources["llama"], folder)


def test_untied_metrics_are_logged_for_each_side(checkpoints):
    lines = (
        next(checkpoints["SourceAttention"].parents[1].rglob("metrics.csv")).read_text(encoding="utf-8").splitlines()
    )
    assert {"val/cosine", "val/input_cosine", "val/output_cosine", "val/output_mrr"} <= set(lines[0].split(","))


def test_sentence_vectors_alone_would_leave_the_output_rows_untrained(replaced, text_file):
    data = HyperDataModule(str(replaced["llama"].path), [str(text_file)], judges="sentence")
    data.setup("fit")
    assert set(data.train_dataloader()) == {"tokens", "text"}


@pytest.mark.parametrize("name", UNTIED)
def test_a_language_model_trains_output_rows_on_text_alone(replaced, text_file, tmp_path, name):
    flags = ["--data.bundle", str(replaced[name].path), "--data.text", str(text_file), "--model.learning_rate", "1e-2"]
    flags += [
        "--data.steps=6",
        "--data.language_views.translated=8",
        "--data.language_views.target=4",
        "--data.negatives=9",
    ]
    flags += ["--trainer.max_epochs", "5", "--model.net.init_args.hidden_dim", "8", "--model.precision", "float32"]
    main(
        [
            "fit",
            "--config",
            str(CONFIGS / "fit.yaml"),
            *flags,
            "--trainer.logger.init_args.save_dir",
            str(tmp_path),
            *QUIET,
        ]
    )
    (best,) = tmp_path.rglob("best.ckpt")
    with next(tmp_path.rglob("metrics.csv")).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    nats = [float(row["val/translated_nats"]) for row in rows if row["val/translated_nats"]]
    scores = [float(row["val/score"]) for row in rows if row["val/score"]]
    german = [float(row["val/translated_nats/deu"]) for row in rows if row["val/translated_nats/deu"]]
    assert german == pytest.approx(nats)
    assert not any(row.get("train/token_loss") for row in rows)
    assert scores == pytest.approx([-value for value in nats])
    assert min(nats) < nats[0] - 0.05
    weights, width = torch.load(best, weights_only=True)["state_dict"], replaced[name].meta.input_dim
    # But for the rows of languages, they are zero before training.
    for part in ("correction.1.2.weight", "frequency_row", "form_rows", "language_rows"):
        dim = 1 if part in ("form_rows", "language_rows") else 0
        inputs, outputs = weights[f"net.{part}"].split(width, dim=dim)
        assert inputs.abs().sum() > 0
        assert outputs.abs().sum() > 0
    # What the checkpoint says of its net holds where no text says that a language model judged.
    main(["test", "--config", str(CONFIGS / "tokens.yaml"), *flags[:2], "--ckpt_path", str(best), *QUIET,
          "--model.net", "SourceAttention", "--model.net.hidden_dim", "8",
          "--trainer.logger.init_args.save_dir", str(tmp_path / "test")])  # fmt: skip


def test_who_can_judge_text(sources, replaced, tokenizer_folders, vector_file, text_file, tmp_path):
    """Sentence vectors where a model has no head; its own predictions where it is causal; both where it is masked."""

    def data(bundle, **settings):
        module = HyperDataModule(str(bundle), [str(text_file)], **settings)
        return module.objective, module._sees_sentences, module.copied

    causal = replaced["gpt-neox"].path
    assert data(causal) == ("causal", False, ("role", "symbol", "native"))
    assert data(causal, judges="both") == ("causal", True, ("role", "symbol", "native"))
    assert data(causal, judges="sentence") == (None, True, ("role", "symbol", "native"))
    assert data(causal, judges="sentence", copied=["exact"]) == (None, True, ("exact",))
    BertModel(BertConfig(vocab_size=len(load_tokenizer(sources["bert"])), **SIZES)).save_pretrained(tmp_path / "body")
    load_tokenizer(sources["bert"]).save_pretrained(tmp_path / "body")
    body = make_bundle(tmp_path / "body", tokenizer_folders["unigram"], vector_file, tmp_path / "bundle").path
    assert data(body) == (None, True, ("role", "symbol", "native"))
    with pytest.raises(InputError, match=r"judges='language': expected a causal language model, or a masked one"):
        data(body, judges="language")
    masked = make_bundle(sources["bert"], tokenizer_folders["unigram"], vector_file, tmp_path / "masked").path
    assert data(masked) == ("masked", True, ("role", "symbol", "native"))
    assert data(masked, judges="language") == ("masked", False, ("role", "symbol", "native"))


@pytest.mark.parametrize("tied", [True, False])
def test_an_encoder_decoder_is_taught_to_say_hidden_spans(
    tied, sources, tokenizer_folders, vector_file, text_file, tmp_path
):
    for name, folder in (("source", sources["gpt2"]), ("target", tokenizer_folders["unigram"])):
        tokenizer = load_tokenizer(folder)
        tokenizer.add_tokens([f"<extra_id_{number}>" for number in range(4)], special_tokens=True)
        tokenizer.save_pretrained(tmp_path / name)
    sizes = {"d_model": 24, "d_kv": 12, "d_ff": 32, "num_layers": 1, "num_heads": 2, "tie_word_embeddings": tied}
    ids = {"pad_token_id": tokenizer.pad_token_id, "decoder_start_token_id": tokenizer.pad_token_id}
    source = load_tokenizer(tmp_path / "source")
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(source), **sizes, **ids))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "source")
    bundle = make_bundle(tmp_path / "source", tmp_path / "target", vector_file, tmp_path / "bundle")
    views = ViewCounts(translated=8, target=4)
    settings = {"steps": 6, "sentences": 4, "language_views": views}
    data = HyperDataModule(str(bundle.path), [str(text_file)], views=views, **settings)
    assert (data.objective, data._sees_sentences) == ("spans", True)
    data = HyperDataModule(str(bundle.path), [str(text_file)], judges="language", **settings)
    assert not data._sees_sentences
    module = HyperModule(data.word_dim, data.coordinate_dim, precision="float32", learning_rate=1e-2)
    nats = []
    keep = LambdaCallback(on_train_epoch_end=lambda fit, _: nats.append(fit.callback_metrics["train/translated_nats"]))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    trainer = Trainer(max_epochs=8, accelerator="cpu", use_distributed_sampler=False, callbacks=[keep], **quiet)
    trainer.fit(module, data)
    assert nats[-1] < nats[0] - 0.1
    # Without sentinels in the target vocabulary nothing can be hidden.
    plain = make_bundle(tmp_path / "source", tokenizer_folders["unigram"], vector_file, tmp_path / "plain")
    assert HyperDataModule(str(plain.path), [str(text_file)]).objective is None
    with pytest.raises(InputError, match=r"or one of T5's kind and its <extra_id_0>, <extra_id_1> and pad token there"):
        HyperDataModule(str(plain.path), [str(text_file)], judges="language")


def test_a_head_that_takes_no_other_rows_leaves_the_text_to_sentence_vectors(replaced, text_file, monkeypatch):
    def refuse(model):
        raise HeadError("it is odd")

    said = []
    monkeypatch.setattr("hyperofa.training.plm_loss.Head", refuse)
    monkeypatch.setattr("hyperofa.training.module.rank_zero_warn", said.append)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    for judges in ("auto", "language"):
        data = HyperDataModule(str(replaced["llama"].path), [str(text_file)], steps=1, judges=judges)
        module = HyperModule(data.word_dim, data.coordinate_dim, precision="float32")
        trainer = Trainer(max_epochs=1, use_distributed_sampler=False, enable_model_summary=False, **quiet)
        if judges == "language":
            with pytest.raises(InputError, match="it is odd"):
                trainer.fit(module, data)
            continue
        trainer.fit(module, data)
        assert said == ["Sentence vectors alone judge the text. it is odd"]
        assert (data.objective, data.copied) == (None, ("role", "symbol", "native"))
        assert set(data.train_dataloader()) == {"tokens", "text"}
        assert {"train/translated_loss", "val/score"} <= trainer.callback_metrics.keys()


def test_parallel_text_is_for_language_models_too(replaced, text_file, tmp_path):
    bundle = str(replaced["llama"].path)
    with pytest.raises(InputError, match=r"parallel: expected .* language_views\.parallel"):
        HyperDataModule(bundle, [str(text_file)], language_views=ViewCounts(parallel=3))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the river\tder Fluss\nthe rain\tder Regen\n", encoding="utf-8")
    data = HyperDataModule(bundle, [str(text_file)], parallel=[str(pairs)], views=ViewCounts(parallel=5))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()["text"]))
    assert len(batch.owners) == 0  # a causal model's sentence vectors judge nothing
    assert dict(zip(VIEWS, batch.language.counts, strict=True))["parallel"] > 5


def read_origins(folder):
    lines = (folder / "provenance.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {token: line.split("\t")[2] for token, line in enumerate(lines)}


def read_mixtures(folder, bundle):
    """Weights of source tokens by target token, from the table of origins."""
    ids = bundle.tokenizer("source").get_vocab()
    mixtures = {}
    for token, line in enumerate((folder / "provenance.tsv").read_text(encoding="utf-8").splitlines()[1:]):
        fields = line.split("\t")
        parts = [part.rpartition(":") for part in fields[6].split(" ")] if fields[6] else []
        if parts and '"' not in line:
            mixtures[token] = {ids[name]: float(weight) for name, _, weight in parts}
    return mixtures


def test_bundles_open_again(expanded):
    assert Bundle.load(expanded["gpt2"].path).expands
