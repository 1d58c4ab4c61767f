"""What users have saved goes on working: configs and checkpoints of commit aeea2d4, when modules lay side by side.

`saved/` holds two runs of it, as its own tests made them: with `fit.yaml` (SourceAttention) and with `tokens.yaml`
(MLP), each with the config it wrote, in which folders have placeholders, and `outputs.npz`: inputs and outputs of the
nets.
"""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.export.export import export
from hyperofa.nets.inputs import FEATURES, Memory, WordSets
from hyperofa.training.hypernetwork import Hypernetwork

SAVED = Path(__file__).parent / "saved"
CHECKPOINTS = {"fit": "fit.best.ckpt", "tokens": "tokens.last.ckpt"}


def checkpoint_for(bundle, name, folder):
    """A saved checkpoint as if it had been trained on this bundle; random weights differ from CPU to CPU."""
    checkpoint = torch.load(SAVED / CHECKPOINTS[name], weights_only=True)
    checkpoint["hyperofa"]["space"] = Bundle.load(bundle).meta.training_fingerprint
    path = folder / CHECKPOINTS[name]
    torch.save(checkpoint, path)
    return path


def with_new_features(features):
    """Features as they were then, and `cover`, which was 1 of all matches."""
    assert FEATURES[features.shape[-1] :] == ("cover",)
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


@pytest.mark.parametrize("path", [
    *(f"hyperofa.nets.{net}" for net in ("SourceAttention", "MLP", "BiLSTM", "SetFormer")),
    "hyperofa.curves.CurvePlot",
])  # fmt: skip
def test_class_paths_lead_to_what_moved(path):
    module, _, name = path.rpartition(".")
    assert getattr(import_module(module), name).__name__ == name


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_checkpoints_predict_as_they_did(name, bundles, tmp_path):
    trained = Hypernetwork.load(checkpoint_for(bundles["bert"], name, tmp_path), Bundle.load(bundles["bert"]))
    saved = {key: torch.from_numpy(value) for key, value in np.load(SAVED / "outputs.npz").items()}
    with torch.no_grad():
        output = trained.net(
            WordSets(saved["vectors"], with_new_features(saved["features"]), saved["mask"]),
            Memory(saved["keys"], saved["values"]),
            saved["self_index"],
        )
    torch.testing.assert_close(output, saved[name], rtol=1e-5, atol=1e-6)
    model = export(bundles["bert"], "hyperofa", tmp_path / "model", [tmp_path / CHECKPOINTS[name]])
    assert model.counts["predicted"]


def config_for(name, bundles, text_file, folder):
    """A saved config with the folders of this test."""
    config = (SAVED / f"{name}.config.yaml").read_text(encoding="utf-8")
    for placeholder, path in {"RUNS": folder, "BUNDLE": bundles["bert"], "TEXT": text_file}.items():
        config = config.replace(placeholder, str(path))
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return str(folder / "config.yaml")


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_configs_train(name, bundles, text_file, tmp_path):
    main(["fit", "--config", config_for(name, bundles, text_file, tmp_path), "--trainer.max_epochs", "1"])
    run = tmp_path / name / "version_0"
    assert (run / "curves.png").is_file()
    assert Hypernetwork.load(run / "checkpoints" / "best.ckpt", Bundle.load(bundles["bert"])).max_words == 32


def test_training_resumes(bundles, text_file, tmp_path):
    config = config_for("tokens", bundles, text_file, tmp_path)
    checkpoint = str(checkpoint_for(bundles["bert"], "tokens", tmp_path))
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 2
    flags = ["--trainer.max_epochs", "3", "--model.schedule", "constant"]
    main(["fit", "--config", config, "--ckpt_path", checkpoint, *flags])
    resumed = torch.load(tmp_path / "tokens" / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert (resumed["epoch"], resumed["global_step"]) == (3, 9)
