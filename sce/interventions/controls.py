"""Random controls: as many heads as a set has, drawn from those that no set of the sweep holds.

What a set does means little unless random heads do less: they say what the loss of so many heads
costs a model anywhere. Layer-matched controls hold the depth too. Knows no torch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sce.errors import NoHeads
from sce.interventions.select import Head, Heads, Shape, all_heads

HEADS, LAYER_MATCHED, UNIFORM = "heads", "layer_matched", "uniform"
"""Kinds of sets: the ones asked about, and the two random controls of equal size."""


_SHOWN = 4
"""Layers that a message names."""


@dataclass(frozen=True)
class Condition:
    """One set of heads that is intervened on, and what it is."""

    name: str
    """Where the heads come from: a score file, the list, or a set of patching."""
    kind: str
    heads: Heads
    draw: int | None = None
    """Number of the random draw, from 0; None: not drawn."""
    moved: tuple[tuple[int, int], ...] = ()
    """Of a layer-matched control: see `Drawn.moved`."""

    @property
    def k(self) -> int:
        """Size of the set."""
        return len(self.heads)


@dataclass(frozen=True)
class Drawn:
    """A random control."""

    heads: Heads
    moved: tuple[tuple[int, int], ...] = ()
    """(layer it was to be in, layer it is in) of each head whose own layer had too few left."""


def random_heads(
    heads: Heads, shape: Shape, *, seed: int, draw: int, layer_matched: bool, avoid: Heads
) -> Drawn:
    """As many heads as `heads`, drawn at random from those that are not in `avoid`.

    Each draw shuffles the heads that are left once and takes as many as it needs from the front, so
    that a larger set of one draw holds the smaller ones, as the sets of a growing k do.

    Args:
        heads: what the control is for.
        shape: of the model.
        seed: of all draws.
        draw: which of them, from 0.
        layer_matched: as many in every layer as `heads` has there; where too few are left, from the
            nearest layer that has some, the lower of two.
        avoid: never drawn; in a sweep the whole of it, which is the set of the largest k.

    Raises:
        NoHeads: fewer heads are left than are needed.
    """
    rng = np.random.default_rng([seed, draw, int(layer_matched)])
    pool = sorted(all_heads(shape) - avoid - heads)
    if len(pool) < len(heads):
        short = [f"layer {layer} has {n} left of {m} wanted" for layer, n, m in _short(heads, pool)]
        more = ["..."] * (len(short) > _SHOWN)
        raise NoHeads(
            f"a random control of {len(heads)} heads cannot be drawn: {len(pool)} of "
            f"{shape[0] * shape[1]} are left beside those swept "
            f"({', '.join([*short[:_SHOWN], *more])}); take fewer heads"
        )
    shuffled = [pool[index] for index in rng.permutation(len(pool)).tolist()]
    if not layer_matched:
        return Drawn(frozenset(shuffled[: len(heads)]))
    return _layer_matched(heads, shuffled, shape[0])


def controls(
    condition: Condition, shape: Shape, *, seed: int, num: int, kinds: Sequence[str], avoid: Heads
) -> list[Condition]:
    """`num` random controls of each kind for one set of heads; see `random_heads`."""
    made = []
    for kind in kinds:
        matched = kind == LAYER_MATCHED
        for draw in range(num):
            drawn = random_heads(
                condition.heads, shape, seed=seed, draw=draw, layer_matched=matched, avoid=avoid
            )
            made.append(Condition(condition.name, kind, drawn.heads, draw, drawn.moved))
    return made


def _short(heads: Heads, pool: Sequence[Head]) -> list[tuple[int, int, int]]:
    """(layer, heads left, heads wanted) of the layers in which fewer are left than are wanted."""
    left = Counter(layer for layer, _ in pool)
    wanted = Counter(layer for layer, _ in heads)
    return [(layer, left[layer], n) for layer, n in sorted(wanted.items()) if left[layer] < n]


def _layer_matched(heads: Heads, shuffled: list[Head], num_layers: int) -> Drawn:
    left = {layer: [h for h in shuffled if h[0] == layer] for layer in range(num_layers)}
    wanted = Counter(layer for layer, _ in heads)
    drawn, lacking = [], []
    for layer, count in sorted(wanted.items()):  # every layer its own first
        drawn += left[layer][:count]
        lacking += [layer] * (count - len(left[layer][:count]))
        left[layer] = left[layer][count:]
    moved = []
    for layer in lacking:
        nearest = min(
            (other for other in left if left[other]), key=lambda other: (abs(other - layer), other)
        )
        drawn.append(left[nearest].pop(0))
        moved.append((layer, nearest))
    return Drawn(frozenset(drawn), tuple(moved))
