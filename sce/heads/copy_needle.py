"""`copy_needle`: the share of the evidence's tokens that a head copies into the answer.

    score(h) = |g_h ∩ k| / |k|,  k = E,  g_h = {j*_t(h) : token(j*_t(h)) = y_t}

Wu et al. 2024 (arXiv 2404.15574, equation 1) as written: distinct positions, so it never exceeds 1
(their released code counts steps and can). Where the answer is a few words of a long sentence the
score is small by construction; compare it only with itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sce.heads.trace import GREEDY, TEACHER_FORCED, Spec, Trace

SPEC = Spec(tau=0.02, modes=(TEACHER_FORCED, GREEDY))


def score(trace: Trace) -> Float[Tensor, "layers heads"]:
    """Distinct evidence positions copied over evidence tokens, 0..1."""
    layers, heads, _ = trace.looked_at.shape
    count = trace.evidence.numel()
    # A slot more than there is evidence, for the steps that copied nothing.
    found = torch.searchsorted(trace.evidence, trace.looked_at.contiguous())
    slot = torch.where(trace.copied, found, count)
    hit = torch.zeros((layers, heads, count + 1), dtype=torch.float64)
    hit.scatter_(2, slot, 1.0)
    return hit[..., :-1].sum(dim=-1) / max(1, count)
