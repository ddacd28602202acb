"""A transformer written by hand: one head copies the successor of the current token, no other does.

Vocabulary 32, token a is followed by a + 1. Queries of the planted head are the code of the current
token, keys the code of the token before: the head looks at the token that comes next. The codes lie
in the slowest rotary dimensions, which a theta of 1e12 does not turn. Its value is the token
itself, written to a half of the residual stream that lm_head alone reads.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 32
HEAD_DIM = 64
LAYER, HEAD = 1, 2


def config(**changes) -> LlamaConfig:
    values = {
        "vocab_size": VOCABULARY,
        "hidden_size": 2 * VOCABULARY,
        "intermediate_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e12},
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return LlamaConfig(**{**values, **changes})


def build(attn_implementation: str = "sce_fused") -> LlamaForCausalLM:
    """The model, in float32 and eval mode."""
    model = LlamaForCausalLM._from_config(config(), attn_implementation=attn_implementation)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name else parameter.zero_()
        model.model.embed_tokens.weight[:, :VOCABULARY] = torch.eye(VOCABULARY)
        model.lm_head.weight[:, VOCABULARY:] = torch.eye(VOCABULARY)
        quarter = HEAD_DIM // 4
        slow = [*range(quarter, 2 * quarter), *range(3 * quarter, 4 * quarter)]
        attention = model.model.layers[LAYER].self_attn
        kv = HEAD // 2
        for token in range(VOCABULARY):
            attention.q_proj.weight[HEAD * HEAD_DIM + slow[token], token] = 10.0
            attention.k_proj.weight[kv * HEAD_DIM + slow[token], (token + 1) % VOCABULARY] = 10.0
            attention.v_proj.weight[kv * HEAD_DIM + token, token] = 1.0
            attention.o_proj.weight[VOCABULARY + token, HEAD * HEAD_DIM + token] = 1.0
    return model.eval()
