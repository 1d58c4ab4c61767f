from dataclasses import replace

import numpy as np
import pytest
import torch

from hyperofa.methods.fallbacks import fill_for_training, target_inputs
from hyperofa.training.batches import pad
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.samplers import Draw
from hyperofa.training.text_views import LONGEST_PIECE, VIEWS, ViewCounts

SEED = Draw(np.empty(0, np.int64), (0, 1))


@pytest.fixture
def data(bundles, text_file, tmp_path):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("the river\tder Fluss\nthe rain\tder Regen\n", encoding="utf-8")
    views = ViewCounts(translated=4, target=3, source=7, parallel=2)
    module = HyperDataModule(str(bundles["bert"]), [str(text_file)], sentences=5, views=views, parallel=[str(pairs)])
    module.setup("fit")
    return module


def same(first, second) -> bool:
    parts = zip(flat(first), flat(second), strict=True)
    return first.counts == second.counts and all(a.shape == b.shape and torch.equal(a, b) for a, b in parts)


def flat(batch):
    """All its tensors."""
    parts = (flat(part) if isinstance(part, tuple) else [part] for part in batch)
    return [one for part in parts for one in part if isinstance(one, torch.Tensor)]


def test_a_batch_fits_together(data):
    bundle, batch = data.bundle, data._texts["train"][SEED]
    n, length = batch.views.slots.shape
    assert n == 16
    assert dict(zip(VIEWS, batch.counts, strict=True)) == {"translated": 4, "target": 3, "source": 7, "parallel": 2}
    assert batch.owners.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 5, 6]
    assert batch.source_ids.shape == batch.source_mask.shape == (7, batch.source_mask.sum(1).max())
    assert batch.views.mask.sum(1).max() == length
    rows = len(batch.coordinates)
    assert batch.coordinates.shape == (rows, bundle.meta.coordinate_dim)
    assert 0 <= batch.views.slots.min() <= batch.views.slots.max() < rows
    assert len(batch.predicted) == len(batch.sets.mask) == len(batch.self_index)
    assert batch.sets.mask.any(1).all()
    assert not batch.coordinates[batch.predicted].any()
    assert batch.self_index.max() < len(data._self_index["source"]) + len(data._self_index["target"])


def test_rows_are_those_of_the_tokens(data):
    """Tokens that are not predicted have their rows; a view under the source tokenizer is the sentence itself."""
    bundle, batch = data.bundle, data._texts["train"][SEED]
    filled = fill_for_training(target_inputs(bundle), data.copied)
    fixed, predictable = filled.coordinates, filled.plan.of("predicted")
    source, target = bundle.tokenizer("source"), bundle.tokenizer("target")
    predicted = set(batch.predicted.tolist())
    self_index = dict(zip(batch.predicted.tolist(), batch.self_index.tolist(), strict=True))
    place = {token: number for number, token in enumerate(np.flatnonzero(bundle.source.covered).tolist())}
    kinds = np.repeat(VIEWS, batch.counts)
    for slots, mask, owner, kind in zip(batch.views.slots, batch.views.mask, batch.owners, kinds, strict=True):
        slots = slots[mask.bool()].tolist()
        ids = batch.source_ids[owner][batch.source_mask[owner].bool()].tolist()
        if kind == "source":
            assert len(slots) == len(ids)
            assert (ids[0], ids[-1]) == (source.cls_token_id, source.sep_token_id)
            for slot, token in zip(slots, ids, strict=True):
                assert (slot in predicted) == bundle.source.covered[token]
                if slot in predicted:
                    assert self_index[slot] == place.get(token, len(place))
                else:
                    np.testing.assert_array_equal(batch.coordinates[slot], bundle.coordinates[token])
        if kind == "target":
            tokens = target(source.decode(ids[1:-1])).input_ids
            if len(tokens) == len(slots):
                assert [slot in predicted for slot in slots] == predictable[tokens].tolist()
                pairs = [(slot, token) for slot, token in zip(slots, tokens, strict=True) if slot in predicted]
                assert all(self_index[slot] == data._self_index["target"][token] >= len(place) for slot, token in pairs)
            np.testing.assert_allclose(batch.coordinates[slots[0]], fixed[target.bos_token_id])
            np.testing.assert_allclose(batch.coordinates[slots[-1]], fixed[target.eos_token_id])


def test_equal_seeds_make_equal_batches(data):
    texts = data._texts["train"]
    assert same(texts[SEED], texts[SEED])
    assert not same(texts[SEED], texts[Draw(SEED.items, (0, 2))])


def test_validation_is_whole_sentences_without_chance(data):
    texts = data._texts["val"]
    batch = texts[Draw(np.arange(len(texts)), (0,))]
    assert len(batch.source_ids) == len(texts) == 2
    assert batch.owners.tolist() == [0, 1, 0, 1]
    first, second = (list(data.val_dataloader()[1]) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, second, strict=True))


def test_no_validation_sentence_is_trained_on(data):
    lines = [set(data._texts[part]._lines) for part in ("train", "val")]
    assert not lines[0] & lines[1]


def test_text_is_translated_into_the_languages_of_the_target_alone(data, text_file):
    """A language whose words describe no target token would be seen in pieces."""
    assert data._texts["train"]._translator.languages == ["deu"]
    bundle = data.bundle
    wanted = replace(bundle, meta=replace(bundle.meta, target_languages=["eng"]))
    other = HyperDataModule(wanted, [str(text_file)])
    other.setup("fit")
    assert other._texts["train"]._translator.languages == []


def test_padding():
    values, mask = pad([np.array([3, 4]), np.array([5])])
    assert values.tolist() == [[3, 4], [5, 0]]
    assert mask.tolist() == [[1, 1], [1, 0]]


def test_an_endless_line_is_taken_in_pieces(bundles, text_file, tmp_path):
    """As a line of NUL bytes: each batch would go through all of it."""
    path = tmp_path / "long.txt"
    path.write_text(text_file.read_text(encoding="utf-8") + "\0" * 3 * LONGEST_PIECE + "\n", encoding="utf-8")
    data = HyperDataModule(str(bundles["bert"]), [str(path)])
    data.setup("fit")
    lines = [line for part in data._texts.values() for line in part._lines]
    assert max(map(len, lines)) == LONGEST_PIECE
    assert len(lines) == len(text_file.read_text(encoding="utf-8").splitlines()) + 3
