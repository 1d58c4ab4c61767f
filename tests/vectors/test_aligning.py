"""Vectors of one language turned into the space of others."""

import fasttext
import numpy as np
import pytest

from hyperofa.errors import InputError
from hyperofa.vectors.aligning import align_vectors
from hyperofa.vectors.alignment import Candidates, align, mutual_translations, refine, translate
from hyperofa.vectors.centring import unit_rows
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.fasttext_reader import Subwords
from hyperofa.vectors.seeds import Lexicon, identical_pairs, listed_pairs, parallel_pairs
from tests.conftest import write_vectors

WORDS = 400


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """English words e0, e1, … and the same in another order, turned, moved and blurred, as words f0, f1, …"""
    folder = tmp_path_factory.mktemp("space")
    rng = np.random.default_rng(0)
    english = rng.normal(size=(WORDS, 16)) + 1
    rotation, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    order = rng.permutation(WORDS)
    foreign = (english @ rotation + 0.05 * rng.normal(size=english.shape) + rng.normal(size=16))[order]
    write_vectors(folder / "space.vec", {f"eng:e{row}": vector for row, vector in enumerate(english)})
    write_vectors(folder / "foreign.vec", {f"f{row}": vector for row, vector in enumerate(foreign)})
    (folder / "list.txt").write_text("".join(f"f{row} e{order[row]}\n" for row in range(60)) + "\ngone\te1\n")
    return folder, order


def nearest_words(folder, path, order):
    """Share of all foreign words whose nearest English one is the translation, as `prepare` sees both: centred."""
    english = build_store([str(folder / "space.vec")], path.parent / "english").vectors
    foreign = build_store([str(path)], path.parent / "aligned").vectors
    units = [unit_rows(side)[0] for side in (english, foreign)]
    units = [unit_rows(side - side.mean(0))[0] for side in units]
    return ((units[1] @ units[0].T).argmax(1) == order).mean()


def align_by_list(folder, words, output, vectors=None, **settings):
    """The foreign words, or those of other vectors, by a list of words."""
    return align_vectors(
        f"fra={vectors or folder / 'foreign.vec'}",
        [str(folder / "space.vec")],
        output,
        dictionary=[f"eng={words}"],
        **settings,
    )


@pytest.mark.parametrize("method", ["procrustes", "rcsls"])
def test_a_word_list_brings_translations_together(space, tmp_path, method):
    folder, order = space
    found = align_by_list(folder, folder / "list.txt", tmp_path / "aligned.vec", method=method)
    assert (found.seeds, found.words_held_out) == (60, 6 if method == "rcsls" else 12)
    assert [step for step in found.nearness if "round" not in step] == ["procrustes", "rcsls"][
        : 1 + (method == "rcsls")
    ]
    assert found.held_out == 1
    assert found.written.languages == {"fra": WORDS}
    assert nearest_words(folder, tmp_path / "aligned.vec", order) > 0.97
    assert f"after {found.chosen}\n  precision@1 on {found.words_held_out} words held out: 100.0%" in str(found)
    assert found.nearness[found.chosen] == max(found.nearness.values())


def test_induction_makes_up_for_few_pairs(space, tmp_path):
    """Twenty pairs fit sixteen directions badly; what they find fits better."""
    folder, order = space
    (tmp_path / "few.txt").write_text("".join((folder / "list.txt").read_text().splitlines(True)[:20]))
    given = {"held_out": 0.0, "method": "procrustes"}
    shares = []
    for rounds in (0, 3):
        output = tmp_path / f"rounds{rounds}" / "aligned.vec"
        align_by_list(folder, tmp_path / "few.txt", output, rounds=rounds, **given)
        shares.append(nearest_words(folder, output, order))
    assert shares[1] >= shares[0]
    assert shares[1] > 0.97


def test_the_nearest_translations_choose_the_step(space, tmp_path):
    """From bad pairs, most of them wrong, to a rotation that the frequent words agree on."""
    folder, order = space
    wrong = np.random.default_rng(2).permutation(WORDS)
    (tmp_path / "bad.txt").write_text(
        "".join(f"f{row} e{order[row] if row < 40 else wrong[row]}\n" for row in range(140))
    )
    shares = {}
    for rounds in (0, 10):
        output = tmp_path / f"rounds{rounds}" / "aligned.vec"
        found = align_by_list(folder, tmp_path / "bad.txt", output, rounds=rounds)
        shares[rounds] = nearest_words(folder, output, order)
        assert found.nearness[found.chosen] == max(found.nearness.values())
    assert shares[10] > shares[0] + 0.05


