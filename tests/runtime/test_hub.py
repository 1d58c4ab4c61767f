"""What goes to the hub and comes from there: a stand-in for it is a folder on disk."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import hyperofa
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.evaluation.scores import Metric, Scores
from hyperofa.models.card import CardFields
from hyperofa.models.sentence_modules import copy_modules, pooling_of
from hyperofa.runtime import hub
from tests.conftest import contents

MODULES = """[
  {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
  {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
  {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
]"""
POOLING = '{"word_embedding_dimension": 24, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}'


@pytest.fixture
def repositories(tmp_path, monkeypatch):
    """Where the stand-in keeps its repositories."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, name, *, private, exist_ok):
            assert private
            assert exist_ok
            (root / name).mkdir(parents=True, exist_ok=True)
            return f"https://hub.example/{name}"

        def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id):
            (root / repo_id / path_in_repo).write_bytes(path_or_fileobj)

        def upload_folder(self, *, repo_id, folder_path, commit_message, ignore_patterns):
            assert commit_message
            ignored = shutil.ignore_patterns(*ignore_patterns)
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True, ignore=ignored)

    def download(name, *, allow_patterns):
        taken = root / "cache" / name
        for path in sorted((root / name).rglob("*")):
            relative = path.relative_to(root / name)
            if path.is_file() and any(relative.match(pattern) for pattern in allow_patterns):
                (taken / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, taken / relative)
        if not taken.is_dir():
            raise FileNotFoundError(f"no {name}")
        return str(taken)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", download)
    return root


@pytest.fixture
def refusing(monkeypatch):
    """A hub without a way there, whatever its HTTP library raises then."""

    class Unreachable(Exception):
        pass

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, *_, **__):
            raise Unreachable("connection\nrefused")

    monkeypatch.setattr(hub, "HfApi", Api)


def test_an_export_goes_to_the_hub_with_a_card_that_the_hub_reads(bundles, tmp_path, repositories, capsys):
    numbers = {"SR-B": {"top10": {"deu": 81.5, "eng": 99.0}}}
    Scores(numbers, {"SR-B": {"top10": Metric("Top-10 accuracy")}}).save(tmp_path / "scores.json")
    main(
        [
            *("export", "--bundle", str(bundles["bert"]), "--method", "ofa", "--output", str(tmp_path / "model")),
            *("--scores", str(tmp_path / "scores.json"), "--card.license", "mit", "--card.datasets", "[me/verses]"),
            *("--card.base_model", "google-bert/bert-tiny", "--push_to_hub", "me/bert-deu"),
        ]
    )
    assert "uploaded to https://hub.example/me/bert-deu" in capsys.readouterr().out
    there = repositories / "me" / "bert-deu"
    visible = [name for name in contents(tmp_path / "model") if not name.startswith(".")]
    assert contents(there) == visible

    card = ModelCard.load(there / "README.md")
    assert card.data.base_model == "google-bert/bert-tiny"
    assert (card.data.license, card.data.datasets, card.data.language) == ("mit", ["me/verses"], ["deu", "eng"])
    assert card.data.library_name == "transformers"
    found = {(each.dataset_config, each.metric_type, each.metric_value) for each in card.data.eval_results}
    assert found == {("deu", "top10", 81.5), ("eng", "top10", 99.0)}
    assert card.data.eval_results[0].metric_name == "Top-10 accuracy (%)"
    assert "fill in" not in card.content
    assert 'from_pretrained("me/bert-deu")' in card.text
    assert "export --bundle" in card.text
    assert hyperofa.verify(there).intact


def test_the_licence_of_the_base_model_binds(model_folders, bundles, tmp_path):
    base = shutil.copytree(model_folders["bert"], tmp_path / "base")
    front = "---\nlicense: other\nlicense_name: llama9\nlicense_link: https://x.example\nlanguage: en\n---\n"
    (base / "README.md").write_text(front, encoding="utf-8")
    initialised = hyperofa.initialise(bundles["bert"], "mean", source_model=str(base))
    initialised.save(tmp_path / "one")
    told = ModelCard.load(tmp_path / "one" / "README.md").data
    assert (told.license, told.license_name, told.license_link) == ("other", "llama9", "https://x.example")
    initialised.save(tmp_path / "two", card=CardFields(license="mit"))
    told = ModelCard.load(tmp_path / "two" / "README.md").data
    assert (told.license, told.get("license_name")) == ("mit", None)
    (base / "README.md").write_text("---\n- a list\n---\n", encoding="utf-8")
    initialised.save(tmp_path / "three")
    assert "license:  # fill in" in (tmp_path / "three" / "README.md").read_text(encoding="utf-8")


