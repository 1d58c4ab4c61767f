"""Whether the confidence of predicted rows holds, on held-out tokens that it was not fitted on.

    python benchmarks/confidence.py BUNDLE CHECKPOINT [CHECKPOINT …]

Printed are the predicted target rows by confidence, and of the test tokens of such a confidence how many are expected
to be right and how many are; then how confidence and the cosine of predicted and true row rank the tokens alike
(Spearman), for source tokens and for target tokens that are the same as one.
"""

import argparse
from pathlib import Path

from scipy.stats import spearmanr

from hyperofa.bundle.bundle import Bundle
from hyperofa.export.confidence import assess
from hyperofa.export.prediction import _predictor_of_held
from hyperofa.methods.baselines import TUNED_OFA
from hyperofa.training.hypernetwork import Hypernetwork


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    nets = [Hypernetwork.load(path, bundle) for path in args.checkpoints]
    predicted = bundle.target.covered.copy()
    predicted[bundle.overlap.choose(nets[0].copied).target_ids] = False
    # Of one net all that is known of a target row is known before it is predicted.
    found = assess(
        bundle, predicted, None, lambda *asked: (_predictor_of_held(bundle, nets, 0, TUNED_OFA)(*asked)[0], None)
    )
    if found is None:
        raise SystemExit("too few held-out tokens")
    print(f"{found}; weights {found.weights}; fitted on {found.fitted} tokens\n")
    print("| confidence | rows | test tokens | expected | right |\n|---|--:|--:|--:|--:|")
    for each in found.bins:
        told = f"{each.expected:.2f} | {each.found:.2f}" if each.tokens else "– | –"
        print(f"| {each.low:.1f} – {each.low + 0.1:.1f} | {each.rows / predicted.sum():.1%} | {each.tokens} | {told} |")
    source = len(bundle.split["test"])
    for name, part in {"source tokens": slice(source), "target tokens": slice(source, None)}.items():
        alike, right = spearmanr(found.expected[part], found.cosines[part]).statistic, found.right[part]
        means = f"{found.expected[part].mean():.2f} expected, {right.mean():.2f} right"
        print(f"\n{name}: {len(right)}, {means}, rank correlation with the cosine {alike:.2f}")


if __name__ == "__main__":
    main()
