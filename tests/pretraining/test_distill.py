"""Knowledge distillation: what is held out, the loss, the phases, resuming, processes, several models."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.models.loading import encode, load_model
from hyperofa.models.objectives import longest
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.pretraining.distill import distill
from hyperofa.pretraining.language_files import files_by_language
from hyperofa.pretraining.pairs import PairBatches, ParallelCorpus, Reader, tokenise_pairs
from hyperofa.pretraining.sentence_encoder import SentenceDistillation, distillation_losses, sentence_vectors
from hyperofa.pretraining.settings import DistillationLoss, EvaluationOptions
from hyperofa.pretraining.trainer import Saving
from hyperofa.training.samplers import Draw
from tests import forked
from tests.conftest import CONFIGS, ENGLISH, GERMAN
from tests.pretraining.conftest import QUIET, Interrupted, interrupt, small


@pytest.fixture(scope="module")
def world(model_folders, tmp_path_factory):
    """A learner whose rows are not its teacher's, and parallel text in two languages, one of them the source."""
    root = tmp_path_factory.mktemp("distillation")
    model = AutoModelForMaskedLM.from_pretrained(model_folders["xlmr"])
    tokenizer = AutoTokenizer.from_pretrained(model_folders["xlmr"])
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # else all sentences have nearly the same vector
            if "LayerNorm" in name or "layer_norm" in name:
                parameter.fill_(name.endswith("weight"))
        rows = model.get_input_embeddings().weight
        rows.normal_(0, 1, generator=noise)
        for name in ("teacher", "learner"):
            model.save_pretrained(root / name)
            tokenizer.save_pretrained(root / name)
            rows[20:] += 2 * torch.randn(rows[20:].shape, generator=noise)
    origins = [f"{i}\t{'mean' if i >= 20 else 'copied'}\n" for i in range(len(tokenizer))]
    (root / "learner" / "provenance.tsv").write_text("id\torigin\n" + "".join(origins), encoding="utf-8")
    for language, texts in (("deu", GERMAN), ("eng", ENGLISH)):
        lines = [f"{one} {number}\t{other} {number}\n" for number in range(4)
                 for one, other in zip(ENGLISH, texts, strict=True)]  # fmt: skip
        (root / f"{language}.tsv").write_text("".join(lines), encoding="utf-8")
    return root


def given(world, **changes):
    arguments = {
        "model": world / "learner",
        "source_model": world / "teacher",
        "parallel": [f"deu={world / 'deu.tsv'}", f"eng={world / 'eng.tsv'}"],
        "training": small(
            steps=0, new_steps=6, block_size=64, batch_size=8, learning_rate=5e-5, new_learning_rate=1e-1
        ),
        "trainer": QUIET,
    }
    return arguments | changes


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    return distill(output=tmp_path_factory.mktemp("whole") / "out", **given(world))


def corpus_of(world, held_out=3):
    files = files_by_language([f"deu={world / 'deu.tsv'}", f"eng={world / 'eng.tsv'}"], "--parallel")
    return ParallelCorpus(files, {}, held_out, 0)


def test_sentences_are_held_out_with_all_their_translations(world):
    corpus = corpus_of(world)
    held = {language: [one for one, _ in corpus.pairs("val", language)] for language in ("deu", "eng")}
    assert sorted(held["deu"]) == sorted(held["eng"])
    assert len(set(held["deu"])) == 3
    for language, texts in (("deu", GERMAN), ("eng", ENGLISH)):
        pairs = [*corpus.pairs("train", language), *corpus.pairs("val", language)]
        assert len(pairs) == 4 * len(texts)
        assert {one for one, _ in corpus.pairs("train", language)}.isdisjoint(held["deu"])
    assert len(list(corpus_of(world, 10**6).pairs("val", "deu"))) == len({*ENGLISH}) * 4 // 10


