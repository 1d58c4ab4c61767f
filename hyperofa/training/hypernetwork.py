"""A trained hypernetwork: what it is, where it fits, how good it is."""

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError, did_you_mean
from hyperofa.nets.net import Net
from hyperofa.nets.registry import build
from hyperofa.runtime.folders import new_folder, read_json, write_json
from hyperofa.runtime.hub import check_repository, download, push_folder
from hyperofa.runtime.scratch import scratch_folder
from hyperofa.tokens.canonical import OverlapKind
from hyperofa.training.checkpoints import (
    RECORD,
    WholeFiles,
    check_record,
    check_weights,
    make_record,
    read_checkpoint,
)
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.module import HyperModule
from hyperofa.training.resumption import warn_if_unfinished
from hyperofa.training.word_sets import WordOrder

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_CARD = """---
library_name: hyperofa
tags:
- hyperofa
- hypernetwork
---

# A hypernetwork that predicts token embeddings

A {net} of {size:,} parameters, from word vectors of width {word_dim} to {coordinate_dim} coordinates of a token. It
fits bundles of the vectors, source model and source languages that it was trained on, whatever their target tokenizer.

```python
import hyperofa

hypernetwork = hyperofa.Hypernetwork.from_pretrained("{name}")
initialised = hyperofa.initialise("path/to/bundle", hypernetwork=hypernetwork)
```
"""
_OWN = {"bundle", "text", "net", "word_dim", "coordinate_dim"}
"""Arguments of data and module that are no options."""


