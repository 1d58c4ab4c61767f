"""A small grammar of four languages: what is said, as a meaning, and how each language says it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hyperofa.demo.lexicon import LANGUAGES, Concept

# What is said: meanings, not yet words.


@dataclass(frozen=True)
class Phrase:
    """A noun or pronoun with what goes before it.

    Attributes:
        head: the noun or pronoun.
        determiner: a key of `_DETERMINERS`.
        count: a number, which makes the noun plural.
        adjective: a quality.
    """

    head: Concept
    determiner: str = ""
    count: Concept | None = None
    adjective: Concept | None = None


@dataclass(frozen=True)
class Clause:
    """What is said, in no language yet.

    Attributes:
        template: a key of `_TEMPLATES`.
        subject: one phrase, or several joined by "and"; none asks "who".
        verb: of the template "act".
        object: its object.
        goal: recipient, landmark, profession, destination or topic, as the verb or the template has it.
        place: where.
        words: other words by slot: T, M, I, R, A.
        tense: a key of `_VERBS`; "want" and "can" are tenses here.
        mood: 0 plain, 1 negative, 2 question.
    """

    template: str
    subject: tuple[Phrase, ...] = ()
    verb: Concept | None = None
    object: Phrase | None = None
    goal: Phrase | None = None
    place: Phrase | None = None
    words: Mapping[str, Concept | None] | None = None
    tense: str = "present"
    mood: int = 0

    @property
    def person(self) -> int:
        """Index into i, you, she, we, they; any noun is a she."""
        first = self.subject[0].head if self.subject else None
        return _PRONOUNS.index(first.word("eng")) if first is not None and first.part == "pronoun" else 2

    @property
    def plural(self) -> bool:
        """Whether a verb or adjective must agree with more than one."""
        return self.person > 2 or len(self.subject) > 1 or any(phrase.count is not None for phrase in self.subject)

    def slot(self, name: str) -> Concept | None:
        """The word of a slot of `words`."""
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
_WHO, AND, BUT = ("who", "kiu", "siapa yang", "kim"), ("and", "kaj", "dan", "ve"), ("but", "sed", "tetapi", "ama")


def say(clause: Clause, language: str) -> str:
    """A clause in one of `LANGUAGES`: lower case, words between single spaces.

    Args:
        clause: what is said.
        language: one of `LANGUAGES`.
    """

    def fill(match: re.Match[str]) -> str:
        before, slot, case, after = match.groups(default="")
        filled = _slot(clause, language, slot, case)
        return f"{before}{filled}{after}" if filled else ""

    template = _TEMPLATES[clause.template][LANGUAGES.index(language)]
    return " ".join(re.sub(r"(?:\[([^\[{]*))?\{(\w)(?::(\w+))?\}(?:([^{\[]*)\])?", fill, template).split())


def _slot(clause: Clause, language: str, slot: str, case: str) -> str:
    """The words of one slot, or the empty string."""
    index = LANGUAGES.index(language)
    goal = {"move": "D", "discuss": "X"}.get(clause.verb.kind if clause.verb else "", "G")
    phrases = {"S": clause.subject, "O": (clause.object,), goal: (clause.goal,), "P": (clause.place,)}
    if slot == "S" and not clause.subject:
        return _WHO[index]
    if slot in phrases:
        said = [_PHRASES[language](phrase, case, clause.person) for phrase in phrases[slot] if phrase is not None]
        return f" {AND[index]} ".join(" ".join(words.split()) for words in said)
    if slot == "V" and clause.verb is not None:
        return _turkish_verb(clause, clause.verb) if language == "tur" else _verb(clause, clause.verb, language)
    if slot in "BQ":
        return _copula(clause, language) if slot == "B" else _question(clause, language)
    concept = clause.slot(slot)
    word = _word(concept, language)
    if slot == "T" and concept is not None:
        return _TIMES.get(concept.kind, ("{}",) * len(LANGUAGES))[index].format(word)
    if slot == "A" and concept is not None and language == "tur" and clause.mood == 0:
        return attach(word, _TURKISH["copula"][clause.person], concept.second("tur"))
    return word + "j" if slot == "A" and word and language == "epo" and clause.plural else word


def _english_phrase(phrase: Phrase, case: str, person: int) -> str:
    noun = phrase.head.word("eng")
    if phrase.count is not None:
        noun = phrase.head.second("eng") or _with_s(noun, ("s", "x", "ch", "sh"))
    rest = f"{_word(phrase.adjective, 'eng')} {noun}".strip()
    an = phrase.determiner == "a" and re.match("(?!uni|use)[aeiou]|honest", rest)
    return f"{'an' if an else _DETERMINERS[phrase.determiner][0]} {_word(phrase.count, 'eng')} {rest}"


def _esperanto_phrase(phrase: Phrase, case: str, person: int) -> str:
    plural = "j" if phrase.count is not None else ""
    determiner, count = _DETERMINERS[phrase.determiner][1], _word(phrase.count, "epo")
    determiner += case if determiner not in ("", "la") else ""
    count += case if count.endswith("j") else ""
    words = [c.word("epo") + plural + case for c in (phrase.adjective, phrase.head) if c is not None]
    return " ".join([determiner, count, *words])


def _indonesian_phrase(phrase: Phrase, case: str, person: int) -> str:
    classifier = {"person": "seorang", "kin": "seorang", "animal": "seekor"}.get(phrase.head.kind, "sebuah")
    before = classifier if phrase.determiner == "a" else _word(phrase.count, "ind")
    after = "" if case == "bare" and phrase.determiner == "the" else _DETERMINERS[phrase.determiner][2]
    return f"{before} {phrase.head.word('ind')} {_word(phrase.adjective, 'ind')} {after}"


def _turkish_phrase(phrase: Phrase, case: str, person: int) -> str:
    word, soft, determiner = phrase.head.word("tur"), phrase.head.second("tur"), _DETERMINERS[phrase.determiner][3]
    if phrase.head.part == "pronoun":
        return _TURKISH_GENITIVES[_PRONOUNS.index(phrase.head.word("eng"))] if case == "gen" else word
    if determiner in _TURKISH_GENITIVES or case == "own":
        owner = _TURKISH_GENITIVES.index(determiner) if determiner in _TURKISH_GENITIVES else person
        word, soft = attach(word, _TURKISH["owner"][owner], soft), ""
        determiner = "" if determiner == _TURKISH_GENITIVES[person] else determiner  # ben says benim already
    if case in _TURKISH_CASES and not (case == "acc" and phrase.determiner in ("", "a")):  # indefinite: no accusative
        word = attach(word, _TURKISH_CASES[case], soft)
    words = [_word(phrase.count, "tur"), _word(phrase.adjective, "tur")]
    return " ".join([*words, determiner, word] if determiner == "bir" else [determiner, *words, word])


_PHRASES = {"eng": _english_phrase, "epo": _esperanto_phrase, "ind": _indonesian_phrase, "tur": _turkish_phrase}


def _word(concept: Concept | None, language: str) -> str:
    return "" if concept is None else concept.word(language)


def _with_s(word: str, hissing: tuple[str, ...]) -> str:
    return f"{word}es" if word.endswith(hissing) else re.sub("(?<![aeiou])y$", "ie", word) + "s"


def _verb(clause: Clause, verb: Concept, language: str) -> str:
    pattern = _VERBS[clause.tense][LANGUAGES.index(language)].split("|")[clause.mood]
    word, third = verb.word(language), clause.person == 2 and not clause.plural
    return pattern.format(
        v=word.removesuffix("i") if language == "epo" else word,
        vs=_with_s(word, ("s", "x", "ch", "sh", "o")) if third else word,
        ved=verb.second(language) or re.sub("(?<![aeiou])y$", "i", word) + ("d" if word.endswith("e") else "ed"),
        do="does" if third else "do",
        want="wants" if third else "want",
    )


def _turkish_verb(clause: Clause, verb: Concept) -> str:
    stem, soft, endings, infinitive = verb.word("tur")[:-3], verb.second("tur"), clause.tense, ""
    if clause.tense == "want":
        stem, soft, endings, infinitive = "iste", "", "present", verb.word("tur") + " "
    if clause.mood == 1 and clause.tense == "can":
        endings = "cannot"
    elif clause.mood == 1:
        stem, soft = attach(stem, "mA", ""), ""
    if clause.mood == 2 and endings != "past" and clause.person != 4:  # the person moves on to the question word
        return infinitive + _turkish_question(attach(stem, _TURKISH[endings][2], soft), clause.person)
    said = infinitive + attach(stem, _TURKISH[endings][clause.person], soft)
    return attach(said, " mI", "") if clause.mood == 2 else said


def _turkish_question(said: str, person: int) -> str:
    return attach(attach(said, " mI", ""), _TURKISH["copula"][person], "")


def _copula(clause: Clause, language: str) -> str:
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
        return attach("değil", _TURKISH["copula"][clause.person], "")
    said = _word(clause.slot("A") or clause.slot("R"), "tur")
    return "" if plain else _turkish_question(said, clause.person).removeprefix(said)


def _be(clause: Clause) -> str:
    return "are" if clause.plural else ("am", "are", "is")[clause.person]


def _question(clause: Clause, language: str) -> str:
    if clause.mood != 2 or language != "eng":
        return {"epo": "ĉu", "ind": "apakah"}.get(language, "") if clause.mood == 2 else ""
    does = "does" if clause.person == 2 and not clause.plural else "do"
    return {"past": "did", "future": "will", "can": "can"}.get(clause.tense, does) if clause.verb else _be(clause)


def attach(word: str, suffix: str, soft: str) -> str:
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
