"""Word vectors on the device: what nets see is what they see when the vectors come with each batch."""

import numpy as np
import pytest
import torch
from lightning import seed_everything

from hyperofa.bundle.bundle import Bundle
from hyperofa.errors import InputError
from hyperofa.export.prediction import predict
from hyperofa.nets.inputs import WordSets
from hyperofa.training import word_table as wordtable
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.module import HyperModule
from hyperofa.training.text_views import ViewCounts
from hyperofa.training.word_sets import WordIndices, WordSetTable
from hyperofa.training.word_table import load_table
from tests.training.test_module import trainer

CPU = torch.device("cpu")


@pytest.fixture
def bundle(bundles) -> Bundle:
    return Bundle.load(bundles["bert"])


def tables(bundle, *settings):
    return [WordSetTable(bundle, side, *settings) for side in ("source", "target")]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("settings", [(3,), (32,), (4, "set"), (4, "set", "sample")])
def test_vectors_from_the_table_are_those_of_the_bundle(settings, seed, dtype, bundle, monkeypatch):
    monkeypatch.setattr(wordtable, "_BLOCK", 7)
    streaming, referring = tables(bundle, *settings), tables(bundle, *settings)
    vectors = load_table(referring, "device", CPU, dtype)
    assert vectors.dtype == dtype
    for side, one, other in zip(("source", "target"), streaming, referring, strict=True):
        ids = np.flatnonzero(bundle.matches(side).covered)
        expected, found = (
            table.sets(ids, None if seed is None else np.random.default_rng(seed), 0.3) for table in (one, other)
        )
        assert isinstance(expected, WordSets)
        assert isinstance(found, WordIndices)
        fetched = found.fetch(vectors)
        assert fetched.vectors.dtype == torch.float32
        assert torch.equal(fetched.vectors, expected.vectors.to(dtype).float())
        assert torch.equal(fetched.features, expected.features)
        assert torch.equal(fetched.mask, expected.mask)


@pytest.mark.parametrize("words", [1, 2, 1000])
def test_the_table_holds_the_words_that_are_shown_alone(words, bundle):
    sets = WordSetTable(bundle, "source", words, "set").sets(np.flatnonzero(bundle.source.covered))
    vectors = load_table([WordSetTable(bundle, "source", words, "set")], "device", CPU, torch.float32)
    assert not vectors[0].any()
    shown = sets.vectors[sets.mask].unique(dim=0)
    torch.testing.assert_close(vectors[1:].unique(dim=0), shown, rtol=0, atol=0)
    assert len(shown) < len(bundle.words.vectors)


def test_on_a_cpu_vectors_are_read_from_the_bundle(bundle):
    for residence in ("auto", "stream"):
        table = WordSetTable(bundle, "source", 4)
        assert len(load_table([table], residence, CPU)) == 1
        assert isinstance(table.sets(bundle.split["val"]), WordSets)


def test_a_table_too_big_for_the_device_stays_in_the_bundle(bundle, monkeypatch):
    table = WordSetTable(bundle, "source", 4)
    size = (1 + table.needed().sum()) * table.word_dim * 2
    monkeypatch.setattr(wordtable, "free_memory", lambda device: size / wordtable.SHARE - 1)
    assert len(load_table([table], "auto", torch.device("cuda"))) == 1
    assert isinstance(table.sets(bundle.split["val"]), WordSets)
    monkeypatch.setattr(wordtable, "free_memory", lambda device: size - 1)
    with pytest.raises(InputError, match=r"word_table='device': expected 0\.0 GiB of free memory on cpu"):
        load_table([table], "device", CPU)


def test_vectors_beyond_half_precision_stay_in_the_bundle(bundle, monkeypatch):
    monkeypatch.setattr(WordSetTable, "read", lambda self, words: np.full((len(words), self.word_dim), 1e5, np.float32))
    assert len(load_table([WordSetTable(bundle, "source", 4)], "device", CPU)) == 1
    assert len(load_table([WordSetTable(bundle, "source", 4)], "device", CPU, torch.float32)) > 1


def test_tokens_without_words_are_refused(bundle):
    token = int(np.flatnonzero(~bundle.source.covered)[0])
    with pytest.raises(ValueError, match=f"expected tokens with words, found none for token {token}"):
        WordSetTable(bundle, "source", 4).sets(np.array([token]))


def test_training_with_a_table_ends_near_training_without(bundles, text_file):
    rows, kinds = {}, {}
    for residence in ("stream", "device"):
        seed_everything(0, verbose=False)
        views = ViewCounts(translated=6, target=3, source=3)
        data = HyperDataModule(
            str(bundles["bert8"]), [str(text_file)], "both", 32, views=views, steps=3, word_table=residence
        )
        module = HyperModule(data.word_dim, data.coordinate_dim, hidden_weight=0.1, precision="float32")
        trainer(max_epochs=2).fit(module, data)
        batch = next(iter(data.val_dataloader()[0]))
        rows[residence], kinds[residence] = module(batch.sets, batch.self_index).detach(), type(batch.sets)
    assert kinds == {"stream": WordSets, "device": WordIndices}
    torch.testing.assert_close(rows["device"], rows["stream"], rtol=0, atol=1e-2 * float(rows["stream"].abs().max()))


def test_workers_give_places(bundles):
    batches = []
    for workers in (0, 1):
        data = HyperDataModule(str(bundles["bert8"]), streams="tokens", num_workers=workers, word_table="device")
        data.setup("fit")
        batches.append(next(iter(data._tokens("train"))))
    for first, second in zip(batches[0].sets, batches[1].sets, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", ["fit", "tokens"])
def test_prediction_with_a_table_agrees(name, fitted, bundle):
    trained = Hypernetwork.load(fitted[name] / "checkpoints" / "best.ckpt", bundle)
    streamed, tabled = (predict(trained, bundle, word_table=residence) for residence in ("stream", "device"))
    np.testing.assert_array_equal(tabled.known, streamed.known)
    np.testing.assert_allclose(tabled.coordinates, streamed.coordinates, rtol=0, atol=2e-3)
    assert (tabled.coordinates != streamed.coordinates).any()
