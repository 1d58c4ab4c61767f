"""`hyperofa evaluate`: the flags of an evaluation."""

from pathlib import Path

from hyperofa.evaluation.evaluate import evaluate as evaluate_model
from hyperofa.evaluation.scores import Scores


def evaluate(
    model: Path,
    source_model: str,
    data: Path | None = None,
    languages: list[str] | None = None,
    sentences: int = 500,
    layer: int = -1,
    output: Path | None = None,
    text: list[Path] | None = None,
) -> Scores:
    """Score an exported model: sentence retrieval against the source model's English, and what its new tokens take.

    Args:
        model: folder that `hyperofa export` wrote.
        source_model: folder or hub id of the source model.
        data: folder with `heldout.tsv.gz` (language, verse id, text; English among the languages) for SR-B, with
            `tatoeba/LNG-eng.tsv.gz` (foreign, English) for SR-T, or both. Without it, no retrieval.
        languages: only these. All if not given.
        sentences: at most this many of each language, and lines of each text.
        layer: hidden state that sentences are compared in, -1 the last; the papers read 8.
        output: JSON file to write the scores to as well; with --text, histograms beside it (.png).
        text: files of text that the source model knows, one sentence a line. If given, of a causal or masked language
            model: KL divergence of old and new next-token distributions, mass on new tokens, partition functions.

    Returns:
        The scores.

    Raises:
        InputError: no model, sentences or text there, or a language that is not.
    """
    return evaluate_model(model, source_model, data, text or (), languages, sentences, layer, output)
