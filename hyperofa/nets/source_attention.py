"""The default hypernetwork: it mixes the rows of source tokens, which it finds in a `Memory`."""

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, normalize, pad

from hyperofa.errors import InputError
from hyperofa.nets import layers
from hyperofa.nets.inputs import FEATURES, FORMS, WEIGHT, Memory, WordSets
from hyperofa.nets.net import Net, check_sizes

Head = Literal["residual", "gated"]
_DRAWN = FEATURES.index("cover")  # features whose weights are drawn; later ones start as zero, as old checkpoints do
_ROW_STEP = 3.0  # how much faster than others the rows of languages and forms are learned
_LANGUAGE_START = 0.5  # length of the rows of languages at the start
_MATCH_STEP = 30.0  # how much faster it is learned which forms look at which


class SourceAttention(Net):
    """Mix the rows of source tokens that mean the same, then correct the mixture.

    Words are pooled by softmax(log weight + a small MLP of the match features). Query (the pooled vector) and keys
    (those of the memory) pass one residual MLP; attention by cosine over a learned temperature mixes the memory's
    values; the mixture gets the mean length of what it mixes; a residual MLP of pooled vector and mixture is added; all
    of it is scaled. Every learned part starts as zero, so training starts from the fixed pooling and a softmax mixture,
    as in OFA, whose rows the PLM already understands.

    A row that a PLM judges also says how its token is used. With `frequency`, a learned row times the log of how often
    it occurs is added; with `forms`, learned rows of what part of a word it is, by how much of its use is each, and
    tokens look more at source tokens of the forms that it learns that they should: a word's first and last piece have
    the same words, and would have the same row. With `languages`, which a language model has to tell apart and word
    vectors that are centred by language do not, learned rows of them, likewise. These start at random: as what the
    model reads and says at once, and has not known before, zeros would teach each other nothing.

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
        frequency: whether it asks the memory how often tokens occur; training on text turns it on.
        languages: how many languages it knows, of which it asks the memory beside; 0 for none; training through a
            language model turns it on.
        forms: whether it asks the memory what part of a word tokens are; training on text turns it on.
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
        frequency: bool = False,
        languages: int = 0,
        forms: bool = False,
    ) -> None:
        super().__init__(word_dim, coordinate_dim)
        check_sizes(dropout, hidden_dim=hidden_dim, neighbours=1 if neighbours is None else neighbours)
        if temperature <= 0:
            raise InputError(f"net.temperature: expected a number > 0, found {temperature}")
        if head not in get_args(Head):
            raise InputError(f"net.head: expected 'residual' or 'gated', found {head!r}")
        self.hidden_dim, self.temperature = hidden_dim, temperature
        self.neighbours, self.dense_limit, self.head, self.dropout = neighbours, dense_limit, head, dropout
        first, *rest = layers.correction(_DRAWN, 32, 1)
        self.pooling = nn.Sequential(_widened(first), *rest)
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
        if frequency or languages or forms:
            self.ask_for_usage(languages, forms)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Take weights of a time when a match had fewer features too: those that are new count nothing."""
        name = f"{prefix}pooling.0.weight"
        if name in state_dict and state_dict[name].shape[1] == _DRAWN:
            state_dict[name] = pad(state_dict[name], (0, len(FEATURES) - _DRAWN))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, sets: WordSets, memory: Memory | None = None, self_index: Tensor | None = None) -> Tensor:
        """Predict coordinates `(B, K)`; the order of the words plays no role."""
        self.check(sets)
        if memory is None or (memory.neighbour_ids is None and self.looks_at(len(memory.keys)) is not None):
            raise ValueError("SourceAttention: expected a memory, with lists of neighbours above `dense_limit` tokens")
        logits = sets.features[..., WEIGHT].clamp_min(torch.finfo(torch.float32).tiny).log()
        logits = logits + self.pooling(_scaled(sets.features))[..., 0]
        attention = logits.masked_fill(~sets.mask, -torch.inf).softmax(dim=1)
        pooled = normalize(torch.bmm(attention[:, None], sets.vectors)[:, 0], dim=1)  # (B, d)
        if memory.neighbour_ids is None:
            mixture, length = self._mix(pooled, memory, self_index)
        else:
            mixture, length = self._mix_near(pooled, memory, memory.neighbour_ids[self_index], self_index)
        direction = normalize(mixture, dim=1)  # (B, K)
        seen = torch.cat([pooled, direction], dim=1)
        correction = self.correction(seen)
        if self.gate is not None:
            correction = correction * self.gate(seen).sigmoid()
        predicted = (direction * length + correction) * self.log_scale.exp()
        if self.frequency:
            if memory.log_frequencies is None or self_index is None:
                raise ValueError("SourceAttention: expected a memory that says how often tokens occur")
            # embedding(i, x) is x[i]; a fifth, as of the log rank.
            predicted = predicted + embedding(self_index, memory.log_frequencies[:, None]) / 5 * self.frequency_row
        if self.languages:
            if memory.languages is None or memory.shares is None or self_index is None:
                raise ValueError("SourceAttention: expected a memory that says in which languages tokens occur")
            languages, shares = memory.languages[self_index].long(), memory.shares[self_index]
            spread = shares.new_zeros(len(shares), self.languages).scatter_add(1, languages, shares)
            predicted = predicted + _ROW_STEP * (spread @ self.language_rows)
        if self.forms:
            predicted = predicted + _ROW_STEP * (self._forms_in(memory, self_index)[0] @ self.form_rows)
        return predicted

    def ask_for_usage(self, languages: int, forms: bool = True) -> None:
        """See `Net`.

        Args:
            languages: as there.
            forms: as there.
        """
        if not self.frequency:
            self.frequency, self.frequency_row = True, nn.Parameter(torch.zeros(self.coordinate_dim))
        if languages and not self.languages:
            check_sizes(languages=languages)
            rows = torch.randn(languages, self.coordinate_dim) / math.sqrt(self.coordinate_dim)
            self.languages, self.language_rows = languages, nn.Parameter(rows * _LANGUAGE_START / _ROW_STEP)
        if forms and not self.forms:
            self.forms, self.form_rows = True, nn.Parameter(torch.zeros(len(FORMS), self.coordinate_dim))
            self.form_match = nn.Parameter(torch.zeros(len(FORMS), len(FORMS)))

    def remember(self, memory: Memory) -> Memory:
        """The memory with its keys projected and its values measured."""
        return memory._replace(projected=self._project(memory.keys), lengths=memory.values.norm(dim=1))

    def _mix(self, pooled: Tensor, memory: Memory, self_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix all values of the memory: mixtures `(B, K)`, and the mean length `(B, 1)` of what each mixes."""
        keys = self._project(memory.keys) if memory.projected is None else memory.projected  # (M, d)
        lengths = memory.values.norm(dim=1) if memory.lengths is None else memory.lengths  # (M,)
        scores = self._project(pooled) @ keys.T * self.log_sharpness.exp() + self.key_bias(keys)[:, 0]
        if self.forms:
            mine, theirs = self._forms_in(memory, self_index)
            scores = scores + mine @ (_MATCH_STEP * self.form_match) @ theirs.T
        if self_index is not None:
            hidden = scores.new_zeros(len(self_index)).masked_fill(self_index < len(keys), -torch.inf)
            scores = scores.scatter_add(1, self_index.clamp(max=len(keys) - 1)[:, None], hidden[:, None])
        weights = scores.softmax(dim=1)
        return weights @ memory.values, (weights @ lengths)[:, None]

    def _mix_near(
        self, pooled: Tensor, memory: Memory, neighbour_ids: Tensor, self_index: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The same over the values at the indices `neighbour_ids` `(B, k)`; no other row of the memory is touched."""
        nearest = slots = neighbour_ids.clamp(max=len(memory.keys) - 1)
        if memory.projected is not None and memory.lengths is not None:
            keys, values, lengths = memory.projected, memory.values, memory.lengths
        else:  # what is near to several is projected once; to count them a GPU has to finish first
            indices, slots = slots.unique(return_inverse=True)
            # embedding(indices, x) is x[indices], several times as fast, in the gradient too.
            keys, values = self._project(embedding(indices, memory.keys)), embedding(indices, memory.values)
            lengths = values.norm(dim=1)
        # The bias of a key is linear in it, so the query can bring it along.
        asked = self._project(pooled) * self.log_sharpness.exp() + self.key_bias.weight
        scores = torch.einsum("bd,bkd->bk", asked, embedding(slots, keys)) + self.key_bias.bias
        if self.forms:
            mine, theirs = self._forms_in(memory, self_index)
            sought = mine @ (_MATCH_STEP * self.form_match)
            scores = scores + torch.einsum("bf,bkf->bk", sought, embedding(nearest, theirs))
        weights = scores.masked_fill(neighbour_ids == len(memory.keys), -torch.inf).softmax(dim=1)
        mixture = embedding_bag(slots, values, per_sample_weights=weights, mode="sum")
        return mixture, (weights * lengths[slots]).sum(dim=1, keepdim=True)

    def _forms_in(self, memory: Memory, self_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """What part of a word the tokens are, `(B, F)`, and those of the memory, `(M, F)`."""
        if memory.forms is None or memory.key_forms is None or self_index is None:
            raise ValueError("SourceAttention: expected a memory that says what part of a word tokens are")
        return embedding(self_index, memory.forms), memory.key_forms

    def _project(self, vectors: Tensor) -> Tensor:
        return normalize(vectors + self.projection(vectors), dim=1)


def _widened(layer: nn.Module) -> nn.Linear:
    """A linear layer that also takes the features whose weights are not drawn, which count nothing yet."""
    weight = layer.get_parameter("weight").detach()
    wider = nn.Linear(len(FEATURES), len(weight), device="meta")
    wider.weight = nn.Parameter(pad(weight, (0, len(FEATURES) - _DRAWN)))
    wider.bias = nn.Parameter(layer.get_parameter("bias").detach())
    return wider


def _scaled(features: Tensor) -> Tensor:
    """Match features in the range of 1: logarithms of weight, share and cover, a fifth of the log rank."""
    tiny = torch.finfo(torch.float32).tiny
    weight, share, exact, log_rank, position, source, cover = features.unbind(-1)
    weight, share, cover = (part.clamp_min(tiny).log() for part in (weight, share, cover))
    return torch.stack([weight / 5, share, exact, log_rank / 5, position, source, cover], dim=-1).clamp(-10, 10)
