"""Which ways to initialise there are: one record a method, read by exports, grids, cards, plots and the README."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from hyperofa.bundle.bundle import Pooling
from hyperofa.errors import InputError, did_you_mean
from hyperofa.methods import baselines, citations, peers
from hyperofa.methods.baselines import TUNED_OFA, InitInputs, OFAConfig, Predictions
from hyperofa.methods.fallbacks import Fallback
from hyperofa.runtime.sharding import IN_MEMORY, ShardCache
from hyperofa.tokens.canonical import OVERLAP_KINDS, OverlapKind


@dataclass(frozen=True)
class Context:
    """What a method may use beside its inputs.

    Attributes:
        seed: of the noise; `None` where the method is not registered as seeded.
        mixing: how source rows are mixed, for OFA.
        cache: where shards of long work are kept, and who shares it.
    """

    seed: int | None = None
    mixing: OFAConfig = TUNED_OFA
    cache: ShardCache = IN_MEMORY

    @cached_property
    def rng(self) -> np.random.Generator:
        """The generator that all noise is drawn from.

        Raises:
            InputError: the method is not registered as seeded, so that a grid would run it once for all seeds.
        """
        if self.seed is None:
            raise InputError("expected register_method(…, seeded=True) for a method that draws noise, found it without")
        return np.random.default_rng(self.seed)


Rows = Callable[[InitInputs, Context], Predictions]
Comparison = Literal["demo", "hewitt"]
Option = Literal["mixing", "parallel"]


@dataclass(frozen=True)
class Method:
    """One way to initialise a target vocabulary.

    Attributes:
        name: on the command line and in tables.
        about: what it does, in a few words, for the README and for model cards.
        rows: computes what it says of the wanted tokens; `None` for one that needs the checkpoint of a trained net.
        pooling: how it sees a token's words, see `Bundle.pooled`.
        copied: kinds of overlap that it copies unless told otherwise; of a trained one the checkpoint says which.
        fallback: what becomes of the rows it does not know, see `fallbacks.plan_rows`.
        seeded: whether another seed gives other rows; of a trained one, the seed of its training.
        reads: options that it makes use of, beside those of all methods.
        compared: commands that compare it without being asked.
        label: its name in plots; empty for its own.
        colour: its colour there.
        citation: BibTeX, if there is something to cite.
        built_in: part of this package.
        published: what it is on a bundle in reference mode, where that differs.
    """

    name: str
    about: str
    rows: Rows | None = None
    pooling: Pooling = "weighted"
    copied: tuple[OverlapKind, ...] = OVERLAP_KINDS
    fallback: Fallback = "ladder"
    seeded: bool = False
    reads: tuple[Option, ...] = ()
    compared: tuple[Comparison, ...] = ()
    label: str = ""
    colour: str = "#8c8c8c"
    citation: str | None = None
    built_in: bool = True
    published: "Method | None" = field(default=None, repr=False)

    @property
    def trained(self) -> bool:
        """Whether it needs the checkpoint of a trained hypernetwork."""
        return self.rows is None

    def predict(self, inputs: InitInputs, context: Context) -> Predictions:
        """What it says of the wanted tokens.

        Args:
            inputs: source tokens to make rows from, and the wanted tokens.
            context: what else it may use; no seed is passed on to a method that has none.

        Raises:
            InputError: it needs a checkpoint, or its answer does not fit the inputs.
        """
        if self.rows is None:
            raise InputError(f"--method {self.name}: expected a method of no net, found one that needs a checkpoint")
        found = self.rows(inputs, context if self.seeded else replace(context, seed=None))
        shape = (len(inputs.covered), inputs.coordinates.shape[1])
        if found.coordinates.shape != shape or found.known.shape != shape[:1]:
            raise InputError(
                f"--method {self.name}: expected coordinates of shape {shape} and {shape[0]} flags `known`, found "
                f"{found.coordinates.shape} and {found.known.shape}"
            )
        return found

    def story(self) -> str:
        """What a model card says of it."""
        of = "of hyperofa" if self.built_in else f"({self.about}), which is no part of hyperofa"
        return (
            f"Its embedding rows were initialised with the method `{self.name}` {of}; nothing has been trained since, "
            "unless someone says so below. All other weights are those of the base model."
        )


def _published(method: Method, rows: Rows | None, fallback: Fallback) -> Method:
    return replace(method, published=replace(method, rows=rows, fallback=fallback))


_BUILT_IN = (
    _published(
        Method(
            "hyperofa", "the hypernetwork's prediction; needs `--checkpoint`",
            seeded=True, compared=("demo", "hewitt"), label="HYPEROFA", colour="#e6550d",
            citation=citations.HYPEROFA,
        ),
        None, "noise",
    ),
    Method(
        "ofa_tuned", "OFA with our pooling, k = 3, rescaled",
        lambda inputs, context: baselines.ofa(inputs, context.mixing, context.cache),
        reads=("mixing",), compared=("demo",), label="OFA, tuned", colour="#4292c6", citation=citations.OFA,
    ),
    _published(
        Method(
            "ofa", "OFA as published: k = 10, T = 0.1, overlap by role, exact and case",
            lambda inputs, context: baselines.ofa(inputs, cache=context.cache),
            pooling="duplicates", copied=("role", "exact", "case"), compared=("demo", "hewitt"), label="OFA",
            colour="#9ecae1", citation=citations.OFA,
        ),
        lambda inputs, _: baselines.ofa_with_zero_rows(inputs), "noise",
    ),
    Method(
        "subtokens", "mean of the source tokens that spell a token (FVT, fast vocabulary transfer)",
        lambda inputs, _: baselines.subtokens(inputs),
        compared=("demo", "hewitt"), label="sub-tokens", citation=citations.FVT,
    ),
    Method(
        "mean", "mean of all source rows",
        lambda inputs, _: baselines.mean(inputs),
        compared=("demo", "hewitt"), colour="#bdbdbd", citation=citations.HEWITT,
    ),
    Method(
        "mean_noise", "that mean, with covariance noise of scale 1e-5",
        lambda inputs, context: baselines.mean_noise(inputs, context.rng),
        seeded=True, compared=("hewitt",), citation=citations.HEWITT,
    ),
    _published(
        Method(
            "random", "normal, like the source rows",
            lambda inputs, context: baselines.random(inputs, context.rng),
            seeded=True, compared=("demo",), colour="#d9d9d9",
        ),
        lambda inputs, _: baselines.nothing(inputs), "noise_in_sequence",
    ),
    Method(
        "small_noise", "normal around zero, standard deviation 0.02, transformers' default",
        lambda inputs, context: baselines.small_noise(inputs, context.rng), seeded=True, compared=("hewitt",),
    ),
    Method(
        "zeros", "zero rows, to see what they break",
        lambda inputs, _: baselines.zeros(inputs), compared=("hewitt",),
    ),
    Method(
        "wechsel", "WECHSEL: softmax over the 10 nearest source tokens, T = 0.1, words pooled by frequency",
        lambda inputs, context: peers.wechsel(inputs, context.cache),
        pooling="frequency", copied=("role",), label="WECHSEL", colour="#74c476", citation=citations.WECHSEL,
    ),
    Method(
        "focus", "FOCUS: sparsemax over the tokens of both vocabularies",
        lambda inputs, context: peers.focus(inputs, context.cache),
        copied=("role", "exact"), label="FOCUS", colour="#31a354", citation=citations.FOCUS,
    ),
    Method(
        "clp", "CLP-Transfer: all tokens of both vocabularies, weighted by similarity",
        lambda inputs, _: peers.clp(inputs),
        copied=("role", "exact"), label="CLP", colour="#c7e9c0", citation=citations.CLP,
    ),
    Method(
        "omp", "orthogonal matching pursuit in the tokens of both vocabularies, k = 64, as tokensurgeon",
        lambda inputs, context: peers.omp(inputs, cache=context.cache),
        copied=("role", "exact"), label="OMP", colour="#9e9ac8", citation=citations.OMP,
    ),
    Method(
        "transtokenizer", "mean of the source tokens that a token is aligned with; needs `--parallel`",
        lambda inputs, _: peers.transtokenizer(inputs),
        copied=("role", "symbol"), reads=("parallel",), label="trans-tokeniser", colour="#756bb1",
        citation=citations.TRANSTOKENIZER,
    ),
)  # fmt: skip
METHODS: dict[str, Method] = {method.name: method for method in _BUILT_IN}


def compared_by(command: Comparison) -> list[str]:
    """Methods that a command compares if nobody says which, in the registry's order from its end."""
    return [method.name for method in reversed(_BUILT_IN) if command in method.compared]


