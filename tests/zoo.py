"""Tokenizers of every family that expansion and trimming know, as small as they can be and still be real."""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, GPT2Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast, XLMRobertaTokenizer

from tests.conftest import ENGLISH, GERMAN, SPECIALS, train_byte_level, train_unigram, train_wordpiece, wrap

BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_metaspace_bpe(normalised: bool) -> Tokenizer:
    """Llama's kind: byte fallback; spaces become ▁ in the normaliser, over the whole text, or word by word."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    after = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(after)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=440, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(ENGLISH, trainer)
    if normalised:
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(state))


def train_llama3() -> Tokenizer:
    """Byte-level BPE whose pattern is a part of its own, with special tokens beyond the model's vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    pattern = pre_tokenizers.Split(Regex(_LLAMA3), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pattern, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ENGLISH, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    template = [("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=template)
    return tokenizer


def train_xlmr() -> Tokenizer:
    """Unigram behind two pre-tokenizers, with a mask token beyond the model's vocabulary."""
    tokenizer = train_unigram(ENGLISH + GERMAN)
    state = json.loads(tokenizer.to_str())
    state["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "WhitespaceSplit"}, state["pre_tokenizer"]],
    }
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(["<extra>"])
    return tokenizer


def _classes(root: Path) -> dict[str, PreTrainedTokenizerFast]:
    """Named classes of transformers, which build themselves anew from vocabulary and merges when loaded."""
    states = {kind: json.loads(make().to_str())["model"] for kind, make in _RAW.items()}
    merges = {kind: [tuple(pair) for pair in state.get("merges", [])] for kind, state in states.items()}
    gpt2 = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>"}
    return {
        "BertTokenizer": BertTokenizer(vocab=states["wordpiece"]["vocab"]),
        "GPT2Tokenizer": GPT2Tokenizer(vocab=states["bytelevel"]["vocab"], merges=merges["bytelevel"], **gpt2),
        "LlamaTokenizer": LlamaTokenizer(vocab=states["llama"]["vocab"], merges=merges["llama"]),
        "XLMRobertaTokenizer": XLMRobertaTokenizer(vocab=[tuple(entry) for entry in states["unigram"]["vocab"]]),
    }


_RAW = {
    "wordpiece": lambda: train_wordpiece(ENGLISH),
    "bytelevel": lambda: train_byte_level(ENGLISH),
    "llama3": train_llama3,
    "unigram": lambda: train_unigram(ENGLISH + GERMAN),
    "xlmr": train_xlmr,
    "metaspace": lambda: train_metaspace_bpe(normalised=False),
    "llama": lambda: train_metaspace_bpe(normalised=True),
}
_SPECIALS = {
    "wordpiece": BERT,
    "llama3": {"bos_token": "<|begin|>", "eos_token": "<|end|>"},
    "metaspace": LLAMA,
    "llama": LLAMA,
}
RAW_FAMILIES = tuple(_RAW)
CLASSES = ("BertTokenizer", "GPT2Tokenizer", "LlamaTokenizer", "XLMRobertaTokenizer")
FAMILIES = RAW_FAMILIES + CLASSES


def make_zoo(root: Path) -> dict[str, Path]:
    """Folders of tokenizers by family."""
    folders = {name: wrap(make(), root / name, **_SPECIALS.get(name, SPECIALS)) for name, make in _RAW.items()}
    for name, tokenizer in _classes(root).items():
        tokenizer.save_pretrained(root / name)
        folders[name] = root / name
    return folders
