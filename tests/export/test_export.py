import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.export.export import export
from hyperofa.methods.fallbacks import ORIGINS
from hyperofa.methods.registry import METHODS
from hyperofa.models.loading import load_model
from hyperofa.models.vocabulary import read_vocabulary
from hyperofa.runtime.folders import MARK, sha256_file
from tests.models.families import SIZE, open_elsewhere, outputs, text_of

ORIGIN = {name: number for number, name in enumerate(ORIGINS)}


@pytest.fixture(scope="session")
def exports(bundles, tmp_path_factory) -> dict[str, Path]:
    """Folders that `hyperofa export --method ofa` wrote, by bundle."""
    root = tmp_path_factory.mktemp("exports")
    for name, bundle in bundles.items():
        main(["export", "--bundle", str(bundle), "--method", "ofa", "--output", str(root / name)])
    return {name: root / name for name in bundles}


def read_provenance(folder: Path) -> list[dict[str, str]]:
    with (folder / "provenance.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("name", ["bert", "bert8", "roberta", "xlmr"])
def test_a_folder_loads_with_transformers_alone(name, exports, bundles):
    folder, bundle = exports[name], Bundle.load(bundles[name])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_vocab() == bundle.tokenizer("target").get_vocab()
    body, model = AutoModel.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder)
    assert len(body.get_input_embeddings().weight) == len(tokenizer) == model.config.vocab_size
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    batch = tokenizer(["the river and the town", "Fluss"], padding=True, return_tensors="pt")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert logits.shape[-1] == len(tokenizer)
    assert torch.isfinite(logits).all()
    alone = model(**tokenizer("Fluss", return_tensors="pt", return_token_type_ids=False)).logits[0]
    torch.testing.assert_close(logits[1, : len(alone)], alone, atol=1e-4, rtol=1e-4)


def test_transformers_alone_opens_exports(exports, tmp_path):
    found = open_elsewhere([(folder, "AutoModelForMaskedLM") for folder in exports.values()], tmp_path)
    for folder in exports.values():
        assert found[str(folder)]["lost"] == {}
        expected = outputs(load_model(folder), text_of(SIZE, 1))[0]
        torch.testing.assert_close(torch.tensor(found[str(folder)]["logits"]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["bert", "bert8", "roberta", "roberta8", "xlmr"])
def test_copied_tokens_have_the_logits_of_the_source(name, exports, model_folders):
    source = AutoModelForMaskedLM.from_pretrained(model_folders[name.rstrip("8")]).eval()
    target = AutoModelForMaskedLM.from_pretrained(exports[name]).eval()
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (model_folders[name.rstrip("8")], exports[name])]
    pairs = [
        (int(row["id"]), tokenizers[0].convert_tokens_to_ids(row["sources"].rpartition(":")[0]))
        for row in read_provenance(exports[name])
        if row["origin"] == "copied"
    ]
    assert len(pairs) > 10
    new, old = (torch.tensor(ids) for ids in zip(*pairs, strict=True))
    words = [(t, s) for t, s in pairs if t not in tokenizers[1].all_special_ids][:9]
    texts = [torch.tensor([ids]) for ids in zip(*words, strict=True)]
    assert source.lm_head.bias.any() if hasattr(source, "lm_head") else source.cls.predictions.bias.any()
    with torch.no_grad():
        found, expected = target(texts[0]).logits[..., new], source(texts[1]).logits[..., old]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "bert8", "roberta"])
def test_provenance_recreates_the_rows(name, exports, bundles, model_folders):
    bundle, table = Bundle.load(bundles[name]), read_provenance(exports[name])
    tokenizer = AutoTokenizer.from_pretrained(exports[name])
    source = bundle.tokenizer("source").get_vocab()
    exact = read_vocabulary(load_model(model_folders[name.rstrip("8")])).input_rows
    low_rank = bundle.rows(bundle.coordinates)[0]
    rows = AutoModel.from_pretrained(exports[name]).get_input_embeddings().weight.detach().numpy()
    assert [int(row["id"]) for row in table] == list(range(bundle.meta.target_tokens))
    assert [row["token"] for row in table] == tokenizer.convert_ids_to_tokens(list(range(len(table))))
    assert [int(row["words"]) for row in table] == bundle.target.counts.tolist()
    np.testing.assert_allclose([float(row["norm"]) for row in table], np.linalg.norm(rows, axis=1), atol=1e-4)
    origins = {row["origin"] for row in table}
    assert {"copied", "predicted"} <= origins <= set(ORIGINS)
    for row in table:
        if row["origin"] not in ("copied", "predicted", "subtokens"):
            assert row["sources"] == ""
            continue
        parts = [part.rpartition(":") for part in row["sources"].split(" ")]
        weights = np.array([float(weight) for _, _, weight in parts])
        assert weights.sum() == pytest.approx(1, abs=1e-3)
        mixed = weights @ (exact if row["origin"] == "copied" else low_rank)[[source[name] for name, _, _ in parts]]
        np.testing.assert_allclose(rows[int(row["id"])], mixed, atol=2e-3)
        assert row["overlap"] or row["origin"] != "copied"


