"""Is a model folder what was exported? Hashes of its files, and of each row of its vocabulary.

manifest.json    how the folder was made, the SHA-256 of every other file in it, and, as `content`, that of all this
rows.npy         (R, C) uint64, a digest of each input row, of each output row where the head is untied, of each bias

The manifest is not signed: alone, it tells damage and edits, but not forgery by someone who writes all of its hashes
anew. `content` is what `verify` prints: kept elsewhere (in a paper, say), and given as `--digest`, it tells that too.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from hyperofa.errors import InputError
from hyperofa.models.factorised import read_rows
from hyperofa.models.loading import load_model
from hyperofa.models.vocabulary import Vocabulary
from hyperofa.runtime.files import FilePath
from hyperofa.runtime.folders import remove_partials, sha256_file, write_json
from hyperofa.runtime.hashing import sha256_text
from hyperofa.runtime.marks import MARK
from hyperofa.runtime.records import open_array, read_record
from hyperofa.runtime.versions import versions
from hyperofa.tokens.canonical import load_tokenizer

MANIFEST, ROWS, PROVENANCE = "manifest.json", "rows.npy", "provenance.tsv"
_WEIGHTS = (".safetensors", ".bin", ".index.json")
_SHOWN = 20
_KIND = {"files": dict[str, str], "rows": list[str], "counts": dict[str, int] | None}  # what `verify` reads of it


def seal(folder: Path, model: PreTrainedModel, record: dict[str, Any]) -> None:
    """Write the manifest of a finished folder, and the digests of its rows; take away what kills left half-written.

    Args:
        folder: all other files are written.
        model: as it was saved there.
        record: what else the manifest tells; `counts`, rows by origin, is checked against provenance.tsv.
    """
    digests = row_digests(read_rows(model))
    np.save(folder / ROWS, np.stack(list(digests.values()), axis=1))
    remove_partials(folder)
    files = {name: sha256_file(folder / name) for name in _files(folder)}
    told = record | {"versions": versions(), "rows": list(digests), "files": files}
    write_json(folder / MANIFEST, told | {"content": _content(told)})


def _content(manifest: dict[str, Any]) -> str:
    """Hex SHA-256 of all that a manifest says, however it is laid out."""
    told = {name: value for name, value in manifest.items() if name != "content"}
    as_read = json.loads(json.dumps(told))  # tuples are lists there, and keys strings
    return sha256_text(json.dumps(as_read, sort_keys=True, ensure_ascii=False))


def row_digests(vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Digests `(R,)` uint64 of what a model holds for each token: `input`, untied `output`, `bias`."""
    parts = {"input": vocabulary.input_rows}
    if vocabulary.output_rows is not None and not vocabulary.tied:
        parts["output"] = vocabulary.output_rows
    if vocabulary.bias is not None:
        parts["bias"] = vocabulary.bias
    return {name: _digests(rows) for name, rows in parts.items()}


def _digests(rows: np.ndarray) -> np.ndarray:
    data, width = np.ascontiguousarray(rows).data.cast("B"), rows[0].nbytes
    parts = (data[start : start + width] for start in range(0, len(data), width))
    return np.frombuffer(b"".join(blake2b(part, digest_size=8).digest() for part in parts), np.uint64)


def _files(folder: Path) -> list[str]:
    """Names of all that is in a folder and below, links too, but the manifest and the mark."""
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    found = sorted(path.relative_to(folder).as_posix() for path in paths)
    return [name for name in found if name not in (MANIFEST, MARK)]


