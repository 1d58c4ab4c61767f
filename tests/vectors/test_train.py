"""Word vectors made from text."""

import gzip

import fasttext
import numpy as np
import pytest

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_reader import Subwords
from hyperofa.vectors.merging import merge_vectors
from hyperofa.vectors.spectral import count_words, spectral_vectors
from hyperofa.vectors.texts import read_pieces, split_words
from hyperofa.vectors.train import joined_lines, train_vectors
from tests.conftest import write_vectors

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "ne") for b in ("ren", "sut", "tiv")]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The same lines in two languages, the words of one spelled backwards; as lines, and by verse in another order."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    lines = [rng.choice(WORDS, 4).tolist() for _ in range(300)]
    (folder / "eng.txt").write_text("".join(" ".join(line) + ".\n" for line in lines))
    (folder / "deu.txt").write_text("".join(" ".join(word[::-1] for word in line) + "\n" for line in lines))
    with gzip.open(folder / "deu.tsv.gz", "wt") as file:
        verses = [f"verse {n}\t{' '.join(word[::-1] for word in line)}\n" for n, line in enumerate(lines)]
        file.writelines(verses[place] for place in rng.permutation(300))
    (folder / "eng.tsv").write_text("".join(f"verse {n}\t{' '.join(line)}\n" for n, line in enumerate(lines)))
    return folder


def translations_found(path, folder):
    """Share of English words whose nearest German word is the same backwards."""
    store = build_store([str(path)], folder / f"{path.name}-store")
    english, german = store.select(["eng"]), store.select(["deu"])
    nearest = (store.vectors[english] @ store.vectors[german].T).argmax(1)
    pairs = zip(store.words[english], store.words[german[nearest]], strict=True)
    return np.mean([a == b[::-1] for a, b in pairs])


@pytest.mark.parametrize("names", [("eng.txt", "deu.txt"), ("eng.tsv", "deu.tsv.gz")])
def test_translations_lie_together(texts, names, tmp_path):
    specs = [f"{name[:3]}={texts / name}" for name in names]
    found = train_vectors(specs, tmp_path / "out.vec", aligned=names[0].endswith(".txt"), dim=10)
    assert (found.method, found.running_words, found.segments) == ("spectral", 2400, 300)
    assert found.written.languages == {"deu": 12, "eng": 12}
    assert translations_found(tmp_path / "out.vec", tmp_path) == 1
    again = train_vectors(specs, tmp_path / "again.vec", aligned=names[0].endswith(".txt"), dim=10)
    assert again.written.words == 24
    assert (tmp_path / "again.vec").read_bytes() == (tmp_path / "out.vec").read_bytes()


def test_fasttext_starts_from_numbers_that_were_drawn(texts, tmp_path):
    written = train_vectors(
        [f"eng={texts / 'eng.txt'}"], tmp_path / "out.bin", method="fasttext", dim=7, epochs=1, buckets=1004
    ).written
    matrix = fasttext.load_model(str(written.path)).get_input_matrix()
    assert matrix.size % 10 == 9
    assert matrix.all()


def test_fasttext_reads_several_languages_as_shuffled_lines(texts, tmp_path):
    pieces = read_pieces([f"{name}={texts / name}.txt" for name in ("eng", "deu")], True)
    lines = list(joined_lines(pieces, [split_words(piece.text) for piece in pieces], 0))
    assert len(lines) == 300
    for line, english in zip(lines, pieces[:300], strict=True):
        spoken = {code: [w[4:] for w in line.split() if w.startswith(code)] for code in ("eng", "deu")}
        assert sorted(spoken["eng"]) == sorted(split_words(english.text)) == sorted(w[::-1] for w in spoken["deu"])
    assert any("eng:" in line.split("deu:", 1)[1] and "deu:" in line.split("eng:", 1)[1] for line in lines)
    specs = [f"{name}={texts / name}.txt" for name in ("eng", "deu")]
    found = train_vectors(specs, tmp_path / "out.vec", True, method="fasttext", dim=4, epochs=1, buckets=100)
    assert found.written.languages == {"deu": 12, "eng": 12}


