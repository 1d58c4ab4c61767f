"""The source tokens that a net looks at: all of them, or lists of the nearest."""

import re

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperofa.bundle.bundle import Bundle
from hyperofa.cli import main
from hyperofa.errors import InputError
from hyperofa.export.prediction import predict
from hyperofa.nets import layers
from hyperofa.nets.inputs import FEATURES, FORMS, Memory, WordSets
from hyperofa.nets.mlp import MLP
from hyperofa.nets.registry import build
from hyperofa.nets.source_attention import SourceAttention
from hyperofa.training.datamodule import HyperDataModule
from hyperofa.training.hypernetwork import Hypernetwork
from hyperofa.training.word_sets import nearest_indices
from hyperofa.vectors.neighbours import NeighbourIndex
from tests.conftest import CONFIGS, QUIET, TINY_TEXT

D, K, M = 12, 7, 40
SELF_INDEX = torch.tensor([3, 0, 39, 17, 40, 41, 42])  # four tokens of the memory, three others


def random_memory(size: int = M) -> Memory:
    generator = torch.Generator().manual_seed(0)
    keys = torch.nn.functional.normalize(torch.randn(size, D, generator=generator))
    return Memory(keys, torch.randn(size, K, generator=generator))


def sets_of(vectors: torch.Tensor) -> WordSets:
    """Sets of one word."""
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(len(vectors), 1, len(FEATURES), generator=generator) + 0.01
    return WordSets(vectors[:, None], features, torch.ones(len(vectors), 1, dtype=torch.bool))


def queries(memory: Memory) -> torch.Tensor:
    """A vector for each place of `SELF_INDEX`: that of the key, or any."""
    others = torch.randn(len(SELF_INDEX), D, generator=torch.Generator().manual_seed(2))
    inside = len(memory.keys) > SELF_INDEX
    return torch.where(inside[:, None], memory.keys[SELF_INDEX.clamp(max=len(memory.keys) - 1)], others)


def listed(memory: Memory, count: int) -> Memory:
    neighbour_ids = np.full((len(memory.keys) + len(SELF_INDEX), count), len(memory.keys), np.int32)
    neighbour_ids[SELF_INDEX] = nearest_indices(
        queries(memory).numpy(), SELF_INDEX.numpy(), NeighbourIndex(memory.keys.numpy()), count
    )
    return memory._replace(neighbour_ids=torch.from_numpy(neighbour_ids))


def trained_net(neighbours: int | None) -> SourceAttention:
    """A net none of whose parts is zero."""
    torch.manual_seed(0)
    net = SourceAttention(D, K, hidden_dim=16, temperature=0.2, neighbours=neighbours, dense_limit=0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return net


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**31))
def test_near_places_equal_brute_force(size, count, seed):
    rng = np.random.default_rng(seed)
    count = min(count, size)
    keys = rng.normal(size=(size, 3)).astype(np.float32)
    keys[rng.integers(size, size=size // 3)] = keys[0]  # equal keys, so that the nearest may not be the key itself
    self_index = np.arange(size + 2)
    asked = np.concatenate([keys, rng.normal(size=(2, 3)).astype(np.float32)])
    indices = nearest_indices(asked, self_index, NeighbourIndex(keys), count)
    assert indices.shape == (size + 2, count)
    assert indices.dtype == np.int32
    cosines = (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ (
        keys / np.linalg.norm(keys, axis=1, keepdims=True)
    ).T
    for token, found in enumerate(indices):
        others = np.setdiff1d(np.arange(size), token)
        known = found[found < size]
        assert len(set(known)) == len(known) == min(count, len(others))
        assert set(known) <= set(others)
        best = np.sort(cosines[token, others])[::-1][: len(known)]
        np.testing.assert_allclose(np.sort(cosines[token, known])[::-1], best, atol=1e-6)


def test_zero_keys_are_not_near_to_anything():
    keys = np.eye(4, dtype=np.float32)
    keys[1] = 0
    indices = nearest_indices(np.ones((1, 4), np.float32), np.array([4]), NeighbourIndex(keys), 4)
    assert sorted(indices[0]) == [0, 2, 3, 4]


def test_lists_of_all_equal_attention_over_all():
    memory = random_memory()
    sets, outputs, gradients = sets_of(queries(memory)), [], []
    for neighbours, seen in ((None, memory), (M, listed(memory, M))):
        net = trained_net(neighbours)
        output = net(sets, seen, SELF_INDEX)
        output.square().sum().backward()
        outputs.append(output)
        gradients.append([parameter.grad for parameter in net.parameters()])
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=0)
    for dense, sparse in zip(*gradients, strict=True):
        assert dense.isfinite().all()
        torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 5, 39])
