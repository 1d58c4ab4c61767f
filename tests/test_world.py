from collections import Counter
from functools import partial

import numpy as np
import pytest

from hyperofa import world
from hyperofa.world import LANGUAGES, lexicon, parallel_sentences, train_vectors

CONCEPTS = {concept.word("eng"): concept for concept in lexicon()}


@pytest.fixture(scope="module")
def sentences():
    return parallel_sentences(6300, np.random.default_rng(0))


def test_lexicon_is_large_and_whole():
    assert LANGUAGES[0] == "eng"
    assert len(lexicon()) >= 450
    assert all(concept.word(language) for concept in lexicon() for language in LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_word_has_two_meanings(language):
    uses = Counter(concept.word(language) for concept in lexicon())
    assert [word for word, count in uses.items() if count > 1] == []


def test_esperanto_endings_follow_the_part_of_speech():
    endings = {"noun": "o", "adjective": "a", "verb": "i"}
    wrong = [c for c in lexicon() if c.part in endings and not c.word("epo").endswith(endings[c.part])]
    assert wrong == []


def test_turkish_infinitives_agree_with_their_vowels():
    wrong = [
        c.word("tur") for c in lexicon()
        if c.part == "verb" and world._attach(c.word("tur")[:-3], "mAk", "") != c.word("tur")
    ]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("part\tkind\teng\n", "expected the columns"),
        ("part\tkind\teng\tepo\tind\ttur\nnoun\tthing\tcup\ttaso\tcangkir\n", "line 2: expected part, kind, one word"),
        ("part\tkind\teng\tepo\tind\ttur\nnoun\ta\tx\ty\tz\tw\nnoun\ta\tx\tv\tu\tt\n", "eng word 'x' has 2 lines"),
    ],
)
def test_a_broken_lexicon_is_named(monkeypatch, tmp_path, broken, message):
    (tmp_path / "lexicon.tsv").write_text(broken, encoding="utf-8")
    monkeypatch.setattr(world, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match=message):
        world._lexicon.__wrapped__()


def test_equal_seeds_give_equal_sentences():
    first, again, other = (parallel_sentences(50, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_more_sentences_begin_with_the_same_ones(sentences):
    assert parallel_sentences(40, np.random.default_rng(0)) == sentences[:40]


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_are_distinct_and_of_fit_length(sentences, language):
    texts = [sentence[language] for sentence in sentences]
    lengths = [len(text.split()) for text in texts]
    assert len(set(texts)) == len(texts)
    assert min(lengths) >= (4 if language == "eng" else 3)
    assert max(lengths) <= 14
    assert all(text == " ".join(text.split()) for text in texts)
    assert not set("".join(texts)) & set("{}[]|/()#-_ADIİ")


def test_every_content_word_is_said(sentences):
    for language in ("eng", "ind"):
        said = {word for sentence in sentences for word in sentence[language].split()}
        assert sorted(c.word(language) for c in lexicon() if c.word(language) not in said) == []


def test_held_out_sentences_are_new(sentences):
    for language in LANGUAGES:
        train = {" ".join(sorted(sentence[language].split())) for sentence in sentences[:6000]}
        held_out = {" ".join(sorted(sentence[language].split())) for sentence in sentences[6000:]}
        assert not train & held_out


def phrase(words):
    """'the small cat' or 'three black cat': determiner or number, adjective if any, English dictionary form."""
    first, *adjectives, noun = words.split()
    if noun in ("i", "you", "she", "we", "they"):
        return world._Phrase(CONCEPTS[noun])
    number = CONCEPTS.get(first)
    adjective = CONCEPTS[adjectives[0]] if adjectives else None
    return world._Phrase(CONCEPTS[noun], "" if number or first == "-" else first, number, adjective)


def say(template, *subjects, verb=None, object=None, goal=None, place=None, tense="present", mood=0, **words):
    clause = world._Clause(
        template, tuple(phrase(s) for s in subjects), verb and CONCEPTS[verb], object and phrase(object),
        goal and phrase(goal), place and phrase(place), {k: CONCEPTS[v] for k, v in words.items()}, tense, mood,
    )  # fmt: skip
    return [world._say(clause, language) for language in LANGUAGES]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            partial(say, "act", "a small cat", verb="bite", object="the child", tense="past", T="yesterday"),
            ["a small cat bit the child yesterday", "malgranda kato mordis la infanon hieraŭ",
             "seekor kucing kecil telah menggigit anak itu kemarin", "dün küçük bir kedi çocuğu ısırdı"],
        ),
        (
            partial(say, "act", "- i", verb="read", object="my book", place="the garden", mood=1),
            ["i do not read my book in the garden", "mi ne legas mian libron en la ĝardeno",
             "saya tidak membaca buku saya di kebun", "ben bahçede kitabımı okumuyorum"],
        ),
        (
            partial(say, "act", "three woman", verb="eat", object="many red tomato", tense="future", T="monday"),
            ["three women will eat many red tomatoes on monday", "tri virinoj manĝos multajn ruĝajn tomatojn en lundo",
             "tiga wanita akan makan banyak tomat merah pada hari senin",
             "pazartesi günü üç kadın birçok kırmızı domates yiyecek"],
        ),
        (
            partial(say, "act", "- we", verb="go", goal="the city", tense="want", mood=2),
            ["do we want to go to the city", "ĉu ni volas iri al la urbo", "apakah kami ingin pergi ke kota",
             "biz şehre gitmek istiyor muyuz"],
        ),
        (
            partial(say, "act", "- you", verb="carry", object="this water", tense="can", mood=2),
            ["can you carry this water", "ĉu vi povas porti ĉi tiun akvon", "apakah kamu bisa membawa air ini",
             "sen bu suyu taşıyabilir misin"],
        ),
        (
            partial(say, "act", "the king", verb="give", object="a old sword", goal="our son", M="unfortunately"),
            ["unfortunately the king gives an old sword to our son",
             "bedaŭrinde la reĝo donas malnovan glavon al nia filo",
             "sayangnya raja itu memberikan sebuah pedang lama kepada putra kami",
             "maalesef kral bizim oğlumuza eski bir kılıç veriyor"],
        ),
        (
            partial(say, "act", verb="hide", object="the knife", tense="past"),
            ["who hid the knife", "kiu kaŝis la tranĉilon", "siapa yang telah menyembunyikan pisau itu",
             "kim bıçağı sakladı"],
        ),
        (
            partial(say, "act", "- she", verb="think", goal="- peace", tense="can", mood=1),
            ["she cannot think about peace", "ŝi ne povas pensi pri paco", "dia tidak bisa berpikir tentang perdamaian",
             "o barış hakkında düşünemez"],
        ),
        (
            partial(say, "be", "two horse", A="white", I="very"),
            ["two horses are very white", "du ĉevaloj estas tre blankaj", "dua kuda sangat putih", "iki at çok beyaz"],
        ),
        (
            partial(say, "be", "- i", A="young"),
            ["i am young", "mi estas juna", "saya muda", "ben gencim"],
        ),
        (
            partial(say, "be", "the dog", goal="the tree", R="behind", mood=2),
            ["is the dog behind the tree", "ĉu la hundo estas malantaŭ la arbo",
             "apakah anjing itu ada di belakang pohon itu", "köpek ağacın arkasında mı"],
        ),
        (
            partial(say, "name", "your uncle", goal="a engineer", mood=1),
            ["your uncle is not an engineer", "via onklo ne estas inĝeniero", "paman kamu bukan seorang insinyur",
             "senin amcan bir mühendis değil"],
        ),
        (
            partial(say, "exist", "five mouse", place="this kitchen"),
            ["there are five mice in this kitchen", "estas kvin musoj en ĉi tiu kuirejo", "ada lima tikus di dapur ini",
             "bu mutfakta beş fare var"],
        ),
        (
            partial(say, "own", "the doctor", object="a fast car"),
            ["the doctor has a fast car", "la kuracisto havas rapidan aŭton", "dokter itu memiliki sebuah mobil cepat",
             "doktorun hızlı bir arabası var"],
        ),
    ],
)  # fmt: skip
def test_hand_verified_sentences(said, expected):
    assert said() == expected


