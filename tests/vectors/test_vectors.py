"""The store, conversion into it, centring, alignment and nearest neighbours."""

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperofa.errors import InputError
from hyperofa.runtime.devices import has_fast_bytes
from hyperofa.vectors.alignment import align
from hyperofa.vectors.centring import centred, language_means
from hyperofa.vectors.conversion import convert_vectors
from hyperofa.vectors.neighbours import nearest
from hyperofa.vectors.store import WordList, WordVectors

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "words.vec"
WORD = st.text(st.characters(exclude_characters=" \n", exclude_categories=["Cs"]), min_size=1, max_size=8)


def write_vec(path, words, vectors):
    numbers = np.asarray(vectors).tolist()
    rows = [" ".join([word, *map(str, vector)]) for word, vector in zip(words, numbers, strict=True)]
    path.write_bytes("\n".join([f"{len(words)} {len(vectors[0])}", *rows, ""]).encode())
    return str(path)


def convert(folder, words, vectors=None, **options):
    vectors = np.arange(1, 1 + len(words))[:, None] if vectors is None else vectors
    return convert_vectors([write_vec(folder / "in.vec", words, vectors)], folder / "store", **options)


@given(words=st.lists(WORD, unique=True, min_size=1, max_size=20), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_words_and_numbers_survive(tmp_path_factory, words, data):
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    vectors = data.draw(hnp.arrays(np.float32, (len(words), 3), elements=finite))
    store = convert(tmp_path_factory.mktemp("any"), words, vectors, spelling="plain")
    assert list(store.words) == words
    np.testing.assert_array_equal(store.vectors, vectors)


def test_numbers_are_parsed_as_python_does(tmp_path):
    texts = ["-0.0001", "1e-3", "+.5", "3.4028234e38", "1.17549435e-38", "1e-45", "0.1234567890123456789", "-7"]
    (tmp_path / "a.vec").write_text(f"1 {len(texts)}\na {' '.join(texts)} \n")
    store = convert_vectors([str(tmp_path / "a.vec")], tmp_path / "store")
    np.testing.assert_array_equal(store.vectors[0], np.array([float(text) for text in texts], np.float32))


@given(words=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20), data=st.data())
@settings(deadline=None)
def test_word_list_is_a_sequence(words, data):
    packed = WordList.of(words)
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
    store = convert(tmp_path, ["haus", "$5", *(f"w{i}" for i in range(20))], default_language="deu")
    assert store.languages == ("deu",)
    assert store.words[:2] == ["haus", "$5"]
    assert set(store.boundaries.tolist()) == {3}


def test_language_of_a_word_wins_over_that_of_its_file(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["haus", "eng:house"], [[1.0], [2.0]])
    b = write_vec(tmp_path / "b.vec", ["maison", "haus"], [[3.0], [4.0]])
    store = convert_vectors([f"deu={a}", b], tmp_path / "store", default_language="fra")
    languages = [store.languages[i] for i in store.language_ids]
    assert list(zip(languages, store.words, store.ranks.tolist(), strict=True)) == [
        ("deu", "haus", 0), ("eng", "house", 0), ("fra", "maison", 0), ("fra", "haus", 1),
    ]  # fmt: skip
    assert [source["words"] for source in store.sources] == [2, 2]
    unknown = convert_vectors([b], tmp_path / "unknown")
    assert unknown.languages == ("",)
    assert convert_vectors([f"fra={tmp_path / 'unknown'}"], tmp_path / "known").languages == ("fra",)
    with pytest.raises(InputError, match=r"language 'fra' .* expected some of: '' \(unknown\)"):
        unknown.select(["fra"])


def test_ranks_continue_from_file_to_file(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["eng:a", "deu:b", "eng:c"], [[1.0]] * 3)
    b = write_vec(tmp_path / "b.vec", ["deu:d", "eng:e"], [[1.0]] * 2)
    store = convert_vectors([a, b], tmp_path / "store")
    assert store.ranks.tolist() == [0, 0, 1, 1, 2]


def test_widths_must_agree(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["a"], [[1.0]])
    b = write_vec(tmp_path / "b.vec", ["b"], [[1.0, 2.0]])
    with pytest.raises(InputError, match=r"b\.vec: expected vectors 1 wide as in .*a\.vec, found 2"):
        convert_vectors([a, b], tmp_path / "store")
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
        convert_vectors([a, b], tmp_path / "store")
    store = convert_vectors([a, b], tmp_path / "store", duplicates="first")
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


