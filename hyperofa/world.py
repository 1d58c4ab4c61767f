"""A small multilingual world: a lexicon in four real languages and a grammar that makes parallel sentences of it."""

import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

LANGUAGES: tuple[str, ...] = ("eng", "epo", "ind", "tur")


@dataclass(frozen=True)
class Concept:
    """One meaning and its word in each of `LANGUAGES`.

    A second form may follow a slash: the plural of an English noun, the past of an English verb, the stem of a Turkish
    word before a vowel (`kitap/kitab`).
    """

    part: str
    kind: str
    words: tuple[str, ...]

    def word(self, language: str) -> str:
        """The dictionary form."""
        return self.words[LANGUAGES.index(language)].partition("/")[0]

    def second(self, language: str) -> str:
        """The form after the slash, or the empty string."""
        return self.words[LANGUAGES.index(language)].partition("/")[2]


@cache
def _lexicon() -> tuple[Concept, ...]:
    header, *rows = files("hyperofa").joinpath("lexicon.tsv").read_text(encoding="utf-8").splitlines()
    if header.split("\t") != ["part", "kind", *LANGUAGES]:
        raise ValueError(f"lexicon.tsv: expected the columns part, kind, {', '.join(LANGUAGES)}; found {header!r}")
    for number, row in enumerate(rows, start=2):
        if not re.fullmatch(r"\w+\t\w+" + r"\t\w+(/\w+)?" * len(LANGUAGES), row):
            raise ValueError(f"lexicon.tsv, line {number}: expected part, kind, one word per language; found {row!r}")
    concepts = tuple(Concept(part, kind, tuple(words)) for part, kind, *words in (row.split("\t") for row in rows))
    for language in LANGUAGES:
        word, uses = Counter(concept.word(language) for concept in concepts).most_common(1)[0]
        if uses > 1:
            raise ValueError(f"lexicon.tsv: the {language} word {word!r} has {uses} lines; expected one meaning a word")
    return concepts


def lexicon() -> list[Concept]:
    """All concepts, in the order of `lexicon.tsv`; a ValueError names the line that is wrong."""
    return list(_lexicon())


# What is said: meanings, not yet words.


@dataclass(frozen=True)
class _Phrase:
    head: Concept
    determiner: str = ""
    count: Concept | None = None
    adjective: Concept | None = None


@dataclass(frozen=True)
class _Clause:
    template: str
    subject: tuple[_Phrase, ...] = ()  # none: who
    verb: Concept | None = None
    object: _Phrase | None = None
    goal: _Phrase | None = None
    place: _Phrase | None = None
    words: Mapping[str, Concept | None] | None = None  # by slot: T, M, I, R, A
    tense: str = "present"  # a key of _VERBS: want and can are tenses here
    mood: int = 0  # plain, negative, question

    @property
    def person(self) -> int:
        """Index into i, you, she, we, they; any noun is a she."""
        first = self.subject[0].head if self.subject else None
        return _PRONOUNS.index(first.word("eng")) if first is not None and first.part == "pronoun" else 2

    @property
    def plural(self) -> bool:
        return self.person > 2 or len(self.subject) > 1 or any(phrase.count is not None for phrase in self.subject)

    def slot(self, name: str) -> Concept | None:
        return (self.words or {}).get(name)

    @property
    def content(self) -> list[Concept]:
        """Its nouns, verbs and adjectives."""
        phrases = [p for p in (*self.subject, self.object, self.goal, self.place) if p is not None]
        found = (self.verb, self.slot("A"), *(p.head for p in phrases), *(p.adjective for p in phrases))
        return [c for c in found if c is not None and c.part in ("noun", "verb", "adjective")]


# How it is said. {S} is a slot, {O:acc} a slot in a case, and [in {P}] goes when its slot is empty. S subject,
# O object, G recipient, landmark or profession, D destination, X topic, P place, T time, M opener, V verb, B copula,
# Q question word or auxiliary, A quality, I degree, R relation.

