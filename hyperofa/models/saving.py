"""Write a model such that transformers alone opens it as it was meant: every model folder is written here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hyperofa.models.layout import tensors_by_name, unsupported

_SHOWN = 3


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model, then open the folder and see that every weight is there again.

    What transformers writes is not always what it reads: it keeps one of two names of a storage, renames, splits and
    merges weights by model type, and makes up what it does not find. The file is memory-mapped, so this takes about as
    long as reading it once, and no second copy in memory.

    Args:
        model: of transformers, factorised or not.
        folder: where to; made if need be.

    Raises:
        InputError: the folder would load as another model.
    """
    model.save_pretrained(folder)
    opened: tuple[PreTrainedModel, dict[str, Any]] = type(model).from_pretrained(folder, output_loading_info=True)  # type: ignore[assignment]
    loaded, report = opened
    problems = [
        f"{len(found)} {kind.removesuffix('_keys')} ({_shown(sorted(map(str, found)))})"
        for kind, found in report.items()
        if found
    ]
    if changed := sorted(_differences(model, loaded)):
        problems.append(f"{len(changed)} with other values ({_shown(changed)})")
    if problems:
        raise unsupported(model, f"from its folder, transformers would load weights {', '.join(problems)}")


def _differences(model: PreTrainedModel, loaded: PreTrainedModel) -> Iterator[str]:
    """Names of the weights that both have, but not the same."""
    ours, theirs = tensors_by_name(model), tensors_by_name(loaded)
    saved = model.state_dict().keys()
    compared = set()
    for name in ours.keys() & theirs.keys():
        places = ours[name].data_ptr(), theirs[name].data_ptr()
        # What is not saved is made anew, perhaps more exactly than a model in half precision had it.
        alike = _equal if name in saved else _close
        if places not in compared and not alike(ours[name], theirs[name]):
            yield name
        compared.add(places)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values, NaN too, in the dtype that the second was loaded in."""
    one, other = one.detach().to("cpu", other.dtype), other.detach()
    return torch.equal(one, other) or torch.equal(
        one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
    )


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have about the same values, NaN too."""
    ours, theirs = one.detach().cpu().double(), other.detach().cpu().double()
    return one.shape == other.shape and torch.allclose(ours, theirs, rtol=1e-2, atol=1e-3, equal_nan=True)


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
