"""What a trainer of several devices does not take: one line, before any weight is loaded."""

import subprocess
import sys

import pytest
import torch

from conftest import ROOT
from runs import configured, run_train
from sce.commands import TrainConfig
from sce.errors import InputError
from sce.model import build
from sce.train import _require_one_device


@pytest.mark.parametrize(
    "overrides",
    [
        ("trainer=ddp",),  # devices: auto
        ("trainer=fsdp", "trainer.devices=2"),
        ("trainer.devices=[0,1]",),
        ("trainer.devices=1", "trainer.num_nodes=2"),
    ],
)
def test_a_sweep_over_several_devices_is_refused(overrides):
    with pytest.raises(InputError, match=r"a sweep takes one device a job; add trainer\.devices=1"):
        _require_one_device(configured("train", TrainConfig, list(overrides)))


@pytest.mark.parametrize("overrides", [(), ("trainer=gpu",), ("trainer=ddp", "trainer.devices=1")])
def test_a_sweep_over_one_device_is_not(overrides):
    _require_one_device(configured("train", TrainConfig, list(overrides)))


def test_the_command_refuses_such_a_sweep_in_one_line(tmp_path):
    line = ["--multirun", "seed=0,1", "trainer=ddp", "trainer.devices=2"]
    result = subprocess.run(
        [sys.executable, "-m", "sce.train", *line, f"hydra.sweep.dir={tmp_path}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("sce: --multirun with trainer.devices=2")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["quantization=nf4", "compile=true", "liger=true"])
def test_sharded_training_refuses_what_it_cannot_shard(option):
    name = option.split("=")[0]
    overrides = ["trainer=fsdp", f"model.{option}"]
    with pytest.raises(InputError, match=rf"model\.{name} does not go with trainer=fsdp"):
        configured("train", TrainConfig, overrides)
    configured("train", TrainConfig, ["trainer=ddp", overrides[1]])


def test_more_devices_than_there_are_is_one_line(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "load_model", pytest.fail)
    devices = f"trainer.devices={torch.cuda.device_count() + 1}"
    with pytest.raises(InputError, match="trainer: Lightning refuses these options: ") as error:
        run_train(tiny_folder, "trainer=gpu", devices, "trainer.max_steps=1")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
