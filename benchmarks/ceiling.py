"""What any initialisation could reach: a free row for each target token, trained on true parallel text.

    python benchmarks/ceiling.py DATA SOURCE_MODEL BUNDLE OUTPUT --minutes 9

The body stays as it is; only the rows move, so that a foreign sentence read through them means what its English
translation means to the untouched model (InfoNCE at 0.05 over the batch, and cosine). DATA is laid out as `README.md`
here says and has `parallel.tsv`; 1,000 of its pairs, by English sentence, are kept out to see when training has
converged. Called again, it goes on where it was; each call prints what held-out sentences score. For sentence encoders;
language models have their own.
"""

import argparse
import json
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hyperofa import evaluate
from hyperofa.bundle.bundle import Bundle
from hyperofa.export.initialise import initialise
from hyperofa.models.source import source_of
from hyperofa.runtime.text_files import read_pairs
from hyperofa.training.plm_loss import FrozenPLM, Sentences

HELD_OUT = 1_000
LONGEST = 128  # tokens


def hold_out(pairs: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs to train on, and `HELD_OUT` or a tenth to see how it goes; a sentence's translations stay together."""
    hashes = [zlib.crc32(english.encode()) for english, _ in pairs]
    last = sorted(hashes)[min(HELD_OUT, len(pairs) // 10 + 1) - 1]
    sides: tuple[list[tuple[str, str]], list[tuple[str, str]]] = [], []
    for pair, number in zip(pairs, hashes, strict=True):
        sides[number <= last].append(pair)
    return sides


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Padded token ids `(B, L)` and the mask."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


class Reader:
    """Sentence vectors of the frozen source model, read through a vocabulary's rows, of unit length."""

    def __init__(self, plm: FrozenPLM, tokenizer: PreTrainedTokenizerBase, rows: Tensor) -> None:
        self.plm, self.tokenizer, self.rows = plm, tokenizer, rows

    def __call__(self, texts: list[str]) -> Tensor:
        """`(B, E)`; gradients flow to the rows."""
        ids, mask = tokenise(self.tokenizer, texts)
        tokens, slots = ids.unique(return_inverse=True)
        return self.plm.encode(self.rows[tokens], Sentences(slots, mask))[:, 0]


class Expected:
    """Sentence vectors of the untouched model, each computed once."""

    def __init__(self, plm: FrozenPLM, tokenizer: PreTrainedTokenizerBase) -> None:
        self.plm, self.tokenizer, self.known = plm, tokenizer, {}

    def __call__(self, texts: list[str]) -> Tensor:
        """`(B, E)`."""
        new = sorted({text for text in texts if text not in self.known}, key=len)
        for start in range(0, len(new), 64):
            some = new[start : start + 64]
            self.known.update(zip(some, self.plm.encode_ids(*tokenise(self.tokenizer, some))[:, 0], strict=True))
        return torch.stack([self.known[text] for text in texts])


def loss_of(found: Tensor, expected: Tensor) -> Tensor:
    """InfoNCE at 0.05 and cosine distance.

    Args:
        found: `(B, E)` unit vectors.
        expected: `(B, E)` likewise.
    """
    scores = found @ expected.T / 0.05
    return cross_entropy(scores, torch.arange(len(found))) + 1 - (found * expected).sum(1).mean()


def started(bundle: Bundle, start: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model whose rows are trained, as it begins."""
    if Path(start).is_dir():
        return AutoModel.from_pretrained(start), AutoTokenizer.from_pretrained(start)
    initialised = initialise(bundle, start)
    return initialised.to_model(), initialised.tokenizer()


def main() -> None:
    """Train for some minutes, save, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "source_model", "bundle", "output"):
        parser.add_argument(name)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--start", default="ofa_tuned", help="method that gives the first rows, or a model's folder")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--score", action="store_true", help="score only")
    asked = parser.parse_args()
    output, bundle = Path(asked.output), Bundle.load(asked.bundle)
    output.mkdir(parents=True, exist_ok=True)
    pairs, held_out = hold_out(read_pairs([Path(asked.data) / "parallel.tsv"]))

    source = source_of(asked.source_model)
    frozen = FrozenPLM(source.load())
    expected = Expected(frozen, source.load_tokenizer())
    model, tokenizer = started(bundle, asked.start)
    rows = model.get_input_embeddings().weight.detach().clone().requires_grad_(True)
    reader = Reader(frozen, tokenizer, rows)
    optimiser = torch.optim.Adam([rows], lr=asked.rate)
    state = {"step": 0, "seconds": 0.0, "curve": []}
    saved = output / "state.pt"
    if saved.is_file():
        kept = torch.load(saved, weights_only=True)
        rows.data.copy_(kept["rows"])
        optimiser.load_state_dict(kept["optimiser"])
        state = kept["state"]

    def validate() -> float:
        """Mean loss on pairs that are not trained on."""
        with torch.no_grad():
            parts = [held_out[at : at + asked.batch] for at in range(0, len(held_out), asked.batch)]
            losses = [loss_of(reader([f for _, f in part]), expected([e for e, _ in part])) for part in parts]
        return float(torch.stack(losses).mean())

    start = time.perf_counter()
    while not asked.score and time.perf_counter() - start < 60 * asked.minutes:
        rng = np.random.default_rng((0, state["step"]))  # the same batches, however often it is interrupted
        batch = [pairs[n] for n in rng.integers(len(pairs), size=asked.batch)]
        loss = loss_of(reader([f for _, f in batch]), expected([e for e, _ in batch]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        state["step"] += 1
        if state["step"] % 100 == 0:
            state["curve"].append([state["step"], validate()])
            print(*state["curve"][-1], flush=True)
    state["seconds"] += time.perf_counter() - start
    torch.save({"rows": rows.data, "optimiser": optimiser.state_dict(), "state": state}, saved)
    model.get_input_embeddings().weight.data.copy_(rows.data)
    model.save_pretrained(output / "model")
    tokenizer.save_pretrained(output / "model")
    scores = evaluate(output / "model", asked.source_model, asked.data, sentences=asked.sentences)
    means = {task: of for task, of in scores.means().items() if "top1" in of}
    (output / "result.json").write_text(json.dumps({"means": means, **state}))
    print(scores, state["step"], "steps", round(state["seconds"]), "seconds")


if __name__ == "__main__":
    main()