def test_max_words_takes_the_first_of_each_file(tmp_path):
    a = write_vec(tmp_path / "a.vec", ["a", "b", "c"], [[1.0]] * 3)
    b = write_vec(tmp_path / "b.vec", ["d"], [[1.0]])
    assert list(convert_vectors([a, b], tmp_path / "store", max_words=2).words) == ["a", "b", "d"]


def test_equal_input_gives_equal_bytes_and_other_input_another_hash(tmp_path):
    path = write_vec(tmp_path / "a.vec", ["eng:a", "deu:b"], [[1.0], [2.0]])
    stores = [convert_vectors([path], tmp_path / name) for name in "xy"]
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
        hashes.add(convert_vectors([write_vec(tmp_path / "o.vec", words, vectors)], tmp_path / str(i)).content_hash)
    assert len(hashes) == 1 + len(others)


def test_store_is_not_overwritten_without_a_flag(tmp_path):
    convert(tmp_path, ["a"])
    with pytest.raises(InputError, match=r"already exists.*--overwrite true"):
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


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference code's golden values are not in this repository")
def test_golden_words_have_the_published_spelling(tmp_path):
    store = convert_vectors([str(GOLDEN)], tmp_path / "store")
    assert store.languages == ("deu", "eng", "rus", "swh")
    assert np.bincount(store.language_ids).tolist() == [400, 900, 400, 300]
    assert np.bincount(store.boundaries).tolist() == [666, 666, 0, 668]
    assert store.words[:3] == ["and", "the", "of"]
    assert store.vectors.shape == (2000, 16)


# Centring and alignment.


def test_language_means_and_centring():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40_000, 5)).astype(np.float16)
    vectors[::7] = 0
    ids = rng.integers(0, 3, len(vectors)).astype(np.int16)
    wide = vectors.astype(np.float64)
    units = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-9)
    means = language_means(vectors, ids, 4)
    for language in range(3):
        members = units[(ids == language) & wide.any(1)]
        np.testing.assert_allclose(means[language], members.mean(0), atol=1e-6)
    np.testing.assert_array_equal(means[3], 0)
    block = centred(vectors[:100], ids[:100], means)
    assert block.dtype == means.dtype == np.float32
    expected = np.where(wide[:100].any(1)[:, None], units[:100] - means[ids[:100]], 0)
    np.testing.assert_allclose(block, expected, atol=1e-6)


def test_alignment_recovers_a_rotation():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(50, 8))
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    order = rng.permutation(50)
    target = (source @ rotation)[order] * rng.uniform(0.5, 2, (50, 1))
    found = align(source, target, np.stack([order[:20], np.arange(20)], 1))
    np.testing.assert_allclose(found, rotation, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-5)
    with pytest.raises(InputError, match="expected pairs of vectors of one width, found 0 pairs, 8 and 8 wide"):
        align(source, target, np.empty((0, 2), int))


# Nearest neighbours.


def brute_force(queries, keys, k, metric, valid):
    """All scores in double precision, ordered by score, then id."""
    queries, keys = np.asarray(queries, np.float64), np.asarray(keys, np.float64)
    ids = np.flatnonzero(keys.any(1) & valid)
    if metric == "cosine":
        queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
        keys = keys / np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), 1e-30)
    scores = (queries[:, None] * keys[ids]).sum(-1)
    order = np.argsort(-scores.round(6), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), ids[order]


@pytest.fixture(params=["faiss", "screen"], scope="module")
def searched(request):
    """Each way of searching on a CPU, whatever the number of keys."""
    if request.param == "screen" and not has_fast_bytes():
        pytest.skip("the CPU has no instructions for products of bytes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hyperofa.vectors.neighbours._SCREENED", 1 if request.param == "screen" else 2**62)
        yield


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_nearest_equals_brute_force_on_random_data(metric, dtype):
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(300, 16)).astype(dtype), rng.normal(size=(2000, 16)).astype(dtype)
    keys[::5] = 0
    valid = rng.random(2000) < 0.7
    scores, ids = nearest(queries, keys, 10, metric=metric, valid=valid)
    expected, expected_ids = brute_force(queries, keys, 10, metric, valid)
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ids, expected_ids)


@pytest.mark.usefixtures("searched")
@given(data=st.data(), metric=st.sampled_from(["cosine", "dot"]))
@settings(max_examples=150, deadline=None)
def test_nearest_equals_brute_force_on_ties(data, metric):
    count, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 3))
    few = st.sampled_from([0.0, 1.0, -1.0])
    keys = data.draw(hnp.arrays(np.float32, (count, width), elements=few))
    queries = data.draw(hnp.arrays(np.float32, (data.draw(st.integers(0, 4)), width), elements=few))
    valid = data.draw(hnp.arrays(bool, count))
    k = data.draw(st.integers(1, 70))
    scores, ids = nearest(queries, keys, k, metric=metric, valid=valid)
    expected, expected_ids = brute_force(queries, keys, k, metric, valid)
    assert scores.shape == ids.shape == (len(queries), min(k, (keys.any(1) & valid).sum()))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(ids, expected_ids)


