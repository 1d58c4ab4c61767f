"""Where nets run: compiled, and on a GPU as on a CPU."""

import copy
import shutil

import numpy as np
import pytest
import torch
from lightning import Trainer, seed_everything
from lightning.fabric.utilities import move_data_to_device

import hyperofa
from hyperofa.bundle.bundle import Bundle
from hyperofa.export.prediction import predict
from hyperofa.models.loading import load_model
from hyperofa.nets.mlp import MLP
from hyperofa.nets.setformer import SetFormer
from hyperofa.nets.source_attention import SourceAttention
from hyperofa.pretraining.settings import TrainerOptions, Training
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.losses import normalised_l1
from hyperofa.training.module import HyperModule
from hyperofa.training.plm_loss import FrozenPLM
from hyperofa.training.text_views import ViewCounts
from hyperofa.training.word_sets import WordIndices
from hyperofa.vectors.neighbours import nearest
from tests.conftest import ENGLISH
from tests.nets.test_net import BUILD, net, word_sets
from tests.nets.test_source_attention import SELF_INDEX, listed, queries, random_memory, sets_of
from tests.training.test_module import fit, weights

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
compiler = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler")


# Compiled. The nets are traced and run without a compiler, which takes half a minute; one is compiled in earnest.


@pytest.mark.parametrize("name", BUILD)
def test_traced_nets_give_what_nets_give(name):
    plain = net(name)
    traced = copy.deepcopy(plain)
    traced.compile(dynamic=True, backend="eager")
    assert list(traced.state_dict()) == list(plain.state_dict())
    for lengths in ([3, 1, 6], [2, 2]):
        torch.testing.assert_close(traced(word_sets(lengths)), plain(word_sets(lengths)))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # the tracer's own
@pytest.mark.parametrize("neighbour_ids", [None, 5])
def test_traced_attention_gives_what_attention_gives(neighbour_ids):
    memory = random_memory()
    sets = sets_of(queries(memory))
    if neighbour_ids is not None:
        memory = listed(memory, neighbour_ids)
    plain = SourceAttention(12, 7, hidden_dim=8, dense_limit=16_384 if neighbour_ids is None else 0)
    traced = copy.deepcopy(plain)
    traced.compile(dynamic=True, backend="eager")
    for one in (plain, traced):
        one(sets, memory, SELF_INDEX).square().sum().backward()
    torch.testing.assert_close(traced(sets, memory, SELF_INDEX), plain(sets, memory, SELF_INDEX))
    for first, second in zip(traced.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad)


@compiler
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_net_trains_alike_and_its_checkpoint_is_a_net_s(bundles, tmp_path):
    small = ["--model.net.init_args.hidden_dim=8", "--model.net.init_args.num_layers=0", "--trainer.max_epochs=1"]
    runs = [
        fit("tokens", bundles["bert8"], tmp_path / word, *small, f"--model.compile={word}", "--data.batch_size=64")
        for word in ("false", "true")
    ]
    plain, compiled = (weights(run / "checkpoints" / "last.ckpt") for run in runs)
    assert list(plain) == list(compiled)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4)
    bundle = Bundle.load(bundles["bert8"])
    rows = [predict(Hypernetwork.load(run / "checkpoints" / "last.ckpt", bundle), bundle).coordinates for run in runs]
    np.testing.assert_allclose(rows[1], rows[0], rtol=1e-2, atol=1e-3)


# Without waiting: tensors of the device `meta` have no values, so whoever asks for one fails.


