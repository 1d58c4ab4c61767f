"""Inputs of the benchmark of scripts that write no spaces: vectors of segmented words, a tokenizer of raw text.

    python benchmarks/unspaced.py VERSES OUTPUT --segmented zho,jpn,tha,mya [--tatoeba FOLDER]

`VERSES` holds `LNG.tsv`: verse id, tab, text; English is `eng.tsv`, further English versions `eng-NAME.tsv`.
`--tatoeba` is a folder of `tatoeba.LNG-eng.LNG` and `tatoeba.LNG-eng.eng`, as LASER published them (`cmn` is Chinese).
The output has the layout that `realworld.sh` reads. Words of the languages named by `--segmented` come from ICU's word
breaks (PyPI `pyicu-wheels`), as those of fastText's `cc.zh` and `cc.th` do; the tokenizer sees the text as written.
"""

import argparse
import gzip
import random
from collections import Counter
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hyperofa.vectors.texts import word_span

HELD_OUT = 500
LEAST = 2  # times that a word must stand in the text
TATOEBA_CODES = {"zho": "cmn"}


def read_verses(path: Path) -> dict[str, str]:
    """Verse id → text."""
    return dict(line.split("\t", 1) for line in path.read_text().splitlines())


def spaced_words(text: str) -> list[str]:
    """Lower-cased words between spaces and dashes, less their outer punctuation."""
    chunks = text.lower().replace("—", " ").replace("--", " ").split()
    return [word for word in (strip_outer(chunk) for chunk in chunks) if word]


def segmented_words(text: str, breaks: "object") -> list[str]:
    """Words as ICU finds them, without punctuation.

    Args:
        text: a verse.
        breaks: an `icu.BreakIterator`.
    """
    import icu

    units = icu.UnicodeString(text.lower())
    breaks.setText(units)
    words, start = [], 0
    for end in breaks:
        words.append(strip_outer(str(units[start:end])))
        start = end
    return [word for word in words if word]


def strip_outer(word: str) -> str:
    """The word without punctuation, symbols and spaces around it."""
    start, end = word_span(word)
    return word[start:end]


def count_words(corpora: dict[str, dict[str, str]], segmented: set[str]) -> tuple[list[str], sp.csr_matrix]:
    """Word-by-verse counts, the most frequent words first.

    Args:
        corpora: verses of each file; `eng-bbe` counts as `eng`.
        segmented: languages that write no spaces.

    Returns:
        Words as `lng:word`, and `(words, verses)` counts.
    """
    words: dict[str, int] = {}
    verses: dict[str, int] = {}
    pairs: Counter[tuple[int, int]] = Counter()
    for name, texts in corpora.items():
        language = name.split("-")[0]
        if language in segmented:
            import icu

            breaks = icu.BreakIterator.createWordInstance(icu.Locale(language))
        for verse, text in texts.items():
            column = verses.setdefault(verse, len(verses))
            found = segmented_words(text, breaks) if language in segmented else spaced_words(text)
            pairs.update((words.setdefault(f"{language}:{word}", len(words)), column) for word in found)
    rows, columns = np.array(list(pairs)).T
    counts = sp.csr_matrix((np.fromiter(pairs.values(), np.float32), (rows, columns)))
    totals = counts.sum(1).A1
    order = np.argsort(-totals, kind="stable")
    order = order[totals[order] >= LEAST]
    names = list(words)
    return [names[row] for row in order], counts[order]


def correspondence_vectors(counts: sp.csr_matrix, dim: int) -> np.ndarray:
    """Correspondence analysis of log counts: `(words, dim)` of length 1, so that translations lie near each other.

    Args:
        counts: `(words, verses)`.
        dim: width.
    """
    logs = counts.copy()
    logs.data = np.log1p(logs.data)
    by_word, by_verse = np.maximum(logs.sum(1).A1, 1e-9), np.maximum(logs.sum(0).A1, 1e-9)
    scaled = (sp.diags(by_word**-0.5) @ logs @ sp.diags(by_verse**-0.5)).tocsr()
    basis = np.random.default_rng(0).standard_normal((scaled.shape[1], dim + 21))
    for _ in range(3):
        basis = np.linalg.qr(scaled.T @ np.linalg.qr(scaled @ basis)[0])[0]
    image = scaled @ basis
    values, axes = np.linalg.eigh(image.T @ image)
    chosen = np.argsort(-values)[1 : dim + 1]  # the first axis is the words' frequency
    vectors = image @ axes[:, chosen] / values[chosen] ** 0.25
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def train_tokenizer(texts: list[str], size: int, output: Path) -> None:
    """Unigram over raw text, word starts marked as SentencePiece does.

    Args:
        texts: of all languages.
        size: of the vocabulary.
        output: folder.
    """
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=16
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        **{f"{role}_token": content for role, content in names.items()},
    ).save_pretrained(output)


def main() -> None:
    """Write vectors.vec, target_tokenizer/, english.txt, heldout.tsv.gz and tatoeba/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verses", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--segmented", default="", help="comma-separated languages that write no spaces")
    parser.add_argument("--tatoeba", type=Path, help="folder of sentence pairs")
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--dim", type=int, default=200)
    args = parser.parse_args()
    corpora = {path.stem: read_verses(path) for path in sorted(args.verses.glob("*.tsv"))}
    languages = [name for name in corpora if "-" not in name]
    common = sorted(set.intersection(*(set(corpora[name]) for name in languages)))
    held_out = sorted(random.Random(0).sample(common, HELD_OUT))
    args.output.mkdir(parents=True, exist_ok=True)
    with gzip.open(args.output / "heldout.tsv.gz", "wt") as out:
        out.writelines(f"{name}\t{verse}\t{corpora[name][verse]}\n" for name in languages for verse in held_out)
    corpora = {name: {v: t for v, t in texts.items() if v not in set(held_out)} for name, texts in corpora.items()}

    words, counts = count_words(corpora, set(args.segmented.split(",")) - {""})
    vectors = correspondence_vectors(counts, args.dim)
    with open(args.output / "vectors.vec", "w") as out:
        out.write(f"{len(words)} {args.dim}\n")
        for word, vector in zip(words, vectors, strict=True):
            out.write(f"{word} {' '.join(f'{x:.4f}' for x in vector)}\n")
    texts = [text for verses in corpora.values() for text in verses.values()]
    train_tokenizer(texts, args.tokens, args.output / "target_tokenizer")
    english_text = [text for name, verses in corpora.items() if name.startswith("eng") for text in verses.values()]
    (args.output / "english.txt").write_text("\n".join(english_text) + "\n")
    for language in languages if args.tatoeba is not None else ():
        code = TATOEBA_CODES.get(language, language)
        sides = [args.tatoeba / f"tatoeba.{code}-eng.{side}" for side in (code, "eng")]
        if all(side.is_file() for side in sides):
            (args.output / "tatoeba").mkdir(exist_ok=True)
            pairs = zip(*(side.read_text().splitlines() for side in sides), strict=True)
            with gzip.open(args.output / "tatoeba" / f"{language}-eng.tsv.gz", "wt") as out:
                out.writelines(f"{foreign}\t{english}\n" for foreign, english in list(pairs)[:HELD_OUT])
    print(f"{args.output}: {len(words)} words of {len(languages)} languages, {len(texts)} verses")


if __name__ == "__main__":
    main()
