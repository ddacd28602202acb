"""Figures that callbacks and analysis share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D

from sce.stats import Curves, head_set


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
            chosen = np.argwhere(head_set(scores, tau))
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


def overlap_matrix(
    labels: Sequence[str],
    cells: Mapping[tuple[str, str], tuple[float | None, float | None, float | None]],
    *,
    title: str,
) -> Figure:
    """A square of shares, every set as the run (rows) against every other as reference (columns).

    Args:
        labels: of the sets, top to bottom and left to right.
        cells: (run, reference) -> share in 0..1 and its interval; None where there is none.
        title: above the square.
    """
    side = 1.6 + 0.95 * len(labels)
    figure = Figure(figsize=(max(side, 3.6), side + 0.4), layout="constrained")
    axis = figure.subplots()
    values = np.full((len(labels), len(labels)), np.nan)
    for (run, reference), (share, low, high) in cells.items():
        row, column = labels.index(run), labels.index(reference)
        values[row, column] = np.nan if share is None else share
        text = "-" if share is None else f"{share:.2f}"
        if low is not None and high is not None:
            text += f"\n[{low:.2f}, {high:.2f}]"
        colour = "white" if share is not None and share > 0.55 else "black"
        axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axis.imshow(values, cmap="Blues", vmin=0, vmax=1)
    axis.set_facecolor("0.93")  # a set beside itself, and what does not exist
    for set_ticks, set_label, name in (
        (axis.set_xticks, axis.set_xlabel, "reference"),
        (axis.set_yticks, axis.set_ylabel, "run"),
    ):
        set_ticks(range(len(labels)), labels)
        set_label(name)
    axis.set_title(title, fontsize=9)
    return figure


def recall_over_k(panels: Mapping[str, Mapping[str, Curves]]) -> Figure:
    """Recall of a reference's k best heads over k, and what chance gives, a panel a reference.

    Args:
        panels: reference -> run -> its curves. A run has one colour, its n in the legend, and a
            band around either line where the curves have bounds.
    """
    runs = {run: curves.n for lines in panels.values() for run, curves in lines.items()}
    names = sorted(runs, key=lambda run: (len(run), run))
    columns = min(len(panels), 3) if len(panels) != 4 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.3 * columns, 1.1 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, (reference, lines) in zip(axes.flat, panels.items(), strict=False):
        for run, curves in lines.items():
            colour = f"C{names.index(run) % 10}"
            _line(axis, curves, "recall", {"fmt": "o-", "color": colour, "linewidth": 1.2})
            null = {"fmt": "--", "color": colour, "linewidth": 0.9}
            _line(axis, curves, "recall_null_layer", null)
        axis.set_title(f"reference {reference}", fontsize=9)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_ylim(-0.03, 1.03)
    for number, axis in enumerate(axes.flat):
        axis.set_visible(number < len(panels))
        if number + columns >= len(panels):
            axis.set_xlabel("k", fontsize=9)
            axis.tick_params(labelbottom=True)
    marks = [Line2D([], [], color=f"C{n % 10}", marker="o", markersize=3) for n in range(len(runs))]
    chance = Line2D([], [], color="0.4", linestyle="--")
    said = [f"run {run}, n = {'unknown' if runs[run] is None else runs[run]}" for run in names]
    labels = [*said, "null, layers kept"]
    figure.legend([*marks, chance], labels, fontsize=8, ncols=3, loc="outside lower center")
    figure.supylabel("recall", fontsize=9)
    bands = any(axis.collections for axis in axes.flat)
    title = "recall of the k best heads" + ("; bands: 95% over n examples" if bands else "")
    figure.suptitle(title, fontsize=9)
    return figure


def _line(axis: Axes, curves: Curves, name: str, style: Mapping[str, Any]) -> None:
    """A measure over k, None left out, with its band where it has one."""
    value, low, high = (
        np.array(curves.by_k[each], dtype=float) for each in (name, f"{name}_low", f"{name}_high")
    )
    options = {key: each for key, each in style.items() if key != "fmt"}
    axis.plot(curves.ks, value, style["fmt"], markersize=3, **options)
    if np.isfinite(low).any():
        alpha = 0.18 if style["fmt"] == "o-" else 0.08
        axis.fill_between(curves.ks, low, high, color=style["color"], alpha=alpha, linewidth=0)


def _ticks(count: int) -> list[int]:
    step = max(1, -(-count // 12))
    return list(range(0, count, step))


def save_png(figure: Figure, file: Path) -> None:
    """Write a PNG, folder included."""
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def save_montage(rows: Sequence[Sequence[Figure]], file: Path) -> None:
    """Write a PNG of figures in rows, on white, folder included."""
    bands = []
    for row in rows:
        images = [_pixels(figure) for figure in row]
        height = max(image.shape[0] for image in images)
        bands.append(np.concatenate([_padded(i, height, i.shape[1]) for i in images], axis=1))
    width = max(band.shape[1] for band in bands)
    file.parent.mkdir(parents=True, exist_ok=True)
    imsave(file, np.concatenate([_padded(b, b.shape[0], width) for b in bands]))


def _pixels(figure: Figure) -> np.ndarray:
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def _padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image of [rows, columns, 4] in the middle of a white one."""
    room = [height - image.shape[0], width - image.shape[1]]
    around = [(each // 2, each - each // 2) for each in room]
    return np.pad(image, [*around, (0, 0)], constant_values=255)
