import gzip
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.evaluation.language_model import bits_per_byte
from hyperofa.models.loading import load_model
from hyperofa.tokens.canonical import load_tokenizer
from tests.conftest import ENGLISH, GERMAN


@pytest.fixture(scope="module")
def causal(tokenizer_folders):
    tokenizer = load_tokenizer(tokenizer_folders["unigram"])
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64))
    return model.eval(), tokenizer


@pytest.fixture
def data(tmp_path):
    rows = [
        f"{name}\t{n}\t{text}" for name, texts in (("eng", ENGLISH), ("deu", GERMAN)) for n, text in enumerate(texts)
    ]
    (tmp_path / "heldout.tsv.gz").write_bytes(gzip.compress("\n".join([*rows, ""]).encode()))
    return tmp_path


def slow_nats(model, tokenizer, text):
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    return float(cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum"))


def test_bits_of_a_causal_model_are_those_of_each_text_alone(causal):
    texts = [*ENGLISH, *GERMAN]
    nats = sum(slow_nats(*causal, text) for text in texts)
    expected = nats / math.log(2) / sum(len(text.encode()) + 1 for text in texts)
    assert bits_per_byte(causal, texts, "causal") == pytest.approx(expected, rel=1e-4)


def test_a_long_text_counts_the_bytes_that_are_read(causal):
    model, tokenizer = causal
    text = " ".join(GERMAN)
    kept = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    room = 64 - 2  # positions of the model, without <s> and </s>
    assert len(kept.input_ids) > room
    size = len(text[: kept.offset_mapping[room - 1][1]].encode()) + 1
    ids = torch.tensor([[tokenizer.bos_token_id, *kept.input_ids[:room], tokenizer.eos_token_id]])
    with torch.no_grad():
        nats = float(cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum"))
    assert bits_per_byte(causal, [text], "causal") == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_bits_of_a_masked_model_are_of_all_its_tokens(model_folders):
    """A model that gives every token the same chance needs log2 S bits for each, masked or not."""
    model, tokenizer = load_model(model_folders["xlmr"]), load_tokenizer(model_folders["xlmr"])
    with torch.no_grad():
        for parameter in model.lm_head.parameters():
            parameter.zero_()
    tokens = sum(len(tokenizer(text, add_special_tokens=False).input_ids) for text in ENGLISH)
    expected = tokens * math.log2(len(tokenizer)) / sum(len(text.encode()) + 1 for text in ENGLISH)
    assert bits_per_byte((model, tokenizer), ENGLISH, "masked") == pytest.approx(expected, rel=1e-4)
    tokenizer.mask_token = None
    with pytest.raises(InputError, match="expected a mask token"):
        bits_per_byte((model, tokenizer), ENGLISH, "masked")


def test_every_evaluation_says_what_the_source_language_cost(causal, data, model_folders):
    scores = evaluate(causal, causal, data)
    assert scores["LM"]["bits"]["eng"] == scores["LM"]["source"]["eng"]
    assert set(scores["LM"]["bits"]) == {"eng", "deu"}
    assert set(scores["LM"]["source"]) == {"eng"}
    assert np.isfinite(scores["LM"]["bits"]["deu"])
    assert scores.main("LM") == "bits"


def test_models_without_a_head_have_no_such_scores(causal, data):
    tokenizer = causal[1]
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    body = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).eval(), tokenizer
    assert "LM" not in evaluate(body, body, data)
