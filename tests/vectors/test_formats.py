"""Word vectors of one format as another, and several files as one."""

import subprocess
import sys
from pathlib import Path

import fasttext
import numpy as np
import pytest

from hyperofa.errors import InputError
from hyperofa.vectors.aligning import align_vectors
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_layout import map_fasttext_model
from hyperofa.vectors.fasttext_reader import Subwords
from hyperofa.vectors.formats import convert_vectors
from hyperofa.vectors.merging import merge_vectors
from hyperofa.vectors.train import train_vectors

LINES = ["deu:haus 1 2.5 0.1", "eng:house 0.333333343 2 -7e-05", "deu:baum -3 0 1"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "words.vec"
    path.write_text("\n".join(["3 3", *LINES, ""]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A fastText model with n-grams of three to four characters."""
    folder = tmp_path_factory.mktemp("fasttext")
    lines = ["the river runs through the old town", "the children swim in the river", "rain falls on the town"] * 20
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    trained = fasttext.train_unsupervised(
        str(folder / "text.txt"), dim=6, epoch=2, minCount=1, minn=3, maxn=4, bucket=50, thread=11, verbose=0
    )
    trained.save_model(str(folder / "model.bin"))
    return folder / "model.bin"


@pytest.mark.parametrize("ending", ["", ".vec", ".vec.gz", ".bin", ".wv"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_format_holds_the_same(text, tmp_path, ending, dtype):
    if ending == ".wv":
        pytest.importorskip("gensim")
    before = build_store([str(text)], tmp_path / "before", dtype=dtype)
    written = convert_vectors([str(text)], tmp_path / f"out{ending}", vectors_dtype=dtype)
    assert (written.words, written.dim, written.languages) == (3, 3, {"deu": 2, "eng": 1})
    after = build_store([str(written.path)], tmp_path / "after", dtype=dtype, allow_pickle=True)
    assert after.content_hash == before.content_hash
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == [f"out{ending}"]


@pytest.mark.parametrize("ending", ["", ".vec", ".vec.gz", ".bin", ".wv"])
def test_equal_vectors_give_equal_bytes(text, tmp_path, ending, monkeypatch):
    """Whatever they are called, wherever they lie, and whenever they are written."""
    if ending == ".wv":
        pytest.importorskip("gensim")
    found = []
    for number, name in enumerate(("here", "there/other")):
        path = tmp_path / f"{name}{ending}"
        path.parent.mkdir(exist_ok=True)
        monkeypatch.setattr("time.time", lambda now=number * 1e9: now)
        convert_vectors([str(text)], path)
        monkeypatch.undo()
        files = [path] if ending else sorted(file for file in path.rglob("*") if file.is_file())
        found.append([file.read_bytes() for file in files])
    assert found[0] == found[1]


def test_borders_and_plain_words_come_back(tmp_path):
    (tmp_path / "marked.vec").write_text("2 1\ndeu:$haus$ 1\ndeu:$ver 2\n")
    convert_vectors([str(tmp_path / "marked.vec")], tmp_path / "again.vec")
    assert (tmp_path / "again.vec").read_text() == "2 1\ndeu:$haus$ 1\ndeu:$ver 2\n"
    convert_vectors([str(tmp_path / "marked.vec")], tmp_path / "plain.vec", prefixes=False)
    assert (tmp_path / "plain.vec").read_text() == "2 1\n$haus$ 1\n$ver 2\n"


def test_some_languages(text, tmp_path):
    written = convert_vectors([str(text)], tmp_path / "german.vec", languages=["deu"])
    assert written.languages == {"deu": 2}
    assert (tmp_path / "german.vec").read_text().splitlines()[1].startswith("deu:haus ")
    with pytest.raises(InputError, match=r"languages: language 'fra' is not among the word vectors"):
        convert_vectors([str(text)], tmp_path / "french.vec", languages=["fra"])


def test_the_nearest_language_is_named(text, tmp_path):
    with pytest.raises(InputError, match=r"did you mean deu\?"):
        convert_vectors([str(text)], tmp_path / "german.vec", languages=["de"])


@pytest.mark.parametrize("command", ["convert", "merge", "align", "train"])
@pytest.mark.parametrize("name", ["out.vec", "out"])
def test_where_to_write_is_looked_at_before_anything_is_read(command, name, tmp_path):
    (tmp_path / name).write_text("mine")
    gone = str(tmp_path / "gone.vec")
    calls = {
        "convert": lambda output: convert_vectors([gone], output),
        "merge": lambda output: merge_vectors([gone], output),
        "align": lambda output: align_vectors(f"deu={gone}", [gone], output),
        "train": lambda output: train_vectors([f"deu={gone}"], output),
    }
    with pytest.raises(InputError, match=r"already exists|expected a folder to write to, found a file"):
        calls[command](tmp_path / name)
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match=r"below.*: expected a folder to write to, but .*mine is a file"):
        calls[command](tmp_path / "mine" / f"below{Path(name).suffix}")
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_is_whole_or_as_it_was(text, tmp_path):
    (tmp_path / "there.vec").write_text("mine")
    (tmp_path / "folder.vec").mkdir()
    with pytest.raises(InputError, match="already exists"):
        convert_vectors([str(text)], tmp_path / "there.vec")
    with pytest.raises(InputError, match="found the input"):
        convert_vectors([str(text)], text, overwrite=True)
    with pytest.raises(InputError, match="found a folder"):
        convert_vectors([str(text)], tmp_path / "folder.vec")
    assert (tmp_path / "there.vec").read_text() == "mine"


def test_text_cannot_hold_a_space(tmp_path):
    models = pytest.importorskip("gensim.models")
    vectors = models.KeyedVectors(2)
    vectors.add_vectors(["new york", "rain"], np.eye(2, dtype=np.float32))
    vectors.save(str(tmp_path / "words.wv"))
    with pytest.raises(InputError, match="expected words without spaces and line ends, found 'new york'"):
        convert_vectors([str(tmp_path / "words.wv")], tmp_path / "words.vec", allow_pickle=True)
    written = convert_vectors([str(tmp_path / "words.wv")], tmp_path / "words.bin", allow_pickle=True)
    np.testing.assert_array_equal(Subwords(written.path).vector("new york"), [1, 0])


def test_a_mapped_model_composes_unseen_words(model, tmp_path):
    rng = np.random.default_rng(0)
    matrix, shift = rng.normal(size=(6, 4)), rng.normal(size=6)
    map_fasttext_model(model, tmp_path / "mapped.bin", matrix, shift)
    before, after = Subwords(model), Subwords(tmp_path / "mapped.bin")
    for word in ("river", "riverside", "rainy"):
        np.testing.assert_allclose(after.vector(word), (before.vector(word) - shift) @ matrix, atol=1e-5)
    assert after.vector("rainy").any()
    code = f"import fasttext; print(fasttext.load_model({str(tmp_path / 'mapped.bin')!r}).get_dimension())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "4\n"


def test_merging_orders_words_by_their_rank_and_averages_twins(text, tmp_path):
    (tmp_path / "more.vec").write_text("3 3\nbaum 6 0 2\nwald 0 0 1\nhaus 0 0 9\n")
    merge_vectors([str(text), f"deu={tmp_path / 'more.vec'}"], tmp_path / "merged")
    merged = build_store([str(tmp_path / "merged")], tmp_path / "store")
    german = merged.select(["deu"])
    assert merged.words[german] == ["haus", "baum", "wald"]
    units = [np.array(v, float) / np.linalg.norm(v) for v in ([-3, 0, 1], [6, 0, 2])]
    mean = sum(units) / np.linalg.norm(sum(units)) * (np.sqrt(10) + np.sqrt(40)) / 2
    np.testing.assert_allclose(merged.vectors[german[1]], mean, rtol=1e-5)
    merge_vectors([str(text), f"deu={tmp_path / 'more.vec'}"], tmp_path / "first", duplicate_words="first")
    first = build_store([str(tmp_path / "first")], tmp_path / "store2")
    np.testing.assert_allclose(first.vectors[first.select(["deu"])], [[1, 2.5, 0.1], [-3, 0, 1], [0, 0, 1]])


def test_merging_wants_one_width(text, tmp_path):
    (tmp_path / "wide.vec").write_text("1 4\nwald 0 0 1 1\n")
    with pytest.raises(InputError, match=r"expected files of one space, found vectors \[3, 4\] wide"):
        merge_vectors([str(text), f"deu={tmp_path / 'wide.vec'}"], tmp_path / "merged")
