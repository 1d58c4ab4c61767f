"""What diverges stops in a line; no checkpoint of it is written, those before it stay."""

import json

import pytest
import torch

from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.training.checkpoints import read_checkpoint
from tests.conftest import CONFIGS, QUIET, TINY_TOKENS


def fit_words(bundle, folder, *flags):
    words = ["fit", "--config", str(CONFIGS / "tokens.yaml"), "--data.bundle", str(bundle), *QUIET, *TINY_TOKENS]
    return [*words, "--trainer.logger.init_args.save_dir", str(folder), *flags]


def message(words, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


@pytest.mark.parametrize("monitor", ["val/mrr", "val/token_loss", None])
def test_a_net_that_never_was_finite_is_no_checkpoint(monitor, bundles, tmp_path, capsys):
    keep = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"monitor": monitor}}
    flags = ["--model.learning_rate", "1e30", "--trainer.gradient_clip_val", "null", "--model.schedule", "constant"]
    words = fit_words(bundles["bert8"], tmp_path, *flags, "--trainer.callbacks", json.dumps([keep]))
    found = message(words, capsys)
    assert "hyperofa: training diverged: " in found
    assert "is not finite after step" in found
    assert "--model.learning_rate" in found
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_the_last_good_checkpoint_stays(bundles, tmp_path, monkeypatch, capsys):
    def ruin(self, trainer, module, *_):
        if trainer.current_epoch == 2:
            torch.nn.init.constant_(next(module.net.parameters()), torch.nan)

    monkeypatch.setattr("hyperofa.training.curves.CurvePlot.on_train_batch_end", ruin)
    words = fit_words(bundles["bert8"], tmp_path, "--trainer.max_epochs", "4")
    found = message(words, capsys)
    assert found.endswith("checkpoints/best.ckpt)")
    for name in ("best", "last"):
        checkpoint = read_checkpoint(tmp_path / "tokens" / "version_0" / "checkpoints" / f"{name}.ckpt")
        assert checkpoint["epoch"] <= 2


def test_a_checkpoint_of_a_ruined_net_is_refused(fitted, tmp_path):
    checkpoint = torch.load(fitted["tokens"] / "checkpoints" / "best.ckpt", weights_only=True)
    next(iter(checkpoint["state_dict"].values())).fill_(torch.inf)
    torch.save(checkpoint, tmp_path / "ruined.ckpt")
    with pytest.raises(InputError, match=r"ruined\.ckpt: expected finite weights, found NaN or infinity in net\."):
        read_checkpoint(tmp_path / "ruined.ckpt")