def test_what_one_language_holds_out_another_does_not_train_on(world, tmp_path):
    """One has ten sentences, and holds out the lowest of these."""
    lowest = next(corpus_of(world, 1).pairs("val", "deu"))[0]
    lines = (world / "eng.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    others = [line for line in lines if not line.startswith(f"{lowest}\t")][:10]
    (tmp_path / "eng.tsv").write_text("".join(others), encoding="utf-8")
    files = files_by_language([f"deu={world / 'deu.tsv'}", f"eng={tmp_path / 'eng.tsv'}"], "--parallel")
    corpus = ParallelCorpus(files, {}, 1, 0)
    held = {one for language in files for one, _ in corpus.pairs("val", language)}
    assert len(held) == 2
    for language in files:
        assert held.isdisjoint(one for one, _ in corpus.pairs("train", language))


def test_a_batch_is_what_tokenizers_say(world, model_folders, tmp_path):
    learner, teacher = (AutoTokenizer.from_pretrained(model_folders[name]) for name in ("xlmr", "bert"))
    corpus = corpus_of(world)
    pairs = tokenise_pairs(corpus, Reader(learner, 9), Reader(teacher, 32), tmp_path / "text", own=True)
    batches = PairBatches(pairs.train, (learner.pad_token_id, teacher.pad_token_id))
    assert len(batches) == sum(batches.counts) == 8 * len(ENGLISH) - 6
    second = batches.counts[0] + 1
    batch = batches[Draw(np.array([0, second]), (0, 0))]
    texts = [next(iter(corpus.pairs("train", "deu"))), list(corpus.pairs("train", "eng"))[1]]
    for ids, mask, tokenizer, column, length in (
        (batch.ids, batch.mask, learner, 1, 9),
        (batch.source_ids, batch.source_mask, teacher, 0, 32),
    ):
        expected = tokenizer(
            [pair[column] for pair in texts], truncation=True, max_length=length, padding=True, return_tensors="pt"
        )
        assert torch.equal(ids, expected["input_ids"])
        assert torch.equal(mask, expected["attention_mask"])
    own = PairBatches(pairs.train, (1, 0), source_share=1.0)[Draw(np.array([0]), (0, 0))]
    assert own.ids[0].tolist() == learner(texts[0][0], truncation=True, max_length=9)["input_ids"]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_do_not_depend_on_their_batch(world, pooling):
    model, tokenizer = load_model(world / "learner"), AutoTokenizer.from_pretrained(world / "learner")
    texts = [" ".join(ENGLISH[: 1 + number % 3]) for number in range(40)]
    most = longest(model, tokenizer, 128)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        found = sentence_vectors(model, ids, mask, -1, pooling)
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
    expected = encode(model, tokenizer, texts) if pooling == "mean" else normalize(hidden[:, 0], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_loss_by_hand():
    found = normalize(torch.tensor([[1.0, 0.2], [0.1, 1.0], [1.0, 0.9]]), dim=1)
    expected = normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), dim=1)
    ids = torch.tensor([[5, 6], [7, 0], [5, 6]])  # the third sentence is the first again
    losses, nearest = distillation_losses(found, expected, ids, DistillationLoss(temperature=0.5, cosine_weight=2.0))
    scores = found.double().numpy() @ expected.double().numpy().T
    rivals = [[1], [0, 2], [1]]
    for row, others in enumerate(rivals):
        own = math.exp(scores[row, row] / 0.5)
        contrast = -math.log(own / (own + sum(math.exp(scores[row, other] / 0.5) for other in others)))
        assert losses[row].item() == pytest.approx(contrast + 2 * (1 - scores[row, row]), rel=1e-5)
    assert nearest.tolist() == [True, True, True]
    alone, _ = distillation_losses(found, expected, ids, DistillationLoss(contrastive_weight=0))
    assert alone.tolist() == pytest.approx((1 - scores.diagonal()).tolist(), rel=1e-5)


def test_new_rows_alone_learn(world, whole):
    before, after = (load_file(folder / "model.safetensors") for folder in (world / "learner", whole.path))
    rows = "roberta.embeddings.word_embeddings.weight"
    assert sorted(before) == sorted(after)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [rows]
    assert torch.equal(before[rows][:20], after[rows][:20])
    assert [point.step for point in whole.curve] == [0, 2, 4, 6]
    assert whole.curve[-1].languages["eng"] < whole.curve[0].languages["eng"] - 0.05
    assert list(whole.curve[0].languages) == ["deu", "eng"]
    assert whole.curve[-1].pairs == 48
    assert 0 <= whole.curve[0].found <= 100
    assert str(whole).startswith("before step       0  distillation loss ")


