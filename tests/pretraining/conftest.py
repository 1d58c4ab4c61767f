"""A small causal model and a masked one, and some text to train them on."""

import gzip

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hyperofa.pretraining.settings import TrainerOptions, Training

LINES = ["the river runs through the old town", "ein kleines Haus aus Stein über dem Meer", "x", "drei Straßen"]
QUIET = TrainerOptions(accelerator="cpu", progress=False)


def small(**changes):
    settings = {"steps": 4, "evaluate_every": 2, "batch_size": 2, "block_size": 24, "warmup_steps": 1}
    return Training(**settings | {"learning_rate": 1e-2} | changes)


class Interrupted(BaseException):
    """As a kill: nothing catches it."""


def interrupt(monkeypatch, owner, name, calls):
    """Have a function raise `Interrupted` once it was called so often."""
    real, left = getattr(owner, name), [calls]

    def interrupted(*args):
        if left[0] == 0:
            raise Interrupted
        left[0] -= 1
        return real(*args)

    monkeypatch.setattr(owner, name, interrupted)


def make_causal(tokenizer_folder, folder, **config):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes | config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(tokenizer_folders, model_folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("pretraining")
    text = root / "text.txt"
    text.write_text("\n".join(LINES * 10) + "\n", encoding="utf-8")
    causal = make_causal(tokenizer_folders["bytelevel"], root / "causal")
    return {"causal": causal, "masked": model_folders["xlmr"], "text": text}


@pytest.fixture(scope="session")
def test_data(tmp_path_factory):
    """A folder that `hyperofa evaluate --data` reads."""
    folder = tmp_path_factory.mktemp("test_data")
    rows = [f"{language}\t{verse}\t{text}" for verse, texts in enumerate(zip(LINES[::2], LINES[1::2], strict=True))
            for language, text in zip(("eng", "deu"), texts, strict=True)]  # fmt: skip
    (folder / "heldout.tsv.gz").write_bytes(gzip.compress("\n".join([*rows, ""]).encode()))
    return folder