@pytest.mark.usefixtures("searched")
def test_nearest_orders_equal_keys_by_id_wherever_they_lie():
    # A matrix product rounds equal rows differently by their place; more copies than candidates are fetched.
    rng = np.random.default_rng(0)
    prototypes = rng.normal(size=(3, 77)).astype(np.float32)
    kinds = rng.integers(0, 3, 500)
    _, ids = nearest(rng.normal(size=(50, 77)).astype(np.float32), prototypes[kinds], 20)
    for row in ids:
        assert row.tolist() == np.flatnonzero(kinds == kinds[row[0]])[:20].tolist()


@pytest.mark.usefixtures("searched")
def test_negative_neighbours_outrank_zero_rows():
    keys = np.array([[0, 0], [-1, -1], [0, 0], [-1, 0]], np.float32)
    scores, ids = nearest(np.array([[1, 0]], np.float32), keys, 4)
    assert ids.tolist() == [[1, 3]]
    np.testing.assert_allclose(scores, [[-(0.5**0.5), -1]], rtol=1e-6)


@pytest.mark.usefixtures("searched")
def test_nearest_without_keys_or_queries():
    some, none = np.ones((2, 3), np.float32), np.zeros((4, 3), np.float32)
    assert nearest(some, none, 5)[1].shape == (2, 0)
    assert nearest(some, some, 5, valid=np.zeros(2, bool))[0].shape == (2, 0)
    assert nearest(some[:0], some, 5)[1].shape == (0, 2)
    scores, ids = nearest(none[:1], some, 5)
    assert (scores.tolist(), ids.tolist()) == ([[0, 0]], [[0, 1]])


def test_approximate_search_finds_most_and_never_pads():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(50, 16))
    keys = (centres[rng.integers(0, 50, 5000)] + 0.2 * rng.normal(size=(5000, 16))).astype(np.float32)
    _, exact = nearest(keys[:200], keys, 10)
    scores, ids = nearest(keys[:200], keys, 10, approximate=True)
    shared = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, ids, strict=True)])
    assert shared > 0.9
    assert (np.diff(scores, axis=1) <= 0).all()
    _, many = nearest(keys[:5], keys, 4000, approximate=True)
    assert many.min() >= 0
    assert all(len(set(row)) == 4000 for row in many)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nearest_refuses_what_is_not_finite(bad):
    good, wrong = np.ones((5, 3), np.float32), np.ones((5, 3), np.float32)
    wrong[3, 1] = bad
    with pytest.raises(InputError, match="found NaN or inf in row 3 of the queries"):
        nearest(wrong, good, 2)
    with pytest.raises(InputError, match="found NaN or inf in row 3 of the keys"):
        nearest(good, wrong, 2)


def test_nearest_refuses_wrong_shapes_and_devices(monkeypatch):
    some = np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match=r"expected k ≥ 1 .* found k = 0"):
        nearest(some, some, 0)
    with pytest.raises(InputError, match=r"one width, found k = 1, \(2, 3\) and \(2, 2\)"):
        nearest(some, some[:, :2], 1)
    with pytest.raises(InputError, match=r"valid: expected \(2,\) bools, found \(3,\) bool"):
        nearest(some, some, 1, valid=np.ones(3, bool))
    faiss = pytest.importorskip("faiss")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(InputError, match="device cuda: faiss finds no GPU"):
        nearest(some, some, 1, device="cuda")


def test_gpu_takes_over_where_there_is_one_up_to_its_limit(monkeypatch):
    faiss = pytest.importorskip("faiss")
    asked = []

    class Gpu:
        def __init__(self, index):
            self._index = index

        def search(self, queries, fetch):
            assert fetch <= 2048
            asked.append(fetch)
            return self._index.search(queries, fetch)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, device, index: Gpu(index), raising=False)
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(3000, 4)).astype(np.float32)
    for k, on_gpu in ((5, True), (2500, False)):
        asked.clear()
        expected = nearest(queries, keys, k, device="cpu")
        assert not asked
        for device in ("auto", "cuda"):
            np.testing.assert_array_equal(nearest(queries, keys, k, device=device), expected)
        assert bool(asked) == on_gpu


def test_missing_faiss_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    some = np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match=r"faiss is not installed; run: pip install 'hyperofa\[cpu\]'"):
        nearest(some, some, 1)
