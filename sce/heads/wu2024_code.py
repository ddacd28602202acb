"""`wu2024_code`: what the code that Wu et al. released counts, for comparison with their files.

    score(h) = |{t < 50 : j*_t(h) in k and token(j*_t(h)) = y_t}| / |k|

Steps are counted, not positions, so a token copied twice counts twice and a score may exceed 1. The
model answers by itself; decoding stops after a line.

Two things are not theirs: k is the evidence E, the whole needle, where their code takes the clause
of it that answers (`real_needle`) for the hits and for the length; and decoding stops at the end of
the assistant's turn, which their prompts do not have. Scores in their files are larger for it.

An example is kept only if the answer's ROUGE-1 recall, stemmed, exceeds 50%: where it is not, there
is no score (NaN), and means are over the kept examples alone.

nightdessert/Retrieval_Head, retrieval_head_detection.py (Wu et al. 2024, arXiv 2404.15574).
"""

import torch
from jaxtyping import Float
from rouge_score import rouge_scorer
from torch import Tensor

from sce.heads.trace import GREEDY, Spec, Trace

MAX_STEPS = 50
MIN_RECALL = 0.5
SPEC = Spec(tau=0.1, modes=(GREEDY,), tasks=("needle",))
_rouge = rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True)


def score(trace: Trace) -> Float[Tensor, "layers heads"]:
    """Copying steps over evidence tokens, 0 or more; NaN where not kept."""
    steps = _steps(trace.pieces)
    assert trace.text is not None
    response = trace.text(steps).strip()
    recall = max(_rouge.score(answer, response)["rouge1"].recall for answer in trace.answers)
    if recall <= MIN_RECALL:
        return torch.full(trace.looked_at.shape[:2], float("nan"), dtype=torch.float64)
    return trace.copied[..., :steps].sum(dim=-1).double() / max(1, trace.evidence.numel())


def _steps(pieces: tuple[str, ...]) -> int:
    """Steps up to the first that ends a line, itself included, 50 at most."""
    ends = (step for step, piece in enumerate(pieces[:MAX_STEPS], start=1) if "\n" in piece)
    return next(ends, min(MAX_STEPS, len(pieces)))
