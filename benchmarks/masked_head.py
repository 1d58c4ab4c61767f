"""Give a sentence encoder of BERT's kind a head that fills in masked tokens, so that it is a language model too.

    python benchmarks/masked_head.py MODEL OUTPUT TEXT... --frozen_steps 60 --steps 500

The head is tied to the word embeddings. First it alone is trained, with the body frozen, then all of the model at a
quarter of the rate. TEXT are plain or gzipped files of lines, of which what follows a tab counts; one line in a hundred
is held out.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerBase

from hyperofa.runtime.text_files import read_lines

LONGEST, BATCH = 64, 32
MASKED = 0.15
HEAD_RATE, BODY_RATE, WARMUP = 2e-3, 5e-4, 30


class Masker:
    """Batches of lines in which some tokens are masked."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        self.tokenizer, self.generator = tokenizer, torch.Generator().manual_seed(seed)

    def __call__(self, lines: list[str]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids `(B, L)` with masks in them, the attention mask, where the masks are, and what they hide `(M,)`."""
        settings = {"padding": True, "truncation": True, "max_length": LONGEST, "return_tensors": "pt"}
        batch = self.tokenizer(lines, return_special_tokens_mask=True, **settings)
        ids = batch["input_ids"]
        hidden = (torch.rand(ids.shape, generator=self.generator) < MASKED) & ~batch["special_tokens_mask"].bool()
        return ids.masked_fill(hidden, self.tokenizer.mask_token_id), batch["attention_mask"], hidden, ids[hidden]


def loss_of(model, batch: tuple[Tensor, Tensor, Tensor, Tensor], frozen: bool) -> Tensor:
    """Nats a masked token."""
    ids, mask, hidden, expected = batch
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        states = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state[hidden]
    return cross_entropy(model.cls(states), expected)


@torch.no_grad()
def held_out_loss(model, tokenizer: PreTrainedTokenizerBase, lines: list[str]) -> float:
    """Nats a masked token of lines that were not trained on; the same masks each time."""
    masker = Masker(tokenizer, seed=1)
    parts = [lines[start : start + BATCH] for start in range(0, len(lines), BATCH)]
    return sum(loss_of(model, masker(part), frozen=True).item() * len(part) for part in parts) / len(lines)


def main() -> None:
    """Train, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("output", type=Path)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--frozen_steps", type=int, default=60)
    parser.add_argument("--steps", type=int, default=500)
    args = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForMaskedLM.from_pretrained(args.model, attn_implementation="eager").eval()  # without dropout
    lines = read_lines(args.text)
    random.Random(0).shuffle(lines)
    held_out, lines = lines[::100][:640], [line for place, line in enumerate(lines) if place % 100]
    head = [weight for name, weight in model.named_parameters() if name.startswith("cls.")]
    body = [weight for name, weight in model.named_parameters() if not name.startswith("cls.")]
    groups = [{"params": head, "peak": HEAD_RATE}, {"params": body, "peak": BODY_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    total = args.frozen_steps + args.steps
    masker, began = Masker(tokenizer, seed=0), time.monotonic()
    for step in range(total):
        frozen = step < args.frozen_steps
        scale = min(1, (step + 1) / WARMUP) * (1 - step / total)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * scale
        loss = loss_of(model, masker(random.Random(step).sample(lines, BATCH)), frozen)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for weight in body if frozen else ():  # the embeddings are the head's last layer
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(head + body, 1.0)
        optimiser.step()
        if (step + 1) % 50 == 0 or step + 1 == total:
            said = held_out_loss(model, tokenizer, held_out)
            print(f"step {step + 1}: {said:.3f} nats a masked token, {time.monotonic() - began:.0f} s", flush=True)
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)


if __name__ == "__main__":
    main()
