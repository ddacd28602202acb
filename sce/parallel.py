"""Sharded training: FSDP2, where the model's own layers are the units and one file is saved.

Every rank holds a part of each weight and gathers a layer when it is its turn. The base may be of
another type than the adapter (bfloat16 and float32): nothing is cast on the way.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from sce.errors import InputError
from sce.model.build import base_of

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others."""


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all devices of all nodes; checkpoints are one file that any strategy can read."""

    def __init__(self) -> None:
        super().__init__(save_distributed_checkpoint=False, timeout=TIMEOUT)

    def setup_environment(self) -> None:
        """Data parallel over every process; Lightning's own default is tensor parallel."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The trained parts, whole, on rank 0; the frozen base is never gathered for a file."""
        assert self.model is not None
        return trained_state(self.model)


def shared_run_dir(trainer: Trainer, own: Path, *, begins: bool) -> Path:
    """Rank 0's folder for a run; a collective.

    Args:
        trainer: whose ranks take part.
        own: this rank's idea of the folder.
        begins: whether the run begins, or goes on: all ranks must see one checkpoint there, or
            none, for else some would load it while the others do not, and all would wait.

    Raises:
        InputError: they do not; on all ranks.
    """
    run_dir = Path(trainer.strategy.broadcast(str(own)))
    if not begins or trainer.world_size == 1:
        return run_dir
    seen: list[int | None] = [None] * trainer.world_size
    dist.all_gather_object(seen, _step_of(run_dir / "checkpoints" / "last.ckpt"))
    others = [str(rank) for rank, step in enumerate(seen) if step != seen[0]]
    if others:
        raise InputError(
            f"rank 0 goes on from {_told(seen[0])}, but rank {', '.join(others)} sees "
            f"{_told(seen[int(others[0])])} in {run_dir}; it has to lie on a file system that all "
            "machines share"
        )
    return run_dir


def _step_of(checkpoint: Path) -> int | None:
    """The step it was saved at; None where there is none."""
    if not checkpoint.is_file():
        return None
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return int(saved["global_step"])


def _told(step: int | None) -> str:
    return "no checkpoint" if step is None else f"the checkpoint of step {step}"


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard every decoder layer by itself, and the causal LM around them, over a mesh.

    Args:
        model: a causal LM, with or without an adapter; in place.
        mesh: of one dimension.

    Raises:
        ValueError: no list of layers as long as the config says.
    """
    base = base_of(model)
    number = base.config.get_text_config().num_hidden_layers
    lists = [m for m in base.modules() if isinstance(m, nn.ModuleList) and len(m) == number]
    if not lists:
        raise ValueError(f"{type(base).__name__} has no list of {number} layers to shard")
    for layer in lists[0]:
        fully_shard(layer, mesh=mesh)
    # Not the adapter around it, which calls the base model by other ways than its own forward.
    fully_shard(base, mesh=mesh)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Hold every weight whole on every rank for a while, sharded before and after.

    Decoding then costs no gathering at every token, and ranks need not make the same number of
    passes. Without sharded layers nothing changes. Takes the memory of the whole model's weights.
    """
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            # The root stays gathered between forward and backward, as torch has it.
            unit.set_reshard_after_forward(unit is not units[0], recurse=False)


def require_launched(devices: int, num_nodes: int) -> None:
    """See that as many processes were started as the run is to have, where others start them.

    Raises:
        InputError: torchrun or srun started another number.
    """
    launched, wanted = _num_launched(), devices * num_nodes
    if launched not in (None, wanted):
        raise InputError(
            f"{launched} processes were started, but trainer.devices={devices} x "
            f"trainer.num_nodes={num_nodes} makes {wanted}; say how many there are (conf/launch)"
        )


def _num_launched() -> int | None:
    """Processes that torchrun or srun started; None where Lightning is to start them itself."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    inside = "SLURM_PROCID" in os.environ and "SLURM_NTASKS" in os.environ
    # Of an interactive shell Lightning makes nothing either.
    if inside and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ["SLURM_NTASKS"])
    return None


def trained_state(model: nn.Module) -> dict[str, Any]:
    """The trained weights by name, whole and on the CPU; a collective, under FSDP rank 0's alone.

    With FSDP every rank has to call it, and others than rank 0 get nothing.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=options)


def total_norm(gradients: list[Tensor]) -> float:
    """The norm of all gradients together, sharded ones too; every rank has to call it."""
    norm = nn.utils.get_total_norm(gradients)
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    return float(whole)