@pytest.mark.parametrize(
    ("stem", "suffix", "soft", "expected"),
    [
        ("kitap", "(y)I", "kitab", "kitabı"),
        ("kedi", "(y)I", "", "kediyi"),
        ("kitap", "DA", "kitab", "kitapta"),
        ("göl", "DA", "", "gölde"),
        ("su", "(y)I", "suy", "suyu"),
        ("oğul", "(I)mIz", "oğl", "oğlumuz"),
        ("burun", "(s)I", "burn", "burnu"),
        ("halı", "(n)In", "", "halının"),
        ("git", "Iyor", "gid", "gidiyor"),
        ("git", "DI", "gid", "gitti"),
        ("ye", "Iyor", "yi", "yiyor"),
        ("ye", "(y)AcAk", "yi", "yiyecek"),
        ("oyna", "Iyor", "", "oynuyor"),
        ("bekleme", "Iyor", "", "beklemiyor"),
        ("yürü", "(y)Abilir", "", "yürüyebilir"),
        ("gel", "(y)AmAz", "", "gelemez"),
    ],
)
def test_turkish_suffixes(stem, suffix, soft, expected):
    assert world._attach(stem, suffix, soft) == expected


def test_equal_seeds_give_equal_vectors(tmp_path, sentences):
    def trained(seed, name):
        train_vectors(sentences[:200], dim=8, seed=seed, path=tmp_path / name)
        return (tmp_path / name).read_bytes()

    first = trained(0, "a.vec")
    assert first == trained(0, "b.vec")
    assert first != trained(1, "c.vec")


def test_vectors_find_translations(tmp_path, sentences):
    train_vectors(sentences[:1500], dim=32, seed=0, path=tmp_path / "a.vec")
    header, *rows = (tmp_path / "a.vec").read_text(encoding="utf-8").splitlines()
    counts = Counter(f"{lng}:{word}" for s in sentences[:1500] for lng in LANGUAGES for word in s[lng].split())
    words = [row.split(" ")[0] for row in rows]
    assert header == f"{len(counts)} 32"
    assert [counts[word] for word in words] == sorted(counts.values(), reverse=True)
    vectors = np.array([row.split(" ")[1:] for row in rows], dtype=np.float32)
    assert np.isfinite(vectors).all()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [i for i, word in enumerate(words) if word.startswith("ind:")]
    hits = [
        words[found[np.argmax(vectors[found] @ vectors[words.index(f"eng:{c.word('eng')}")])]] == f"ind:{c.word('ind')}"
        for c in lexicon()
        if counts[f"eng:{c.word('eng')}"] >= 5
    ]
    assert np.mean(hits) > 0.5
