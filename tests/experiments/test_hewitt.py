"""Hewitt's experiment on a tiny causal model that speaks: who ruins it, who does not, and what training mends."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hyperofa.bundle.prepare import prepare
from hyperofa.cli import main
from hyperofa.demo.world import parallel_sentences
from hyperofa.errors import InputError
from hyperofa.experiments.hewitt import hewitt
from hyperofa.export.export import export
from hyperofa.methods.registry import compared_by
from hyperofa.models.expand import expand
from hyperofa.models.loading import load_model
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.pretraining.corpus import tokenise_lines
from hyperofa.pretraining.language_model import train
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.pretraining.settings import TrainerOptions, Training
from tests.conftest import CONFIGS, SPECIALS, train_byte_level, wrap, write_vectors

QUIET = TrainerOptions(accelerator="cpu", progress=False)
SETTINGS = {"batch_size": 8, "block_size": 32, "learning_rate": 3e-3, "warmup_steps": 5}
METHODS = compared_by("hewitt")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """English sentences, random vectors for their words, and a GPT-2 that was trained on them for seconds.

    Its head is untied and moved along one direction, `W + 1 uᵀ`, which changes all logits of a context by the same h·u:
    no probability changes, but the logits are around -15, as those of GPT-2 are far below 0.
    """
    root = tmp_path_factory.mktemp("world")
    lines = [sentence["eng"] for sentence in parallel_sentences(600, np.random.default_rng(0))]
    (root / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    words = sorted({word.strip(".,?!").lower() for line in lines for word in line.split()} - {""})
    write_vectors(root / "words.vec", {f"eng:{word}": rng.standard_normal(8) for word in words})
    tokenizer = PreTrainedTokenizerFast.from_pretrained(wrap(train_byte_level(lines, 330), root / "model", **SPECIALS))
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=2, tie_word_embeddings=False, **sizes)
    )
    tokens = tokenise_lines(tokenizer, lines[60:], lines[:60])
    curve = train(model, tokenizer, tokens, Training(steps=120, evaluate_every=120, **SETTINGS), QUIET)
    assert curve[-1].loss < 0.9 * curve[0].loss
    with torch.no_grad():
        ids = torch.tensor([[0, *tokenizer(line, add_special_tokens=False)["input_ids"][:20]] for line in lines[:1]])
        before = model(input_ids=ids).logits.softmax(-1)
        states = [
            model.transformer(input_ids=torch.tensor([tokenizer(line)["input_ids"]]))[0][0] for line in lines[:50]
        ]
        hidden = torch.cat(states)
        model.lm_head.weight += torch.linalg.lstsq(hidden, torch.full((len(hidden), 1), -20.0)).solution.T
        logits = model(input_ids=ids).logits
        torch.testing.assert_close(logits.softmax(-1), before, atol=1e-4, rtol=1e-3)
    assert logits.logsumexp(-1).mean() < -8
    model.save_pretrained(root / "model")
    return root


@pytest.fixture(scope="module")
def result(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("hewitt") / "out"
    training = Training(steps=20, evaluate_every=10, **SETTINGS)
    return hewitt(
        str(world / "model"), [world / "text.txt"], [str(world / "words.vec")], output, count=20, epochs=1,
        training=training, trainer=QUIET,
    )  # fmt: skip


def test_zero_rows_ruin_the_model_and_mean_rows_do_not(result):
    assert list(result.curves) == METHODS
    assert len(result.words) == 20
    found = {method: safety.as_dict() for method, safety in result.safety.items()}
    for method in ("zeros", "small_noise"):
        assert found[method]["new_mass_mean"] > 0.9
        assert result.curves[method][0].perplexity > 10 * result.curves["mean"][0].perplexity
    for method in ("mean", "mean_noise"):
        assert found[method]["over_bound"] == 0
    assert all(numbers["setting"] == "expansion" for numbers in found.values())
    for curve in result.curves.values():
        assert [point.step for point in curve] == [0, 10, 20]
        assert np.isfinite([point.perplexity for point in curve]).all()
        assert curve[-1].perplexity < curve[0].perplexity
    assert "zeros" in str(result)


def test_all_methods_end_in_one_table_and_one_plot(result):
    with (result.path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [method for method in METHODS for _ in range(3)]
    assert (result.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    table = json.loads((result.path / "table.json").read_text())
    assert list(table["methods"]) == sorted(METHODS)
    assert table["words"] == result.words
    assert not (result.path / "models").exists()
    expanded = AutoTokenizer.from_pretrained(result.path / "tokenizer")
    assert all(len(expanded.tokenize(f" {word}")) == 1 for word in result.words)


def test_the_yaml_is_hewitts(world, tmp_path, capsys):
    settings = yaml.safe_load((CONFIGS / "hewitt.yaml").read_text())
    assert (settings["source_model"], settings["count"]) == ("gpt2", 100)
    assert "methods" not in settings  # the registry's records say which
    assert (settings["training"]["steps"], settings["training"]["evaluate_every"]) == (500, 20)
    flags = ["--source_model", str(world / "model"), "--text", str(world / "text.txt"), "--count", "3"]
    flags += ["--vectors", str(world / "words.vec"), "--output", str(tmp_path / "out"), "--methods", "mean", "ofa"]
    flags += ["--training.steps", "2", "--training.evaluate_every", "1", "--training.block_size", "16"]
    flags += ["--trainer.accelerator", "cpu", "--keep_models", "true"]
    main(["hewitt", "--config", str(CONFIGS / "hewitt.yaml"), *flags])
    assert "3 new words, 2 steps" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out" / "models").iterdir()) == ["mean", "ofa"]


def test_words_may_be_given(world, tmp_path):
    (tmp_path / "words.txt").write_text("zebras\nquokka\nnarwhals\n")
    found = hewitt(
        str(world / "model"), [world / "text.txt"], [str(world / "words.vec")], tmp_path / "out",
        words=tmp_path / "words.txt", count=2, methods=["mean"], training=Training(steps=1, **SETTINGS), trainer=QUIET,
    )  # fmt: skip
    assert found.words == ["zebras", "quokka"]


def generated_share(folder: Path, old_size: int) -> float:
    """Share of new tokens in sampled text, among the tokens before the end."""
    model, tokenizer = load_model(folder), AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    found = model.generate(
        torch.zeros((30, 1), dtype=torch.long), attention_mask=torch.ones((30, 1), dtype=torch.long),
        do_sample=True, max_new_tokens=20, pad_token_id=tokenizer.pad_token_id,
    )[:, 1:]  # fmt: skip
    real = found[found != tokenizer.pad_token_id]
    return (real >= old_size).float().mean().item()


def test_a_users_story(world, tmp_path):
    """Add the words of a domain, train 50 steps, generate: new tokens come as often as in the text, not in a flood."""
    source, text = str(world / "model"), [world / "text.txt"]
    expand(source, tmp_path / "tokenizer", text=text, count=40, min_pieces=2)
    prepare(source, str(tmp_path / "tokenizer"), [str(world / "words.vec")], tmp_path / "bundle")
    old_size = len(AutoTokenizer.from_pretrained(source))
    for method in ("zeros", "mean"):
        export(tmp_path / "bundle", method, tmp_path / method)
    assert generated_share(tmp_path / "zeros", old_size) > 0.9
    assert generated_share(tmp_path / "mean", old_size) < 0.3
    training = Training(new_steps=10, steps=40, evaluate_every=50, **SETTINGS)
    pretrain(str(tmp_path / "mean"), text, tmp_path / "trained", training=training, trainer=QUIET)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "trained")
    ids = [token for line in text[0].read_text().splitlines() for token in tokenizer(line)["input_ids"]]
    in_text = np.mean(np.array(ids) >= old_size)
    assert 0.02 < in_text < 0.5
    assert generated_share(tmp_path / "trained", old_size) < in_text + 0.15
    assert len(read_vocabulary(load_model(tmp_path / "trained")).input_rows) == len(tokenizer)


def test_mistakes(world, tmp_path):
    given = str(world / "model"), [world / "text.txt"], [str(world / "words.vec")], tmp_path / "out"
    with pytest.raises(InputError, match=r"methods: expected one of hyperofa, .*; found best"):
        hewitt(*given, methods=["best"])
    with pytest.raises(InputError, match="epochs: expected at least 1, found 0"):
        hewitt(*given, epochs=0)
    assert not (tmp_path / "out").exists()