def test_vectors_wider_than_the_space_choose_their_directions(space, tmp_path):
    """Half of the dimensions say something else."""
    folder, order = space
    rng = np.random.default_rng(3)
    rows = (folder / "foreign.vec").read_text().splitlines()[1:]
    own = {word: np.array(values, float) for word, *values in map(str.split, rows)}
    wide = {word: np.hstack([vector, rng.normal(size=16)]) for word, vector in own.items()}
    write_vectors(tmp_path / "wide.vec", wide)
    (tmp_path / "list.txt").write_text("".join(f"f{row} e{order[row]}\n" for row in range(150)))
    output = tmp_path / "aligned.vec"
    found = align_by_list(folder, tmp_path / "list.txt", output, tmp_path / "wide.vec", prefixes=False)
    assert found.written.dim == 16
    assert nearest_words(folder, output, order) > 0.9


def test_six_languages_are_looked_at_if_none_are_named(tmp_path):
    """Those of the parallel text, and those that spell most words alike."""
    rng = np.random.default_rng(4)
    own = {f"w{row}": rng.normal(size=8) for row in range(120)}
    write_vectors(tmp_path / "own.vec", own)
    rows, alike = {}, dict(zip("abcdefgh", (25, 80, 20, 70, 30, 60, 40, 50), strict=True))
    for code, count in alike.items():
        for row in range(120):
            rows[f"{code}{code}{code}:{'w' if row < count else code}{row}"] = own[f"w{row}"]
    write_vectors(tmp_path / "space.vec", rows)
    (tmp_path / "pairs.tsv").write_text("".join(f"w{row} w{row + 1}\tw{row} w{row + 1}\n" for row in range(9)))
    spec, into = f"own={tmp_path / 'own.vec'}", [str(tmp_path / "space.vec")]
    seeds = align_vectors(spec, into, tmp_path / "a.vec").seeds
    assert seeds == 80 + 70 + 60 + 50 + 40 + 30
    given = {"parallel": [f"aaa={tmp_path / 'pairs.tsv'}"]}
    assert align_vectors(spec, into, tmp_path / "b.vec", **given).seeds == 25 + 80 + 70 + 60 + 50 + 40
    assert align_vectors(spec, into, tmp_path / "c.vec", **given, languages=["aaa"]).seeds == 25


def test_names_bring_a_language_of_another_script_together(tmp_path):
    """A third of the words sound alike, spelled with other letters; none is spelled alike or listed anywhere."""
    rng = np.random.default_rng(6)
    letters = str.maketrans("abdegiklmnoprstuvz", "абдегиклмнопрстувз")
    words = ["".join(rng.choice(list("abdegiklmnoprstuvz"), 7)) for _ in range(2 * WORDS)]
    english = rng.normal(size=(WORDS, 16))
    rotation, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    order = rng.permutation(WORDS)
    foreign = (english @ rotation + 0.05 * rng.normal(size=english.shape))[order]
    spelled = [words[at] if at % 3 == 0 else words[WORDS + at] for at in order]
    write_vectors(tmp_path / "space.vec", {f"eng:{words[row]}": vector for row, vector in enumerate(english)})
    own = {word.translate(letters): vector for word, vector in zip(spelled, foreign, strict=True)}
    write_vectors(tmp_path / "foreign.vec", own)
    spec, into = f"rus={tmp_path / 'foreign.vec'}", [str(tmp_path / "space.vec")]
    found = align_vectors(spec, into, tmp_path / "aligned.vec")
    assert WORDS / 3 < found.seeds < WORDS
    assert (found.guesses, found.words_held_out) == (found.seeds, 0)
    assert f"{found.seeds} pairs to begin with, {found.seeds} of them only alike in sound;" in str(found)
    assert "held out" not in str(found)
    assert nearest_words(tmp_path, tmp_path / "aligned.vec", order) > 0.97
    with pytest.raises(InputError, match="at least 20 pairs of words to begin with, found 0"):
        align_vectors(spec, into, tmp_path / "none.vec", identical=False)


def test_too_few_pairs_are_refused(space, tmp_path):
    folder, _ = space
    spec, into = f"fra={folder / 'foreign.vec'}", [str(folder / "space.vec")]
    with pytest.raises(InputError, match="at least 20 pairs of words to begin with, found 0 between fra and eng"):
        align_vectors(spec, into, tmp_path / "out")
    with pytest.raises(InputError, match="expected LANG=FILE, the language of the words"):
        align_vectors(str(folder / "foreign.vec"), into, tmp_path / "out")
    with pytest.raises(InputError, match="expected LANG=FILE, the language of its second column"):
        align_vectors(spec, into, tmp_path / "out", dictionary=[str(folder / "list.txt")])
    with pytest.raises(InputError, match="language 'deu' is not among the word vectors"):
        align_vectors(spec, into, tmp_path / "out", dictionary=[f"deu={folder / 'list.txt'}"])
    (tmp_path / "bad.txt").write_text("one two three\n")
    with pytest.raises(InputError, match=r"dictionary .*bad\.txt line 1: expected two words, found 3"):
        align_vectors(spec, into, tmp_path / "out", dictionary=[f"eng={tmp_path / 'bad.txt'}"])
    assert not (tmp_path / "out").exists()


