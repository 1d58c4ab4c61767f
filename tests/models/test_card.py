"""The card of every export: front matter that the hub reads, true counts, code that runs."""

import json
import re

import pytest
import transformers
import yaml
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AutoModelForMaskedLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from hyperofa.export.export import export
from hyperofa.methods.registry import METHODS
from hyperofa.models.card import auto_class, base_card, model_card
from hyperofa.runtime.calls import Call
from tests.models.families import make

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
BART = {
    "vocab_size": 9,
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 8,
    "decoder_ffn_dim": 8,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
COUNTS = {"copied": 30, "predicted": 60, "subtokens": 9, "script": 1, "mean": 0}


@pytest.fixture(scope="module")
def bert():
    return BertForPreTraining(BertConfig(**TINY))


def card(model, **changes):
    settings = {"base_model": "google-bert/bert-base-cased", "method": "ofa", "story": "Made so.", "counts": COUNTS}
    return model_card(model, **settings | {"call": Call("hyperofa export --method ofa", "sh")} | changes)


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_factorised_model_that_reads_images_names_its_auto_class():
    """Its own class of transformers would not take the factors."""
    dense, model = make("llava", tied=False)
    for found in (dense, model):
        assert auto_class(found) == ("AutoModelForImageTextToText", "image-text-to-text")
    assert model.config.auto_map["AutoModelForImageTextToText"].endswith(type(model).__name__)


@pytest.mark.parametrize(
    ("model_class", "config", "expected"),
    [
        (AlbertForMaskedLM, AlbertConfig(**TINY | {"embedding_size": 4}), ("AutoModelForMaskedLM", "fill-mask")),
        (BertForPreTraining, BertConfig(**TINY), ("AutoModelForPreTraining", None)),
        (BertModel, BertConfig(**TINY), ("AutoModel", None)),
        (
            BertForSequenceClassification,
            BertConfig(**TINY),
            ("AutoModelForSequenceClassification", "text-classification"),
        ),
        (
            GPT2LMHeadModel,
            GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=2),
            ("AutoModelForCausalLM", "text-generation"),
        ),
        (
            T5ForConditionalGeneration,
            T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2),
            ("AutoModelForSeq2SeqLM", "text2text-generation"),
        ),
        (
            BartForConditionalGeneration,
            BartConfig(**BART),
            ("AutoModelForSeq2SeqLM", "text2text-generation"),
        ),
    ],
)
def test_the_auto_class_gives_the_same_model_back(model_class, config, expected, tmp_path):
    model = model_class(config)
    assert auto_class(model) == expected
    model.save_pretrained(tmp_path)

    assert type(getattr(transformers, expected[0]).from_pretrained(tmp_path)) is model_class


def test_front_matter_is_yaml_with_open_fields(bert):
    found = front_matter(card(bert))
    assert found["base_model"] == "google-bert/bert-base-cased"
    assert found["library_name"] == "transformers"
    assert found["tags"] == ["hyperofa", "vocabulary", "ofa"]
    assert found["language"] is None
    assert found["license"] is None


def test_a_local_base_model_is_not_passed_off_as_a_hub_id(bert, tmp_path):
    text = card(bert, base_model=str(tmp_path / "my-model"))
    assert front_matter(text)["base_model"] is None
    assert "fill in: the hub id of my-model" in text
    assert str(tmp_path) not in text


def test_counts_and_shares(bert):
    text = card(bert)
    assert "| predicted | 60 | 60.0% |" in text
    assert "| mean |" not in text
    assert "a vocabulary of 100 tokens" in text


def test_scores(bert):
    assert "Not measured." in card(bert)
    scores = {"retrieval": {"top10": 0.51234, "layer": 8}, "histogram": [1, 2], "text": "news"}
    text = card(bert, scores=scores)
    assert "| retrieval.top10 | 0.5123 |" in text
    assert "| retrieval.layer | 8 |" in text
    assert "| text | news |" in text
    assert "histogram" not in text


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_has_a_card_and_the_citation_of_its_paper(bert, method):
    text = card(bert, method=method.name, story=method.story(), citation=method.citation)
    papers = {"hyperofa": "2504.21018", "ofa": "2311.08849", "ofa_tuned": "2311.08849", "mean": "vocab-expansion"}
    papers |= {"subtokens": "2402.09977", "wechsel": "2112.06598", "focus": "2305.14481", "clp": "2301.09626"}
    papers |= {"omp": "2506.06607", "transtokenizer": "2408.04303"}
    assert (papers.get(method.name, "@misc") in text) == (method.name in papers or method.name == "mean_noise")
    assert f"- {method.name}" in text
    assert f"the method `{method.name}` of hyperofa" in text


def test_an_export_carries_its_card_and_the_snippet_runs(bundles, tmp_path):
    (tmp_path / "scores.json").write_text(json.dumps({"mrr": 0.25}), encoding="utf-8")
    result = export(bundles["roberta"], "ofa", tmp_path / "out", scores=tmp_path / "scores.json")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert front_matter(text)["pipeline_tag"] == "fill-mask"
    assert "| mrr | 0.25 |" in text
    for origin, count in result.counts.items():
        assert (f"| {origin} | {count:,} |" in text) == (count > 0)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].replace("path/to/this/folder", str(tmp_path / "out"))
    scope = {}
    exec(code, scope)
    assert isinstance(scope["model"], type(AutoModelForMaskedLM.from_pretrained(tmp_path / "out")))
    assert len(scope["tokenizer"]) == scope["model"].config.vocab_size


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ("license: mit\nlanguage: [en, de]\n", {"license": "mit", "language": ["en", "de"]}),
        ("license: mit\ntags: 5\nlanguage: {a: b}\n", {"license": "mit"}),
        ("license: !!timestamp x\n", {}),
        ("license: !!python/name:os.system\n", {}),
        ("license: &a [*a]\n", {}),
        ("[" * 5000, {}),
    ],
)
def test_somebody_elses_card_says_words_or_nothing(front, expected, tmp_path):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# A model\n", encoding="utf-8")
    assert base_card(str(tmp_path)) == expected
