"""Continual pretraining: blocks and their bytes, two phases, the curve, resuming, processes."""

import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.pretraining.blocks import IGNORED, BlockBatches, BlockOrder, Blocks, SteppedBatches, frame_of
from hyperofa.pretraining.corpus import tokenise_lines
from hyperofa.pretraining.language_model import train
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.pretraining.runs import read_new_rows
from hyperofa.pretraining.settings import Training
from hyperofa.runtime.text_files import hold_out
from hyperofa.training.samplers import Draw
from tests import forked
from tests.conftest import CONFIGS
from tests.pretraining.conftest import LINES, QUIET, make_causal, small


def chunk(lines, tokenizer, length, objective):
    """All blocks of a text, and the text."""
    blocks = Blocks(tokenise_lines(tokenizer, lines, lines).train, frame_of(tokenizer, length, objective))
    return blocks[np.arange(len(blocks))]


def train_on(model, tokenizer, lines, held_out, training, new_rows=None):
    return train(model, tokenizer, tokenise_lines(tokenizer, lines, held_out), training, QUIET, new_rows)


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize("name", ["bytelevel", "unigram", "wordpiece"])
def test_blocks_hold_the_text_and_all_its_bytes(name, objective, tokenizer_folders):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folders[name])
    blocks = chunk(LINES, tokenizer, 10, objective)
    separator = tokenizer.eos_token_id if name != "wordpiece" else tokenizer.sep_token_id
    expected = [
        token for line in LINES for token in [*tokenizer(line, add_special_tokens=False)["input_ids"], separator]
    ]
    inner = slice(1, 10 if objective == "causal" else 9)
    assert blocks.ids[:-1, inner].ravel().tolist() == expected[: (len(blocks.ids) - 1) * (inner.stop - 1)]
    assert blocks.sizes.sum() == sum(len(line.encode()) + 1 for line in LINES)
    assert blocks.mask[:-1].all()
    rest = len(expected) - (len(blocks.ids) - 1) * (inner.stop - 1)
    assert blocks.mask[-1].sum() == 1 + rest + (objective == "masked")  # between the tokens that begin and end it
    assert not (blocks.is_target & ~blocks.mask).any()
    assert not blocks.is_target[:, 0].any()
    separators = (blocks.ids == separator) & blocks.mask
    assert separators[:, inner].sum() >= len(LINES)
    assert blocks.is_target[separators][:1].all() == (objective == "causal")
    assert blocks.is_target.sum() == len(expected) - (0 if objective == "causal" else len(LINES))


def test_tokens_that_share_a_character_share_its_bytes():
    letters = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(sorted(letters))}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    blocks = chunk(["aß€ z"], PreTrainedTokenizerFast(tokenizer_object=backend), 16, "causal")
    assert blocks.sizes[0, blocks.mask[0]].tolist() == [1, 2, 0, 3, 0, 0, 1, 1]  # no separator token, no newline


def test_steps_are_the_same_however_they_are_cut():
    def order(count):
        return BlockOrder([count], [1.0], 0)

    whole = [draw.items.tolist() for draw in SteppedBatches(order(5), 2, (0, 10), 0)]
    parts = [draw.items.tolist() for steps in ((0, 3), (3, 10)) for draw in SteppedBatches(order(5), 2, steps, 0)]
    assert whole == parts
    # As before there were several languages.
    assert whole == [[2, 4], [3, 0], [1, 1], [4, 3], [0, 2], [4, 2], [1, 0], [3, 3], [0, 2], [1, 4]]
    assert sorted(item for items in whole[:5] for item in items) == sorted([*range(5)] * 2)
    shared = [list(SteppedBatches(order(8), 2, (0, 2), 0, rank, 2)) for rank in (0, 1)]
    assert sorted(item for draws in shared for draw in draws for item in draw.items.tolist()) == list(range(8))
    assert len(SteppedBatches(order(5), 2, (3, 10), 0)) == 7