_TEMPLATES = {
    "act": (
        "{M} {Q} {S} {V} {O} [to {G}] [to {D}] [about {X}] [in {P}] {T}",
        "{M} {Q} {S} {V} {O:n} [al {G}] [al {D}] [pri {X}] [en {P}] {T}",
        "{M} {Q} {S} {V} {O} [kepada {G}] [ke {D:bare}] [tentang {X}] [di {P:bare}] {T}",
        "{M} {T} {S} {P:loc} {G:dat} {D:dat} {O:acc} [{X} hakkında] {V}",
    ),
    "be": (
        "{Q} {S} {B} {I} {A} {R} {G}",
        "{Q} {S} {B} {I} {A} {R} {G}",
        "{Q} {S} {B} {I} {A} [ada di {R}] {G}",
        "{S} {G:gen} {R} {I} {A} {B}",
    ),
    "name": ("{S} {B} {G}", "{S} {B} {G}", "{S} {B} {G}", "{S} {G} {B}"),
    "exist": ("there {B} {S} in {P}", "{B} {S} en {P}", "ada {S} di {P:bare}", "{P:loc} {S} var"),
    "own": ("{S} {B} {O}", "{S} havas {O:n}", "{S} memiliki {O}", "{S:gen} {O:own} var"),
}
_VERBS = {  # plain|negative|question, in English, Esperanto and Indonesian; Turkish endings depend on the person
    "present": ("{vs}|{do} not {v}|{v}", "{v}as|ne {v}as|{v}as", "{v}|tidak {v}|{v}"),
    "past": ("{ved}|did not {v}|{v}", "{v}is|ne {v}is|{v}is", "telah {v}|tidak {v}|telah {v}"),
    "future": ("will {v}|will not {v}|{v}", "{v}os|ne {v}os|{v}os", "akan {v}|tidak akan {v}|akan {v}"),
    "want": ("{want} to {v}|{do} not want to {v}|want to {v}", "volas {v}i|ne volas {v}i|volas {v}i",
             "ingin {v}|tidak ingin {v}|ingin {v}"),
    "can": ("can {v}|cannot {v}|{v}", "povas {v}i|ne povas {v}i|povas {v}i", "bisa {v}|tidak bisa {v}|bisa {v}"),
}  # fmt: skip
_TURKISH = {  # by person
    "present": ("Iyorum", "Iyorsun", "Iyor", "Iyoruz", "Iyorlar"),
    "past": ("DIm", "DIn", "DI", "DIk", "DIlAr"),
    "future": ("(y)AcAğIm", "(y)AcAksIn", "(y)AcAk", "(y)AcAğIz", "(y)AcAklAr"),
    "can": ("(y)Abilirim", "(y)Abilirsin", "(y)Abilir", "(y)Abiliriz", "(y)Abilirler"),
    "cannot": ("(y)AmAm", "(y)AmAzsIn", "(y)AmAz", "(y)AmAyIz", "(y)AmAzlAr"),
    "copula": ("(y)Im", "sIn", "", "(y)Iz", ""),
    "owner": ("(I)m", "(I)n", "(s)I", "(I)mIz", "(s)I"),
}
_TURKISH_CASES = {"acc": "(y)I", "dat": "(y)A", "loc": "DA", "gen": "(n)In"}
_PRONOUNS, _TURKISH_GENITIVES = ("i", "you", "she", "we", "they"), ("benim", "senin", "onun", "bizim", "onların")
_DETERMINERS = {
    "": ("", "", "", ""),
    "the": ("the", "la", "itu", ""),
    "a": ("a", "", "", "bir"),
    "this": ("this", "ĉi tiu", "ini", "bu"),
    "my": ("my", "mia", "saya", "benim"),
    "your": ("your", "via", "kamu", "senin"),
    "our": ("our", "nia", "kami", "bizim"),
}
_TIMES = {  # other kinds stand alone
    "weekday": ("on {}", "en {}", "pada hari {}", "{} günü"),
    "month": ("in {}", "en {}", "pada bulan {}", "{} ayında"),
    "cycle": ("every {}", "ĉiun {}n", "setiap {}", "her {}"),
}
_WHO, _AND, _BUT = ("who", "kiu", "siapa yang", "kim"), ("and", "kaj", "dan", "ve"), ("but", "sed", "tetapi", "ama")


