"""Writes run folders and studies as sce.train and sce.intervene leave them, without a model.

Heads come in three kinds: some retrieve before any tuning, some are learned from real data, the
rest score next to nothing. A synthetic setting of `quality` q learns the share q of the learned
ones, so its recall learned is about q; its F1 is what the study says.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sce.records import HeadScores

WEIGHTS = "a" * 64


@dataclass(frozen=True)
class World:
    """A model and its examples."""

    seed: int = 0
    layers: int = 12
    heads: int = 9
    examples: int = 16
    num_untuned: int = 8
    num_learned: int = 12
    num_own: int = 0
    """Heads that a run has and its reference has not."""
    weights: str = WEIGHTS
    scorer: str = "copy"
    task: str = "mdqa"
    per_example: bool = True
    tau: float = 0.1
    k: int = 20

    def maps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Untuned and learned scores, and in 0..1 which quality teaches a head: [layers, heads]."""
        rng = np.random.default_rng(self.seed)
        size = self.layers * self.heads
        later = size // 3 + rng.permutation(size - size // 3)
        untuned, learned, ease = np.zeros((3, size))
        own = later[: self.num_untuned]
        new = later[self.num_untuned : self.num_untuned + self.num_learned]
        untuned[own] = rng.uniform(0.25, 0.6, len(own))
        learned[new] = rng.uniform(0.2, 0.5, len(new))
        ease[new] = (np.arange(len(new)) + 0.5) / len(new)
        shape = self.layers, self.heads
        return untuned.reshape(shape), learned.reshape(shape), ease.reshape(shape)

    def scored(self, quality: float, seed: int) -> np.ndarray:
        """Scores of single examples, [examples, layers, heads]; quality 0 is the untuned model."""
        untuned, learned, ease = self.maps()
        mean = untuned + learned * (ease < quality) * (ease > 0)
        rng = np.random.default_rng(1000 + seed)
        noise = rng.uniform(0, 0.03, mean.shape)
        if quality:  # what a run learns by itself, and no reference has
            noise.ravel()[rng.choice(noise.size // 3, self.num_own, replace=False)] = 0.14
        # What is odd about an example is the same for all runs; the rest is the run's own.
        shape = self.examples, *mean.shape
        odd = np.random.default_rng(self.seed + 7).uniform(0.2, 1.8, shape)
        own = rng.uniform(0.8, 1.2, shape)
        return np.clip((mean + noise) * odd * own, 0, 1)


@dataclass(frozen=True)
class Tuned:
    """A run: what it was tuned on, and what came out."""

    quality: float
    f1: float
    concept: str = "high"
    context: str = "high"
    seed: int = 0
    mix: str | None = None
    num_train: int | None = 200
    nll: float | None = None
    steps: tuple[int, ...] = (0, 12, 24)

    @property
    def train_sha256(self) -> str:
        name = f"{self.mix}{self.concept}{self.context}{self.seed}{self.num_train}"
        return name.encode().hex().ljust(64, "0")[:64]


def write_run(folder: Path, world: World, run: Tuned) -> Path:
    """records.jsonl, heads/ and adapter/sce.json of one run."""
    (folder / "heads").mkdir(parents=True)
    (folder / "adapter").mkdir()
    lines = []
    for number, step in enumerate(run.steps):
        share = number / max(1, len(run.steps) - 1)
        rows = world.scored(share * run.quality, 0 if step == 0 else run.seed + 1)
        f1 = 0.1 + share * (run.f1 - 0.1)
        lines.append(json.dumps(_row(folder.name, world, run, step, f1)))
        _save(folder / "heads" / f"step-{step:06d}.json", world, run, step, rows)
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    own = {"train_sha256": run.train_sha256, "weights_sha256": world.weights, "seed": run.seed}
    (folder / "adapter" / "sce.json").write_text(json.dumps(own))
    return folder


def _row(name: str, world: World, run: Tuned, step: int, f1: float) -> dict:
    nll = 2.0 - f1 if run.nll is None else run.nll
    return {
        "run": name,
        "study": None,
        "seed": run.seed,
        "task": world.task,
        "concept": "mix" if run.mix else run.concept,
        "context": "mix" if run.mix else run.context,
        "mix": run.mix,
        "num_train": run.num_train,
        "train_sha256": run.train_sha256,
        "eval_sha256": "e" * 64,
        "scorer": world.scorer,
        "mode": "teacher_forced",
        "match": "exact",
        "tau": world.tau,
        "k": world.k,
        "context_tokens": 400,
        "step": step,
        "target_tokens": 7 * step,
        **dict.fromkeys(("recall", "cosine", "cosine_learned", "num_reference_heads")),
        "f1": f1,
        "f1_low": max(0.0, f1 - 0.05),
        "f1_high": min(1.0, f1 + 0.05),
        "exact_match": f1 / 2,
        "answer_nll": nll,
        "num_examples": 64,
        "num_kept_examples": world.examples,
        "warnings": [],
    }


def _save(file: Path, world: World, run: Tuned, step: int, rows: np.ndarray) -> None:
    tuned = {"seed": run.seed, "train_sha256": run.train_sha256, "step": step}
    origin = {
        "model": "a-model",
        "weights_sha256": world.weights,
        "data_sha256": f"data of {world.task}",
        "prompt_sha256": "p" * 64,
        "context_tokens": 400,
        "dtype": "float32",
        "step": step,
        **({"adapter": tuned} if step else {}),
    }
    one = rows if world.per_example else None
    mode, match = "teacher_forced", "exact"
    scores = rows.mean(axis=0)
    HeadScores(world.scorer, mode, match, scores, len(rows), one, origin).save(file)


def write_reference(file: Path, world: World, runs: list[tuple[Path, Tuned]]) -> Path:
    """The mean of runs, as sce.headset action=average writes it."""
    sets = [HeadScores.load(folder / "heads" / "step-000024.json") for folder, _ in runs]
    examples = [each.per_example for each in sets]
    origin = {name: value for name, value in sets[0].provenance.items() if name != "adapter"}
    origin["members"] = [
        {"adapter_sha256": f"adapter {run.seed}", "seed": run.seed, "concept": "real"}
        | {"train_sha256": run.train_sha256}
        for _, run in runs
    ]
    HeadScores(
        scorer=world.scorer,
        mode="teacher_forced",
        match="exact",
        scores=np.mean([each.scores for each in sets], axis=0),
        num_examples=world.examples,
        per_example=np.mean(examples, axis=0) if world.per_example else None,
        provenance=origin,
        base_scores=world.scored(0.0, 0).mean(axis=0),
        reliability={"tau": 0.1, "k": 20, "num_pairs": 2, "seed_against_seed": {"recall": 0.9}},
    ).save(file)
    return file


def settings(count: int) -> list[tuple[str, str]]:
    """Names of synthetic cells."""
    grid = [(a, b) for a in ("high", "low", "low_template", "low_entity") for b in ("real", "high")]
    grid += [("real", "high"), ("real", "low"), ("symbolic", "symbolic"), ("high", "low")]
    grid += [("low", "low"), ("low_template", "low"), ("low_entity", "low")]
    return grid[:count] + [(f"cell{i}", "high") for i in range(count - len(grid))]


@dataclass(frozen=True)
class Planted:
    """How a study's F1 follows from the share of heads learned."""

    num_settings: int = 12
    seeds: tuple[int, ...] = (0, 1)
    noise: float = 0.0
    follows: bool = True
    """False: F1 is drawn without regard to heads."""
    real_seeds: tuple[int, ...] = (100, 101)
    real_f1: float = 0.7
    steps: tuple[int, ...] = (0, 12, 24)
    """Of the checkpoints; the reference is made of those at 24."""


def write_runs(root: Path, world: World, planted: Planted) -> list[Path]:
    """Run folders of one task: synthetic settings of rising quality, and real seeds."""
    rng = np.random.default_rng(world.seed + 11)
    count = planted.num_settings
    qualities = rng.permutation((np.arange(count) + 0.5) / count)
    levels = qualities if planted.follows else rng.permutation(qualities)
    folders = []
    for (concept, context), quality, level in zip(settings(count), qualities, levels, strict=True):
        for seed in planted.seeds:
            f1 = float(np.clip(0.2 + 0.4 * level + planted.noise * rng.standard_normal(), 0, 1))
            run = Tuned(float(quality), f1, concept, context, seed, steps=planted.steps)
            name = f"{world.task}-{concept}-{context}-seed{seed}"
            folders.append(write_run(root / name, world, run))
    for seed in planted.real_seeds:
        run = Tuned(1.0, planted.real_f1, "real", "real", seed, steps=planted.steps)
        folders.append(write_run(root / f"{world.task}-real-real-seed{seed}", world, run))
    return folders


def write_knockout(file: Path, task: str = "mdqa") -> Path:
    """Results of python -m sce.intervene method=knockout, in short."""
    ks = [1, 5, 10]

    def curve(kind: str, drop: float) -> dict:
        f1 = [0.6 - drop * k for k in ks]
        sides = {"f1_low": [v - 0.05 for v in f1], "f1_high": [v + 0.05 for v in f1]}
        return {"name": "heads.json", "kind": kind, "k": ks, "n": 64, "f1": f1, **sides}

    curves = [curve("heads", 0.045), curve("layer_matched", 0.004)]
    rows = [_effect("no ablation", "none", 0, 0.6)]
    for each in curves:
        points = zip(ks, each["f1"], strict=True)
        rows += [_effect("heads.json", each["kind"], k, f1, draw=0) for k, f1 in points]
    content = {"schema": "sce.intervention/1", "method": "knockout", "task": task}
    return _write(file, {**content, "rows": rows, "curves": curves})


def write_patch(file: Path, task: str = "mdqa") -> Path:
    """Results of python -m sce.intervene method=patch, in short."""
    rows = [_effect("original", "none", 0, 0.4)]
    for name, f1 in (("intersection", 0.55), ("complement", 0.42)):
        rows.append(_effect(name, "heads", 8, f1, share=(f1 - 0.4) / 0.3))
        rows += [_effect(name, "layer_matched", 8, 0.4 + 0.02 * draw, draw) for draw in (0, 1)]
    rows.append(_effect("source", "source", 0, 0.7))
    worse = [{"name": "complement", "control": "layer_matched", "k": 8, "f1_difference": -0.01}]
    against = [{"name": "complement", "kind": "heads", "draw": None, "num": 3, "n": 64, "ids": []}]
    way = {"rows": rows, "worse_than_random": worse, "counter_examples": against}
    content = {"schema": "sce.intervention/1", "method": "patch", "task": task}
    return _write(file, {**content, "directions": {"forward": way}})


def write_baselines(file: Path) -> Path:
    """Accuracy under views of the documents."""
    views = {"full": 0.7, "gold_only": 0.8, "no_evidence": 0.15, "no_documents": 0.1}
    rows = [
        {"model": model, "view": view, "f1": f1 * by, "f1_low": f1 * by - 0.04, "n": 64}
        | {"f1_high": f1 * by + 0.04}
        for model, by in (("untuned", 0.3), ("tuned", 1.0))
        for view, f1 in views.items()
    ]
    return _write(file, {"schema": "sce.baselines/1", "rows": rows})


def write_study(root: Path, worlds: list[World], planted: Planted) -> Path:
    """A study's folder: runs of every task, its reference, baselines and interventions."""
    jobs = []
    for world in worlds:
        for folder in write_runs(root / "runs", world, planted):
            row = json.loads((folder / "records.jsonl").read_text().splitlines()[-1])
            setting = f"{row['concept']}/{row['context']}"
            kind = "real" if setting == "real/real" else "synthetic"
            own = {"name": folder.name, "task": world.task, "setting": setting, "kind": kind}
            jobs.append(own | {"seed": row["seed"], "folder": f"runs/{folder.name}"})
        real = [Tuned(1.0, 0.7, "real", "real", seed) for seed in planted.real_seeds]
        runs = [(root / "runs" / f"{world.task}-real-real-seed{r.seed}", r) for r in real]
        write_reference(root / "reference" / f"{world.task}.json", world, runs)
        write_baselines(root / "baselines" / world.task / "results.json")
        write_knockout(root / "knockout" / world.task / "results.json", world.task)
        cell = settings(1)[0]
        name = f"{world.task}-{cell[0]}-{cell[1]}-seed{planted.seeds[0]}"
        write_patch(root / "patch" / name / "results.json", world.task)
    jobs.append({**jobs[0], "name": "mdqa-baselines", "kind": "baselines", "folder": ""})
    _write(root / "study.json", {"schema": "sce.study/1", "name": "a-study", "jobs": jobs})
    return root


def _effect(
    name: str, kind: str, k: int, f1: float, draw: int | None = None, share: float | None = None
) -> dict:
    row = {"name": name, "kind": kind, "k": k, "draw": draw, "n": 64, "f1": f1}
    row |= {"f1_low": f1 - 0.05, "f1_high": f1 + 0.05}
    if kind != "none":
        row |= {"f1_change": f1 - 0.4, "f1_change_low": f1 - 0.45, "f1_change_high": f1 - 0.35}
        row |= {"f1_p": 0.01, "share": share, "gap": 0.3}
    return row


def _write(file: Path, content: dict) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file
