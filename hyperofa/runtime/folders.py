"""Folders that are whole or absent: atomic writing, picked up after a kill; content hashes, JSON, versions."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hyperofa.errors import InputError
from hyperofa.runtime.locks import try_lock
from hyperofa.runtime.processes import SINGLE_PROCESS, ProcessGroup

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
    _check_free(path, overwrite)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        _take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumed_folder(
    path: str | Path, key: str, overwrite: bool = False, group: ProcessGroup = SINGLE_PROCESS
) -> Iterator[Path]:
    """Like `new_folder`, but a killed process leaves its temporary folder to the next one that does the same work.

    What the block finds in the folder is what an earlier process wrote there, perhaps not to its end: a part counts
    only if it was renamed into its place. All processes of a job get the same folder, and leave it together.

    Args:
        path: folder to create; its parents are made.
        key: of all that decides the content; what another key left behind is removed.
        overwrite: replace a folder that is already there; it stays until the new one is whole.
        group: the processes of the job.

    Raises:
        InputError: as `new_folder`, or another job is writing there at this moment.
    """
    path = Path(path)
    partial = path.parent / f".{path.name}.partial-{key[:16]}"
    with ExitStack() as stack:
        if group.first:
            _check_free(path, overwrite)
            stack.enter_context(_only_writer(path))
            for left in path.parent.glob(f".{path.name}.partial-*"):
                if left != partial:
                    shutil.rmtree(left, ignore_errors=True)
            partial.mkdir(exist_ok=True)
        group.wait()
        try:
            yield partial
            group.wait()
            if group.first:
                _take_place(partial, path)
            group.wait()
        except Exception:  # a kill or Ctrl-C leaves it to be gone on with
            if group.first:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _check_free(path: Path, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise InputError(f"{path}: expected a folder to write to, found a file; give another --output")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise InputError(f"{path} already exists and is not empty; give another --output, or --overwrite true")
    path.parent.mkdir(parents=True, exist_ok=True)


def _take_place(partial: Path, path: Path) -> None:
    """Rename; what was there is removed after it."""
    if path.exists():
        retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.retired-", dir=path.parent))
        path.rename(retired / path.name)
    partial.rename(path)
    for retired in path.parent.glob(f".{path.name}.retired-*"):
        shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Hold a lock file beside `path`; the system frees it when the process ends, however it ends."""
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("w") as file:
        if not try_lock(file):
            raise InputError(f"{path}: another process is writing there; wait for it, or give another --output")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*paths: str | Path) -> str:
    """Hash of where files lie, how long they are and when they last changed; of folders, all files below.

    Cheap, to know unchanged input again; what is not there (a name on the hub) counts by its name.
    """
    files = (path for each in paths for path in ([each] if not Path(each).is_dir() else sorted(Path(each).rglob("*"))))
    states = ((Path(path), Path(path).stat() if Path(path).exists() else None) for path in files)
    return sha256_text(*(f"{path.absolute()} {state and (state.st_size, state.st_mtime_ns)}" for path, state in states))


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
