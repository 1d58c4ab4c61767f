"""Training through the command line: both streams, every net, checkpoints, resuming, several processes."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback, Trainer
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.prediction import predict
from hyperofa.nets.mlp import MLP
from hyperofa.nets.registry import NETS
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.module import HyperModule
from hyperofa.training.text_views import ViewCounts
from hyperofa.training.unread import tell_unread
from tests.conftest import CONFIGS, QUIET, TINY_TEXT, TINY_TOKENS


def metric(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def fit(config: str, bundle: Path, folder: Path, *flags: str) -> Path:
    """Run `hyperofa fit`; the folder of the run."""
    logger = ["--trainer.logger.init_args.save_dir", str(folder), "--trainer.logger.init_args.version", "0"]
    main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--data.bundle", str(bundle), *logger, *QUIET, *flags])
    return folder / config / "version_0"


def test_the_loss_of_tokens_falls(bundles, tmp_path):
    flags = ["--trainer.max_epochs", "12", "--model.learning_rate", "1e-2", "--data.batch_size", "64"]
    run = fit("tokens", bundles["bert"], tmp_path, *TINY_TOKENS[4:], *flags)
    losses = metric(run, "train/token_loss")
    assert losses[-1] < 0.8 * losses[0]


def test_the_loss_through_the_model_falls(bundles, text_file, tmp_path):
    flags = ["--trainer.max_epochs", "4", "--data.steps", "6", "--data.sentences", "8", "--data.views.translated", "8"]
    flags += ["--model.learning_rate", "1e-2", "--model.precision", "float32", "--data.text", str(text_file)]
    losses = metric(fit("fit", bundles["bert"], tmp_path, *flags), "train/text_loss")
    assert losses[-1] < losses[0]


def test_runs_leave_a_log_a_plot_and_two_checkpoints(fitted):
    for run in fitted.values():
        names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        assert names >= {
            "metrics.csv", "curves.png", "config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        }  # fmt: skip
    assert {"cosine", "mrr", "hit10", "norm_ratio"} <= {
        name.removeprefix("val/") for name in (fitted["tokens"] / "metrics.csv").read_text().split("\n")[0].split(",")
    }


def test_validation_tells_languages_apart(fitted):
    by_language = metric(fitted["fit"], "val/translated_mrr/deu")  # there is no other
    assert by_language
    assert by_language == metric(fitted["fit"], "val/translated_mrr")


@pytest.mark.parametrize("net", sorted(NETS))
def test_every_net_learns_from_both_streams(net, bundles, text_file, tmp_path):
    small = {"SetFormer": ["num_heads=2", "num_layers=1"], "BiLSTM": ["hidden_dim=4", "num_layers=1"]}
    arguments = [f"--model.net.init_args.{value}" for value in small.get(net, ["hidden_dim=4"])]
    flags = ["--data.text", str(text_file), "--data.streams", "both", "--data.batch_size", "64"]
    flags += ["--data.views.target=3", "--data.views.source=3", "--model.hidden_weight=0.1", "--model.kl_weight=0.1"]
    config = {"trainer": {"max_epochs": 1}, "model": {"net": {"class_path": f"hyperofa.nets.{net}"}}}
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(config))
    flags += ["--config", str(tmp_path / "net.yaml"), *arguments]
    run = fit("fit", bundles["bert8"], tmp_path, *TINY_TEXT[2:6], "--model.precision", "float32", *flags)
    assert np.isfinite(metric(run, "train/text_loss")).all()
    assert np.isfinite(metric(run, "train/token_loss")).all()
    assert torch.isfinite(
        torch.cat([tensor.flatten() for tensor in weights(run / "checkpoints" / "last.ckpt").values()])
    ).all()


def test_token_wise_losses_fit_whatever_sentence_is_the_longest(bundles, text_file):
    """Here only some sentences have a view under the source tokenizer, and the longest may not be among them."""
    data = HyperDataModule(
        str(bundles["bert"]), [str(text_file)], sentences=6, steps=6, views=ViewCounts(translated=1, source=1)
    )
    module = HyperModule(data.word_dim, data.coordinate_dim, hidden_weight=1.0, kl_weight=1.0, precision="float32")
    run = trainer(max_epochs=1, limit_val_batches=0)
    run.fit(module, data)
    assert run.global_step == 6
    losses = {name: run.callback_metrics[f"train/{name}_loss"].item() for name in ("text", "translated", "source")}
    assert np.isfinite(list(losses.values())).all()
    assert losses["text"] > (losses["translated"] + losses["source"]) / 2  # and what the two token-wise losses add


def test_settings_that_nothing_reads_are_told(bundles, text_file, recwarn):
    data = HyperDataModule(str(bundles["bert"]), [str(text_file)], sentences=4, steps=1, batches="ascending")
    module = HyperModule(
        data.word_dim, data.coordinate_dim, lambda d, k: MLP(d, k, 4, 0), distance="l1", step_epochs=3, kl_weight=1.0
    )
    trainer(max_epochs=1, limit_val_batches=0).fit(module, data)
    found = [str(warning.message) for warning in recwarn]
    assert [each.partition(", found")[0] for each in found if "nothing would read it" in each] == [
        "batches: expected none but with streams tokens or both",
        "distance: expected none but with streams tokens or both",
        "kl_weight: expected none but with views.source",
        "step_epochs: expected none but with schedule='step'",
    ]


@pytest.mark.parametrize("name", ["paper/roberta-100", "paper/xlmr-400", "fit", "tokens"])
def test_all_settings_of_presets_are_read(name, bundles, text_file, recwarn):
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    text = [str(text_file)] if settings["data"]["streams"] == "text" else None
    data = HyperDataModule(str(bundles["bert"]), text, **settings["data"])
    options = {name: value for name, value in settings["model"].items() if name != "net"}
    module = HyperModule(data.word_dim, data.coordinate_dim, lambda d, k: MLP(d, k, 4, 0), **options)
    tell_unread(module._changed, data)
    assert not [each for each in recwarn if "nothing would read it" in str(each.message)]


def trainer(**arguments) -> Trainer:
    quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False}
    files = {"logger": False, "enable_checkpointing": False, "use_distributed_sampler": False}
    return Trainer(**quiet, **files, **{"log_every_n_steps": 1, **arguments})


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_the_default_schedule_takes_any_number_of_steps(steps, bundles):
    data = HyperDataModule(str(bundles["bert8"]), streams="tokens", batch_size=8)
    module = HyperModule(data.word_dim, data.coordinate_dim, lambda d, k: MLP(d, k, 4, 0))
    rates = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(max_steps=steps, limit_val_batches=0, callbacks=[Watch()]).fit(module, data)
    assert len(rates) == steps
    peak = int(np.argmax(rates))
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
    assert rates[-1] < 1e-7
    assert steps == 1 or rates[peak] > 1e-3


def test_the_weight_of_tokens_falls(bundles):
    data = HyperDataModule(str(bundles["bert8"]), streams="tokens", batch_size=8)
    module = HyperModule(data.word_dim, data.coordinate_dim, token_weight=2, token_epochs=2, schedule="constant")
    module._token_step = lambda batch, stage: 1 + 0 * module.net(batch.sets, data.memory, batch.self_index).sum()
    losses = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 0:
                losses.append(float(outputs["loss"]))

    trainer(max_epochs=4, limit_val_batches=0, callbacks=[Watch()]).fit(module, data)
    assert losses == pytest.approx([2, 1, 0, 0])
    with pytest.raises(InputError, match=r"token_epochs: expected at least 1, found 0"):
        HyperModule(data.word_dim, data.coordinate_dim, token_epochs=0)


def test_a_checkpoint_holds_the_net_alone(fitted, bundles):
    bundle = Bundle.load(bundles["bert"])
    for run, path in ((run, run / "checkpoints" / "best.ckpt") for run in fitted.values()):
        checkpoint = torch.load(path, weights_only=True)
        trained = Hypernetwork.load(path, bundle)
        assert set(checkpoint["state_dict"]) == {f"net.{name}" for name in trained.net.state_dict()}
        assert not {"optimizer_states", "callbacks"} & checkpoint.keys()
        parameters = sum(parameter.numel() for parameter in trained.net.parameters())
        # The rest is bookkeeping of some kilobytes.
        assert path.stat().st_size < 1.1 * 4 * parameters + 20_000, run


def test_text_tells_a_net_how_tokens_are_used(fitted, bundles, text_file, tmp_path):
    """How often and as what part of a word; a language model also in which languages; tokens alone nothing."""
    flags = ["--data.text", str(text_file), *TINY_TEXT, "--data.judges", "sentence"]
    runs = {**fitted, "sentence": fit("fit", bundles["bert"], tmp_path, *flags)}
    runs["untold"] = fit("fit", bundles["bert"], tmp_path / "untold", *flags[:-2], "--model.usage", "false")
    asked = {}
    for name, run in runs.items():
        net = Hypernetwork.load(run / "checkpoints" / "best.ckpt", Bundle.load(bundles["bert"])).net
        asked[name] = net.frequency, net.forms, net.languages
        assert not net.forms or net.form_rows.count_nonzero() > 0 < net.form_match.count_nonzero()
    nothing = False, False, 0
    assert asked == {"fit": (True, True, 2), "sentence": (True, True, 0), "tokens": nothing, "untold": nothing}


def test_a_token_cannot_see_itself(bundles):
    data = HyperDataModule(str(bundles["bert"]), streams="tokens")
    data.setup("fit")
    module = HyperModule(data.word_dim, data.coordinate_dim)
    batch = next(iter(data._tokens("train")))
    memory = data.memory
    indices = batch.self_index
    assert (memory.values[indices] == batch.expected).all()
    seen = module.net(batch.sets, memory)
    changed = memory._replace(values=memory.values.index_fill(0, indices[:1], 1e3))
    torch.testing.assert_close(module.net(batch.sets, memory, indices)[0], module.net(batch.sets, changed, indices)[0])
    assert not torch.allclose(seen[0], module.net(batch.sets, changed)[0])
    # When tokens are trained on, those of validation are not in the memory.
    held_out = next(iter(data.val_dataloader()[0]))
    assert (held_out.self_index >= len(memory.keys)).all()
    assert len(memory.keys) == len(data.bundle.split["train"])


@pytest.mark.parametrize("stage", ["fit", "predict"])
def test_text_hides_every_source_token_from_itself_alone(stage, bundles, text_file):
    data = HyperDataModule(str(bundles["bert"]), [str(text_file)])
    data.setup(stage)
    covered = np.flatnonzero(data.bundle.source.covered)
    assert len(data.memory.keys) == len(covered)
    np.testing.assert_array_equal(data.memory.values, data.bundle.coordinates[covered])
    np.testing.assert_array_equal(data._self_index["source"][covered], np.arange(len(covered)))
    assert (np.delete(data._self_index["source"], covered) >= len(covered)).all()
    assert (data._self_index["target"] >= len(covered)).all()


@pytest.mark.parametrize("config", ["fit", "tokens"])
def test_resuming_equals_an_uninterrupted_run(config, bundles, text_file, tmp_path):
    every = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    every["init_args"] = {"save_top_k": -1, "filename": "{epoch}", "every_n_epochs": 1}
    (tmp_path / "every.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [every]}}))
    flags = {"fit": [*TINY_TEXT, "--data.text", str(text_file)], "tokens": TINY_TOKENS}[config]
    flags = ["--config", str(tmp_path / "every.yaml"), *flags]
    whole = fit(config, bundles["bert8"], tmp_path / "whole", *flags) / "checkpoints"
    rest = fit(config, bundles["bert8"], tmp_path / "rest", *flags, "--ckpt_path", str(whole / "epoch=0.ckpt"))
    rest = rest / "checkpoints"
    assert {path.name for path in rest.iterdir()} == {"epoch=1.ckpt", "last.ckpt"}
    first, last = (torch.load(folder / "epoch=1.ckpt", weights_only=True) for folder in (whole, rest))
    assert first["global_step"] == last["global_step"] > 0
    for name, tensor in first["state_dict"].items():
        torch.testing.assert_close(last["state_dict"][name], tensor, rtol=0, atol=0)


def test_validate_test_and_predict_read_a_checkpoint(fitted, bundles, tmp_path, capsys):
    run = fitted["tokens"]
    common = ["--config", str(run / "config.yaml"), "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]
    common += ["--trainer.logger.init_args.save_dir", str(tmp_path)]
    main(["validate", *common])
    main(["test", *common])
    out = capsys.readouterr().out
    assert "val/mrr" in out
    assert "test/mrr" in out
    assert "test/hit10" in out
    main(["predict", *common])
    with np.load(next(tmp_path.rglob("coordinates-0.npz"))) as file:
        found = dict(file)
    bundle = Bundle.load(bundles["bert"])
    expected = predict(Hypernetwork.load(run / "checkpoints" / "best.ckpt", bundle), bundle)
    assert sorted(found["ids"]) == np.flatnonzero(expected.known).tolist()
    np.testing.assert_allclose(found["coordinates"], expected.coordinates[found["ids"]], rtol=1e-4, atol=1e-5)


def test_fit_test_export_and_load(fitted, bundles, text_file, tmp_path, capsys):
    for name, run in fitted.items():
        checkpoint = ["--checkpoint", str(run / "checkpoints" / "best.ckpt")]
        folder = tmp_path / name
        main(["export", "--bundle", str(bundles["bert"]), "--method", "hyperofa", *checkpoint, "--output", str(folder)])
        assert "hyperofa, rows" in capsys.readouterr().out
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        output = model(**tokenizer("der Fluss fließt", return_tensors="pt")).last_hidden_state
        assert torch.isfinite(output).all()
        assert AutoModelForMaskedLM.from_pretrained(folder).config.vocab_size == len(tokenizer)


def test_two_processes_share_the_tokens(bundles, tmp_path):
    """Each token is seen once an epoch by one of two processes, whose nets stay equal."""
    watcher = """
