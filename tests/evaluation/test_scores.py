"""Scores of any shape: in memory, printed, on disk; and tasks that one file adds."""

import json
from html.parser import HTMLParser

import pytest
from transformers import AutoModel, AutoTokenizer

import hyperofa.evaluation
from hyperofa.errors import InputError
from hyperofa.evaluation.evaluate import evaluate
from hyperofa.evaluation.scores import Metric, Scores, numbers_in
from hyperofa.evaluation.task import Finding, Task, find_tasks, register_task

ACCURACY = {"top1": Metric("top-1 accuracy"), "top10": Metric("top-10 accuracy", main=True)}
LOSS = {"bits": Metric("bits per byte", "bits", "lower", 3, main=True), "lines": Metric("lines <read>", "", None, 0)}


@pytest.fixture
def scores():
    retrieval = {
        "top1": {"eng": 100.0, "deu": 10.0, "tur": 20.0},
        "top10": {"eng": 100.0, "deu": 30.0, "tur": 50.0, "epo": 40.0},
    }
    loss = {"bits": {"text": 1.25}, "lines": {"text": 7.0}}
    details = {"loss": {"setting": "expansion", "positions": 1200, "share": 0.5, "greediest": {"a": 0.25}}}
    return Scores({"SR-B": retrieval, "loss": loss}, {"SR-B": ACCURACY, "loss": LOSS}, details)


def test_a_mapping_by_task_metric_and_language(scores):
    assert list(scores) == ["SR-B", "loss"]
    assert scores["SR-B"]["top10"]["deu"] == 30
    assert scores.get("NER") is None
    assert [scores.main(task) for task in scores] == ["top10", "bits"]
    assert [scores.main(task, "top1") for task in scores] == ["top1", "bits"]
    with pytest.raises(
        ValueError, match=r"SR-B: expected a Metric that describes each number, found none for \['f1'\]"
    ):
        Scores({"SR-B": {"f1": {"deu": 1.0}}}, {"SR-B": ACCURACY})


def test_means_leave_english_out(scores):
    assert scores.means() == {"SR-B": {"top1": 15.0, "top10": 40.0}, "loss": {"bits": 1.25, "lines": 7.0}}
    assert Scores({"SR-B": {"top1": {"eng": 1.0}}}, {"SR-B": ACCURACY}).means() == {}


def test_the_better_of_two():
    assert ACCURACY["top1"].best([1, 3, 2]) == 3
    assert LOSS["bits"].best([1, 3, 2]) == 1
    assert LOSS["lines"].best([1, 3, 2]) is None
    assert ACCURACY["top1"].best([]) is None


def test_printed_as_tables(scores):
    assert str(scores) == (
        "SR-B       top-1 accuracy (%)  top-10 accuracy (%)\n"
        "eng                     100.0                100.0\n"
        "deu                      10.0                 30.0\n"
        "tur                      20.0                 50.0\n"
        "epo                         –                 40.0\n"
        "mean of 3                15.0                 40.0\n"
        "\n"
        "loss                   text\n"
        "bits per byte (bits)  1.250\n"
        "lines <read>              7\n"
        "(setting expansion, positions 1,200, share 0.5, greediest 'a': 0.25)"
    )


def test_shown_in_a_notebook(scores):
    class Cells(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.text = [], []

        def handle_starttag(self, tag, attributes):
            self.tags.append(tag)

        def handle_data(self, data):
            self.text.append(data)

    page = Cells()
    page.feed(scores._repr_html_())
    assert page.tags.count("table") == 2
    assert page.tags.count("td") == 5 * 2 + 2
    assert {"SR-B", "top-10 accuracy (%)", "mean of 3", "lines <read>"} <= set(page.text)


def test_json_keeps_everything(scores, tmp_path):
    scores.save(tmp_path / "scores.json")
    assert Scores.load(tmp_path / "scores.json") == scores
    (tmp_path / "other.json").write_text('{"mrr": 1}')
    with pytest.raises(InputError, match=r"other.json: expected scores that `hyperofa evaluate --output` wrote"):
        Scores.load(tmp_path / "other.json")


def test_a_model_card_shows_numbers_alone(scores):
    found = numbers_in(json.loads(json.dumps(scores.as_dict() | {"sentences": 500})))
    assert found["SR-B"]["top10"] == {"mean": 40.0, "eng": 100.0, "deu": 30.0, "tur": 50.0, "epo": 40.0}
    assert set(found) == {"SR-B", "loss"}
    assert numbers_in({"mrr": 0.25}) == {"mrr": 0.25}


TASK_FILE = """
from types import SimpleNamespace
from hyperofa.evaluation.scores import Metric
from hyperofa.evaluation.task import Finding, Task

def read(request):
    files = [] if request.data is None else sorted(request.data.glob("*.words"))
    return [SimpleNamespace(language=file.stem, words=file.read_text().split()) for file in files]

def score(samples, target, source, request):
    rates = {each.language: sum(len(target[1].tokenize(word)) for word in each.words) / len(each.words)
             for each in samples}
    return Finding({"fertility": {"rate": rates}}, draw=lambda path: path.with_suffix(".txt").write_text("drawn"))

TASK = Task("fertility", {"rate": Metric("tokens a word", "", "lower", 2, main=True)}, "data", "LNG.words", read, score)
"""


@pytest.fixture
def room(tmp_path, monkeypatch):
    """The room of evaluation with one more file."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "fertility.py").write_text(TASK_FILE)
    monkeypatch.setattr(hyperofa.evaluation, "__path__", [*hyperofa.evaluation.__path__, str(tmp_path / "room")])
    (tmp_path / "data").mkdir()
    for language, words in {"deu": "haus maus", "fin": "talo"}.items():
        (tmp_path / "data" / f"{language}.words").write_text(words)
    return tmp_path


def test_one_file_is_a_task(room, model_folders):
    built_in = {"language_model", "retrieval", "shift", "tagging"}
    assert {"fertility", *built_in} <= {task.name for task in find_tasks()}
    folder = model_folders["bert"]
    pair = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    scores = evaluate(pair, folder, room / "data", output=room / "out" / "scores.json")
    words = {"deu": ["haus", "maus"], "fin": ["talo"]}
    expected = {name: sum(len(pair[1].tokenize(w)) for w in found) / len(found) for name, found in words.items()}
    assert scores["fertility"]["rate"] == expected
    assert Scores.load(room / "out" / "scores.json") == scores
    assert (room / "out" / "scores.txt").read_text() == "drawn"
    assert list(evaluate(pair, pair, room / "data", languages=["fin"])["fertility"]["rate"]) == ["fin"]
    with pytest.raises(InputError, match="languages='xxx': expected languages with sentences in data"):
        evaluate(pair, pair, room / "data", languages=["fin", "xxx"])


def test_a_task_may_be_registered(monkeypatch, tmp_path):
    monkeypatch.setattr("hyperofa.evaluation.task._REGISTERED", {})
    with pytest.raises(ValueError, match="expected one main metric"):
        Task("two", ACCURACY | LOSS, "data", "x", lambda _: [], lambda *_: Finding({}))
    register_task(Task("own", LOSS, "data", "own.txt", lambda _: [], lambda *_: Finding({})))
    assert find_tasks()[-1].name == "own"
    with pytest.raises(InputError, match=r"expected heldout.tsv.gz or .* or pos/.* or own.txt in it"):
        evaluate("m", "m", tmp_path)


def test_models_are_folders_or_in_memory(model_folders, room):
    with pytest.raises(InputError, match=r"model: expected a folder, a hub id or \(model, tokenizer\), found NoneType"):
        evaluate(None, model_folders["bert"], room / "data")