def test_a_language_gets_vectors_in_a_space_that_has_another(texts, tmp_path):
    """The space knows English alone; German words lie where their lines do."""
    rng = np.random.default_rng(0)
    space = write_vectors(tmp_path / "space.vec", {f"eng:{word}": rng.normal(size=16) + 2 for word in WORDS})
    specs = [f"eng={texts / 'eng.tsv'}", f"deu={texts / 'deu.tsv.gz'}"]
    found = train_vectors(specs, tmp_path / "german.vec", into=[str(space)])
    assert (found.method, found.written.languages, found.written.dim) == ("projected", {"deu": 12}, 16)
    merge_vectors([str(space), str(tmp_path / "german.vec")], tmp_path / "all.vec")
    store = build_store([str(tmp_path / "all.vec")], tmp_path / "store")
    units, _ = unit_rows(store.vectors)
    english, german = store.select(["eng"]), store.select(["deu"])
    sides = [units[rows] - units[rows].mean(0) for rows in (english, german)]
    nearest = (sides[1] @ sides[0].T).argmax(1)
    pairs = zip(store.words[german], store.words[english[nearest]], strict=True)
    assert all(a == b[::-1] for a, b in pairs)
    with pytest.raises(InputError, match="expected text of a language that the space has, found deu alone"):
        train_vectors(specs[1:], tmp_path / "out", into=[str(space)])
    with pytest.raises(InputError, match="expected text of a language that the space has not, found eng alone"):
        train_vectors(specs[:1], tmp_path / "out", into=[str(space)])


def test_one_language_gets_a_model_that_composes_unseen_words(texts, tmp_path):
    found = train_vectors([f"eng={texts / 'eng.txt'}"], tmp_path / "out.bin", dim=6, epochs=2, buckets=100)
    assert (found.method, found.written.languages) == ("fasttext", {"eng": 12})
    model = Subwords(tmp_path / "out.bin")
    assert model.dim == 6
    assert model.vector("karensutting").any()
    few = train_vectors([f"eng={texts / 'eng.txt'}"], tmp_path / "few", dim=6, epochs=1, buckets=100, max_words=5)
    assert few.written.languages == {"eng": 5}


def test_what_comes_next_is_told_by_whose_space_it_is(texts, tmp_path, capfd):
    own, both, german = (str(tmp_path / name) for name in ("own", "both", "german"))
    english, verses = f"eng={texts / 'eng.tsv'}", f"deu={texts / 'deu.tsv.gz'}"
    small = ["--dim", "6"]
    for words, step in (
        (["--text", english, "--output", own, *small], f"vectors align --vectors LANG={own} --into WORDS "),
        (["--text", english, verses, "--output", both, *small], f"prepare --vectors {both} "),
        (["--text", english, verses, "--into", own, "--output", german], f"prepare --vectors WORDS {german} "),
    ):
        main(["vectors", "train", *words])
        assert f"next: hyperofa {step}" in capfd.readouterr().err


def test_one_language_gets_what_lines_and_neighbours_say_side_by_side(texts, tmp_path):
    spec = f"eng={texts / 'eng.txt'}"
    found = train_vectors([spec], tmp_path / "out", dim=9, epochs=2, buckets=100)
    assert (found.method, found.written.languages, found.written.dim) == ("joined", {"eng": 12}, 9)
    store = build_store([str(tmp_path / "out")], tmp_path / "store")
    pieces = read_pieces([spec], False)
    counts = count_words([(piece.name, "eng", split_words(piece.text)) for piece in pieces]).frequent(2)
    assert list(store.words) == counts.words
    np.testing.assert_allclose(store.vectors[:, :6], spectral_vectors(counts.table, 6), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(store.vectors[:, 6:], axis=1), 1, atol=1e-5)
    with pytest.raises(InputError, match="dim: expected 3 or more for method='joined', found 2"):
        train_vectors([spec], tmp_path / "none", dim=2)
    with pytest.raises(InputError, match="method='joined': expected text of one language, found deu, eng"):
        train_vectors([spec, f"deu={texts / 'deu.txt'}"], tmp_path / "none", aligned=True, method="joined")
    assert not (tmp_path / "none").exists()


