"""`insight`: the share of a citation's tokens at which a head looks at what the document says.

    score(h) = |{t in C : j*_t(h) in E_d(t)}| / |C|

C are the answer's tokens that are part of a document's label, d(t) is that document, E_d its
evidence: the sentences that state the insight. A citation of a document that is not to be cited is
a miss; an answer that cites nothing scores 0. The label itself is not in the evidence, so nothing
is copied: the head looks at why a document is cited while its number is written.

Ours, after the insight score that Zhao, Yin and Durrett (arXiv 2410.22316) report for Summary of a
Haystack; the wording of theirs is not known to us.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sce.data.encode import Encoded
from sce.errors import InputError
from sce.heads.trace import GREEDY, TEACHER_FORCED, Spec, Trace
from sce.metrics import cited_characters

SPEC = Spec(tau=0.1, modes=(TEACHER_FORCED, GREEDY), tasks=("summhay",))
NO_CITATION, WRONG_CITATION = -1, -2


def score(trace: Trace) -> Float[Tensor, "layers heads"]:
    """Share of the citation's tokens, 0..1."""
    if trace.cited is None:
        raise InputError("scorer=insight needs DecodeSettings.detokenize to read a greedy answer")
    citing = trace.cited != NO_CITATION
    if not citing.any():
        return torch.zeros(trace.looked_at.shape[:2], dtype=torch.float64)
    right = trace.in_evidence & (trace.span_looked_at == trace.cited)
    return right[..., citing].double().mean(dim=-1)


def cited_spans(pieces: Sequence[str], span_of: Mapping[str, int]) -> list[int]:
    """The evidence span that each emitted token cites.

    Args:
        pieces: the text of every token.
        span_of: number of a document to cite -> evidence span.

    Returns:
        A span a token, NO_CITATION, or WRONG_CITATION.
    """
    cited = [NO_CITATION] * len(pieces)
    ends = torch.tensor([len(piece) for piece in pieces], dtype=torch.long).cumsum(0).tolist()
    for number, first, last in cited_characters("".join(pieces)):
        for token, end in enumerate(ends):
            if max(first, end - len(pieces[token])) < min(last, end):
                cited[token] = span_of.get(number, WRONG_CITATION)
    return cited


def label_spans(example: Encoded, text: Callable[[Sequence[int]], str]) -> dict[str, int]:
    """Label of a document to cite -> its evidence span, from the gold answer's tokens.

    Args:
        example: whose answers are labels.
        text: of tokens.
    """
    labels = sorted(set(example.answers))
    gold = [text([token]) for token in example.target_ids.tolist()]
    places = cited_spans(gold, {label: n for n, label in enumerate(labels)})
    return {labels[p]: int(example.cited[t]) for t, p in enumerate(places) if p >= 0}


def needles_of(example: Encoded) -> Int[Tensor, " evidence"]:
    """Which span each evidence position belongs to, those of a document counted as its first."""
    needles = torch.from_numpy(example.needles).to(torch.long, copy=True)
    gold = [] if example.asked is None else example.asked.gold.tolist()
    evidence = torch.from_numpy(example.evidence)
    for first, last in gold:
        own = (first <= evidence) & (evidence < last)
        if own.any():
            needles[own] = needles[own].min()
    return needles
