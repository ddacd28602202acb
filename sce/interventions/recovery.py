"""How much of the gap between two models patching closes, and what speaks against it.

Knows no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sce.interventions.controls import Condition
from sce.interventions.effects import BASELINE, Answers, Row, accuracy, against
from sce.interventions.select import NO_HEADS, Heads
from sce.stats import share_recovered


def patch_rows(
    conditions: Sequence[Condition],
    answers: Mapping[Heads, Answers],
    source: Answers,
    *,
    seed: int,
) -> list[Row]:
    """The recipient as it is, as patched with every set, and the model whose outputs are taken.

    `share` is the share of the gap between the two that a patch closes; read `gap` first.
    """
    original = answers[NO_HEADS]
    table: list[Row] = []
    first: Row = {"name": "original", "kind": BASELINE, "k": 0, "draw": None}
    table.append(first | accuracy(original, seed=seed))
    for condition in conditions:
        after = answers[condition.heads]
        row: Row = {"name": condition.name, "kind": condition.kind, "k": condition.k}
        row |= {"draw": condition.draw} | accuracy(after, seed=seed)
        row |= against(original, after, seed=seed)
        recovered = asdict(share_recovered(original.f1, after.f1, source.f1, seed=seed))
        table.append(row | {key: value for key, value in recovered.items() if key != "n"})
    last: Row = {"name": "source", "kind": "source", "k": 0, "draw": None}
    last |= accuracy(source, seed=seed) | against(original, source, seed=seed)
    return [*table, last]


def counter_examples(
    conditions: Sequence[Condition], answers: Mapping[Heads, Answers], source: Answers
) -> list[Row]:
    """Examples that speak against patching, set by set, by id.

    Those whose patched answer is worse than the original although the source's own is better; by
    F1. Draws are listed like sets.
    """
    original = answers[NO_HEADS].f1
    found = []
    for condition in conditions:
        worse = (answers[condition.heads].f1 < original) & (source.f1 > original)
        ids = [source.ids[index] for index in np.flatnonzero(worse)]
        row: Row = {"name": condition.name, "kind": condition.kind, "draw": condition.draw}
        found.append(row | {"num": len(ids), "n": len(original), "ids": ids})
    return found


def worse_than_random(found: Sequence[Row]) -> list[Row]:
    """The contrasts, of `contrasts`, in which the set does worse than its random controls."""
    return [row for row in found if row["f1_difference"] is not None and row["f1_difference"] < 0]


_COLOURS = {"no patch": "0.5", "patched": "tab:blue", "patched, random heads": "0.8"}


def patch_figure(found: Mapping[str, Sequence[Row]], *, title: str) -> Figure:
    """F1 of the patched model, set by set, beside the original's and the patch's source's.

    Args:
        found: direction -> `patch_rows`.
        title: above all panels, each with its n.
    """
    widest = max(len(table) for table in found.values())
    size = (1.2 + max(4.4, 0.55 * widest) * len(found), 4.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axis, (way, table) in zip(axes, found.items(), strict=True):
        _draw_bars(axis, table)
        into = "source into target" if way == "forward" else "target into source"
        axis.set_title(f"{into} (n = {table[0]['n']})", fontsize=9)
    axes[0].set_ylabel("F1, mean and 95% interval over examples")
    bars = [Patch(color=colour, label=label) for label, colour in _COLOURS.items()]
    line = Line2D([], [], color="tab:red", linestyle="--", label="whose outputs are taken")
    figure.legend(handles=[*bars, line], loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_bars(axis: Axes, table: Sequence[Row]) -> None:
    *bars, source = table
    for place, row in enumerate(bars):
        random = "patched, random heads" if row["draw"] is not None else "patched"
        axis.bar(place, row["f1"], color=_COLOURS[random if place else "no patch"])
        if row["f1_low"] is not None:
            axis.vlines(place, row["f1_low"], row["f1_high"], color="black", linewidth=1.2)
    axis.axhline(source["f1"], color="tab:red", linestyle="--")
    if source["f1_low"] is not None:
        span = source["f1_low"], source["f1_high"]
        axis.axhspan(*span, color="tab:red", alpha=0.1, linewidth=0, zorder=0)
    labels = [_label(row) for row in bars]
    axis.set_xticks(range(len(bars)), labels, rotation=60, ha="right", fontsize=8)
    axis.set_ylim(bottom=0)


def _label(row: Row) -> str:
    if row["draw"] is not None:
        return f"as {row['name']}:\nrandom {row['draw'] + 1}"
    return row["name"] + (f"\nk = {row['k']}" if row["k"] else "")