def test_languages_without_a_common_line_are_refused(texts, tmp_path):
    specs = [f"eng={texts / 'eng.txt'}", f"deu={texts / 'deu.txt'}"]
    with pytest.raises(InputError, match=r"lines that say the same in several languages, found none of 'deu', 'eng'"):
        train_vectors(specs, tmp_path / "out")
    (tmp_path / "short.txt").write_text("ein Satz\n")
    with pytest.raises(InputError, match="equally many lines in files whose lines say the same, found 300 in"):
        train_vectors([specs[0], f"deu={tmp_path / 'short.txt'}"], tmp_path / "out", aligned=True)
    with pytest.raises(InputError, match="expected words that stand in the text 9 times, found none"):
        train_vectors([f"deu={tmp_path / 'short.txt'}"], tmp_path / "out", method="spectral", min_count=9)
    assert not (tmp_path / "out").exists()


def test_what_is_asked_of_text_and_of_fasttext_is_told_by_its_flag(texts, tmp_path):
    for method in ("spectral", "fasttext"):
        with pytest.raises(InputError, match=r"min_count: expected words that stand in the text \d+ times, found none"):
            train_vectors([f"eng={texts / 'eng.tsv'}"], tmp_path / "out", min_count=10**6, method=method)
    with pytest.raises(InputError, match=r"buckets: expected at most 2147483647, found 10{12}"):
        train_vectors([f"eng={texts / 'eng.tsv'}"], tmp_path / "out", buckets=10**12)
    with pytest.raises(InputError, match=r"text =: expected a text file, or LANG=FILE with .*found none"):
        train_vectors(["="], tmp_path / "out")
    with pytest.raises(InputError, match=r"text .*: expected a text file, found a folder"):
        train_vectors([str(texts)], tmp_path / "out")
    with pytest.raises(InputError, match=r"into gone\.vec: expected a file of word vectors, found nothing there"):
        train_vectors([f"eng={texts / 'eng.tsv'}"], tmp_path / "out", into=["gone.vec"])
    assert not (tmp_path / "out").exists()


def test_words_keep_accents_and_lose_punctuation():
    assert split_words("«Él—dijo--:» (O'Brien's) … 1984! ക്ക്") == ["él", "dijo", "o'brien's", "1984", "ക്ക്"]


def test_empty_lines_keep_their_place(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\nthree\n")
    assert [piece.name for piece in read_pieces([f"eng={tmp_path / 'a.txt'}"], True)] == ["line 0", "line 1", "line 2"]


def test_spectral_vectors_are_those_of_an_exact_decomposition():
    rng = np.random.default_rng(0)
    segments = [(str(n), "eng", rng.choice(WORDS, 5).tolist()) for n in range(80)]
    counts = count_words(segments)
    logs = np.log1p(counts.table.toarray())
    scaled = logs / np.sqrt(logs.sum(1))[:, None] / np.sqrt(logs.sum(0))
    left, values, _ = np.linalg.svd(scaled, full_matrices=False)
    np.testing.assert_allclose(values[0], 1, atol=1e-6)  # what is dropped
    exact = left[:, 1:7] * np.sqrt(values[1:7])
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    found = spectral_vectors(counts.table, 6)
    np.testing.assert_allclose(found @ found.T, exact @ exact.T, atol=1e-4)
    wide = spectral_vectors(counts.table, 30)
    assert wide.shape == (12, 30)
    assert not wide[:, 11:].any()