def _say(clause: _Clause, language: str) -> str:
    def fill(match: re.Match[str]) -> str:
        before, slot, case, after = match.groups(default="")
        filled = _slot(clause, language, slot, case)
        return f"{before}{filled}{after}" if filled else ""

    template = _TEMPLATES[clause.template][LANGUAGES.index(language)]
    return " ".join(re.sub(r"(?:\[([^\[{]*))?\{(\w)(?::(\w+))?\}(?:([^{\[]*)\])?", fill, template).split())


def _slot(clause: _Clause, language: str, slot: str, case: str) -> str:
    """The words of one slot, or the empty string."""
    index = LANGUAGES.index(language)
    goal = {"move": "D", "discuss": "X"}.get(clause.verb.kind if clause.verb else "", "G")
    phrases = {"S": clause.subject, "O": (clause.object,), goal: (clause.goal,), "P": (clause.place,)}
    if slot == "S" and not clause.subject:
        return _WHO[index]
    if slot in phrases:
        said = [_PHRASES[language](phrase, case, clause.person) for phrase in phrases[slot] if phrase is not None]
        return f" {_AND[index]} ".join(" ".join(words.split()) for words in said)
    if slot == "V" and clause.verb is not None:
        return _turkish_verb(clause, clause.verb) if language == "tur" else _verb(clause, clause.verb, language)
    if slot in "BQ":
        return _copula(clause, language) if slot == "B" else _question(clause, language)
    concept = clause.slot(slot)
    word = _word(concept, language)
    if slot == "T" and concept is not None:
        return _TIMES.get(concept.kind, ("{}",) * len(LANGUAGES))[index].format(word)
    if slot == "A" and concept is not None and language == "tur" and clause.mood == 0:
        return _attach(word, _TURKISH["copula"][clause.person], concept.second("tur"))
    return word + "j" if slot == "A" and word and language == "epo" and clause.plural else word


def _english_phrase(phrase: _Phrase, case: str, person: int) -> str:
    noun = phrase.head.word("eng")
    if phrase.count is not None:
        noun = phrase.head.second("eng") or _with_s(noun, ("s", "x", "ch", "sh"))
    rest = f"{_word(phrase.adjective, 'eng')} {noun}".strip()
    an = phrase.determiner == "a" and re.match("(?!uni|use)[aeiou]|honest", rest)
    return f"{'an' if an else _DETERMINERS[phrase.determiner][0]} {_word(phrase.count, 'eng')} {rest}"


def _esperanto_phrase(phrase: _Phrase, case: str, person: int) -> str:
    plural = "j" if phrase.count is not None else ""
    determiner, count = _DETERMINERS[phrase.determiner][1], _word(phrase.count, "epo")
    determiner += case if determiner not in ("", "la") else ""
    count += case if count.endswith("j") else ""
    words = [c.word("epo") + plural + case for c in (phrase.adjective, phrase.head) if c is not None]
    return " ".join([determiner, count, *words])


def _indonesian_phrase(phrase: _Phrase, case: str, person: int) -> str:
    classifier = {"person": "seorang", "kin": "seorang", "animal": "seekor"}.get(phrase.head.kind, "sebuah")
    before = classifier if phrase.determiner == "a" else _word(phrase.count, "ind")
    after = "" if case == "bare" and phrase.determiner == "the" else _DETERMINERS[phrase.determiner][2]
    return f"{before} {phrase.head.word('ind')} {_word(phrase.adjective, 'ind')} {after}"


