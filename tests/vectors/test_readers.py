"""Word-vector files: every format, and every way in which one can be bad."""

import gzip
import os
import re
import shutil
import struct

import numpy as np
import pytest

from hyperofa.errors import InputError
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_reader import Subwords
from hyperofa.vectors.readers import open_file
from hyperofa.vectors.spelling import Spelling, split_spec


def write_vec(path, words, vectors, end=" \n"):
    """FastText's text format, its space before the line's end included; repr of float32 loses nothing."""
    lines = [f"{len(words)} {len(vectors[0])}\n"]
    for word, vector in zip(words, vectors, strict=True):
        lines.append(" ".join([word, *(repr(float(x)) for x in vector)]) + end)
    path.write_bytes("".join(lines).encode())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A fastText model; eleven threads even for this little, because fewer leave a part of its input matrix undrawn."""
    import fasttext

    folder = tmp_path_factory.mktemp("fasttext")
    (folder / "text.txt").write_text("the house\u00a0door is größer than слово and the door\n" * 40, encoding="utf-8")
    trained = fasttext.train_unsupervised(
        str(folder / "text.txt"), dim=6, minCount=1, bucket=50, thread=11, epoch=2, verbose=0
    )
    trained.save_model(str(folder / "model.bin"))
    return folder / "model.bin"


@pytest.fixture(scope="module")
def toy(model):
    """Words and vectors of the model, from fastText itself."""
    import fasttext

    loaded = fasttext.load_model(str(model))
    return loaded.words, np.stack([loaded.get_word_vector(word) for word in loaded.words])


def save_gensim(path, words, vectors, **kwargs):
    from gensim.models import KeyedVectors

    keyed = KeyedVectors(vectors.shape[1])
    keyed.add_vectors(words, vectors)
    keyed.save(str(path), **kwargs)
    return path


def test_all_formats_give_the_same_store(tmp_path, model, toy):
    words, vectors = toy
    assert "</s>" in words
    assert "house\u00a0door" in words
    text = write_vec(tmp_path / "toy.vec", words, vectors)
    (tmp_path / "toy.vec.gz").write_bytes(gzip.compress(text.read_bytes()))
    write_vec(tmp_path / "dos.txt", words, vectors, end="\r\n")
    save_gensim(tmp_path / "toy.wv", words, vectors)
    save_gensim(tmp_path / "side.kv", words, vectors, sep_limit=0)
    assert (tmp_path / "side.kv.vectors.npy").exists()
    files = [model, *(tmp_path / name for name in ("toy.vec", "toy.vec.gz", "dos.txt", "toy.wv", "side.kv"))]
    stores = [build_store([f"eng={path}"], tmp_path / f"store{i}", allow_pickle=True) for i, path in enumerate(files)]
    stores.append(build_store([str(tmp_path / "store1")], tmp_path / "again"))
    assert {store.content_hash for store in stores} == {stores[0].content_hash}
    assert {store.sources[0]["format"] for store in stores} == {"text", "fasttext", "gensim"}
    assert (tmp_path / "again" / "vectors.npy").samefile(tmp_path / "store1" / "vectors.npy")  # linked, not copied
    for store in stores:
        assert list(store.words) == words
        np.testing.assert_array_equal(store.vectors, vectors)
        np.testing.assert_array_equal(store.ranks, np.arange(len(words)))
        assert store.languages == ("eng",)


def test_subwords_give_vectors_to_unseen_words(model, toy):
    words, vectors = toy
    subwords = Subwords(model)
    np.testing.assert_array_equal(subwords.vectors(words), vectors)
    assert subwords.vector("houses").shape == (subwords.dim,) == (6,)
    assert np.abs(subwords.vector("houses")).sum() > 0


def test_subwords_need_a_fasttext_model(tmp_path):
    path = write_vec(tmp_path / "a.vec", ["a"], [[1.0]])
    with pytest.raises(InputError, match=r"a\.vec: expected a fastText model \(\.bin\)"):
        Subwords(path)


@pytest.mark.parametrize(
    ("word", "entry"),
    [
        ("eng:$word$", ("word", "eng", 3)),
        ("deu:$wort", ("wort", "deu", 1)),
        ("deu:wort$", ("wort", "deu", 2)),
        ("eng_Latn:word", ("word", "eng_Latn", 0)),
        ("de:haus", ("haus", "de", 0)),
        ("fin:5:3", ("5:3", "fin", 0)),
        ("haus", ("haus", "xxx", 0)),
        ("$", ("$", "xxx", 0)),
        ("$$", ("$", "xxx", 1)),
        ("$$$", ("$", "xxx", 3)),
        (":", (":", "xxx", 0)),
        ("eng:", ("eng:", "xxx", 0)),
        ("eng::", (":", "eng", 0)),
        ("http://a", ("http://a", "xxx", 0)),
        ("ftp://a", ("ftp://a", "xxx", 0)),
        ("ENG:a", ("ENG:a", "xxx", 0)),
        ("e:a", ("e:a", "xxx", 0)),
        ("eng_latn:a", ("eng_latn:a", "xxx", 0)),
    ],
)
def test_spelling_of_a_word(word, entry):
    assert Spelling(True, True).split(word, "xxx") == entry
    assert Spelling(False, False).split(word, "xxx") == (word, "xxx", 3)


def test_spelling_is_read_only_where_a_file_uses_it():
    plain = [f"w{i}" for i in range(40)]
    assert Spelling.detect([*plain, "re:zero", "$5", "US$"]) == Spelling(False, False)
    assert Spelling.detect([f"eng:{word}" for word in plain]) == Spelling(True, False)
    assert Spelling.detect([f"eng:${word}" for word in plain]) == Spelling(True, True)
    assert Spelling.detect([*plain, "re:zero"], "marked") == Spelling(True, True)
    assert Spelling.detect([f"eng:${word}" for word in plain], "plain") == Spelling(False, False)


def test_spec_names_a_language(tmp_path, monkeypatch):
    assert [split_spec(spec)[0] for spec in ("eng=a.vec", "de=a.vec", "deu_Latn=a.vec", "a.vec", "a=b.vec")] == [
        "eng", "de", "deu_Latn", None, None,
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old=a.vec").write_text("1 1\na 1\n")
    assert split_spec("old=a.vec")[0] is None


BAD_TEXT = {
    "fewer rows": ("3 2\na 1 2\nb 3 4\n", r": the header says 3 words, found 2; is the file cut\?"),
    "cut row": ("2 2\na 1 2\nb 3", r", line 3: expected a word and 2 numbers, found 1; is the file cut\?"),
    "cut word": ("2 2\na 1 2\nb", r", line 3: expected a word and 2 numbers, found 0; is the file cut\?"),
    "more rows": ("1 2\na 1 2\nb 3 4\n", r", line 3: the header says 1 words, found more"),
    "short row": ("2 2\na 1\nb 3 4\n", r", line 2: expected a word and 2 numbers, found 1$"),
    "long row": ("2 2\na 1 2\nb 3 4 5\n", r", line 3: expected a word and 2 numbers, found 3$"),
    "all rows long": ("2 2\na 1 2 3\nb 3 4 5\n", r", line 2: expected a word and 2 numbers, found 3$"),
    "word with a space": ("2 2\na 1 2\nb c 3 4\n", r", line 3: expected a word and 2 numbers, found 3$"),
    "blank line": ("2 2\n\na 1 2\n", r", line 2: expected a word and 2 numbers, found 0$"),
    "nan": ("2 2\na 1 2\nb nan 4\n", r", line 3: expected finite numbers, found NaN or inf"),
    "inf": ("2 2\na 1 -inf\nb 3 4\n", r", line 2: expected finite numbers, found NaN or inf"),
    "too large": ("1 2\na 1 1e39\n", r", line 2: expected finite numbers, found NaN or inf"),
    "not a number": ("2 2\na 1 2\nb 3 four\n", r", line 3: expected a number, found 'four'"),
    "underscore": ("1 1\na 1_0\n", r", line 2 or one of the 1 after it: expected a word and 1 numbers"),
    "empty": ("", r": expected word vectors, found an empty file"),
    "blank": ("\n", r", line 1: expected 'COUNT DIM', found an empty line"),
    "no header": ("a 1 2\nb 3 4\n", r", line 1: expected the header 'COUNT DIM' .*found 3 fields, the first 'a'"),
    "odd header": ("3 2 1\na 1 2\n", r", line 1: expected the header 'COUNT DIM'"),
    "no words": (
        "0 2\n",
        r", line 1: expected a header 'COUNT DIM' of positive numbers, DIM up to 65,536, found 0 and 2",
    ),
    "no word": ("1 2\n 1 2\n", r", line 2: expected a word, found a space"),
    "twice": (
        "3 1\na 1\nb 2\na 3\n",
        r", line 4: the word 'a' was already at .*bad\.vec, line 2; .*duplicate_words='first'",
    ),
}


@pytest.mark.parametrize("case", BAD_TEXT)
@pytest.mark.parametrize("ending", [".vec", ".vec.gz"])
def test_bad_text_is_refused(tmp_path, case, ending):
    content, message = BAD_TEXT[case]
    path = tmp_path / f"bad{ending}"
    path.write_bytes(gzip.compress(content.encode()) if ending == ".vec.gz" and content else content.encode())
    expected = re.escape(str(path)) + message.replace(r"\.vec", re.escape(ending))
    with pytest.raises(InputError, match=expected) as error:
        build_store([str(path)], tmp_path / "store")
    assert "\n" not in str(error.value)
    assert {path.name} == {name for name in os.listdir(tmp_path) if not name.endswith(".lock")}


def test_undecodable_word_is_refused(tmp_path):
    (tmp_path / "bad.vec").write_bytes(b"2 1\na 1\nb\xff 2\n")
    with pytest.raises(InputError, match=r"bad\.vec, line 3: expected UTF-8, found b'\\xff'"):
        build_store([str(tmp_path / "bad.vec")], tmp_path / "store")


@pytest.mark.parametrize("keep", [12, 0.5, -4])
def test_cut_gzip_is_refused(tmp_path, toy, keep):
    whole = gzip.compress(write_vec(tmp_path / "toy.vec", *toy).read_bytes())
    (tmp_path / "cut.vec.gz").write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match=r"cut\.vec\.gz: damaged gzip file, is it cut\?"):
        build_store([str(tmp_path / "cut.vec.gz")], tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("damage", ["bytes", "checksum"])
def test_damaged_gzip_is_refused(tmp_path, toy, damage):
    data = bytearray(gzip.compress(write_vec(tmp_path / "toy.vec", *toy).read_bytes()))
    data[{"bytes": len(data) // 2, "checksum": -6}[damage]] ^= 0xFF
    (tmp_path / "bad.vec.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.vec\.gz"):
        build_store([str(tmp_path / "bad.vec.gz")], tmp_path / "store")


def test_error_far_into_a_file_names_its_line(tmp_path):
    lines = [f"w{i} {i} 1" for i in range(10_000)]
    lines[9_000] = "w9000 1"
    (tmp_path / "a.vec").write_text("\n".join(["10000 2", *lines]) + "\n")
    with pytest.raises(InputError, match=r"line 9002: expected a word and 2 numbers, found 1$"):
        build_store([str(tmp_path / "a.vec")], tmp_path / "store")
    assert len(build_store([str(tmp_path / "a.vec")], tmp_path / "store", max_words=9_000)) == 9_000


def test_fasttext_model_cut_anywhere_is_refused(tmp_path, model):
    whole = model.read_bytes()
    path = tmp_path / "cut.bin"
    for size in [1, 3, 4, 30, 70, 91, 95, 120, 150, *range(200, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.bin: (the fastText model ends too early|expected a fastText)"):
            open_file(path)


def test_other_binary_files_are_refused(tmp_path, model):
    (tmp_path / "word2vec.bin").write_bytes(b"1 1\na \x00\x00\x80\x3f\n")
    with pytest.raises(InputError, match=r"word2vec\.bin: expected a fastText model"):
        open_file(tmp_path / "word2vec.bin")
    data = bytearray(model.read_bytes())
    data[92] = 0xFF
    (tmp_path / "bad.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.bin, word 1: expected UTF-8"):
        open_file(tmp_path / "bad.bin")


@pytest.mark.parametrize(("offset", "format", "value", "message"), [
    (8, "i", 0, "a width from 1 to 65,536, found 0"),
    (8, "i", 2**31 - 1, "a width from 1 to"),
    (8, "i", 5, "a matrix of .* × 5 by the model's own counts"),
    (32, "i", 7, "a known kind of model and loss"),
    (36, "i", 3, "labels in a classifier"),
    (40, "i", 0, "buckets for its n-grams, found 0"),
    (40, "i", -5, "buckets for its n-grams"),
    (40, "i", 2**31 - 1, "a matrix of"),
    (48, "i", 2**30, "n-grams of at most 64 characters"),
    (64, "i", 10**9, "as many entries as words and labels"),
    (68, "i", 3, "as many entries as words and labels"),
    (84, "q", 10, "quantised fastText models"),
])  # fmt: skip
def test_a_fasttext_header_that_does_not_fit_its_file_is_refused(tmp_path, model, offset, format, value, message):
    """The library would read or write beyond its arrays, or divide by 0: none of these may reach it."""
    data = bytearray(model.read_bytes())
    struct.pack_into(f"<{format}", data, offset, value)
    (tmp_path / "crafted.bin").write_bytes(data)
    with pytest.raises(InputError, match=rf"crafted\.bin: .*{message}"):
        open_file(tmp_path / "crafted.bin")


def test_fasttext_words_and_sizes_that_do_not_fit_are_refused(tmp_path, model):
    data = model.read_bytes()
    first = data.index(b"\0", 92)
    crafted = {
        r"word 1: expected \d+ words, then 0 labels": data[: first + 9] + b"\x01" + data[first + 10 :],
        "seen 0 times": data[: first + 1] + struct.pack("<q", 0) + data[first + 9 :],
        "seen 1000000000000000 times": data[: first + 1] + struct.pack("<q", 10**15) + data[first + 9 :],
        "word 1: expected at most 65,536 bytes": data[:92] + b"a" * 70_000 + data[92:],
        "ends 3 bytes before the file does": data + b"abc",
    }
    for message, content in crafted.items():
        (tmp_path / "crafted.bin").write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_file(tmp_path / "crafted.bin")


def test_quantised_fasttext_is_refused(tmp_path, model):
    data = bytearray(model.read_bytes())
    words = int.from_bytes(data[64:68], "little")
    position = 92
    for _ in range(words):
        position = data.index(0, position) + 10
    data[position] = 1
    (tmp_path / "small.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"small\.bin: quantised fastText models are not read"):
        open_file(tmp_path / "small.bin")


def test_pickle_needs_a_flag(tmp_path, toy):
    path = save_gensim(tmp_path / "toy.wv", *toy)
    with pytest.raises(InputError, match=r"toy\.wv: gensim's format is a pickle.*allow_pickle=True"):
        build_store([str(path)], tmp_path / "store")


def test_gensim_is_optional(tmp_path, toy, monkeypatch):
    path = save_gensim(tmp_path / "toy.wv", *toy)
    monkeypatch.setitem(__import__("sys").modules, "gensim.models", None)
    with pytest.raises(InputError, match=r"gensim is not installed; run: pip install 'hyperofa\[colexnet\]'"):
        build_store([str(path)], tmp_path / "store", allow_pickle=True)


@pytest.mark.parametrize("damage", ["cut", "side file missing", "side file cut", "other pickle"])
def test_damaged_gensim_is_refused(tmp_path, toy, damage):
    path = save_gensim(tmp_path / "toy.wv", *toy, sep_limit=0)
    side = tmp_path / "toy.wv.vectors.npy"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "side file missing":
        side.unlink()
    elif damage == "side file cut":
        side.write_bytes(side.read_bytes()[:-8])
    else:
        path.write_bytes(__import__("pickle").dumps([1, 2]))
    with pytest.raises(InputError, match=r"toy\.wv: expected gensim KeyedVectors"):
        build_store([str(path)], tmp_path / "store", allow_pickle=True)


def test_gensim_full_model_is_read_by_its_vectors(tmp_path):
    from gensim.models import Word2Vec

    trained = Word2Vec([["$a$", "$b$"]] * 5, vector_size=4, min_count=1, workers=1)
    trained.save(str(tmp_path / "model.wv"))
    store = build_store([str(tmp_path / "model.wv")], tmp_path / "store", allow_pickle=True)
    assert sorted(store.words) == ["a", "b"]


def test_unknown_missing_and_empty_inputs_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1 1\na 1\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"a\.csv: unknown extension; expected one of \.vec, \.txt"):
        open_file(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"gone\.vec: expected a file of word vectors, found nothing"):
        open_file(tmp_path / "gone.vec")
    with pytest.raises(InputError, match=r"english=a\.vec: expected .*, or LANG=FILE .*found nothing there"):
        build_store(["english=a.vec"], tmp_path / "store")
    with pytest.raises(InputError, match=r"empty: expected a store or vector files .* found none"):
        build_store([str(tmp_path / "empty")], tmp_path / "store")
    with pytest.raises(InputError, match=r"vectors: expected at least one file"):
        build_store([], tmp_path / "store")
    (tmp_path / "a.vec").mkdir()
    with pytest.raises(InputError, match=r"a\.vec: cannot be read"):
        open_file(tmp_path / "a.vec")
    with pytest.raises(InputError, match="max_words: expected at least 1, found 0"):
        build_store(["a.vec"], tmp_path / "store", max_words=0)


def test_folder_of_shards_is_one_space(tmp_path, toy):
    words, vectors = toy
    shards = tmp_path / "shards"
    shards.mkdir()
    write_vec(shards / "1.vec", words[:3], vectors[:3])
    write_vec(shards / "2.vec", words[3:], vectors[3:])
    (shards / "README").write_text("not a vector file")
    whole = build_store([f"eng={write_vec(tmp_path / 'all.vec', words, vectors)}"], tmp_path / "whole")
    store = build_store([f"eng={shards}"], tmp_path / "store")
    assert store.content_hash == whole.content_hash
    np.testing.assert_array_equal(store.ranks, whole.ranks)
    shutil.rmtree(shards)
    assert store.words[0] == words[0]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path):
    (tmp_path / "a.vec").write_bytes("\ufeff1 2\na 1 2\n".encode())
    assert open_file(tmp_path / "a.vec").count == 1


@pytest.mark.parametrize(("content", "message"), [
    (b"1 2\n" + b"a" * 10**6 + b" 1 2\n", "line 2: expected a word and 2 numbers, found more than 65,664 bytes"),
    (b"1 2\na 1 2\n" + b"b" * 10**6, "line 3: the header says 1 words, found more"),
    (b"1 1000000000\na 1\n", "DIM up to 65,536, found 1 and 1000000000"),
])  # fmt: skip
def test_an_archive_of_one_endless_line_is_refused(tmp_path, content, message):
    (tmp_path / "bomb.vec.gz").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=rf"bomb\.vec\.gz, .*{message}"):
        build_store([str(tmp_path / "bomb.vec.gz")], tmp_path / "store")
