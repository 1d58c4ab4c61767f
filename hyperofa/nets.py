"""Hypernetworks: from the weighted set of words that contain a token to the token's coordinates.

Every net sees a `WordSets` batch and returns `(B, K)`. `SourceAttention` is the default: it mixes source rows, which it
finds in a `Memory`. `MLP` is the simple choice; `BiLSTM` and `SetFormer` are the two of the paper, to the parameter.
Word vectors and memory come with the call: no net holds the word table or the source embeddings.
"""

import math
from abc import ABC, abstractmethod
from inspect import signature
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, normalize
from torch.nn.utils.rnn import pack_padded_sequence

from hyperofa import layers
from hyperofa.errors import InputError
from hyperofa.memory import Memory

Pooling = Literal["weighted", "mean"]
Head = Literal["residual", "gated"]

FEATURES = ("weight", "share", "exact", "log_rank", "position", "source_language")
"""Columns of `WordSets.features`; `weight` is the fixed pooling weight share² · rank^-½, not normalised, > 0."""

_WEIGHT = FEATURES.index("weight")


class WordSets(NamedTuple):
    """A padded batch of weighted word sets, one row per token; padding may stand anywhere and its values are ignored.

    Attributes:
        vectors: `(B, W, d)` float word vectors, finite (zero, say) where padded.
        features: `(B, W, M)` float match features, columns named by `FEATURES`, finite where padded.
        mask: `(B, W)` bool, true for a word; every row has at least one.
    """

    vectors: Tensor
    features: Tensor
    mask: Tensor


class Net(nn.Module, ABC):
    """A hypernetwork.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
    """

    neighbours: int | None = None  # for `looks_at`
    dense_limit = 0

    def __init__(self, word_dim: int, coordinate_dim: int) -> None:
        super().__init__()
        _check(word_dim=word_dim, coordinate_dim=coordinate_dim)
        self.word_dim, self.coordinate_dim = word_dim, coordinate_dim

    def spec(self) -> dict[str, str | int | float | None]:
        """The net's class and constructor arguments as plain data: `build` makes an equal one of it.

        Every constructor argument is kept in an attribute of its name.
        """
        arguments = {name: getattr(self, name) for name in signature(type(self)).parameters}
        return {"class": type(self).__name__, **arguments}

    @abstractmethod
    def forward(self, sets: WordSets, memory: Memory | None = None, own: Tensor | None = None) -> Tensor:
        """Predict coordinates.

        Args:
            sets: B word sets; call `check` on them first.
            memory: source tokens; only `SourceAttention` looks at them.
            own: `(B,)` int64, each token's own place in the memory, which is hidden from it; M or more for a token
                without one. `None` hides nothing, where the memory lists no neighbours.

        Returns:
            `(B, K)` float.

        Raises:
            ValueError: shapes that do not fit, a set without words, or not the memory that the net looks at.
        """

    def looks_at(self, count: int) -> int | None:
        """How many source tokens out of `count` a token looks at, which the memory must list; `None` for all."""
        return None if count <= self.dense_limit else self.neighbours

    def remember(self, memory: Memory) -> Memory:
        """The memory for a net that learns no more: what every call would compute of it, computed once."""
        return memory

    def check(self, sets: WordSets) -> None:
        """Refuse batches of the wrong shape and sets without words: what to predict from nothing is the caller's call.

        Only on a CPU are the sets looked into: a GPU would have to finish first, at every call, and compiled code would
        stop here.

        Raises:
            ValueError: with the shapes, or the rows without words.
        """
        rows = tuple(sets.mask.shape)
        expected = ((*rows, self.word_dim), (*rows, len(FEATURES)))
        found = (tuple(sets.vectors.shape), tuple(sets.features.shape))
        if len(rows) != 2 or found != expected:
            raise ValueError(
                f"expected word sets of shapes (B, W, {self.word_dim}), (B, W, {len(FEATURES)}) and (B, W), "
                f"found vectors {found[0]}, features {found[1]} and mask {rows}"
            )
        if sets.mask.device.type != "cpu" or torch.compiler.is_compiling():
            return
        empty = ~sets.mask.any(dim=1)
        if empty.any():
            raise ValueError(
                f"expected at least one word in every set, found none in rows {empty.nonzero()[:5, 0].tolist()} "
                f"({int(empty.sum())} of {rows[0]}); leave uncovered tokens out of the batch"
            )


