"""Checkpoints on disk: written whole or not at all, read without running code in them."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args
from zipfile import BadZipFile, ZipFile

import torch
from lightning import Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from hyperofa.errors import InputError
from hyperofa.nets.net import Net
from hyperofa.tokens.canonical import OVERLAP_KINDS
from hyperofa.training.divergence import not_finite
from hyperofa.training.word_sets import WordOrder

RECORD = "hyperofa"
"""Key of what a checkpoint says of its net, beside Lightning's own."""
_FIELDS = {"net": dict, "space": str, "copied": list, "max_words": int, "words": str}
_STATE = {
    "epoch": int, "global_step": int, "loops": dict, "callbacks": dict, "optimizer_states": list, "lr_schedulers": list
}  # fmt: skip


def make_record(net: Net, fingerprint: str, copied: Sequence[str], max_words: int, words: str) -> dict[str, Any]:
    """What a checkpoint says of its net, so that it can be rebuilt without a config: plain data.

    Args:
        net: the hypernetwork.
        fingerprint: of what it is trained on, `Meta.training_fingerprint` of the bundle.
        copied: kinds of overlap that it is not trained to predict.
        max_words: words a token is described by.
        words: which they are.
    """
    return {
        "net": net.spec(),
        "space": fingerprint,
        "copied": list(copied),
        "max_words": max_words,
        "words": words,
    }


def read_checkpoint(path: str | Path, flag: str = "--checkpoint", resumable: bool = False) -> dict[str, Any]:
    """Read a checkpoint's tensors and plain data; no code in it is run.

    Args:
        path: `.ckpt` file of `hyperofa fit`.
        flag: command-line flag named in errors.
        resumable: whether training is to go on from it, which takes the state of the optimizer too.

    Raises:
        InputError: missing, damaged, or not of `hyperofa fit`.
    """
    expected = f"{flag} {path}: expected a checkpoint of `hyperofa fit`"
    try:
        damaged = _first_damaged(path)
        checkpoint = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{expected}, found no file") from None
    except Exception as error:  # a file of another kind may raise anything here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "weights_only" in reason:  # torch's advice to run what is in it
            reason = "it holds code or objects beside tensors and plain data, and nothing in it was run"
        raise InputError(f"{expected}; {reason}") from None
    if damaged:
        raise InputError(f"{expected}, found a damaged one ({damaged})")
    if not isinstance(checkpoint, dict) or not {RECORD, "state_dict"} <= checkpoint.keys():
        raise InputError(f"{expected}, found one of something else")
    weights = checkpoint["state_dict"]
    whole = isinstance(weights, dict) and all(isinstance(weight, Tensor) for weight in weights.values())
    if not whole:
        raise InputError(f"{expected}, found one with another record of its net")
    check_record(checkpoint[RECORD], f"{flag} {path}")
    if resumable and "optimizer_states" not in checkpoint:
        raise InputError(
            f"{flag} {path}: expected a checkpoint that training can go on from, found the net alone; give last.ckpt"
        )
    if resumable and not _has(checkpoint, _STATE):
        raise InputError(f"{expected}, found one with another state of training")
    check_weights(weights, f"{flag} {path}")
    return checkpoint


def check_record(record: Any, named: str) -> dict[str, Any]:
    """See that what a file says of a net is what `make_record` writes.

    Args:
        record: as it was read.
        named: flag and file, for errors.

    Raises:
        InputError: it is not.
    """
    if not _has(record, _FIELDS) or not _is_meant(record):
        raise InputError(f"{named}: expected a checkpoint of `hyperofa fit`, found one with another record of its net")
    return record


def check_weights(weights: Mapping[str, Tensor], named: str) -> None:
    """See that weights are dense tensors of finite real numbers.

    Args:
        weights: by name.
        named: flag and file, for errors.

    Raises:
        InputError: one is not.
    """
    for name, weight in weights.items():
        plain = weight.layout is torch.strided and weight.device.type == "cpu" and not weight.is_quantized
        if not plain or weight.is_complex():
            found = f"{weight.dtype}, {weight.layout}, on {weight.device}"
            raise InputError(f"{named}: expected dense weights of real numbers, found {name} ({found}); train again")
    if wrong := not_finite(weights):
        raise InputError(f"{named}: expected finite weights, found NaN or infinity in {wrong[0]}; train again")


def _first_damaged(path: str | Path) -> str | None:
    """The part of a checkpoint whose checksum does not fit; torch reads it without a word."""
    try:
        with ZipFile(path) as file:
            return file.testzip()
    except BadZipFile:  # torch says what it is instead
        return None


def _has(record: Any, fields: Mapping[str, type]) -> bool:
    return isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in fields.items())


def _is_meant(record: Mapping[str, Any]) -> bool:
    """Whether the values of a record are among those that `hyperofa fit` writes."""
    kinds = all(kind in OVERLAP_KINDS for kind in record["copied"])
    return kinds and record["max_words"] > 0 and record["words"] in get_args(WordOrder)


def write_whole(trainer: Trainer, announce: Callable[[str], None] = lambda path: None) -> None:
    """Have a trainer write its checkpoints whole or not at all, unless its strategy has a way of its own.

    Args:
        trainer: made.
        announce: told of each path before it is written.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeFiles(announce)


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: a kill leaves the old file or the new one.

    Equal content gives equal bytes, whatever objects of it are the same one.

    Args:
        announce: told of each path before it is written.
    """

    def __init__(self, announce: Callable[[str], None] = lambda path: None) -> None:
        super().__init__()
        self._announce = announce

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save, in one step where `path` is on this machine; other file systems have steps of their own."""
        if "://" in str(path):
            super().save_checkpoint(_canonical(checkpoint), path, storage_options)
            return
        self._announce(os.fspath(path))
        partial = partial_of(path)
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(_canonical(checkpoint), file)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: expected room for a checkpoint there, it was not written ({reason})") from None


def partial_of(path: str | Path) -> Path:
    """Where a checkpoint is until it is whole."""
    return Path(f"{path}.partial")


def _canonical(value: Any) -> Any:
    """A copy that shares nothing but equal strings, which pickle writes once."""
    if isinstance(value, dict):
        return {_canonical(name): _canonical(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_canonical(each) for each in value)
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    return sys.intern(value) if type(value) is str else value


def named_net(spec: dict[str, Any], other: dict[str, Any]) -> str:
    """A net by its class, and by what it has otherwise than another of its class.

    Args:
        spec: of the net (`Net.spec`); empty for none.
        other: of the other.
    """
    if "class" not in spec or spec["class"] != other.get("class"):
        return str(spec.get("class", "no net"))
    changed = [f"{name} {value}" for name, value in spec.items() if value != other.get(name)]
    return f"{spec['class']} ({', '.join(changed)})"
