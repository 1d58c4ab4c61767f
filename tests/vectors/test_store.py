"""The store of word vectors, and conversion into it."""

import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperofa.errors import InputError
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.store import WordList, WordVectors
from tests.golden import WORDS

WORD = st.text(st.characters(exclude_characters=" \n", exclude_categories=["Cs"]), min_size=1, max_size=8)


def write_vec(path, words, vectors):
    numbers = np.asarray(vectors).tolist()
    rows = [" ".join([word, *map(str, vector)]) for word, vector in zip(words, numbers, strict=True)]
    path.write_bytes("\n".join([f"{len(words)} {len(vectors[0])}", *rows, ""]).encode())
    return str(path)


def convert(folder, words, vectors=None, **options):
    vectors = np.arange(1, 1 + len(words))[:, None] if vectors is None else vectors
    return build_store([write_vec(folder / "in.vec", words, vectors)], folder / "store", **options)


@given(words=st.lists(WORD, unique=True, min_size=1, max_size=20), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_words_and_numbers_survive(tmp_path_factory, words, data):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
    vectors = data.draw(hnp.arrays(np.float32, (len(words), 3), elements=finite))
    store = convert(tmp_path_factory.mktemp("any"), words, vectors, spelling="plain")
    assert list(store.words) == words
    np.testing.assert_array_equal(store.vectors, vectors)


def test_numbers_are_parsed_as_python_does(tmp_path):
    texts = ["-0.0001", "1e-3", "+.5", "3.4028234e38", "1.17549435e-38", "1e-45", "0.1234567890123456789", "-7"]
    (tmp_path / "a.vec").write_text(f"1 {len(texts)}\na {' '.join(texts)} \n")
    store = build_store([str(tmp_path / "a.vec")], tmp_path / "store")
    np.testing.assert_array_equal(store.vectors[0], np.array([float(text) for text in texts], np.float32))


@given(words=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20), data=st.data())
@settings(deadline=None)
def test_word_list_is_a_sequence(words, data):
    encoded = [word.encode("utf-8") for word in words]
    packed = WordList(b"".join(encoded), np.cumsum([0, *map(len, encoded)], dtype=np.int64))
    assert list(packed) == words == packed[:]
    assert len(packed) == len(words)
    start, stop, step = data.draw(st.slices(len(words))).indices(len(words))
    assert packed[start:stop:step] == words[start:stop:step]
    if words:
        rows = data.draw(st.lists(st.integers(-len(words), len(words) - 1)))
        assert packed[np.array(rows, int)] == packed[rows] == [words[row] for row in rows]
        assert packed[-1] == words[-1]
        assert packed[np.int64(0)] == words[0]
        assert packed[np.arange(len(words)) % 2 == 0] == words[::2]
    for row in (len(words), -len(words) - 1):
        with pytest.raises(IndexError):
            packed[row]
        with pytest.raises(IndexError):
            packed[[row]]


def test_languages_ranks_and_borders(tmp_path):
    store = convert(tmp_path, ["eng:$the$", "deu:$der", "eng:the", "swh:ya$", "deu:und", "eng:$a$"])
    assert list(store.words) == ["the", "der", "the", "ya", "und", "a"]
    assert store.languages == ("deu", "eng", "swh")
    assert store.language_ids.tolist() == [1, 0, 1, 2, 0, 1]
    assert store.ranks.tolist() == [0, 0, 1, 0, 1, 2]
    assert store.boundaries.tolist() == [3, 1, 0, 2, 0, 3]
    assert store.language_ids.dtype == np.int16
    assert store.ranks.dtype == np.int32
    assert store.boundaries.dtype == np.uint8
    assert store.select(["swh", "deu"]).tolist() == [1, 3, 4]
    assert store.language_ids_of(["swh", "deu"]).tolist() == [2, 0]
    with pytest.raises(InputError, match=r"language 'xyz' is not among .* expected some of: deu, eng, swh"):
        store.select(["eng", "xyz"])


