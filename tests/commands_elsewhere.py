"""Trains, scores and intervenes on a tiny model, on the CPU and on the device of `other_device`.

A program of its own, since a device once there does not go away:

    python commands_elsewhere.py MODEL      writes into ./cpu and ./elsewhere
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy

from other_device import DEVICE, computed, other_device
from runs import configured, run_score, run_train
from sce import assemble
from sce.intervene import intervene
from sce.intervene_options import InterveneConfig
from sce.interventions import baselines, command
from sce.model.source import find
from sce.options import ModelOptions
from sce.records import HeadScores

TRAIN = ("logger=csv", "data.concept=real", "seed=3", "optimizer.lr=0.01", "scorer.k=3")
ASK = ("data.num_val=4", "data.num_reference=4", "max_new_tokens=3", "batch.eval=3")
ASK = (*ASK, "model.dtype=float32", "data.num_documents=2", "logger=none")


class _Accelerator(CPUAccelerator):
    """The CPU's, but for what it takes tensors to."""

    def setup_device(self, device: torch.device) -> None:
        assert device == DEVICE


class _Trainer(L.Trainer):
    def __init__(self, **options) -> None:
        strategy = SingleDeviceStrategy(DEVICE, accelerator=_Accelerator())
        super().__init__(**options | {"accelerator": "auto", "strategy": strategy})


def commands(model: str) -> Iterator[str]:
    """All of them, one after the other, in the working directory; gives the name of each done."""

    def meddle(method: str, *overrides: str) -> None:
        given = (*ASK, f"method={method}", f"model.name_or_path={model}", f"out={method}")
        intervene(configured("intervene", InterveneConfig, [*given, *overrides]))

    folder = Path(model)
    run_train(folder, *TRAIN, "run_dir=run", "trainer.max_steps=3", "save_every=3")
    yield "train"
    run_train(folder, *TRAIN, "run_dir=run", "trainer.max_steps=4", "resume=true")
    yield "resume"
    several = ("data.questions_per_context=2", "model.activation_checkpointing=selective")
    several = (*several, "model.offload_activations=true", "trainer.max_steps=2")
    run_train(folder, *TRAIN, *several, "run_dir=several")
    yield "shared contexts"
    run_train(folder, *TRAIN, "lora=none", "run_dir=full", "trainer.max_steps=2")
    yield "full tuning"
    Path("scores").mkdir()
    run_score(folder, "adapter=run/adapter", "out=scores/", "audit=audit.jsonl")
    yield "score"
    knockout = ("heads.list=[0-1,2-3]", "closed_book=null", "ablation=mean", "positions=all")
    meddle("knockout", "adapter=run/adapter", *knockout, "num_controls=1")
    yield "knockout"
    weights = find(ModelOptions(name_or_path=model)).sha256
    for name, heads in (("source", [1, 6, 11]), ("target", [1, 5])):
        given = np.zeros((3, 4))
        given.flat[heads] = 0.5
        found = HeadScores("copy", "teacher_forced", "exact", given, 4)
        replace(found, provenance={"weights_sha256": weights}).save(Path(f"{name}.json"))
    scores = ("source_scores=source.json", "target_scores=target.json")
    adapters = ("source=run/adapter", "target=several/adapter", "direction=both")
    meddle("patch", *adapters, *scores, "num_controls=1")
    yield "patch"
    meddle("baselines", "adapter=run/adapter")
    yield "baselines"


def check_that_devices_do_not_mix() -> None:
    """What the other device is for."""
    there, here = torch.ones(3, device=DEVICE), torch.ones(3)
    assert (there + there[torch.tensor([0, 0, 0])]).tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="to be on the same device"):
        _ = there + here
    with pytest.raises(RuntimeError, match="to be on the same device"):
        _ = here[torch.tensor([0], device=DEVICE)]
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()


def main(model: str) -> None:
    torch.set_num_threads(1)
    folder = Path.cwd()
    for place in ("cpu", "elsewhere"):
        (folder / place).mkdir()
    os.chdir(folder / "cpu")
    for _ in commands(model):
        assert not computed
    os.chdir(folder / "elsewhere")
    L.Trainer = _Trainer
    patch = pytest.MonkeyPatch()
    for module in (assemble, command, baselines):
        patch.setattr(module, "best_device", lambda: DEVICE)
    with other_device():
        check_that_devices_do_not_mix()
        computed.clear()
        for name in commands(model):
            assert computed["mm"] + computed["bmm"] + computed["matmul"] + computed["linear"], name
            computed.clear()


if __name__ == "__main__":
    main(sys.argv[1])
