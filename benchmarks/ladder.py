"""Which fall-back says most of a token without words, measured on tokens that have words and are treated as if not.

    python benchmarks/ladder.py BUNDLE [--tokens 2000]

Held-out tokens are drawn among those that are predicted, one in eight at most. Their rows from words (tuned OFA's) are
the truth; each rung makes a row without their words, of the rows of the tokens that are left. Printed are the share of
the held-out tokens that a rung knows, the mean cosine to the truth over those, and over those that all but the last two
know; and how often the truth is among the ten nearest of all true rows (hit@10).
"""

import argparse
from pathlib import Path

import numpy as np

from hyperofa.bundle.bundle import Bundle
from hyperofa.methods.baselines import TUNED_OFA, ofa
from hyperofa.methods.fallbacks import plan_and_fill, script, target_inputs
from hyperofa.methods.relatives import pieces_of_tokens, tokens_with


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero ones stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tokens", type=int, default=2000)
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    inputs, tokens = target_inputs(bundle), bundle.tokens("target")
    filled = plan_and_fill(inputs, ofa(inputs, TUNED_OFA), ("role", "symbol"))
    truth, coordinates = filled.coordinates, np.asarray(bundle.coordinates)
    scripts = np.array([script(token) for token in tokens])
    candidates = np.flatnonzero((filled.origins == 1) & (scripts != ""))
    count = min(args.tokens, len(candidates) // 8)
    held = np.sort(np.random.default_rng(0).choice(candidates, count, replace=False))
    usable = inputs.covered.copy()
    usable[held] = False

    spelled = (inputs.spelled @ coordinates)[held]
    means = {name: truth[usable & (scripts == name)].mean(0) for name in set(scripts[held].tolist())}
    rungs = {
        "pieces": (pieces_of_tokens(tokens, held, usable) @ truth)[held],
        "containing": (tokens_with(tokens, held, usable) @ truth)[held],
        "subtokens": spelled,
        "script": np.stack([means[name] for name in scripts[held]]),
        "mean": np.broadcast_to(coordinates.mean(0), spelled.shape),
    }
    known = {name: rows.any(1) for name, rows in rungs.items()}
    shared = known["pieces"] & known["containing"] & known["subtokens"]
    keys = unit(truth[filled.origins == 1])
    place = np.searchsorted(np.flatnonzero(filled.origins == 1), held)
    print(f"{count} held-out tokens of {len(candidates)}, {int(shared.sum())} of them known to the first three\n")
    print("| rung | knows | cosine | cosine, shared | hit@10 |\n|---|---|---|---|---|")
    for name, rows in rungs.items():
        cosine = (unit(rows) * unit(truth[held])).sum(1)
        scores = unit(rows) @ keys.T
        better = (scores > scores[np.arange(count), place][:, None]).sum(1)
        hit = (better[known[name]] < 10).mean()
        print(
            f"| {name} | {known[name].mean():.1%} | {cosine[known[name]].mean():.3f} | {cosine[shared].mean():.3f} "
            f"| {hit:.1%} |"
        )


if __name__ == "__main__":
    main()