@torch.no_grad()
def test_lists_equal_attention_over_the_true_neighbours_alone(count):
    memory = random_memory()
    vectors = queries(memory)
    found = trained_net(count)(sets_of(vectors), listed(memory, count), SELF_INDEX)
    for token, self_index in enumerate(SELF_INDEX.tolist()):
        cosines = torch.nn.functional.cosine_similarity(vectors[token], memory.keys)
        if self_index < M:
            cosines[self_index] = -2
        nearest = cosines.argsort(descending=True)[:count]
        sets = WordSets(*(part[token : token + 1] for part in sets_of(vectors)))
        expected = trained_net(None)(sets, Memory(memory.keys[nearest], memory.values[nearest]))
        torch.testing.assert_close(found[token], expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("neighbours", [None, 5, M])
@torch.no_grad()
def test_no_token_attends_to_itself(neighbours):
    memory = random_memory()
    sets = sets_of(queries(memory))
    seen = memory if neighbours is None else listed(memory, neighbours)
    net = trained_net(neighbours)
    before = net(sets, seen, SELF_INDEX)
    for token, self_index in enumerate(SELF_INDEX.tolist()[:4]):
        place = torch.tensor([self_index])
        changed = seen._replace(keys=seen.keys.index_fill(0, place, 1e3), values=seen.values.index_fill(0, place, 1e3))
        torch.testing.assert_close(net(sets, changed, SELF_INDEX)[token], before[token])


@pytest.mark.parametrize("neighbours", [None, 4])
def test_only_keys_that_are_near_are_projected(neighbours):
    """With lists, a step costs the same however many source tokens there are."""
    projected = []
    for size in (64, 4096):
        memory = random_memory(size)
        seen = memory if neighbours is None else listed(memory, neighbours)
        net = trained_net(neighbours)
        rows: list[int] = []
        net.projection.register_forward_hook(lambda module, given, output, rows=rows: rows.append(len(given[0])))
        net(sets_of(queries(memory)), seen, SELF_INDEX).sum().backward()
        projected.append(max(rows))
    if neighbours is None:
        assert projected == [64, 4096]
    else:
        assert max(projected) <= len(SELF_INDEX) * neighbours


@pytest.mark.parametrize("neighbours", [None, 5])
def test_half_precision_and_empty_batches(neighbours):
    memory = random_memory()
    sets = sets_of(queries(memory))
    seen = memory if neighbours is None else listed(memory, neighbours)
    net = trained_net(neighbours)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(sets, seen, SELF_INDEX)
    half.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
    torch.testing.assert_close(half.float(), net(sets, seen, SELF_INDEX), atol=0.1, rtol=0.1)
    assert net(WordSets(*(part[:0] for part in sets)), seen, SELF_INDEX[:0]).shape == (0, K)


def test_a_gate_lets_the_correction_in_or_not():
    memory = random_memory()
    sets = sets_of(queries(memory))
    residual = trained_net(None)
    net = build({**residual.spec(), "head": "gated"})
    missing = net.load_state_dict(residual.state_dict(), strict=False).missing_keys
    assert missing == ["gate.weight", "gate.bias"]
    bare = build(residual.spec())
    bare.load_state_dict(residual.state_dict())
    with torch.no_grad():
        torch.nn.init.zeros_(net.gate.weight)
        for parameter in bare.correction[1][2].parameters():
            parameter.zero_()
        for bias, expected in ((-100, bare), (100, residual)):
            net.gate.bias.fill_(bias)
            torch.testing.assert_close(net(sets, memory, SELF_INDEX), expected(sets, memory, SELF_INDEX))
    with pytest.raises(InputError, match=r"net\.head: expected 'residual' or 'gated', found 'open'"):
        SourceAttention(D, K, head="open")


@pytest.mark.parametrize("neighbours", [None, 5])
@torch.no_grad()
def test_learned_rows_say_how_a_token_is_used(neighbours):
    memory = random_memory() if neighbours is None else listed(random_memory(), neighbours)
    sets, net = sets_of(queries(memory)), trained_net(neighbours)
    before = net(sets, memory, SELF_INDEX)
    net.ask_for_usage(3)
    frequencies, forms = torch.linspace(-3, 3, M + len(SELF_INDEX)), torch.rand(M + len(SELF_INDEX), len(FORMS))
    shares = torch.rand(len(frequencies), 2)
    languages = torch.tensor([[0, 2], [2, 1]]).repeat(len(frequencies), 1)[: len(frequencies)].int()
    usage = {
        "what part of a word tokens are": {"forms": forms, "key_forms": forms[:M]},
        "how often tokens occur": {"log_frequencies": frequencies},
        "in which languages tokens occur": {"languages": languages, "shares": shares},
    }
    told = memory
    for said, parts in usage.items():
        with pytest.raises(ValueError, match=f"expected a memory that says {said}"):
            net(sets, told, SELF_INDEX)
        told = told._replace(**parts)
    net.language_rows.zero_()
    assert torch.equal(net(sets, told, SELF_INDEX), before)  # until it is trained, but for what starts at random
    net.frequency_row.copy_(torch.arange(K))
    net.language_rows.copy_(torch.randn(3, K))
    net.form_rows.copy_(torch.randn(len(FORMS), K))
    formed = 3 * forms[SELF_INDEX] @ net.form_rows
    mixed = 3 * (shares[SELF_INDEX, :, None] * net.language_rows[languages[SELF_INDEX].long()]).sum(1)
    expected = before + frequencies[SELF_INDEX, None] / 5 * torch.arange(K) + mixed + formed
    torch.testing.assert_close(net(sets, told, SELF_INDEX), expected)
    again = build(net.spec())
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(sets, told, SELF_INDEX), net(sets, told, SELF_INDEX))
    newer = {"languages": mixed + formed, "forms": formed}  # each is later than those before it
    for name, said in newer.items():
        later = list(newer)[list(newer).index(name) :]
        older = build({argument: value for argument, value in net.spec().items() if argument not in later})
        parts = tuple(f"{each[:-1]}_" for each in later)
        older.load_state_dict({part: value for part, value in net.state_dict().items() if not part.startswith(parts)})
        torch.testing.assert_close(older(sets, told, SELF_INDEX), expected - said)


