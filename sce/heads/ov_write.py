"""`ov_write`: what a head writes towards the answer from the evidence, less what from elsewhere.

    phi_t(j) = a_t^h(j) u(y_t)^T W_O^h v_j
    score(h) = 1/T sum_t [ sum_{j in E} phi_t(j) - |E| / |not E| sum_{j not in E} phi_t(j) ]

u(y) is the unembedding (the row of lm_head) of token y, W_O^h the head's part of the output
projection, v_j the value at position j. Norms between the head and the unembedding are left out,
so a score is no share of the logit: it is compared with other heads' only. Finds heads that
retrieve without copying letter by letter; 0 for an empty answer.

LOCOS (Gema, Alex and Minervini, arXiv 2607.01002), with the gold answer in place of a filter for
right answers.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sce.heads.trace import TEACHER_FORCED, Spec, Trace

SPEC = Spec(tau=1.0, modes=(TEACHER_FORCED,), writes=True)


def score(trace: Trace) -> Float[Tensor, "layers heads"]:
    """Mean contrast over the answer's tokens, in units of the unnormed logit, of either sign."""
    assert trace.written is not None
    if trace.emitted.numel() == 0:
        return torch.zeros(trace.written.shape[:2], dtype=torch.float64)
    return trace.written.double().mean(dim=-1)
