"""Every formula of the papers once more, slowly, in plain numpy: what the package is tested against.

Papers: OFA (arXiv 2311.08849), HYPEROFA (arXiv 2504.21018). Code: `hyper-ofa` is enesozeren/hyper-ofa at 47c55b9; its
`hyperofa/utils.py` is cisnlp/ofa's `ofa/utils.py` but for details named here.
"""

import itertools
import math

import numpy as np

# --- losses: HYPEROFA §3.4, hyper-ofa hypernetwork/lightning_modules.py 20-38 -----------------------------------------


def cosines(query, rows):
    """Cosine of a vector with each row, 0 where one of them is zero (sklearn's convention)."""
    query, rows = query.astype(np.float64), rows.astype(np.float64)
    norms = np.sqrt((query**2).sum()) * np.sqrt((rows**2).sum(axis=1))
    return np.divide(rows @ query, norms, out=np.zeros(len(rows)), where=norms > 0)


def contrastive(predicted, expected, temperature):
    """-log softmax over j of cos(prediction_i, target_j) / T at j = i, mean over i.

    The code's in-batch pairs; the printed formula sums over (F_l, F̂_l), which has no negatives.
    """
    losses = []
    for i, row in enumerate(predicted):
        logits = cosines(row, expected) / temperature
        losses.append(logits.max() + np.log(np.exp(logits - logits.max()).sum()) - logits[i])
    return sum(losses) / len(losses)


def mse(predicted, expected, normalise=False):
    """Mean squared error, over the mean square of the target if normalised. Ours, not the papers'."""
    error = ((predicted - expected) ** 2).mean()
    return error / (expected**2).mean() if normalise else error


def normalised_l1(predicted, expected):
    """Mean absolute error over the mean absolute target (lightning_modules.py 35)."""
    return np.abs(predicted - expected).mean() / np.abs(expected).mean()


def token_loss(predicted, expected, contrastive_weight, temperature, distance):
    """λ · contrastive + (1 - λ) · distance (lightning_modules.py 37-38)."""
    error = {"l1": normalised_l1, "mse": lambda p, e: mse(p, e, normalise=True)}[distance](predicted, expected)
    return contrastive_weight * contrastive(predicted, expected, temperature) + (1 - contrastive_weight) * error


# --- factorisation: hyper-ofa hyperofa/utils.py 388-405, perform_factorize --------------------------------------------


def factorize(embeddings, coordinate_dim):
    """F = U_K and P = Σ_K V_Kᵀ of the full SVD, not centred, plus all singular values."""
    u, singular, vt = np.linalg.svd(embeddings.astype(np.float64), full_matrices=False)
    return u[:, :coordinate_dim], singular[:coordinate_dim, None] * vt[:coordinate_dim], singular


# --- tokens in word space: hyper-ofa hyperofa/utils.py 446-475, get_subword_embeddings_in_word_embedding_space --------


def surface_variants(word):
    """Language and the three strings under which the reference tokenises a word of the vector file.

    `$` marks a word boundary and becomes a space. Words without `xxx:` count as English. The capitalised variant drops
    a leading boundary instead of turning it into a space, and gains a space where there was none.
    """
    if not (len(word) > 4 and word[3] == ":"):
        word = f"eng:{word}"
    language, original = word[:3], word[4:]
    text = original.replace("$", " ")
    capitalised = text[1].upper() + text[2:] if original.startswith("$") else f" {text[0].upper()}{text[1:]}"
    return language, (text, f" {text}", capitalised)


def word_matches(words, encode, languages=None):
    """Token id → word indices, with a word once for each variant that the token is part of.

    OFA keeps these duplicates, and so weights words by the number of variants hit; HYPEROFA takes the set.

    Args:
        words: spellings of the vector file.
        encode: text → token ids, without special tokens.
        languages: those considered; `None` for all.
    """
    matches = {}
    for index, word in enumerate(words):
        language, variants = surface_variants(word)
        if languages is None or language in languages:
            for variant in variants:
                for token in set(encode(variant)):
                    matches.setdefault(token, []).append(index)
    return matches


def duplicate_weighted_mean(matches, vectors, num_tokens):
    """Mean of the vectors of each token's words, duplicates counted, in float64; zero rows for tokens without words."""
    means = np.zeros((num_tokens, vectors.shape[1]))
    for token, indices in matches.items():
        means[token] = sum(vectors[i].astype(np.float64) for i in indices) / len(indices)
    return means


# --- OFA's rows: hyper-ofa hyperofa/utils.py, create_target_embeddings ------------------------------------------------


