"""A net and a method of one's own: registered in a module that a command trusts, through fit, export and ablate."""

import gzip
import json
import sys

import pytest
import torch

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.experiments import cells
from hyperofa.experiments.grid import code_version, expand, flat
from hyperofa.export.initialise import initialise
from hyperofa.methods.registry import METHODS, register_method
from hyperofa.nets.mlp import MLP
from hyperofa.nets.registry import NETS, build, register_net
from hyperofa.runtime import trust
from hyperofa.training.hypernetwork import Hypernetwork
from tests.conftest import CONFIGS, ENGLISH, GERMAN, QUIET

MODULE = "parts_of_my_own"
SOURCE = """
import numpy as np
from torch import nn

from hyperofa.methods.baselines import Predictions
from hyperofa.methods.registry import register_method
from hyperofa.nets.layers import pool
from hyperofa.nets.net import Net
from hyperofa.nets.registry import register_net


@register_net
class Linear(Net):
    def __init__(self, word_dim: int, coordinate_dim: int, scale: float = 1.0) -> None:
        super().__init__(word_dim, coordinate_dim)
        self.scale, self.layer = scale, nn.Linear(word_dim, coordinate_dim)

    def forward(self, sets, memory=None, self_index=None):
        self.check(sets)
        return self.layer(pool(sets.vectors, sets.mask.float(), sets.mask)) * self.scale


class Unregistered(Linear):
    pass


@register_method("far_noise", about="noise around a point far away", seeded=True, citation="@misc{me}")
def far_noise(inputs, context):
    rows = 50 + context.rng.normal(size=(len(inputs.covered), inputs.coordinates.shape[1]))
    return Predictions(rows.astype(np.float32), np.ones(len(rows), bool))


register_method(
    "far_away",
    lambda inputs, _: Predictions(
        np.full((len(inputs.covered), inputs.coordinates.shape[1]), 50, np.float32), np.ones(len(inputs.covered), bool)
    ),
    about="a point far away",
)
"""


