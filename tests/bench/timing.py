"""Seconds, ratios of two runs side by side, and how something grows."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


def seconds(run: Callable[[], object]) -> float:
    """How long a run takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Paired:
    """Two runs compared round by round."""

    ratio: float
    """Median of on / off."""
    low: float
    high: float
    """Quartiles of on / off: half of the rounds lie between."""
    on_s: float
    off_s: float
    """Median seconds of each."""
    rounds: int


def paired(rounds: int, on: Callable[[], object], off: Callable[[], object]) -> Paired:
    """Median of on / off over rounds, its quartiles, and the median seconds of both.

    Each round runs one right after the other, in turns first and second, so that neither a slow
    spell nor the order favours one. One round more, the first, warms up. At least two rounds.
    """
    found: list[dict[str, float]] = []
    for turn in range(rounds + 1):
        runs = {"on": on, "off": off} if turn % 2 else {"off": off, "on": on}
        found.append({name: seconds(run) for name, run in runs.items()})
    ratios = [pair["on"] / pair["off"] for pair in found[1:]]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Paired(
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        on_s=statistics.median(pair["on"] for pair in found[1:]),
        off_s=statistics.median(pair["off"] for pair in found[1:]),
        rounds=rounds,
    )


@dataclass(frozen=True)
class Exponent:
    """y grows as x to the power of `exponent`."""

    exponent: float
    low: float | None
    high: float | None
    """95% interval of the least-squares slope (Student's t); None with two points."""


def growth(x: Sequence[float], y: Sequence[float]) -> Exponent | None:
    """Least squares of log y over log x; None where fewer than two points, or one is not > 0."""
    from scipy import stats

    if len(x) < 2 or min(*x, *y) <= 0:
        return None
    fit: Any = stats.linregress([math.log(v) for v in x], [math.log(v) for v in y])
    if len(x) == 2:
        return Exponent(float(fit.slope), None, None)
    reach = float(stats.t.ppf(0.975, len(x) - 2)) * float(fit.stderr)
    return Exponent(float(fit.slope), float(fit.slope) - reach, float(fit.slope) + reach)