def test_scores_in_memory_reach_the_card(bundles, tmp_path):
    scores = Scores({"SR-B": {"top10": {"deu": 81.5}}}, {"SR-B": {"top10": Metric("Top-10 accuracy")}})
    hyperofa.initialise(bundles["bert"], "mean").save(tmp_path / "model", scores=scores)
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.eval_results[0].metric_value == 81.5
    assert "| SR-B.top10.deu | 81.5 |" in card.text


def test_a_name_that_the_hub_cannot_have_is_refused_before_the_work(bundles, tmp_path, repositories):
    initialised = hyperofa.initialise(bundles["bert"], "mean")
    with pytest.raises(InputError, match="expected USER/NAME on the hub, found 'a/b/c'"):
        initialised.save(tmp_path / "model", push_to_hub="a/b/c")
    assert not (tmp_path / "model").exists()


def test_without_a_way_to_the_hub_the_folder_stays(bundles, tmp_path, refusing):
    expected = r"connection refused\); .*model is whole: log in with `hf auth login`, then `hf upload me/m .*model`"
    with pytest.raises(InputError, match=expected):
        hyperofa.initialise(bundles["bert"], "mean").save(tmp_path / "model", push_to_hub="me/m")
    assert hyperofa.verify(tmp_path / "model").intact


def test_a_hypernetwork_travels_as_json_and_safetensors(bundles, fitted, tmp_path, repositories):
    net = hyperofa.Hypernetwork.load(fitted["tokens"] / "checkpoints" / "best.ckpt")
    net.save_pretrained(tmp_path / "net")
    assert contents(tmp_path / "net") == [".hyperofa", "README.md", "config.json", "model.safetensors"]
    net.push_to_hub("me/net")
    (repositories / "me" / "net" / "evil.ckpt").write_bytes(b"a pickle")
    for name in (tmp_path / "net", "me/net"):
        loaded = hyperofa.Hypernetwork.from_pretrained(name, hyperofa.Bundle.load(bundles["bert"]))
        weights = net.net.state_dict()
        assert all(torch.equal(weights[key], value) for key, value in loaded.net.state_dict().items())
        assert vars(loaded) | {"net": 0, "digest": 0} == vars(net) | {"net": 0, "digest": 0}
    assert not list((repositories / "cache").rglob("*.ckpt"))
    assert 'from_pretrained("me/net")' in (repositories / "me" / "net" / "README.md").read_text(encoding="utf-8")
    rows = [
        hyperofa.initialise(bundles["bert"], hypernetwork=each).coordinates
        for each in (net, tmp_path / "net", fitted["tokens"] / "checkpoints" / "best.ckpt")
    ]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_a_broken_hypernetwork_is_refused(fitted, tmp_path, repositories):
    folder = tmp_path / "net"
    hyperofa.Hypernetwork.load(fitted["tokens"] / "checkpoints" / "best.ckpt").save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    save_file({**weights, name: weights[name] * torch.nan}, folder / "model.safetensors")
    with pytest.raises(InputError, match="expected finite weights"):
        hyperofa.Hypernetwork.load(folder)
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"expected weights in model\.safetensors"):
        hyperofa.Hypernetwork.load(folder)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="found one with another record of its net"):
        hyperofa.Hypernetwork.load(folder)
    with pytest.raises(InputError, match="expected a folder or a repository of the hub, found neither"):
        hyperofa.Hypernetwork.from_pretrained("me/nowhere")


