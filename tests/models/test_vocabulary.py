"""Every layout of a vocabulary: what was copied must speak as before, in memory and after loading."""

import copy
import json
import types

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.models.vocabulary import Vocabulary, check_tokenizer, read_vocabulary, replace_vocabulary, tokenizer_ids
from tests.models.families import (
    BART,
    BERT,
    BOUND_PAD,
    CASES,
    FAMILIES,
    LLAMA,
    SIZE,
    SPECIALS,
    build,
    outputs,
    text_of,
)


def choose(size, pad=1, seed=0):
    """Source ids `(size,)` of target tokens: a permutation with gaps or repeats, where `pad` is the source's pad."""
    generator = np.random.default_rng(seed)
    rest = np.setdiff1d(np.arange(SIZE), [1])
    ids = np.concatenate([generator.permutation(rest), generator.choice(rest, max(0, size - len(rest)))])[: size - 1]
    return np.insert(ids, pad, 1)


def put(model, source_ids, pad=1, **options):
    """Replace a model's vocabulary by copies of its own tokens."""
    chosen = read_vocabulary(model).take(source_ids)
    output = None if chosen.tied else chosen.output_rows
    ids = {"pad_token_id": pad, "bos_token_id": 3, "eos_token_id": 4, "decoder_start_token_id": pad}
    replace_vocabulary(model, chosen.input_rows, output_rows=output, bias=chosen.bias, **{"special_ids": ids} | options)


def is_tied(model):
    head = model.get_output_embeddings()
    return head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def shared_names(model):
    """Groups of parameter names that are one storage."""
    groups = {}
    for key, tensor in model.named_parameters(remove_duplicate=False):
        groups.setdefault(tensor.data_ptr(), set()).add(key)
    return sorted(sorted(names) for names in groups.values() if len(names) > 1)


