from functools import partial

import pytest

from hyperofa.demo import grammar
from hyperofa.demo.grammar import Clause, Phrase, attach
from hyperofa.demo.lexicon import LANGUAGES, lexicon

CONCEPTS = {concept.word("eng"): concept for concept in lexicon()}


def test_turkish_infinitives_agree_with_their_vowels():
    wrong = [
        c.word("tur") for c in lexicon()
        if c.part == "verb" and attach(c.word("tur")[:-3], "mAk", "") != c.word("tur")
    ]  # fmt: skip
    assert wrong == []


def phrase(words):
    """'the small cat' or 'three black cat': determiner or number, adjective if any, English dictionary form."""
    first, *adjectives, noun = words.split()
    if noun in ("i", "you", "she", "we", "they"):
        return Phrase(CONCEPTS[noun])
    number = CONCEPTS.get(first)
    adjective = CONCEPTS[adjectives[0]] if adjectives else None
    return Phrase(CONCEPTS[noun], "" if number or first == "-" else first, number, adjective)


def say(template, *subjects, verb=None, object=None, goal=None, place=None, tense="present", mood=0, **words):
    clause = Clause(
        template, tuple(phrase(s) for s in subjects), verb and CONCEPTS[verb], object and phrase(object),
        goal and phrase(goal), place and phrase(place), {k: CONCEPTS[v] for k, v in words.items()}, tense, mood,
    )  # fmt: skip
    return [grammar.say(clause, language) for language in LANGUAGES]


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
    assert attach(stem, suffix, soft) == expected
