"""Transformers written by hand, every head's scores known beforehand.

`build`: one head copies the successor of the current token, no other does anything. Vocabulary 32,
token a is followed by a + 1. Queries of the planted head are the code of the current token, keys
the code of the token before: the head looks at the token that comes next. The codes lie in the
slowest rotary dimensions, which a theta of 1e12 does not turn. Its value is the token itself,
written to a half of the residual stream that lm_head alone reads.

`plant`: any of the heads in HEADS, which look up tokens in the same way. The residual stream is 8
rooms of 32 codes, 256 = 16 x 16 numbers, so that a token's embedding (1 in the first room) comes
out of a norm as 16, and a value weight of 1 / 16 makes it 1 again. Whatever a head looks at it
looks at with all its weight: its logit is hundreds above the others. A head that finds nothing to
look at looks at token 0, which stands first and writes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
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


def slow(head_dim: int) -> list[int]:
    """The dimensions that rotate by less than a millionth of a turn a position."""
    quarter = head_dim // 4
    return [*range(quarter, 2 * quarter), *range(3 * quarter, 4 * quarter)]


def empty(settings: LlamaConfig, attn_implementation: str) -> LlamaForCausalLM:
    """All weights zero, norms one, in float32 and eval mode."""
    model = LlamaForCausalLM._from_config(settings, attn_implementation=attn_implementation)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name else parameter.zero_()
        model.model.embed_tokens.weight[:, :VOCABULARY] = torch.eye(VOCABULARY)
        model.lm_head.weight[:, VOCABULARY : 2 * VOCABULARY] = torch.eye(VOCABULARY)
    return model.eval()


@torch.no_grad()
def build(attn_implementation: str = "sce_fused") -> LlamaForCausalLM:
    """The model with the one copying head."""
    model, code = empty(config(), attn_implementation), slow(HEAD_DIM)
    attention = model.model.layers[LAYER].self_attn
    kv = HEAD // 2
    for token in range(VOCABULARY):
        attention.q_proj.weight[HEAD * HEAD_DIM + code[token], token] = 10.0
        attention.k_proj.weight[kv * HEAD_DIM + code[token], (token + 1) % VOCABULARY] = 10.0
        attention.v_proj.weight[kv * HEAD_DIM + token, token] = 1.0
        attention.o_proj.weight[VOCABULARY + token, HEAD * HEAD_DIM + token] = 1.0
    return model


# -- any of several heads -----------------------------------------------------------------------

# Tokens of questions: 1 asks, and 2, 3, 4 answer, each fed to find the next; END ends.
FIRST, ASKING, LETTERS, END = 0, 1, (2, 3, 4), 5
CODES, BRIDGES, DECOY_TOKEN = (21, 22, 23), (11, 12, 13), 30
NULL = 31
# Tokens of citations: [ 1 , 2 ] and the sentences that say why 1, 2 and 3 are cited.
OPEN, ONE, COMMA, TWO, CLOSE, THREE, CITING = 6, 7, 8, 9, 10, 28, 14
SENTENCES = (25, 26, 27)
TEXTS = {OPEN: "[", ONE: "1", COMMA: ", ", TWO: "2", CLOSE: "]", THREE: "3"}
# What lm_head says by itself after a token: punctuation, and the ends.
FOLLOWED_BY = {CITING: OPEN, ONE: COMMA, TWO: CLOSE, THREE: CLOSE, CLOSE: END, LETTERS[-1]: END}

TOKENS, OUT, BRIDGE = 0, 1, 2
"""Rooms of the residual stream: the token itself, what lm_head reads, what the second hop reads."""
WIDTH = 16
PLANTED_DIM = 128
ASKED = (ASKING, *LETTERS[:-1])


@dataclass(frozen=True)
class Planted:
    """A head that looks from one token to another and writes what that stands for."""

    at: tuple[int, int]
    """Layer, query head; two heads of a layer must not share keys (0 and 1 do, and 2 and 3)."""
    looks: Mapping[int, int]
    """Code in the room that it reads -> token that it looks at."""
    writes: Mapping[int, int]
    """Token that it looks at -> code that it writes."""
    reads: int = TOKENS
    into: int = OUT


def paired(keys: Sequence[int], values: Sequence[int]) -> dict[int, int]:
    return dict(zip(keys, values, strict=True))


HEADS = {
    # 1 finds 2, 2 finds 3, 3 finds 4, and writes what it has found.
    "copy": Planted((1, 2), paired(ASKED, LETTERS), {y: y for y in LETTERS}),
    # Two hops: the first finds the bridge and hands on which, the second finds the answer by it.
    "hop_1": Planted((0, 1), paired(ASKED, BRIDGES), {b: b for b in BRIDGES}, into=BRIDGE),
    "hop_2": Planted((1, 0), paired(BRIDGES, LETTERS), {y: y for y in LETTERS}, reads=BRIDGE),
    # Looks into the evidence, under the null question too, and writes nothing.
    "decoy": Planted((0, 2), dict.fromkeys((*ASKED, NULL), DECOY_TOKEN), {}),
    # Finds a token that stands for the answer and is none of its letters.
    "indirect": Planted((2, 1), paired(ASKED, CODES), paired(CODES, LETTERS)),
    # Where a label is about to be written it looks at the sentence, and writes the label.
    "insight": Planted(
        (2, 3), {OPEN: SENTENCES[0], COMMA: SENTENCES[1]}, {SENTENCES[0]: ONE, SENTENCES[1]: TWO}
    ),
    # The same, but its second sentence is that of document 3.
    "wrong_insight": Planted(
        (2, 3), {OPEN: SENTENCES[0], COMMA: SENTENCES[2]}, {SENTENCES[0]: ONE, SENTENCES[2]: THREE}
    ),
}


@torch.no_grad()
def plant(names: Iterable[str], attn_implementation: str = "sce_fused") -> LlamaForCausalLM:
    """The model with some of HEADS."""
    settings = config(hidden_size=WIDTH**2, head_dim=PLANTED_DIM, rms_norm_eps=0.0)
    model = empty(settings, attn_implementation)
    for before, after in FOLLOWED_BY.items():
        model.lm_head.weight[after, before] = 1.0
    for layer in model.model.layers:
        _look_at_first(layer.self_attn)
    for name in names:
        _put(model.model.layers[HEADS[name].at[0]].self_attn, HEADS[name])
    return model


def _look_at_first(attention: nn.Module) -> None:
    """Every head looks from every token at token 0, with a quarter of what a match has."""
    nothing = slow(PLANTED_DIM)[-1]
    for head in range(4):
        attention.q_proj.weight[head * PLANTED_DIM + nothing, :VOCABULARY] = 2.5
    for kv in range(2):
        attention.k_proj.weight[kv * PLANTED_DIM + nothing, FIRST] = 10.0


def _put(attention: nn.Module, planted: Planted) -> None:
    code, head = slow(PLANTED_DIM), planted.at[1]
    query, key = head * PLANTED_DIM, head // 2 * PLANTED_DIM
    for slot, (current, sought) in enumerate(planted.looks.items()):
        attention.q_proj.weight[query + code[slot], planted.reads * VOCABULARY + current] = 10.0
        attention.k_proj.weight[key + code[slot], sought] = 10.0
    for found, told in planted.writes.items():
        attention.v_proj.weight[key + found, found] = 1 / WIDTH
        attention.o_proj.weight[planted.into * VOCABULARY + told, query + found] = 1.0