def assert_speaks_as(model, before, source_ids, pad=1):
    ids = text_of(len(source_ids), pad)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if model.dtype == torch.float32 else {"atol": 0.1, "rtol": 0.02}
    (logits, hidden), (old_logits, old_hidden) = outputs(model, ids), outputs(before, source_ids[ids])
    assert old_logits.std() > 0.05
    real = torch.as_tensor(ids != pad)
    if logits.shape[-1] >= len(source_ids):
        torch.testing.assert_close(logits[real][:, : len(source_ids)], old_logits[real][:, source_ids], **tolerance)
    torch.testing.assert_close(hidden[real], old_hidden[real], **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("name", "tied"), CASES, ids=[f"{name}-{'tied' if tied else 'untied'}" for name, tied in CASES]
)
def test_copied_tokens_speak_as_before(name, tied, dtype, tmp_path):
    model = build(name, tied, dtype)
    before = copy.deepcopy(model)
    assert is_tied(model) is tied or name == "deberta-v2-new"
    size, pad = 23 if dtype == torch.float32 else 53, 1 if name in BOUND_PAD else 5
    aliases = shared_names(model)
    source_ids = choose(size, pad)
    put(model, source_ids, pad, pad_to_multiple_of=8)
    model.save_pretrained(tmp_path)
    loaded, info = FAMILIES[name][1].from_pretrained(tmp_path, dtype="auto", output_loading_info=True)
    loaded = loaded.eval()
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for found in (model, loaded):
        assert_speaks_as(found, before, source_ids, pad)
        rows = read_vocabulary(found)
        expected = read_vocabulary(before).take(source_ids)
        assert rows.tied is tied
        assert len(rows.input_rows) == -(-size // 8) * 8
        np.testing.assert_array_equal(rows.input_rows[:size], expected.input_rows)
        np.testing.assert_array_equal(rows.output_rows[:size], expected.output_rows)
        if expected.bias is not None:
            np.testing.assert_array_equal(rows.bias[:size], expected.bias)
            assert (rows.bias[size:] < expected.bias.min() - 9).all()
        assert found.dtype == dtype
        assert found.config.vocab_size == len(rows.input_rows)
        assert (found.config.pad_token_id, found.config.bos_token_id, found.config.eos_token_id) == (pad, 3, 4)
        assert found.get_input_embeddings().padding_idx in (pad, None)
        assert found.get_input_embeddings().num_embeddings == len(rows.input_rows)
    assert shared_names(model) == shared_names(loaded) == aliases
    for key, value in loaded.state_dict().items():
        assert value.shape == model.state_dict()[key].shape, key


@pytest.mark.parametrize("name", [name for name, tied in CASES if not tied])
def test_given_rows_are_kept_once_for_each_tensor_of_an_untied_model(name, tmp_path):
    """Of two names of one storage, saving keeps one: BERT's `decoder.bias` would load as zeros."""
    build(name, tied=False).save_pretrained(tmp_path / "source")
    model = load_model(tmp_path / "source")
    before, aliases = read_vocabulary(model), shared_names(model)
    put(model, choose(23), 1, copy_rows=False)
    assert shared_names(model) == aliases
    model.save_pretrained(tmp_path / "out")
    loaded, info = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    if before.bias is not None:
        np.testing.assert_array_equal(read_vocabulary(loaded).bias, before.take(choose(23)).bias)


@pytest.mark.parametrize("pad", [0, 1, 9], ids=["shorter", "same", "longer"])
@pytest.mark.parametrize("name", ["roberta", "xlm-r", "longformer"])
def test_positions_follow_the_pad_id(name, pad, tmp_path):
    """These families count positions from the pad id on: the longest text must still fit, at the same positions."""
    model = build(name)
    before = copy.deepcopy(model)
    put(model, choose(31, pad), pad)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    longest = before.config.max_position_embeddings - 2
    text = text_of(31, pad, longest)
    for found in (model, loaded):
        assert found.config.max_position_embeddings == before.config.max_position_embeddings + pad - 1
        torch.testing.assert_close(
            outputs(found, text)[1][0], outputs(before, choose(31, pad)[text])[1][0], atol=1e-5, rtol=1e-5
        )
        with torch.no_grad():  # positions from embeddings start there, too
            embedded = found.get_input_embeddings()(torch.as_tensor(text[:1]))
            torch.testing.assert_close(
                found(inputs_embeds=embedded).logits[0], outputs(found, text)[0][0], atol=1e-5, rtol=1e-5
            )


def words(*contents):
    """A tokenizer of so many words, with special tokens of its own at the end."""
    vocabulary = {content: index for index, content in enumerate(["a", "[PAD]", "[CLS]", "[SEP]", *contents])}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")), pad_token="[PAD]", eos_token="[SEP]"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(contents)})
    return tokenizer


def test_a_tokenizer_must_have_the_tokens_of_images_and_the_pad_id():
    model = build("llava", tied=False)
    source = words("x", "y", "<image>")
    assert source.convert_tokens_to_ids("<image>") == model.config.image_token_id
    check_tokenizer(model, source, words("<image>", "z"))
    with pytest.raises(InputError, match=r"expected a target token for image_token_\w+ \(of the source: 6\)"):
        check_tokenizer(model, source, words("z"))
    with pytest.raises(InputError, match=r"expected a target token for image_token_.*found none; give a target tok"):
        put(model, choose(23, 5), 5)
    with pytest.raises(InputError, match="expected pad_token_id 0, which M2M100"):
        check_tokenizer(build("m2m100", pad_token_id=0), source, source)
    config = model.config.to_dict()
    check_tokenizer(build("roberta"), source, words("z"))
    assert model.config.to_dict() == config


IMAGE_FAMILIES = """aya_vision cohere2_vision deepseek_vl florence2 fuyu gemma3 gemma3n gemma4 glm4v
got_ocr2 idefics2 idefics3 internvl janus lfm2_vl llama4 llava llava_next llava_onevision mistral3 mllama ovis2
paligemma qwen2_5_vl qwen2_vl qwen3_vl smolvlm video_llava vipllava"""


def test_families_of_image_text_models_ask_for_their_tokens_before_any_work():
    """By their configs alone. With a tokenizer for text they would fail in every forward."""
    for kind in IMAGE_FAMILIES.split():
        model = types.SimpleNamespace(config=AutoConfig.for_model(kind))
        with pytest.raises(InputError, match=r"expected a target token for \w+ \(of the source: .*, found none"):
            check_tokenizer(model, words("x"), words("z"))


def test_a_scalar_buffer_is_no_position_table():
    """RecurrentGemma has one beside its `padding_idx`."""
    model = build("recurrent-gemma")
    put(model, choose(23, 5), 5)
    assert model.config.pad_token_id == 5


def test_a_saved_model_can_be_looked_into(tmp_path):
    """Saving leaves a string in `config.dtype`, with which Apertus cannot be built."""
    model = build("apertus", tied=False)
    model.save_pretrained(tmp_path)
    assert len(read_vocabulary(model).input_rows) == SIZE


def test_a_high_pad_id_is_warned_of():
    model = build("roberta")
    with pytest.warns(UserWarning, match="30 lets their table grow from 20 to 49 rows"):
        put(model, choose(31, 30), 30)


@pytest.mark.parametrize("name", BOUND_PAD)
def test_computed_positions_refuse_another_pad_id(name):
    with pytest.raises(InputError, match=r"expected pad_token_id 1, .*found 5; give the target tokenizer"):
        put(build(name), choose(23, 5), 5)


def test_positions_need_a_pad_id():
    with pytest.raises(InputError, match=r"expected pad_token_id \(any\).*found None"):
        put(build("roberta"), choose(23), special_ids={"pad_token_id": None})


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama", "t5", "bart"])
def test_without_a_head(name, tmp_path):
    model = build(name, auto=AutoModel)
    before = copy.deepcopy(model)
    vocabulary = read_vocabulary(model)
    assert vocabulary.output_rows is None
    assert vocabulary.bias is None
    assert not vocabulary.tied
    put(model, choose(23, 5), 5)
    model.save_pretrained(tmp_path)
    for found in (model, AutoModel.from_pretrained(tmp_path).eval()):
        assert_speaks_as(found, before, choose(23, 5), 5)


def test_untied_bert_speaks_with_the_bias_of_its_head():
    """Untied, `cls.predictions.bias` is never read; `decoder.bias` is."""
    model = build("bert", tied=False)
    predictions = model.cls.predictions
    assert not torch.equal(predictions.bias, predictions.decoder.bias)
    np.testing.assert_array_equal(read_vocabulary(model).bias, predictions.decoder.bias.detach().numpy())


def test_biases_of_every_kind_are_read():
    owners = {
        "gpt-j": "lm_head.bias",
        "bart": "final_logits_bias",
        "albert": "predictions.bias",
        "deberta-v2-new": "lm_predictions.lm_head.bias",
        "xlm": "pred_layer.proj.bias",
    }
    for name, owner in owners.items():
        model = build(name, tied=name != "gpt-j")
        values = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
        np.testing.assert_array_equal(read_vocabulary(model).bias, values[owner].detach().reshape(-1).numpy())


def test_rows_are_copies():
    model = build("gpt2")
    rows = read_vocabulary(model).input_rows
    given = torch.as_tensor(rows.copy())
    state = torch.random.get_rng_state()
    replace_vocabulary(model, given, special_ids=SPECIALS)
    assert torch.equal(state, torch.random.get_rng_state())
    given.zero_()
    np.testing.assert_array_equal(read_vocabulary(model).input_rows, rows)


@pytest.mark.parametrize(("name", "tied"), [("gpt2", True), ("llama", False), ("roberta", True), ("t5-v1.1", False)])
def test_training_goes_on(name, tied):
    """Gradients of before the surgery are gone, and those after it have the new shapes; the pad row gets none."""
    model = build(name, tied)
    ids = torch.as_tensor(text_of(23, 5))
    model(input_ids=ids, labels=ids).loss.backward()
    put(model, choose(23, 5), 5, pad_to_multiple_of=8)
    assert model.get_input_embeddings().weight.grad is None
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    old = model(input_ids=ids, labels=ids).loss
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    assert loss < old
    assert is_tied(model) is tied


def test_ids_follow_their_roles():
    model = build("bart", forced_eos_token_id=2, decoder_start_token_id=2)
    generation = model.generation_config
    generation.forced_bos_token_id = 0
    generation.eos_token_id, generation.bad_words_ids, generation.suppress_tokens = [2, 7, 8], [[1], [0, 1]], [7]
    chosen = read_vocabulary(model).take(choose(23, 5))
    with pytest.warns(UserWarning, match=r"unset, as no target token is known: suppress_tokens \(was \[7\]\)"):
        replace_vocabulary(
            model,
            chosen.input_rows,
            bias=chosen.bias,
            moved={np.int64(8): np.int64(9)},
            special_ids={"pad_token_id": 5, "cls_token_id": np.int64(3), "eos_token_id": 4},
        )
    config = model.config
    assert (config.pad_token_id, config.eos_token_id, config.bos_token_id) == (5, 4, 3)
    assert (config.forced_eos_token_id, config.decoder_start_token_id) == (4, 4)
    assert generation.forced_bos_token_id == 3
    assert (generation.pad_token_id, generation.eos_token_id, generation.bos_token_id) == (5, [4, 9], 3)
    assert (generation.forced_eos_token_id, generation.decoder_start_token_id) == (4, 4)
    assert generation.bad_words_ids == [[5], [3, 5]]
    assert generation.suppress_tokens is None
    json.dumps(config.to_dict(), default=str)
    assert type(config.bos_token_id) is int


def test_ids_of_a_tokenizer(tmp_path):
    words = {word: index for index, word in enumerate(["a", "[PAD]", "b", "[CLS]", "[SEP]", "c", "<lang>"])}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a")),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        extra_special_tokens={"lang_token": "<lang>"},
    )
    assert tokenizer_ids(tokenizer) == {"pad_token_id": 1, "cls_token_id": 3, "sep_token_id": 4, "lang_token_id": 6}
    model = build("gpt2", pad_token_id=None)
    chosen = read_vocabulary(model).take(choose(7))
    replace_vocabulary(model, chosen.input_rows, special_ids=tokenizer)
    model.save_pretrained(tmp_path)
    for found in (model, AutoModelForCausalLM.from_pretrained(tmp_path)):
        ids = found.generation_config
        assert (found.config.pad_token_id, found.config.bos_token_id, found.config.eos_token_id) == (1, 3, 4)
        assert (ids.pad_token_id, ids.bos_token_id, ids.eos_token_id) == (1, 3, 4)


