"""AdamW and its schedule: linear warm-up, then cosine to zero."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

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
