"""Training as a library call: the same nets as the command trains, in memory and on disk."""

import inspect
import random
import re
import sys
from typing import Union

import pytest
import torch
import yaml
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.models.objectives import longest
from hyperofa.nets.mlp import MLP
from hyperofa.nets.registry import NETS
from hyperofa.training.curves import CurvePlot
from hyperofa.training.fit import ON_TEXT, ON_TOKENS, Recipe, fit
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training_commands import LightningParser, whole_numbers_first
from tests.conftest import CONFIGS, QUIET, contents

SILENT = {"enable_progress_bar": False, "accelerator": "cpu", "log_every_n_steps": 1}
SMALL = {"sentences": 4, "steps": 2, "validation_sentences": 4}


BUILT_IN = ("SourceAttention", "MLP", "BiLSTM", "SetFormer")


def small_mlp(word_dim, coordinate_dim):
    return MLP(word_dim, coordinate_dim, hidden_dim=4, num_layers=1)


@pytest.fixture(scope="module")
def trained(bundles, tmp_path_factory):
    output = tmp_path_factory.mktemp("fit") / "run"
    found = fit(
        bundles["bert"], net=small_mlp, output=output, trainer={"max_epochs": 2, **SILENT}, seed=3, batch_size=32
    )
    return found, output


@pytest.mark.parametrize(("name", "recipe"), [("fit", ON_TEXT), ("tokens", ON_TOKENS)])
def test_the_recipes_are_the_configs(name, recipe):
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    callbacks = {
        each["class_path"].rpartition(".")[2]: each.get("init_args") for each in config["trainer"]["callbacks"]
    }
    best, early = callbacks["ModelCheckpoint"], callbacks["EarlyStopping"]
    options = {**config["data"], **{key: value for key, value in config["model"].items() if key != "net"}}
    if name == "fit":
        assert options.pop("streams") == "text"  # as without the option
    trainer = {key: value for key, value in config["trainer"].items() if key not in ("logger", "callbacks")}
    assert Recipe(best["monitor"], early["patience"], trainer, options) == recipe
    assert (best["mode"], best["filename"], best["save_weights_only"], early["mode"]) == ("max", "best", True, "max")
    assert (early["monitor"], config["seed_everything"]) == (best["monitor"], 0)


@pytest.mark.parametrize(
    ("config", "net"), [*(("fit", name) for name in BUILT_IN), ("tokens", None), ("tokens", "BiLSTM")]
)
def test_a_named_net_has_its_own_defaults(config, net, capsys):
    """From a config and a command line as from `fit(net=...)`: no other net's arguments."""
    named = [] if net is None else ["--model.net", net]
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), *named, "--data.bundle", "x", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["model"]["net"]
    made = NETS[net or "MLP"]
    assert found["class_path"] == f"hyperofa.nets.{made.__name__}"
    parameters = inspect.signature(made).parameters.items()
    assert found["init_args"] == {
        name: each.default for name, each in parameters if each.default is not inspect.Parameter.empty
    }