def test_a_fasttext_model_is_turned_with_its_n_grams(tmp_path):
    """Words spelled alike lead a model into its own space turned round, and unseen words follow."""
    rng = np.random.default_rng(1)
    words = [f"{a}{b}{c}" for a in ("ka", "lo", "mi") for b in ("ren", "sut", "tiv") for c in ("a", "os", "im", "ek")]
    text = tmp_path / "text.txt"
    text.write_text("".join(" ".join(rng.choice(words, 8)) + "\n" for _ in range(200)))
    model = fasttext.train_unsupervised(
        str(text), dim=8, epoch=3, minCount=1, minn=3, maxn=4, bucket=100, thread=11, verbose=0
    )
    model.save_model(str(tmp_path / "own.bin"))
    own = Subwords(tmp_path / "own.bin")
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    write_vectors(tmp_path / "space.vec", {f"eng:{word}": own.vector(word) @ rotation * 1e3 for word in words})
    output = tmp_path / "turned.bin"
    found = align_vectors(f"fra={tmp_path / 'own.bin'}", [str(tmp_path / "space.vec")], output, method="procrustes")
    assert found.seeds == len(words)
    turned = Subwords(output)
    mean = np.mean([own.vector(word) for word in words], axis=0)
    for word in (*words[:3], "karensut"):
        expected = (own.vector(word) - mean) @ rotation
        cosine = turned.vector(word) @ expected / np.linalg.norm(turned.vector(word)) / np.linalg.norm(expected)
        assert cosine > 0.98  # the end of a line has a vector too, and is no word of the space


def test_seeds(tmp_path):
    source = Lexicon.of(["Haus", "1984", "baum", "paris", "a"])
    target = Lexicon.of(["house", "paris", "tree", "1984", "a"])
    assert identical_pairs(source, target).tolist() == [[1, 3], [3, 1]]
    (tmp_path / "list.txt").write_text("haus\thouse\nbaum tree\nwald wood\n")
    assert listed_pairs(tmp_path / "list.txt", source, target).tolist() == [[0, 0], [2, 2]]
    texts = [("Haus, baum", "tree house"), ("das Haus!", "the house"), ("ein Baum", "a tree"), ("paris", "house")]
    assert parallel_pairs(texts, source, target).tolist() == [[0, 0], [2, 2]]


def test_csls_keeps_a_hub_from_every_query():
    """A word near all others is the nearest of two queries by cosine, but of one by CSLS."""
    targets = unit_rows(np.array([[1, 0.2, 0], [0, 1, 0.0], [0.6, 0.6, 0.2]]))[0]
    queries = unit_rows(np.array([[0.95, 0.5, 0.1], [0.3, 0.9, 0.1], [0.6, 0.6, 0.2]]))[0]
    candidates = Candidates.of(targets)
    assert translate(queries, candidates, np.array([0.0, 0.0, 1.0], np.float32)).tolist() == [0, 1, 0]
    pairs, nearness = mutual_translations(targets, targets)
    assert pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert nearness == pytest.approx(1)


def test_of_a_share_of_the_pairs_other_translations_are_found():
    words = unit_rows(np.random.default_rng(5).normal(size=(60, 8)))[0]
    every, nearness = mutual_translations(words, words)
    assert every.tolist() == [[row, row] for row in range(60)]
    drawn = [mutual_translations(words, words, 0.3, seed) for seed in (0, 0, 1)]
    assert {near for _, near in drawn} == {nearness}
    assert np.array_equal(drawn[0][0], drawn[1][0])
    assert not np.array_equal(drawn[0][0], drawn[2][0])
    same = np.mean([left == right for left, right in drawn[0][0].tolist()])
    assert 0.1 < same < 0.9


def test_refining_lowers_its_loss():
    """Of a blurred space: pairs are nearer, relative to their neighbours, than a rotation brings them."""
    rng = np.random.default_rng(0)
    target = rng.normal(size=(300, 10))
    source = target @ rng.normal(size=(10, 10)) + 0.5 * rng.normal(size=target.shape)
    sides = Candidates.of(source), Candidates.of(target)
    pairs = np.stack([np.arange(100)] * 2, 1)
    rotation = align(source, target, pairs)
    refined = refine(rotation, *sides, pairs)

    def precision(matrix):
        moved, _ = unit_rows(source @ matrix)
        found = translate(moved[100:], sides[1], Candidates.of(moved).density(sides[1].vectors))
        return (found == np.arange(100, 300)).mean()

    assert precision(refined) > precision(rotation)


def test_rounds_end_where_they_would_repeat_themselves(space, tmp_path):
    folder, _ = space
    files = []
    for rounds in (20, 2**31 - 1):
        files.append(tmp_path / f"{rounds}.vec")
        found = align_by_list(folder, folder / "list.txt", files[-1], method="procrustes", rounds=rounds)
        assert len(found.nearness) < 20
    assert files[0].read_bytes() == files[1].read_bytes()
