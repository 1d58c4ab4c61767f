import pytest
import torch

from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.evaluation.tagged_text import TaggedSentence, entities, read_bio, read_conllu
from hyperofa.evaluation.tagging import _first_tokens, f1, label_words, train_tagger
from hyperofa.models.loading import load_model
from hyperofa.tokens.canonical import load_tokenizer

CONLLU = """# sent_id = 1
# text = the river's town
1\tthe\tthe\tDET\t_\t_\t0\t_\t_\t_
2-3\triver's\t_\t_\t_\t_\t_\t_\t_\t_
2\triver\triver\tNOUN\t_\t_\t0\t_\t_\tSpaceAfter=No|X=1
3\t's\t's\tPART\t_\t_\t0\t_\t_\t_
3.1\tgone\tgo\tVERB\t_\t_\t_\t_\t_\t_
4\ttown\ttown\tNOUN\t_\t_\t0\t_\t_\t_

1\train\train\tNOUN\t_\t_\t0\t_\t_\t_
"""


def test_words_of_conllu_stand_where_the_text_has_them(tmp_path):
    (tmp_path / "test.conllu").write_text(CONLLU, encoding="utf-8")
    first, second = read_conllu(tmp_path / "test.conllu")
    assert first.text == "the river's town"
    assert [first.text[a:b] for a, b in zip(first.starts, first.ends, strict=True)] == ["the", "river", "'s", "town"]
    assert first.labels == ["DET", "NOUN", "PART", "NOUN"]
    assert (second.text, second.labels) == ("rain", ["NOUN"])


def test_words_of_bio(tmp_path):
    text = "-DOCSTART- -X- O\n\nAnna NNP B-PER\nsees VBZ O\n# NN O\n\nRom\tB-LOC\n"
    (tmp_path / "test.bio").write_text(text, encoding="utf-8")
    first, second = read_bio(tmp_path / "test.bio")
    assert (first.text, first.labels, second.labels) == ("Anna sees #", ["B-PER", "O", "O"], ["B-LOC"])


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (read_conllu, "1\tthe\tDET\n", "line 1: expected 10 tab-separated columns, found 3"),
        (read_bio, "\nAnna\n", r"line 2: expected a word and a label"),
        (read_bio, "Anna PER\n", r"line 1: expected a word and a label"),
    ],
)
def test_a_damaged_file_is_refused(read, text, message, tmp_path):
    (tmp_path / "test").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read(tmp_path / "test")


def test_entities_are_those_of_conlleval():
    assert entities(["B-PER", "I-PER", "B-PER", "O", "I-LOC", "I-PER", "B-LOC"]) == {
        ("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5), ("PER", 5, 6), ("LOC", 6, 7),
    }  # fmt: skip
    assert entities(["O", "O"]) == set()


def test_f1_of_entities_and_of_words():
    found = [(["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "O", "B-LOC"]), (["O"], ["B-LOC"])]
    assert f1(found, "NER") == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert f1(found, "POS") == pytest.approx(100 * 3 / 5)
    assert f1([], "NER") == 0


@pytest.mark.parametrize("name", ["bert", "roberta", "xlmr"])
def test_a_word_is_labelled_at_its_first_token(name, model_folders):
    tokenizer = load_tokenizer(model_folders[name])
    sentence = TaggedSentence("the river, town", [0, 4, 9, 11], [3, 9, 10, 15], ["D", "N", "P", "N"])
    encoded = tokenizer(sentence.text, return_offsets_mapping=True, return_tensors="pt")
    found = _first_tokens(sentence, encoded["offset_mapping"][0])
    assert [word for word, _ in found] == [0, 1, 2, 3]
    spans = [encoded["offset_mapping"][0, token].tolist() for _, token in found]
    pieces = [sentence.text[start:end].strip() for start, end in spans]
    words = ("the", "river", ",", "town")
    assert all(piece and word.startswith(piece) for word, piece in zip(words, pieces, strict=True))


def _sentences(count):
    words = ["river", "town", "rain"]
    texts = [[words[number % 3], words[(number + 1) % 3]] for number in range(count)]
    labels = {"river": "B-LOC", "town": "B-LOC", "rain": "O"}
    return "\n".join("".join(f"{word} {labels[word]}\n" for word in text) for text in texts)


@pytest.mark.slow
def test_entities_are_learned_and_the_model_stays(model_folders, tmp_path, monkeypatch):
    monkeypatch.setattr("hyperofa.evaluation.tagging._RATE", 1e-2)  # a tiny model, and few sentences
    monkeypatch.setattr("hyperofa.evaluation.tagging._EPOCHS", 40)
    for language, name in (("eng", "train"), ("eng", "test"), ("deu", "test")):
        (tmp_path / "ner" / language).mkdir(parents=True, exist_ok=True)
        (tmp_path / "ner" / language / f"{name}.bio").write_text(_sentences(96 if name == "train" else 6), "utf-8")
    model = load_model(model_folders["bert"]), load_tokenizer(model_folders["bert"])
    before = {name: value.clone() for name, value in model[0].state_dict().items()}
    scores = evaluate(model, model, tmp_path)
    assert scores["NER"]["f1"] == {"deu": 100.0, "eng": 100.0}
    assert all(torch.equal(value, before[name]) for name, value in model[0].state_dict().items())
    train = read_bio(tmp_path / "ner" / "eng" / "train.bio")
    again = train_tagger(model, train, "again")
    twice = train_tagger(model, train, "twice")
    assert all(torch.equal(*pair) for pair in zip(again.parameters(), twice.parameters(), strict=True))
    assert len(label_words(again, train)) == 96


def test_without_training_sentences_nothing_is_learned(model_folders, tmp_path):
    (tmp_path / "pos" / "deu").mkdir(parents=True)
    (tmp_path / "pos" / "deu" / "test.conllu").write_text(CONLLU, encoding="utf-8")
    with pytest.raises(InputError, match=r"expected .*pos/eng/train\.conllu to learn POS from, found none"):
        evaluate(model_folders["bert"], model_folders["bert"], tmp_path)
