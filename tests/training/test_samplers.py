import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hyperofa.training.samplers import GroupedBatches, RandomBatches

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=60).map(np.array)


@given(sizes, st.integers(1, 9), st.booleans(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2))
def test_every_item_comes_once_an_epoch(sizes, batch_size, shuffle, world_size, group, epoch):
    ranks = []
    for rank in range(world_size):
        sampler = GroupedBatches(sizes, batch_size, shuffle, 0, rank, world_size, group)
        sampler.set_epoch(epoch)
        draws = list(sampler)
        assert len(draws) == len(sampler)
        ranks.append(draws)
    assert len({len(draws) for draws in ranks}) == 1
    # In the order in which the processes take them; those added to share evenly come last.
    batches = [draw.items.tolist() for step in zip(*ranks, strict=True) for draw in step]
    count = -(-len(sizes) // batch_size)
    assert sorted(item for batch in batches[:count] for item in batch) == list(range(len(sizes)))
    assert all(batch in batches[:count] for batch in batches[count:])
    assert max(map(len, batches)) <= batch_size


def test_batches_hold_items_of_similar_size():
    sizes = np.random.default_rng(0).integers(1, 100, 1000)
    batches = [sizes[draw.items] for draw in GroupedBatches(sizes, 10)]
    assert np.mean([batch.max() - batch.min() for batch in batches]) < 10


def test_orders_change_with_the_epoch_and_not_otherwise():
    def draws(epoch, seed=0, shuffle=True):
        sampler = GroupedBatches(np.arange(50), 4, shuffle, seed)
        sampler.set_epoch(epoch)
        return [(draw.items.tolist(), draw.seed) for draw in sampler]

    assert draws(0) == draws(0)
    assert draws(0) != draws(1)
    assert draws(0) != draws(0, seed=1)
    assert draws(0, shuffle=False) == draws(1, shuffle=False)


def test_random_draws_differ_by_epoch_step_and_process():
    seeds = []
    for rank in (0, 1):
        sampler = RandomBatches(3, 7, rank)
        assert len(sampler) == 3
        for epoch in (0, 1):
            sampler.set_epoch(epoch)
            seeds += [draw.seed for draw in sampler]
            assert all(len(draw.items) == 0 for draw in sampler)
    assert len(set(seeds)) == 12
