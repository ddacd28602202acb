"""Floating-point operations of training, counted from the model's own weights.

A product with a weight takes 2 a weight and token forward; backward 2 for the gradient of what went
in, where anything before it is trained, and 2 for the weight's own, where it is trained. Attention
multiplies every query with the keys it sees and mixes as many values: 2 a number of each and pair
forward, twice that backward. Embeddings and lm_head, which runs on an answer's few rows, are left
out, and so are recurrent layers' states; recomputation is counted apart.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor, nn
from transformers import PreTrainedConfig

from sce.data.batch import Batch
from sce.model.build import base_of, head_shape, sliding_window
from sce.model.layers import recomputed
from sce.model.projections import HeadOutputs, head_outputs

# The last product of a layer's MLP: recomputation ends before it, since nothing behind it in the
# layer is needed for a gradient.
_LAST = re.compile(r"\.(down_proj|w2|fc2|dense_4h_to_h|mlp\.c_proj)\b")
# Projections of latent attention that read what another one made (DeepSeek).
_INNER = ("q_b_proj", "kv_b_proj")
_LAYER = re.compile(r"\.(\d+)\.")
# Part of a GPU's name -> dense bfloat16 operations a second, by the makers' data sheets; the first
# that is found counts. What sheets give "with sparsity" is twice that, and nothing here is sparse.
_PEAKS = (
    (r"\bGB200\b", 2.5e15),
    (r"\bB200\b", 2.25e15),
    (r"\bH[12]00 NVL\b", 8.35e14),
    (r"\bH100\b.*(PCIe|HBM2e)", 7.56e14),
    (r"\b(GH200|H200|H100)\b", 9.89e14),
    (r"\bA100\b", 3.12e14),
    (r"\bL40S\b", 3.62e14),
    (r"\bL40\b", 1.81e14),
    (r"\bL4\b", 1.21e14),
)
Span = tuple[int, int]
"""(tokens, tokens before them that each of them sees beside those of its own span)."""


@dataclass(frozen=True)
class Flops:
    """Of one pass, forward and backward."""

    needed: float
    """What training takes, and what MFU counts."""
    recomputed: float
    """What the backward pass does a second time, to save memory."""


@dataclass(frozen=True)
class _Attention:
    """One layer's attention: operations a pair of query and key, forward."""

    a_pair: float
    window: int | None
    trained: bool
    """Whether gradients go back through it."""


class FlopCounter:
    """Counts a model's passes; reads its weights once."""

    def __init__(self, model: nn.Module) -> None:
        weights = [(_layer(n), n, p) for n, p in model.named_parameters() if p.ndim >= 2]
        weights = [(layer, n, p) for layer, n, p in weights if layer is not None]
        trained = [layer for layer, _, p in weights if p.requires_grad]
        self._first = min(trained, default=None)
        """The first layer with trained weights: below it, nothing goes backward."""
        self._recomputed = recomputed(model)
        config = base_of(model).config.get_text_config()
        heads = head_outputs(model, head_shape(model)[1])
        self._attention = [self._of_attention(layer, h, config) for layer, h in heads.items()]
        # The attention's input projections, which read what their layer reads.
        self._reads_input = {
            id(parameter)
            for layer in heads.values()
            for name, part in layer.attention.named_children()
            if part is not layer.projection and name not in _INNER
            for parameter in part.parameters()
        }
        self._needed = self._again = 0.0
        for layer, name, parameter in weights:
            size = _numel(parameter) * _used_share(name, parameter, config)
            self._needed += size * self._a_weight(layer, name, parameter)
            if self._recomputed and self._goes_back(layer) and not self._ends_layer(name):
                self._again += 2 * size

    def of(self, spans: Sequence[Span]) -> Flops:
        """Operations of a pass over sequences, or parts of them, of these lengths."""
        num_tokens = sum(tokens for tokens, _ in spans)
        needed, again = self._needed * num_tokens, self._again * num_tokens
        for layer in self._attention:
            forward = layer.a_pair * sum(_pairs(*span, layer.window) for span in spans)
            needed += forward * (3 if layer.trained else 1)
            if self._recomputed == "full" and layer.trained:
                again += forward
        return Flops(needed, again)

    def _goes_back(self, layer: int) -> bool:
        return self._first is not None and layer >= self._first

    def _a_weight(self, layer: int, name: str, parameter: Tensor) -> int:
        """Operations a weight and token: 2, 4 or 6."""
        own = 2 if parameter.requires_grad else 0
        # What the first trained layer reads has no gradient; what its adapters' B reads has.
        after_trained = self._goes_back(layer) and not (
            layer == self._first and id(parameter) in self._reads_input and "lora_B" not in name
        )
        return 2 + own + (2 if after_trained else 0)

    def _ends_layer(self, name: str) -> bool:
        """Whether recomputation stops before this weight: the last, of an adapted one its B."""
        return bool(_LAST.search(name)) and not re.search("base_layer|lora_A", name)

    def _of_attention(self, layer: int, heads: HeadOutputs, config: PreTrainedConfig) -> _Attention:
        kinds = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None)
        local = kinds[layer] == "sliding_attention" if kinds else sliding_window(config) is not None
        # Two products, of queries with keys and of weights with values.
        a_pair = 2.0 * heads.num_heads * (_query_width(heads) + heads.dim)
        return _Attention(a_pair, window if local else None, self._goes_back(layer))


def peak_flops(name: str) -> float | None:
    """Dense bfloat16 operations that a GPU can do a second, by its name; None: not known here."""
    # Names join their parts by spaces and hyphens: NVIDIA H200, NVIDIA A100-SXM4-80GB.
    return next((peak for part, peak in _PEAKS if re.search(part, name)), None)


def spans(batch: Batch) -> list[Span]:
    """Real tokens of a batch, and what they see: a context shared by several questions once."""
    if batch.suffixes is None:
        return [(example.num_tokens, 0) for example in batch.examples]
    found, suffixes = [], batch.suffixes
    assert batch.attention_mask is not None
    for row in batch.attention_mask.tolist():
        before = sum(row[: suffixes.num_context])
        found.append((before, 0))
        for start in range(suffixes.num_context, len(row), suffixes.width):
            found.append((sum(row[start : start + suffixes.width]), before))
    return found


def _pairs(tokens: int, before: int, window: int | None) -> float:
    """Pairs of query and key, S^2 / 2 for a whole sequence of S tokens."""
    if window is None or before + tokens <= window:
        return tokens * before + tokens**2 / 2
    ramp = max(0, window - before)  # tokens that see everything before them
    return ramp * before + ramp**2 / 2 + (tokens - ramp) * window


def _query_width(heads: HeadOutputs) -> int:
    """Numbers of a query and of a key; values of latent attention are narrower."""
    return getattr(heads.attention, "qk_head_dim", heads.dim)


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def _numel(parameter: Tensor) -> int:
    """Weights in a parameter, 4-bit ones unpacked."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else prod(state.shape)


def _used_share(name: str, parameter: Tensor, config: PreTrainedConfig) -> float:
    """Share of a weight that a token meets: of experts those it is sent to."""
    if ".experts." not in name or parameter.ndim != 3:
        return 1.0
    return config.num_experts_per_tok / parameter.shape[0]
