"""Which examples make a step, in what order, and on which rank."""

import multiprocessing
import os
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import families
from sce.data.loader import EpochSampler, train_loader

PROFILE = settings(max_examples=60, deadline=None, derandomize=True, database=None)
LENGTHS = st.lists(st.integers(1, 9), min_size=12, max_size=40)


def steps_of(lengths, *, world_size=1, batch=2, accumulate=2, epoch=0, skip=0):
    """Per optimiser step the micro-batches of every rank, [step][rank][micro-batch]."""
    size, ranks = batch * accumulate, []
    for rank in range(world_size):
        sampler = EpochSampler(lengths, 7, step_size=size, rank=rank, world_size=world_size)
        sampler.epoch, sampler.skip = epoch, skip
        own = list(sampler)
        ranks.append([own[i : i + size] for i in range(0, len(own), size)])
    return [
        [[own[i : i + batch] for i in range(0, size, batch)] for own in step]
        for step in zip(*ranks, strict=True)
    ]


def members(steps):
    return [sorted(i for rank in step for batch in rank for i in batch) for step in steps]


@PROFILE
@given(LENGTHS, st.integers(0, 3))
def test_a_step_holds_the_same_examples_on_any_number_of_devices(lengths, epoch):
    one = steps_of(lengths, batch=4, accumulate=1, epoch=epoch)
    for world_size, batch, accumulate in ((1, 2, 2), (1, 1, 4), (2, 2, 1), (2, 1, 2), (4, 1, 1)):
        other = steps_of(
            lengths, world_size=world_size, batch=batch, accumulate=accumulate, epoch=epoch
        )
        assert members(other) == members(one)


@PROFILE
@given(LENGTHS)
def test_every_example_comes_once_an_epoch_and_leftovers_change(lengths):
    seen = [[i for step in members(steps_of(lengths, epoch=e)) for i in step] for e in range(6)]
    for epoch in seen:
        assert len(set(epoch)) == len(epoch) == len(lengths) // 4 * 4
    if len(lengths) % 4:
        assert len({tuple(sorted(epoch)) for epoch in seen}) > 1


@PROFILE
@given(LENGTHS)
def test_micro_batches_hold_examples_of_like_length(lengths):
    for step in steps_of(lengths):
        told = [lengths[i] for batch in step[0] for i in batch]
        assert told == sorted(told)


@pytest.mark.parametrize("skip", [0, 4, 8])
def test_skipping_goes_on_where_the_epoch_was_left(skip):
    lengths = [5, 3, 9, 1, 4, 4, 2, 8, 7, 6, 1, 3]
    assert steps_of(lengths, skip=skip) == steps_of(lengths)[skip // 4 :]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_to_the_process_group_kills_no_reader(name):
    """It is the run's, which saves first; torch would end it with an error of its own."""
    encoded = [families.example(n, 26, [3, 6]) for n in range(64)]
    batches = iter(train_loader(encoded, batch_size=2, seed=0, workers=1))
    next(batches)
    (reader,) = multiprocessing.active_children()
    os.kill(reader.pid, getattr(signal, name))
    assert len(list(batches)) == 31
