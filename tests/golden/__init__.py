"""What the published code computes on small inputs, as tests read it (README.md)."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

GOLDEN = Path(__file__).parent
WORDS = GOLDEN / "words.vec.gz"
SOURCES = ("bytelevel", "wordpiece")
TARGET = "metaspace"
_SPECIAL = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
_BERT = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def load(name):
    """Inputs and values of one source tokenizer; of large matrices only their `entries`."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        values = dict(arrays)
    facts = json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))
    return SimpleNamespace(**facts, arrays=values, embeddings=values["embeddings"])


def backend(name):
    """A tokenizer."""
    return Tokenizer.from_buffer(gzip.decompress((GOLDEN / f"{name}.tokenizer.json.gz").read_bytes()))


def save_tokenizer(name, folder):
    """A tokenizer as transformers keeps it."""
    special = _BERT if name == "wordpiece" else _SPECIAL
    PreTrainedTokenizerFast(tokenizer_object=backend(name), **special).save_pretrained(folder)


def entries(matrix):
    """One number of each row, from each column in turn: `(N, E)` → `(N,)`; what is kept of a large matrix."""
    rows = np.arange(len(matrix))
    return matrix[rows, rows % matrix.shape[1]]
