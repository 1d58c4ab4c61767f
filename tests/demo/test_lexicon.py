from collections import Counter

import pytest

from hyperofa.demo import lexicon as module
from hyperofa.demo.lexicon import LANGUAGES, lexicon


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
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match=message):
        lexicon.__wrapped__()
