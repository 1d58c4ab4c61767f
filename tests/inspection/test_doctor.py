"""What is said of inputs before anything is trained is what happens then."""

import numpy as np
import pytest

from hyperofa.bundle.bundle import Bundle
from hyperofa.bundle.fertility import Fertility
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.initialise import initialise
from hyperofa.inspection import costs
from hyperofa.inspection.advice import advise
from hyperofa.inspection.coverage import LanguageCoverage, cover_texts
from hyperofa.inspection.doctor import diagnose, doctor
from hyperofa.inspection.vector_info import inspect_vectors
from hyperofa.training.hypernetwork import Hypernetwork
from tests.conftest import write_vectors


@pytest.fixture(scope="module")
def inputs(model_folders, tokenizer_folders, vector_file):
    return {
        "source_model": str(model_folders["bert"]),
        "target_tokenizer": str(tokenizer_folders["unigram"]),
        "vectors": [str(vector_file)],
        "source_languages": ["eng"],
        "measure": False,
    }


@pytest.mark.parametrize("method", ["ofa", "ofa_tuned", "mean", "subtokens"])
@pytest.mark.parametrize("family", ["bert", "roberta", "xlmr"])
def test_origins_are_those_of_an_export(bundles, family, method):
    found = diagnose(bundles[family], method)
    assert found.origins == initialise(bundles[family], method).counts()
    assert found.origins == {
        origin: sum(each.origins.get(origin, 0) for each in found.scripts) for origin in found.origins
    }


@pytest.mark.parametrize("config", ["fit", "tokens"])
def test_origins_are_those_of_a_trained_net(bundles, fitted, text_file, config):
    text = [str(text_file)] if config == "fit" else []
    net = Hypernetwork.load(fitted[config] / "checkpoints" / "best.ckpt")
    assert diagnose(bundles["bert"], text=text).origins == initialise(bundles["bert"], hypernetwork=net).counts()


