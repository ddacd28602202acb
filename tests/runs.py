"""Runs the entry points in this process, on a tiny model and a few examples."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from sce.config import CONF, ScoreConfig, TrainConfig, typed
from sce.score import score
from sce.train import train

TINY = [
    "model.dtype=float32",
    "trainer.max_steps=4",
    "val_every=2",
    "data.num_train=12",
    "data.num_val=6",
    "data.num_reference=5",
    "data.num_documents=2",
    "max_new_tokens=4",
    "batch.eval=4",
    "reference=none",
    "logger=none",
]


def configured(name: str, schema, overrides: list[str], conf: Path = CONF):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return typed(compose(name, overrides), schema)


def run_train(model: Path, *overrides: str) -> Path:
    overrides = (*TINY, f"model.name_or_path={model}", *overrides)
    return train(configured("train", TrainConfig, list(overrides)), list(overrides))


def run_score(model: Path, *overrides: str) -> list[Path]:
    kept = [o for o in TINY if o.split("=")[0].split(".")[0] in ("model", "data", "max_new_tokens")]
    overrides = (*kept, "batch.eval=4", f"model.name_or_path={model}", *overrides)
    return score(configured("score", ScoreConfig, list(overrides)))


STUDY = """\
name: tiny
seeds: [0]
reference_seeds: [100, 101]
every: [{every}]
train: [trainer.max_steps=4, val_every=2, optimizer.lr=0.05, scorer.k=3, scorer.tau=0.001]
tasks:
  mdqa:
    every: [data.num_reference=40]  # with fewer no head of so small a model scores
    settings:
      high-high: [data.concept=high, data.context=high]
      symbolic: [data.concept=symbolic, data.context=symbolic]
interventions:
  every: []
  baselines: []
  looks: [data.num_reference=1]
  knockout: ["heads.k=[1,2]", num_controls=1, closed_book=null]
  patch: ["sets=[all]"]
"""


def study_options(folder: Path, model: Path) -> Path:
    """A folder for Hydra's search path with study=tiny in it."""
    kept = ("model", "data", "max_new_tokens", "batch")
    every = [o for o in TINY if o.split("=")[0].split(".")[0] in kept and "num_train" not in o]
    listed = ", ".join([*every, f"model.name_or_path={model}"])
    (folder / "study").mkdir()
    (folder / "study" / "tiny.yaml").write_text(STUDY.format(every=listed))
    return folder
