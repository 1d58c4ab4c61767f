"""Tiny models of many families, and what is made of them as users do it: from a folder, into a folder.

What a model was loaded from decides how it is saved, as transformers turns its weights back into what they were: a
model that was built in memory proves little about an export.
"""

import copy
import inspect
import json
import os
import subprocess
import sys
import tempfile
from functools import cache

import numpy as np
import torch
import transformers
from packaging.version import Version
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

from hyperofa.models.factorised import factorise
from hyperofa.models.loading import load_model
from hyperofa.models.vocabulary import read_vocabulary, replace_vocabulary

SIZE = 37  # prime, so that no width or padded size equals it by chance
SPECIALS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
LLAMA = BERT | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 32}
BART = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
}
T5 = {
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "pad_token_id": 1,
    "decoder_start_token_id": 1,
}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
ROBERTA = BERT | {"max_position_embeddings": 20, "type_vocab_size": 1}
GPTJ = GPT2 | {"rotary_dim": 4}
MOE = LLAMA | {"num_local_experts": 2, "num_experts_per_tok": 1}

EXPERTS = LLAMA | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 8}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 1,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
DEEPSEEK = LLAMA | {
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_group": 2,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
JAMBA = MOE | {
    "num_experts": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4}
PROPHETNET = {
    "hidden_size": 16,
    "num_encoder_layers": 1,
    "num_encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "num_decoder_layers": 1,
    "num_decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
}
GEMMA4 = LLAMA | {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 50, "global_head_dim": 8}
LLAVA = {
    "image_token_index": 6,
    "text_config": {"model_type": "llama", "vocab_size": SIZE, **LLAMA, **SPECIALS},
    "vision_config": {"model_type": "clip_vision_model", **BERT, "image_size": 8, "patch_size": 4, "projection_dim": 8},
}

MASKED, CAUSAL, SEQ2SEQ = AutoModelForMaskedLM, AutoModelForCausalLM, AutoModelForSeq2SeqLM
IMAGES = AutoModelForImageTextToText
FAMILIES = {  # name: model type, how it is loaded, config, how it can be tied
    "bert": ("bert", MASKED, BERT, "both"),
    "roberta": ("roberta", MASKED, ROBERTA, "both"),
    "xlm-r": ("xlm-roberta", MASKED, ROBERTA, "both"),
    "camembert": ("camembert", MASKED, ROBERTA, "tied"),
    "albert": ("albert", MASKED, BERT | {"embedding_size": 12}, "both"),
    "distilbert": ("distilbert", MASKED, {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24}, "tied"),
    "electra": ("electra", MASKED, BERT | {"embedding_size": 12}, "tied"),
    "deberta-v2": ("deberta-v2", MASKED, BERT, "tied"),
    "deberta-v2-new": ("deberta-v2", MASKED, BERT | {"legacy": False}, "tied"),
    "modernbert": ("modernbert", MASKED, BERT, "both"),
    "mpnet": ("mpnet", MASKED, ROBERTA, "tied"),
    "funnel": (
        "funnel",
        MASKED,
        {"block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24},
        "tied",
    ),
    "xlm": (
        "xlm",
        MASKED,
        {
            "emb_dim": 16,
            "n_layers": 1,
            "n_heads": 2,
            "pad_index": 1,
            "bos_index": 0,
            "eos_index": 2,
            "unk_index": 2,
            "mask_index": 2,
            "mask_token_id": 2,
        },
        "tied",
    ),
    "longformer": ("longformer", MASKED, ROBERTA | {"attention_window": 4, "max_position_embeddings": 26}, "tied"),
    "gpt2": ("gpt2", CAUSAL, GPT2, "both"),
    "gpt-neox": ("gpt_neox", CAUSAL, BERT, "both"),
    "llama": ("llama", CAUSAL, LLAMA, "both"),
    "mistral": ("mistral", CAUSAL, LLAMA, "untied"),
    "mixtral": ("mixtral", CAUSAL, MOE, "untied"),
    "gemma": ("gemma", CAUSAL, LLAMA, "tied"),
    "gemma2": ("gemma2", CAUSAL, LLAMA, "tied"),
    "gemma3": ("gemma3_text", CAUSAL, LLAMA, "tied"),
    "qwen2": ("qwen2", CAUSAL, LLAMA, "both"),
    "qwen3": ("qwen3", CAUSAL, LLAMA, "both"),
    "phi": ("phi", CAUSAL, BERT, "untied"),
    "gpt-j": ("gptj", CAUSAL, GPTJ, "untied"),
    "codegen": ("codegen", CAUSAL, GPTJ | {"n_head": 4}, "untied"),
    "opt": (
        "opt",
        CAUSAL,
        {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "ffn_dim": 24,
            "word_embed_proj_dim": 12,
            "max_position_embeddings": 32,
        },
        "tied",
    ),
    "bloom": ("bloom", CAUSAL, {"hidden_size": 16, "n_layer": 1, "n_head": 2}, "tied"),
    "falcon": ("falcon", CAUSAL, BERT, "tied"),
    "mpt": ("mpt", CAUSAL, {"d_model": 16, "n_layers": 1, "n_heads": 2, "max_seq_len": 32}, "tied"),
    "xglm": ("xglm", CAUSAL, {"d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 24}, "tied"),
    "bart": ("bart", SEQ2SEQ, BART, "both"),
    "mbart": ("mbart", SEQ2SEQ, BART, "tied"),
    "pegasus": ("pegasus", SEQ2SEQ, BART, "tied"),
    "marian": ("marian", SEQ2SEQ, BART | {"decoder_vocab_size": SIZE}, "tied"),
    "led": (
        "led",
        SEQ2SEQ,
        {k: v for k, v in BART.items() if k != "max_position_embeddings"}
        | {"attention_window": 4, "max_encoder_position_embeddings": 32, "max_decoder_position_embeddings": 32},
        "tied",
    ),
    "m2m100": ("m2m_100", SEQ2SEQ, BART, "tied"),
    "t5": ("t5", SEQ2SEQ, T5, "tied"),
    "t5-v1.1": ("t5", SEQ2SEQ, T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "untied"),
    "mt5": ("mt5", SEQ2SEQ, T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "untied"),
    "umt5": ("umt5", SEQ2SEQ, T5, "untied"),
    "longt5": ("longt5", SEQ2SEQ, T5 | {"local_radius": 4}, "tied"),
}
FURTHER = {  # as in test_vocabulary.FAMILIES; only what needs another way of saving, or a look of its own
    "qwen2-moe": ("qwen2_moe", CAUSAL, SHARED | {"mlp_only_layers": [], "decoder_sparse_step": 1}, "both"),
    "qwen3-moe": ("qwen3_moe", CAUSAL, EXPERTS | {"mlp_only_layers": [], "decoder_sparse_step": 1}, "tied"),
    "qwen3-next": ("qwen3_next", CAUSAL, SHARED | LINEAR, "untied"),
    "olmoe": ("olmoe", CAUSAL, EXPERTS, "untied"),
    "phimoe": ("phimoe", CAUSAL, MOE, "untied"),
    "granitemoe": ("granitemoe", CAUSAL, MOE, "both"),
    "deepseek-v3": ("deepseek_v3", CAUSAL, DEEPSEEK, "untied"),
    "jamba": ("jamba", CAUSAL, JAMBA, "both"),
    "gpt-oss": ("gpt_oss", CAUSAL, MOE, "untied"),
    "jina": ("jina_embeddings_v3", MASKED, ROBERTA, "both"),
    "nomic-bert": ("nomic_bert", MASKED, BERT, "both"),
    "gte": ("gte", MASKED, BERT, "both"),
    "deberta": ("deberta", MASKED, BERT, "both"),
    "big-bird": ("big_bird", MASKED, BERT | {"attention_type": "original_full"}, "untied"),
    "ernie": ("ernie", MASKED, BERT, "untied"),
    "xlm-r-xl": ("xlm-roberta-xl", MASKED, ROBERTA, "untied"),
    "apertus": ("apertus", CAUSAL, LLAMA, "untied"),
    "recurrent-gemma": ("recurrent_gemma", CAUSAL, LLAMA | {"num_hidden_layers": 3, "lru_width": 16}, "tied"),
    "gemma4": ("gemma4_text", CAUSAL, GEMMA4, "tied"),
    "llava": ("llava", IMAGES, LLAVA, "both"),
    "cohere2": ("cohere2", CAUSAL, LLAMA, "tied"),
    "ernie-4.5": ("ernie4_5", CAUSAL, LLAMA, "untied"),
    "eurobert": ("eurobert", MASKED, LLAMA | {"mask_token_id": 3}, "untied"),
    "falcon-h1": ("falcon_h1", CAUSAL, LLAMA | MAMBA | {"mamba_d_ssm": 32}, "both"),
    "granite-hybrid": (
        "granitemoehybrid",
        CAUSAL,
        MOE | MAMBA | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 8},
        "tied",
    ),
    "lfm2": ("lfm2", CAUSAL, LLAMA | {"layer_types": ["conv", "full_attention"], "block_ff_dim": 24}, "tied"),
    "mamba": ("mamba", CAUSAL, {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}, "untied"),
    "olmo2": ("olmo2", CAUSAL, LLAMA, "untied"),
    "prophetnet": ("prophetnet", SEQ2SEQ, PROPHETNET, "tied"),
    "roformer": ("roformer", MASKED, BERT | {"embedding_size": 12}, "untied"),
    "stablelm": ("stablelm", CAUSAL, LLAMA, "untied"),
    "switch": (
        "switch_transformers",
        SEQ2SEQ,
        T5 | {"num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
        "tied",
    ),
    "xlnet": ("xlnet", CAUSAL, {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24}, "tied"),
}
# Versions of transformers before which a family's model does not load as it was saved.
MENDED = {"deberta-v2-new": "5.20", "falcon-h1": "5.16"}
BOUND_PAD = ("mpnet", "xglm", "m2m100")  # positions that cannot follow another pad id


def cases(families):
    """Name, and whether the head is tied, of each model to build, if this version of transformers can."""
    ways = {"both": (True, False), "tied": (True,), "untied": (False,)}
    here = Version(transformers.__version__)
    usable = (
        name for name in families if families[name][0] in CONFIG_MAPPING and here >= Version(MENDED.get(name, "5"))
    )
    return [(name, tied) for name in usable for tied in ways[families[name][3]]]


def case_id(case):
    """How a case is called in the names of tests."""
    return f"{case[0]}-{'tied' if case[1] else 'untied'}"


CASES = cases(FAMILIES)
EVERY = CASES + cases(FURTHER)


def build(name, tied=True, dtype=torch.float32, auto=None, **overrides):
    """A tiny model of a family in which every parameter, the head bias too, is far from its initial value."""
    kind, loader, settings, _ = (FAMILIES | FURTHER)[name]
    tie_inputs = tied or kind == "bart"  # untied by its config, it would have an encoder's and a decoder's vocabulary
    settings = {"vocab_size": SIZE, **SPECIALS, "tie_word_embeddings": tie_inputs, **settings, **overrides}
    torch.manual_seed(0)
    model = (auto or loader).from_config(AutoConfig.for_model(kind, **settings)).eval()
    if auto is None and not tied and model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())  # as a T5 v1.1 checkpoint loads
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.requires_grad:  # sinusoids are made anew on loading
                tensor.add_(torch.randn_like(tensor) * 0.2)
        if kind == "funnel":  # transformers zeroes the pad row of this family on every loading
            model.get_input_embeddings().weight[1] = 0
        for key, tensor in model.named_buffers():
            if key == "final_logits_bias":
                tensor.normal_()
    return model.to(dtype)


def outputs(model, ids):
    """Logits (or hidden states) on a text; the second text of the batch is shorter and padded."""
    ids = torch.as_tensor(ids)
    given = {"input_ids": ids, "attention_mask": (ids != model.config.pad_token_id).long()}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    with torch.no_grad():
        found = model(**given, output_hidden_states=True)
    hidden = found.decoder_hidden_states if model.config.is_encoder_decoder else found.hidden_states
    return (found.logits if "logits" in found else found.last_hidden_state).float(), hidden[-1].float()


def text_of(size, pad, length=8):
    ids = np.random.default_rng(1).choice(np.setdiff1d(np.arange(size), [pad]), (2, length))
    ids[1, -3:] = pad
    return ids


DIM = 5


def make(name, tied=True, dtype=torch.float32, size=SIZE):
    """A dense model whose rows are F P, and the same one factorised, both from disk; `size` rows are not padding."""
    with tempfile.TemporaryDirectory() as folder:
        build(name, tied).save_pretrained(folder)
        dense = load_model(folder)
    factors = _put_product(dense, size)
    model = copy.deepcopy(dense)
    factorise(model, *factors)
    return dense.to(dtype), model.to(dtype)


def _put_product(model, size):
    old = read_vocabulary(model)
    untied = old.output_rows is not None and not old.tied
    rng = np.random.default_rng(0)
    coordinates = rng.standard_normal((size, DIM * (2 if untied else 1))).astype(np.float32)
    widths = (old.input_rows.shape[1], old.output_rows.shape[1] if untied else 0)
    primitives = [rng.standard_normal((DIM, width)).astype(np.float32) / 3 if width else None for width in widths]
    if type(model).__name__.startswith("Funnel"):
        coordinates[1] = 0
    replace_vocabulary(
        model,
        coordinates[:, :DIM] @ primitives[0],
        output_rows=coordinates[:, DIM:] @ primitives[1] if untied else None,
        bias=None if old.bias is None else old.bias[:size],
        special_ids=SPECIALS | {"decoder_start_token_id": 1},
        moved={token: token for token in range(size)},
        pad_to_multiple_of=None if size == SIZE else 8,
        copy_rows=False,
    )
    return coordinates, *primitives


kept = cache(make)  # not to be changed


_PLAIN = """
import sys
sys.modules["hyperofa"] = None
import json, torch, transformers
import numpy as np
transformers.utils.logging.disable_progress_bar()

def open_(folder, loader, ids):
    loader = getattr(transformers, loader)
    model, report = loader.from_pretrained(folder, trust_remote_code="factorised" in folder, output_loading_info=True)
    lost = {kind: sorted(map(str, found)) for kind, found in report.items() if found}
    return model, {"lost": lost, "logits": outputs(model.eval(), ids)[0].tolist()}

found = {}
for folder, loader, ids in json.load(sys.stdin):
    try:
        model, found[folder] = open_(folder, loader, ids)
        if "factorised" in folder:  # by their own code
            model.save_pretrained(folder + "-again")
            found[folder + "-again"] = open_(folder + "-again", loader, ids)[1]
    except Exception as error:
        found[folder] = {"error": repr(error)}
json.dump(found, sys.stdout)
"""


def open_elsewhere(folders, code):
    """What transformers alone finds in model folders, in a process that cannot import hyperofa.

    Args:
        folders: each with the name of the class of transformers that loads it.
        code: folder for what transformers takes from them to run.

    Returns:
        By folder, and by `…-again` where it saved a factorised one: what was `lost`, and the `logits`.
    """
    jobs = [(str(path), loader, text_of(SIZE, 1).tolist()) for path, loader in folders]
    done = subprocess.run(
        [sys.executable, "-c", inspect.getsource(outputs) + _PLAIN],
        input=json.dumps(jobs),
        env=os.environ | {"HF_MODULES_CACHE": str(code)},
        capture_output=True,
        text=True,
        cwd=code,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