@dataclass(frozen=True)
class Verification:
    """What differs between a folder and its manifest.

    Attributes:
        path: the folder.
        files: how many the manifest names.
        digest: hex SHA-256 of what the manifest says.
        problems: one line each.
    """

    path: Path
    files: int
    digest: str
    problems: list[str]

    @property
    def intact(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def summary(self) -> str:
        """What `hyperofa verify` prints."""
        if self.intact:
            return f"{self.path}: intact, {self.files} files; digest {self.digest}"
        return "\n".join([f"{self.path}: differs from its manifest", *(f"  {problem}" for problem in self.problems)])


def verify(model: FilePath, ignore: list[str] | None = None, digest: str | None = None) -> Verification:
    """Say which files and which rows of an exported folder were changed since; exit code 1 if any.

    Without --digest, a folder whose manifest was forged along with its files passes for intact.

    Args:
        model: folder written by `hyperofa export` or `trim`; `hyperofa verify DIR` will do.
        ignore: files that may differ, such as a README.md whose open fields were filled in.
        digest: what an earlier `verify` printed and you kept elsewhere: the folder must be the very same.

    Returns:
        The differences.

    Raises:
        InputError: no manifest there, or a broken one (exit code 2).

    Example:
        >>> import hyperofa
        >>> hyperofa.verify("model").intact
        True
    """
    model = Path(model)
    if not model.is_dir():
        raise InputError(f"--model {model}: expected a model folder, found none")
    manifest = read_record(model / MANIFEST, _KIND, "the manifest of `hyperofa export`")
    files = manifest["files"]
    ignored, present = set(ignore or []), set(_files(model))
    if unknown := sorted(ignored - set(files) - present):
        raise InputError(f"--ignore {unknown[0]}: expected a file of {model}, found none of that name")
    changed = [name for name in sorted(files) if name in present and _hash(model / name) != files[name]]
    content = _content(manifest)
    problems = [] if content == manifest.get("content") else [f"{MANIFEST}: changed, or of an earlier version"]
    if digest is not None and digest != content:
        problems.append(f"{MANIFEST}: expected the digest {digest}, found {content}")
    problems += [f"{name}: missing" for name in sorted(set(files) - present - ignored)]
    problems += [f"{name}: changed" for name in changed if name not in ignored and not name.endswith(_WEIGHTS)]
    problems += [f"{name}: not in the manifest" for name in sorted(present - set(files) - ignored)]
    weights = [name for name in changed if name not in ignored and name.endswith(_WEIGHTS)]
    if weights:
        rows = list(_changed_rows(model, manifest["rows"], ROWS in changed))
        rows = rows or ["though no row of the vocabulary is: what changed is another part of the model"]
        problems += [f"{', '.join(weights)}: changed, {row}" for row in rows]
    elif {ROWS, "config.json"} <= present - set(changed):
        rows = list(_changed_rows(model, manifest["rows"], damaged=False))
        problems += [f"{ROWS}: of other weights than those here, {row}" for row in rows]
    if PROVENANCE in present:
        problems += _changed_counts(model / PROVENANCE, manifest.get("counts"))
    return Verification(model, len(files), content, problems)


def _hash(path: Path) -> str | None:
    """SHA-256 of a file; `None` for what is no file, or a link to nothing."""
    return sha256_file(path) if path.is_file() else None


def _changed_rows(folder: Path, columns: list[str], damaged: bool) -> Iterator[str]:
    """Which rows of a model are not those that were written."""
    try:
        recorded = None if damaged else open_array(folder / ROWS)
        found = row_digests(read_rows(load_model(folder, "--model")))
    except InputError as error:
        yield f"and its rows cannot be read; {' '.join(str(error).split())}"
        return
    if recorded is None:
        yield f"in which rows is unknown, since {ROWS} is changed too"
    elif list(found) != columns or recorded.shape != (len(found["input"]), len(columns)):
        count = recorded.shape[0] if recorded.ndim else 0
        yield f"expected {count} rows of {', '.join(columns)}, found {len(found['input'])} of {', '.join(found)}"
    else:
        differing = {name: np.flatnonzero(recorded[:, column] != found[name]) for column, name in enumerate(columns)}
        names = _token_names(folder, len(recorded)) if any(ids.size for ids in differing.values()) else []
        for name, ids in differing.items():
            if ids.size:
                shown = ", ".join(f"{token_id} {names[token_id]}".rstrip() for token_id in ids[:_SHOWN].tolist())
                more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
                yield f"{len(ids):,} {name} rows: {shown}{more}"


def _token_names(folder: Path, rows: int) -> list[str]:
    try:
        vocabulary = load_tokenizer(folder, "--model").get_vocab()
    except InputError:
        vocabulary = {}
    names = {token_id: f"({content!r})" for content, token_id in vocabulary.items()}
    return [names.get(token_id, "") for token_id in range(rows)]


def _changed_counts(path: Path, counts: dict[str, int] | None) -> list[str]:
    """Whether the origins in the table are as many as the manifest says."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = Counter(row["origin"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL))
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        return [f"{path.name}: expected a table with a column `origin`; {error}"]
    expected = {origin: count for origin, count in (counts or {}).items() if count}
    if dict(found) == expected:
        return []
    return [
        f"{path.name}: expected {expected.get(origin, 0):,} {origin} rows, found {found.get(origin, 0):,}"
        for origin in sorted({*expected, *found}, key=str)
        if expected.get(origin, 0) != found.get(origin, 0)
    ]
