"""Tables, plots and the HTML report: the right numbers in the right places, in one file that needs no other."""

import csv
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from hyperofa.evaluation.retrieval import METRICS as RETRIEVAL
from hyperofa.evaluation.scores import Metric, Scores
from hyperofa.experiments.grid import WIDTH, expand
from hyperofa.experiments.report import Provenance, write_report, write_times
from hyperofa.experiments.results import Outcome, labels, other_metrics, tabulate
from hyperofa.experiments.statistics import holm, mean_interval
from hyperofa.experiments.tables import to_latex, to_markdown, write_csv
from hyperofa.runtime.calls import Call

LANGUAGES = ["deu", "rus", "swh", "tur", "fin", "hin", "vie", "yor"]
METHODS = {
    "Random": {"export.method": "random"},
    "OFA": {"export.method": "ofa"},
    "HYPER<OFA> & Co": {
        "export.method": "hyperofa",
        "fit.config": "f.yaml",
        "grid": {"fit.model.distance": ["l1", "mse"]},
    },
}
CALL = Call("ablate('out', metric='top1')", "python")
LEVELS = {"Random": 5, "OFA": 20, "HYPER<OFA> & Co": 30}


@pytest.fixture
def outcomes():
    """Made-up results in which the methods differ by what `LEVELS` says, at two widths and two seeds."""
    rng = np.random.default_rng(0)
    hardness = rng.uniform(-8, 8, len(LANGUAGES))
    found = []
    for cell in expand(METHODS, {"prepare.source_model": "m"}, {WIDTH: [100, None], "seed": [0, 1]}, "code"):
        level = (
            LEVELS[cell.method]
            + (5 if cell.width is None else 0)
            - (4 if cell.axes.get("fit.model.distance") == "mse" else 0)
        )
        scores = np.clip(level + hardness + rng.normal(0, 0.5, len(LANGUAGES)), 0, 100)
        top10 = {name: float(score) for name, score in zip(LANGUAGES, scores, strict=True)}
        top1 = {name: score / 2 for name, score in top10.items()}
        numbers = {
            "SR-B": {"top1": {"eng": 90.0, **top1}, "top10": {"eng": 95.0, **top10}},
            "SR-T": {"top1": {"deu": top1["deu"]}, "top10": {"deu": top10["deu"]}},
        }
        rows = {"copied": 30, "predicted": 60, "subtokens": 10, "mean": 0}
        result = {
            **Scores(numbers, dict.fromkeys(numbers, RETRIEVAL)).as_dict(),
            "rows": rows, "coordinate_dim": cell.width or 768, "explained": 0.5, "bundle": {"words": 10},
            "parameters": 1000 if cell.run else None,
            "seconds": {"export": 2.0} | ({"fit": 100.0} if cell.run else {}),
            "memory": {"cell": 700.0} | ({"fit": 2048.4} if cell.run else {}),
            "versions": {"torch": "2"},
        }  # fmt: skip
        if cell.run:
            empty = [{"low": n / 10, "rows": 0, "tokens": 0, "expected": None, "found": None} for n in range(8)]
            tests = {"tokens": 20, "expected": 0.85, "found": 0.75} if cell.seed == 0 else {**empty[0], "tokens": 0}
            sure = [{"low": 0.8, **tests, "rows": 45}, {**empty[0], "low": 0.9, "rows": 15}]
            result["confidence"] = {"mean": 0.8125, "bins": [*empty, *sure]}
        found.append(Outcome(cell, "finished", result))
    found[3] = Outcome(found[3].cell, "failed", None, "line one\nCUDA out of <memory>")
    return found


def test_labels_name_what_differs(outcomes):
    assert set(labels(outcomes).values()) == {
        "Random", "OFA", "HYPER<OFA> & Co, distance l1", "HYPER<OFA> & Co, distance mse",
    }  # fmt: skip


def test_entries_are_means_over_seeds_and_languages(outcomes):
    table = tabulate(outcomes, "OFA", "top10")
    entry = table.entries["Random", "100", "SR-B"]
    runs = [o.by_language("SR-B", "top10") for o in outcomes if o.cell.method == "Random" and o.cell.width == 100]
    assert (entry.seeds, len(runs)) == (2, 2)
    means = [np.mean([run[language] for run in runs]) for language in LANGUAGES]
    assert list(entry.by_language.values()) == pytest.approx(means)
    assert entry.score == mean_interval(means, np.random.default_rng(0))
    assert entry.spread == pytest.approx(np.std([np.mean(list(run.values())) for run in runs], ddof=1))
    ofa = table.entries["OFA", "100", "SR-B"]
    assert entry.difference.mean == pytest.approx(entry.score.mean - ofa.score.mean)
    assert entry.difference.high < 0
    assert ofa.difference is None
    # English is what the others are compared with, no language to score.
    assert "eng" not in entry.by_language
    assert tabulate(outcomes, "OFA", "top1").entries["OFA", "100", "SR-B"].score.mean == pytest.approx(
        ofa.score.mean / 2
    )


