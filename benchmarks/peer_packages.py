"""Run one published package as its documentation says: `python peer_packages.py PACKAGE INPUTS OUTPUT.npz`.

Runs in the package's own environment, without hyperofa; INPUTS is what `peers.py` wrote. Leaves `rows` `(T, E)` and
`random`, the number of rows that the package left to chance, to zero or to NaN; the last two become the source's mean.
"""

import os
import sys
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast


def tokenizers(inputs: Path) -> tuple:
    """The source's and the target's."""
    return tuple(PreTrainedTokenizerFast.from_pretrained(inputs / side) for side in ("source", "target"))


def wechsel(inputs: Path, _: Path) -> tuple[np.ndarray, int]:
    """wechsel 0.0.4 without sub-word information, on vectors that are aligned already."""
    from gensim.models import Word2Vec
    from wechsel import WECHSEL

    words = [line.split("\t") for line in (inputs / "words.tsv").read_text(encoding="utf-8").splitlines()]
    vectors = np.load(inputs / "vectors.npy")
    languages = np.array([language for language, _, _ in words])

    def model(chosen: np.ndarray) -> Word2Vec:
        """Words that are spelled alike in several languages are one word of their vectors' weighted mean."""
        spellings: dict[str, int] = {}
        ids = np.array([spellings.setdefault(words[n][1], len(spellings)) for n in chosen])
        counts = np.array([1e6 / (1 + int(words[n][2])) for n in chosen])
        totals = np.bincount(ids, counts)
        sums = np.zeros((len(spellings), vectors.shape[1]), np.float64)
        np.add.at(sums, ids, vectors[chosen] * counts[:, None])
        made = Word2Vec(vector_size=vectors.shape[1])
        made.wv.add_vectors(list(spellings), (sums / totals[:, None]).astype(np.float32))
        made.wv.expandos["count"] = totals
        return made

    known = np.isin(languages, (inputs / "source_languages.txt").read_text().split())
    both = WECHSEL(model(np.flatnonzero(known)), model(np.arange(len(words))), align_strategy=None)
    rows, info = both.apply(*tokenizers(inputs), np.load(inputs / "rows.npy"), use_subword_info=False)
    return rows, len(info.not_found)


def deepfocus(inputs: Path, output: Path) -> tuple[np.ndarray, int]:
    """deepfocus 1.0.1; fastText with 10 threads, since with fewer it leaves most of its vectors at zero."""
    os.environ["XDG_CACHE_HOME"] = str(output.with_suffix(".cache"))
    import torch
    from deepfocus import FOCUS

    drawn = []
    normal = torch.normal
    torch.normal = lambda *given, **named: drawn.append(1) or normal(*given, **named)
    source, target = tokenizers(inputs)
    text = str(inputs / "target_text.txt")
    rows = FOCUS(target, source, torch.from_numpy(np.load(inputs / "rows.npy")), target_training_data_path=text,
                 processes=10)  # fmt: skip
    return rows.numpy(), len(drawn)


def langsfer(inputs: Path, _: Path) -> tuple[np.ndarray, int]:
    """langsfer 0.1.0, CLP-Transfer; the pooled word vectors of the target tokens stand for a model of the language.

    Its environment needs platformdirs and requests, too, which it does not ask for.
    """
    from langsfer.embeddings import TransformersEmbeddings
    from langsfer.high_level import clp_transfer

    source, target = tokenizers(inputs)
    rows = np.load(inputs / "rows.npy")
    helper = TransformersEmbeddings(np.load(inputs / "pooled.npy"), target)
    return clp_transfer(source, rows, target, helper).initialize(seed=0), 0


def mergekit(inputs: Path, _: Path) -> tuple[np.ndarray, int]:
    """mergekit 0.1.5, tokensurgeon's orthogonal matching pursuit; pooled word vectors are the donor's embeddings.

    By the function that its command calls: the command itself refuses models without a language-model head.
    """
    import torch
    from mergekit.architecture import WeightInfo
    from mergekit.common import ModelReference
    from mergekit.scripts import tokensurgeon
    from mergekit.tokenizer.normalization import normalized_vocabulary

    models = [ModelReference.model_validate(str(inputs / side)) for side in ("source", "target")]
    options = tokensurgeon.TokenSurgeonOptions(
        model=models[0], donor=models[1], out_path="", k=64, batch_size=512,
        method=tokensurgeon.ApproximationMethod.ORTHOGONAL_MATCHING_PURSUIT,
    )  # fmt: skip
    rows = tokensurgeon.build_embedding_matrix(
        WeightInfo(name="embeddings"),
        *(torch.from_numpy(np.load(inputs / name)) for name in ("rows.npy", "pooled.npy")),
        *(normalized_vocabulary(tokenizer) for tokenizer in tokenizers(inputs)),
        junk_tokens=[], allow_prefix=False, allow_byte=False, is_lm_head=False, options=options,
    )  # fmt: skip
    return rows.numpy(), 0


if __name__ == "__main__":
    package, folder, file = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    rows, left = globals()[package](folder, file)
    broken = ~np.isfinite(rows).all(1) | ~rows.any(1)
    rows[broken] = np.load(folder / "rows.npy").mean(0)  # else no model could be read
    np.savez(file, rows=rows.astype(np.float32), random=left + int(broken.sum()))