@pytest.mark.parametrize("neighbours", [None, 5])
@torch.no_grad()
def test_tokens_look_at_source_tokens_of_the_forms_that_the_net_learned(neighbours):
    """Where the first form seeks the second, a token of the first looks at nothing else."""
    memory = random_memory() if neighbours is None else listed(random_memory(), neighbours)
    sets, net = sets_of(queries(memory)), trained_net(neighbours)
    net.ask_for_usage(0)
    forms = torch.zeros(M + len(SELF_INDEX), len(FORMS))
    chosen = [5, 9, 22] if neighbours is None else memory.neighbour_ids[SELF_INDEX[0], :3].tolist()
    forms[SELF_INDEX, 0], forms[chosen, 1] = 1, 1
    told = memory._replace(log_frequencies=torch.zeros(len(forms)), forms=forms, key_forms=forms[:M])
    before = net(sets, told, SELF_INDEX)
    net.form_match[0, 1] = 10
    torch.nn.init.zeros_(net.correction[1][2].weight)
    found = net(sets, told, SELF_INDEX)
    assert not torch.allclose(found[0], before[0])
    others = torch.ones(M, dtype=torch.bool)
    others[chosen] = False
    elsewhere = told._replace(values=torch.where(others[:, None], torch.randn(M, K), memory.values))
    torch.testing.assert_close(net(sets, elsewhere, SELF_INDEX)[0], found[0])


def test_rows_of_languages_start_at_random_and_half_as_long_as_a_unit():
    net = SourceAttention(D, 4096)
    net.ask_for_usage(3)
    lengths = 3 * net.language_rows.detach().norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((3,), 0.5), atol=0.05, rtol=0)
    assert SourceAttention(D, K, languages=2).language_rows.any(dim=1).all()


