"""AdamW and its schedule: linear warm-up, then cosine to zero."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from sce.errors import InputError
from sce.options import OptimizerOptions


def adamw(
    parameters: Sequence[nn.Parameter], options: OptimizerOptions, num_steps: int
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """The optimiser of `parameters`, and the schedule of a run of `num_steps` optimiser steps."""
    optimizer = torch.optim.AdamW(
        parameters,
        lr=options.lr,
        betas=(options.betas[0], options.betas[1]),
        eps=options.eps,
        weight_decay=options.weight_decay,
    )

    def factor(step: int) -> float:
        if step < options.warmup_steps:
            return (step + 1) / (options.warmup_steps + 1)
        done = (step - options.warmup_steps) / max(1, num_steps - options.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return optimizer, LambdaLR(optimizer, factor)


def take_up(schedule: LambdaLR) -> None:
    """Set the learning rates of a schedule's step; those of a checkpoint are of the run it is of.

    That may have been planned for fewer steps, and have ended at 0.
    """
    groups = schedule.optimizer.param_groups
    for group, base, factor in zip(groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = base * factor(schedule.last_epoch)


def require_finite(loss: float, norm: float, step: int) -> None:
    """Stop before a step that would make all weights NaN, and the next checkpoint with them.

    Args:
        loss: of the step, over all ranks.
        norm: of its gradients, before clipping, over all ranks.
        step: counted from 1.

    Raises:
        InputError: one of them is not finite.
    """
    if not math.isfinite(loss):
        raise InputError(
            f"the training loss is {loss} at step {step}: it has diverged; start anew with a lower "
            "optimizer.lr or more optimizer.warmup_steps"
        )
    if not math.isfinite(norm):
        raise InputError(
            f"the gradients' norm is {norm} at step {step}, though the loss is {loss:.3g}: the "
            "step was not taken; go on from the last checkpoint by resume=true, or, if it comes "
            "again, start anew with a lower optimizer.lr or model.dtype=float32"
        )