def _turkish_phrase(phrase: _Phrase, case: str, person: int) -> str:
    word, soft, determiner = phrase.head.word("tur"), phrase.head.second("tur"), _DETERMINERS[phrase.determiner][3]
    if phrase.head.part == "pronoun":
        return _TURKISH_GENITIVES[_PRONOUNS.index(phrase.head.word("eng"))] if case == "gen" else word
    if determiner in _TURKISH_GENITIVES or case == "own":
        owner = _TURKISH_GENITIVES.index(determiner) if determiner in _TURKISH_GENITIVES else person
        word, soft = _attach(word, _TURKISH["owner"][owner], soft), ""
        determiner = "" if determiner == _TURKISH_GENITIVES[person] else determiner  # ben says benim already
    if case in _TURKISH_CASES and not (case == "acc" and phrase.determiner in ("", "a")):  # indefinite: no accusative
        word = _attach(word, _TURKISH_CASES[case], soft)
    words = [_word(phrase.count, "tur"), _word(phrase.adjective, "tur")]
    return " ".join([*words, determiner, word] if determiner == "bir" else [determiner, *words, word])


_PHRASES = {"eng": _english_phrase, "epo": _esperanto_phrase, "ind": _indonesian_phrase, "tur": _turkish_phrase}


def _word(concept: Concept | None, language: str) -> str:
    return "" if concept is None else concept.word(language)


def _with_s(word: str, hissing: tuple[str, ...]) -> str:
    return f"{word}es" if word.endswith(hissing) else re.sub("(?<![aeiou])y$", "ie", word) + "s"


def _verb(clause: _Clause, verb: Concept, language: str) -> str:
    pattern = _VERBS[clause.tense][LANGUAGES.index(language)].split("|")[clause.mood]
    word, third = verb.word(language), clause.person == 2 and not clause.plural
    return pattern.format(
        v=word.removesuffix("i") if language == "epo" else word,
        vs=_with_s(word, ("s", "x", "ch", "sh", "o")) if third else word,
        ved=verb.second(language) or re.sub("(?<![aeiou])y$", "i", word) + ("d" if word.endswith("e") else "ed"),
        do="does" if third else "do",
        want="wants" if third else "want",
    )


def _turkish_verb(clause: _Clause, verb: Concept) -> str:
    stem, soft, endings, infinitive = verb.word("tur")[:-3], verb.second("tur"), clause.tense, ""
    if clause.tense == "want":
        stem, soft, endings, infinitive = "iste", "", "present", verb.word("tur") + " "
    if clause.mood == 1 and clause.tense == "can":
        endings = "cannot"
    elif clause.mood == 1:
        stem, soft = _attach(stem, "mA", ""), ""
    if clause.mood == 2 and endings != "past" and clause.person != 4:  # the person moves on to the question word
        return infinitive + _turkish_question(_attach(stem, _TURKISH[endings][2], soft), clause.person)
    said = infinitive + _attach(stem, _TURKISH[endings][clause.person], soft)
    return _attach(said, " mI", "") if clause.mood == 2 else said


def _turkish_question(said: str, person: int) -> str:
    return _attach(_attach(said, " mI", ""), _TURKISH["copula"][person], "")


def _copula(clause: _Clause, language: str) -> str:
    plain, negative = clause.mood == 0, clause.mood == 1
    if language == "eng" and clause.template == "own":
        return "has" if clause.person == 2 and not clause.plural else "have"
    if language == "eng":
        return f"{_be(clause)} not" if negative else _be(clause) * plain
    if language == "epo":
        return "ne estas" if negative else "estas"
    if language == "ind":
        return ("bukan" if negative else "adalah") if clause.template == "name" else "tidak" * negative
    if negative:
        return _attach("değil", _TURKISH["copula"][clause.person], "")
    said = _word(clause.slot("A") or clause.slot("R"), "tur")
    return "" if plain else _turkish_question(said, clause.person).removeprefix(said)


def _be(clause: _Clause) -> str:
    return "are" if clause.plural else ("am", "are", "is")[clause.person]


def _question(clause: _Clause, language: str) -> str:
    if clause.mood != 2 or language != "eng":
        return {"epo": "ĉu", "ind": "apakah"}.get(language, "") if clause.mood == 2 else ""
    does = "does" if clause.person == 2 and not clause.plural else "do"
    return {"past": "did", "future": "will", "can": "can"}.get(clause.tense, does) if clause.verb else _be(clause)


