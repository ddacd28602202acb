"""Tiny random models of every family of decoders, and examples that every scorer can score.

Models: 3 layers of 4 heads, 97 tokens, seeded weights so large that heads prefer something, sinks
and biases drawn too. Only the tokens of ALPHABET are ever emitted, and prompts are written in them,
so that random heads copy now and then.
"""

from copy import deepcopy
from functools import cache

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    FalconH1Config,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3NextConfig,
)

from sce.data.encode import Asked, Encoded
from sce.model import attention  # noqa: F401 - registers our implementations

WINDOW = 11
CAP = 5.0
LAYERS, HEADS = 3, 4
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_CORE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "vocab_size": 97,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    **NO_TOKENS,
}
# Queries share keys, and a head's width is not hidden_size / num_attention_heads.
_GROUPED = {**_CORE, "num_key_value_heads": 2, "head_dim": 16}
# Keys and values are made of a latent that is kept in their place; queries, 24 wide, are wider than
# values.
LATENT = {
    "num_key_value_heads": HEADS,
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
_LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}

CONFIGS = {
    "llama": LlamaConfig(**_GROUPED),
    "mistral": MistralConfig(**_GROUPED, sliding_window=WINDOW),
    "qwen3": Qwen3Config(**_GROUPED),
    "gemma2": Gemma2Config(
        **_GROUPED,
        layer_types=_LOCAL,
        sliding_window=WINDOW,
        attn_logit_softcapping=CAP,
        query_pre_attn_scalar=16,
    ),
    "gemma3": Gemma3TextConfig(
        **_GROUPED, layer_types=_LOCAL, sliding_window=WINDOW, query_pre_attn_scalar=16
    ),
    "phi": PhiConfig(**_CORE, num_key_value_heads=4),
    "phi3": Phi3Config(**_CORE, num_key_value_heads=2, sliding_window=None),
    "gpt2": GPT2Config(
        n_embd=48,
        n_layer=LAYERS,
        n_head=HEADS,
        vocab_size=97,
        tie_word_embeddings=False,
        **NO_TOKENS,
    ),
    "gpt_neox": GPTNeoXConfig(**_CORE),
    "gpt_oss": GptOssConfig(
        **_GROUPED,
        **_EXPERTS,
        layer_types=_LOCAL,
        sliding_window=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    ),
    "mixtral": MixtralConfig(**_GROUPED, **_EXPERTS),
    "olmo2": Olmo2Config(**_CORE, num_key_value_heads=1),
    "deepseek_v3": DeepseekV3Config(
        **_CORE,
        **LATENT,
        first_k_dense_replace=1,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        moe_intermediate_size=32,
    ),
    "lfm2": Lfm2Config(
        **_CORE, num_key_value_heads=2, layer_types=["conv", "full_attention", "full_attention"]
    ),
    "qwen3_next": Qwen3NextConfig(
        **_GROUPED,
        layer_types=["linear_attention", "full_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    ),
    "falcon_h1": FalconH1Config(
        **_GROUPED,
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_n_groups=1,
        mamba_d_state=8,
        mamba_chunk_size=8,
    ),
}
LOCAL = {"mistral": (0, 1, 2), "gemma2": (0, 2), "gemma3": (0, 2), "gpt_oss": (0, 2)}
"""The layers in which a token sees itself and the WINDOW - 1 tokens before it."""
CAPPED = ("gemma2",)
SINKS = ("gpt_oss",)
GATED = ("qwen3_next",)
"""Attention outputs are gated before the output projection, so `ov_write` is not defined."""
WITHOUT_HEADS = {"lfm2": 0, "qwen3_next": 0}
"""The layer that has none."""
STATEFUL = (*WITHOUT_HEADS, "falcon_h1")
"""Some layers keep a state; those of Falcon-H1 do so beside their heads."""

ALPHABET = range(3, 11)
TEXTS = {3: "[1]", 4: "[2]", 5: "[7]", 6: "a", 7: "b", 8: "[", 9: "]", 10: " "}
CITES = {3: 0, 4: 1, 5: -2}
"""Token -> the evidence span it cites; -2: a document that is not to be cited."""
END = 11


@cache
def build(name: str, implementation: str) -> PreTrainedModel:
    """The model in float32 and eval mode, the same weights for every implementation."""
    torch.manual_seed(1)
    config = deepcopy(CONFIGS[name])
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    torch.manual_seed(12)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.3)
            elif key.endswith("bias"):
                parameter.normal_(std=0.1)
            elif key.endswith("sinks"):
                parameter.normal_(mean=1.0, std=1.0)
        head = model.get_output_embeddings()
        outside = [token for token in range(97) if token not in ALPHABET]
        head.weight[outside] = 0
        if head.bias is not None:
            head.bias[outside] = -100
    return model.eval()


def detokenize(ids: list[int]) -> str:
    return "".join(TEXTS.get(int(token), "?") for token in ids)


def example(seed: int, prompt: int, target: list[int], end: int = END) -> Encoded:
    """A prompt of two gold documents with evidence in both, a third document, and a question.

    The last document's evidence lies within the windows of local layers, the first's mostly not.
    """
    rng = np.random.default_rng(seed)
    ids = rng.choice(list(ALPHABET), size=prompt)
    first, question, suffix = 2, prompt - 5, prompt - 2
    middle, last = prompt // 3, question - 8
    return Encoded(
        id=str(seed),
        task="summhay",
        prompt_ids=ids.astype(np.int32),
        target_ids=np.array(target, dtype=np.int32),
        end_id=end,
        evidence=np.array([*range(first, middle), *range(last, last + 7)], dtype=np.int32),
        answers=("1", "2"),
        needles=np.array([0] * (middle - first) + [1] * 7, dtype=np.int32),
        cited=np.array([max(-1, CITES.get(token, -1)) for token in target], dtype=np.int32),
        asked=Asked(
            question=np.array([question, suffix], dtype=np.int32),
            gold=np.array([[first - 1, middle], [last, question - 1]], dtype=np.int32),
            null_start=question - seed % 2,
            null_ids=rng.choice(list(ALPHABET), size=2 + seed % 3).astype(np.int32),
            num_null=1 + seed % 2,
        ),
    )


EXAMPLES = {
    "none": [
        example(1, 26, [3, 6, 4, 7]),
        example(2, 26, [7, 3, 3, 8, 4, 6, 10]),
        example(3, 26, [4, 3], end=9),
    ],
    "left": [
        example(4, 31, [3, 6, 4, 7]),
        example(5, 22, [7, 3, 3, 8, 4, 6, 10]),
        example(6, 27, [4, 3], end=9),
    ],
}
"""By the padding that they make in a batch."""


def chunked_config() -> Llama4TextConfig:
    """A layer that sees no further back than its own chunk of 16, and one that sees all."""
    return Llama4TextConfig(
        **{**_GROUPED, "num_hidden_layers": 2},
        attention_chunk_size=16,
        num_local_experts=2,
        intermediate_size_mlp=64,
        layer_types=["chunked_attention", "full_attention"],
    )


def causal_kernel(query, key, value, padding, **kwargs):
    """SDPA in the place of flash-attn's kernel, which is told of nothing but causality."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
    output = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=kwargs["softmax_scale"], enable_gqa=True
    )
    return output.transpose(1, 2)