def register_method(
    name: str,
    rows: Rows | None = None,
    *,
    about: str,
    seeded: bool = False,
    pooling: Pooling = "weighted",
    copied: Sequence[OverlapKind] = OVERLAP_KINDS,
    label: str = "",
    colour: str = "#8c8c8c",
    citation: str | None = None,
) -> Callable[[Rows], Rows]:
    """Add a method of your own, for exports, grids and plots; on a command line, `--trust MODULE` imports it.

    Args:
        name: letters, digits and underscores; not that of a built-in method.
        rows: computes the rows of the wanted tokens from `InitInputs` and a `Context`, whose `rng` draws all noise. If
            it is not given, what this returns is a decorator for it.
        about: what it does, in a few words, for model cards.
        seeded: whether another seed gives other rows; a grid runs it once for all seeds if not.
        pooling: how a token's words become one vector, see `Bundle.pooled`.
        copied: kinds of overlap that are copied unless an export says otherwise.
        label: its name in plots.
        colour: its colour there.
        citation: BibTeX.

    Returns:
        A function that registers another one and returns it.

    Raises:
        InputError: a name that cannot be used.

    Example:
        >>> import hyperofa
        >>> import numpy as np
        >>> from hyperofa.methods.baselines import Predictions
        >>> @hyperofa.register_method("median", about="median of all source rows")
        ... def median(inputs, context):
        ...     row = np.median(inputs.coordinates, axis=0)
        ...     count = len(inputs.covered)
        ...     return Predictions(np.tile(row, (count, 1)).astype(np.float32), np.ones(count, bool))
        >>> hyperofa.initialise("bundle", "median")
        Initialised(method='median', rows=...)
    """
    if not re.fullmatch(r"\w+", name):
        raise InputError(f"register_method: expected a name of letters, digits and underscores, found {name!r}")
    if name in METHODS and METHODS[name].built_in:
        raise InputError(f"register_method: expected a new name, found that of a built-in method, {name}")

    def register(function: Rows) -> Rows:
        METHODS[name] = Method(
            name, about, function, pooling, tuple(copied), seeded=seeded, reads=get_args(Option), label=label,
            colour=colour, citation=citation, built_in=False,
        )  # fmt: skip
        return function

    if rows is not None:
        register(rows)
    return register


def method_named(name: str, flag: str = "--method", reference: bool = False) -> Method:
    """The method of a name.

    Args:
        name: as registered.
        flag: command-line flag named in errors.
        reference: as it is on a bundle in reference mode.

    Raises:
        InputError: there is none of that name.
    """
    if name not in METHODS:
        raise InputError(
            f"{flag}: expected one of {', '.join(METHODS)}; found {name}; for one of your own, import the module that "
            f"registers it (--trust MODULE){did_you_mean(name, METHODS)}"
        )
    method = METHODS[name]
    return method.published if reference and method.published is not None else method
