"""Make peers.npz: what other people's packages compute on small made-up inputs.

Run once in an environment of each package, in this folder: `python make_peers.py PACKAGE`, one of wechsel 0.0.4,
deepfocus 1.0.1, langsfer 0.1.0 and mergekit 0.1.5. Each adds its own result and leaves the others.
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

FILE = Path(__file__).with_name("peers.npz")
SOURCE, TARGET, WIDTH, ROW = 40, 30, 12, 6
SHARED = 24
"""The first target tokens are the first source tokens."""


def make_inputs():
    """Vectors that lie around a common direction, as word vectors do, and the rows of the source tokens."""
    rng = np.random.default_rng(15)
    around = rng.standard_normal(WIDTH)
    source, target = (around + rng.standard_normal((count, WIDTH)) for count in (SOURCE, TARGET))
    unit = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (source, target)]
    return {"source": unit[0], "target": unit[1], "rows": rng.standard_normal((SOURCE, ROW)).astype(np.float32)}


class Tokens:
    """The least of a tokenizer that wechsel asks for."""

    special_tokens_map = {}  # noqa: RUF012

    def __init__(self, count):
        self.vocab = {f"t{n}": n for n in range(count)}

    def __len__(self):
        return len(self.vocab)

    def convert_ids_to_tokens(self, ids):
        """As transformers' own."""
        return [f"t{n}" for n in ids] if np.ndim(ids) else f"t{ids}"


def wechsel(inputs):
    """Rows of all target tokens."""
    from wechsel import create_target_embeddings

    tokens = Tokens(SOURCE), Tokens(TARGET)
    return create_target_embeddings(inputs["source"], inputs["target"], *tokens, inputs["rows"], verbose=False)[0]


def deepfocus(inputs):
    """Rows of the target tokens that are not shared."""
    import torch
    from deepfocus.focus import focus_additional_token_initialization

    def token(n):
        row = torch.from_numpy(inputs["rows"][n])
        vector = inputs["target"][n]
        return SimpleNamespace(auxiliary_embedding=vector, source_embedding=row, target=SimpleNamespace(id=n))

    shared, new = ({f"t{n}": token(n) for n in span} for span in (range(SHARED), range(SHARED, TARGET)))
    return focus_additional_token_initialization(shared, new, torch.zeros(TARGET, ROW), "cpu")[SHARED:].numpy()


def langsfer(inputs):
    """Rows of the target tokens that are not shared, by CLP-Transfer."""
    from langsfer.similarity import CosineSimilarity
    from langsfer.weights import IdentityWeights

    found = CosineSimilarity().apply(inputs["target"][SHARED:], inputs["target"][:SHARED])
    weights = IdentityWeights().apply(found)
    return weights @ inputs["rows"][:SHARED] / weights.sum(1)[:, None]  # as its WeightedAverageEmbeddingsInitialization


def mergekit(inputs):
    """Rows of the target tokens that are not shared, by orthogonal matching pursuit with k = 5."""
    import torch
    from mergekit.tokensurgeon.omp import batch_omp

    vectors, rows = torch.from_numpy(inputs["target"]), torch.from_numpy(inputs["rows"])
    chosen, weights = batch_omp(vectors[SHARED:], vectors[:SHARED], 5)
    return torch.bmm(weights[:, None], rows[:SHARED][chosen])[:, 0].numpy()


if __name__ == "__main__":
    name = sys.argv[1]
    kept = dict(np.load(FILE)) if FILE.exists() else {}
    inputs = make_inputs()
    np.savez_compressed(FILE, **{**kept, **inputs, name: globals()[name](inputs).astype(np.float32)})
