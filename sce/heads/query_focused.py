"""`query_focused`: how much of its attention the question turns to the gold documents.

    score(h) = 1/|q| sum_{t in q} sum_{j in G} a_t^h(j) - the same under the null question "N/A"

q are the question's tokens, G those of the documents that hold evidence, titles included. The null
question stands after the same context, whose keys and values are computed once for both.

After QRHead (Zhang et al., EMNLP 2025, arXiv 2506.09944). Their released code averages over the
whole instruction around the query as well, counts the documents' labels, and removes outlying
tokens; here it is the question alone, and the documents' own text.
"""

from jaxtyping import Float
from torch import Tensor

from sce.errors import InputError
from sce.heads.trace import PREFILL, Spec, Trace

SPEC = Spec(tau=0.2, modes=(PREFILL,), question=True)


def score(trace: Trace) -> Float[Tensor, "layers heads"]:
    """Difference of two shares of attention, -1..1."""
    if trace.mass is None or trace.null_mass is None:
        raise InputError(
            "scorer=query_focused: where the question stands in the prompt is not known; encode "
            "the examples with sce.data.encode.Encoder"
        )
    return trace.mass.double() - trace.null_mass.double()