def ofa_mixtures(query, source_words, source_embeddings, neighbours=10, temperature=0.1, tie=1e-9):
    """Softmax mixtures of the embeddings of the nearest source tokens, one for each way of breaking a tie.

    All source tokens take part; those without words are zero rows, whose cosine 0 beats every negative one. Tokens with
    the same words have the same vector but other embeddings. Which of them enters at the last place is left to
    numpy's argpartition there (processor-dependent), so every choice is right.

    Args:
        query: `(d,)`, a target token in word space, not zero.
        source_words: `(S, d)`.
        source_embeddings: `(S, E)`.
        neighbours: k.
        temperature: of the softmax over the k cosines.
        tie: cosines closer than this count as equal.

    Returns:
        List of `(E,)`; of length 1 where there is no tie.
    """
    similarities = cosines(query, source_words)
    last = np.sort(similarities)[-neighbours]
    certain = np.flatnonzero(similarities > last + tie).tolist()
    tied = np.flatnonzero(np.abs(similarities - last) <= tie).tolist()
    places = neighbours - len(certain)
    if math.comb(len(tied), places) > 10_000:
        raise ValueError(f"{len(tied)} source tokens tie for {places} places: too many mixtures to list")
    mixtures = []
    for chosen in itertools.combinations(tied, neighbours - len(certain)):
        nearest = [*certain, *chosen]
        weights = np.exp(similarities[nearest] / temperature)
        mixtures.append(weights / weights.sum() @ source_embeddings[nearest].astype(np.float64))
    return mixtures


def copied_rows(overlap):
    """Target id → source id of an overlap: token → (target id, source id)."""
    return dict(overlap.values())


def fallback_rows(source_embeddings, num_tokens):
    """The matrix from which row i is taken for a target token i without words.

    As in create_target_embeddings of hyper-ofa hyperofa/utils.py and hyperofa/init_target_matrix.py.
    """
    mean, std = source_embeddings.mean(axis=0), source_embeddings.std(axis=0)
    shape = (num_tokens, source_embeddings.shape[1])
    return np.random.RandomState(114514).normal(mean, std, shape)


def random_baseline(copied, source_embeddings, num_tokens):
    """Copied rows, the others drawn in sequence: not the noise of `fallback_rows` (hyperofa/random_init.py)."""
    mean, std = source_embeddings.mean(axis=0), source_embeddings.std(axis=0)
    generator = np.random.RandomState(0)
    rows = np.zeros((num_tokens, source_embeddings.shape[1]))
    for target, source in copied.items():
        rows[target] = source_embeddings[source]
    for row in rows:
        if not row.any():
            row[:] = generator.normal(mean, std)
    return rows


def assembled(copied, predictions, source_embeddings, num_tokens):
    """HYPEROFA's target matrix: copy, else predict, else noise where a row is zero (hyperofa/init_target_matrix.py)."""
    rows = fallback_rows(source_embeddings, num_tokens)
    for target, row in {**predictions, **{t: source_embeddings[s] for t, s in copied.items()}}.items():
        if row.any():
            rows[target] = row
    return rows


# --- networks: hyper-ofa hypernetwork/lstm.py and setformer.py; evaluation mode, one set at a time --------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x.ravel()]).reshape(x.shape)


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def output_layers(weights, x):
    return linear(weights, "linear_output_layers.3", gelu(linear(weights, "linear_output_layers.0", x)))


def lstm_states(weights, suffix, inputs):
    """Hidden states of one direction of one layer; gates in torch's order: input, forget, cell, output."""
    hidden = cell = np.zeros(weights[f"lstm.weight_hh_{suffix}"].shape[1])
    states = []
    for x in inputs:
        gates = weights[f"lstm.weight_ih_{suffix}"] @ x + weights[f"lstm.bias_ih_{suffix}"]
        gates = gates + weights[f"lstm.weight_hh_{suffix}"] @ hidden + weights[f"lstm.bias_hh_{suffix}"]
        i, f, g, o = np.split(gates, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        states.append(hidden)
    return np.array(states)


def bilstm(weights, words):
    """Coordinates `(K,)` of the words `(n, d)` of one token, with the reference's parameter names."""
    layers = sum(name.startswith("lstm.weight_ih_") for name in weights) // 2
    for layer in range(layers):
        forward = lstm_states(weights, f"l{layer}", words)
        backward = lstm_states(weights, f"l{layer}_reverse", words[::-1])
        words = np.concatenate((forward, backward[::-1]), axis=1)
    return output_layers(weights, np.concatenate((forward[-1], backward[-1])))


def layer_norm(weights, name, x, eps=1e-5):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attention(weights, name, x, heads):
    """Multi-head self-attention over the words `(n, d)`."""
    projected = x @ weights[f"{name}.in_proj_weight"].T + weights[f"{name}.in_proj_bias"]
    mixed = []
    for q, k, v in zip(*(np.split(part, heads, axis=1) for part in np.split(projected, 3, axis=1)), strict=True):
        scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
        mixed.append(scores / scores.sum(axis=1, keepdims=True) @ v)
    return linear(weights, f"{name}.out_proj", np.concatenate(mixed, axis=1))


def setformer(weights, words, heads):
    """Coordinates `(K,)` of the words `(n, d)` of one token, with the reference's parameter names."""
    layers = sum(name.endswith("linear1.weight") for name in weights)
    x = words
    for layer in (f"encoder_block.layers.{i}" for i in range(layers)):
        x = layer_norm(weights, f"{layer}.norm1", x + attention(weights, f"{layer}.self_attn", x, heads))
        hidden = np.maximum(linear(weights, f"{layer}.linear1", x), 0)
        x = layer_norm(weights, f"{layer}.norm2", x + linear(weights, f"{layer}.linear2", hidden))
    return output_layers(weights, x.mean(axis=0))


def pooled(words, weights):
    """Weighted mean of the words `(n, d)`."""
    return sum(w * row for w, row in zip(weights, words, strict=True)) / sum(weights)
