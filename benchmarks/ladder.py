"""Which fall-back says most of a token without words, measured on tokens that have words and are treated as if not.

    python benchmarks/ladder.py BUNDLE [--tokens 2000] [--romanise SCRIPT,…] [--subwords MODEL.bin]

Held-out tokens are drawn among those that are predicted, one in eight at most. Their rows from words (tuned OFA's) are
the truth; each rung makes a row without their words, of the rows of the tokens that are left, or, by tuned OFA, of
other words of the vector file. Printed are the share of the held-out tokens that a rung knows, the mean cosine to the
truth over those, and over those that the first three know; and how often the truth is among the ten nearest of all true
rows (hit@10).

`--romanise` (PyPI `uroman`) asks another question: what if a script had no vectors at all? The held-out tokens are
those of these scripts (HANGUL, CYRILLIC, …) alone; tokens and words of other scripts in Latin letters say what they
mean. `--subwords` adds what the n-grams of a fastText model say of a token, if the bundle was prepared with it.
"""

import argparse
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from hyperofa.bundle.bundle import Bundle
from hyperofa.methods.baselines import TUNED_OFA, InitInputs, ofa
from hyperofa.methods.fallbacks import plan_and_fill, script, target_inputs
from hyperofa.methods.relatives import pieces_of_tokens, tokens_with
from hyperofa.tokens.canonical import text_of
from hyperofa.vectors.centring import centred

WORDS = 10  # that a token is described by, at most
NEAR = 0.4  # of Dice's coefficient of n-grams, from which a word counts as near in spelling
SHORTEST = 3  # letters of what is looked for in other words

Weighted = list[tuple[int, float]]
"""Words of the vector file, with weights."""


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero ones stay."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def ngrams(text: str) -> set[str]:
    """Two to four characters; `text` has marks where it is known to start or end."""
    return {text[i : i + n] for n in (2, 3, 4) for i in range(len(text) - n + 1)} - {"<", ">"}


class Spellings:
    """The words of a vector file by how they are spelled.

    Args:
        words: in lower case, most frequent first in each language.
        ranks: of the words in their languages.
        texts: what will be asked for, so that nothing else need be kept.
    """

    def __init__(self, words: Sequence[str], ranks: np.ndarray, texts: Sequence[str]) -> None:
        self._weights = 1 / np.sqrt(1.0 + ranks)
        self._words, self._sizes = words, np.zeros(len(words), np.int32)
        wanted = {gram for text in texts for gram in ngrams(text)}
        holders: dict[str, list[int]] = defaultdict(list)
        inside = {text.strip("<>") for text in texts}
        lengths = sorted({len(text) for text in inside})
        self._containing: dict[str, list[int]] = defaultdict(list)
        self._near: dict[str, list[int]] = defaultdict(list)
        deleted = {part for text in inside if len(text) > SHORTEST for part in _deletions(text)}
        for row, word in enumerate(words):
            grams = ngrams(f"<{word}>")
            self._sizes[row] = len(grams)
            for gram in grams & wanted:
                holders[gram].append(row)
            for size in lengths:
                for part in {word[i : i + size] for i in range(len(word) - size + 1)} & inside:
                    self._containing[part].append(row)
            for part in _deletions(word) & deleted if len(word) >= SHORTEST else ():
                self._near[part].append(row)
        self._holders = {gram: np.array(rows) for gram, rows in holders.items()}

    def same(self, text: str, own: set[int]) -> Weighted:
        """Words that are spelled so."""
        return self._best([(row, 1.0) for row in self._containing[text.strip("<>")] if self._is(row, text)], own)

    def containing(self, text: str, own: set[int]) -> Weighted:
        """Words that it is a part of, by the square of that part."""
        inner = text.strip("<>")
        if len(inner) < SHORTEST and inner.isascii():
            return []
        return self._best([(row, (len(inner) / len(self._words[row])) ** 2) for row in self._containing[inner]], own)

    def one_letter_off(self, text: str, own: set[int]) -> Weighted:
        """Words that one letter more, less or else makes of it."""
        inner = text.strip("<>")
        if len(inner) <= SHORTEST:
            return []
        rows = {row for part in _deletions(inner) for row in self._near[part]}
        return self._best([(row, 1.0) for row in sorted(rows) if _distance_is_one(self._words[row], inner)], own)

    def alike(self, text: str, own: set[int]) -> Weighted:
        """Words that share the most n-grams with it, by the square of Dice's coefficient."""
        grams = sorted(ngrams(text) & self._holders.keys())
        if not grams:
            return []
        rows, shared = np.unique(np.concatenate([self._holders[gram] for gram in grams]), return_counts=True)
        dice = 2 * shared / (len(ngrams(text)) + self._sizes[rows])
        near = dice >= NEAR
        return self._best(list(zip(rows[near].tolist(), (dice[near] ** 2).tolist(), strict=True)), own)

    def _is(self, row: int, text: str) -> bool:
        return self._words[row] == text.strip("<>")

    def _best(self, found: Weighted, own: set[int]) -> Weighted:
        weighted = [(row, weight * self._weights[row]) for row, weight in found if row not in own]
        return sorted(weighted, key=lambda pair: (-pair[1], pair[0]))[:WORDS]