def _attach(word: str, suffix: str, soft: str) -> str:
    """A Turkish word with a suffix, by vowel harmony.

    Args:
        word: word or stem.
        suffix: `A` is e or a, `I` is i, ı, ü or u, `D` is d or t; a first letter in parentheses stands only between
            two vowels (y, s, n) or two consonants (I); a first `I` takes the place of a vowel before it.
        soft: the stem before a vowel where it differs, else empty.
    """
    word = (soft or word) if suffix.startswith(("(", "I")) else word
    open_end = word[-1] in "aeıioöuü"
    if suffix.startswith("("):
        suffix = suffix[1] * ((suffix[1] == "I") != open_end) + suffix[3:]
    elif suffix.startswith("I") and open_end:
        word = word[:-1]
    for letter in suffix:
        vowel = (re.findall("[aeıioöuü]", word) or ["i"])[-1]
        front_or_back = "e" if vowel in "eiöü" else "a"
        high = {"a": "ı", "e": "i", "o": "u", "ö": "ü"}.get(vowel, vowel)
        word += {"A": front_or_back, "I": high, "D": "t" if word[-1] in "fstkçşhp" else "d"}.get(letter, letter)
    return word


# Who does what to whom: kinds of nouns and verbs that go together, and how often.

_HUMAN, _IN, _THING = "person kin", "building outdoors", "thing text clothing"
_FRAMES = (  # weight, template, verb, subject, object, goal, place
    (60, "act", "meal", _HUMAN, "food staple", "", _IN),
    (16, "act", "drink", _HUMAN, "drink", "", _IN),
    (40, "act", "trade", _HUMAN, f"food staple ingredient drink {_THING} furniture", "", "building"),
    (14, "act", "trade", _HUMAN, "ingredient drink", "", "building"),
    (90, "act", "handle", _HUMAN, "thing", "", _IN),
    (90, "act", "social", _HUMAN, _HUMAN, "", _IN),
    (24, "act", "hunt", _HUMAN, "animal", "", "outdoors"),
    (40, "act", "attack", "animal", "person animal", "", "outdoors"),
    (50, "act", "read", _HUMAN, "text", "", "building"),
    (36, "act", "dress", _HUMAN, "clothing", "", "building"),
    (34, "act", "upkeep", _HUMAN, "vehicle furniture panel", "", ""),
    (18, "act", "rent", _HUMAN, "vehicle", "", _IN),
    (36, "act", "build", _HUMAN, "building", "", "outdoors"),
    (20, "act", "open", _HUMAN, "panel", "", "building"),
    (64, "act", "see", _HUMAN, "sight landmark building outdoors animal vehicle", "", "outdoors"),
    (14, "act", "see", _HUMAN, "sight", "", "outdoors"),
    (50, "act", "treat", _HUMAN, "body", "", "building"),
    (36, "act", "learn", _HUMAN, "field", "", "building"),
    (36, "act", "discuss", _HUMAN, "", "field topic", "building"),
    (60, "act", "move", _HUMAN, "", f"{_IN} landmark", ""),
    (40, "act", "give", _HUMAN, f"food {_THING}", _HUMAN, ""),
    (80, "act", "person", _HUMAN, "", "", _IN),
    (60, "act", "living", "person kin animal", "", "", _IN),
    (15, "act", "meal", "", "food staple", "", _IN),
    (15, "act", "handle", "", "thing", "", _IN),
    (90, "be", "", "person kin animal", "", "", ""),
    (60, "be", "", f"food staple drink {_THING} vehicle furniture panel building body", "", "", ""),
    (20, "be", "", "vehicle body clothing", "", "", ""),
    (30, "be", "", "field topic outdoors landmark", "", "", ""),
    (50, "be", "", f"animal {_THING}", "", "furniture", ""),
    (40, "be", "", "person animal vehicle", "", "building landmark furniture", ""),
    (30, "name", "", "kin", "", "person", ""),
    (40, "exist", "", "person animal thing", "", "", _IN),
    (40, "own", "", _HUMAN, f"animal vehicle furniture {_THING}", "", ""),
)
_QUALITIES = {  # the kinds of adjectives that a kind of noun takes
    "person": "mood trait build", "kin": "mood trait build", "animal": "size build beast shade",
    "food": "taste ripeness size cost texture", "staple": "taste heat texture cost", "ingredient": "cost",
    "drink": "heat taste", "text": "value looks", "thing": "size looks shade colour cost state material",
    "clothing": "size looks shade colour cost state", "vehicle": "size looks shade colour cost speed",
    "furniture": "size looks shade colour cost material texture", "panel": "size looks shade colour",
    "building": "size looks space", "outdoors": "size looks", "landmark": "size looks", "sight": "size looks",
    "body": "size state heat", "field": "value", "topic": "value",
}  # fmt: skip
_CHOICES = {  # determiners by kind of noun, else by template; # is a number, - none
    "kin": "my your", "body": "the my your our", "staple": "the - my our", "ingredient": "the - my our",
    "drink": "the - this my", "field": "-", "topic": "-", "building": "the the a this", "outdoors": "the the a this",
    "landmark": "the the a this", "sight": "the the a #", "act": "the the the a this my your our #",
    "be": "the the the this my your our #", "exist": "a #", "own": "the my your our #", "name": "my your",
}  # fmt: skip