@pytest.mark.parametrize("count", ["1", "-3"])
def test_a_net_knows_as_many_languages_as_the_vectors_have(count, bundles, text_file, tmp_path, capsys):
    flags = ["--config", str(CONFIGS / "fit.yaml"), "--data.bundle", str(bundles["bert"]), *TINY_TEXT, *QUIET]
    flags += ["--data.text", str(text_file), "--trainer.logger.init_args.save_dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        main(["fit", *flags, "--model.net.init_args.languages", count])
    assert re.search(rf"net\S*languages: expected .*, found {count}", capsys.readouterr().err)


def test_the_memory_must_be_the_one_that_the_net_looks_at():
    memory = random_memory()
    sets = sets_of(queries(memory))
    for neighbours, seen in ((None, None), (3, memory)):
        with pytest.raises(ValueError, match="expected a memory, with lists of neighbours above `dense_limit`"):
            trained_net(neighbours)(sets, seen, SELF_INDEX)
    with pytest.raises(InputError, match=r"net\.neighbours: expected a whole number > 0, found 0"):
        SourceAttention(D, K, neighbours=0)
    assert MLP(D, K).looks_at(10**6) is None
    default = SourceAttention(D, K)
    assert [default.looks_at(count) for count in (16_384, 16_385)] == [None, 64]


@pytest.mark.parametrize(
    ("stage", "streams"), [("fit", "text"), ("fit", "tokens"), ("test", "text"), ("predict", "text")]
)
def test_each_stage_lists_neighbours_of_the_tokens_that_it_predicts(stage, streams, bundles, text_file):
    data = HyperDataModule(str(bundles["bert"]), [str(text_file)] if streams == "text" else None, streams)
    data.setup(stage)
    size, neighbour_ids = len(data.memory.keys), data.memory_of(trained_net(6)).neighbour_ids
    assert neighbour_ids.shape == (data.bundle.meta.source_tokens + data.bundle.meta.target_tokens, 6)
    assert data.memory_of(trained_net(None)).neighbour_ids is None
    assert data.memory_of(SourceAttention(D, K)).neighbour_ids is None
    for side, wanted in (
        ("source", stage != "predict"),
        ("target", stage == "predict" or (stage, streams) == ("fit", "text")),
    ):
        covered = data.bundle.matches(side).covered
        assert (neighbour_ids[data._self_index[side][~covered]] == size).all()
        assert (neighbour_ids[data._self_index[side][covered]] < size).all() == wanted
    assert (neighbour_ids[:size] != torch.arange(size)[:, None]).all()
    # Places are each token's own.
    assert sorted(np.concatenate([data._self_index["source"], data._self_index["target"]])) == list(
        range(len(neighbour_ids))
    )


def test_fit_with_neighbours_predicts(bundles, text_file, tmp_path, capsys):
    views = ["--data.views.source=3", "--data.views.target=3", "--data.streams", "both", "--data.batch_size", "64"]
    flags = [*QUIET, *TINY_TEXT, *views, "--data.bundle", str(bundles["bert"]), "--data.text", str(text_file)]
    folder = ["--trainer.logger.init_args.save_dir", str(tmp_path), "--trainer.logger.init_args.version", "0"]
    (tmp_path / "near.yaml").write_text(
        yaml.safe_dump({"model": {"net": {"init_args": {"neighbours": 4, "dense_limit": 0}}}})
    )
    main(["fit", "--config", str(CONFIGS / "fit.yaml"), "--config", str(tmp_path / "near.yaml"), *flags, *folder])
    run = tmp_path / "fit" / "version_0"
    best = run / "checkpoints" / "best.ckpt"
    bundle = Bundle.load(bundles["bert"])
    trained = Hypernetwork.load(best, bundle)
    assert trained.net.neighbours == 4
    expected, again = predict(trained, bundle), predict(trained, bundle, 5)
    np.testing.assert_allclose(again.coordinates, expected.coordinates, rtol=1e-4, atol=1e-5)
    common = ["--config", str(run / "config.yaml"), "--ckpt_path", str(best), "--trainer.logger.init_args.version"]
    for command in ("validate", "test", "predict"):
        main([command, *common, command])
    found = np.load(next(tmp_path.rglob("coordinates-0.npz")))
    assert sorted(found["ids"]) == np.flatnonzero(expected.known).tolist()
    np.testing.assert_allclose(found["coordinates"], expected.coordinates[found["ids"]], rtol=1e-4, atol=1e-5)
    # Another number of neighbours is another net.
    with pytest.raises(SystemExit):
        main(["validate", *common, "other", "--model.net.init_args.neighbours", "3"])
    said = capsys.readouterr().err
    assert "--ckpt_path: expected a checkpoint of SourceAttention (neighbours 3)" in said
    assert "found one of SourceAttention (neighbours 4); use its config.yaml as --config, on its bundle" in said


def test_what_covers_whole_tokens_trains_as_before_there_was_a_cover():
    """Drawn as without that feature, and left at zero where every word contains its token."""
    torch.manual_seed(0)
    without = layers.correction(len(FEATURES) - 1, 32, 1)[0].weight
    torch.manual_seed(0)
    net = SourceAttention(D, K)
    torch.testing.assert_close(net.pooling[0].weight[:, :-1], without, rtol=0, atol=0)
    assert not net.pooling[0].weight[:, -1].any()