def _deletions(text: str) -> set[str]:
    return {text} | {text[:i] + text[i + 1 :] for i in range(len(text))}


def _distance_is_one(one: str, other: str) -> bool:
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    rests = one[start:], other[start:]
    longer = max(len(one), len(other))
    return rests[0][len(one) == longer :] == rests[1][len(other) == longer :]


def marked(bundle: Bundle, ids: np.ndarray) -> list[str]:
    """What tokens spell in lower case, `<` before what starts a word; nothing for what is no text."""
    tokens = bundle.tokens("target")
    texts = [((token := tokens[i]), (text_of(token) or "").lower().strip()) for i in ids.tolist()]
    return [("<" if token is not None and token.starts_word else "") + text if text else "" for token, text in texts]


def rows_of_words(inputs: InitInputs, bundle: Bundle, found: Sequence[Weighted]) -> np.ndarray:
    """Tuned OFA's rows `(n, K)` of weighted words; zero rows for none."""
    words = bundle.words
    ids = np.unique([row for each in found for row, _ in each]).astype(np.int64)
    place = {row: at for at, row in enumerate(ids.tolist())}
    cells = [(n, place[row], weight) for n, each in enumerate(found) for row, weight in each]
    rows, columns, weights = (np.array(part) for part in zip(*cells, strict=True)) if cells else ([], [], [])
    mixture = sp.csr_matrix((weights, (rows, columns)), shape=(len(found), len(ids)))
    vectors = centred(words.vectors[ids], words.language_ids[ids], bundle.language_means)
    return rows_of_queries(inputs, (mixture @ vectors).astype(np.float32))


def rows_of_queries(inputs: InitInputs, queries: np.ndarray) -> np.ndarray:
    """Tuned OFA's rows `(n, K)` of pooled vectors `(n, d)`; zero rows for zero vectors."""
    known = queries.any(1)
    nothing = sp.csr_matrix((len(queries), len(inputs.keys)))
    return ofa(replace(inputs, queries=queries, covered=known, spelled=nothing), TUNED_OFA).coordinates


def romaniser() -> Callable[[str], str]:
    """What turns a text of any script into Latin letters without accents."""
    import uroman

    table: dict[str, str] = {}
    engine = uroman.Uroman()

    def romanise(text: str) -> str:
        if text not in table:
            latin = text if text.isascii() else engine.romanize_string(text)
            table[text] = "".join(c for c in unicodedata.normalize("NFD", latin.lower()) if c.isalnum())
        return table[text]

    return romanise