def test_nested_configs_change_too(tmp_path):
    text = {"vocab_size": SIZE, **LLAMA, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    vision = {**BERT, "image_size": 8, "patch_size": 4, "projection_dim": 8, "vocab_size": 19}
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**text),
        image_token_index=6,
        vision_config=transformers.CLIPVisionConfig(**vision),
    )
    model = transformers.LlavaForConditionalGeneration(config).eval()
    before = copy.deepcopy(model)
    chosen = choose(23, 5)
    tied = read_vocabulary(model).tied
    put(model, chosen, 5, moved={6: 8})
    model.save_pretrained(tmp_path)
    loaded = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    for found in (model, loaded):
        assert (found.config.text_config.vocab_size, found.config.vision_config.vocab_size) == (23, 19)
        assert (found.config.text_config.pad_token_id, found.config.image_token_id) == (5, 8)
        assert read_vocabulary(found).tied is tied
        text = torch.as_tensor(np.setdiff1d(np.arange(23), [5, 8])[None])
        with torch.no_grad():
            torch.testing.assert_close(
                found(input_ids=text).logits[0][:, :23],
                before(input_ids=torch.as_tensor(chosen)[text]).logits[0][:, chosen],
                atol=1e-5,
                rtol=1e-5,
            )


def rows(count, width=16, fill=0.0):
    return np.full((count, width), fill, dtype=np.float32)