@pytest.fixture
def module(tmp_path_factory, monkeypatch):
    """A module on the path of this process and of those it starts, that nobody trusts yet."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / f"{MODULE}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(trust, "_trusted", [])
    yield folder / f"{MODULE}.py"
    sys.modules.pop(MODULE, None)
    for registry in (METHODS, NETS):
        for name in [name for name in registry if name.startswith(("far_", MODULE))]:
            del registry[name]


def forget(monkeypatch):
    """As in another process, which has not imported the module."""
    monkeypatch.setattr(trust, "_trusted", [])
    sys.modules.pop(MODULE, None)
    NETS.pop(f"{MODULE}.Linear", None)


def test_a_net_of_ones_own_is_trained_and_exported(module, bundles, tmp_path, monkeypatch, capsys):
    own = ["--trust", MODULE]
    fit = ["fit", "--config", str(CONFIGS / "tokens.yaml"), "--data.bundle", str(bundles["bert"]), *QUIET]
    fit += ["--trainer.max_epochs", "1", "--trainer.logger.init_args.save_dir", str(tmp_path)]
    net = {"class_path": f"{MODULE}.Linear", "init_args": {"scale": 0.5}}
    main([*fit, "--model.net", json.dumps(net), *own])
    (checkpoint,) = tmp_path.rglob("best.ckpt")
    spec = torch.load(checkpoint, weights_only=True)["hyperofa"]["net"]
    assert (spec["class"], spec["scale"]) == (f"{MODULE}.Linear", 0.5)

    forget(monkeypatch)
    export = ["export", "--bundle", str(bundles["bert"]), "--checkpoint", str(checkpoint), "--method", "hyperofa"]
    with pytest.raises(SystemExit):
        main([*export, "--output", str(tmp_path / "refused")])
    assert MODULE not in sys.modules
    expected = f"expected a registered net, found '{MODULE}.Linear'; if you trust the module {MODULE}, let it call"
    assert expected in capsys.readouterr().err
    main([*export, "--output", str(tmp_path / "model"), *own])
    assert (tmp_path / "model" / "model.safetensors").is_file()
    trained = Hypernetwork.load(checkpoint, Bundle.load(bundles["bert"]))
    assert (type(trained.net).__module__, trained.net.scale) == (MODULE, 0.5)
    with pytest.raises(SystemExit):
        main([*fit, "--model.net", f"{MODULE}.Unregistered", *own])
    assert f"--model.net {MODULE}.Unregistered: expected a net that is registered" in capsys.readouterr().err


def test_a_method_of_ones_own_is_exported(module, bundles, tmp_path, monkeypatch, capsys):
    words = ["export", "--bundle", str(bundles["bert"]), "--method", "far_noise"]
    with pytest.raises(SystemExit):
        main([*words, "--output", str(tmp_path / "refused")])
    assert "found far_noise; for one of your own, import the module that registers it" in capsys.readouterr().err
    main([*words, "--output", str(tmp_path / "model"), "--trust", MODULE])
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "`far_noise` (noise around a point far away), which is no part of hyperofa" in card
    assert "@misc{me}" in card
    found = initialise(bundles["bert"], "far_noise", seed=1)
    assert found.coordinates[found.origins == "predicted"].mean() == pytest.approx(50, abs=0.1)


@pytest.mark.slow
def test_an_ablation_knows_what_is_seeded_and_runs_it(
    module, bundles, model_folders, tokenizer_folders, vector_file, tmp_path
):
    with gzip.open(tmp_path / "heldout.tsv.gz", "wt", encoding="utf-8") as file:
        for language, texts in (("eng", ENGLISH), ("deu", GERMAN)):
            file.writelines(f"{language}\t{number}\t{text}\n" for number, text in enumerate(texts))
    versions = [code_version()]
    trust.trust([MODULE])
    versions.append(code_version())
    module.write_text(SOURCE + "\n# changed\n", encoding="utf-8")
    versions.append(code_version())
    assert len(set(versions)) == 3  # what is trusted can change a result
    common = {
        "prepare.source_model": str(model_folders["bert"]),
        "prepare.target_tokenizer": str(tokenizer_folders["unigram"]),
        "prepare.vectors": [str(vector_file)],
        "prepare.source_languages": ["eng"],
        **flat({"data": str(tmp_path), "sentences": 8}, "evaluate"),
    }
    quiet = {f"fit.{key[2:]}": json.loads(value) if value != "cpu" else value
             for key, value in zip(QUIET[::2], QUIET[1::2], strict=True)}  # fmt: skip
    net = {"export.method": "hyperofa", "fit.config": str(CONFIGS / "tokens.yaml"), "fit.trainer.max_epochs": 1}
    net |= {"fit.model.net": {"class_path": f"{MODULE}.Linear"}, **quiet}
    methods = {"far": {"export.method": "far_away"}, "noise": {"export.method": "far_noise"}, "net": net}
    planned = expand(methods, common, {"seed": [0, 1]}, "code")
    assert [(cell.method, cell.seed) for cell in planned] == [
        ("far", 0), ("noise", 0), ("net", 0), ("noise", 1), ("net", 1),
    ]  # fmt: skip
    for cell in planned[1:3]:
        cells.write_cell(tmp_path, cell)
        cells.run_cell(tmp_path, cell.id)  # which trains in a process of its own
        assert cells.read_result(tmp_path, cell)["rows"]["predicted"] > 0
    assert (cells.read_result(tmp_path, planned[2])["parameters"]) == 13 * 24


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: register_method("mean", lambda *_: None, about="x"), "expected a new name, found that of a built-in"),
        (lambda: register_method("a-b", about="x"), "expected a name of letters, digits and underscores, found 'a-b'"),
        (lambda: register_net(dict), "expected a subclass of hyperofa.nets.net.Net, found <class 'dict'>"),
        (lambda: build({"class": "Transformer"}), "expected a net of SourceAttention, MLP, .*, found 'Transformer'"),
        (lambda: build({"class": "os.system"}), "expected a registered net, found 'os.system'; if you trust"),
    ],
)
def test_what_cannot_be_registered_or_built(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_built_in_nets_keep_their_names():
    assert list(NETS)[:4] == ["SourceAttention", "MLP", "BiLSTM", "SetFormer"]
    assert MLP(3, 2).spec()["class"] == "MLP"