@pytest.mark.parametrize("build", [
    lambda: SourceAttention(12, 7, hidden_dim=8), lambda: MLP(12, 7, hidden_dim=8), lambda: SetFormer(12, 7, 3, 1),
])  # fmt: skip
def test_a_step_looks_at_no_value(build):
    sets, memory = word_sets([3, 1, 6]), random_memory()
    indices = WordIndices(torch.zeros(sets.mask.shape, dtype=torch.int32), *sets[1:])
    model = build().to("meta")
    indices, memory, self_index = move_data_to_device((indices, memory, SELF_INDEX[:3]), "meta")
    fetched = indices.fetch(torch.empty(20, 12, dtype=torch.float16, device="meta"))
    predicted = model(fetched, memory, self_index)
    normalised_l1(predicted, torch.empty_like(predicted)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_step_on_text_looks_at_no_value(bundles, text_file, monkeypatch):
    """But for transformers' look at whether there is padding."""
    monkeypatch.setattr("transformers.masking_utils._ignore_bidirectional_mask_sdpa", lambda *_, **__: False)
    data = HyperDataModule(str(bundles["bert"]), [str(text_file)], views=ViewCounts(6, 3, 3), word_table="device")
    data.setup("fit")
    module = HyperModule(data.word_dim, data.coordinate_dim).to("meta")
    model = load_model(data.bundle.meta.source_model)
    plm = FrozenPLM(model, precision="float32", head=True).to(torch.device("meta"))
    module._plm.append(plm)
    module._memory = data.memory_of(module.net).to(torch.device("meta"))
    module._primitives = torch.from_numpy(data.bundle.input_primitives.copy()).to("meta")
    module._word_vectors = data.word_vectors.to("meta")
    batch = move_data_to_device(next(iter(data.train_dataloader()["text"])), "meta")
    monkeypatch.setattr(module, "_log", lambda *_: None)
    module._text_step(batch, "train").backward()
    assert all(parameter.grad is not None for parameter in module.net.parameters())


# On a GPU, which rounds word vectors to half precision and products in LSTMs to TF32.


@gpu
@pytest.mark.parametrize("streams", ["tokens", "both"])
def test_an_epoch_on_a_gpu_ends_near_one_on_a_cpu(streams, bundles, text_file):
    rows = []
    for accelerator in ("cpu", "gpu"):
        seed_everything(0, verbose=False)
        text = [str(text_file)] if streams == "both" else None
        data = HyperDataModule(str(bundles["bert8"]), text, streams, 32, steps=3)
        module = HyperModule(data.word_dim, data.coordinate_dim, precision="float32")
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        Trainer(accelerator=accelerator, devices=1, max_epochs=1, use_distributed_sampler=False, **quiet).fit(
            module, data
        )
        batch = next(iter(data._tokens("val")))
        assert isinstance(batch.sets, WordIndices) == (accelerator == "gpu")
        module.to("cuda" if accelerator == "gpu" else "cpu")  # Lightning brings it back
        with torch.no_grad():
            sets, self_index = move_data_to_device((batch.sets, batch.self_index), module.device)
            rows.append(module(sets, self_index).cpu())
    torch.testing.assert_close(rows[1], rows[0], rtol=0, atol=3e-2 * float(rows[0].abs().max()))


@gpu
@pytest.mark.parametrize("name", ["fit", "tokens"])
def test_prediction_on_a_gpu_agrees_with_a_cpu(name, fitted, bundles, monkeypatch):
    bundle = Bundle.load(bundles["bert"])
    rows = []
    for device in ("cpu", "cuda"):
        monkeypatch.setattr("hyperofa.training.predict_tokens.best_device", lambda device=device: torch.device(device))
        rows.append(predict(Hypernetwork.load(fitted[name] / "checkpoints" / "best.ckpt", bundle), bundle).coordinates)
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=2e-3)


@gpu
def test_distillation_on_a_gpu_ends_near_one_on_a_cpu(model_folders, tmp_path):
    (tmp_path / "pairs.tsv").write_text("".join(f"{one}\t{one}\n" for one in ENGLISH), encoding="utf-8")
    training = Training(steps=2, new_steps=2, evaluate_every=2, batch_size=4, block_size=32)
    ends = [
        hyperofa.distill(
            model_folders["xlmr"], model_folders["bert"], tmp_path / "pairs.tsv", tmp_path / accelerator,
            training=training, trainer=TrainerOptions(accelerator, progress=False), new_rows=list(range(20, 160)),
        ).curve[-1].loss
        for accelerator in ("cpu", "gpu")
    ]  # fmt: skip
    assert ends[1] == pytest.approx(ends[0], rel=0.05)


@gpu
@pytest.mark.parametrize("name", BUILD)
def test_nets_on_a_gpu_agree_with_a_cpu(name):
    sets = word_sets([3, 1, 6])
    with torch.no_grad():
        expected = net(name)(sets)
        found = net(name).cuda()(type(sets)(*(part.cuda() for part in sets))).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@gpu
def test_nearest_on_a_gpu_agrees_with_a_cpu():
    faiss = pytest.importorskip("faiss")
    if faiss.get_num_gpus() == 0:
        pytest.skip("faiss without CUDA")
    rng = np.random.default_rng(0)
    queries, keys = (rng.standard_normal((count, 32)).astype(np.float32) for count in (200, 5000))
    (scores, ids), (expected, wanted) = (nearest(queries, keys, 10, device=device) for device in ("cuda", "cpu"))
    np.testing.assert_array_equal(ids, wanted)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