import sys
from lightning import Callback
from lightning.pytorch.utilities import rank_zero_only
import torch, hyperofa.cli, pathlib

class Watcher(Callback):
    def __init__(self, folder: str) -> None:
        self.folder, self.seen = pathlib.Path(folder), []
    def on_train_batch_start(self, trainer, module, batch, number):
        self.seen += batch["tokens"].ids.tolist()
    def on_fit_end(self, trainer, module):
        state = {"seen": self.seen, "net": module.net.state_dict()}
        torch.save(state, self.folder / f"rank{trainer.global_rank}.pt")
"""
    (tmp_path / "watching.py").write_text(watcher)
    callback = {"class_path": "watching.Watcher", "init_args": {"folder": str(tmp_path)}}
    trainer = {"max_epochs": 1, "strategy": "ddp", "devices": 2, "callbacks": [callback]}
    (tmp_path / "watch.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    tokens = len(Bundle.load(bundles["bert8"]).split["train"])
    half = -(-tokens // 2)
    quiet = [*QUIET, "--trainer.devices", "2"]
    command = [sys.executable, "-m", "hyperofa", "fit", "--config", str(CONFIGS / "tokens.yaml"), *TINY_TOKENS, *quiet]
    command += ["--config", str(tmp_path / "watch.yaml"), "--data.bundle", str(bundles["bert8"]), "--trust", "watching"]
    command += ["--data.batch_size", str(half), "--trainer.logger.init_args.save_dir", str(tmp_path)]
    command += ["--trainer.max_epochs", "1"]
    paths = os.pathsep.join([str(tmp_path), str(CONFIGS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert sorted(ranks[0]["seen"] + ranks[1]["seen"]) == Bundle.load(bundles["bert8"]).split["train"].tolist()
    for name, tensor in ranks[0]["net"].items():
        torch.testing.assert_close(ranks[1]["net"][name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["fit", "tokens"])  # those of the paper: test_reference.py
def test_every_training_config_trains_a_step_of_its_net(name, bundles, text_file, tmp_path):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    tokens = config["data"].get("streams") == "tokens"
    text = [] if tokens else ["--data.text", str(text_file), "--data.sentences", "4"]
    flags = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", *text]
    run = fit(name, bundles["bert8"], tmp_path, "--model.net.init_args.hidden_dim", "8", *flags)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 1
    assert last["hyperofa"]["net"]["class"] == config["model"]["net"]["class_path"].rpartition(".")[2]
    assert np.isfinite(metric(run, "val/mrr")).all()
