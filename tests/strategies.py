"""The same training by one process, DDP and FSDP2 over gloo ranks, and what it left."""

import csv
import os
import signal

import pytest
import torch

from ranks import run_ranks
from runs import run_train
from sce.errors import StoppedBySignal
from sce.module import SceModule
from sce.records import read_jsonl

# Answers of unequal length, and five reference examples in batches of eight: one rank has none.
# With AdamW's own eps a gradient of nothing but rounding would make a whole step.
SHARED = ("logger=csv", "optimizer.lr=0.01", "optimizer.eps=1e-4", "data.concept=real")
# A norm that every step is clipped to: clipping by shards, or before normalising, would show.
SHARED = (*SHARED, "batch.eval=8", "seed=3", "trainer.gradient_clip_val=0.05")
TWO = ("trainer.devices=2", "trainer.accelerator=cpu", "batch.train=2")
TWO = (*TWO, "trainer.accumulate_grad_batches=1")
STRATEGIES = {
    "one": ("batch.train=2", "trainer.accumulate_grad_batches=2"),
    "ddp": (*TWO, "trainer.strategy=ddp"),
    "fsdp": (*TWO, "trainer.strategy=fsdp"),
    "three": (*TWO, "trainer.devices=3", "trainer.strategy=fsdp"),
}
TOLERANCE = 1e-6
RANKS = {"one": 1, "ddp": 2, "fsdp": 2, "three": 3}


def trained(model, strategy: str, *overrides: str) -> None:
    options = (*SHARED, *STRATEGIES[strategy], *overrides)
    if strategy == "one":
        run_train(model, *options)
    else:
        run_ranks(lambda: run_train(model, *options), RANKS[strategy])


def stopped(model, strategy: str, step: int, run_dir: str, *more: str) -> None:
    """Train until the last rank, and it alone, is told to stop while it takes step `step`."""
    last = str(RANKS[strategy] - 1)
    take = SceModule.optimizer_step

    def interrupted(self, *args, **kwargs):
        take(self, *args, **kwargs)
        if self.global_step + 1 == step and os.environ.get("LOCAL_RANK", "0") == last:
            signal.raise_signal(signal.SIGTERM)

    def run():
        with pytest.raises(StoppedBySignal, match=f"stopped by SIGTERM at step {step}"):
            run_train(model, *SHARED, *STRATEGIES[strategy], *more, f"run_dir={run_dir}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceModule, "optimizer_step", interrupted)
        run() if strategy == "one" else run_ranks(run, RANKS[strategy])


def checkpoint(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def rows(run_dir):
    left_out = ("seconds", "time", "run", "warnings")
    found = read_jsonl(run_dir / "records.jsonl")
    return [{k: v for k, v in row.items() if k not in left_out} for row in found]


def column(run_dir, name):
    found = {}
    for file in sorted((run_dir / "csv").glob("version_*/metrics.csv")):
        with file.open() as stream:
            lines = [line for line in csv.DictReader(stream) if line.get(name)]
        assert len({line["step"] for line in lines}) == len(lines)
        found |= {int(line["step"]): float(line[name]) for line in lines}
    return found


def assert_same_training(one, other, *, exactly: bool = False) -> None:
    """Weights, moments and the last row; within float32's rounding unless exactly."""
    first, second = checkpoint(one), checkpoint(other)
    states = [first["state_dict"], second["state_dict"]]
    for name in first["optimizer_states"][0]["state"]:
        for moment in ("exp_avg", "exp_avg_sq"):
            for state, saved in zip(states, (first, second), strict=True):
                state[f"{name}.{moment}"] = saved["optimizer_states"][0]["state"][name][moment]
    assert states[0].keys() == states[1].keys()
    for name, weight in states[0].items():
        if exactly:
            assert torch.equal(weight, states[1][name]), name
        else:
            torch.testing.assert_close(weight, states[1][name], atol=TOLERANCE, rtol=1e-5)
