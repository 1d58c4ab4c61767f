"""What an export needs, seen to before anything is computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.methods.baselines import TUNED_OFA, OFAConfig
from hyperofa.methods.registry import METHODS, Method, Option, method_named
from hyperofa.runtime.idle import Use, check_read
from hyperofa.runtime.text_files import read_lines

_SAFETY_LINES = 100


def check_choice(
    bundle: Bundle,
    method: str,
    hypernetworks: Sequence[Any],
    ofa_share: float | None = 0.0,
    least_confidence: float = 0.0,
    mixing: OFAConfig = TUNED_OFA,
    parallel: Sequence[str | Path] = (),
) -> Method:
    """The method of a name, if all it needs is there and nothing else.

    Args:
        bundle: that it will be used on.
        method: its name.
        hypernetworks: trained nets or their checkpoints.
        ofa_share: see `initialise`.
        least_confidence: likewise.
        mixing: likewise.
        parallel: likewise.

    Raises:
        InputError: naming the flag.
    """
    chosen = method_named(method, reference=bundle.meta.reference)
    if chosen.trained and not hypernetworks:
        raise InputError(
            f"--checkpoint: expected a trained net for --method {method}, that of `hyperofa fit`; found none"
        )
    if hypernetworks and not chosen.trained:
        raise InputError(
            f"--checkpoint: expected none for --method {method}, which needs no trained net; found "
            f"{' '.join(map(str, hypernetworks))}"
        )
    check_options(chosen, ofa_share, least_confidence, mixing, parallel)
    return chosen


def check_options(
    method: Method,
    ofa_share: float | None = 0.0,
    least_confidence: float = 0.0,
    mixing: OFAConfig = TUNED_OFA,
    parallel: Sequence[str | Path] = (),
) -> None:
    """See that a method reads the options that were given.

    Args:
        method: as it is on the bundle.
        ofa_share: see `initialise`.
        least_confidence: likewise.
        mixing: likewise.
        parallel: likewise.

    Raises:
        InputError: naming the flag.
    """
    if ofa_share is not None and not 0 <= ofa_share <= 1:
        raise InputError(f"--ofa_share: expected a number from 0 to 1, or null, found {ofa_share}")
    if not 0 <= least_confidence <= 1:
        raise InputError(f"--least_confidence: expected a number from 0 to 1, found {least_confidence}")
    blended = method.trained and ofa_share != 0
    check_read(
        check_options,
        locals(),
        Use(("ofa_share", "least_confidence"), method.trained, "with --method hyperofa"),
        Use(("mixing",), "mixing" in method.reads or blended, f"{_with('mixing')}, or hyperofa and an --ofa_share"),
        Use(("parallel",), "parallel" in method.reads, _with("parallel")),
    )


def _with(option: Option) -> str:
    """The methods of this package that read an option."""
    names = [each.name for each in METHODS.values() if each.built_in and option in each.reads]
    return f"with --method {' or '.join(names)}"


def check_factorised(bundle: Bundle) -> None:
    """Refuse to factorise a model of full width.

    Raises:
        InputError: the bundle has as many coordinates as the embeddings have columns.
    """
    widest = max(bundle.meta.input_dim, bundle.meta.output_dim)
    if widest >= bundle.meta.embedding_dim:
        raise InputError(
            f"--factorised true: expected a bundle of fewer coordinates than the {bundle.meta.embedding_dim} columns "
            f"of the embeddings, found {widest} in --bundle {bundle.path}; prepare one with --coordinate_dim"
        )


def text_sample(text: Sequence[str | Path]) -> list[str]:
    """The first lines of each file, on which a new model is measured."""
    return [line for path in text for line in read_lines([path], "--text")[:_SAFETY_LINES]]
