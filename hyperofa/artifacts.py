"""Folders that are whole or absent: atomic writing, content hashes, JSON, versions."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hyperofa.errors import InputError

_PACKAGES = ("hyperofa", "torch", "lightning", "transformers", "tokenizers", "torchmetrics", "numpy", "scipy")


@contextmanager
def new_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place once the block has ended without an error.

    Args:
        path: folder to create; its parents are made.
        overwrite: replace a folder that is already there; it stays until the new one is whole.

    Raises:
        InputError: `path` exists and `overwrite` is false, or it is a file.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a folder to write to, found a file; give another --output")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path} already exists and is not empty; give another --output, or --overwrite true")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        if path.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.retired-", dir=path.parent))
            path.rename(retired / path.name)
            partial.rename(path)
            shutil.rmtree(retired)
        else:
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(*parts: str) -> str:
    """Hex SHA-256 of strings, kept apart so that no two lists of parts share a digest."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write sorted, indented JSON, so that equal values give equal bytes."""
    Path(path).write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: expected a JSON file here, found none; is the folder complete?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON, found something else ({error})") from None


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result, by name."""
    found = {}
    for package in (*_PACKAGES, "faiss-cpu", "faiss-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