def test_a_bundle_travels(bundles, tmp_path, repositories, model_folders, tokenizer_folders, vector_file):
    hyperofa.Bundle.load(bundles["bert"]).push_to_hub("me/bundle")
    found = hyperofa.Bundle.from_pretrained("me/bundle")
    assert found.meta == hyperofa.Bundle.load(bundles["bert"]).meta
    rows = [hyperofa.initialise(each, "ofa").coordinates for each in (found, bundles["bert"])]
    np.testing.assert_array_equal(*rows)
    card = (repositories / "me" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert str(bundles["bert"]) not in card
    inputs = (str(model_folders["bert"]), str(tokenizer_folders["unigram"]), [str(vector_file)])
    hyperofa.prepare(*inputs, tmp_path / "bundle", source_languages=["eng"], push_to_hub="me/prepared")
    assert hyperofa.Bundle.from_pretrained("me/prepared").meta == found.meta


@pytest.fixture
def sentence_model(model_folders, tmp_path):
    """The tiny BERT as a sentence-transformers model."""
    folder = shutil.copytree(model_folders["bert"], tmp_path / "sentences")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(POOLING, encoding="utf-8")
    (folder / "modules.json").write_text(MODULES, encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": false}', "utf-8")
    (folder / "config_sentence_transformers.json").write_text('{"__version__": {}}', encoding="utf-8")
    return folder


def test_sentence_models_keep_their_modules(sentence_model, bundles, text_file, tmp_path):
    hyperofa.initialise(bundles["bert"], "mean", source_model=str(sentence_model)).save(tmp_path / "model")
    hyperofa.trim(str(sentence_model), [text_file], tmp_path / "trimmed")
    names = ["1_Pooling/config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"]
    for folder in (tmp_path / "model", tmp_path / "trimmed"):
        assert all((folder / name).read_bytes() == (sentence_model / name).read_bytes() for name in names)
        card = ModelCard.load(folder / "README.md")
        assert (card.data.library_name, card.data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
        assert "SentenceTransformer(" in card.text
        assert hyperofa.verify(folder).intact


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers_loads_them(sentence_model, bundles, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    hyperofa.initialise(bundles["bert"], "mean", source_model=str(sentence_model)).save(tmp_path / "model")
    loaded = library.SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert len(list(loaded)) == 3
    vectors = loaded.encode(["der Fluss", "the river"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("listed", "file"),
    [
        ("my_code.Pooling", None),
        ("sentence_transformers.models.Dense", "pytorch_model.bin"),
        ("sentence_transformers.models.Dense", "../../elsewhere"),
    ],
)
def test_modules_that_are_code_or_pickles_stay_behind(sentence_model, tmp_path, listed, file):
    text = MODULES.replace("sentence_transformers.models.Pooling", listed)
    if file is not None and file.startswith(".."):
        text = text.replace('"1_Pooling"', '"../1_Pooling"')
    elif file is not None:
        (sentence_model / "1_Pooling" / file).write_bytes(b"a pickle")
    (sentence_model / "modules.json").write_text(text, encoding="utf-8")
    (tmp_path / "new").mkdir()
    with pytest.warns(UserWarning, match="its sentence-transformers modules are left behind"):
        assert not copy_modules(str(sentence_model), tmp_path / "new")
    assert contents(tmp_path / "new") == []


def test_a_plain_model_has_no_modules(model_folders, tmp_path):
    assert not copy_modules(str(model_folders["bert"]), tmp_path)
    assert not copy_modules("no/such-model", Path(tmp_path))
    assert contents(tmp_path) == []


@pytest.mark.parametrize(("settings", "expected"), [
    (POOLING, "mean"),
    ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}', "cls"),
    ('{"pooling_mode": "cls"}', "cls"),
    ("{}", "mean"),
    ('{"pooling_mode_max_tokens": true}', "found pooling_mode_max_tokens"),
    ('{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}', "found pooling_mode_cls_token pooling_mode"),
    ('{"pooling_mode": "lasttoken"}', "found lasttoken"),
    ("[]", "expected modules of sentence-transformers in modules.json"),
])  # fmt: skip
def test_how_sentence_vectors_are_made(sentence_model, settings, expected):
    (sentence_model / "1_Pooling" / "config.json").write_text(settings, encoding="utf-8")
    if expected in ("mean", "cls"):
        assert pooling_of(str(sentence_model)) == expected
    else:
        with pytest.raises(InputError, match=expected):
            pooling_of(str(sentence_model), "--source_model")


def test_what_pools_lies_beside_the_modules(sentence_model, model_folders):
    (sentence_model / "modules.json").write_text(MODULES.replace('"1_Pooling"', '"../1_Pooling"'), encoding="utf-8")
    with pytest.raises(InputError, match=r"\.\./1_Pooling is no folder beside it"):
        pooling_of(str(sentence_model))
    assert pooling_of(str(model_folders["bert"])) == "mean"