class _Speaker:
    """Draws meanings; each kind of word is a deck that is dealt to the end before it is shuffled again."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.decks: dict[tuple[str, str], list[Concept]] = {}

    def draw(self, part: str, kinds: str) -> Concept:
        deck = self.decks.setdefault((part, kinds), [])
        if not deck:
            cards = [c for c in _lexicon() if c.part == part and c.kind in kinds.split()]
            deck.extend(cards[i] for i in self.rng.permutation(len(cards)))
        return deck.pop()

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, choices: str) -> str:
        return str(self.rng.choice(choices.split()))

    def phrase(self, kinds: str, choices: str = "", adjectives: float = 0.3) -> _Phrase:
        head = self.draw("noun", kinds)
        determiner = self.pick(_CHOICES.get(head.kind) or choices or _CHOICES["act"])
        count = self.draw("number", "count vague") if determiner == "#" else None
        described = self.chance(adjectives) and head.kind not in ("field", "topic")
        adjective = self.draw("adjective", _QUALITIES[head.kind]) if described else None
        return _Phrase(head, determiner.strip("#-"), count, adjective)

    def clause(self) -> _Clause:
        weights = np.array([frame[0] for frame in _FRAMES])
        _, template, verbs, subjects, objects, goals, places = _FRAMES[
            self.rng.choice(len(_FRAMES), p=weights / weights.sum())
        ]
        subject: tuple[_Phrase, ...] = ()
        if "person" in subjects and template in ("act", "be") and not goals and self.chance(0.15):
            subject = (_Phrase(self.draw("pronoun", "person")),)
        elif subjects:
            pair = template in ("act", "be") and not goals and "topic" not in subjects and self.chance(0.12)
            adjectives = 0.0 if template == "be" and not goals else 0.3
            subject = tuple(self.phrase(subjects, _CHOICES[template], adjectives) for _ in range(1 + pair))
        mood = int(self.rng.choice(3, p=(0.76, 0.14, 0.10))) if subject and template in ("act", "be") else 0
        mood = int(self.chance(0.15)) if template == "name" else mood
        words: dict[str, Concept | None] = {}
        tense = "present"
        if template == "act":
            tense = self.pick("present present past past future want can")
            times = {"present": "present cycle", "past": "past weekday month cycle", "future": "future weekday month"}
            words["T"] = self.draw("time", times.get(tense, "future")) if self.chance(0.35) else None
            words["M"] = self.draw("opener", f"any {tense}") if subject and mood < 2 and self.chance(0.12) else None
        elif template == "be" and goals:
            words["R"] = self.draw("relation", "support nearby" if goals == "furniture" else "nearby")
        elif template == "be":
            words["A"] = self.draw("adjective", _QUALITIES[subject[0].head.kind])
            words["I"] = self.draw("degree", "any") if mood == 0 and self.chance(0.4) else None
        return _Clause(
            template,
            subject,
            self.draw("verb", verbs) if verbs else None,
            self.phrase(objects, "a #" if template == "own" else "") if objects else None,
            self.phrase(goals, "a" if template == "name" else "") if goals else None,
            self.phrase(places) if places and (template == "exist" or self.chance(0.3)) else None,
            words,
            tense,
            mood,
        )


def parallel_sentences(count: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Distinct sentences, each in every language: lower case, no punctuation, words between spaces.

    No two share all their nouns, verbs and adjectives, so that no sentence can be taken for another in any language.
    4 to 14 English words, 3 to 14 in the other languages.

    Args:
        count: how many; tens of thousands are no problem.
        rng: decides them all; equal seed, equal sentences.

    Returns:
        For each sentence a dictionary from language to text.
    """
    speaker, seen, sentences = _Speaker(rng), set[frozenset[Concept]](), list[dict[str, str]]()
    while len(sentences) < count:
        clauses, link = [speaker.clause()], _AND if speaker.chance(0.6) else _BUT
        short = not any((clauses[0].object, clauses[0].goal, clauses[0].place, clauses[0].slot("M")))
        if short and clauses[0].mood < 2 and speaker.chance(0.6):
            clauses.append(speaker.clause())
        said = {
            language: f" {link[index]} ".join(_say(clause, language) for clause in clauses)
            for index, language in enumerate(LANGUAGES)
        }
        lengths = [len(text.split()) for text in said.values()]
        content = [concept for clause in clauses for concept in clause.content]
        joinable = len(clauses) == 1 or (clauses[1].mood < 2 and clauses[1].subject and not clauses[1].slot("M"))
        fits = lengths[0] >= 4 and min(lengths) >= 3 and max(lengths) <= 14 and joinable
        if fits and len(set(content)) == len(content) > 1 and frozenset(content) not in seen:
            seen.add(frozenset(content))
            sentences.append(said)
    return sentences