def word_rungs(inputs: InitInputs, bundle: Bundle, held: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Rungs that ask the vector file's other words: the token is in none of them."""
    texts, words, matches = marked(bundle, held), bundle.words, bundle.target
    own = [set(matches.words[matches.indptr[i] : matches.indptr[i + 1]].tolist()) for i in held.tolist()]
    spellings = Spellings([word.lower() for word in words.words], np.asarray(words.ranks), [t for t in texts if t])
    looks = {
        "words with it in them": spellings.containing,
        "words a letter off": spellings.one_letter_off,
        "words of alike n-grams": spellings.alike,
    }
    for name, look in looks.items():
        found = [look(text, mine) if text else [] for text, mine in zip(texts, own, strict=True)]
        yield name, rows_of_words(inputs, bundle, found)


def romanised_rungs(
    inputs: InitInputs, bundle: Bundle, held: np.ndarray, scripts: set[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Rungs that ask words of other scripts, all in Latin letters."""
    romanise, words = romaniser(), bundle.words
    latin = [romanise(word) for word in words.words]
    foreign = {
        row for row, word in enumerate(words.words)
        if next((unicodedata.name(c, "").split(" ")[0] for c in word if c.isalpha()), "") in scripts
    }  # fmt: skip
    texts = [("<" if text.startswith("<") else "") + romanise(text.strip("<")) for text in marked(bundle, held)]
    spellings = Spellings(latin, np.asarray(words.ranks), [text for text in texts if text.strip("<")])
    looks = {
        "same word, romanised": spellings.same,
        "words a letter off, romanised": spellings.one_letter_off,
        "words of alike n-grams, romanised": spellings.alike,
    }
    for name, look in looks.items():
        yield name, rows_of_words(inputs, bundle, [look(text, foreign) if text else [] for text in texts])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--romanise", default="", help="comma-separated scripts that are treated as if without vectors")
    parser.add_argument("--subwords", type=Path, help="the fastText model that the bundle was prepared with")
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    inputs, tokens = target_inputs(bundle), bundle.tokens("target")
    filled = plan_and_fill(inputs, ofa(inputs, TUNED_OFA), ("role", "symbol"))
    truth, coordinates = filled.coordinates, np.asarray(bundle.coordinates)
    scripts, hidden = np.array([script(token) for token in tokens]), set(args.romanise.split(",")) - {""}
    candidates = np.flatnonzero((filled.origins == 1) & (scripts != ""))
    usable = inputs.covered.copy()
    if hidden:
        candidates = candidates[np.isin(scripts[candidates], sorted(hidden))]
        usable[np.isin(scripts, sorted(hidden))] = False
    count = min(args.tokens, len(candidates) if hidden else len(candidates) // 8)
    held = np.sort(np.random.default_rng(0).choice(candidates, count, replace=False))
    usable[held] = False

    spelled = (inputs.spelled @ coordinates)[held]
    means = {name: truth[usable & (scripts == name)].mean(0) for name in set(scripts[held].tolist()) - hidden}
    rungs = {
        "pieces": (pieces_of_tokens(tokens, held, usable) @ truth)[held],
        "containing": (tokens_with(tokens, held, usable) @ truth)[held],
        "subtokens": spelled,
        "script": np.stack([means.get(name, np.zeros(truth.shape[1])) for name in scripts[held]]),
        "mean": np.broadcast_to(coordinates.mean(0), spelled.shape),
    }
    more = romanised_rungs(inputs, bundle, held, hidden) if hidden else word_rungs(inputs, bundle, held)
    rungs.update(more)
    if args.subwords is not None:
        from hyperofa.vectors.fasttext_reader import Subwords

        texts = [text.strip("<") for text in marked(bundle, held)]
        rungs["n-grams of the model"] = rows_of_queries(inputs, Subwords(args.subwords).vectors(texts))
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
        shown = [cosine[some].mean() if some.any() else np.nan for some in (known[name], shared & known[name])]
        hit = (better[known[name]] < 10).mean() if known[name].any() else np.nan
        print(f"| {name} | {known[name].mean():.1%} | {shown[0]:.3f} | {shown[1]:.3f} | {hit:.1%} |")
    if not hidden:
        versus(rungs, known, truth[held])


def versus(rungs: dict[str, np.ndarray], known: dict[str, np.ndarray], truth: np.ndarray) -> None:
    """Print the rungs that ask words against those of the ladder, over the tokens that both know."""
    print("\n| cosine, over what both know | containing | pieces | subtokens |\n|---|---|---|---|")
    for name in list(rungs)[5:]:
        cells = []
        for other in ("containing", "pieces", "subtokens"):
            both = known[name] & known[other]
            means = [(unit(rungs[each][both]) * unit(truth[both])).sum(1).mean() for each in (name, other)]
            cells.append(f"{means[0]:.3f} against {means[1]:.3f} ({both.mean():.0%})" if both.any() else "–")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
