"""Figures that callbacks and analysis share."""

from collections.abc import Mapping
from pathlib import Path

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


def _ticks(count: int) -> list[int]:
    step = max(1, -(-count // 12))
    return list(range(0, count, step))


def save_png(figure: Figure, file: Path) -> None:
    """Write a PNG, folder included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
