"""Accuracy over the number of ablated heads, the area under it, and a picture. Knows no torch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sce.interventions.controls import HEADS, LAYER_MATCHED, UNIFORM, Condition
from sce.interventions.effects import Answers, Row, answer_nll, estimate
from sce.interventions.select import NO_HEADS, Heads
from sce.stats import bootstrap_interval, faithfulness, faithfulness_interval


def curves(
    conditions: Sequence[Condition],
    answers: Mapping[Heads, Answers],
    known: Mapping[Heads, np.ndarray] | None,
    *,
    seed: int,
) -> list[Row]:
    """F1 and answer NLL over k for every name and kind, draws averaged example by example.

    `cpr` and `cmd` are the areas of sce.stats.faithfulness over k from 0, where nothing is ablated,
    to the largest, of F1: a set that retrieval hangs on has a low cpr and a high cmd. Intervals
    are over examples; `draws` holds every draw's own mean F1.
    """
    found = []
    for name in dict.fromkeys(c.name for c in conditions):
        for kind in (HEADS, LAYER_MATCHED, UNIFORM):
            own = [c for c in conditions if (c.name, c.kind) == (name, kind)]
            if own:
                ks = sorted({c.k for c in own})
                sets = [[c.heads for c in own if c.k == k] for k in ks]
                curve: Row = {"name": name, "kind": kind, "k": ks}
                found.append(curve | _curve(ks, sets, answers, known, seed=seed))
    return found


def _curve(
    ks: Sequence[int],
    sets: Sequence[Sequence[Heads]],
    answers: Mapping[Heads, Answers],
    known: Mapping[Heads, np.ndarray] | None,
    *,
    seed: int,
) -> Row:
    """One curve; `sets` holds the draws of each k."""
    before = answers[NO_HEADS]
    f1 = [np.mean([answers[heads].f1 for heads in drawn], axis=0) for drawn in sets]
    curve: Row = {"n": len(before.ids)} | _points("f1", f1, seed=seed)
    curve["draws"] = [[float(answers[heads].f1.mean()) for heads in drawn] for drawn in sets]
    nll = [np.mean([answers[heads].nll for heads in drawn], axis=0) for drawn in sets]
    curve |= _lists([answer_nll(values, before.num_labels, seed=seed) for values in nll])
    if known is not None:
        shares = [np.mean([known[heads] for heads in drawn], axis=0) for drawn in sets]
        curve |= _points("closed_book", shares, seed=seed) | {"closed_book_n": len(shares[0])}
    return curve | _areas([0, *ks], np.stack([before.f1, *f1]), seed=seed)


def _points(name: str, per_k: Sequence[np.ndarray], *, seed: int) -> Row:
    """Means over examples and intervals, a list over k each."""
    means = [float(values.mean()) if len(values) else None for values in per_k]
    intervals = [bootstrap_interval(values, seed=seed) for values in per_k]
    return _lists([estimate(name, *both) for both in zip(means, intervals, strict=True)])


def _lists(points: Sequence[Row]) -> Row:
    return {key: [point[key] for point in points] for key in points[0]}


def _areas(ks: Sequence[int], f1: np.ndarray, *, seed: int) -> Row:
    """CPR and CMD of F1 over k with intervals; `f1` is [k, examples], the baseline first."""
    whole = faithfulness(ks, f1.mean(axis=1), float(f1[0].mean()))
    intervals = faithfulness_interval(ks, f1, f1[0], seed=seed)
    areas: Row = {}
    for name in ("cpr", "cmd"):
        interval = intervals[name]
        areas |= {name: getattr(whole, name)}
        areas |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return areas


_STYLES = {HEADS: "o-", LAYER_MATCHED: "s--", UNIFORM: "^:"}
_SHARED = "0.35"
"""Colour of a control that several score files have in common."""


def knockout_figure(found: Sequence[Row], before: Row, *, title: str) -> Figure:
    """F1 over the number of ablated heads beside the controls', and what is known still.

    Args:
        found: of `curves`.
        before: the row without ablation.
        title: above all of it.
    """
    known = any(value is not None for c in found for value in c.get("closed_book", []))
    figure = Figure(figsize=(6.0 + 4.6 * known, 4.6), layout="constrained")
    axes = figure.subplots(1, 1 + known, squeeze=False)[0]
    _draw(axes[0], found, "f1", before)
    axes[0].set_ylabel("F1, mean and 95% interval over examples")
    axes[0].set_title(f"documents given (n = {before['n']})", fontsize=9)
    if known:
        _draw(axes[1], found, "closed_book", before)
        axes[1].set_ylim(-0.03, 1.03)
        axes[1].set_ylabel("share still answered right")
        title_of_known = f"no documents: known without ablation (n = {before['closed_book_n']})"
        axes[1].set_title(title_of_known, fontsize=9)
    figure.legend(handles=_legend(axes[0], found), loc="outside lower center", ncols=4, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def drawn_once(found: Sequence[Row]) -> list[tuple[Row, bool]]:
    """The curves to draw, and whether each stands for several score files.

    Files whose controls are the very same, as uniform ones of equal sizes are, share one line.
    """
    groups: dict[str, list[Row]] = {}
    for curve in found:
        rest = {key: value for key, value in curve.items() if key != "name"}
        same = repr(rest) if curve["kind"] != HEADS else curve["name"]
        groups.setdefault(same, []).append(curve)
    return [(group[0], len(group) > 1) for group in groups.values()]


def _draw(axis: Axes, found: Sequence[Row], name: str, before: Row) -> None:
    """One colour a score file, one line style a kind; every draw of a control is a dot.

    Sizes stand side by side in their order, evenly, so that the small ones do not crowd. Where
    there are several files their points and bars stand beside each other.
    """
    ks = sorted({0, *(k for curve in found for k in curve["k"])})
    names = list(dict.fromkeys(curve["name"] for curve in found))
    for curve, shared in drawn_once(found):
        colour = _SHARED if shared else f"C{names.index(curve['name']) % 10}"
        aside = 0.0 if shared else 0.07 * (names.index(curve["name"]) - (len(names) - 1) / 2)
        places = np.array([ks.index(k) + aside for k in (0, *curve["k"])])
        means, low, high = (
            np.array([before[n], *curve[n]], dtype=float)
            for n in (name, f"{name}_low", f"{name}_high")
        )
        strong = curve["kind"] == HEADS
        style = _STYLES[curve["kind"]]
        axis.plot(places, means, style, color=colour, alpha=1 if strong else 0.6, markersize=4)
        if len(names) == 1:
            axis.fill_between(places, low, high, color=colour, alpha=0.16 if strong else 0.06, lw=0)
        else:
            width, alpha = (1.2, 0.6) if strong else (0.7, 0.3)
            axis.vlines(places, low, high, color=colour, linewidth=width, alpha=alpha)
        if name == "f1" and not strong:
            for place, draws in zip(places[1:], curve["draws"], strict=True):
                axis.plot([place] * len(draws), draws, ".", color=colour, alpha=0.35, markersize=3)
    axis.set_xticks(range(len(ks)), [str(k) for k in ks])
    axis.set_ylim(bottom=-0.03)
    axis.set_xlabel("heads ablated (sizes evenly spaced)")


def _legend(axis: Axes, found: Sequence[Row]) -> list[Line2D]:
    """A colour for every score file, then a style for every kind."""
    names = list(dict.fromkeys(curve["name"] for curve in found))
    said = {HEADS: "heads", LAYER_MATCHED: "random, same layers", UNIFORM: "random"}
    made = []
    for number, name in enumerate(names):
        made += axis.plot([], [], color=f"C{number % 10}", linewidth=3, label=name)
    for kind, style in _STYLES.items():
        if any(curve["kind"] == kind for curve in found):
            made += axis.plot([], [], style, color=_SHARED, markersize=4, label=said[kind])
    return made