def test_words_without_marks_are_whole_words(tmp_path):
    path = write_vec(tmp_path / "in.vec", ["haus", "$5", *(f"w{i}" for i in range(20))], [[1.0]] * 22)
    store = build_store([f"deu={path}"], tmp_path / "store")
    assert store.languages == ("deu",)
    assert store.words[:2] == ["haus", "$5"]
    assert set(store.boundaries.tolist()) == {3}


def test_language_of_a_word_wins_over_that_of_its_file(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["haus", "eng:house"], [[1.0], [2.0]])
    b = write_vec(tmp_path / "b.vec", ["maison", "haus"], [[3.0], [4.0]])
    store = build_store([f"deu={a}", f"fra={b}"], tmp_path / "store")
    languages = [store.languages[i] for i in store.language_ids]
    assert list(zip(languages, store.words, store.ranks.tolist(), strict=True)) == [
        ("deu", "haus", 0), ("eng", "house", 0), ("fra", "maison", 0), ("fra", "haus", 1),
    ]  # fmt: skip
    assert [source["words"] for source in store.sources] == [2, 2]
    unknown = build_store([b], tmp_path / "unknown")
    assert unknown.languages == ("",)
    assert build_store([f"fra={tmp_path / 'unknown'}"], tmp_path / "known").languages == ("fra",)
    with pytest.raises(InputError, match=r"language 'fra' .* expected some of: '' \(unknown\)"):
        unknown.select(["fra"])


def test_ranks_continue_from_file_to_file(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["eng:a", "deu:b", "eng:c"], [[1.0]] * 3)
    b = write_vec(tmp_path / "b.vec", ["deu:d", "eng:e"], [[1.0]] * 2)
    store = build_store([a, b], tmp_path / "store")
    assert store.ranks.tolist() == [0, 0, 1, 1, 2]


def test_widths_must_agree(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["a"], [[1.0]])
    b = write_vec(tmp_path / "b.vec", ["b"], [[1.0, 2.0]])
    with pytest.raises(InputError, match=r"b\.vec: expected vectors 1 wide as in .*a\.vec, found 2"):
        build_store([a, b], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_duplicates_are_of_one_language_and_borders(tmp_path):
    words = ["eng:$a$", "deu:$a$", "eng:$a", "eng:a"]
    assert len(convert(tmp_path, words)) == 4
    with pytest.raises(InputError, match=r"in\.vec, line 6: the word 'a' \(eng\) was already at .*in\.vec, line 4"):
        convert(tmp_path, [*words, "eng:$a"], overwrite=True)
    store = convert(tmp_path, [*words, "eng:$a", "eng:b", "eng:$a$"], duplicates="first", overwrite=True)
    assert list(store.words) == ["a", "a", "a", "a", "b"]
    assert store.vectors[:, 0].tolist() == [1, 2, 3, 4, 6]
    assert store.ranks.tolist() == [0, 0, 1, 2, 3]


def test_duplicates_across_files_and_blocks(tmp_path):
    words = [f"w{i}" for i in range(5000)]
    a = write_vec(tmp_path / "a.vec", words, np.ones((5000, 1)))
    b = write_vec(tmp_path / "b.vec", [*words[::-1], "new"], np.zeros((5001, 1)))
    with pytest.raises(InputError, match=r"b\.vec, line 2: the word 'w4999' was already at .*a\.vec, line 5001"):
        build_store([a, b], tmp_path / "store")
    store = build_store([a, b], tmp_path / "store", duplicates="first")
    assert list(store.words) == [*words, "new"]
    assert store.vectors.sum() == 5000
    assert [source["words"] for source in store.sources] == [5000, 1]


def test_half_precision(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    store = convert(tmp_path, list("abcde"), vectors, dtype="float16")
    assert store.vectors.dtype == np.float16
    np.testing.assert_array_equal(store.vectors, vectors.astype(np.float16))
    vectors[2, 1] = 1e5
    with pytest.raises(InputError, match=r"line 4: expected finite numbers, found a number too large for float16"):
        convert(tmp_path, list("abcde"), vectors, dtype="float16", overwrite=True)


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e-40), ("float16", 1e-6)])
def test_vectors_too_small_for_their_precision_are_refused(tmp_path, dtype, value):
    vectors = np.array([[1, 0], [value, value], [0, 0]])
    with pytest.raises(InputError, match=rf"line 3: expected numbers that {dtype} can hold, found none above"):
        convert(tmp_path, list("abc"), vectors, dtype=dtype)


