"""A damaged bundle is a user's mistake, told in one line, whatever is wrong with it."""

import json
import shutil

import numpy as np
import pytest

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.methods.baselines import ofa
from hyperofa.methods.fallbacks import target_inputs

ARRAYS = ["coordinates.npy", "language_means.npy", "primitives_input.npy", "overlap.npz", "split.npz"]
ARRAYS += [f"{side}/{name}.npy" for side in ("source", "target") for name in ("indptr", "words", "share", "pooled")]
PARTS = [*ARRAYS, "meta.json", "words/meta.json", "words/words.bin", "source/tokenizer/tokenizer.json"]


@pytest.fixture
def folder(bundles, tmp_path):
    return shutil.copytree(bundles["bert"], tmp_path / "bundle")


def use(folder):
    """Read all that training and exports read."""
    bundle = Bundle.load(folder)
    list(bundle.words.words)
    for side in ("source", "target"):
        bundle.tokens(side)
        bundle.matches(side).weights(bundle.words.ranks)
    bundle.rows(bundle.coordinates)
    return ofa(target_inputs(bundle))


def refused(folder):
    with pytest.raises(InputError) as error:
        use(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_whole_bundle_is_used(folder):
    assert use(folder).known.any()


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "junk"])
def test_a_part_that_is_damaged(folder, name, damage):
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage != "gone":
        (folder / name).write_bytes({"cut": content[:-30], "empty": b"", "junk": b"junk\xff" * 100}[damage])
    assert str(folder) in refused(folder)


@pytest.mark.parametrize(("name", "change", "message"), [
    ("coordinates.npy", lambda rows: np.where(rows == rows[3], np.nan, rows), "expected finite numbers"),
    ("coordinates.npy", lambda rows: rows[:-1], r"expected \(200, 24\) float32, found \(199, 24\)"),
    ("coordinates.npy", lambda rows: rows.astype(np.float64), "found .* float64"),
    ("primitives_input.npy", lambda rows: np.full_like(rows, np.inf), "expected finite numbers"),
    ("language_means.npy", lambda rows: rows[:, :-1], r"language_means\.npy: expected \(2, 12\)"),
    ("source/pooled.npy", lambda rows: rows[0], r"source/pooled\.npy: expected \(200, 12\)"),
    ("source/indptr.npy", lambda numbers: numbers[:-1], "one entry more than its 200 tokens"),
    ("target/indptr.npy", lambda numbers: numbers[::-1], "expected ascending numbers from 0 to"),
    ("target/words.npy", lambda ids: ids - 1, "expected matches of its 145 words"),
    ("target/words.npy", lambda ids: ids + 140, "expected matches of its 145 words"),
    ("target/share.npy", lambda shares: shares * np.nan, "expected shares above 0, up to 1"),
])  # fmt: skip
def test_arrays_that_do_not_fit(folder, name, change, message):
    array = np.load(folder / name)
    np.save(folder / name, change(array))
    with pytest.raises(InputError, match=message):
        use(folder)


@pytest.mark.parametrize(("name", "part", "value", "message"), [
    ("overlap.npz", "source_ids", -1, r"overlap\.npz: expected ids from 0 to 199"),
    ("overlap.npz", "target_ids", 10**6, r"overlap\.npz: expected ids from 0 to 166"),
    ("overlap.npz", "kinds", 9, r"overlap\.npz: expected ids from 0 to 3"),
    ("split.npz", "train", -3, r"split\.npz: expected ids from 0 to 199"),
    ("split.npz", "val", 200, r"split\.npz: expected ids from 0 to 199"),
])  # fmt: skip
def test_ids_beyond_the_vocabularies(folder, name, part, value, message):
    parts = dict(np.load(folder / name))
    parts[part][0] = value
    np.savez(folder / name, **parts)
    with pytest.raises(InputError, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize(("name", "value"), [
    ("word_dim", "12"), ("source_tokens", -1), ("counts", None), ("source_languages", [1]), ("explained", "all"),
    ("input_dim", 0), ("versions", {"numpy": 2}), ("reference", "no"),
])  # fmt: skip
def test_settings_of_the_wrong_kind(folder, name, value):
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, name: value}))
    assert "meta.json" in refused(folder)


def test_words_that_are_not_utf_8(folder):
    words = (folder / "words" / "words.bin").read_bytes()
    (folder / "words" / "words.bin").write_bytes(b"\xff" * len(words))
    assert "words.bin: expected UTF-8" in refused(folder)
