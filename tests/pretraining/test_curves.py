"""Several models in one run, from folders and from memory: the same training, and curves beside each other."""

import csv
import json
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import hyperofa
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.models.loading import load_model
from hyperofa.pretraining.curves import CurveComparison, area, first_below
from hyperofa.pretraining.points import LanguagePoint
from hyperofa.pretraining.pretrain import pretrain
from hyperofa.pretraining.results import PretrainedModels
from hyperofa.pretraining.settings import EvaluationOptions
from hyperofa.runtime.pictures import save_picture
from tests.pretraining.conftest import QUIET, make_causal, small


@pytest.fixture(scope="module")
def models(folders, tmp_path_factory):
    """Two models with one vocabulary, the second with larger rows."""
    root = tmp_path_factory.mktemp("models")
    ofa = make_causal(folders["causal"], root / "ofa")
    model = AutoModelForCausalLM.from_pretrained(ofa)
    with torch.no_grad():
        model.get_input_embeddings().weight *= 3
    model.save_pretrained(root / "large")
    AutoTokenizer.from_pretrained(ofa).save_pretrained(root / "large")
    return root


def curve(*values, every=10, **languages):
    points = []
    for number, value in enumerate(values):
        of = {language: series[number] for language, series in languages.items()}
        points.append(LanguagePoint(
            step=number * every, train_loss=1.0, loss=1.0, perplexity=1.0, bits_per_byte=value,
            tokens=number * every * 8, seconds=float(number), languages=of or {"text": 0},
        ))  # fmt: skip
    return points


def test_steps_saved_are_those_to_where_the_baseline_ends():
    comparison = CurveComparison({"ofa": curve(4, 3, 2), "ours": curve(3, 1, 1), "bad": curve(9, 8, 7)}, "ofa")
    found = comparison.courses()
    assert found["ours"].reached == {"step": 5, "tokens": 40, "seconds": 0.5}  # half of the way from 3 to 1
    assert found["ours"].steps_saved == 15
    assert found["ofa"].steps_saved == 0
    assert found["bad"].steps_saved is None
    assert (found["ofa"].area, found["ours"].area) == (3, 1.5)
    assert comparison.languages == []
    assert comparison.rows()[2] == ["ours", "3.000", "1.000", "1.500", "5", "15 (75%)"]
    assert comparison.rows()[3][-2:] == ["–", "–"]


def test_the_area_is_a_mean_over_steps_of_any_width():
    assert area([0, 10, 30], [4, 2, 2]) == pytest.approx((3 * 10 + 2 * 20) / 30)
    assert area([5], [1.5]) == 1.5
    assert first_below([0, 10], [2, 1], 2) == 0
    assert first_below([0, 10], [2, 1], 0.5) is None


def test_languages_have_courses_of_their_own():
    comparison = CurveComparison(
        {"ofa": curve(3, 2, deu=[4, 2], fin=[2, 2]), "ours": curve(2, 1, deu=[2, 1], fin=[3, 3])}, "ofa"
    )
    assert comparison.languages == ["deu", "fin"]
    assert comparison.courses("deu")["ours"].steps_saved == 10
    assert comparison.courses("fin")["ours"].steps_saved is None
    assert comparison.rows()[0][-4:] == ["deu before", "after", "fin before", "after"]
    plain = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))
    assert plain["models"]["ours"]["languages"]["fin"]["after"] == 3
    assert "seconds" not in json.dumps(plain)