def test_masked_batches_ask_for_what_they_hide(tokenizer_folders):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folders["unigram"])
    text = Blocks(tokenise_lines(tokenizer, LINES * 5, LINES).train, frame_of(tokenizer, 12, "masked"))
    batch = BlockBatches(text, tokenizer.mask_token_id, None)[Draw(np.arange(6), (0, 1))]
    blocks = text[np.arange(6)]
    hidden = batch.labels != IGNORED
    assert (batch.ids[hidden] == tokenizer.mask_token_id).all()
    assert torch.equal(batch.labels[hidden], torch.from_numpy(blocks.ids[:6]).long()[hidden])
    assert torch.equal(batch.ids[~hidden], torch.from_numpy(blocks.ids[:6]).long()[~hidden])
    assert hidden.any(1).all()


def test_the_curve_is_the_models_own_loss(folders, tokenizer_folders):
    """Perplexity and bits per byte against the model's own loss on the same text, line by line."""
    model = load_model(folders["causal"])
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders["causal"])
    curve = train_on(model, tokenizer, LINES * 5, LINES[:1], small(steps=1, learning_rate=1e-9, block_size=64))
    ids = torch.tensor([[0, *tokenizer(LINES[0], add_special_tokens=False)["input_ids"], 2]])
    with torch.no_grad():
        loss = load_model(folders["causal"])(input_ids=ids, labels=ids).loss.item()
    assert [point.step for point in curve] == [0, 1]
    assert curve[0].loss == pytest.approx(loss, rel=1e-5)
    assert curve[0].perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    total = loss * (ids.shape[1] - 1)
    assert curve[0].bits_per_byte == pytest.approx(total / math.log(2) / (len(LINES[0].encode()) + 1), rel=1e-5)
    assert math.isnan(curve[0].train_loss)
    assert curve[1].loss == pytest.approx(curve[0].loss, rel=1e-3)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_phase_one_trains_new_rows_and_nothing_else(kind, folders):
    model, tokenizer = load_model(folders[kind]), PreTrainedTokenizerFast.from_pretrained(folders[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    used = sorted({token for line in LINES for token in tokenizer(line, add_special_tokens=False)["input_ids"]})
    new = np.array(used[3:9])
    curve = train_on(model, tokenizer, LINES * 5, LINES, small(steps=0, new_steps=6, weight_decay=0.5), new)
    old = np.setdiff1d(np.arange(len(read_vocabulary(model).input_rows)), new)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    embeddings = {"causal": {"transformer.wte.weight", "lm_head.weight"}}.get(
        kind,
        {"roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight", "lm_head.bias", "lm_head.decoder.bias"},
    )
    assert changed == embeddings
    for name in changed:
        assert torch.equal(model.state_dict()[name][old], before[name][old])
        assert (model.state_dict()[name][new] != before[name][new]).any()
    assert curve[-1].loss < curve[0].loss
    assert [point.step for point in curve] == [0, 2, 4, 6]


def test_phase_two_trains_everything(folders):
    model, tokenizer = load_model(folders["causal"]), PreTrainedTokenizerFast.from_pretrained(folders["causal"])
    before = {name: value.clone() for name, value in model.named_parameters()}
    curve = train_on(model, tokenizer, LINES * 5, LINES, small(steps=7, new_steps=2), np.array([9]))
    assert not [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert [point.step for point in curve] == [0, 2, 4, 6, 8, 9]
    assert curve[-1].loss < curve[1].loss - 0.2
    assert not model.training


def test_the_learning_rate_warms_up_twice_and_falls_to_zero():
    training = small(steps=10, new_steps=5, warmup_steps=3)
    rates = [training.rate(step) for step in range(15)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert rates[5:9] == pytest.approx([0.25, 0.5 * 0.9, 0.75 * 0.8, 0.7])
    assert rates[-1] == pytest.approx(0.1)
    assert training.rate(15) == 0


def test_dropout_and_order_follow_the_seed(folders):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folders["causal"])

    def run(seed):
        model = load_model(folders["causal"])
        train_on(model, tokenizer, LINES * 5, LINES, small(seed=seed))
        return read_vocabulary(model).input_rows

    np.testing.assert_array_equal(run(0), run(0))
    assert (run(0) != run(1)).any()


def test_a_model_folder_and_its_curve_are_written(folders, tmp_path, capsys):
    """By the command line, with provenance: old rows are bit-equal after phase one; plain transformers loads it."""
    source = tmp_path / "model"
    load_model(folders["causal"]).to(torch.bfloat16).save_pretrained(source)
    AutoTokenizer.from_pretrained(folders["causal"]).save_pretrained(source)
    size = len(AutoTokenizer.from_pretrained(source))
    with (source / "provenance.tsv").open("w", encoding="utf-8") as file:
        file.write("id\ttoken\torigin\n" + "".join(f"{i}\tt\t{'mean' if i > 300 else 'copied'}\n" for i in range(size)))
    np.testing.assert_array_equal(read_new_rows(source), np.arange(301, size))
    (tmp_path / "config.yaml").write_text(
        "training: {new_steps: 3, steps: 0, evaluate_every: 2, batch_size: 2, block_size: 24, learning_rate: 0.01}\n"
        "trainer: {accelerator: cpu, progress: false}\n"
    )
    configs = ["--config", str(CONFIGS / "pretrain.yaml"), "--config", str(tmp_path / "config.yaml")]
    command = ["pretrain", *configs, "--model", str(source)]
    main([*command, "--text", str(folders["text"]), "--output", str(tmp_path / "out")])
    assert "bits per byte" in capsys.readouterr().out
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert loaded.dtype == torch.bfloat16
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == size
    old, new = (
        load_file(folder / "model.safetensors")["transformer.wte.weight"] for folder in (source, tmp_path / "out")
    )
    assert torch.equal(old[:301], new[:301])
    assert not torch.equal(old[301:], new[301:])
    with (tmp_path / "out" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "2", "3"]
    assert float(rows[0]["perplexity"]) == pytest.approx(math.exp(float(rows[0]["loss"])), rel=1e-4)
    assert (tmp_path / "out" / "curve.png").read_bytes().startswith(b"\x89PNG")
    recorded = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert recorded["training"]["new_steps"] == 3
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_two_processes_train_one_model(folders, tmp_path):
    """DDP on two CPU processes through the command line; old rows are bit-equal after phase one there too."""
    model = make_causal(folders["causal"], tmp_path / "model")
    (model / "provenance.tsv").write_text("id\torigin\n300\tmean\n", encoding="utf-8")
    settings = ["--training.new_steps=2", "--training.steps=0", "--training.evaluate_every=1"]
    settings += ["--training.batch_size=2", "--training.block_size=24", "--training.learning_rate=0.01"]
    trainer = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.progress=false"]
    command = ["pretrain", "--model", str(model), "--text", str(folders["text"]), "--output", str(tmp_path / "out")]
    forked.run(lambda: main([*command, *settings, *trainer]), tmp_path / "work", processes=2)
    old, new = (
        load_file(folder / "model.safetensors")["transformer.wte.weight"] for folder in (model, tmp_path / "out")
    )
    assert [i for i in range(len(old)) if not torch.equal(old[i], new[i])] == [300]
    one = pretrain(
        str(model), [folders["text"]], tmp_path / "one",
        training=small(steps=1, learning_rate=1e-9), trainer=QUIET,
    )  # fmt: skip
    with (tmp_path / "out" / "curve.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["bits_per_byte"]) == pytest.approx(one.curve[0].bits_per_byte, rel=0.05)


def test_mistakes(folders, model_folders, tmp_path):
    text, causal = [folders["text"]], str(folders["causal"])
    with pytest.raises(InputError, match=r"training.steps: expected at least 0, found -1"):
        Training(steps=-1)
    with pytest.raises(InputError, match=r"training.learning_rate: expected a number above 0, found 0"):
        Training(learning_rate=0)
    with pytest.raises(InputError, match="expected at least one step, found none"):
        Training(steps=0)
    with pytest.raises(InputError, match=r"training.new_steps: expected provenance.tsv in model"):
        pretrain(causal, text, tmp_path / "out", training=small(new_steps=1))
    with pytest.raises(InputError, match=r"text .*nothing.txt: expected a text file, found none"):
        pretrain(causal, [tmp_path / "nothing.txt"], tmp_path / "out")
    with pytest.raises(InputError, match=r"model .*expected a folder or hub id with a Hugging Face model"):
        pretrain(str(tmp_path / "none"), text, tmp_path / "out")
    with pytest.raises(InputError, match="validation_lines: expected at least 1"):
        pretrain(causal, text, tmp_path / "out", validation_lines=0)
    with pytest.raises(InputError, match=r"expected training.block_size above 2, found 2"):
        pretrain(causal, text, tmp_path / "out", training=small(block_size=2), trainer=QUIET)
    with pytest.raises(InputError, match="text: expected at least 2 lines"):
        hold_out(["a"], 1, 0)
    (tmp_path / "provenance.tsv").write_text("nonsense\n", encoding="utf-8")
    np.testing.assert_array_equal(read_new_rows(tmp_path), [])
    (tmp_path / "provenance.tsv").write_text("nonsense\nx\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected a table with the columns id and origin"):
        read_new_rows(tmp_path)
    kept, held = hold_out([str(i) for i in range(50)], 500, 0)
    assert (len(kept), len(held)) == (45, 5)
    assert {*kept, *held} == {str(i) for i in range(50)}


def test_a_model_that_diverges_is_no_result(folders, tmp_path, capsys):
    text, output = str(folders["text"]), tmp_path / "model"
    flags = ["--text", text, "--output", str(output), "--trainer.accelerator", "cpu", "--trainer.progress", "false"]
    flags += ["--training.steps", "6", "--training.evaluate_every", "2", "--training.block_size", "16"]
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", "--model", str(folders["causal"]), *flags, "--training.learning_rate", "1e30"])
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith("hyperofa: training diverged: train/loss is not finite after step 2")
    assert last.endswith("give a lower --training.learning_rate")
    assert "perplexity" not in said.out
    assert list(output.rglob("*.safetensors")) == list(output.rglob("*.ckpt")) == []


def test_a_model_that_is_not_finite_has_no_perplexity(folders):
    model = load_model(folders["causal"])
    model.get_input_embeddings().weight.data[:] = torch.nan
    tokenizer = AutoTokenizer.from_pretrained(folders["causal"])
    with pytest.raises(InputError, match="val/loss is not finite after step 0"):
        train_on(model, tokenizer, LINES * 4, LINES, small())


def test_nothing_is_lost_when_a_run_is_refused(folders, tmp_path):
    """`--overwrite true` once removed the old folder before its input was looked at."""
    output = tmp_path / "model"
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    given = {"training": small(), "trainer": QUIET, "overwrite": True}
    with pytest.raises(InputError, match="expected a trained model that hyperofa wrote"):
        pretrain(str(folders["causal"]), [folders["text"]], output, **given)
    assert (output / "thesis.tex").read_text() == "years of work"
    (output / "thesis.tex").unlink()
    pretrain(str(folders["causal"]), [folders["text"]], output, **given)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    for model, changes, message in (
        (output, {}, "expected a folder apart from the input"),
        (folders["causal"], {"block_size": 2}, "training.block_size"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain(str(model), [folders["text"]], output, **given | {"training": small(**changes)})
        assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("flag", "value", "message"), [
    ("trainer.devices", "0", "--trainer: .*devices=0"),
    ("trainer.num_nodes=-1", None, "num_nodes.*-1"),
    ("trainer.accelerator", "abacus", "--trainer: .*abacus"),
    ("trainer.precision", "3-true", "--trainer: .*3-true"),
    ("trainer.strategy", "fast", "--trainer: .*fast"),
    ("training.learning_rate", ".nan", "learning_rate.*nan"),
    ("training.clip", ".nan", "clip.*nan"),
])  # fmt: skip
def test_options_out_of_range_are_told_in_a_line(flag, value, message, folders, tmp_path, capsys):
    words = ["pretrain", "--model", str(folders["causal"]), "--text", str(folders["text"])]
    words += ["--output", str(tmp_path / "out"), "--trainer.progress", "false", f"--{flag}"]
    with pytest.raises(SystemExit, match="2"):
        main([*words, *([] if value is None else [value])])
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])
    assert not (tmp_path / "out").exists()
