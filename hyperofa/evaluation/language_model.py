"""What a language model makes of held-out text under its new vocabulary: bits per byte, which any tokenizers share.

Of the source language the old model says, under the old vocabulary, what replacing it cost. Each text stands alone,
between the special tokens of its tokenizer, and counts its bytes and a newline. A causal model is asked for every token
and for the end of the text; a masked one for 15 % of the tokens, scaled up to all, so that its numbers are pseudo ones
and compare among masked models alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hyperofa.errors import InputError
from hyperofa.evaluation.retrieval import read_sets
from hyperofa.evaluation.scores import SOURCE_LANGUAGE, Metric
from hyperofa.evaluation.task import Finding, LoadedModel, Request, Task
from hyperofa.models.objectives import Objective, longest, mask_tokens, objective_of, special_affixes
from hyperofa.runtime.devices import best_device
from hyperofa.tokens.canonical import bare_backend

METRICS = {
    "bits": Metric("bits per byte", "bits", "lower", 3, main=True),
    "source": Metric("before, under the source vocabulary", "bits", None, 3),
}
_LARGEST = 100  # texts of a language
_MAX_TOKENS = 200
_BATCH = 8


@dataclass(frozen=True)
class Texts:
    """Held-out text of one language."""

    language: str
    lines: Sequence[str]


def bits_per_byte(model: LoadedModel, lines: Sequence[str], objective: Objective, seed: int = 0) -> float:
    """Bits that a language model needs for a byte of text.

    Args:
        model: with its tokenizer; moved to the GPU if there is one.
        lines: texts, each read alone; one that is longer than 200 tokens is cut, with its bytes.
        objective: of the model.
        seed: of the choice of masked tokens.

    Raises:
        InputError: a masked model without a mask token.
    """
    network, tokenizer = model
    mask_id = tokenizer.mask_token_id
    if objective == "masked" and mask_id is None:
        raise InputError("--model: expected a mask token in the tokenizer of a masked language model, found none")
    device = best_device()
    torch.nn.Module.to(network.eval(), device)
    generator = np.random.default_rng(seed)
    nats, size, asked, tokens = 0.0, 0, 0, 0
    with torch.inference_mode():
        for ids, real, is_text, count in _batches(model, lines):
            size += count
            shown, chosen, labels = ids, real.clone(), ids
            if objective == "causal":
                chosen[:, 0] = False
                chosen, labels = torch.roll(chosen, -1, 1), torch.roll(ids, -1, 1)
            else:
                shown, chosen = mask_tokens(ids, is_text, int(mask_id), None, generator)
                chosen = chosen & is_text
            tokens += int(is_text.sum())
            asked += int(chosen.sum())
            logits = network(input_ids=shown.to(device), attention_mask=real.long().to(device)).logits
            picked = logits[chosen.to(device)].float()
            nats += float(cross_entropy(picked, labels[chosen].to(device), reduction="sum"))
    share = asked / max(1, tokens) if objective == "masked" else 1.0
    return nats / max(share, 1e-9) / math.log(2) / max(1, size)


def _batches(model: LoadedModel, lines: Sequence[str]) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Ids `(B, L)`, which of them are real and which text, both bool, and the bytes that they stand for."""
    network, tokenizer = model
    before, after = special_affixes(tokenizer)
    backend = bare_backend(tokenizer)
    room = longest(network, tokenizer, _MAX_TOKENS) - len(before) - len(after)
    ordered = sorted(lines, key=len)
    for start in range(0, len(ordered), _BATCH):
        texts = ordered[start : start + _BATCH]
        rows, size = [], 0
        for text, encoding in zip(texts, backend.encode_batch(texts, add_special_tokens=False), strict=True):
            cut = len(encoding.ids) > room
            rows.append([*before, *encoding.ids[:room], *after])
            size += len((text[: encoding.offsets[room - 1][1]] if cut else text).encode()) + 1
        width = max(map(len, rows))
        real = torch.tensor([[number < len(row) for number in range(width)] for row in rows])
        ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows])
        is_text = real & (torch.arange(width) >= len(before))
        is_text &= torch.arange(width) < torch.tensor([len(row) - len(after) for row in rows])[:, None]
        yield ids, real, is_text, size


def _read(request: Request) -> list[Texts]:
    sets = [] if request.data is None else read_sets(request.data, min(request.sentences, _LARGEST))
    texts = {each.language: each.foreign for each in sets if each.task == "SR-B"}
    if not texts and sets:  # without verses, what is to be retrieved, and the English of the first language
        texts = {SOURCE_LANGUAGE: sets[0].english} | {each.language: each.foreign for each in sets}
    return [Texts(language, lines) for language, lines in texts.items()]


def _score(texts: Sequence[Texts], target: LoadedModel, source: LoadedModel, request: Request) -> Finding:
    try:
        objective = objective_of(target[0])
    except InputError:  # without a head that says the next or a masked token there is nothing to measure
        return Finding({})
    numbers: dict[str, dict[str, float]] = {"bits": {}, "source": {}}
    for each in texts:
        numbers["bits"][each.language] = bits_per_byte(target, each.lines, objective)
        if each.language == SOURCE_LANGUAGE:
            numbers["source"][each.language] = bits_per_byte(source, each.lines, objective)
    return Finding({"LM": {name: found for name, found in numbers.items() if found}})


TASK = Task("language_model", METRICS, "data", "heldout.tsv.gz or tatoeba/LNG-eng.tsv.gz", _read, _score)
