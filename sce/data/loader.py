"""A training loader that can go on mid-epoch, and shares every epoch out among ranks."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sce.data.batch import Batch, collate, collate_shared, deal_batches
from sce.data.encode import Encoded
from sce.errors import STOPPING


class EpochSampler(Sampler[int]):
    """A permutation drawn from (seed, epoch), in optimiser steps shared out among ranks.

    An epoch is cut to whole steps: `step_size` examples a step on each rank. What is left over
    differs from epoch to epoch. Within a step the shortest come first, and ranks take turns: micro-
    batches hold examples of like length, and which step an example is in does not depend on that.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        seed: int,
        *,
        step_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths, self.seed, self.step_size = lengths, seed, step_size
        self.rank, self.world_size = rank, world_size
        self.epoch, self.skip = 0, 0

    def __len__(self) -> int:
        return len(self.lengths) // (self.world_size * self.step_size) * self.step_size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        a_step, own = self.step_size * self.world_size, []
        for start in range(0, len(self) * self.world_size, a_step):
            step = sorted(order[start : start + a_step], key=lambda i: self.lengths[i])
            own += step[self.rank :: self.world_size]
        own, self.skip = own[self.skip :], 0
        return iter(own)


class ResumableLoader(DataLoader):
    """A DataLoader whose state is the number of batches handed out so far, in all epochs.

    Which epoch comes next follows from that number, not from Lightning's own count, which a run
    that is resumed twice at the end of an epoch loses. The state is the same on every rank, which
    is how Lightning restores it. Batches are counted when they are handed out, not when a worker
    prefetches them.
    """

    _handed_out = 0

    @property
    def _epochs(self) -> EpochSampler:
        return cast("EpochSampler", self.sampler)

    # torch promises an iterator of a private class.
    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What is left of the epoch; of the next one, where nothing is."""
        self._epochs.epoch, done = divmod(self._handed_out, len(self))
        self._epochs.skip = done * (self.batch_size or 1)
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches handed out."""
        return {"batches": self._handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after that many batches."""
        self._handed_out = state["batches"]


class Contexts(Dataset[list[Encoded]]):
    """Examples that share a context, as one item."""

    def __init__(self, encoded: Sequence[Encoded], together: int) -> None:
        self._encoded, self._together = encoded, together

    def __len__(self) -> int:
        return len(self._encoded) // self._together

    @property
    def lengths(self) -> list[int]:
        """Prompt tokens of each context's first question."""
        return _lengths(self._encoded)[:: self._together][: len(self)]

    def __getitem__(self, item: int) -> list[Encoded]:
        first = item * self._together
        return [self._encoded[first + n] for n in range(self._together)]


class _Batches(Dataset[Batch]):
    """Evaluation batches of fixed composition."""

    def __init__(self, encoded: Sequence[Encoded], indices: list[list[int]]) -> None:
        self._encoded, self._indices = encoded, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, item: int) -> Batch:
        chosen = [self._encoded[index] for index in self._indices[item]]
        return collate(chosen) if chosen else collate([self._encoded[0]], weights=[0])


def train_loader(  # noqa: PLR0913 - plain numbers, by keyword
    encoded: Sequence[Encoded] | Contexts,
    *,
    batch_size: int,
    seed: int,
    accumulate: int = 1,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
) -> ResumableLoader:
    """Shuffled micro-batches of one rank, `accumulate` to an optimiser step, whole steps only.

    Batches and their order do not depend on `workers`, processes that read ahead.
    """
    step_size = batch_size * accumulate
    return ResumableLoader(
        encoded,  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=EpochSampler(
            _lengths(encoded), seed, step_size=step_size, rank=rank, world_size=world_size
        ),
        collate_fn=collate_shared if isinstance(encoded, Contexts) else collate,
        drop_last=True,
        num_workers=workers,
        worker_init_fn=_leave_stopping_to_the_run,
        generator=torch.Generator().manual_seed(seed),
    )


def _leave_stopping_to_the_run(worker: int) -> None:
    """A signal to the whole process group is the run's, which ends its workers itself.

    A worker that died of it would end the run with an error of torch's, before it could save.
    """
    del worker
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def eval_loader(
    encoded: Sequence[Encoded], batch_size: int, rank: int = 0, world_size: int = 1
) -> DataLoader[Batch]:
    """Whole batches dealt to ranks; a rank short of one gets a batch of weight 0."""
    indices = deal_batches(_lengths(encoded), batch_size, world_size)
    return DataLoader(_Batches(encoded, indices[rank::world_size]), batch_size=None)


def _lengths(encoded: Sequence[Encoded] | Contexts) -> list[int]:
    """Prompt tokens of every item; a split knows them without reading its examples."""
    known = getattr(encoded, "lengths", None)
    if known is not None:
        return list(known)
    assert not isinstance(encoded, Contexts)
    return [len(example.prompt_ids) for example in encoded]
