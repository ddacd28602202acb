"""Which heads: from score files and lists, and by what two models share.

A head is (layer, query head), zero-based, written layer-head. Every set is held against the model
before anything runs. Knows no torch.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from sce.errors import InputError, NoHeads
from sce.records import HeadScores
from sce.stats import head_set, top_heads

Head = tuple[int, int]
Heads = frozenset[Head]
NO_HEADS: Heads = frozenset()
"""The set of no intervention."""
Shape = tuple[int, int]
"""(layers, query heads a layer)."""


def named(heads: Iterable[Head]) -> list[str]:
    """The heads as people and other tools write them, in order: 16-19."""
    return [f"{layer}-{head}" for layer, head in sorted(heads)]


def check_scores(scores: HeadScores, name: str, shape: Shape, weights_sha256: str) -> None:
    """Refuse a score file that is not of this model.

    Args:
        scores: as loaded.
        name: of the file, for the message.
        shape: of the model.
        weights_sha256: identity of the model's base weights.

    Raises:
        InputError: another shape, other weights, or a score that is no number.
    """
    if scores.shape != shape:
        raise InputError(
            f"{name}: scores of {scores.shape[0]} layers x {scores.shape[1]} heads, but the model "
            f"has {shape[0]} x {shape[1]}; name a file that sce.score made of this model"
        )
    own = scores.provenance.get("weights_sha256")
    if own and own != weights_sha256:
        raise InputError(
            f"{name}: scored on weights {str(own)[:12]}, but the model's are "
            f"{weights_sha256[:12]}; name the model that was scored, or score this one"
        )
    wrong = np.argwhere(~np.isfinite(scores.scores))
    if len(wrong):
        layer, head = wrong[0].tolist()
        raise InputError(f"{name}: the score of head {layer}-{head} is not a number")


def top(scores: HeadScores, k: int, name: str) -> Heads:
    """The `k` heads of highest score, ties to the lowest (layer, head).

    Raises:
        InputError: `k` is below 1, or there are not so many heads.
        NoHeads: not so many that score.
    """
    if k < 1:
        raise InputError(f"heads.k={k}: must be at least 1")
    if k > scores.scores.size:
        raise InputError(f"heads.k={k}: the model has {scores.scores.size} heads; name fewer")
    chosen = _as_heads(top_heads(scores.scores, k))
    if len(chosen) < k:
        raise NoHeads(f"heads.k={k}: only {len(chosen)} heads of {name} score above 0; name fewer")
    return chosen


def above(scores: HeadScores, tau: float, name: str) -> Heads:
    """The heads whose score lies above `tau`.

    Raises:
        NoHeads: there is none.
    """
    chosen = _as_heads(head_set(scores.scores, tau))
    if not chosen:
        raise NoHeads(
            f"heads.tau={tau:g}: no head of {name} scores above it (the highest has "
            f"{scores.scores.max():.3g}); lower it"
        )
    return chosen


def listed(texts: Sequence[str], shape: Shape) -> Heads:
    """The heads of a list such as ["16-19", "11-15"].

    Raises:
        InputError: an entry is no head, is out of range, or stands there twice; the list is empty.
    """
    heads = []
    for text in texts:
        match = re.fullmatch(r"\s*(\d+)-(\d+)\s*", str(text))
        if match is None:
            raise InputError(f"heads.list: {text!r} is no head; write layer-head, such as 16-19")
        heads.append((int(match[1]), int(match[2])))
    require_in_shape(heads, shape, "heads.list")
    twice = [head for head, count in Counter(heads).items() if count > 1]
    if twice:
        raise InputError(f"heads.list: {named(twice)[0]} stands there twice")
    if not heads:
        raise InputError("heads.list: the list is empty; name heads as layer-head")
    return frozenset(heads)


def require_in_shape(heads: Iterable[Head], shape: Shape, name: str) -> None:
    """Raise `InputError` that names the first head which the model does not have."""
    for layer, head in sorted(heads):
        if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
            raise InputError(
                f"{name}: head {layer}-{head} is out of range; the model has layers 0 to "
                f"{shape[0] - 1} and heads 0 to {shape[1] - 1}"
            )


def all_heads(shape: Shape) -> Heads:
    """Every (layer, head) of a model."""
    return frozenset((layer, head) for layer in range(shape[0]) for head in range(shape[1]))


def common(source: Heads, target: Heads) -> Heads:
    """Heads of both sets.

    Raises:
        NoHeads: there is none.
    """
    if not source & target:
        raise NoHeads(
            "sets=intersection is empty: no head lies above the threshold in both source_scores "
            f"({len(source)} heads) and target_scores ({len(target)}); lower heads.tau"
        )
    return source & target


def only_source(source: Heads, target: Heads) -> Heads:
    """Heads of the source's set that the target's lacks.

    Raises:
        NoHeads: there is none.
    """
    if not source - target:
        raise NoHeads(
            f"sets=complement is empty: all {len(source)} heads above the threshold in "
            "source_scores are in target_scores too; leave it out or change heads.tau"
        )
    return source - target


def _as_heads(chosen: np.ndarray) -> Heads:
    return frozenset((int(layer), int(head)) for layer, head in np.argwhere(chosen))
