"""Which examples a split has: one cell, or a mixture of cells in exact proportions.

Example i depends on (seed, i) alone.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sce.data.cell import Turn
from sce.data.example import Example


@dataclass(frozen=True)
class Part:
    """One cell of a recipe."""

    make: Callable[[int, Turn], list[Example]]
    """From an index in the split to the examples that share a context, its own first."""
    source: int
    """Parts with the same number share their questions, each of which is used once."""


@dataclass(frozen=True)
class Recipe:
    """All examples of one split; one that is a mixture takes its parts in exact proportions."""

    split: str
    cell: tuple[str, str]
    parts: Sequence[Part] = field(repr=False)
    weights: tuple[float, ...]
    seed: int
    count: int
    together: int = 1
    """Examples after one another that share a context; `count` is a multiple."""

    def __len__(self) -> int:
        return self.count

    def example(self, index: int) -> Example:
        """Example `index`."""
        group, member = divmod(index, self.together)
        if group not in self._last:  # examples are asked for one after the other
            self._last.clear()
            part, turn = self._turns[group]
            self._last[group] = part.make(group * self.together, turn)
        return self._last[group][member]

    def examples(self) -> list[Example]:
        """All of them, in memory."""
        return [self.example(index) for index in range(self.count)]

    @cached_property
    def _last(self) -> dict[int, list[Example]]:
        return {}

    @cached_property
    def _turns(self) -> list[tuple[Part, Turn]]:
        """Of the first example of every context."""
        of_part, of_source = Counter[int](), Counter[int]()
        turns = []
        for number in assign(self.weights, self.count // self.together, self.seed):
            part = self.parts[number]
            turns.append((part, Turn(of_part[number], of_source[part.source])))
            of_part[number] += self.together
            of_source[part.source] += self.together
        return turns


def assign(weights: Sequence[float], count: int, seed: int) -> list[int]:
    """Which part each example belongs to.

    The k-th example of a part of weight w is due at (k + u) / w, with u drawn for the part; in that
    order they are served. So the share of every part is exact wherever it comes to whole examples,
    and within two examples before, and example i's part does not depend on how many there are.
    """
    shares = np.asarray(weights) / np.sum(weights)
    offsets = np.random.default_rng([seed, len(shares)]).uniform(0.25, 0.75, len(shares))
    due = [
        (offset / share, part)
        for part, (offset, share) in enumerate(zip(offsets, shares, strict=True))
    ]
    heapq.heapify(due)
    order = []
    for _ in range(count):
        time, part = heapq.heappop(due)
        order.append(part)
        heapq.heappush(due, (time + 1 / shares[part], part))
    return order