def test_an_interval_does_not_depend_on_the_other_methods(outcomes):
    alone = [outcome for outcome in outcomes if outcome.cell.method in ("Random", "OFA")]
    key = "Random", "100", "SR-B"
    assert tabulate(alone, "OFA", "top10").entries[key] == tabulate(outcomes, "OFA", "top10").entries[key]


def test_csv_has_a_row_a_cell(outcomes, tmp_path):
    write_csv(tmp_path / "results.csv", outcomes)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [outcome.cell.id for outcome in outcomes]
    assert len(set(rows[0])) == len(rows[0])
    row, outcome = rows[0], outcomes[0]
    assert (row["method"], row["prepare.coordinate_dim"], row["seed"], row["status"]) == (
        "Random",
        "100",
        "0",
        "finished",
    )
    assert float(row["SR-B top10 deu"]) == pytest.approx(outcome.by_language("SR-B", "top10")["deu"], abs=1e-4)
    assert float(row["SR-B top10"]) == pytest.approx(
        np.mean(list(outcome.by_language("SR-B", "top10").values())), abs=1e-4
    )
    assert rows[3]["status"] == "failed"
    assert rows[3]["error"] == "line one CUDA out of <memory>"
    assert rows[3]["SR-B top10"] == ""


def test_markdown(outcomes):
    text = to_markdown(tabulate(outcomes, "OFA", "top10"))
    lines = text.splitlines()
    assert lines[2] == "| | K = 100 SR-B | K = 100 SR-T | full width SR-B | full width SR-T |"
    assert all(line.count("|") == 6 for line in lines if line.startswith("|"))
    best = next(line for line in lines if "distance l1" in line)
    assert best.count("**") >= 4
    assert re.search(r"\*\*\d+\.\d\*\* \[\d+\.\d, \d+\.\d\]", best)
    differences = text.split("Difference to OFA")[1]
    assert "| OFA |" not in differences
    assert re.search(r"\| Random \| −\d+\.\d \[−\d+\.\d, −\d+\.\d\]", differences)


def test_latex(outcomes):
    text = to_latex(tabulate(outcomes, "OFA", "top10"))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert text.count("{") == text.count("}")
    assert r"\begin{tabular}{lcccc}" in text
    assert (
        r"\multicolumn{2}{c}{K = 100} & \multicolumn{2}{c}{full width} \\ \cmidrule(lr){2-3} \cmidrule(lr){4-5}" in text
    )
    assert r"HYPER<OFA> \& Co, distance l1 & \textbf{" in text
    assert "−" not in text
    for row in re.findall(r"^(?:Random|OFA|HYPER).*\\\\$", text, re.MULTILINE):
        assert row.count(" & ") == 4