def test_it_prints_tables_and_advice(inputs, text_file, tmp_path):
    (tmp_path / "other.txt").write_text("zzz yyy xxx\nthe river zzz\n")
    texts = [str(text_file), f"deu={tmp_path / 'other.txt'}"]
    found = doctor(**inputs, text=texts, picture=tmp_path / "rows.svg")
    assert found.intact is False
    said = str(found)
    assert "rows by hyperofa: " in said
    assert f"{text_file}: 100.0% of its words have eng vectors" in said
    assert "wasted: " in said
    assert "other.txt: 100% of its words have no deu vector, such as zzz, yyy, xxx" in said
    assert "<svg" in (tmp_path / "rows.svg").read_text(encoding="utf-8")
    before, after = found.parameters
    bundle_rows = sum(found.origins.values())
    assert after / bundle_rows == before / (before // 24) == 24
    with pytest.raises(InputError, match=r"picture .*rows\.gif: expected a file that ends in \.svg"):
        doctor(**inputs, picture=tmp_path / "rows.gif")
    with pytest.raises(InputError, match=r"^source_languages: expected those of text .*, which training would"):
        doctor(**{**inputs, "source_languages": None}, text=texts)


def test_vectors_of_no_use_end_with_exit_code_one(inputs, tmp_path, capsys):
    """Four words: a net would learn nothing from so few."""
    words = ("the", "river", "town", "children")
    path = write_vectors(tmp_path / "words.vec", {f"eng:{w}": row for w, row in zip(words, np.eye(4), strict=True)})
    command = ["doctor", "--measure", "false", "--vectors", str(path), "--source_languages", "eng"]
    command += ["--source_model", inputs["source_model"], "--target_tokenizer", inputs["target_tokenizer"]]
    with pytest.raises(SystemExit) as exit_info:
        main(command)
    assert exit_info.value.code == 1
    said = capsys.readouterr().out
    assert "source tokens have words, too few to learn from" in said


def test_prepare_prints_the_short_form(inputs, tmp_path, capsys):
    command = ["prepare", "--vectors", *inputs["vectors"], "--source_languages", "eng", "--output", str(tmp_path / "b")]
    main([*command, *(f"--{name}={inputs[name]}" for name in ("source_model", "target_tokenizer"))])
    said = capsys.readouterr().out
    assert diagnose(tmp_path / "b").short() in said
    assert "tokens a word" not in said


SECONDS = {"usage": 1000, "pairing": 20, "export": 7}


@pytest.fixture
def measured(monkeypatch):
    """Clocks of training, each step of which takes a second longer than it does."""
    monkeypatch.setattr(costs, "_STEPS", 3)
    clocks = []

    class Slow(costs._Clock):
        def on_train_start(self, *_):
            super().on_train_start()
            clocks.append(self)

        def on_train_batch_end(self, *_):
            self._last -= 1  # as if each step had begun a second earlier
            super().on_train_batch_end()

    monkeypatch.setattr(costs, "_Clock", Slow)
    monkeypatch.setattr(costs, "timed", lambda name, work: (work(), costs.Stage(name, SECONDS[name], 99.0)))
    return clocks


def test_training_is_projected_from_a_few_steps(bundles, text_file, measured):
    """A slow step makes the whole run slow, 300 of them; what is done once here, two commands do each."""
    fitting, exported = costs.measure_training(Bundle.load(bundles["bert"]), [str(text_file)], "hyperofa")
    (clock,) = measured
    assert len(clock.steps) == 3
    assert clock.validating > 0
    assert fitting.projected
    assert fitting.seconds == pytest.approx(1020 + clock.before + 6 * (50 * clock.steps[2] + clock.validating))
    assert fitting.seconds > 1300
    assert fitting.mebibytes > 50
    assert exported == costs.Stage("export", 1007, 99.0)


def test_a_part_of_a_long_text_is_read(bundles, text_file, tmp_path, measured, monkeypatch):
    """Every other line of it, all of whose words are `the`; to pair the words of all takes as long as they are many."""
    monkeypatch.setattr(costs, "_LINES", 40)
    bundle, whole = Bundle.load(bundles["bert"]), tmp_path / "whole.txt"
    lines = text_file.read_text(encoding="utf-8").splitlines()[:40]
    whole.write_text("\n".join(f"the\n{line}" for line in lines), encoding="utf-8")
    english = set(bundle.words.words[bundle.words.select(["eng"])])
    known = english & {word.lower() for line in lines for word in line.split()}
    fitting, _ = costs.measure_training(bundle, [str(whole)], "hyperofa")
    (clock,) = measured
    training = 6 * (50 * clock.steps[2] + clock.validating)
    assert fitting.seconds == pytest.approx(1000 + 20 * len(known) + clock.before + training)


def test_words_are_paired_in_some_languages_for_all(bundles, text_file, measured, monkeypatch):
    """In every other one by size; to pair three takes longer as they have more words."""

    def fit(*_, translated_languages, trainer):
        asked.append(translated_languages)
        trainer["callbacks"][0].steps.append(1.0)

    asked = []
    monkeypatch.setattr(costs, "_LANGUAGES", 2)
    monkeypatch.setattr(costs, "_words_by_language", lambda bundle: {"deu": 60, "fra": 2, "ita": 1})
    monkeypatch.setattr(costs, "Translator", lambda *_, into, **__: asked.append(into))
    monkeypatch.setattr(costs, "fit", fit)
    _, fitting = costs._measure_fit(Bundle.load(bundles["bert"]), [str(text_file)])
    assert asked == [["ita"], ["ita", "deu"]]
    assert fitting.seconds == pytest.approx(20 * 63 / 61 + 6 * 50)


def test_languages_that_text_is_translated_into_are_counted(bundles):
    bundle = Bundle.load(bundles["bert"])
    german = len(bundle.words.select(["deu"]))
    assert costs._words_by_language(bundle) == {"deu": german}


def advised(fertility, target_languages=None):
    languages = [LanguageCoverage(language, 10, 10, Fertility(*each)) for language, each in fertility.items()]
    found = advise({"predicted": 1}, [], languages, [], [], 1000, ["eng"], target_languages, False)
    return [str(each) for each in found]


def test_a_word_without_tokens_is_not_called_short():
    """WordPiece makes one unknown token of a whole Malayalam word: that is no reason to warn of the new tokenizer."""
    assert advised({"mal": ((1.0, 2.0), (0.9, 0.0))}) == []
    longer = "note: the target tokenizer cuts words no more sparingly than the source's in mal"
    assert advised({"mal": ((1.0, 2.0), (0.0, 0.0))}) == [longer]


def test_languages_that_a_tokenizer_is_not_for_are_told():
    served, same = (2.0, 1.0), (1.5, 1.5)
    fertility = {"rus": (served, (0, 1.0)), "swh": (served, (0, 0)), "sqi": (served, (0, 0.05)), "fra": (same, (0, 0))}
    fertility["eng"] = (same, (0, 0))
    lost, longer, left_out = advised(fertility)
    assert lost == "note: the target tokenizer has no tokens for 100% of rus, 5% of sqi words"
    assert longer == "note: the target tokenizer cuts words no more sparingly than the source's in fra"
    assert left_out.startswith(
        "note: the target tokenizer seems not to be for rus fra: training text is not translated into these"
    )
    assert advised(fertility, ["eng", "swh"]) == []
    (unread,) = advised(fertility, ["swh"])
    assert unread.startswith("note: words of eng describe no target token, so that its text would be read less well")
    assert advised(fertility, ["eng", "sqi"]) == ["note: the target tokenizer has no tokens for 5% of sqi words"]


def test_texts_are_told_by_their_words(bundles, text_file, tmp_path):
    words = Bundle.load(bundles["bert"]).words
    (tmp_path / "german.txt").write_text("Der Fluss fließt, der Hubschrauber nicht.\n")
    english, german = cover_texts([str(text_file), str(tmp_path / "german.txt")], words)
    assert (english.language, english.share, english.missing) == ("eng", 1, ())
    assert (german.language, german.missing) == ("deu", ("hubschrauber",))
    assert german.share == pytest.approx(5 / 6)
    (unknown,) = cover_texts([f"fra={tmp_path / 'german.txt'}"], words)
    assert (unknown.language, unknown.share) == ("fra", 0)


def test_vectors_are_described(tmp_path, tokenizer_folders):
    rng = np.random.default_rng(0)
    rows = {f"eng:word{n}": rng.normal(size=30) for n in range(200)}
    rows["eng:hub"] = np.mean([row / np.linalg.norm(row) for row in rows.values()], axis=0)
    rows |= {"deu:haus": np.zeros(30), "deu:stadt": np.full(30, 2.0)}
    info = inspect_vectors([str(write_vectors(tmp_path / "words.vec", rows))], str(tokenizer_folders["unigram"]))
    german, english = info.languages
    assert (german.language, german.words, german.zeros, german.hub) == ("deu", 2, 1, "")
    assert german.norm == pytest.approx(np.sqrt(120) / 2, rel=1e-4)
    assert (english.hub, english.zeros) == ("hub", 0)
    assert english.hub_count > 2
    assert info.scripts["LATIN"][0] > info.scripts["LATIN"][1] > 0
    assert (german.tokens or 0) > 0
    assert (german.fertility or 0) >= 1
    said = str(info)
    assert "203 words of 2 languages, 30 wide" in said
    assert "hub × " in said
    plain = inspect_vectors([str(tmp_path / "words.vec")])
    assert "script" not in str(plain)
