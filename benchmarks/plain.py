"""Each stage once more, the plain way: what the suite compares with. Written from a description of the published code.

Words are tokenised one spelling at a time into a dict, embeddings go through a full SVD, every target is compared with
every source token, vector files are parsed again each time, a BiLSTM reads up to 256 words of a token.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.nets.bilstm import BiLSTM
from hyperofa.nets.inputs import FEATURES, WordSets
from hyperofa.training.losses import token_loss

MAX_WORDS = 256


def load_vectors(path: Path) -> tuple[list[str], np.ndarray]:
    """Words and vectors of a text file, by gensim."""
    from gensim.models import KeyedVectors

    loaded = KeyedVectors.load_word2vec_format(str(path))
    return loaded.index_to_key, loaded.vectors


def match_words(words: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """Token → the words, by position, that contain it in one of three spellings; a word stands there once for each."""
    matches: dict[str, list[int]] = defaultdict(list)
    for number, word in enumerate(words):
        for spelling in (word, f" {word}", f" {word[:1].upper()}{word[1:]}"):
            for token in tokenizer.tokenize(spelling):
                matches[token].append(number)
    return matches


def token_means(
    matches: dict[str, list[int]], tokenizer: PreTrainedTokenizerBase, vectors: np.ndarray, size: int
) -> np.ndarray:
    """`(size, d)` mean vector of the words of each token, zero without words."""
    means = np.zeros((size, vectors.shape[1]), np.float32)
    for token, words in matches.items():
        means[tokenizer.convert_tokens_to_ids(token)] = vectors[words].mean(0)
    return means


def texts(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Token ids by text, a space where a word starts."""
    return {token.replace("▁", " "): number for token, number in tokenizer.get_vocab().items()}


def overlap(source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase) -> dict[int, int]:
    """Target id → source id of equal texts, else of texts that are equal in lower case."""
    sources = texts(source)
    folded = {text.lower(): number for text, number in sorted(sources.items())}
    pairs = {}
    for text, number in texts(target).items():
        if text in sources:
            pairs[number] = sources[text]
        elif text.lower() in folded:
            pairs[number] = folded[text.lower()]
    return pairs


def factorize(embeddings: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """F `(S, K)` and P `(K, E)` of the full SVD."""
    left, singular, right = np.linalg.svd(embeddings, full_matrices=False)
    return left[:, :rank], singular[:rank, None] * right[:rank]


def ofa(
    queries: np.ndarray, keys: np.ndarray, coordinates: np.ndarray, neighbours: int = 10, temperature: float = 0.1
) -> np.ndarray:
    """Each query's mixture of the rows of its nearest keys, in double precision, blocks of 1,024 queries.

    All keys and queries take part, zero ones too; the nearest are found, weighted and summed query by query.
    """
    queries, keys = _unit(queries), _unit(keys)
    rows = np.zeros((len(queries), coordinates.shape[1]), np.float32)
    for start in range(0, len(queries), 1024):
        for number, cosines in enumerate(queries[start : start + 1024] @ keys.T, start):
            nearest = np.argpartition(cosines, -neighbours)[-neighbours:]
            best = nearest[np.argsort(-cosines[nearest])].tolist()
            for key, weight in zip(best, softmax(cosines[best] / temperature), strict=True):
                rows[number] += weight * coordinates[key]
    return rows


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def word_sets(tokens: np.ndarray, indptr: np.ndarray, words: np.ndarray, vectors: np.ndarray) -> WordSets:
    """The first 256 words of each token, as they are, padded to 256."""
    padded = torch.zeros(len(tokens), MAX_WORDS, vectors.shape[1])
    mask = torch.zeros(len(tokens), MAX_WORDS, dtype=torch.bool)
    for row, token in enumerate(tokens.tolist()):
        chosen = words[indptr[token] : indptr[token + 1]][:MAX_WORDS]
        padded[row, : len(chosen)] = torch.from_numpy(vectors[chosen].astype(np.float32))
        mask[row, : len(chosen)] = True
    return WordSets(padded, torch.zeros(len(tokens), MAX_WORDS, len(FEATURES)), mask)


def fit(net: BiLSTM, batches: Iterator[tuple[WordSets, Tensor]]) -> Iterator[int]:
    """Train on each batch; yields the number of its tokens once it is done."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    net.train()
    for sets, expected in batches:
        loss = token_loss(net(sets), expected, contrastive_weight=0.1, temperature=0.25, distance="l1").total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield len(expected)


@torch.inference_mode()
def predict(net: BiLSTM, batches: Iterator[WordSets]) -> Iterator[int]:
    """Predict each batch; yields the number of its tokens once it is done."""
    net.eval()
    for sets in batches:
        yield len(net(sets))


def subtoken_rows(
    names: Sequence[str], embeddings: np.ndarray, sources: dict[str, int], source: PreTrainedTokenizerBase
) -> np.ndarray:
    """Rows of target tokens: copied where the source has the text, else the mean of the source tokens that spell it.

    `sources` are the source's `texts`.
    """
    rows = np.zeros((len(names), embeddings.shape[1]), np.float32)
    for row, name in enumerate(names):
        text = name.replace("▁", " ")
        pieces = [sources[text]] if text in sources else source.encode(text, add_special_tokens=False)
        rows[row] = embeddings[pieces].mean(0) if pieces else embeddings.mean(0)
    return rows


def write_model(
    model: PreTrainedModel, rows: np.ndarray, size: int, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Give a model `size` rows, the first of them `rows`, and write it."""
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for number, row in enumerate(rows):
            model.get_input_embeddings().weight[number] = torch.from_numpy(row)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