def test_the_manifest_tells_what_was_made_of_what(exports, bundles):
    for name, folder in exports.items():
        manifest, bundle = (
            json.loads((folder / "manifest.json").read_text(encoding="utf-8")),
            Bundle.load(bundles[name]),
        )
        files = {path.name for path in folder.iterdir()} - {"manifest.json", MARK}
        assert set(manifest["files"]) == files
        assert all(sha256_file(folder / file) == digest for file, digest in manifest["files"].items())
        assert sum(manifest["counts"].values()) == bundle.meta.target_tokens
        assert manifest["method"] == "ofa"
        assert manifest["source_hash"] == bundle.meta.source_hash
        assert {"torch", "transformers", "hyperofa"} - {"hyperofa"} <= set(manifest["versions"])


def test_equal_seeds_give_equal_bytes(bundles, tmp_path):
    arguments = {"bundle": bundles["bert8"], "method": "random"}
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        export(**arguments, seed=seed, output=tmp_path / name)
    one, two, three = (
        {path.name: sha256_file(path) for path in (tmp_path / name).iterdir()} for name in ("one", "two", "three")
    )
    assert one == two
    differ = {name for name in one if one[name] != three[name]}
    assert differ == {"model.safetensors", "provenance.tsv", "README.md", "manifest.json", "rows.npy"} & one.keys()


def test_methods_differ_in_the_predicted_rows_alone(bundles, fitted, tmp_path):
    rows, origins = {}, {}
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the house\tdas Haus\nthe house\tdas Haus\n", encoding="utf-8")
    for method in METHODS:
        needs = {
            "hyperofa": {"checkpoint": [fitted["tokens"] / "checkpoints" / "best.ckpt"]},
            "transtokenizer": {"parallel": [pairs]},
        }
        folder = tmp_path / method
        export(bundles["bert"], method, folder, copied=["role", "exact"], **needs.get(method, {}))
        rows[method] = load_file(folder / "model.safetensors")
        origins[method] = np.array([row["origin"] for row in read_provenance(folder)])
    embedding = next(name for name in rows["mean"] if name.endswith("word_embeddings.weight"))
    chosen = Bundle.load(bundles["bert"]).overlap.choose(["role", "exact"]).target_ids
    for method in METHODS:
        assert (origins[method][chosen] == "copied").all()
        for name, tensor in rows[method].items():
            if name != embedding and "bias" not in name:
                assert torch.equal(tensor, rows["ofa"][name])
        # Means over tokens that contain one, over its pieces and over its script are made of predicted rows.
        same = np.isin(origins[method], ["copied", "subtokens", "mean"]) & (origins["ofa"] == origins[method])
        found, expected = (rows[which][embedding][torch.from_numpy(same)] for which in (method, "ofa"))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        predicted = torch.from_numpy((origins[method] == "predicted") & (origins["ofa"] == "predicted"))
        alike = torch.isclose(rows[method][embedding][predicted], rows["ofa"][embedding][predicted]).all(1)
        if method == "wechsel":  # OFA's mixture of vectors that are pooled another way, alike for tokens of one word
            assert alike.sum() < len(alike) / 2
        elif method != "ofa":
            assert not alike.any()


def test_no_overlap_can_be_copied_by_choice(bundles, tmp_path):
    found = export(bundles["bert"], "mean", tmp_path / "model", copied=[])
    assert found.counts["copied"] == 0
    assert "mean" in str(found)
    assert str(tmp_path / "model") in str(found)


def test_rows_are_padded_on_request(bundles, tmp_path):
    export(bundles["bert"], "mean", tmp_path / "model", pad_to_multiple_of=64)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "model").config.vocab_size % 64 == 0


def test_several_checkpoints_are_averaged(bundles, fitted, tmp_path):
    checkpoint = fitted["tokens"] / "checkpoints" / "best.ckpt"
    one = export(bundles["bert"], "hyperofa", tmp_path / "one", [checkpoint])
    two = export(bundles["bert"], "hyperofa", tmp_path / "two", [checkpoint, checkpoint])
    assert one.counts == two.counts
    rows = [AutoModel.from_pretrained(tmp_path / name).get_input_embeddings().weight for name in ("one", "two")]
    torch.testing.assert_close(rows[0], rows[1])


def test_a_share_of_ofa_moves_the_rows_there(bundles, fitted, tmp_path):
    checkpoint = fitted["tokens"] / "checkpoints" / "best.ckpt"
    rows = {}
    for share in (0.0, 0.5, 1.0, None):
        export(bundles["bert"], "hyperofa", tmp_path / str(share), [checkpoint], ofa_share=share)
        rows[share] = AutoModel.from_pretrained(tmp_path / str(share)).get_input_embeddings().weight.detach()
    torch.testing.assert_close(rows[0.5], (rows[0.0] + rows[1.0]) / 2)
    assert not torch.equal(rows[0.0], rows[1.0])
    shares = [(1 - tenths / 10) * rows[0.0] + tenths / 10 * rows[1.0] for tenths in range(11)]
    assert min((mix - rows[None]).abs().max() for mix in shares) < 1e-5


def test_what_is_saved_is_not_the_tokenizer_that_is_called(bundles):
    bundle = Bundle.load(bundles["roberta"])
    shared = bundle.tokenizer("target")
    shared("a", truncation=True, max_length=4, padding="max_length")
    assert bundle.tokenizer("target") is shared
    assert bundle.tokens("target") is bundle.tokens("target")
    backend = bundle.load_tokenizer("target").backend_tokenizer
    assert backend.padding is backend.truncation is None
