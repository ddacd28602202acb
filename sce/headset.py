"""python -m sce.headset: show head sets, and average some into a reference.

A reference is the mean of at least two models tuned on real data with different seeds, scored on
the same examples. What the seeds agree on is stored with it: no run can be expected to agree more.
"""

import logging
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from sce.commands import HeadsetConfig
from sce.config import CONF, register, typed
from sce.errors import InputError
from sce.one_line import one_line_errors, run

if TYPE_CHECKING:
    from sce.records import HeadScores

register()
_log = logging.getLogger("sce")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="headset")
@one_line_errors
def main(composed: DictConfig) -> None:
    """Show or average."""
    config = typed(composed, HeadsetConfig)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    from sce.records import HeadScores

    sets = [HeadScores.load(Path(name)) for name in config.files]
    if config.action == "show":
        for name, head_scores in zip(config.files, sets, strict=True):
            _log.info(summary(name, head_scores, config.tau, config.k))
        return
    assert config.out is not None
    for file in (Path(config.out), Path(config.out).with_suffix(".npz")):
        if file.exists():
            raise InputError(f"{file} exists; name another file or delete it")
    base = HeadScores.load(Path(config.base)) if config.base else None
    averaged = average(config.files, sets, base, tau=config.tau, k=config.k)
    averaged.save(Path(config.out))
    _log.info(summary(config.out, averaged, config.tau, config.k))


def average(
    names: list[str], sets: "list[HeadScores]", base: "HeadScores | None", *, tau: float, k: int
) -> "HeadScores":
    """The mean of head sets scored on the same examples, with what the sets agree on.

    Raises:
        InputError: they differ in model, data, prompt, scorer, mode, match or shape.
    """
    import numpy as np

    from sce.records import HeadScores

    first = sets[0]
    adapters = [s.provenance.get("adapter_sha256") for s in sets]
    if len(sets) < 2 or None in adapters or len(set(adapters)) < len(adapters):
        raise InputError(
            "an average is taken over at least two differently tuned models: name two or more "
            "files that sce.score wrote with different adapters"
        )
    for name, other in zip(names[1:], sets[1:], strict=True):
        _require_same(names[0], first, name, other)
    if base is not None:
        _require_same(names[0], first, "base", base)
    arrays = [s.per_example for s in sets if s.per_example is not None]
    per_example = np.mean(arrays, axis=0) if len(arrays) == len(sets) else None
    shared = (
        "model",
        "weights_sha256",
        "prompt_sha256",
        "data_sha256",
        "context_tokens",
        "dtype",
        "rope",
        "versions",
    )
    members = [
        {
            "adapter_sha256": s.provenance.get("adapter_sha256"),
            **(s.provenance.get("adapter") or {}),
        }
        for s in sets
    ]
    return HeadScores(
        scorer=first.scorer,
        mode=first.mode,
        match=first.match,
        scores=np.mean([s.scores for s in sets], axis=0),
        num_examples=first.num_examples,
        per_example=per_example,
        provenance={**{n: first.provenance.get(n) for n in shared}, "members": members},
        base_scores=None if base is None else base.scores,
        reliability=_reliability(sets, base, tau=tau, k=k),
    )


def _require_same(name: str, one: "HeadScores", other_name: str, other: "HeadScores") -> None:
    for what in ("scorer", "mode", "match", "shape", "num_examples"):
        if getattr(one, what) != getattr(other, what):
            raise InputError(
                f"{name} and {other_name} cannot be averaged: {what} {getattr(one, what)} and "
                f"{getattr(other, what)}"
            )
    for what in ("weights_sha256", "data_sha256", "prompt_sha256", "dtype", "rope"):
        if one.provenance.get(what) != other.provenance.get(what):
            raise InputError(f"{name} and {other_name} cannot be averaged: their {what} differs")


def _reliability(
    sets: "list[HeadScores]", base: "HeadScores | None", *, tau: float, k: int
) -> dict[str, Any]:
    """Every set against every other, as a run is compared with a reference: the ceiling."""
    from dataclasses import asdict

    from sce.stats import compare

    pairs = [
        asdict(
            compare(one.scores, other.scores, None if base is None else base.scores, tau=tau, k=k)
        )
        for a, b in combinations(sets, 2)
        for one, other in ((a, b), (b, a))
    ]
    if not pairs:
        return {}
    kept = (
        "recall",
        "precision",
        "jaccard",
        "recall_at_k",
        "recall_learned",
        "cosine",
        "cosine_learned",
    )
    means = {}
    for name in kept:
        values = [pair[name] for pair in pairs if pair[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return {"tau": tau, "k": k, "num_pairs": len(pairs), "seed_against_seed": means}


def summary(name: str, head_scores: "HeadScores", tau: float, k: int) -> str:
    """What a person wants to know of a head set at a glance."""
    import numpy as np

    scores = head_scores.scores
    layers, heads = head_scores.shape
    order = np.argsort(-scores, axis=None, kind="stable")[: min(k, 10)]
    top = ", ".join(f"{i // heads}-{i % heads} {scores.flat[i]:.3f}" for i in order)
    lines = [
        f"{name}: {head_scores.scorer}, {head_scores.mode}, {head_scores.match}, "
        f"{layers} layers x {heads} heads, n = {head_scores.num_examples} examples",
        f"  above {tau:g}: {int((scores > tau).sum())} of {scores.size} heads",
        f"  top (layer-head): {top}",
    ]
    agreed = head_scores.reliability.get("seed_against_seed")
    if agreed:
        shown = ", ".join(f"{n} {v:.3f}" for n, v in agreed.items() if v is not None)
        lines.append(f"  seed against seed at {head_scores.reliability['tau']:g}: {shown}")
    return "\n".join(lines)


def cli() -> None:
    """Console script."""
    run(main)


if __name__ == "__main__":
    cli()
