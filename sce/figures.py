"""Figures that callbacks and analysis share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure


def head_maps(maps: Mapping[str, np.ndarray], *, title: str, tau: float | None = None) -> Figure:
    """Maps of [layers, heads] scores side by side on one colour scale.

    Args:
        maps: caption -> scores, left to right.
        title: above all of them.
        tau: heads above it are outlined and counted.
    """
    count = len(maps)
    layers, heads = next(iter(maps.values())).shape
    high = max(1e-9, max(float(np.nanmax(scores)) for scores in maps.values()))
    width = max(2.6, 1.2 + 0.16 * heads)
    figure = Figure(figsize=(width * count + 1.2, 1.6 + 0.14 * layers), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, sharey=True)[0]
    for axis, (caption, scores) in zip(axes, maps.items(), strict=True):
        axis.imshow(scores, aspect="auto", cmap="magma_r", vmin=0, vmax=high, origin="lower")
        if tau is not None:
            chosen = np.argwhere(scores > tau)
            axis.scatter(
                chosen[:, 1],
                chosen[:, 0],
                marker="s",
                s=30,
                facecolors="none",
                edgecolors="tab:cyan",
            )
            caption = f"{caption}\n{len(chosen)} heads > {tau:g}"
        axis.set_title(caption, fontsize=9)
        axis.set_xlabel("head")
        axis.set_xticks(_ticks(heads))
        axis.set_yticks(_ticks(layers))
    axes[0].set_ylabel("layer")
    figure.colorbar(axes[-1].images[0], ax=list(axes), label="score", shrink=0.8)
    figure.suptitle(title, fontsize=10)
    return figure


def histograms(cards: Mapping[str, Mapping[str, Any]], *, title: str) -> Figure:
    """Prompt tokens and needle depths of every split, from their data cards.

    Args:
        cards: split -> its card, with `token_histogram` and `depth`.
        title: above all of them.
    """
    figure = Figure(figsize=(3.4 * len(cards) + 0.6, 4.6), layout="constrained")
    axes = figure.subplots(2, len(cards), squeeze=False)
    for column, (name, card) in enumerate(cards.items()):
        edges, counts = card["token_histogram"]["edges"], card["token_histogram"]["counts"]
        widths = np.maximum(np.diff(edges), 1)
        axes[0][column].bar(edges[:-1], counts, width=widths, align="edge", color="tab:blue")
        axes[0][column].set_title(f"{name}: {card['num_examples']:,} examples", fontsize=9)
        axes[0][column].set_xlabel("prompt tokens")
        depths = card["depth"]["histogram"]
        axes[1][column].bar(
            np.arange(len(depths)) / len(depths),
            depths,
            width=1 / len(depths),
            align="edge",
            color="tab:orange",
        )
        axes[1][column].set_xlim(0, 1)
        axes[1][column].set_xlabel("depth of the first evidence token")
    for row in axes:
        row[0].set_ylabel("examples")
    figure.suptitle(title, fontsize=10)
    return figure


def _ticks(count: int) -> list[int]:
    step = max(1, -(-count // 12))
    return list(range(0, count, step))


def save_png(figure: Figure, file: Path) -> None:
    """Write a PNG, folder included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