def test_the_curve_is_the_loss_of_what_is_held_out(world, whole):
    """Against the vectors that `evaluate` compares, a batch at a time."""
    settings, total = DistillationLoss(), []
    models = [
        (load_model(world / name), AutoTokenizer.from_pretrained(world / name)) for name in ("learner", "teacher")
    ]
    corpus = corpus_of(world, held_out=500)
    for language in ("deu", "eng"):
        pairs = list(corpus.pairs("val", language))
        own = []
        for start in range(0, len(pairs), 8):
            sentences, translations = zip(*pairs[start : start + 8], strict=True)
            found, expected = encode(*models[0], translations), encode(*models[1], sentences)
            ids = models[1][1](list(sentences), padding=True, return_tensors="pt")["input_ids"]
            own += distillation_losses(found, expected, ids, settings)[0].tolist()
        assert whole.curve[0].languages[language] == pytest.approx(np.mean(own), rel=2e-2)
        total += own
    assert whole.curve[0].loss == pytest.approx(np.mean(total), rel=2e-2)


def test_all_parameters_learn_after_that(world, tmp_path):
    loss = DistillationLoss(source_share=0.5)
    training = small(
        steps=4, new_steps=2, block_size=64, batch_size=6, new_learning_rate=1e-1, learning_rate=1e-2, save_every=2
    )
    trained = distill(output=tmp_path / "out", **given(world, loss=loss, training=training))
    before, kept, after = (
        load_file(folder / "model.safetensors")
        for folder in (world / "learner", trained.path / "checkpoints" / "step-2", trained.path)
    )
    rows = "roberta.embeddings.word_embeddings.weight"
    assert [name for name in before if not torch.equal(before[name], kept[name])] == [rows]
    changed = [name for name in before if not torch.equal(kept[name], after[name])]
    assert "roberta.encoder.layer.1.output.dense.weight" in changed
    assert not [name for name in changed if "lm_head" in name]  # no sentence vector reads it
    assert trained.curve[-1].loss < trained.curve[0].loss - 0.05


@pytest.mark.parametrize(("owner", "name", "calls"), [
    (SentenceDistillation, "training_step", 0), (SentenceDistillation, "training_step", 3),
    (Saving, "on_train_epoch_end", 1),
])  # fmt: skip
def test_the_same_call_goes_on(owner, name, calls, world, whole, tmp_path, monkeypatch):
    interrupt(monkeypatch, owner, name, calls)
    with pytest.raises(Interrupted):
        distill(output=tmp_path / "out", **given(world))
    monkeypatch.undo()
    distill(output=tmp_path / "out", **given(world))
    for file in ("model.safetensors", "curve.json", "curve.csv"):
        assert (tmp_path / "out" / file).read_bytes() == (whole.path / file).read_bytes()
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_two_processes_teach_one_model(world, tmp_path):
    """DDP on two CPU processes through the command line, with a head that no sentence vector reads."""
    command = ["distill", "--config", str(CONFIGS / "distill.yaml"), "--model", str(world / "learner")]
    command += ["--source_model", str(world / "teacher"), "--parallel", f"deu={world / 'deu.tsv'}"]
    command += ["--parallel", f"eng={world / 'eng.tsv'}", "--output", str(tmp_path / "out")]
    command += [
        "--training.new_steps=1",
        "--training.steps=1",
        "--training.evaluate_every=1",
        "--training.batch_size=4",
    ]
    command += [
        "--trainer.accelerator=cpu",
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
        "--trainer.progress=false",
    ]
    forked.run(lambda: main(command), tmp_path / "work", processes=2)
    with (tmp_path / "out" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["pairs"]) for row in rows] == [("0", "0"), ("1", "8"), ("2", "16")]
    settings = json.loads((tmp_path / "out" / "distillation.json").read_text())
    assert settings["source_model"] == str(world / "teacher")
    assert settings["loss"] == {
        "temperature": 0.05, "contrastive_weight": 1.0, "cosine_weight": 1.0, "source_share": 0.0, "layer": -1
    }  # fmt: skip


