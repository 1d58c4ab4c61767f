"""Whether the confidence of predicted rows holds, on held-out tokens that it was not fitted on.

    python benchmarks/confidence.py BUNDLE CHECKPOINT [CHECKPOINT …]

Printed are the predicted target rows by confidence, and of the test tokens of such a confidence how many are expected
to be right and how many are; then how confidence and the cosine of predicted and true row rank the tokens alike
(Spearman), for source tokens and for target tokens that are the same as one. Of several nets it is printed twice:
with how far they agree as evidence, and without.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torchmetrics.functional.classification import binary_auroc

from hyperofa.bundle.bundle import Bundle
from hyperofa.export.confidence import Confidence, assess
from hyperofa.export.prediction import agreement_of, predict, predictor_of_held
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
    held = predictor_of_held(bundle, nets, 0, TUNED_OFA)
    if len(nets) > 1:
        rows = [predict(net, bundle).coordinates for net in nets]
        print("With how far the nets agree:\n")
        report(bundle, predicted, assess(bundle, predicted, agreement_of(rows, np.mean(rows, axis=0)), held))
        print("\nWithout:\n")
    report(bundle, predicted, assess(bundle, predicted, None, lambda *asked: (held(*asked)[0], None)))


def report(bundle: Bundle, predicted: np.ndarray, found: Confidence | None) -> None:
    """Print the tables of one way to judge rows."""
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
        area = binary_auroc(torch.from_numpy(found.expected[part]), torch.from_numpy(right).long())
        means = f"{found.expected[part].mean():.2f} expected, {right.mean():.2f} right, area under the curve {area:.3f}"
        print(f"\n{name}: {len(right)}, {means}, rank correlation with the cosine {alike:.2f}")


if __name__ == "__main__":
    main()
