"""A small multilingual world: who does what to whom, as parallel sentences, and word vectors trained on them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hyperofa.demo.grammar import AND, BUT, Clause, Phrase, say
from hyperofa.demo.lexicon import LANGUAGES, Concept, lexicon
from hyperofa.runtime.scratch import scratch_folder

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
            cards = [c for c in lexicon() if c.part == part and c.kind in kinds.split()]
            deck.extend(cards[i] for i in self.rng.permutation(len(cards)))
        return deck.pop()

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, choices: str) -> str:
        return str(self.rng.choice(choices.split()))

    def phrase(self, kinds: str, choices: str = "", adjectives: float = 0.3) -> Phrase:
        head = self.draw("noun", kinds)
        determiner = self.pick(_CHOICES.get(head.kind) or choices or _CHOICES["act"])
        count = self.draw("number", "count vague") if determiner == "#" else None
        described = self.chance(adjectives) and head.kind not in ("field", "topic")
        adjective = self.draw("adjective", _QUALITIES[head.kind]) if described else None
        return Phrase(head, determiner.strip("#-"), count, adjective)

    def clause(self) -> Clause:
        weights = np.array([frame[0] for frame in _FRAMES])
        _, template, verbs, subjects, objects, goals, places = _FRAMES[
            self.rng.choice(len(_FRAMES), p=weights / weights.sum())
        ]
        subject: tuple[Phrase, ...] = ()
        if "person" in subjects and template in ("act", "be") and not goals and self.chance(0.15):
            subject = (Phrase(self.draw("pronoun", "person")),)
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
        return Clause(
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
        clauses, link = [speaker.clause()], AND if speaker.chance(0.6) else BUT
        short = not any((clauses[0].object, clauses[0].goal, clauses[0].place, clauses[0].slot("M")))
        if short and clauses[0].mood < 2 and speaker.chance(0.6):
            clauses.append(speaker.clause())
        said = {
            language: f" {link[index]} ".join(say(clause, language) for clause in clauses)
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
    with scratch_folder("hyperofa-demo-") as folder:
        corpus, start = folder / "corpus.txt", folder / "start.vec"
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
