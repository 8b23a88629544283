"""Pictures in memory: what a batch holds, in what order, augmented how."""

import itertools

import numpy as np
import pytest
import torch
import vectors

from dslbi_torch.training.data.in_memory import PicturesInMemory


def generator(seed):
    return torch.Generator().manual_seed(seed)


def pictures(n=23, size=(3, 6, 5), **augmentation):
    """A part whose class tells the picture."""
    return PicturesInMemory(
        torch.tensor(vectors.array((n, *size))), torch.arange(n), **augmentation
    )


def assert_same_batches(a, b):
    for (x, y), (other, z) in zip(a, b, strict=True):
        torch.testing.assert_close(x, other, rtol=0, atol=0)
        torch.testing.assert_close(y, z, rtol=0, atol=0)


AUGMENTATIONS = [{}, {"shift": 2}, {"flip": True}, {"shift": 1, "flip": True}]


def test_for_evaluation_every_picture_comes_in_its_order_as_it_is():
    part = pictures(shift=2, flip=True)
    batches = list(part.batches(5))
    assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3]
    torch.testing.assert_close(torch.cat([x for x, _ in batches]), part.x, rtol=0, atol=0)
    torch.testing.assert_close(torch.cat([y for _, y in batches]), part.y, rtol=0, atol=0)


def test_batches_cover_the_set_once_in_an_order_of_the_generator_alone():
    part = pictures(103)
    first = [y.tolist() for _, y in part.batches(10, generator(0))]
    assert [len(b) for b in first] == [10] * 10 + [3]
    flat = sum(first, [])
    assert sorted(flat) == list(range(103)) and flat != sorted(flat)
    torch.manual_seed(99)  # the global generator has no say
    assert [y.tolist() for _, y in part.batches(10, generator(0))] == first
    assert [y.tolist() for _, y in part.batches(10, generator(1))] != first


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_the_state_before_an_epoch_says_what_comes(augmentation):
    part = pictures(**augmentation)
    g = generator(3)
    for _ in part.batches(7, g):
        pass
    state = g.get_state()
    second, third = list(part.batches(7, g)), list(part.batches(7, g))
    h = generator(0)
    h.set_state(state)
    assert_same_batches(part.batches(7, h), second)
    assert_same_batches(part.batches(7, h), third)
    assert [y.tolist() for _, y in second] != [y.tolist() for _, y in third]


def test_all_is_drawn_with_the_first_batch():
    part, g = pictures(shift=2, flip=True), generator(5)
    batches = part.batches(4, g)
    torch.testing.assert_close(g.get_state(), generator(5).get_state())
    next(batches)
    state = g.get_state()
    for _ in batches:
        torch.testing.assert_close(g.get_state(), state)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_augmentation_equals_a_loop_over_the_pictures(augmentation):
    """The numbers are drawn as recorded runs drew them: order, then places, then sides."""
    part = pictures(black=[0.5, -1.0, 2.0], **augmentation)
    shift, g = augmentation.get("shift", 0), generator(11)
    order = torch.randperm(23, generator=g).tolist()
    places = [[shift, shift]] * 23
    if shift:
        places = torch.randint(2 * shift + 1, (23, 2), generator=g).tolist()
    mirrored = [0] * 23
    if "flip" in augmentation:
        mirrored = torch.randint(2, (23,), generator=g).tolist()
        assert 0 < sum(mirrored) < 23
    expected = np.empty((23, 3, 6, 5))
    for i, k in enumerate(order):
        for c, row, column in itertools.product(range(3), range(6), range(5)):
            source = row + places[i][0] - shift, column + places[i][1] - shift
            inside = 0 <= source[0] < 6 and 0 <= source[1] < 5
            value = part.x[k, c, source[0], source[1]] if inside else [0.5, -1.0, 2.0][c]
            expected[i, c, row, 4 - column if mirrored[i] else column] = value
    batches = list(part.batches(8, generator(11)))
    np.testing.assert_array_equal(torch.cat([x for x, _ in batches]), expected)
    assert torch.cat([y for _, y in batches]).tolist() == order


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("start", [1, 3, 5, 9])
def test_start_leaves_out_batches_and_changes_nothing_else(augmentation, seed, start):
    part = pictures(**augmentation)
    g, h = (None, None) if seed is None else (generator(seed), generator(seed))
    assert_same_batches(part.batches(5, g, start=start), list(part.batches(5, h))[start:])
    if g:
        torch.testing.assert_close(g.get_state(), h.get_state())


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_the_processes_together_see_the_global_batches(augmentation, seed, world):
    part = pictures(21, **augmentation)  # the last batch has one picture: most processes none of it

    def batches(**process):
        return list(part.batches(5, None if seed is None else generator(seed), **process))

    whole = batches()
    for rank in range(world):
        mine = batches(rank=rank, world=world)
        assert_same_batches(mine, [(x[rank::world], y[rank::world]) for x, y in whole])
        assert_same_batches(batches(rank=rank, world=world, start=2), mine[2:])
    assert len(mine[-1][1]) == 0 and mine[-1][0].shape == (0, 3, 6, 5)


def test_pictures_move_everywhere_and_half_of_them_are_mirrored():
    one = torch.zeros(4000, 1, 3, 3)
    one[:, :, 1, 0] = 1
    part = PicturesInMemory(one, torch.arange(4000), shift=1, flip=True)
    seen = torch.cat([x for x, _ in part.batches(512, generator(0))]).mean((0, 1))
    # Row: one of three. Column 0 moves to 0 or 1, or out; mirrored to 2 or 1: 1/6, 1/3, 1/6.
    # The error of a share p of 4000 is sqrt(p (1 - p) / 4000) < 0.006; four of it.
    expected = torch.tensor([[1 / 6, 1 / 3, 1 / 6]]) / 3
    torch.testing.assert_close(seen, expected.expand(3, 3), rtol=0, atol=0.024)


def test_alternating_pictures_are_mirrored_in_every_other_epoch():
    part = pictures(flip=True, alternate=True)
    mirrored = []
    for epoch in (0, 1, 2):
        g, h = generator(epoch), generator(epoch)
        batches = list(part.batches(5, g, epoch=epoch))
        assert_same_batches(part.batches(5, h, epoch=epoch, start=2), batches[2:])
        torch.testing.assert_close(g.get_state(), h.get_state())
        xs, ys = (torch.cat(parts) for parts in zip(*batches, strict=True))
        as_they_are = part.x[ys]
        sides = (xs != as_they_are).flatten(1).any(1)
        sides_back = torch.where(sides[:, None, None, None], xs.flip(3), xs)
        torch.testing.assert_close(sides_back, as_they_are, rtol=0, atol=0)
        mirrored.append(dict(zip(ys.tolist(), sides.tolist(), strict=True)))
    assert 0 < sum(mirrored[0].values()) < 23
    assert mirrored[1] == {k: not side for k, side in mirrored[0].items()}
    assert mirrored[2] == mirrored[0]


def test_the_pictures_of_the_set_are_never_written():
    part = pictures(shift=2, flip=True)
    before = part.x.clone()
    for x, _ in part.batches(6, generator(0)):
        x.zero_()
    torch.testing.assert_close(part.x, before, rtol=0, atol=0)