class SourceAttention(Net):
    """Mix the rows of source tokens that mean the same, then correct the mixture.

    Words are pooled by softmax(log weight + a small MLP of the match features). Query (the pooled vector) and keys
    (those of the memory) pass one residual MLP; attention by cosine over a learned temperature mixes the memory's
    values; the mixture gets the mean length of what it mixes; a residual MLP of pooled vector and mixture is added; all
    of it is scaled. Every learned part starts as zero, so training starts from the fixed pooling and a softmax mixture,
    as in OFA, whose rows the PLM already understands.

    Looking at all source tokens costs a product with each of them at every step; looking at the nearest ones costs the
    same whatever the number of all.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
        hidden_dim: width of the hidden layers.
        temperature: of the attention at the start, > 0.
        neighbours: source tokens mixed, those whose pooled vectors were nearest before training; `None` for all.
        dense_limit: number of source tokens up to which all are mixed, whatever `neighbours` says.
        head: `residual` adds the correction as it is, `gated` times a gate of each token, between 0 and 1.
        dropout: probability of dropping an input of the correction.
    """

    def __init__(
        self,
        word_dim: int,
        coordinate_dim: int,
        hidden_dim: int = 512,
        temperature: float = 0.04,
        neighbours: int | None = 64,
        dense_limit: int = 16_384,
        head: Head = "residual",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        _check(dropout, hidden_dim=hidden_dim, neighbours=1 if neighbours is None else neighbours)
        if temperature <= 0:
            raise InputError(f"net.temperature: expected a number > 0, found {temperature}")
        if head not in get_args(Head):
            raise InputError(f"net.head: expected 'residual' or 'gated', found {head!r}")
        self.hidden_dim, self.temperature = hidden_dim, temperature
        self.neighbours, self.dense_limit, self.head, self.dropout = neighbours, dense_limit, head, dropout
        self.pooling = layers.correction(len(FEATURES), 32, 1)
        self.projection = layers.correction(word_dim, hidden_dim, word_dim)
        self.key_bias = nn.Linear(word_dim, 1)
        self.correction = nn.Sequential(
            nn.Dropout(dropout), layers.correction(word_dim + coordinate_dim, hidden_dim, coordinate_dim)
        )
        self.log_sharpness = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.log_scale = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.key_bias.weight)
        nn.init.zeros_(self.key_bias.bias)
        self.gate = nn.Linear(word_dim + coordinate_dim, 1) if head == "gated" else None

    def forward(self, sets: WordSets, memory: Memory | None = None, own: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words plays no role."""
        self.check(sets)
        if memory is None or (memory.near is None and self.looks_at(len(memory.keys)) is not None):
            raise ValueError("SourceAttention: expected a memory, with lists of neighbours above `dense_limit` tokens")
        logits = sets.features[..., _WEIGHT].clamp_min(torch.finfo(torch.float32).tiny).log()
        logits = logits + self.pooling(_scaled(sets.features))[..., 0]
        attention = logits.masked_fill(~sets.mask, -torch.inf).softmax(dim=1)
        pooled = normalize(torch.bmm(attention[:, None], sets.vectors)[:, 0], dim=1)  # (B, d)
        if memory.near is None:
            mixture, length = self._mix(pooled, memory, own)
        else:
            mixture, length = self._mix_near(pooled, memory, memory.near[own])
        direction = normalize(mixture, dim=1)  # (B, K)
        seen = torch.cat([pooled, direction], dim=1)
        correction = self.correction(seen)
        if self.gate is not None:
            correction = correction * self.gate(seen).sigmoid()
        return (direction * length + correction) * self.log_scale.exp()

    def remember(self, memory: Memory) -> Memory:
        """The memory with its keys projected and its values measured."""
        return memory._replace(projected=self._project(memory.keys), lengths=memory.values.norm(dim=1))

    def _mix(self, pooled: Tensor, memory: Memory, own: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix all values of the memory: mixtures `(B, K)`, and the mean length `(B, 1)` of what each mixes."""
        keys = self._project(memory.keys) if memory.projected is None else memory.projected  # (M, d)
        lengths = memory.values.norm(dim=1) if memory.lengths is None else memory.lengths  # (M,)
        scores = self._project(pooled) @ keys.T * self.log_sharpness.exp() + self.key_bias(keys)[:, 0]
        if own is not None:
            hidden = scores.new_zeros(len(own)).masked_fill(own < len(keys), -torch.inf)
            scores = scores.scatter_add(1, own.clamp(max=len(keys) - 1)[:, None], hidden[:, None])
        weights = scores.softmax(dim=1)
        return weights @ memory.values, (weights @ lengths)[:, None]

    def _mix_near(self, pooled: Tensor, memory: Memory, near: Tensor) -> tuple[Tensor, Tensor]:
        """The same over the values at the places `near` `(B, k)`; no other row of the memory is touched."""
        slots = near.clamp(max=len(memory.keys) - 1)
        if memory.projected is not None and memory.lengths is not None:
            keys, values, lengths = memory.projected, memory.values, memory.lengths
        else:  # what is near to several is projected once; to count them a GPU has to finish first
            places, slots = slots.unique(return_inverse=True)
            # embedding(places, x) is x[places], several times as fast, in the gradient too.
            keys, values = self._project(embedding(places, memory.keys)), embedding(places, memory.values)
            lengths = values.norm(dim=1)
        # The bias of a key is linear in it, so the query can bring it along.
        asked = self._project(pooled) * self.log_sharpness.exp() + self.key_bias.weight
        scores = torch.einsum("bd,bkd->bk", asked, embedding(slots, keys)) + self.key_bias.bias
        weights = scores.masked_fill(near == len(memory.keys), -torch.inf).softmax(dim=1)
        mixture = embedding_bag(slots, values, per_sample_weights=weights, mode="sum")
        return mixture, (weights * lengths[slots]).sum(dim=1, keepdim=True)

    def _project(self, vectors: Tensor) -> Tensor:
        return normalize(vectors + self.projection(vectors), dim=1)


class MLP(Net):
    """Pool the words with fixed weights, then a residual MLP on the pooled vector.

    Blocks x + Linear(Dropout(GELU(Linear(LayerNorm(x))))) between an input and an output Linear. No normalisation
    stands on the residual path, so that a linear map of the pooled vector is what the net starts from.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
        hidden_dim: width of the blocks.
        num_layers: number of blocks; with 0 the net is a linear map.
        dropout: probability of dropping a hidden unit.
        pooling: `weighted` by the feature `weight`, normalised over the set, or `mean`.
    """

    def __init__(
        self,
        word_dim: int,
        coordinate_dim: int,
        hidden_dim: int = 1024,
        num_layers: int = 2,
        dropout: float = 0.2,
        pooling: Pooling = "weighted",
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        _check(dropout, hidden_dim=hidden_dim)
        if num_layers < 0:
            raise InputError(f"net.num_layers: expected 0 or more blocks, found {num_layers}")
        if pooling not in ("weighted", "mean"):
            raise InputError(f"net.pooling: expected 'weighted' or 'mean', found {pooling!r}")
        self.hidden_dim, self.num_layers, self.dropout, self.pooling = hidden_dim, num_layers, dropout, pooling
        self.input = nn.Linear(word_dim, hidden_dim)
        self.blocks = nn.ModuleList(layers.block(hidden_dim, dropout) for _ in range(num_layers))
        self.output = nn.Linear(hidden_dim, coordinate_dim)

    def forward(self, sets: WordSets, memory: Memory | None = None, own: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words plays no role."""
        self.check(sets)
        weights = sets.features[..., _WEIGHT] if self.pooling == "weighted" else torch.ones_like(sets.mask)
        hidden = self.input(layers.pool(sets.vectors, weights, sets.mask))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.output(hidden)


class BiLSTM(Net):
    """The paper's network: a bidirectional LSTM reads the words in the order of the set.

    The last hidden states of both directions of the last layer, concatenated, go through
    Linear(2h → 2K) GELU Dropout Linear(2K → K) (hyper-ofa `hypernetwork/lstm.py`). Defaults are Table 1's for
    RoBERTa-100; the published YAML says one layer and dropout 0.2.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
        hidden_dim: h, width of each direction (paper: 800, or 1600 for K = 400).
        num_layers: LSTM layers (paper: 2 for RoBERTa, 4 for XLM-R).
        dropout: between layers and in the head (paper: 0.4).
    """

    def __init__(
        self, word_dim: int, coordinate_dim: int, hidden_dim: int = 800, num_layers: int = 2, dropout: float = 0.4
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        _check(dropout, hidden_dim=hidden_dim, num_layers=num_layers)
        self.hidden_dim, self.num_layers, self.dropout = hidden_dim, num_layers, dropout
        between = dropout if num_layers > 1 else 0.0  # torch warns of a dropout that has nothing to stand between
        self.lstm = nn.LSTM(
            word_dim, hidden_dim, num_layers=num_layers, batch_first=True, dropout=between, bidirectional=True
        )
        self.head = layers.head(2 * hidden_dim, 2 * coordinate_dim, coordinate_dim, dropout)

    def forward(self, sets: WordSets, memory: Memory | None = None, own: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words matters."""
        self.check(sets)
        words_first = sets.mask.argsort(dim=1, descending=True, stable=True)[..., None]
        vectors = sets.vectors.gather(1, words_first.expand_as(sets.vectors))
        lengths = sets.mask.sum(dim=1).cpu()  # as packing wants them: a GPU has to finish first
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)  # (2 · num_layers, B, h)
        return self.head(torch.cat((hidden[-2], hidden[-1]), dim=-1))


class SetFormer(Net):
    """The paper's alternative: a Transformer encoder without positions, then the mean over the words.

    Post-norm ReLU layers of width d with feed-forward width 8d, masked mean, then
    Linear(d → 2d) GELU Dropout Linear(2d → K) (hyper-ofa `hypernetwork/setformer.py`). Not Lee et al.'s Set
    Transformer. Defaults are the published ones but for the depth, which would want a GPU.

    Args:
        word_dim: d, width of the word vectors.
        coordinate_dim: K, width of the coordinates.
        num_heads: attention heads; must divide d (paper: 10 for d = 200).
        num_layers: encoder layers (published YAML: 28, which makes 22.6 M parameters at d = 200).
        dropout: in the encoder and the head (paper: 0.4).
    """

    def __init__(
        self, word_dim: int, coordinate_dim: int, num_heads: int = 10, num_layers: int = 4, dropout: float = 0.4
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        _check(dropout, num_heads=num_heads, num_layers=num_layers)
        if word_dim % num_heads:
            divisors = [heads for heads in range(1, 33) if word_dim % heads == 0]
            raise InputError(
                f"net.num_heads: expected a divisor of the word width {word_dim} (such as {divisors}), "
                f"found {num_heads}"
            )
        self.num_heads, self.num_layers, self.dropout = num_heads, num_layers, dropout
        layer = nn.TransformerEncoderLayer(word_dim, num_heads, 8 * word_dim, dropout, batch_first=True)
        # Nested tensors would cut the output to the longest set, warn, and differ between training and evaluation.
        self.encoder = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = layers.head(word_dim, 2 * word_dim, coordinate_dim, dropout)

    def forward(self, sets: WordSets, memory: Memory | None = None, own: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words plays no role."""
        self.check(sets)
        encoded = self.encoder(sets.vectors, src_key_padding_mask=~sets.mask)
        return self.head(layers.pool(encoded, torch.ones_like(sets.mask), sets.mask))


NETS: dict[str, type[Net]] = {net.__name__: net for net in (SourceAttention, MLP, BiLSTM, SetFormer)}


def build(spec: dict[str, Any]) -> Net:
    """The net of a `Net.spec`; only the nets of this module, since the specification may come from a stranger's file.

    Raises:
        InputError: another class, or arguments it does not take.
    """
    arguments = dict(spec)
    name = arguments.pop("class", None)
    if name not in NETS:
        raise InputError(f"expected a net of {', '.join(NETS)}, found {name!r}")
    try:
        return NETS[name](**arguments)
    except TypeError as error:
        raise InputError(f"expected the arguments of {name}, found {arguments} ({error})") from None


def _scaled(features: Tensor) -> Tensor:
    """Match features in the range of 1: logarithms of weight and share, a fifth of the log rank, the rest as it is."""
    tiny = torch.finfo(torch.float32).tiny
    weight, share, exact, log_rank, position, source = features.unbind(-1)
    return torch.stack(
        [weight.clamp_min(tiny).log() / 5, share.clamp_min(tiny).log(), exact, log_rank / 5, position, source], dim=-1
    ).clamp(-10, 10)


def _check(dropout: float = 0.0, /, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"net.{name}: expected a whole number > 0, found {size}")
    if not 0 <= dropout < 1:
        raise InputError(f"net.dropout: expected a probability from 0 to below 1, found {dropout}")
