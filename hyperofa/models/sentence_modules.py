"""What makes a model a sentence-transformers model: how its token vectors become one vector of a sentence.

`modules.json` lists the steps after the transformer (pooling, normalising, …), each a folder of its own. A new
vocabulary changes none of them, so they go along with the model, and `SentenceTransformer(folder)` loads it.
"""

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any, Literal

from hyperofa.errors import InputError
from hyperofa.runtime.hub import find_file

MODULES = "modules.json"
_SETTINGS = ("config_sentence_transformers.json", "sentence_bert_config.json")
_WEIGHTS = "model.safetensors"
_NAME = re.compile(r"[\w-]+")  # a folder beside modules.json, nowhere else
_POOLING = "Pooling"  # the class of a module, in whatever package of sentence-transformers
_MODES: dict[str, "Pooling"] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}

Pooling = Literal["mean", "cls"]
"""What of the last hidden states is a sentence's vector: their mean over all tokens, or that of the first token."""


def pooling_of(source: str, flag: str = "--source_model") -> Pooling:
    """How a model's sentence vectors are made, by its modules; by the mean where it has none.

    Args:
        source: folder or hub id of the model.
        flag: command-line flag named in errors.

    Raises:
        InputError: in another way, or modules that say no way.
    """
    listed = find_file(source, MODULES)
    if listed is None:
        return "mean"
    try:
        modules = {each["type"].rpartition(".")[2]: each["path"] for each in json.loads(listed.read_text("utf-8"))}
        settings: dict[str, Any] = {}
        if folder := modules.get(_POOLING):
            if not _NAME.fullmatch(folder):
                raise ValueError(f"{folder} is no folder beside it")
            config = find_file(source, f"{folder}/config.json")
            settings = {} if config is None else json.loads(config.read_text("utf-8"))
        asked = {name for name, on in settings.items() if name.startswith("pooling_mode") and on is True}
        named = settings.get("pooling_mode", "mean" if not asked else "")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{flag} {source}: expected modules of sentence-transformers in {MODULES}; {error}") from None
    for setting, pooling in _MODES.items():
        if asked == {setting} or named == pooling:
            return pooling
    raise InputError(
        f"{flag} {source}: expected sentence vectors that are the mean of all tokens or the first token (cls), found "
        f"{' '.join(sorted(asked)) or named}"
    )


def copy_modules(source: str, folder: Path) -> bool:
    """Copy the modules of a sentence-transformers model, JSON and safetensors alone.

    Args:
        source: folder or hub id of the model.
        folder: of the same model with another vocabulary; is there.

    Returns:
        Whether there were any. Those that are code of their own, or whose weights are a pickle, stay behind with a
        warning.
    """
    listed = find_file(source, MODULES)
    if listed is None:
        return False
    found: dict[str, Path] = {MODULES: listed}
    try:
        for module in json.loads(listed.read_text(encoding="utf-8")):
            found |= _files_of(source, module["type"], module["path"])
    except (KeyError, TypeError, ValueError) as error:
        warnings.warn(f"{source}: its sentence-transformers modules are left behind; {error}", stacklevel=2)
        return False
    found |= {name: path for name in _SETTINGS if (path := find_file(source, name)) is not None}
    for name, path in found.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)
    return True


def _files_of(source: str, kind: str, path: str) -> dict[str, Path]:
    """The files of one module by name; a step without settings has none.

    Raises:
        ValueError: it cannot be copied as data.
    """
    if path == "":  # the transformer itself
        return {}
    if not kind.startswith("sentence_transformers.") or not _NAME.fullmatch(path):
        raise ValueError(
            f"expected a module of sentence-transformers in a folder beside {MODULES}, found {kind} {path}"
        )
    names = f"{path}/config.json", f"{path}/{_WEIGHTS}"
    found = {name: there for name in names if (there := find_file(source, name)) is not None}
    if names[1] not in found and find_file(source, f"{path}/pytorch_model.bin") is not None:
        raise ValueError(f"expected {names[1]}, found a pickle")
    return found