BAD_ROWS = {
    "width": ("bert", True, {"input_rows": rows(9, 15)}, r"input_rows: expected shape \(T, 16\), found \(9, 15\)"),
    "flat": ("bert", True, {"input_rows": rows(9)[0]}, r"input_rows: expected shape \(T, 16\), found \(16,\)"),
    "empty": ("bert", True, {"input_rows": rows(0)}, r"expected shape \(T, 16\), found \(0, 16\)"),
    "infinite": ("bert", True, {"input_rows": np.diag([0] * 15 + [np.inf])}, "expected finite .* row 15"),
    "bias": ("bert", True, {"bias": np.zeros(8)}, r"bias: expected shape \(9\), found \(8,\)"),
    "no bias": ("bert", True, {"bias": None}, r"bias: expected some for this model \(a tied head, a bias\)"),
    "a bias": ("gpt2", True, {"bias": np.zeros(9)}, r"bias: expected none for this model \(a tied head, no bias\)"),
    "tied": ("bert", True, {"output_rows": rows(9)}, r"output_rows: expected none for this model \(a tied head"),
    "untied": ("llama", False, {}, r"output_rows: expected some for this model \(an untied head, no bias\)"),
    "length": ("llama", False, {"output_rows": rows(8)}, r"output_rows: expected shape \(9, 16\), found \(8, 16\)"),
    "equal": ("t5-v1.1", False, {"output_rows": rows(9)}, "output_rows: expected other rows than input_rows"),
    "multiple": ("gpt2", True, {"pad_to_multiple_of": 0}, "pad_to_multiple_of: expected at least 1, found 0"),
    "name": ("gpt2", True, {"special_ids": {"pad": 3}}, "special_ids: expected config fields .*found 'pad'"),
    "id": ("gpt2", True, {"special_ids": {"pad_token_id": 9}}, "expected pad_token_id from 0 to 8, found 9"),
    "ids": ("gpt2", True, {"special_ids": {"eos_token_id": [3, 99]}}, "expected eos_token_id from 0 to 8, found 99"),
    "unset": ("xlm", True, {"special_ids": {"unk_token_id": None}}, "target token for unk_token_id .* which this"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_mistakes_are_named_and_change_nothing(case):
    name, tied, options, message = BAD_ROWS[case]
    model = build(name, tied)
    state, config = copy.deepcopy(model.state_dict()), model.config.to_dict()
    given = {"input_rows": rows(9), "special_ids": SPECIALS, "bias": np.zeros(9) if name in ("bert", "xlm") else None}
    with pytest.raises(InputError, match=message):
        replace_vocabulary(model, **given | options)
    assert model.config.to_dict() == config
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_equal_copies_of_the_inputs_change_together(tmp_path):
    """With `tie_word_embeddings` false, transformers 5 gives BART's encoder and decoder a matrix each."""
    kind, loader, settings, _ = FAMILIES["bart"]
    model = loader.from_config(
        AutoConfig.for_model(kind, vocab_size=SIZE, **SPECIALS, **settings, tie_word_embeddings=False)
    ).eval()
    parts = [model.model.encoder.embed_tokens, model.model.decoder.embed_tokens]
    with torch.no_grad():
        model.lm_head.weight.normal_()
        for part in parts:
            part.weight.copy_(model.model.shared.weight.normal_(generator=torch.Generator().manual_seed(0)))
    before = copy.deepcopy(model)
    put(model, choose(23, 5), 5)
    model.save_pretrained(tmp_path)
    for found in (model, loader.from_pretrained(tmp_path).eval()):
        assert_speaks_as(found, before, choose(23, 5), 5)
        assert not shared_names(found)


def test_take_refuses_ids_outside():
    with pytest.raises(InputError, match="source_ids: expected a list of ids from 0 to 3, found"):
        Vocabulary(rows(4), None, None, False).take([0, 4])


def unsupported():
    yield build("llama"), "quantization_config", {"quant_method": "bitsandbytes"}, "it is quantised"
    yield build("gpt2"), "vocab_size", 99, "it embeds 37 tokens, but its config has no such"
    per_layer = build("gemma4", hidden_size_per_layer_input=4)
    yield per_layer, "use_cache", True, "second vocabulary in vocab_size_per_layer_input"
    yield build("llama"), "tie_word_embeddings", False, "its head is tied, but not by config"
    yield build("bert"), "num_attention_heads", 3, "its config does not rebuild it"


def test_other_layouts_are_refused():
    for model, field, value, message in unsupported():
        setattr(model.config, field, value)
        with pytest.raises(InputError, match=message):
            read_vocabulary(model)
    with pytest.raises(InputError, match="Linear is not supported: expected a transformers PreTrainedModel"):
        read_vocabulary(nn.Linear(2, 2))
    with torch.device("meta"):
        absent = AutoModelForCausalLM.from_config(build("gpt2").config)
    with pytest.raises(InputError, match=r"transformer.wte.weight is offloaded or sharded; load the model whole"):
        read_vocabulary(absent)
    separate = AutoModelForSeq2SeqLM.from_config(
        AutoConfig.for_model("bart", vocab_size=SIZE, **BART, tie_word_embeddings=False)
    )
    with pytest.raises(InputError, match=r"encoder.embed_tokens.weight \(37, 16\) is neither its input nor its output"):
        read_vocabulary(separate)
    images = AutoModel.from_config(AutoConfig.for_model("vit", **BERT, image_size=8, patch_size=4))
    with pytest.raises(InputError, match="expected token embeddings"):
        read_vocabulary(images)


def test_a_model_keeps_the_given_rows_on_request(model_folders):
    rows = np.random.default_rng(0).normal(size=(40, 24)).astype(np.float32)
    for copy_rows in (True, False):
        model = load_model(model_folders["bert"])
        replace_vocabulary(model, rows, special_ids={"pad_token_id": 0}, bias=np.zeros(40), copy_rows=copy_rows)
        weight = model.get_input_embeddings().weight
        assert np.shares_memory(weight.detach().numpy(), rows) != copy_rows
        assert weight is model.get_output_embeddings().weight
