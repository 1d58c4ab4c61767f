"""What a text uses stays as it was, to the logit; all else is gone, and any text can still be tokenised."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.models.trim import trim, trim_state
from hyperofa.tokens.canonical import load_tokenizer
from hyperofa.tokens.tokenizer_json import backend_of
from tests import zoo
from tests.conftest import ENGLISH, GERMAN

SAMPLE = ENGLISH[:3] + GERMAN[2:3]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
LOADERS = {"wordpiece": AutoModelForMaskedLM, "xlmr": AutoModelForMaskedLM}
MODELS = ("wordpiece", "bytelevel", "xlmr", "llama", "llama3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return zoo.make_zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "sample.txt"
    path.write_text("\n".join(SAMPLE) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def models_on_disk(folders, tmp_path_factory):
    """A tiny random model for some of the tokenizers: with a bias, tied, untied, with more rows than tokens."""
    root = tmp_path_factory.mktemp("models")
    for name in MODELS:
        tokenizer = load_tokenizer(folders[name])
        ids = {role: getattr(tokenizer, role) for role in ("bos_token_id", "eos_token_id", "pad_token_id")}
        common = SIZES | ids | {"vocab_size": len(tokenizer)}
        torch.manual_seed(0)
        if name == "wordpiece":
            model = BertForMaskedLM(BertConfig(**common))
        elif name == "xlmr":
            model = XLMRobertaForMaskedLM(XLMRobertaConfig(**common | {"max_position_embeddings": 64}))
        elif name == "bytelevel":
            model = GPT2LMHeadModel(GPT2Config(vocab_size=448, n_embd=16, n_layer=1, n_head=2, n_positions=64, **ids))
        else:
            model = LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=name == "llama3"))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, 0.3)
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.mark.parametrize("family", zoo.FAMILIES)
class TestTokenizers:
    def test_the_text_is_tokenised_as_before_and_the_rest_is_gone(self, folders, family):
        tokenizer = load_tokenizer(folders[family])
        state, kept, used = trim_state(tokenizer, SAMPLE)
        old, new = tokenizer.backend_tokenizer, backend_of(state)
        for line in SAMPLE:
            assert new.encode(line).tokens == old.encode(line).tokens
            assert [int(kept[token]) for token in new.encode(line).ids] == old.encode(line).ids
        assert used <= len(kept) < len(tokenizer)
        assert new.get_vocab_size() == len(kept)

    def test_special_and_added_tokens_stay(self, folders, family):
        tokenizer = load_tokenizer(folders[family])
        state, kept, _ = trim_state(tokenizer, SAMPLE)
        new = backend_of(state).get_vocab()
        for content in (*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()):
            assert kept[new[content]] == tokenizer.convert_tokens_to_ids(content)

    @settings(max_examples=40, deadline=None)
    @given(text=st.one_of(st.text(), st.text("abcdefgh ABCßÄ.,'")))
    def test_any_text_can_still_be_tokenised(self, trimmed_zoo, family, text):
        old, new = trimmed_zoo[family]
        before, after = (tokenizer.encode(text, add_special_tokens=False) for tokenizer in (old, new))
        unknown = {"[UNK]", "<unk>"}
        if family not in ("wordpiece", "BertTokenizer"):
            # No new holes: whatever was known is spelled, in more pieces perhaps.
            assert (unknown & set(after.tokens)) <= (unknown & set(before.tokens))
        assert new.decode(after.ids) == old.decode(before.ids)


@pytest.fixture(scope="module")
def trimmed_zoo(folders):
    loaded = {name: load_tokenizer(folder) for name, folder in folders.items()}
    return {name: (old.backend_tokenizer, backend_of(trim_state(old, SAMPLE)[0])) for name, old in loaded.items()}


@pytest.mark.parametrize("family", MODELS)
def test_logits_of_kept_tokens_are_unchanged(models_on_disk, sample, tmp_path, family):
    source = models_on_disk / family
    result = trim(str(source), [sample], tmp_path / "out")
    loader = LOADERS.get(family, AutoModelForCausalLM)
    old, new = (loader.from_pretrained(folder).eval() for folder in (source, tmp_path / "out"))
    before, after = load_tokenizer(source), load_tokenizer(tmp_path / "out")
    kept = before.convert_tokens_to_ids(after.convert_ids_to_tokens(list(range(len(after)))))
    assert result.tokens == (old.config.vocab_size, new.config.vocab_size)
    assert new.config.vocab_size == len(after) == len(kept) < len(before)
    for line in SAMPLE:
        with torch.no_grad():
            expected = old(**before(line, return_tensors="pt")).logits[..., kept]
            found = new(**after(line, return_tensors="pt")).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    tied = [model.get_input_embeddings().weight is model.get_output_embeddings().weight for model in (old, new)]
    assert tied[0] == tied[1]
    for role in ("bos_token_id", "eos_token_id", "pad_token_id"):
        was, now = getattr(old.config, role), getattr(new.config, role)
        assert (was is None and now is None) or kept[now] == was
    saved = sum(p.numel() * 4 for p in old.parameters()) - sum(p.numel() * 4 for p in new.parameters())
    assert result.megabytes[0] - result.megabytes[1] == pytest.approx(saved / 1e6)
    assert f"{saved / 1e6:,.1f} MB saved" in result.summary()


def test_repeated_letters_keep_the_way_they_were_merged(tmp_path):
    """In `aaaaa`, `aa` `aa` `a` merge in an order that the tokens alone do not show."""
    merges = [("a", "a"), ("aa", "aa"), ("a", "b"), ("aa", "ab"), ("aaa", "b"), ("aa", "a")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    contents = [*alphabet, *("".join(merge) for merge in merges)]
    vocab = {content: token for token, content in enumerate(dict.fromkeys(contents))}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    for text in ("aaaaa", "aaaab", "aaab", "aab", "aaaaaaab ab aaa"):
        state, _, _ = trim_state(PreTrainedTokenizerFast(tokenizer_object=backend), [text])
        assert backend_of(state).encode(text).tokens == backend.encode(text).tokens


def test_min_count_drops_rare_tokens(folders):
    tokenizer = load_tokenizer(folders["bytelevel"])
    text = ["the the the river"]
    sizes = [len(trim_state(tokenizer, text, count)[1]) for count in (1, 2, 3)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_unigram_keeps_its_lowest_score(folders):
    tokenizer = load_tokenizer(folders["unigram"])
    state, _, _ = trim_state(tokenizer, ["the"])
    old = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    assert min(score for _, score in state["model"]["vocab"]) == min(score for _, score in old)


def test_merges_with_marks_are_refused():
    backend = Tokenizer(
        models.BPE(vocab={"a": 0, "b</w>": 1, "ab</w>": 2}, merges=[("a", "b</w>")], end_of_word_suffix="</w>")
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(InputError, match="expected BPE without marks inside its merges"):
        trim_state(PreTrainedTokenizerFast(tokenizer_object=backend), ["ab"])


def test_errors(models_on_disk, sample, tmp_path):
    with pytest.raises(InputError, match="min_count: expected at least 1, found 0"):
        trim(str(models_on_disk / "llama"), [sample], tmp_path / "out", min_count=0)
    with pytest.raises(InputError, match=r"text .*none\.txt: expected a text file"):
        trim(str(models_on_disk / "llama"), [tmp_path / "none.txt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_line_and_verification(models_on_disk, sample, tmp_path, capsys):
    out = tmp_path / "out"
    main(["trim", "--source_model", str(models_on_disk / "wordpiece"), "--text", str(sample), "--output", str(out)])
    assert "rows kept" in capsys.readouterr().out
    main(["verify", str(out)])
    assert "intact" in capsys.readouterr().out
    assert "Tokens that a sample of text never used were dropped" in (out / "README.md").read_text(encoding="utf-8")