def test_several_models_are_compared(world, whole, tmp_path, test_data):
    """From folders and from memory; evaluated on the way against the teacher."""
    learner = load_model(world / "learner"), AutoTokenizer.from_pretrained(world / "learner")
    worse = load_model(world / "learner")
    with torch.no_grad():
        worse.get_input_embeddings().weight[20:].normal_(0, 1, generator=torch.Generator().manual_seed(0))
    models = {"ofa": (worse, learner[1]), "ours": learner}
    rows = read_vocabulary(learner[0]).input_rows
    found = distill(
        output=tmp_path / "out",
        **given(
            world, model=models, new_rows=list(range(20, len(rows))),
            evaluation=EvaluationOptions(data=test_data, every=6, sentences=2, tasks=["retrieval"]),
        ),
    )  # fmt: skip
    assert found.comparison.measure == "distillation loss"
    assert str(found).startswith("distillation loss")
    assert [point.loss for point in found["ours"].curve] == [point.loss for point in whole.curve]
    assert found["ours"].curve[-1].scores["SR-B"]["top1"].keys() == {"deu", "eng"}
    np.testing.assert_array_equal(read_vocabulary(learner[0]).input_rows, rows)
    assert "distillation_loss deu" in (tmp_path / "out" / "curves.csv").read_text()


def test_modules_of_sentence_transformers_stay(world, model_folders, tmp_path):
    """And its card says so; a model whose vector is that of the first token learns that one."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    for name in ("learner", "teacher"):
        folder = tmp_path / name
        load_model(world / name).save_pretrained(folder)
        AutoTokenizer.from_pretrained(world / name).save_pretrained(folder)
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    arguments = given(world, model=tmp_path / "learner", source_model=tmp_path / "teacher", new_rows=[30, 31])
    trained = distill(output=tmp_path / "out", **arguments)
    assert json.loads((trained.path / "modules.json").read_text()) == modules
    told = metadata_load(trained.path / "README.md")
    assert (told["library_name"], told["pipeline_tag"]) == ("sentence-transformers", "sentence-similarity")
    assert "knowledge-distillation" in told["tags"]
    text = (trained.path / "README.md").read_text(encoding="utf-8")
    assert "# learner, distilled" in text
    assert "after 6 more steps of distillation, the first 6 of them of its new rows alone" in text
    by_mean = distill(output=tmp_path / "mean", **given(world, new_rows=[30, 31]))
    assert trained.curve[0].loss != by_mean.curve[0].loss


def test_mistakes(world, model_folders, tmp_path):
    output = tmp_path / "out"
    (tmp_path / "one.tsv").write_text("a\tb\na\tc\n")
    (tmp_path / "text.txt").write_text("a\n")
    for changes, message in (
        ({"parallel": [tmp_path / "none.tsv"]}, r"parallel .*none.tsv: expected a text file, found none"),
        ({"parallel": [tmp_path / "text.txt"]}, r"parallel .*text.txt line 1: expected a source sentence, a tab"),
        ({"parallel": [tmp_path / "one.tsv"]}, "parallel: expected at least 2 different source sentences.* found 1"),
        ({"parallel": []}, "parallel: expected files of text, found none"),
        ({"validation_pairs": 0}, "validation_pairs: expected at least 1, found 0"),
        ({"source_model": tmp_path / "none"}, "source_model .*expected a folder or hub id with a Hugging Face model"),
        ({"model": model_folders["bert"]}, "training.new_steps: expected provenance.tsv"),
        ({"loss": DistillationLoss(layer=7)}, "loss.layer: expected a number from -3 to 2, found 7"),
        ({"new_rows": [3, 10**6]}, r"new_rows: expected ids from 0 to \d+, .* found 3 to 1000000"),
        ({"new_rows": [-1]}, "new_rows: expected ids from 0 .* found -1 to -1"),
        ({"baseline": "x"}, "baseline: expected one of the models .*, found x"),
        ({"validation_parallel": [world / "deu.tsv"], "validation_pairs": 3}, "validation_pairs: expected none but"),
        ({"training": small(steps=0, new_steps=2, learning_rate=0.3, new_learning_rate=0.1)}, "training.learning_rate"),
        ({"output": world / "teacher"}, "expected a folder apart from the input|already exists"),
    ):
        with pytest.raises(InputError, match=message):
            distill(**{"output": output} | given(world, **changes))
        assert not list(output.rglob("*.safetensors"))
    with pytest.raises(InputError, match="expected one above 0, found both 0"):
        DistillationLoss(contrastive_weight=0, cosine_weight=0)
