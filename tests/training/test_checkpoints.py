"""Checkpoints that somebody made or altered: refused in a line, by every command that reads one."""

import copy

import pytest
import torch

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.training.checkpoints import read_checkpoint
from hyperofa.training.hypernetwork import Hypernetwork
from tests.conftest import CONFIGS, QUIET, TINY_TOKENS


def put(*path, value):
    """Puts a value at a path of keys."""

    def change(checkpoint):
        place = checkpoint
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def first_weight(change):
    def apply(checkpoint):
        name = next(iter(checkpoint["state_dict"]))
        checkpoint["state_dict"][name] = change(checkpoint["state_dict"][name])

    return apply


RECORDS = {
    "no record": put("hyperofa", value=[]),
    "no net": put("hyperofa", "net", value=None),
    "class of no text": put("hyperofa", "net", "class", value=["MLP"]),
    "size of no number": put("hyperofa", "net", "hidden_dim", value="8"),
    "size of none": put("hyperofa", "net", "hidden_dim", value=-8),
    "giant": put("hyperofa", "net", "hidden_dim", value=10**15),
    "as large as memory": put("hyperofa", "net", "hidden_dim", value=10**6),
    "endless": put("hyperofa", "net", "num_layers", value=10**9),
    "kinds": put("hyperofa", "copied", value=["everything"]),
    "kind of no text": put("hyperofa", "copied", value=[["role"]]),
    "max_words": put("hyperofa", "max_words", value=0),
    "words": put("hyperofa", "words", value="longest"),
    "space": put("hyperofa", "space", value=3),
    "weights": put("state_dict", value=[]),
    "a weight": first_weight(lambda weight: [1.0]),
    "shape": first_weight(lambda weight: weight[:1].clone()),
    "complex": first_weight(lambda weight: weight.to(torch.complex64) * 1j),
    "complex, but real": first_weight(lambda weight: weight.to(torch.complex64)),
    "sparse": first_weight(lambda weight: weight.to_sparse()),
    "nowhere": first_weight(lambda weight: weight.to("meta")),
    "whole numbers": first_weight(lambda weight: weight.to(torch.int64)),
    "truth values": first_weight(lambda weight: weight > 0),
    "none left": lambda checkpoint: checkpoint["state_dict"].clear(),
}
STATES = {
    "epoch": put("epoch", value="three"),
    "loops": put("loops", value={}),
    "no fit loop": put("loops", "fit_loop", value=None),
    "callbacks": put("callbacks", value={"Resumption": 3, "ModelCheckpoint": []}),
    "optimizers": put("optimizer_states", value=[{}]),
    "other optimizers": put("optimizer_states", 0, "param_groups", value=[]),
    "schedulers": put("lr_schedulers", value=[3]),
    "version": put("pytorch-lightning_version", value="x"),
    "version of no text": put("pytorch-lightning_version", value={"a": 1}),
    "version of long ago": put("pytorch-lightning_version", value="0.1"),
}


@pytest.fixture(scope="module")
def whole(fitted):
    return torch.load(fitted["tokens"] / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture
def crafted(whole, tmp_path):
    def make(change):
        checkpoint = copy.deepcopy(whole)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "crafted.ckpt")
        return tmp_path / "crafted.ckpt"

    return make


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_no_net_is_not_read(name, crafted, bundles):
    with pytest.raises(InputError, match=r"crafted\.ckpt: expected"):
        Hypernetwork.load(crafted(RECORDS[name]), Bundle.load(bundles["bert"]))


@pytest.mark.parametrize("name", STATES)
def test_training_does_not_go_on_from_nonsense(name, crafted, bundles, tmp_path, capsys):
    words = ["fit", "--config", str(CONFIGS / "tokens.yaml"), "--data.bundle", str(bundles["bert"]), *TINY_TOKENS]
    words += [*QUIET, "--trainer.max_epochs", "4", "--trainer.logger.init_args.save_dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--ckpt_path", str(crafted(STATES[name]))])
    assert "crafted.ckpt: expected a checkpoint of `hyperofa fit`" in capsys.readouterr().err.splitlines()[-1]


def test_a_net_of_other_shapes_is_not_measured(crafted, bundles, tmp_path, capsys):
    words = ["test", "--config", str(CONFIGS / "tokens.yaml"), "--data.bundle", str(bundles["bert"]), *TINY_TOKENS]
    words += [*QUIET, "--trainer.logger", "false", "--trainer.default_root_dir", str(tmp_path)]
    for name in ("shape", "none left"):
        with pytest.raises(SystemExit, match="2"):
            main([*words, "--ckpt_path", str(crafted(RECORDS[name]))])
        assert "found one that does not load (RuntimeError: Error(s) in loading" in capsys.readouterr().err


def test_damage_in_the_weights_is_seen(fitted, tmp_path):
    """torch reads them all the same."""
    data = bytearray((fitted["tokens"] / "checkpoints" / "last.ckpt").read_bytes())
    data[data.index(b"/data/0") + 100] ^= 1
    (tmp_path / "damaged.ckpt").write_bytes(data)
    assert torch.load(tmp_path / "damaged.ckpt", weights_only=True)
    with pytest.raises(InputError, match=r"damaged\.ckpt: .* found a damaged one \(\w+/data/0\)"):
        read_checkpoint(tmp_path / "damaged.ckpt")
