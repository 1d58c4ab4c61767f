"""What a hypernetwork sees: weighted word sets, and the memory of source tokens."""

from typing import NamedTuple

import torch
from torch import Tensor

FEATURES = ("weight", "share", "exact", "log_rank", "position", "source_language", "cover")
"""Columns of `WordSets.features`: `weight`, the fixed pooling weight (`matching.pooling_weights`), > 0, not normalised;
`cover`, the part of the token that the word is, below 1 for one of the words that the token is made of."""

FORMS = ("begins", "ends", "whole", "capitalised")
"""Columns of `Memory.forms`: in how much of its use a token is a word's first, its last, all of it, and the first of
one that is capitalised."""

WEIGHT = FEATURES.index("weight")


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


class Memory(NamedTuple):
    """The source tokens that a net may look at.

    Attributes:
        keys: `(M, d)` float, pooled word vectors of length 1.
        values: `(M, K)` float, coordinates.
        neighbour_ids: `(N, k)` int32, the indices in the memory that each token looks at, in no order, M where there
            are fewer than k. Row n is of the token whose index is n; rows from M on are of tokens outside the memory.
            `None`: every token looks at all of it.
        projected: `(M, d)` float, the keys as a net sees them that learns no more (`Net.remember`); `None`: it still
            does.
        lengths: `(M,)` float, of the values, where they are remembered too.
        log_frequencies: `(N,)` float, how often tokens occur, row n as in `neighbour_ids`; `None` for a net that does
            not ask (`Net.frequency`).
        languages: `(N, m)` int32, the languages that use each token most; `None` for a net that does not ask
            (`Net.languages`).
        shares: `(N, m)` float, how much of its use is theirs.
        forms: `(N, F)` float, columns named by `FORMS`; `None` for a net that does not ask (`Net.forms`).
        key_forms: `(M, F)` float, those of the memory's own tokens.
    """

    keys: Tensor
    values: Tensor
    neighbour_ids: Tensor | None = None
    projected: Tensor | None = None
    lengths: Tensor | None = None
    log_frequencies: Tensor | None = None
    languages: Tensor | None = None
    shares: Tensor | None = None
    forms: Tensor | None = None
    key_forms: Tensor | None = None

    def usage_of(self, tokens: Tensor) -> "Memory":
        """The same, with how these tokens `(n,)` alone are used, in their order."""
        usage = {name: getattr(self, name) for name in ("log_frequencies", "languages", "shares", "forms")}
        return self._replace(**{name: part[tokens] for name, part in usage.items() if part is not None})

    def to(self, device: torch.device) -> "Memory":
        """The same on another device."""
        return Memory(*(None if part is None else part.to(device) for part in self))  # type: ignore[arg-type]
