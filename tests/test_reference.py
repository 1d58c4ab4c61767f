"""Reference mode: our modules compute what the published code computed, and something better without it."""

import json

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from hyperofa import reference
from hyperofa.bundle.prepare import prepare
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.export import export
from hyperofa.methods.baselines import Predictions
from hyperofa.methods.fallbacks import ORIGINS, plan_and_fill, target_inputs
from hyperofa.nets.bilstm import BiLSTM
from hyperofa.reference import DEPARTURES, QUIRKS
from hyperofa.tokens.canonical import OVERLAP_KINDS
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.samplers import GroupedBatches
from hyperofa.training.word_sets import WordSetTable
from hyperofa.vectors.conversion import build_store
from hyperofa.vectors.spelling import ReferenceSpelling
from tests import reference as slow
from tests.conftest import CONFIGS, QUIET, write_vectors
from tests.golden import TARGET, WORDS, entries, load, save_tokenizer

FAMILIES = {"wordpiece": (BertForMaskedLM, BertConfig), "bytelevel": (RobertaForMaskedLM, RobertaConfig)}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def golden(request, tmp_path_factory):
    """Golden values of one source tokenizer, and a bundle in reference mode of what they were computed from."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    found = load(name)
    model_class, config_class = FAMILIES[name]
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = config_class(vocab_size=len(found.embeddings), max_position_embeddings=16, pad_token_id=1, **sizes)
    model = model_class(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.from_numpy(found.embeddings))
    model.save_pretrained(folder / "source")
    save_tokenizer(name, folder / "source")
    save_tokenizer(TARGET, folder / "target")
    found.inputs = str(folder / "source"), str(folder / "target"), [str(WORDS)]
    found.bundle = prepare(*found.inputs, folder / "bundle", reference=True)
    return found


def pairs(overlap, tokenizer):
    """As the golden files spell an overlap."""
    names = tokenizer.convert_ids_to_tokens(overlap.target_ids.tolist())
    ids = zip(overlap.target_ids.tolist(), overlap.source_ids.tolist(), strict=True)
    return {name: list(pair) for name, pair in zip(names, ids, strict=True)}


def words_of(matches):
    return {
        str(token): matches.words[matches.indptr[token] : matches.indptr[token + 1]].tolist()
        for token in np.flatnonzero(matches.covered).tolist()
    }


def exported_rows(bundle, method, folder):
    model = AutoModelForMaskedLM.from_pretrained(export(bundle.path, method, folder).path)
    return model.get_input_embeddings().weight.detach().numpy(), model


# --- the published code ----------------------------------------------------------------------------------------------


def test_overlap(golden):
    target = golden.bundle.tokenizer("target")
    assert pairs(golden.bundle.overlap.choose(["exact"]), target) == golden.overlap["exact"]
    assert pairs(golden.bundle.overlap.choose(["exact", "case"]), target) == golden.overlap["fuzzy"]
    assert pairs(golden.bundle.overlap.choose(), target) == golden.overlap["fuzzy"]


def test_words_of_tokens(golden):
    assert words_of(golden.bundle.source) == golden.source_words
    assert words_of(golden.bundle.target) == golden.target_words


@pytest.mark.parametrize("side", ["source", "target"])
def test_tokens_in_word_space(golden, side):
    expected = golden.arrays[f"{side}_in_word_space"]
    np.testing.assert_allclose(entries(golden.bundle.pooled(side, "duplicates")), expected, atol=1e-6)


def test_words_of_one_language(golden, tmp_path):
    bundle = prepare(*golden.inputs, tmp_path / "bundle", source_languages=["eng"], reference=True)
    expected = golden.arrays["source_in_word_space_eng"]
    np.testing.assert_allclose(entries(bundle.pooled("source", "duplicates")), expected, atol=1e-6)


def test_split(golden):
    parts = [golden.split[name] for name in ("train", "val", "test")]
    shuffled = [token for part in parts for token in part]
    # The order before shuffling is that of a Rust hash map, another one in each process: undo the shuffle to know it.
    indices = list(range(len(shuffled)))
    np.random.RandomState(42).shuffle(indices)
    before = [token for _, token in sorted(zip(indices, shuffled, strict=True))]
    split = reference.split_tokens(before)
    assert [split[name].tolist() for name in ("train", "val", "test")] == parts
    ours = golden.bundle.split
    assert [len(ours[name]) for name in ("train", "val", "test")] == [len(part) for part in parts]
    assert sorted(np.concatenate(list(ours.values())).tolist()) == sorted(shuffled)
    assert golden.bundle.meta.seed == 42


def test_coordinates(golden, tmp_path):
    bundle = prepare(*golden.inputs, tmp_path / "bundle", coordinate_dim=8, reference=True)
    np.testing.assert_allclose(entries(bundle.rows(bundle.coordinates)[0]), golden.arrays["low_rank"], atol=1e-4)
    norms = np.linalg.norm(bundle.coordinates, axis=0)
    np.testing.assert_allclose(norms, golden.arrays["singular_coordinates_norms"], atol=1e-5)
    rows, _ = exported_rows(bundle, "ofa", tmp_path / "ofa")
    assert np.isfinite(rows).all()


def test_ofa(golden, tmp_path):
    rows, _ = exported_rows(golden.bundle, "ofa", tmp_path / "ofa")
    expected = golden.arrays["ofa"]
    sources, targets = (golden.bundle.pooled(side, "duplicates") for side in ("source", "target"))
    for token in np.flatnonzero(np.abs(entries(rows) - expected) >= 1e-5).tolist():
        # A tie for the tenth place, which argpartition decides differently on another processor.
        ways = slow.ofa_mixtures(targets[token], sources, golden.embeddings)
        assert min(np.abs(row - rows[token]).max() for row in ways) < 1e-5, token
        assert min(abs(row[token % rows.shape[1]] - expected[token]) for row in ways) < 1e-5, token
    provenance = (tmp_path / "ofa" / "provenance.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert [number for number, line in enumerate(provenance) if "\tnoise\t" in line] == golden.not_found


def test_random(golden, tmp_path):
    rows, model = exported_rows(golden.bundle, "random", tmp_path / "random")
    np.testing.assert_allclose(entries(rows), golden.arrays["random"], atol=1e-5)
    bias = model.get_output_embeddings().bias.detach().numpy()
    assert np.abs(bias).max() <= 24**-0.5
    assert bias.std() > 0.1


def test_assembled(golden):
    bundle = golden.bundle
    predicted = np.zeros((bundle.meta.target_tokens, 24), np.float32)
    known = np.zeros(len(predicted), bool)
    ids = golden.arrays["prediction_ids"]
    predicted[ids], known[ids] = golden.arrays["predictions"][:, None], True
    filled = plan_and_fill(target_inputs(bundle), Predictions(predicted, known), ["exact", "case"], "noise")
    np.testing.assert_allclose(entries(bundle.rows(filled.coordinates)[0]), golden.arrays["assembled"], atol=1e-5)
    assert set(filled.origins.tolist()) == {ORIGINS.index(name) for name in ("copied", "predicted", "noise")}


def test_the_default_does_better(golden, tmp_path):
    """Each step of the default differs where the published one has a quirk."""
    ours = prepare(*golden.inputs, tmp_path / "bundle", duplicate_words="first")
    published = golden.bundle
    assert ours.meta.training_fingerprint != published.meta.training_fingerprint
    # Special tokens find each other by role, and byte-level tokens by their bytes.
    assert OVERLAP_KINDS.index("role") in ours.overlap.kinds
    assert OVERLAP_KINDS.index("role") not in published.overlap.kinds
    assert words_of(ours.target) != words_of(published.target)
    special = published.tokenizer("source").unk_token_id
    assert not ours.source.covered[special]
    # Case variants of a string stay on one side of the split.
    assert len(ours.split["val"]) != len(published.split["val"])
    # No row is noise, and no zero row is found.
    rows, _ = exported_rows(ours, "ofa", tmp_path / "ofa")
    provenance = (tmp_path / "ofa" / "provenance.tsv").read_text(encoding="utf-8")
    assert "\tnoise\t" not in provenance
    assert len(rows) == published.meta.target_tokens


# --- quirk by quirk --------------------------------------------------------------------------------------------------


def test_departures_are_no_quirks():
    assert DEPARTURES
    assert not DEPARTURES.keys() & QUIRKS.keys()
    assert all(name.isidentifier() and text for name, text in DEPARTURES.items())


def test_a_word_with_and_without_its_prefix_is_one(tmp_path):
    path = write_vectors(tmp_path / "w.vec", {"eng:Zebra": np.ones(2), "Zebra": np.zeros(2)})
    with pytest.raises(InputError, match=r"line 3: the word 'Zebra' \(eng\) was already at .*line 2"):
        build_store([str(path)], tmp_path / "store", spelling="reference")
    first = build_store([str(path)], tmp_path / "store", spelling="reference", duplicates="first")
    assert first.words[:] == ["Zebra"]
    assert first.vectors.all()


def test_every_quirk_is_documented():
    for name, quirk in QUIRKS.items():
        assert name.isidentifier()
        assert quirk.setting
        assert quirk.published
        assert quirk.default
        assert quirk.published != quirk.default


@pytest.mark.parametrize(("spelling", "word", "language"), [
    ("eng:$and$", "$and$", "eng"),
    ("deu:wort", "wort", "deu"),
    ("plain", "plain", "eng"),
    ("hin:", "hin:", "eng"),
    ("ab:c", "ab:c", "eng"),
])  # fmt: skip
def test_words_are_read_by_the_published_rule(spelling, word, language):
    assert ReferenceSpelling(True, True).split(spelling, "")[:2] == (word, language)
    if len(word) > 1:
        assert slow.surface_variants(spelling) == (language, reference.surface_variants(word, 3))


@given(st.text(st.sampled_from("ab$é "), min_size=2, max_size=6).filter(lambda word: word.replace("$", "")))
def test_variants(word):
    assert tuple(reference.surface_variants(word, 0)) == slow.surface_variants(f"xxx:{word}")[1]


@given(st.sets(st.integers(0, 4_000_000), max_size=50))
def test_word_order_is_that_of_a_set(ids):
    words = np.array(sorted(ids), np.int64)
    assert words[reference.word_order(words)].tolist() == list(set(sorted(ids)))


def test_half_of_the_larger_sets_are_sampled():
    rng = np.random.default_rng(0)
    assert all(reference.sample(4, rng).tolist() == [0, 1, 2, 3] for _ in range(20))
    draws = [reference.sample(40, rng) for _ in range(2_000)]
    whole = [draw.tolist() == list(range(40)) for draw in draws]
    assert 0.46 < np.mean(whole) < 0.54
    sizes = np.array([len(draw) for draw, unchanged in zip(draws, whole, strict=True) if not unchanged])
    assert sizes.min() == 20
    assert sizes.max() == 39
    assert abs(sizes.mean() - 29.5) < 0.6
    assert all(len(set(draw.tolist())) == len(draw) for draw in draws)
    assert any((np.diff(draw) < 0).any() for draw in draws)


def test_batches_ascend_within_groups_of_forty():
    sizes = np.random.default_rng(0).integers(1, 500, 4 * 100 + 3)
    batches = [draw.items for draw in GroupedBatches(sizes, 4, group=reference.GROUP, ascending=True)]
    assert [len(batch) for batch in batches] == [4] * 100
    for start in (0, 40, 80):
        ordered = sizes[np.concatenate(batches[start : start + 40])]
        assert (np.diff(ordered) >= 0).all()
    assert len(np.unique(np.concatenate(batches))) == 400


def test_neighbours_against_slow_numpy():
    rng = np.random.default_rng(0)
    keys, queries, rows = rng.normal(size=(30, 5)), rng.normal(size=(6, 5)), rng.normal(size=(30, 4))
    keys[3], queries[2] = 0, 0
    mixture = reference.mix_nearest(queries, keys)
    assert np.diff(mixture.indptr).tolist() == [10, 10, 0, 10, 10, 10]
    for number in (0, 1, 3, 4, 5):
        (expected,) = slow.ofa_mixtures(queries[number], keys, rows)
        np.testing.assert_allclose((mixture @ rows)[number], expected, atol=1e-9)


def test_noise_against_slow_numpy():
    coordinates = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    wanted = np.array([True, False, True, False])
    np.testing.assert_array_equal(reference.noise(coordinates, wanted), slow.fallback_rows(coordinates, 4)[wanted])
    copied = {1: 0, 3: 2}
    expected = slow.random_baseline(copied, coordinates, 4)[wanted]
    np.testing.assert_array_equal(reference.noise_in_sequence(coordinates, wanted), expected)


@pytest.fixture(scope="module")
def small(model_folders, tokenizer_folders, vector_file, tmp_path_factory):
    """A bundle in reference mode."""
    folder = tmp_path_factory.mktemp("small")
    inputs = str(model_folders["bert"]), str(tokenizer_folders["unigram"]), [str(vector_file)]
    return prepare(*inputs, folder / "bundle", coordinate_dim=6, reference=True)


def test_the_mode_is_recorded(small):
    assert json.loads((small.path / "meta.json").read_text())["reference"] is True


def test_nets_see_raw_words_in_the_order_of_a_set(small):
    table = WordSetTable(small, "source", 5, "set", "sample")
    ids = np.flatnonzero(small.source.covered)
    sets = table.sets(ids)
    for row, token in enumerate(ids.tolist()):
        words = small.source.words[small.source.indptr[token] : small.source.indptr[token + 1]].tolist()
        seen = list(set(words))[:5]
        np.testing.assert_array_equal(sets.vectors[row, : len(seen)], small.words.vectors[seen])
        assert sets.mask[row].sum() == len(seen)
    sampled = table.sets(ids, np.random.default_rng(0))
    assert sampled.mask.any(1).all()
    assert sampled.mask.shape[1] <= 5


def test_published_training_batches(small):
    data = HyperDataModule(
        str(small.path), streams="tokens", batch_size=8, words="set", augmentation="sample", batches="ascending"
    )
    data.setup("fit")
    batches = list(data.train_dataloader()["tokens"])
    assert {len(batch.self_index) for batch in batches} == {8}
    counts = small.source.counts[np.concatenate([batch.ids for batch in batches])]
    assert (np.diff(counts[: reference.GROUP * 8]) >= 0).all()


def test_a_reference_bundle_exports_with_every_method(small, tmp_path):
    for method in ("ofa", "random", "mean", "subtokens", "ofa_tuned"):
        counts = export(small.path, method, tmp_path / method).counts
        assert (counts["noise"] > 0) == (method in ("ofa", "random")), method


def test_the_published_split_takes_no_shares(model_folders, tokenizer_folders, vector_file, tmp_path):
    inputs = str(model_folders["bert"]), str(tokenizer_folders["unigram"]), [str(vector_file)]
    with pytest.raises(InputError, match=r"reference=True: expected no validation_share"):
        prepare(*inputs, tmp_path / "bundle", seed=1, reference=True)
    with pytest.raises(InputError, match="expected words for at least 40 source tokens"):
        reference.split_tokens(list(range(39)))


def test_zero_rows_become_noise(small):
    """A copied row that happens to be zero too, as published."""
    inputs = target_inputs(small)
    known = Predictions(np.zeros((len(inputs.covered), small.meta.coordinate_dim), np.float32), inputs.covered)
    filled = plan_and_fill(inputs, known, ["exact"], "noise")
    assert filled.coordinates.any(1).all()
    assert "predicted" not in {ORIGINS[origin] for origin in filled.origins}


def test_vectors_of_both_modes(tmp_path):
    """`$` is a border mark to the reference wherever it stands, and to us in files that use it."""
    words = ["$the$", "river", "a$b", "deu:fluss", *(f"w{number}" for number in range(60))]
    path = write_vectors(tmp_path / "w.vec", {word: np.ones(2) for word in words})
    published = build_store([str(path)], tmp_path / "published", spelling="reference")
    assert published.languages == ("deu", "eng")
    assert published.words[:4] == ["$the$", "river", "a$b", "fluss"]
    assert build_store([str(path)], tmp_path / "ours").languages == ("",)


# --- the paper's configurations --------------------------------------------------------------------------------------

# Table 1: layers, hidden width, epochs, temperature; and the parameters at a word width of 200.
PAPER = {
    "roberta-100": (2, 800, 370, 0.5, 22_125_900),
    "roberta-200": (2, 800, 470, 0.5, 22_506_200),
    "roberta-400": (2, 1600, 400, 0.5, 87_412_400),
    "xlmr-100": (4, 800, 120, 0.25, 52_871_500),
    "xlmr-200": (4, 800, 230, 0.25, 53_251_800),
    "xlmr-400": (4, 1600, 80, 0.25, 210_343_600),
}


def test_every_paper_config_is_in_the_table():
    assert {path.stem for path in (CONFIGS / "paper").glob("*.yaml")} == set(PAPER)


@pytest.mark.parametrize("name", sorted(PAPER))
def test_paper_configs_are_those_of_the_table(name):
    layers, hidden, epochs, temperature, parameters = PAPER[name]
    config = yaml.safe_load((CONFIGS / "paper" / f"{name}.yaml").read_text(encoding="utf-8"))
    arguments, model, data = config["model"]["net"]["init_args"], config["model"], config["data"]
    assert arguments == {"num_layers": layers, "hidden_dim": hidden, "dropout": 0.4}
    assert (config["trainer"]["max_epochs"], model["temperature"]) == (epochs, temperature)
    assert (model["optimizer"], model["learning_rate"], model["weight_decay"]) == ("adam", 1e-4, 0)
    assert (model["schedule"], model["step_epochs"], model["step_factor"]) == ("step", 10, 0.95)
    assert (model["distance"], model["contrastive_weight"]) == ("l1", 0.1)
    assert (data["batch_size"], data["max_words"]) == (256, 256)
    assert (data["words"], data["augmentation"], data["batches"]) == ("set", "sample", "ascending")
    with torch.device("meta"):
        net = BiLSTM(200, int(name.split("-")[1]), **arguments)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


@pytest.mark.parametrize("name", sorted(PAPER))
def test_paper_configs_train_a_step(name, small, tmp_path):
    config = ["--config", str(CONFIGS / "paper" / f"{name}.yaml"), "--data.bundle", str(small.path)]
    tiny = ["--model.net.init_args.hidden_dim", "4", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    tiny += ["--data.batch_size", "8", "--trainer.logger.init_args.save_dir", str(tmp_path)]
    main(["fit", *config, *tiny, *QUIET])
    last = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert last["global_step"] == 1
    net = last["hyperofa"]["net"]
    assert (net["class"], net["hidden_dim"], net["num_layers"]) == ("BiLSTM", 4, PAPER[name][0])
    assert all(torch.isfinite(value).all() for value in last["state_dict"].values())


def test_a_published_net_is_exported_as_published(small, tmp_path):
    config = ["--config", str(CONFIGS / "paper" / "xlmr-100.yaml"), "--data.bundle", str(small.path)]
    tiny = ["--model.net.init_args.hidden_dim", "4", "--trainer.max_epochs", "1"]
    tiny += ["--trainer.logger.init_args.save_dir", str(tmp_path), "--data.max_words", "7"]
    main(["fit", *config, *tiny, *QUIET])
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    trained = Hypernetwork.load(checkpoint, small)
    assert (trained.words, trained.max_words, trained.copied) == ("set", 7, ("exact", "case"))
    exported = export(small.path, "hyperofa", tmp_path / "model", [checkpoint])
    fuzzy = len(small.overlap.choose())
    assert {name for name, count in exported.counts.items() if count} == {"copied", "predicted", "noise"}
    assert exported.counts["copied"] == fuzzy
