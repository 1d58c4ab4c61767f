"""What makes a model a sentence-transformers model: how its token vectors become one vector of a sentence.

`modules.json` lists the steps after the transformer (pooling, normalising, …), each a folder of its own. A new
vocabulary changes none of them, so they go along with the model, and `SentenceTransformer(folder)` loads it.
"""

import json
import re
import shutil
import warnings
from pathlib import Path

from hyperofa.runtime.hub import find_file

MODULES = "modules.json"
_SETTINGS = ("config_sentence_transformers.json", "sentence_bert_config.json")
_WEIGHTS = "model.safetensors"
_NAME = re.compile(r"[\w-]+")  # a folder beside modules.json, nowhere else


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
