"""A model that somebody names: a folder, a hub id, or a model with its tokenizer in memory."""

import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.models.sentence_modules import copy_modules
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.hub import find_file
from hyperofa.tokens.canonical import load_tokenizer

if TYPE_CHECKING:
    ModelLike = str | Path | tuple[PreTrainedModel, PreTrainedTokenizerBase]
    """A folder, a hub id, or `(model, tokenizer)`."""
    TokenizerLike = str | Path | PreTrainedTokenizerBase
else:  # what a command line can give, which reads these types
    ModelLike = TokenizerLike = str


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A model to be read as often as it is needed, and left as it is.

    Attributes:
        name: folder or hub id; of a model in memory where it came from, else its class.
        in_memory: the model and its tokenizer, if they are.
        flag: command-line flag named in errors.
    """

    name: str
    in_memory: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
    flag: str = "--source_model"

    @property
    def has_home(self) -> bool:
        """Whether its name is that of a folder or a hub id."""
        return self.in_memory is None or bool(self.in_memory[0].name_or_path)

    def load(self) -> PreTrainedModel:
        """The model, the caller's to change, in evaluation mode.

        Raises:
            InputError: no model there.
        """
        return load_model(self.name, self.flag) if self.in_memory is None else deepcopy(self.in_memory[0]).eval()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, the caller's to change.

        Raises:
            InputError: no tokenizer there.
        """
        return load_tokenizer(self.name, self.flag) if self.in_memory is None else own_tokenizer(self.in_memory[1])

    def copy_company(self, folder: Path) -> None:
        """Put beside a model from memory what stays behind when one is loaded: its card, its sentence-vector modules.

        Args:
            folder: where it was saved.
        """
        if self.in_memory is not None and self.has_home:
            copy_modules(self.name, folder)
            card = find_file(self.name, "README.md")
            if card is not None:
                shutil.copyfile(card, folder / card.name)


def source_of(model: ModelLike, flag: str = "--source_model") -> SourceModel:
    """What a user gave as a model.

    Args:
        model: folder, hub id, or `(model, tokenizer)`.
        flag: command-line flag named in errors.

    Raises:
        InputError: something else.
    """
    if isinstance(model, str | Path):
        return SourceModel(str(model), flag=flag)
    kinds = PreTrainedModel, PreTrainedTokenizerBase
    if not isinstance(model, tuple) or len(model) != 2 or not all(map(isinstance, model, kinds)):
        raise InputError(f"{flag}: expected a folder, a hub id or (model, tokenizer), found {_kind(model)}")
    return SourceModel(model[0].name_or_path or type(model[0]).__name__, model, flag)


@dataclass(frozen=True, eq=False)
class GivenTokenizer:
    """A tokenizer that somebody names: a folder, a hub id, or one in memory.

    Attributes:
        name: folder or hub id; of one in memory where it came from, else its class.
        in_memory: the tokenizer, if it is.
        flag: command-line flag named in errors.
    """

    name: str
    in_memory: PreTrainedTokenizerBase | None = None
    flag: str = "--target_tokenizer"

    def load(self) -> PreTrainedTokenizerBase:
        """The tokenizer, the caller's to change.

        Raises:
            InputError: no tokenizer there.
        """
        return load_tokenizer(self.name, self.flag) if self.in_memory is None else own_tokenizer(self.in_memory)


def tokenizer_of(tokenizer: TokenizerLike, flag: str = "--target_tokenizer") -> GivenTokenizer:
    """What a user gave as a tokenizer.

    Args:
        tokenizer: folder, hub id, or tokenizer.
        flag: command-line flag named in errors.

    Raises:
        InputError: something else.
    """
    if isinstance(tokenizer, str | Path):
        return GivenTokenizer(str(tokenizer), flag=flag)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise InputError(f"{flag}: expected a folder, a hub id or a tokenizer, found {_kind(tokenizer)}")
    return GivenTokenizer(tokenizer.name_or_path or type(tokenizer).__name__, tokenizer, flag)


def content_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that a tokenizer does: of its Rust state, or else of its vocabulary."""
    backend = getattr(own_tokenizer(tokenizer), "backend_tokenizer", None)
    return sha256_text(str(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str())


def own_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer that cuts and pads nothing, as calls may have left it."""
    copied = deepcopy(tokenizer)
    backend = getattr(copied, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return copied


def _kind(value: Any) -> str:
    return f"({', '.join(type(each).__name__ for each in value)})" if isinstance(value, tuple) else type(value).__name__