def test_max_words_takes_the_first_of_each_file(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["a", "b", "c"], [[1.0]] * 3)
    b = write_vec(tmp_path / "b.vec", ["d"], [[1.0]])
    assert list(build_store([a, b], tmp_path / "store", max_words=2).words) == ["a", "b", "d"]


def test_equal_input_gives_equal_bytes_and_other_input_another_hash(tmp_path):
    path = write_vec(tmp_path / "a.vec", ["eng:a", "deu:b"], [[1.0], [2.0]])
    stores = [build_store([path], tmp_path / name) for name in "xy"]
    for file in os.listdir(tmp_path / "x"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()
    others = [
        (["eng:a", "deu:c"], [[1.0], [2.0]]),
        (["eng:a", "eng:b"], [[1.0], [2.0]]),
        (["eng:a", "fra:b"], [[1.0], [2.0]]),
        (["eng:$a", "deu:b"], [[1.0], [2.0]]),
        (["eng:a", "deu:b"], [[1.0], [3.0]]),
        (["deu:b", "eng:a"], [[2.0], [1.0]]),
    ]
    hashes = {stores[0].content_hash}
    for i, (words, vectors) in enumerate(others):
        hashes.add(build_store([write_vec(tmp_path / "o.vec", words, vectors)], tmp_path / str(i)).content_hash)
    assert len(hashes) == 1 + len(others)


def test_store_is_not_overwritten_without_a_flag(tmp_path):
    convert(tmp_path, ["a"])
    with pytest.raises(InputError, match=r"already exists.*overwrite=True"):
        convert(tmp_path, ["b"])
    assert WordVectors.load(tmp_path / "store").words[:] == ["a"]
    assert convert(tmp_path, ["b"], overwrite=True).words[:] == ["b"]


def test_store_maps_and_travels_to_other_processes(tmp_path):
    store = convert(tmp_path, ["eng:a", "eng:b"])
    assert WordVectors.is_store(tmp_path / "store")
    assert not store.vectors.flags.writeable
    copy = pickle.loads(pickle.dumps(store))
    assert copy.content_hash == store.content_hash
    assert len(pickle.dumps(store)) < 500
    assert repr(store).startswith("WordVectors(2 words of 1 languages, 1 wide")
    assert store.dim == 1


PARTS = ["words.bin", "offsets.npy", "language_ids.npy", "ranks.npy", "boundaries.npy", "vectors.npy"]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "junk"])
def test_damaged_store_is_refused(tmp_path, name, damage):
    folder = convert(tmp_path, ["eng:a", "eng:b"]).folder
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes({"cut": data[:-1], "empty": b"", "junk": b"junk" * 100}[damage])
    with pytest.raises(InputError, match="damaged store of word vectors, convert the files anew") as error:
        WordVectors.load(folder)
    assert "\n" not in str(error.value)


def test_store_parts_must_fit(tmp_path):
    folder = convert(tmp_path, ["eng:a", "eng:b"]).folder
    np.save(folder / "ranks.npy", np.zeros(3, np.int32))
    with pytest.raises(InputError, match=r"ranks\.npy is \(3,\) int32, expected \(2,\) int32"):
        WordVectors.load(folder)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({key: meta[key] for key in meta if key != "dim"}))
    with pytest.raises(InputError, match=r"damaged store.*dim"):
        WordVectors.load(folder)
    (folder / "meta.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected a store of word vectors \(version 1\), found none"):
        WordVectors.load(folder)
    with pytest.raises(InputError, match="expected a JSON file"):
        WordVectors.load(tmp_path)


def test_golden_words_have_the_published_spelling(tmp_path):
    store = build_store([str(WORDS)], tmp_path / "store")
    assert store.languages == ("deu", "eng", "rus", "swh")
    assert np.bincount(store.language_ids).tolist() == [400, 900, 400, 300]
    assert np.bincount(store.boundaries).tolist() == [666, 666, 0, 668]
    assert store.words[:3] == ["and", "the", "of"]
    assert store.vectors.shape == (2000, 16)