@pytest.mark.parametrize("kinds", [(int, float), (float, int)])
def test_a_number_of_batches_is_no_fraction(kinds):
    """In whichever order `typing` gives the union of Lightning's signature."""
    parser = LightningParser()
    parser.add_argument("--limit", type=Union[(*kinds, type(None))])
    whole_numbers_first(parser)
    for given, read in (("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)):
        found = parser.parse_args(["--limit", given]).limit
        assert (found, type(found)) == (read, type(read))


def test_the_command_trains_the_same_net(trained, bundles, tmp_path):
    """From the recommended settings on both ways, to the byte of every weight."""
    arguments = ["fit", "--config", str(CONFIGS / "tokens.yaml"), "--data.bundle", str(bundles["bert"])]
    arguments += ["--model.net.init_args.hidden_dim", "4", "--model.net.init_args.num_layers", "1"]
    arguments += ["--trainer.max_epochs", "2", "--data.batch_size", "32", "--seed_everything", "3", "--data.seed", "3"]
    arguments += ["--trainer.logger.init_args.save_dir", str(tmp_path), "--trainer.logger.init_args.version", "run"]
    main([*arguments, *QUIET])
    commanded = Hypernetwork.load(tmp_path / "tokens" / "run" / "checkpoints" / "best.ckpt")
    weights = trained[0].net.state_dict()
    assert weights
    for name, value in commanded.net.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert (commanded.copied, commanded.max_words, commanded.words) == (("role", "symbol", "native"), 32, "heaviest")


def test_what_is_left(trained):
    names = {path.name for path in trained[1].iterdir()}
    assert {"best.ckpt", "metrics.csv", "curves.png"} <= names
    assert not trained[0].net.training


def test_nothing_is_left_and_no_generator_is_touched(bundles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states = torch.random.get_rng_state(), random.getstate()
    found = fit(Bundle.load(bundles["bert"]), net=small_mlp, trainer={"max_epochs": 1, **SILENT})
    assert found.training_fingerprint == Bundle.load(bundles["bert"]).meta.training_fingerprint
    assert not list(tmp_path.iterdir())
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_a_hypernetwork_is_saved_loaded_and_measured(trained, bundles, tmp_path):
    found, output = trained
    found.save(tmp_path / "new" / "net.ckpt")
    again = Hypernetwork.load(tmp_path / "new" / "net.ckpt", Bundle.load(bundles["bert"]))
    for name, value in found.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], value)
    tested = found.test(bundles["bert"])
    assert tested == again.test(Bundle.load(bundles["bert"]))
    assert {"test/mrr", "test/cosine", "test/token_loss"} <= tested.keys()
    validated = found.validate(bundles["bert"], streams="tokens", batch_size=32, seed=3)
    logged = [line.split(",") for line in (output / "metrics.csv").read_text().splitlines()]
    column = logged[0].index("val/mrr")
    best = max(float(row[column]) for row in logged[1:] if row[column])
    assert validated["val/mrr"] == pytest.approx(best, abs=1e-6)
    with pytest.raises(InputError, match="hypernetwork: expected a net of word width"):
        found.test(bundles["bert8"])


def test_what_is_saved_is_a_checkpoint_for_the_commands(trained, bundles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained[0].save(tmp_path / "net.ckpt")
    arguments = ["--config", str(CONFIGS / "tokens.yaml"), "--data.bundle", str(bundles["bert"])]
    arguments += ["--model.net.init_args.hidden_dim", "4", "--model.net.init_args.num_layers", "1"]
    main(["test", *arguments, "--ckpt_path", str(tmp_path / "net.ckpt"), *QUIET, "--trainer.logger", "false"])
    main(["export", "--bundle", str(bundles["bert"]), "--method", "hyperofa", "--checkpoint",
          str(tmp_path / "net.ckpt"), "--output", str(tmp_path / "model")])  # fmt: skip
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_text_is_read_and_a_trainer_may_be_ones_own(bundles, text_file, tmp_path):
    trainer = Trainer(max_steps=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
                      default_root_dir=tmp_path, enable_model_summary=False, **SILENT)  # fmt: skip
    found = fit(bundles["bert"], text_file, trainer=trainer, **SMALL)
    assert type(found.net).__name__ == "SourceAttention"
    assert "val/translated_mrr" in found.validate(bundles["bert"], [text_file], **SMALL)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"batch_sise": 3}, "batch_sise: expected an option of data or model, found neither; did you mean "
                        "batch_size"),
    ({"word_dim": 3}, "word_dim: expected an option"),
    ({"net": "LSTM"}, "net: expected one of SourceAttention, MLP, .* found 'LSTM'"),
    ({"trainer": {"epochs": 3}}, "trainer: .*epochs"),
    ({"trainer": {"devices": 2, "accelerator": "cpu"}}, "trainer: expected one process, found 2"),
])  # fmt: skip
def test_mistakes(arguments, message, bundles, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(bundles["bert"], output=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_is_replaced_only_when_asked(trained, bundles):
    _, output = trained
    with pytest.raises(InputError, match="already exists"):
        fit(bundles["bert"], net=small_mlp, output=output, trainer={"max_epochs": 1, **SILENT})
    before = (output / "metrics.csv").read_bytes()
    fit(bundles["bert"], net=small_mlp, output=output, overwrite=True, trainer={"max_epochs": 1, **SILENT})
    assert (output / "metrics.csv").read_bytes() != before


def stop(self, trainer, module):
    if trainer.current_epoch == 1:
        raise KeyboardInterrupt


@pytest.fixture
def begun(monkeypatch):
    """The epochs that trainings began with."""
    epochs = []
    monkeypatch.setattr(CurvePlot, "on_train_start", lambda self, trainer, _: epochs.append(trainer.current_epoch))
    return epochs


def test_a_killed_training_goes_on_where_it_was(begun, bundles, tmp_path, monkeypatch):
    """Stopped within its second epoch, and again when it was about to leave its folder: the same files."""
    settings = {"net": small_mlp, "trainer": {"max_epochs": 2, **SILENT}, "seed": 3, "batch_size": 32}
    fit(bundles["bert"], output=tmp_path / "whole", **settings)
    begun.clear()
    for place, hook in (((CurvePlot, "on_validation_end"), stop), ((Hypernetwork, "load"), lambda *_: sys.exit(1))):
        with monkeypatch.context() as patch:
            patch.setattr(*place, hook)
            with pytest.raises((SystemExit, KeyboardInterrupt)):
                fit(bundles["bert"], output=tmp_path / "killed", **settings)
        assert not (tmp_path / "killed").exists()
    found = fit(bundles["bert"], output=tmp_path / "killed", **settings)
    assert begun == [0, 1, 0]  # of a run that had ended nothing is left to go on with
    assert contents(tmp_path) == ["killed", "whole"]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    for name in ("best.ckpt", "metrics.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert found.digest == Hypernetwork.load(tmp_path / "whole" / "best.ckpt").digest


def test_a_net_has_one_digest_wherever_it_lies(bundles, tmp_path):
    few = {"max_epochs": 1, **SILENT}
    nets = [fit(bundles["bert"], net=small_mlp, trainer=few, seed=seed) for seed in (0, 0, 1)]
    nets[0].save(tmp_path / "net.ckpt")
    found = [Hypernetwork.load(tmp_path / "net.ckpt").digest]
    assert [*found, nets[1].digest] == [nets[0].digest] * 2
    assert nets[2].digest != nets[0].digest


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"max_epochs": 1}, "for the Trainer's, give trainer={'max_epochs': …}"),
        ({"data": {"steps": 5}}, "give its options by their names: steps=50"),
    ],
)
def test_options_of_others_are_told_where_they_belong(bundles, options, hint):
    with pytest.raises(InputError, match=re.escape(hint)):
        fit(bundles["bert"], **options)


