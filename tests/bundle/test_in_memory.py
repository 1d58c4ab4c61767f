"""`prepare` from a notebook: models and tokenizers in memory serve as their folders do."""

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hyperofa.bundle.bundle import OWN_MODEL, Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.errors import InputError
from hyperofa.export.initialise import initialise
from hyperofa.runtime.folders import sha256_file


@pytest.fixture(scope="module")
def given(model_folders, tokenizer_folders):
    """A source model with its tokenizer, which a call has left truncating, and a target tokenizer."""
    folder = model_folders["bert"]
    source, target = (AutoTokenizer.from_pretrained(each) for each in (folder, tokenizer_folders["unigram"]))
    target("a river", truncation=True, max_length=4, padding="max_length")
    return (AutoModelForMaskedLM.from_pretrained(folder), source), target


def contents(bundle):
    """Hash by name of all files, but of those that name paths or only the bundle of a model in memory has."""
    files = {p.relative_to(bundle.path).as_posix(): sha256_file(p) for p in bundle.path.rglob("*") if p.is_file()}
    return {name: digest for name, digest in files.items() if "meta.json" not in name and OWN_MODEL not in name}


def test_a_bundle_from_memory_is_the_one_from_folders(given, bundles, vector_file, tmp_path):
    bundle = prepare(*given, [str(vector_file)], tmp_path / "bundle", source_languages=["eng"])
    expected = Bundle.load(bundles["bert"])
    one, other = contents(bundle), contents(expected)
    # What transformers notes of how a tokenizer was loaded, and the mark, which has the hash of meta.json.
    allowed = {".hyperofa", *(f"{side}/tokenizer/tokenizer_config.json" for side in ("source", "target"))}
    assert {name for name in one | other if one.get(name) != other.get(name)} <= allowed
    assert {"coordinates.npy", "split.npz", "source/tokenizer/tokenizer.json", "target/pooled.npy"} <= one.keys()
    assert bundle.meta.source_hash == expected.meta.source_hash
    assert bundle.meta.training_fingerprint == expected.meta.training_fingerprint


def test_the_bundle_keeps_the_model(given, vector_file, tmp_path):
    """So that training, in other processes too, and exports find it when the notebook is closed."""
    (model, tokenizer), target = given
    changed = AutoModelForMaskedLM.from_config(model.config)
    prepare((changed, tokenizer), target, [str(vector_file)], tmp_path / "bundle", source_languages=["eng"])
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.source_model == str(tmp_path / "bundle" / "source" / "model")
    found = initialise(bundle, "mean").to_model()
    kept, expected = found.state_dict(), changed.state_dict()
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(kept[name], expected[name])
    assert changed.training  # as `from_config` leaves it


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 3, "source_model: expected a folder, a hub id or .*, found int"),
        (1, ["t"], "target_tokenizer: expected a folder, a hub id or a tokenizer, found list"),
    ],
)
def test_something_else_is_refused(given, vector_file, tmp_path, place, value, message):
    arguments = [*given, [str(vector_file)], tmp_path / "bundle"]
    arguments[place] = value
    with pytest.raises(InputError, match=message):
        prepare(*arguments)