class Checker(HTMLParser):
    """Whether tags close in order, and what a page loads."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def report(outcomes, tmp_path):
    trained = next(outcome.cell for outcome in outcomes if outcome.cell.run)
    (tmp_path / "runs" / trained.run).mkdir(parents=True)
    metrics = "step,train/token_loss,val/mrr,val/token_loss\n4,1.0,,\n4,,0.1,0.9\n9,,0.2,0.8\n"
    (tmp_path / "runs" / trained.run / "metrics.csv").write_text(metrics)
    provenance = Provenance("Tests & <tags>", "abc", {"prepare.source_model": "m"}, {"seed": [0, 1]}, METHODS, CALL)
    write_report(tmp_path, outcomes, "OFA", "top10", provenance)
    return tmp_path


def test_the_report_is_one_well_formed_file(report):
    page = (report / "report.html").read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert all(source.startswith("data:image/svg+xml;base64,") for source in checker.sources)
    assert len(checker.sources) == 5  # by width, two tasks by language, training, rows
    assert "url(" not in page
    text = " ".join(checker.text)
    assert "Tests & <tags>" in text
    assert "CUDA out of <memory>" in text
    assert "13 of 14" in text
    assert "HYPER<OFA> & Co, distance l1 is best at SR-B" in " ".join(text.split())
    assert "1,000" in text
    assert CALL.text in text
    told = " ".join(text[text.index("can be trusted") :].split())
    assert "distance l1 K = 100 0% – 0% – 0% – 0% – 0% – 0% – 0% – 0% – 75% 0.85, found 0.75 (20) 25% –" in told
    assert "OFA K = 100" not in told[: told.index("Settings")]
    assert page.index("Difference to OFA") < page.index("below it the 95 % bootstrap interval")
    assert page.count("<script>") == 1  # which sorts tables and shows their LaTeX


def test_times_are_in_a_file_of_their_own(report, outcomes):
    write_times(report, outcomes, 61.0)
    found = (report / "times.md").read_text(encoding="utf-8")
    assert "distance l1 | K = 100 | 1 min 40 s | 2,048 MiB | 2 s | 700 MiB |" in found
    assert "| OFA | K = 100 | – | – | 2 s | 700 MiB |" in found
    assert "this start 1 min 1 s." in found


def test_the_report_repeats_byte_for_byte_however_long_it_took(report, outcomes):
    for outcome in outcomes:
        if outcome.result is not None:
            outcome.result["seconds"] = {name: took * 2 for name, took in outcome.result["seconds"].items()}
    before = {path.name: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    provenance = Provenance("Tests & <tags>", "abc", {"prepare.source_model": "m"}, {"seed": [0, 1]}, METHODS, CALL)
    write_report(report, outcomes, "OFA", "top10", provenance)
    after = {path.name: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    assert before == after


def test_plots_are_vector_graphics_for_papers(report):
    names = {path.name for path in (report / "plots").iterdir()}
    for name in ("width", "languages-SR-B", "languages-SR-T", "training", "rows"):
        assert {f"{name}.svg", f"{name}.pdf"} <= names
        ElementTree.parse(report / "plots" / f"{name}.svg")
    text = (report / "plots" / "languages-SR-B.svg").read_text(encoding="utf-8")
    assert ">yor<" in text


def test_beside_each_plot_lies_what_it_draws(report, outcomes):
    def data(name):
        with (report / "plots" / f"{name}.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    table, row = tabulate(outcomes, "OFA", "top10"), "HYPER<OFA> & Co, distance l1"
    bars = {each["x"]: float(each["y"]) for each in data("languages-SR-B") if each["series"] == row}
    assert bars == pytest.approx(table.entries[row, "full", "SR-B"].by_language, rel=1e-5)
    drawn = {(each["panel"], each["x"]): float(each["y"]) for each in data("width") if each["series"] == "OFA"}
    means = {(task, x): table.entries["OFA", x.split()[0], task].score.mean
             for task in ("SR-B", "SR-T") for x in ("100", "full width")}  # fmt: skip
    assert drawn == pytest.approx(means, rel=1e-5)
    assert [(each["x"], each["y"]) for each in data("rows") if each["series"] == "predicted"][1] == ("OFA", "60")
    assert {each["x"] for each in data("training")} == {"4", "9"}
    page = (report / "report.html").read_text(encoding="utf-8")
    assert page.count("<summary>Data</summary>") == 5


def test_versions_that_differ_name_their_rows(outcomes, tmp_path):
    for outcome in outcomes:
        if outcome.cell.method == "OFA":
            outcome.result["versions"] = {"torch": "3"}
    write_report(tmp_path, outcomes, "OFA", "top10", Provenance("t", "c", {}, {}, METHODS, CALL))
    assert "; 3 (OFA)" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_of_nothing(outcomes, tmp_path):
    nothing = [Outcome(outcome.cell, "open") for outcome in outcomes]
    write_report(tmp_path, nothing, "OFA", "top10", Provenance("t", "c", {}, {}, {}, CALL))
    assert "No cell has finished" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert to_markdown(tabulate(nothing, "OFA", "top10")) == "No cell has finished.\n"
    assert to_latex(tabulate(nothing, "OFA", "top10")) == "% no cell has finished\n"


def test_without_a_baseline_there_are_no_differences(outcomes):
    table = tabulate(outcomes, "none of them", "top10")
    assert table.baseline == ""
    assert all(entry.difference is None for entry in table.entries.values())
    assert "Difference" not in to_markdown(table)


# --- tasks of any shape ----------------------------------------------------------------------------------------------

LOSS = {
    "bits": Metric("bits per byte", "bits", "lower", 3, main=True),
    "worst": Metric("worst line", "bits", "lower", 3),
    "lines": Metric("lines read", "", None, 0),
}


@pytest.fixture
def mixed(outcomes):
    """The same with a task where less is better, which knows no `top10`: the better at retrieval, the lower."""
    found = []
    for outcome in outcomes:
        if outcome.result is None:
            found.append(outcome)
            continue
        top10 = outcome.result["scores"]["SR-B"]["top10"]
        bits = {language: 5 - score / 20 for language, score in top10.items()}
        numbers = {"bits": bits, "worst": {name: 2 * value for name, value in bits.items()}}
        numbers["lines"] = dict.fromkeys(bits, 7.0)
        scores = Scores({**outcome.result["scores"], "loss": numbers}, {**outcome.scores.metrics, "loss": LOSS})
        found.append(Outcome(outcome.cell, "finished", outcome.result | scores.as_dict()))
    return found


def test_each_task_has_its_metric_and_its_direction(mixed):
    table = tabulate(mixed, "OFA", "top10")
    assert {task: metric.title for task, metric in table.metrics.items()} == {
        "SR-B": "top-10 accuracy", "SR-T": "top-10 accuracy", "loss": "bits per byte",
    }  # fmt: skip
    assert table.best("full", "loss") == table.best("full", "SR-B") == {"HYPER<OFA> & Co, distance l1"}
    better, worse = (
        table.entries["HYPER<OFA> & Co, distance l1", "full", "loss"],
        table.entries["Random", "full", "loss"],
    )
    assert better.difference.high < 0 < worse.difference.low
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert table.entries["Random", "full", "SR-B"].verdict == "worse"
    assert table.entries["OFA", "full", "loss"].verdict == "even"
    text = to_markdown(table)
    assert "SR-B: top-10 accuracy, in percent; SR-T: top-10 accuracy, in percent; loss: bits per byte, in bits" in text
    entry = table.entries["Random", "100", "loss"]
    assert f"{entry.score.mean:.3f} [{entry.score.low:.3f}, {entry.score.high:.3f}]" in text


def test_other_metrics_stand_in_the_appendix_where_one_way_is_better(mixed, tmp_path):
    assert other_metrics(mixed, "top10") == ["top1", "worst"]
    assert other_metrics(mixed, "top1") == ["top10", "worst"]
    assert list(tabulate(mixed, "OFA", "worst", strict=True).metrics) == ["loss"]
    write_report(tmp_path, mixed, "OFA", "top10", Provenance("t", "c", {}, {}, {}, CALL))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Under top-1 accuracy</h2>" in page
    assert "<h2>Under worst line</h2>" in page
    assert "lines read" not in page
    assert re.search(r"HYPER&lt;OFA&gt; &amp; Co, distance l1</b> is best at loss: \d\.\d{3} bits", page)
    assert (tmp_path / "plots" / "languages-loss.svg").is_file()
    svg = (tmp_path / "plots" / "languages-loss.svg").read_text(encoding="utf-8")
    assert "bits per byte (bits)" in svg
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert float(row["loss bits deu"]) == pytest.approx(mixed[0].by_language("loss", "bits")["deu"], abs=1e-5)
    assert float(row["loss lines"]) == 7


def test_a_cell_may_lack_a_task(mixed, outcomes):
    """As it does when it was evaluated before the task was added."""
    table = tabulate([*mixed[:5], *outcomes[5:]], "OFA", "top10")
    assert "loss" in table.metrics
    assert sum(task == "loss" for _, _, task in table.entries) < sum(task == "SR-B" for _, _, task in table.entries)


# --- tests of differences --------------------------------------------------------------------------------------------


def with_hits(outcome, share, seed):
    """The same outcome with one task of three languages of 200 sentences, found with some chance."""
    rng = np.random.default_rng(seed)
    hits = {name: "".join("01"[found] for found in (rng.random(200) < share).astype(int)) for name in LANGUAGES[:3]}
    numbers = {"SR-B": {"top10": {name: 100 * marks.count("1") / 200 for name, marks in hits.items()}}}
    scores = Scores(numbers, {"SR-B": RETRIEVAL}, hits={"SR-B": {"top10": hits}})
    return Outcome(outcome.cell, "finished", outcome.result | scores.as_dict())


def test_sentences_count_where_they_are_known(outcomes):
    """Three languages that happen to agree say little: the sentences show how much of that is their choice."""
    some = [outcome for outcome in outcomes if outcome.cell.method in ("Random", "OFA") and outcome.cell.seed == 0]
    found = [with_hits(outcome, 0.5, number) for number, outcome in enumerate(some) if outcome.result is not None]
    blunt = [Outcome(o.cell, "finished", o.result | {"hits": {}}) for o in found]
    fine, plain = (
        tabulate(cells, "OFA", "top10").entries["Random", "full", "SR-B"].difference for cells in (found, blunt)
    )
    assert fine.mean == pytest.approx(plain.mean)
    assert fine.high - fine.low > plain.high - plain.low
    assert Scores.from_dict(found[0].scores.as_dict()).hits == found[0].scores.hits


def test_chances_are_corrected_for_the_number_of_differences(outcomes):
    table = tabulate(outcomes, "OFA", "top10")
    compared = {key: entry for key, entry in table.entries.items() if entry.difference is not None}
    corrected = holm([entry.difference.chance for entry in compared.values()])
    assert [entry.chance for entry in compared.values()] == corrected
    assert max(corrected) > min(entry.difference.chance for entry in compared.values())
    assert {entry.chance for key, entry in table.entries.items() if key not in compared} == {1.0}
    for entry in compared.values():
        assert (entry.verdict == "even") == (entry.chance >= 0.05)
    text = to_markdown(table).split("Difference to OFA")[1]
    assert text.count("] *") == sum(entry.chance < 0.05 for entry in compared.values()) > 0
