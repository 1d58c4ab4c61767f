"""The library's way from a bundle to a model: rows and models in memory, and the folder that a command writes."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.initialise import initialise
from hyperofa.models.expand import expand
from hyperofa.models.trim import trim
from hyperofa.models.vocabulary import hash_rows, read_vocabulary
from hyperofa.runtime.folders import sha256_file
from hyperofa.training.hypernetwork import Hypernetwork


@pytest.fixture(scope="module")
def in_memory(model_folders):
    folder = model_folders["bert"]
    return AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def weights(model):
    return dict(model.state_dict())


def test_rows_origins_and_counts_fit_together(bundles):
    bundle = Bundle.load(bundles["bert8"])
    found = initialise(bundle, "ofa")
    assert found.coordinates.shape == (bundle.meta.target_tokens, bundle.meta.coordinate_dim)
    assert {name: count for name, count in found.counts().items() if count} == dict(
        zip(*np.unique(found.origins, return_counts=True), strict=True)
    )
    assert repr(found) == f"Initialised(method='ofa', rows={str(found).partition('rows=')[2]}"
    assert "copied" in repr(found)


@pytest.mark.parametrize("factorised", [False, True])
def test_the_model_in_memory_is_the_one_that_is_saved(bundles, tmp_path, factorised):
    found = initialise(bundles["bert8"], "ofa_tuned")
    model = found.to_model(factorised=factorised)
    written = found.save(tmp_path / "model", factorised=factorised)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path / "model", trust_remote_code=factorised)
    assert weights(model).keys() == weights(loaded).keys()
    assert all(torch.equal(weight, weights(loaded)[name]) for name, weight in weights(model).items())
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab() == found.tokenizer().get_vocab()
    assert written.counts == found.counts()
    assert (written.parameters is not None) == factorised


def test_a_call_writes_what_the_command_writes_but_for_its_name(bundles, tmp_path):
    words = ["--bundle", str(bundles["bert"]), "--method", "random", "--seed", "3"]
    main(["export", *words, "--output", str(tmp_path / "command")])
    initialise(bundles["bert"], "random", seed=3).save(tmp_path / "call")
    files = {folder: {p.name: sha256_file(p) for p in (tmp_path / folder).iterdir()} for folder in ("command", "call")}
    differ = {name for name, digest in files["command"].items() if files["call"][name] != digest}
    assert differ == {"manifest.json", "README.md"}
    manifests = [json.loads((tmp_path / folder / "manifest.json").read_text(encoding="utf-8")) for folder in files]
    assert manifests[0]["command"] == f"hyperofa export {' '.join(words)} --output DIR"
    assert manifests[1]["command"] == f"initialise({str(bundles['bert'])!r}, method='random', seed=3)"
    cards = [(tmp_path / folder / "README.md").read_text(encoding="utf-8") for folder in files]
    assert f"```sh\n{manifests[0]['command']}\n```" in cards[0]
    assert f"```python\n{manifests[1]['command']}\n```" in cards[1]
    assert manifests[0]["counts"] == manifests[1]["counts"]


def test_a_model_in_memory_serves_as_its_folder_does(bundles, in_memory, model_folders, tmp_path):
    before = hash_rows(read_vocabulary(in_memory[0]))
    found = initialise(bundles["bert"], "mean", source_model=in_memory)
    given = f"source_model=(BertForMaskedLM, {type(in_memory[1]).__name__})"
    assert found.call.text == f"initialise({str(bundles['bert'])!r}, method='mean', {given})"
    one, other = found.to_model(), initialise(bundles["bert"], "mean", source_model=model_folders["bert"]).to_model()
    assert all(torch.equal(weight, weights(other)[name]) for name, weight in weights(one).items())
    assert one.get_input_embeddings().weight is one.get_output_embeddings().weight
    assert hash_rows(read_vocabulary(in_memory[0])) == before
    assert found.to_model() is not one


def test_a_net_is_a_checkpoint_or_what_was_read_from_it(bundles, fitted):
    bundle, path = Bundle.load(bundles["bert"]), fitted["tokens"] / "checkpoints" / "best.ckpt"
    net = Hypernetwork.load(path, bundle)
    one, *others = (initialise(bundle, hypernetwork=given) for given in (path, str(path), [path], net, [net, path]))
    for other in others:
        np.testing.assert_allclose(other.coordinates, one.coordinates, rtol=1e-6)
        assert set(other.facts["checkpoint"]) == {net.digest}
    made = f"initialise({str(bundles['bert'])!r}, hypernetwork=<Hypernetwork {net.digest[:12]}>)"
    assert str(others[2].call) == made


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"hypernetwork: expected a trained net for method='hyperofa', .* found none"),
        ({"method": "mean", "hypernetwork": "x.ckpt"}, r"expected none for method='mean', .* found x\.ckpt"),
        ({"method": "magic"}, r"method: expected one of hyperofa, .*, ofa, .*; found magic"),
        ({"method": "mean", "source_model": 7}, r"source_model: expected a folder, .*, found int"),
        ({"method": "mean", "source_model": (1, 2)}, r"found \(int, int\)"),
        ({"method": "ofa", "ofa_share": 2.0}, "expected a number from 0 to 1"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_refused(bundles, arguments, message):
    with pytest.raises(InputError, match=message):
        initialise(bundles["bert"], **arguments)


def test_a_net_for_another_bundle_is_refused(bundles, fitted):
    net = Hypernetwork.load(fitted["tokens"] / "checkpoints" / "best.ckpt", Bundle.load(bundles["bert"]))
    with pytest.raises(InputError, match="hypernetwork: expected a net of word width 12 and coordinate width 8"):
        initialise(bundles["bert8"], hypernetwork=net)


def test_another_source_model_is_refused(bundles, model_folders):
    with pytest.raises(InputError, match=r"source_model .*roberta: expected the model that bundle"):
        initialise(bundles["bert"], "mean", source_model=model_folders["roberta"])


def test_expanding_takes_a_tokenizer_in_memory(in_memory, model_folders, tmp_path):
    (tmp_path / "words.txt").write_text("grandmothers\n", encoding="utf-8")
    for name, given in (("folder", str(model_folders["bert"])), ("pair", in_memory), ("alone", in_memory[1])):
        expand(given, tmp_path / name, words=tmp_path / "words.txt")
    digests = {sha256_file(tmp_path / name / "tokenizer.json") for name in ("folder", "pair", "alone")}
    assert len(digests) == 1
    with pytest.raises(InputError, match=r"source_model: expected a folder, a hub id or a tokenizer, found int"):
        expand(3, tmp_path / "other", words=tmp_path / "words.txt")


def test_trimming_takes_a_model_in_memory(in_memory, text_file, tmp_path):
    trim(in_memory, [text_file], tmp_path / "trimmed")
    manifest = json.loads((tmp_path / "trimmed" / "manifest.json").read_text(encoding="utf-8"))
    given = f"(BertForMaskedLM, {type(in_memory[1]).__name__}), [{str(text_file)!r}]"
    assert manifest["command"] == f"trim({given}, 'DIR')"
