import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hyperofa.bundle.bundle import OWN_MODEL, Bundle
from hyperofa.bundle.prepare import prepare
from hyperofa.bundle.split import split_tokens
from hyperofa.errors import InputError
from hyperofa.export.initialise import initialise
from hyperofa.models.loading import load_model
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.runtime.folders import sha256_file
from hyperofa.tokens.canonical import Token, canonical_tokens, fold_case
from tests.conftest import contents


@pytest.fixture
def arguments(model_folders, tokenizer_folders, vector_file) -> dict:
    return {
        "source_model": str(model_folders["bert"]),
        "target_tokenizer": str(tokenizer_folders["unigram"]),
        "vectors": [str(vector_file)],
        "source_languages": ["eng"],
        "coordinate_dim": 8,
    }


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["bert", "roberta8", "xlmr"])
def test_counts_are_those_of_the_arrays(bundles, name):
    bundle = Bundle.load(bundles[name])
    counts, source, target = bundle.meta.counts, bundle.source.counts > 0, bundle.target.counts > 0
    tokens = np.array([token is not None for token in canonical_tokens(bundle.tokenizer("target"))])
    overlap = np.isin(np.arange(len(target)), bundle.overlap.target_ids)
    assert counts["words"] == len(bundle.words) == 145
    assert counts["languages"] == 2
    assert counts["source_tokens"] == bundle.meta.source_tokens == len(source) == len(bundle.coordinates)
    assert counts["source_tokens_with_words"] == source.sum() > 0
    assert counts["target_tokens"] == tokens.sum()
    assert bundle.meta.target_tokens == len(target) == len(tokens)
    assert counts["target_tokens_in_overlap"] == overlap.sum() > 0
    assert counts["target_tokens_with_words"] == target.sum() > 0
    assert counts["target_tokens_to_predict"] == (target & ~overlap).sum()
    assert counts["target_tokens_with_neither"] == (tokens & ~target & ~overlap).sum()
    assert {f"split_{part}": len(ids) for part, ids in bundle.split.items()}.items() <= counts.items()
    table = bundle.summary()
    assert all(f"{count:,}" in table for count in counts.values())


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_split_covers_all_and_leaks_nothing(bundles, name):
    bundle = Bundle.load(bundles[name])
    tokens = canonical_tokens(bundle.tokenizer("source"))
    strings = {part: {fold_case(tokens[i]) for i in ids} for part, ids in bundle.split.items()}
    assert not strings["train"] & strings["val"]
    assert not strings["train"] & strings["test"]
    assert not strings["val"] & strings["test"]
    everything = np.sort(np.concatenate(list(bundle.split.values())))
    np.testing.assert_array_equal(everything, np.flatnonzero(bundle.source.covered))
    assert all((np.diff(ids) > 0).all() for ids in bundle.split.values())


words = st.builds(Token, st.text("abAB", min_size=1, max_size=2).map(str.encode), st.booleans())


@given(st.lists(words, min_size=1, max_size=30), st.floats(0.01, 0.98), st.integers(0, 3))
def test_variants_of_a_string_stay_together(tokens, share, seed):
    covered = np.arange(len(tokens)) % 5 != 4
    groups = {fold_case(token) for token, known in zip(tokens, covered, strict=True) if known}
    sizes = [max(1, round(part * len(groups))) for part in (share, 0.01)]
    if len(groups) < 3 or sum(sizes) >= len(groups):
        with pytest.raises(InputError, match=r"at least 3 source tokens|strings to train on"):
            split_tokens(tokens, covered, share, 0.01, seed)
        return
    parts = split_tokens(tokens, covered, share, 0.01, seed)
    sides = {name: {fold_case(tokens[i]) for i in ids} for name, ids in parts.items()}
    assert [len(sides["val"]), len(sides["test"])] == sizes
    assert sum(map(len, sides.values())) == len(groups)
    assert sorted(i for ids in parts.values() for i in ids) == np.flatnonzero(covered).tolist()
    assert parts["train"].size


def test_equal_seeds_give_equal_bytes(arguments, bundles, tmp_path):
    prepare(**arguments, output=tmp_path / "again")
    prepare(**arguments, output=tmp_path / "other", seed=1)
    expected, again, other = hashes(bundles["bert8"]), hashes(tmp_path / "again"), hashes(tmp_path / "other")
    assert again == expected
    assert {name for name in expected if other[name] != expected[name]} == {"split.npz", "meta.json"}


def test_a_bundle_is_replaced_only_when_asked(arguments, tmp_path):
    output = tmp_path / "bundle"
    prepare(**arguments, output=output)
    before = hashes(output)
    with pytest.raises(InputError, match=r"already exists and is not empty; give another output, or overwrite"):
        prepare(**arguments, output=output)
    broken = {**arguments, "vectors": [str(tmp_path / "none.vec")]}
    with pytest.raises(InputError, match=r"none\.vec: expected a file of word vectors"):
        prepare(**broken, output=output, overwrite=True)
    assert hashes(output) == before
    prepare(**{**arguments, "coordinate_dim": 4}, output=output, overwrite=True)
    assert Bundle.load(output).meta.coordinate_dim == 4
    assert contents(tmp_path) == ["bundle"]


def test_nothing_is_left_after_an_error(arguments, tmp_path, capsys):
    with pytest.raises(InputError, match="coordinate_dim"):
        prepare(**{**arguments, "coordinate_dim": 99}, output=tmp_path / "bundle")
    assert "matching" not in capsys.readouterr().err  # which may take hours
    assert contents(tmp_path) == []


