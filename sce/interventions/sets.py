"""From what python -m sce.intervene is told to the sets of heads that it tries. Knows no torch."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sce.errors import InputError, NoHeads
from sce.intervene_options import KS, InterveneConfig
from sce.interventions.controls import HEADS, Condition, controls
from sce.interventions.select import (
    Heads,
    Shape,
    above,
    all_heads,
    check_scores,
    common,
    listed,
    only_source,
    top,
)
from sce.records import HeadScores

ALL, RANDOM, COMPLEMENT = "all", "random", "complement"


def read_scores(
    config: InterveneConfig, shape: Shape, weights_sha256: str
) -> dict[str, HeadScores]:
    """Every score file that the config names, by the name it has there.

    Raises:
        InputError: a file is none, or is of another model.
    """
    patching = [config.source_scores, config.target_scores, *_set_files(config)]
    names = config.heads.files if config.method == "knockout" else patching
    scores = {}
    for name in names:
        if name is not None:
            scores[name] = HeadScores.load(Path(name))
            check_scores(scores[name], name, shape, weights_sha256)
    return scores


def knocked_out(
    config: InterveneConfig, scores: Mapping[str, HeadScores], shape: Shape
) -> list[Condition]:
    """The sets that are ablated: a list, or of every file the best k or those above tau.

    Raises:
        InputError: a head or a size that the model does not have, or an empty set.
    """
    if config.heads.list:
        return [Condition("list", HEADS, listed(config.heads.list, shape))]
    chosen = []
    for file, of_file in scores.items():
        if config.heads.tau is not None:
            sets = [above(of_file, config.heads.tau, file)]
        else:
            # Asked for by nobody: sizes that this model is too small for are left out.
            scoring = int((of_file.scores > 0).sum())
            ks = config.heads.k or [k for k in KS if k <= scoring] or [1]
            sets = [top(of_file, k, file) for k in sorted(ks)]
        chosen += [Condition(_short(file, scores), HEADS, heads) for heads in sets]
    return chosen


def patched_sets(
    config: InterveneConfig, scores: Mapping[str, HeadScores], shape: Shape
) -> list[Condition]:
    """The sets that are patched; `random` are controls, see `with_controls`.

    The complement is left out where the target has all of the source's heads and other sets are
    asked for; `empty_warnings` says so.

    Raises:
        InputError: a set is empty, or a file's scorer has no threshold.
    """
    over = {file: above(s, _tau(config, s, file), file) for file, s in scores.items()}
    source, target = (over.get(str(f)) for f in (config.source_scores, config.target_scores))
    if source is not None and target is not None:
        _require_one_kind(scores[str(config.source_scores)], scores[str(config.target_scores)])
    chosen = []
    for name in config.sets:
        if name in over:
            chosen.append(Condition(_short(name, scores), HEADS, over[name]))
        elif name == ALL:
            chosen.append(Condition(name, HEADS, all_heads(shape)))
        elif name != RANDOM and source is not None and target is not None:
            if name == COMPLEMENT and source <= target and set(config.sets) - {name, RANDOM}:
                continue
            heads = (common if name == "intersection" else only_source)(source, target)
            chosen.append(Condition(name, HEADS, heads))
    return chosen


def _require_one_kind(source: HeadScores, target: HeadScores) -> None:
    for name in ("scorer", "mode", "match"):
        theirs, own = getattr(source, name), getattr(target, name)
        if theirs != own:
            raise InputError(
                f"source_scores have {name}={theirs} and target_scores {name}={own}, and such "
                "scores are never compared; score both alike"
            )


def with_controls(
    config: InterveneConfig,
    chosen: Sequence[Condition],
    shape: Shape,
    *,
    kinds: Sequence[str],
    headless: Heads,
) -> list[Condition]:
    """The sets, and random controls of each but `all`, of heads that are in none of the sets.

    Args:
        config: says how many, and the seed.
        chosen: the sets.
        shape: of the model.
        kinds: of controls.
        headless: cells of layers that have no heads; never drawn.

    Raises:
        NoHeads: too few heads are left to draw from; says which option leaves more.
    """
    sized = [c for c in chosen if c.name != ALL]
    avoid = headless.union(*(c.heads for c in sized))
    made = list(chosen)
    options = {"seed": config.seed, "num": config.num_controls, "kinds": kinds, "avoid": avoid}
    try:
        for condition in sized:
            made += controls(condition, shape, **options)
    except NoHeads as error:
        none = "num_controls=0" if config.method == "knockout" else "leave random out of sets="
        most = (shape[0] * shape[1] - len(headless)) // 2
        # The sets of several files together are never drawn from.
        at_most = f" ({most} heads at most)" if len({c.name for c in sized}) == 1 else ""
        text = str(error).removeprefix(NoHeads.PREFIX)
        raise NoHeads(f"{text}: {_fewer(config)}{at_most}, or {none} for no control") from None
    return made


def empty_warnings(config: InterveneConfig, conditions: Sequence[Condition]) -> list[str]:
    """A complement that was asked for and holds no head."""
    asked = config.method == "patch" and COMPLEMENT in config.sets
    if not asked or any(condition.name == COMPLEMENT for condition in conditions):
        return []
    return ["sets=complement is left out: the target has every head of source_scores (recall 1)"]


def moved_warnings(config: InterveneConfig, conditions: Sequence[Condition]) -> list[str]:
    """Layer-matched controls that hold heads of another layer: which layers lack how many."""
    lacking: dict[int, int] = {}
    moved = [c for c in conditions if c.moved]
    for condition in moved:
        for layer, count in Counter(home for home, _ in condition.moved).items():
            lacking[layer] = max(count, lacking.get(layer, 0))
    if not moved:
        return []
    named = ", ".join(f"layer {layer} ({lacking[layer]})" for layer in sorted(lacking))
    return [
        f"{len(moved)} layer-matched controls hold heads of neighbouring layers, since too few are "
        f"left beside those swept in {named} (in brackets: how many too few; results.json: "
        f"moved_layers); to keep controls in their layers: {_fewer(config)}"
    ]


def _fewer(config: InterveneConfig) -> str:
    """What to type for smaller sets: controls need as many heads again as are swept."""
    if config.heads.list:
        return "fewer heads in heads.list="
    if config.method == "patch" or config.heads.tau is not None:
        return "a higher heads.tau="
    return "smaller sizes in heads.k="


def _set_files(config: InterveneConfig) -> list[str]:
    return [name for name in config.sets if name.endswith((".json", ".json.gz"))]


def _short(file: str, files: Iterable[str]) -> str:
    """The file's name without folder and suffix, or all of it where two are alike."""
    stem = Path(file).name.partition(".json")[0]
    return stem if [Path(f).name.partition(".json")[0] for f in files].count(stem) == 1 else file


def _tau(config: InterveneConfig, scores: HeadScores, file: str) -> float:
    """The threshold for a file's heads, which belongs to its scorer."""
    if config.heads.tau is not None:
        return config.heads.tau
    if scores.scorer != config.scorer.name:
        raise InputError(
            f"{file}: scores of {scores.scorer}, whose threshold is not that of "
            f"scorer={config.scorer.name}; say scorer={scores.scorer}, or heads.tau="
        )
    return config.scorer.tau