def test_another_training_begins_anew(begun, bundles, tmp_path, monkeypatch):
    """With another seed, or where a callback may know what no file says."""
    settings = {"net": small_mlp, "output": tmp_path / "run", "batch_size": 32, "overwrite": True}
    few = {"max_epochs": 2, **SILENT}
    for other in ({"trainer": few, "seed": 1}, {"trainer": {**few, "callbacks": [LearningRateMonitor()]}}):
        with monkeypatch.context() as patch:
            patch.setattr(CurvePlot, "on_validation_end", stop)
            with pytest.raises((SystemExit, KeyboardInterrupt)):
                fit(bundles["bert"], **{"trainer": few, **other, **settings, "seed": 0})
        fit(bundles["bert"], **{**settings, **other})
    assert begun == [0, 0, 0, 0]
    assert contents(tmp_path) == ["run"]


def test_text_is_cut_to_the_positions_of_the_model(bundles, text_file, tmp_path):
    """Of which RoBERTa leaves out two; a text of numbers has a token for each digit."""
    path = tmp_path / "long.txt"
    lines = text_file.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{'7' * 90} {line}\n" for line in lines), encoding="utf-8")
    bundle = Bundle.load(bundles["roberta"])
    read = []

    class Reader(Callback):
        def on_train_batch_start(self, trainer, module, batch, number):
            read.append(batch["text"].source_mask.shape[1])

    fit(bundle, path, trainer={"max_epochs": 1, "callbacks": Reader(), **SILENT}, net=small_mlp, **SMALL)
    assert read == [62, 62]


def test_a_model_without_room_for_a_text(model_folders):
    model = AutoModelForMaskedLM.from_pretrained(model_folders["bert"])
    tokenizer = AutoTokenizer.from_pretrained(model_folders["bert"])
    model.config.max_position_embeddings = 7
    with pytest.raises(InputError, match="a model and a tokenizer that take texts of 8 tokens, found at most 7"):
        longest(model, tokenizer, 128)
