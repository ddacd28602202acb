"""`copy`: the share of answer tokens that a head copies from the evidence.

    score(h) = |{t : j*_t(h) in E and token(j*_t(h)) = y_t}| / T

Wu et al. 2024 (arXiv 2404.15574, section 2) divide by the needle's tokens because their answer *is*
the needle; with k = the answer's tokens this is the same formula. 0 for an empty answer.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sce.heads.trace import GREEDY, TEACHER_FORCED, Spec, Trace

SPEC = Spec(tau=0.1, modes=(TEACHER_FORCED, GREEDY))


def score(trace: Trace) -> Float[Tensor, "layers heads"]:
    """Share of the T answer tokens copied, 0..1."""
    if trace.emitted.numel() == 0:
        return torch.zeros(trace.looked_at.shape[:2], dtype=torch.float64)
    return trace.copied.double().mean(dim=-1)