def test_languages_are_filtered_side_by_side(arguments, tmp_path, bundles):
    bundle = Bundle.load(bundles["bert"])
    german = bundle.words.languages.index("deu")
    assert not (bundle.words.language_ids[bundle.source.words] == german).any()
    assert (bundle.words.language_ids[bundle.target.words] == german).any()
    other = prepare(**{**arguments, "source_languages": None}, target_languages=["deu"], output=tmp_path / "other")
    assert (other.words.language_ids[other.source.words] == german).any()
    assert (other.words.language_ids[other.target.words] == german).all()
    assert other.meta.training_fingerprint != bundle.meta.training_fingerprint


def test_rows_of_the_coordinates_are_the_embeddings(bundles, model_folders):
    for family in ("bert", "roberta"):
        vocabulary = read_vocabulary(load_model(model_folders[family]))
        full, cut = Bundle.load(bundles[family]), Bundle.load(bundles[f"{family}8"])
        assert full.rows(full.coordinates)[1] is None
        np.testing.assert_allclose(full.rows(full.coordinates)[0], vocabulary.input_rows, atol=1e-6)
        _, singular, _ = np.linalg.svd(vocabulary.input_rows.astype(np.float64), full_matrices=False)
        missed = np.square(cut.rows(cut.coordinates)[0] - vocabulary.input_rows).sum()
        np.testing.assert_allclose(missed, np.square(singular[8:]).sum(), rtol=1e-4)
        np.testing.assert_allclose(cut.meta.explained, 1 - missed / np.square(singular).sum(), rtol=1e-4)
        np.testing.assert_array_equal(np.load(full.path / "bias.npy"), vocabulary.bias)


def test_shares_must_leave_something(arguments, tmp_path):
    with pytest.raises(InputError, match="expected validation_share and test_share above 0 and together below 1"):
        prepare(**arguments, validation_share=0.5, test_share=0.5, output=tmp_path / "bundle")
    with pytest.raises(InputError, match=r"validation_share 0\.995 and test_share 0\.001 leave none of \d+ strings"):
        prepare(**arguments, validation_share=0.995, test_share=0.001, output=tmp_path / "bundle")


def test_other_layouts_are_input_errors(arguments, tmp_path):
    folder = prepare(**arguments, output=tmp_path / "bundle").path
    for content in ("[]", json.dumps({"format": 99})):
        (folder / "meta.json").write_text(content)
        with pytest.raises(InputError, match=r"expected a bundle of layout 1, found another"):
            Bundle.load(folder)


@pytest.fixture(scope="module")
def in_memory(model_folders, tokenizer_folders):
    """A source model with its tokenizer, which a call has left truncating, and a target tokenizer."""
    folder = model_folders["bert"]
    source, target = (AutoTokenizer.from_pretrained(each) for each in (folder, tokenizer_folders["unigram"]))
    target("a river", truncation=True, max_length=4, padding="max_length")
    return (AutoModelForMaskedLM.from_pretrained(folder), source), target


def test_a_bundle_from_memory_is_the_one_from_folders(in_memory, bundles, vector_file, tmp_path):
    bundle = prepare(*in_memory, [str(vector_file)], tmp_path / "bundle", source_languages=["eng"])
    expected = Bundle.load(bundles["bert"])
    one, other = (
        {
            name: digest
            for name, digest in hashes(each.path).items()
            if "meta.json" not in name and OWN_MODEL not in name
        }
        for each in (bundle, expected)
    )
    # What transformers notes of how a tokenizer was loaded, and the mark, which has the hash of meta.json.
    allowed = {".hyperofa", *(f"{side}/tokenizer/tokenizer_config.json" for side in ("source", "target"))}
    assert {name for name in one | other if one.get(name) != other.get(name)} <= allowed
    assert {"coordinates.npy", "split.npz", "source/tokenizer/tokenizer.json", "target/pooled.npy"} <= one.keys()
    assert bundle.meta.source_hash == expected.meta.source_hash
    assert bundle.meta.training_fingerprint == expected.meta.training_fingerprint


def test_the_bundle_keeps_the_model(in_memory, vector_file, tmp_path):
    """So that training, in other processes too, and exports find it when the notebook is closed."""
    (model, tokenizer), target = in_memory
    changed = AutoModelForMaskedLM.from_config(model.config)
    prepare((changed, tokenizer), target, [str(vector_file)], tmp_path / "bundle", source_languages=["eng"])
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.source_model == str(tmp_path / "bundle" / "source" / "model")
    found = initialise(bundle, "mean").to_model()
    kept, expected = found.state_dict(), changed.state_dict()
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(kept[name], expected[name])
    assert changed.training  # as `from_config` leaves it


def test_what_stood_beside_the_model_comes_along(in_memory, model_folders, vector_file, tmp_path):
    origin = shutil.copytree(model_folders["bert"], tmp_path / "origin")
    (origin / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (origin / "modules.json").write_text(json.dumps(modules))
    (origin / "1_Pooling").mkdir()
    (origin / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    pair = AutoModelForMaskedLM.from_pretrained(origin), AutoTokenizer.from_pretrained(origin)
    bundle = prepare(pair, in_memory[1], [str(vector_file)], tmp_path / "bundle", source_languages=["eng"])
    shutil.rmtree(origin)
    initialise(bundle, "mean").save(tmp_path / "model")
    assert (tmp_path / "model" / "1_Pooling" / "config.json").is_file()
    assert "license: mit" in (tmp_path / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 3, "source_model: expected a folder, a hub id or .*, found int"),
        (1, ["t"], "target_tokenizer: expected a folder, a hub id or a tokenizer, found list"),
    ],
)
def test_something_else_is_refused(in_memory, vector_file, tmp_path, place, value, message):
    arguments = [*in_memory, [str(vector_file)], tmp_path / "bundle"]
    arguments[place] = value
    with pytest.raises(InputError, match=message):
        prepare(*arguments)