def test_models_are_trained_as_if_alone(models, folders, test_data, tmp_path, monkeypatch, capsys):
    """By the command line; the same bits as each in a run of its own, and one comparison of all, drawn as for users."""
    monkeypatch.setattr("hyperofa.pretraining.curves.save_picture", save_picture)
    flags = ["--text", f"deu={folders['text']}", "--training.steps", "3", "--training.evaluate_every", "1"]
    flags += ["--training.batch_size", "2", "--training.block_size", "24", "--training.learning_rate", "0.01"]
    flags += ["--trainer.accelerator", "cpu", "--trainer.progress", "false", "--output", str(tmp_path / "out")]
    flags += ["--evaluation.data", str(test_data), "--evaluation.source_model", str(models / "ofa")]
    flags += ["--evaluation.tasks", "retrieval"]
    main(["pretrain", "--model", str(models / "ofa"), f"ours={models / 'large'}", *flags])
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[:3]] == ["bits", "ofa", "ours"]
    assert "steps saved" in said.splitlines()[0]
    for name, folder in (("ofa", "ofa"), ("ours", "large")):
        alone = pretrain(
            models / folder, f"deu={folders['text']}", tmp_path / name, trainer=QUIET,
            training=small(steps=3, evaluate_every=1, warmup_steps=50),
        )  # fmt: skip
        found = tmp_path / "out" / name
        weights = [(path / "model.safetensors").read_bytes() for path in (alone.path, found)]
        assert weights[0] == weights[1]
        points = json.loads((found / "curve.json").read_text())
        assert [point["bits_per_byte"] for point in points] == [point.bits_per_byte for point in alone.curve]
        tokens = [point["tokens"] for point in points]
        assert tokens[:3] == [0, 48, 96]
        assert 96 < tokens[3] < 144  # the last block of a text is short
        assert set(points[0]["scores"]["scores"]["SR-B"]["top1"]) == {"eng", "deu"}
    with (tmp_path / "out" / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["step"]) for row in rows] == [
        (name, str(n)) for name in ("ofa", "ours") for n in range(4)
    ]
    assert rows[0]["bits_per_byte deu"] == rows[0]["bits_per_byte"]
    assert rows[0]["SR-B top1 deu"] == rows[0]["SR-B top1"]
    found = json.loads((tmp_path / "out" / "curves.json").read_text())
    assert (found["baseline"], list(found["models"])) == ("ofa", ["ofa", "ours"])
    assert len(json.loads((tmp_path / "out" / "seconds.json").read_text())["ours"]["curve"]) == 4
    assert (tmp_path / "out" / "curves.svg").read_text().startswith("<?xml")
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_models_in_memory_stay_as_they_are(models, folders, tmp_path):
    """And other tokenizers of the same text are compared by the same bytes."""
    model, tokenizer = load_model(models / "ofa"), AutoTokenizer.from_pretrained(models / "ofa")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    both = {"in memory": (model, tokenizer), "masked": folders["masked"]}
    given = {"training": small(steps=2, new_steps=2), "trainer": QUIET, "new_rows": [9]}
    found = hyperofa.pretrain(both, [folders["text"]], tmp_path / "out", **given)
    assert isinstance(found, PretrainedModels)
    assert list(found) == ["in memory", "masked"]
    assert found.baseline == "in memory"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    alone = hyperofa.pretrain(models / "ofa", folders["text"], tmp_path / "alone", **given)
    assert found["in memory"].curve[-1].bits_per_byte == alone.curve[-1].bits_per_byte
    assert "<th>masked</th>" in found._repr_html_()
    vocabularies = [AutoTokenizer.from_pretrained(path).get_vocab() for path in (found["masked"].path, both["masked"])]
    assert vocabularies[0] == vocabularies[1]
    rows = [load_model(path).get_input_embeddings().weight for path in (models / "ofa", found["in memory"].path)]
    assert not torch.equal(rows[0][9], rows[1][9])


def test_models_are_kept_on_the_way_in_their_own_precision(models, folders, tmp_path):
    source = tmp_path / "model"
    load_model(models / "ofa").to(torch.bfloat16).save_pretrained(source)
    AutoTokenizer.from_pretrained(models / "ofa").save_pretrained(source)
    found = pretrain(source, [folders["text"]], tmp_path / "out", trainer=QUIET, training=small(steps=6, save_every=4))
    assert sorted(path.name for path in (found.path / "checkpoints").iterdir()) == ["step-4"]
    kept = AutoModelForCausalLM.from_pretrained(found.path / "checkpoints" / "step-4")
    assert kept.dtype == torch.bfloat16
    assert not torch.equal(kept.lm_head.weight, load_model(found.path).lm_head.weight)
    assert AutoTokenizer.from_pretrained(found.path / "checkpoints" / "step-4").get_vocab()
    pretrain(source, [folders["text"]], tmp_path / "out", trainer=QUIET, training=small(steps=2), overwrite=True)
    assert not (found.path / "checkpoints").exists()


def test_tasks_are_run_when_they_are_due(models, folders, test_data, tmp_path):
    """What they leave in a tokenizer, such as its padding, is not saved with it."""
    options = EvaluationOptions(test_data, source_model=str(models / "ofa"), tasks=["language_model"], every=4)
    found = pretrain(
        models / "ofa", [folders["text"]], tmp_path / "out", trainer=QUIET, training=small(steps=6), evaluation=options
    )
    assert [(point.step, list(point.scores)) for point in found.curve] == [
        (0, ["LM"]),
        (2, []),
        (4, ["LM"]),
        (6, ["LM"]),
    ]
    after = hyperofa.evaluate(found.path, models / "ofa", test_data)
    assert found.curve[-1].scores["LM"]["bits"]["deu"] == pytest.approx(after["LM"]["bits"]["deu"])
    assert (found.path / "tokenizer.json").read_bytes() == (models / "ofa" / "tokenizer.json").read_bytes()


def test_mistakes(models, folders, test_data, tmp_path):
    text, output = [folders["text"]], tmp_path / "out"
    both, options = (
        [str(models / "ofa"), str(models / "large")],
        partial(EvaluationOptions, test_data, source_model="x"),
    )
    for given, message in (
        ({"model": [both[0], both[0]]}, r"model: expected names that differ .* found ofa ofa; give NAME=FOLDER"),
        ({"model": {"a/b": both[0], "c": both[1]}}, r"model: expected names that differ and can be folders"),
        ({"model": []}, "model: expected at least one, found none"),
        ({"model": 3}, "model: expected a folder, a hub id or"),
        ({"baseline": "best"}, "baseline: expected one of the models ofa large, found best"),
        ({"text": []}, "text: expected files of text, found none"),
        ({"evaluation": options(every=3)}, "evaluation.every: expected a multiple"),
        ({"evaluation": EvaluationOptions(test_data)}, "evaluation.source_model: expected the model to compare with"),
        ({"evaluation": options(tasks=["t"])}, "expected tasks among .*retrieval"),
    ):
        with pytest.raises(InputError, match=message):
            pretrain(**{"model": both, "text": text, "output": output, "training": small(), "trainer": QUIET} | given)
    with pytest.raises(InputError, match=r"training.save_every: expected a multiple of .* 2, found 3"):
        small(save_every=3)
    assert not output.exists()
