"""The formats of other tools: from text to head scores and back (numpy only).

Errors name the head, not the file, which the caller does. Heads are zero-based (layer, head).
"""

import json
import logging
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from sce.errors import InputError
from sce.records import HeadScores
from sce.score_files import number, parse_json

SCORERS = {
    "wu2024": ("wu2024_code", "greedy"),
    "qrhead": ("query_focused", "prefill"),
    "duo": ("duo", "optimised"),
}
"""What a file of each kind holds, and in which mode it was measured."""
HEAD_NAME = re.compile(r"(0|[1-9]\d{0,8})-(0|[1-9]\d{0,8})", re.ASCII)

Shape = tuple[int, int]
Position = tuple[int, int]

_log = logging.getLogger("sce")


def read_wu2024(text: str, shape: Shape | None) -> HeadScores:
    """Wu et al.: {"layer-head": [score of each run, ...]}; their scores may exceed 1.

    Raises:
        InputError: it is cut off or no such object, a head is named wrongly, missing or beyond
            `shape`, has another number of runs than the first, or a score that is not finite.
    """
    content = parse_json(text)
    if not isinstance(content, dict):
        raise InputError('not an object {"layer-head": [score of each run, ...]}')
    lists = {_position(name): values for name, values in content.items()}
    whole = _whole_shape(lists, shape)
    runs, first = -1, ""
    for (layer, head), values in lists.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"head {layer}-{head} has no list of scores, one a run")
        if runs < 0:
            runs, first = len(values), f"{layer}-{head}"
        if len(values) != runs:
            raise InputError(
                f"head {layer}-{head} has {len(values)} scores, but head {first} has {runs}: every "
                "run scores every head"
            )
    per_example = np.zeros((runs, *whole))
    for (layer, head), values in lists.items():
        per_example[:, layer, head] = [number(value, layer, head) for value in values]
    return _imported("wu2024", per_example.mean(axis=0), per_example)


def read_qrhead(text: str, shape: Shape | None) -> HeadScores:
    """QRHead: [["layer-head", score], ...], in any order.

    Raises:
        InputError: as `read_wu2024`, or a head stands in it twice.
    """
    content = parse_json(text)
    found: dict[Position, float] = {}
    for index, entry in enumerate(content if isinstance(content, list) else [content]):
        if not isinstance(entry, list) or len(entry) != 2:
            raise InputError(f'entry {index} is {str(entry)[:40]!r}, not ["layer-head", score]')
        layer, head = _position(entry[0])
        if (layer, head) in found:
            raise InputError(f"head {layer}-{head} stands in it twice")
        found[layer, head] = number(entry[1], layer, head)
    scores = np.zeros(_whole_shape(found, shape))
    for where, score in found.items():
        scores[where] = score
    return _imported("qrhead", scores)


def read_duo(text: str, shape: Shape | None) -> HeadScores:
    """DuoAttention: a row a layer, a tab-separated column a KV head, each a gate in 0..1.

    `shape` changes nothing here: the file holds its own.

    Raises:
        InputError: rows differ in length, or a score is no finite number.
    """
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not rows:
        raise InputError("it holds no heads")
    for layer, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise InputError(
                f"layer {layer} has {len(row)} columns, but layer 0 has {len(rows[0])}"
            )
    scores = [[_cell(text, la, h) for h, text in enumerate(row)] for la, row in enumerate(rows)]
    return _imported("duo", np.array(scores))


def as_wu2024(head_scores: HeadScores) -> str:
    """The kept examples' scores of every head, or its mean alone where there are none."""
    rows = head_scores.scores[None]
    if head_scores.per_example is not None:
        rows = head_scores.per_example
        rows = rows[~np.isnan(rows).all(axis=(1, 2))]
    layers, heads = head_scores.shape
    lists = {
        f"{layer}-{head}": [round(float(value), 9) for value in rows[:, layer, head]]
        for layer in range(layers)
        for head in range(heads)
    }
    return json.dumps(lists, allow_nan=False) + "\n"


def as_qrhead(head_scores: HeadScores) -> str:
    """All heads, best first; a tie goes to the lowest (layer, head)."""
    heads = head_scores.shape[1]
    rounded = [round(float(value), 9) for value in head_scores.scores.flat]
    order = sorted(range(len(rounded)), key=lambda i: -rounded[i])  # stable: ties by position
    pairs = [[f"{i // heads}-{i % heads}", rounded[i]] for i in order]
    return json.dumps(pairs, indent=1, allow_nan=False) + "\n"


def as_duo(head_scores: HeadScores) -> str:
    """A row a layer, a tab-separated column a head."""
    rows = ("\t".join(f"{value:.9f}" for value in row) for row in head_scores.scores)
    return "\n".join(rows) + "\n"


def _cell(text: str, layer: int, head: int) -> float:
    try:
        value: Any = float(text)
    except ValueError:
        value = text
    return number(value, layer, head)


def _imported(kind: str, scores: np.ndarray, per_example: np.ndarray | None = None) -> HeadScores:
    scorer, mode = SCORERS[kind]
    return HeadScores(
        scorer=scorer,
        mode=mode,
        match="exact",
        scores=scores,
        num_examples=0 if per_example is None else len(per_example),
        per_example=per_example,
    )


def _position(name: Any) -> Position:
    """(layer, head) of "layer-head".

    Raises:
        InputError: it is no such name.
    """
    match = HEAD_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise InputError(f"{str(name)[:40]!r} is no head: a head is named layer-head, as in 3-2")
    return int(match[1]), int(match[2])


def _whole_shape(heads: Iterable[Position], shape: Shape | None) -> Shape:
    """The shape of all heads, by the file's own or as given; says which head is amiss."""
    known = set(heads)
    if not known:
        raise InputError("it holds no heads (no run passed, or none was made)")
    layers, width = shape or (max(la for la, _ in known) + 1, max(h for _, h in known) + 1)
    beyond = next((p for p in sorted(known) if p[0] >= layers or p[1] >= width), None)
    if beyond is not None:
        raise InputError(
            f"head {beyond[0]}-{beyond[1]} is out of range: shape=[{layers},{width}] has layers 0 "
            f"to {layers - 1} with heads 0 to {width - 1}"
        )
    missing = layers * width - len(known)
    if missing and shape is None:
        gap = next((la, h) for la in range(layers) for h in range(width) if (la, h) not in known)
        raise InputError(
            f"head {gap[0]}-{gap[1]} is missing; if the file names only some heads, give the "
            "model's shape=[LAYERS,HEADS], and the others score 0"
        )
    if missing:
        _log.warning("%d of %d heads are not in the file and score 0", missing, layers * width)
    return layers, width