def train_vectors(sentences: Sequence[Mapping[str, str]], dim: int, seed: int, path: str | Path) -> None:
    """Train word vectors on aligned sentences with fastText and write them as text, `lng:word`, most frequent first.

    A line of the corpus is a sentence in all its languages, shuffled, so that translations share their contexts. One
    thread makes equal seeds equal bytes; the start is given, because with one thread fastText leaves nine tenths of the
    rows at zero, and may end in NaN.

    Args:
        sentences: from language to text, as from `parallel_sentences`.
        dim: width of the vectors.
        seed: of the shuffle and of the start; fastText has no seed of its own here, one thread always draws the same.
        path: the `.vec` file to write; its folder must exist.
    """
    import fasttext

    rng = np.random.default_rng(seed)
    tagged = [[f"{language}:{word}" for language in s for word in s[language].split()] for s in sentences]
    counts = Counter(word for words in tagged for word in words)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    with tempfile.TemporaryDirectory() as folder:
        corpus, start = Path(folder, "corpus.txt"), Path(folder, "start.vec")
        lines = (" ".join(words[i] for i in rng.permutation(len(words))) for words in tagged)
        corpus.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        _write_vec(start, ["</s>", *ordered], rng.uniform(-1 / dim, 1 / dim, (len(ordered) + 1, dim)))
        model = fasttext.train_unsupervised(
            str(corpus), model="skipgram", dim=dim, ws=15, epoch=3, lr=0.1, neg=5, t=1.0, minCount=1,
            minn=0, maxn=0, bucket=1, thread=1, verbose=0, pretrainedVectors=str(start),
        )  # fmt: skip
    _write_vec(Path(path), ordered, np.array([model.get_word_vector(word) for word in ordered]))


def _write_vec(path: Path, words: Sequence[str], vectors: np.ndarray) -> None:
    rows = (f"{word} {' '.join(f'{value:.5f}' for value in row)}\n" for word, row in zip(words, vectors, strict=True))
    path.write_text(f"{len(words)} {vectors.shape[1]}\n" + "".join(rows), encoding="utf-8")