@dataclass(frozen=True)
class Hypernetwork:
    """A hypernetwork as `fit` left it.

    Attributes:
        net: in evaluation mode.
        copied: kinds of overlap it was not trained to predict.
        max_words: words a token is described by.
        words: which they are.
        training_fingerprint: of the bundles that it fits, see `Meta`.
    """

    net: Net
    copied: tuple[OverlapKind, ...]
    max_words: int
    words: WordOrder = "heaviest"
    training_fingerprint: str = ""

    @property
    def digest(self) -> str:
        """Hex SHA-256 of its weights and of what is recorded of it: the same in memory and in every file of it."""
        found = hashlib.sha256(json.dumps(self._record(), sort_keys=True).encode())
        for name, value in sorted(self.net.state_dict().items()):
            array = value.detach().cpu().contiguous()
            found.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
            found.update(array.flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()

    def __repr__(self) -> str:
        net, size = self.net, sum(parameter.numel() for parameter in self.net.parameters())
        widths = f"word_dim={net.word_dim:,}, coordinate_dim={net.coordinate_dim:,}"
        return f"Hypernetwork({type(net).__name__}, parameters={size:,}, {widths}, copied={self.copied})"

    @classmethod
    def load(cls, path: str | Path, bundle: Bundle | None = None) -> "Hypernetwork":
        """Load a checkpoint; only tensors and plain data are read from it, no code.

        Args:
            path: file that `save` or `hyperofa fit` wrote, or folder of `save_pretrained`.
            bundle: what it will be used on, to find out now whether it can be.

        Raises:
            InputError: no checkpoint of a hypernetwork, or one trained on something else: other vectors, another source
                model or other widths.
        """
        if Path(path).is_dir():
            return cls.from_pretrained(path, bundle)
        checkpoint = read_checkpoint(path)
        weights = {name.removeprefix("net."): value for name, value in checkpoint["state_dict"].items()}
        found = cls._rebuilt(checkpoint[RECORD], weights, f"--checkpoint {path}", bundle)
        warn_if_unfinished(path)
        return found

    @classmethod
    def from_pretrained(cls, name: str | Path, bundle: Bundle | None = None) -> "Hypernetwork":
        """Load what `save_pretrained` or `push_to_hub` wrote: JSON and safetensors, and no code.

        Args:
            name: folder, or repository of the Hugging Face hub.
            bundle: what it will be used on, to find out now whether it can be.

        Raises:
            InputError: as `load`.
        """
        folder, flag = download(str(name), (_CONFIG, _WEIGHTS), "--checkpoint"), f"--checkpoint {name}"
        record = check_record(read_json(folder / _CONFIG), flag)
        try:
            weights = load_file(folder / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{flag}: expected weights in {_WEIGHTS}; {error}") from None
        check_weights(weights, flag)
        return cls._rebuilt(record, weights, flag, bundle)

    @classmethod
    def _rebuilt(
        cls, record: dict[str, Any], weights: dict[str, Tensor], flag: str, bundle: Bundle | None
    ) -> "Hypernetwork":
        """A hypernetwork of what was recorded of it."""
        try:
            net = build(record["net"], list(weights.values()))
        except InputError as error:
            raise InputError(f"{flag}: {error.with_flags}") from None
        found = cls(net, tuple(record["copied"]), record["max_words"], record["words"], record["space"])
        if bundle is not None:
            found.check(bundle, flag)
        own = net.state_dict()
        for name in weights.keys() & own.keys():
            if weights[name].is_floating_point() != own[name].is_floating_point():
                raise InputError(f"{flag}: expected {name} of {own[name].dtype}, found {weights[name].dtype}")
        try:
            net.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{flag}: expected the weights of a {type(net).__name__}; {reason}") from None
        net.eval()
        return found

    def check(self, bundle: Bundle, name: str = "hypernetwork") -> None:
        """See whether it fits a bundle.

        Args:
            bundle: what it will be used on.
            name: of the hypernetwork in errors.

        Raises:
            InputError: it was trained on other vectors, another source model or other widths.
        """
        widths = self.net.word_dim, self.net.coordinate_dim
        expected = bundle.meta.word_dim, bundle.meta.coordinate_dim
        if widths != expected:
            raise InputError(
                f"{name}: expected a net of word width {expected[0]} and coordinate width {expected[1]} for --bundle "
                f"{bundle.path}, found {widths[0]} and {widths[1]}"
            )
        if self.training_fingerprint != bundle.meta.training_fingerprint:
            raise InputError(
                f"{name}: expected a net for the vectors, source model and source languages of --bundle {bundle.path}, "
                "found one trained on others; train on this bundle"
            )

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, which `load`, `hyperofa export` and `hyperofa test --ckpt_path` read."""
        record = self._record()
        weights = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        version = {"pytorch-lightning_version": lightning.__version__}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        WholeFiles().save_checkpoint({RECORD: record, "state_dict": weights, **version}, Path(path))

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> None:
        """Write a folder of JSON, safetensors and a card, which `from_pretrained` and the hub read.

        Args:
            folder: to write.
            overwrite: replace a hypernetwork that is already there.

        Raises:
            InputError: something is there.
        """
        with new_folder(folder, overwrite, kind="hypernetwork") as partial:
            self._write(partial, "path/to/this/folder")

    def push_to_hub(self, repository: str) -> str:
        """Upload it to the Hugging Face hub, as `save_pretrained` writes it.

        Args:
            repository: `USER/NAME`; made as a private one if it is not there.

        Returns:
            Where it is now.

        Raises:
            InputError: no access to the repository.
        """
        check_repository(repository)
        with scratch_folder("hyperofa-net-") as folder:
            self._write(Path(folder), repository)
            return push_folder(folder, repository, message="Upload a hypernetwork")

    def _write(self, folder: Path, name: str) -> None:
        """Write what `from_pretrained` reads from there, and a card that loads it by a name."""
        write_json(folder / _CONFIG, self._record())
        weights = {key: value.detach().cpu().clone() for key, value in self.net.state_dict().items()}
        save_file(weights, folder / _WEIGHTS)
        size = sum(parameter.numel() for parameter in self.net.parameters())
        widths = {"word_dim": self.net.word_dim, "coordinate_dim": self.net.coordinate_dim}
        card = _CARD.format(net=type(self.net).__name__, size=size, name=name, **widths)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def _record(self) -> dict[str, Any]:
        return make_record(self.net, self.training_fingerprint, self.copied, self.max_words, self.words)

    def validate(
        self, bundle: Bundle | str | Path, text: str | Path | Sequence[str | Path] | None = None, **options: Any
    ) -> dict[str, float]:
        """Measure it on held-out source tokens and, where there is text, on held-out sentences of it.

        Args:
            bundle: what it was trained on, or another bundle of the same vectors and source model.
            text: files of source-language sentences, one a line; those of training have the same ones held out.
            options: of `HyperDataModule`, and of `HyperModule` where a loss is to be measured as it was trained.

        Returns:
            `val/token_loss`, `val/mrr`, `val/translated_mrr` and others, by name.
        """
        return self._measure("validate", bundle, text, options)

    def test(self, bundle: Bundle | str | Path, **options: Any) -> dict[str, float]:
        """Measure it on the test tokens: the same for every method on the bundle.

        Args:
            bundle: as for `validate`.
            options: likewise.

        Returns:
            `test/mrr`, `test/cosine` and others, by name.
        """
        return self._measure("test", bundle, None, options)

    def _measure(
        self,
        stage: Literal["validate", "test"],
        bundle: Bundle | str | Path,
        text: str | Path | Sequence[str | Path] | None,
        options: dict[str, Any],
    ) -> dict[str, float]:
        opened = Bundle.load(bundle)
        self.check(opened)
        of_data, of_module = split_options(options)
        settings = {"copied": self.copied, "max_words": self.max_words, "words": self.words, **of_data}
        data = HyperDataModule(opened, file_names(text), **settings)
        module = HyperModule(data.word_dim, data.coordinate_dim, net=lambda *_: self.net, **of_module)
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"), False)
        trainer = lightning.Trainer(devices=1, use_distributed_sampler=False, **quiet)  # type: ignore[arg-type]
        run = trainer.validate if stage == "validate" else trainer.test
        found = run(module, datamodule=data, verbose=False)
        self.net.cpu().eval()
        return {name: value for stream in found for name, value in stream.items()}


def trained_on(bundle: Bundle, hypernetwork: str | Path | Hypernetwork) -> Hypernetwork:
    """A hypernetwork that fits a bundle.

    Args:
        bundle: what it will be used on.
        hypernetwork: a trained one, or its checkpoint.

    Raises:
        InputError: as `Hypernetwork.load`.
    """
    if not isinstance(hypernetwork, Hypernetwork):
        return Hypernetwork.load(hypernetwork, bundle)
    hypernetwork.check(bundle)
    return hypernetwork


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options by whose they are.

    Args:
        options: arguments of `HyperDataModule` and `HyperModule`, none of which have the same name.

    Returns:
        Those of the data, and those of the module.

    Raises:
        InputError: a name that neither takes.
    """
    of_data, of_module = (set(inspect.signature(kind).parameters) - _OWN for kind in (HyperDataModule, HyperModule))
    for name in options:
        if name not in of_data | of_module:
            raise InputError(
                f"{name}: expected an option of data or model, found neither{_hint(name, of_data | of_module)}"
            )
    return (
        {name: value for name, value in options.items() if name in of_data},
        {name: value for name, value in options.items() if name not in of_data},
    )


def _hint(name: str, known: set[str]) -> str:
    """What somebody may have meant by an option that there is not."""
    if name in ("data", "model"):
        return "; give its options by their names: steps=50, learning_rate=1e-3"
    if name in inspect.signature(lightning.Trainer).parameters:
        return f"; for the Trainer's, give trainer={{{name!r}: …}}"
    return did_you_mean(name, sorted(known))


def file_names(files: str | Path | Sequence[str | Path] | None) -> list[str]:
    """Names of one file, several, or none."""
    if files is None:
        return []
    return [str(files)] if isinstance(files, str | Path) else [str(file) for file in files]
