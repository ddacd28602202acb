"""What the intervals and p values of correlations over settings are worth, by simulation.

    python tests/bench/correlations.py [--small] [--json OUT]

20 settings of two seeds. *Noise*: standard deviation of a seed about its setting's mean, that of
the means being 1, in both measures. An interval should hold in 95 of 100 studies the rho that
settings would have by their means over two seeds (*seen*); whether it also holds that of means
without noise (*true*) is asked beside. *Families*: six, of settings that share that much of their
variance in x and in y, which are independent; 5% of p values should be below 0.05. `error`: of a
share near 5%, standard.
"""

import argparse
from typing import Any

import machine
import numpy as np
from scipy.stats import spearmanr

from sce.stats.scrutiny import by_family
from sce.stats.settings import correlate_settings, rho_of_settings

SETTINGS = [f"s{i:02}" for i in range(20)]
FAMILIES = np.repeat(np.arange(6), (5, 4, 3, 3, 2, 3))
RHOS, NOISES = (0.0, 0.4, 0.8), (0.0, 0.5, 1.0)
SHARED = ((0.0, 0.0), (0.35, 0.9), (0.7, 0.9), (0.95, 0.9))


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Both tables."""
    num = 20 if options.small else 1000
    covered = [_covered(rho, noise, num) for rho in RHOS for noise in NOISES]
    machine.print_table("intervals", covered, list(covered[0]))
    levels = [_levels(*shared, num) for shared in SHARED]
    machine.print_table("p values below 0.05", levels, list(levels[0]))
    return {"rows": [*covered, *levels], "aims": []}


def _latent(rng: np.random.Generator, rho: float, size: int) -> np.ndarray:
    return rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size).T


def _covered(rho: float, noise: float, num: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    many = _latent(rng, rho, 200_000)
    truth = float(spearmanr(*many)[0])
    seen = float(spearmanr(*(many + noise / 2**0.5 * rng.normal(size=many.shape)))[0])
    hits, widths = np.zeros(2), []
    for study in range(num):
        runs = np.repeat(_latent(rng, rho, 20), 2, axis=1)
        x, y = runs + noise * rng.normal(size=runs.shape)
        found = rho_of_settings(x, y, np.repeat(SETTINGS, 2), seed=study, num_resamples=1000)
        assert found.low is not None and found.high is not None
        hits += [found.low <= value <= found.high for value in (seen, truth)]
        widths.append(found.high - found.low)
    return {
        "true rho": round(truth, 2),
        "noise": noise,
        "seen": round(seen, 2),
        "holds seen": hits[0] / num,
        "holds true": hits[1] / num,
        "width": round(float(np.mean(widths)), 2),
    }


def _levels(shared_x: float, shared_y: float, num: int) -> dict[str, Any]:
    """How often independent measures whose families differ are found to go together."""
    rng = np.random.default_rng(1)
    hits = np.zeros(3)
    for study in range(num):
        x, y = (
            share**0.5 * rng.normal(size=6)[FAMILIES] + (1 - share) ** 0.5 * rng.normal(size=20)
            for share in (shared_x, shared_y)
        )
        plain = correlate_settings(
            x, y, SETTINGS, seed=study, num_resamples=2, num_permutations=2000
        )
        parts = by_family(x, y, SETTINGS, FAMILIES, seed=study)
        assert parts is not None
        each = plain, parts.between, parts.within
        hits += [found.p_value is not None and found.p_value < 0.05 for found in each]
    names = "settings exchanged", "between families", "within families"
    found = dict(zip(names, (hits / num).tolist(), strict=True))
    error = round((0.05 * 0.95 / num) ** 0.5, 3)
    return {"shared x": shared_x, "shared y": shared_y, **found, "error": error}


if __name__ == "__main__":
    machine.run(__doc__ or "", bench)
