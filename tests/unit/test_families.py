"""All scorers on every family of decoders, against full attention of the stock model.

The other side is written from the definitions: each example alone and unpadded, transformers' own
eager attention with `output_attentions=True`, values from its cache, answers from its `generate`.
Counts must agree exactly, attention masses to 1e-5, and what heads write to 1e-4 of the largest.
"""

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache
from transformers.masking_utils import AttentionMaskInterface

import families
from families import (
    CAPPED,
    CONFIGS,
    EXAMPLES,
    GATED,
    HEADS,
    LAYERS,
    LOCAL,
    SINKS,
    STATEFUL,
    WINDOW,
    WITHOUT_HEADS,
)
from sce.data.batch import collate
from sce.data.encode import Encoded
from sce.decode import DecodeSettings, decode
from sce.errors import InputError
from sce.model.capture import probing
from sce.model.projections import HeadOutputs, attention_modules
from sce.model.reads import LookedAt
from sce.model.rope import turns_with_length

STEPS = 12
COUNTS = ("copy", "copy_needle", "insight")
BOTH = ("teacher_forced", "greedy")
IMPLEMENTATIONS = ("sce_fused", "sce_eager")
Scores = dict[tuple[str, str], np.ndarray]


# -- the stock model, one example at a time ---------------------------------------------------


@dataclass
class Full:
    """One pass over some tokens: everything that each layer's heads do."""

    weights: dict[int, np.ndarray]
    """By layer, [heads, queries, keys]."""
    values: dict[int, np.ndarray]
    """By layer, [kv_heads, keys, dim]."""
    mixed: dict[int, np.ndarray]
    """By layer, what goes into the output projection, [queries, heads * dim]."""
    projections: dict[int, np.ndarray]
    """By layer, the weight of the output projection, [hidden, heads * dim]."""


def layers_with_heads(name: str) -> list[int]:
    return [layer for layer in range(LAYERS) if WITHOUT_HEADS.get(name) != layer]


def attention_of(model: nn.Module, layer: int) -> nn.Module:
    block = model.base_model.h if hasattr(model.base_model, "h") else model.base_model.layers
    (attention,) = [
        m for n, m in block[layer].named_children() if n.endswith(("attn", "attention"))
    ]
    return attention


def stored_values(model: nn.Module, cache: DynamicCache, layer: int) -> np.ndarray:
    """[kv_heads, keys, dim]; latent attention stores what they are made of."""
    stored, attention = cache.layers[layer], attention_of(model, layer)
    if hasattr(attention, "expand_kv"):
        return attention.expand_kv(stored.keys, stored.values)[1][0].numpy()
    return stored.values[0].numpy()


def output_projection(model: nn.Module, layer: int) -> nn.Module:
    (found,) = [
        module
        for name, module in attention_of(model, layer).named_children()
        if name in ("o_proj", "out_proj", "dense", "c_proj")
    ]
    return found


def weight_of(projection: nn.Module) -> np.ndarray:
    weight = projection.weight.detach()
    return (weight.T if type(projection).__name__ == "Conv1D" else weight).numpy()


@torch.no_grad()
def full(name: str, ids: list[int], model: nn.Module | None = None) -> Full:
    model = families.build(name, "eager") if model is None else model
    layers, mixed, handles = layers_with_heads(name), {}, []
    for layer in layers:

        def keep(module, args, layer=layer):
            mixed[layer] = args[0][0].numpy()

        handles.append(output_projection(model, layer).register_forward_pre_hook(keep))
    # A cache of its own making keeps all values of local layers; hybrids have their own kind.
    stored = None if name in STATEFUL else DynamicCache()
    out = model(
        input_ids=torch.tensor([ids]),
        past_key_values=stored,
        use_cache=True,
        output_attentions=True,
    )
    for handle in handles:
        handle.remove()
    return Full(
        weights={n: w[0].numpy() for n, w in zip(layers, out.attentions, strict=True)},
        values={n: stored_values(model, out.past_key_values, n) for n in layers},
        mixed=mixed,
        projections={n: weight_of(output_projection(model, n)) for n in layers},
    )


def looks_in(name: str, found: Full, first: int, count: int) -> np.ndarray:
    """[layers, heads, steps]: the position attended to most; -1 in layers without heads."""
    looks = np.full((LAYERS, HEADS, count), -1)
    for layer, weights in found.weights.items():
        for head in range(HEADS):
            for step in range(count):
                looks[layer, head, step] = weights[head, first + step].argmax()
    return looks


@torch.no_grad()
def generated(name: str, example: Encoded) -> tuple[list[int], np.ndarray]:
    """The answer of the model's own loop, and where every head looked as it was emitted."""
    ids = torch.tensor([example.prompt_ids.tolist()])
    out = families.build(name, "eager").generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=example.end_id,
        pad_token_id=0,
        output_attentions=True,
        return_dict_in_generate=True,
    )
    answer = out.sequences[0, ids.shape[1] :].tolist()
    if example.end_id in answer:
        answer = answer[: answer.index(example.end_id)]
    looks = np.full((LAYERS, HEADS, len(answer)), -1)
    for step in range(len(answer)):
        for layer, weights in zip(layers_with_heads(name), out.attentions[step], strict=True):
            # The cache of a local layer holds the last keys only.
            dropped = ids.shape[1] + step - weights.shape[-1]
            looks[layer, :, step] = weights[0, :, -1].argmax(dim=-1).numpy() + dropped
    return answer, looks


# -- the scores by their definitions ----------------------------------------------------------


def counted(example: Encoded, answer: list[int], looks: np.ndarray) -> dict[str, np.ndarray]:
    """`copy`, `copy_needle` and `insight` of every head."""
    span_of = dict(zip(example.evidence.tolist(), example.needles.tolist(), strict=True))
    prompt = example.prompt_ids.tolist()
    scores = {name: np.zeros((LAYERS, HEADS)) for name in COUNTS}
    citing = [(t, families.CITES[y]) for t, y in enumerate(answer) if y in families.CITES]
    for at in np.ndindex(LAYERS, HEADS):
        steps = list(enumerate(zip(looks[at].tolist(), answer, strict=True)))
        copied = [j for _, (j, y) in steps if j in span_of and prompt[j] == y]
        right = [t for t, span in citing if span_of.get(int(looks[at][t])) == span]
        scores["copy"][at] = len(copied) / len(answer) if answer else 0
        scores["copy_needle"][at] = len(set(copied)) / len(span_of)
        scores["insight"][at] = len(right) / len(citing) if citing else 0
    return scores


def seen_from(name: str, layer: int, position: int) -> range:
    """What a token sees, whatever its weights: all up to itself, or the last WINDOW of them."""
    local = layer in LOCAL.get(name, ())
    return range(max(0, position + 1 - WINDOW) if local else 0, position + 1)


def written(name: str, example: Encoded, found: Full, unembedding: np.ndarray) -> np.ndarray:
    """`ov_write`: direct logit attribution of every position a head sees, evidence against rest."""
    first, answer = len(example.prompt_ids) - 1, example.target_ids.tolist()
    evidence = set(example.evidence.tolist())
    scores = np.zeros((LAYERS, HEADS))
    for layer in layers_with_heads(name):
        weights, values = found.weights[layer], found.values[layer]
        dim, shared = values.shape[-1], HEADS // values.shape[0]
        for head in range(HEADS):
            outward = found.projections[layer][:, head * dim : (head + 1) * dim]
            total = 0.0
            for step, token in enumerate(answer):
                row = weights[head, first + step]
                phi = row * (values[head // shared] @ (unembedding[token] @ outward))
                seen = seen_from(name, layer, first + step)
                inside = [j for j in seen if j in evidence]
                outside = [j for j in seen if j not in evidence]
                total += phi[inside].sum() - len(inside) / len(outside) * phi[outside].sum()
            scores[layer, head] = total / len(answer)
    return scores


def mass(name: str, example: Encoded, found: Full, rows: range) -> np.ndarray:
    """Attention from some positions to the gold documents, mean over the positions."""
    gold = [j for first, last in example.asked.gold.tolist() for j in range(first, last)]
    scores = np.zeros((LAYERS, HEADS))
    for layer, weights in found.weights.items():
        for head in range(HEADS):
            scores[layer, head] = np.mean([weights[head, t, gold].sum() for t in rows])
    return scores


@cache
def expected(name: str, padding: str, index: int) -> tuple[Scores, list[int]]:
    """Every score of an example, and its greedy answer."""
    example = EXAMPLES[padding][index]
    prompt, gold = example.prompt_ids.tolist(), example.target_ids.tolist()
    forced = full(name, prompt + gold)
    asked = example.asked
    null = prompt[: asked.null_start] + asked.null_ids.tolist()
    with_null = full(name, null)
    answer, greedy_looks = generated(name, example)
    looks = looks_in(name, forced, len(prompt) - 1, len(gold))
    scores = {(n, "teacher_forced"): s for n, s in counted(example, gold, looks).items()}
    scores |= {(n, "greedy"): s for n, s in counted(example, answer, greedy_looks).items()}
    scores["query_focused", "prefill"] = mass(
        name, example, forced, range(*asked.question.tolist())
    ) - mass(name, example, with_null, range(len(null) - asked.num_null, len(null)))
    if name not in GATED:
        unembedding = families.build(name, "eager").get_output_embeddings().weight.detach().numpy()
        scores["ov_write", "teacher_forced"] = written(name, example, forced, unembedding)
    return scores, answer


# -- the comparison ---------------------------------------------------------------------------


def settings(name: str, *scorers: str) -> DecodeSettings:
    every = (*COUNTS, "query_focused", *(() if name in GATED else ("ov_write",)))
    return DecodeSettings(
        max_new_tokens=STEPS,
        scorers=scorers or every,
        modes=(*BOTH, "prefill"),
        detokenize=families.detokenize,
    )


def compare(name: str, padding: str, implementation: str, chunk: int = 8192) -> None:
    model, batch = families.build(name, implementation), collate(EXAMPLES[padding])
    assert (batch.attention_mask is None) == (padding == "none")
    chosen = replace(settings(name), prefill_chunk=chunk)
    for index, outcome in enumerate(decode(model, batch, chosen)):
        scores, answer = expected(name, padding, index)
        assert list(outcome.answer_ids) == answer
        assert set(outcome.scores) == set(scores)
        for (scorer, mode), theirs in scores.items():
            ours = outcome.scores[scorer, mode].numpy()
            tolerance = {"query_focused": 1e-5, "ov_write": 1e-4 * np.abs(theirs).max()}
            close = np.abs(ours - theirs) <= tolerance.get(scorer, 1e-9)
            assert close.all(), (scorer, mode, ours, theirs)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("padding", EXAMPLES)
@pytest.mark.parametrize("name", CONFIGS)
def test_all_scorers_agree_with_full_attention(name, padding, implementation):
    compare(name, padding, implementation)


@pytest.mark.parametrize("padding", EXAMPLES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_prefill_in_chunks_gives_the_same(name, padding):
    compare(name, padding, "sce_fused", chunk=4)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_rotary_embeddings_that_turn_by_the_length_are_prefilled_whole(kind):
    config = deepcopy(CONFIGS["llama"])
    assert not turns_with_length(families.build("llama", "sce_fused").config)
    config.rope_parameters = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    config.rope_parameters |= {"original_max_position_embeddings": 8}
    config.rope_parameters |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    config.max_position_embeddings = 16
    found = []
    for chunk in (4, 8192):
        torch.manual_seed(0)  # a model each: dynamic tables are kept as the last pass left them
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sce_fused").eval()
        assert turns_with_length(model.config)
        chosen = replace(settings("llama"), prefill_chunk=chunk)
        found.append(decode(model, collate(EXAMPLES["left"]), chosen))
    for chunked, whole in zip(*found, strict=True):
        assert chunked.nll == whole.nll
        assert all(torch.equal(chunked.scores[key], whole.scores[key]) for key in whole.scores)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_scorer_finds_something_to_compare(name):
    every = [expected(name, padding, n)[0] for padding in EXAMPLES for n in range(3)]
    for key in every[0]:
        values = np.stack([scores[key] for scores in every])
        assert np.count_nonzero(values) > 2, key
        assert np.abs(values).max() > 0.02, key


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_compared_with_is_what_the_stock_model_does(name):
    """Weights times values are the heads' outputs; sinks are no position, so weights fall short.

    No weight is 0 here, so that what has one shows what is seen.
    """
    example = EXAMPLES["none"][0]
    found = full(name, [*example.prompt_ids.tolist(), *example.target_ids.tolist()])
    for layer, weights in found.weights.items():
        values = np.repeat(found.values[layer], HEADS // len(found.values[layer]), axis=0)
        mixed = np.concatenate(list(weights @ values), axis=-1)
        same = np.allclose(mixed, found.mixed[layer], atol=1e-5)
        assert same == (name not in GATED)
        for position, row in enumerate(weights.swapaxes(0, 1)):
            seen = seen_from(name, layer, position)
            assert all(np.flatnonzero(head).tolist() == [*seen] for head in row)
    totals = np.stack([weights.sum(axis=-1) for weights in found.weights.values()])
    assert np.mean(totals < 0.9) > 0.1 if name in SINKS else np.allclose(totals, 1, atol=1e-5)


@pytest.mark.parametrize("padding", EXAMPLES)
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "lfm2"])
def test_a_scorer_alone_without_a_greedy_answer_gives_the_same(name, padding):
    model, batch = families.build(name, "sce_fused"), collate(EXAMPLES[padding])
    every = decode(model, batch, settings(name))
    for scorer, mode in (("query_focused", "prefill"), ("ov_write", "teacher_forced")):
        alone = replace(settings(name, scorer), max_new_tokens=0, modes=(mode,))
        for one, other in zip(decode(model, batch, alone), every, strict=True):
            assert set(one.scores) == {(scorer, mode)}
            torch.testing.assert_close(one.scores[scorer, mode], other.scores[scorer, mode])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("name", "layer"), WITHOUT_HEADS.items())
def test_a_layer_without_heads_scores_zero(name, layer, implementation):
    model = families.build(name, implementation)
    for outcome in decode(model, collate(EXAMPLES["left"]), settings(name)):
        for scores in outcome.scores.values():
            assert scores.shape == (LAYERS, HEADS)
            assert (scores[layer] == 0).all()


def test_what_is_seen_with_a_weight_of_0_is_not_evidence_either():
    """Queries are so large that weights underflow; those positions count all the same."""
    sharp = {key: deepcopy(families.build("llama", key)) for key in ("eager", "sce_fused")}
    with torch.no_grad():
        for model in sharp.values():
            for layer in model.model.layers:
                layer.self_attn.q_proj.weight *= 8
    unembedding = sharp["eager"].get_output_embeddings().weight.detach().numpy()
    outcomes = decode(sharp["sce_fused"], collate(EXAMPLES["left"]), settings("llama", "ov_write"))
    for outcome, example in zip(outcomes, EXAMPLES["left"], strict=True):
        found = full("llama", [*example.prompt_ids, *example.target_ids], sharp["eager"])
        theirs = written("llama", example, found, unembedding)
        ours = outcome.scores["ov_write", "teacher_forced"].numpy()
        for weights in found.weights.values():
            assert np.mean(weights[:, np.tri(weights.shape[1], dtype=bool)] == 0) > 0.05
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)


@pytest.mark.parametrize("name", GATED)
def test_writes_through_a_gate_are_refused_and_nothing_else(name):
    model, batch = families.build(name, "sce_fused"), collate(EXAMPLES["left"])
    with pytest.raises(InputError, match=r"gates its heads' outputs.*ov_write"):
        decode(model, batch, settings(name, "copy", "ov_write"))
    decode(model, batch, settings(name, "copy"))


# -- the comparison fails where something is taken out of our side ------------------------------


def told_without(monkeypatch, change: Callable[[dict], dict]) -> None:
    """Have every mask told as if transformers had handed on something else.

    `change` is given the arguments and gives those that are to be others.
    """
    mapping = AttentionMaskInterface._global_mapping

    def tell(original, *args, **kwargs):
        assert not args
        return original(**{**kwargs, **change(kwargs)})

    for name in IMPLEMENTATIONS:
        monkeypatch.setitem(mapping, name, partial(tell, mapping[name]))


def called_without(monkeypatch, argument: str) -> None:
    """Have attention called without one of its arguments."""
    mapping = AttentionInterface._global_mapping

    def call(original, *args, **kwargs):
        assert kwargs[argument] is not None
        return original(*args, **{**kwargs, argument: None})

    monkeypatch.setitem(mapping, "sce_fused", partial(call, mapping["sce_fused"]))


def without_padding(_: dict) -> dict:
    return {"attention_mask": None}


def without_window(_: dict) -> dict:
    return {"mask_function": lambda b, h, q, k: k <= q, "local_size": None}


def without_causality(told: dict) -> dict:
    own = told["mask_function"]
    return {"mask_function": lambda b, h, q, k: own(b, h, q, k) | (k > q)}


OF_MASKS = {
    "padding": without_padding,
    "window": without_window,
    "causality": without_causality,
}


def take_out(monkeypatch, what: str) -> None:
    if what in OF_MASKS:
        told_without(monkeypatch, OF_MASKS[what])
    else:
        called_without(monkeypatch, what)


CAN_BE_TAKEN_OUT = {
    "padding": tuple(CONFIGS),
    "causality": tuple(CONFIGS),
    "window": tuple(LOCAL),
    "softcap": CAPPED,
    "s_aux": SINKS,
}
BROKEN = [
    pytest.param(name, what, id=f"{name}-{what}")
    for what, names in CAN_BE_TAKEN_OUT.items()
    for name in names
]


@pytest.mark.parametrize(("name", "what"), BROKEN)
def test_the_comparison_fails_without(name, what, monkeypatch):
    padding = "left" if what == "padding" else "none"
    expected(name, padding, 0)
    take_out(monkeypatch, what)
    with pytest.raises(AssertionError):
        compare(name, padding, "sce_fused")


# -- bfloat16, the default ----------------------------------------------------------------------

GAP = 2.0**-7
"""Of the larger of two logits, and half as much again in the logit itself.

transformers' eager attention rounds a logit to bfloat16 after Q k^T and after the scale, and its
weight after the softmax: by up to 2**-9 of each. So two logits may change places where they differ
by 2 * 2 * 2**-9 of the larger, their weights become equal where they differ by 2 * 2**-9.
"""


@dataclass
class Eager:
    """What transformers' eager attention in bfloat16 makes of one layer's queries and keys."""

    weights: torch.Tensor
    """[heads, queries, keys] in bfloat16."""
    logits: torch.Tensor
    """Of the same queries and keys in float32, -inf where a query does not see."""


def eager_beside(monkeypatch, implementation: str) -> list[Eager]:
    """Have the stock model's eager attention worked out beside ours, layer by layer."""
    found: list[Eager] = []
    mapping = AttentionInterface._global_mapping

    def attend(original, module, query, key, value, mask, **kwargs):
        assert query.dtype == key.dtype == torch.bfloat16
        stock = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
        queries, keys = query.shape[2], key.shape[2]
        future = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
        bias = torch.zeros_like(future, dtype=query.dtype).masked_fill(future, -1e9)
        weights = stock(module, query, key, value, bias, scaling=module.scaling)[1]
        shared = query.shape[1] // key.shape[1]
        logits = query.float() @ key.float().repeat_interleave(shared, dim=1).mT * module.scaling
        found.append(Eager(weights[0], logits[0].masked_fill(future, float("-inf"))))
        return original(module, query, key, value, mask, **kwargs)

    monkeypatch.setitem(mapping, implementation, partial(attend, mapping[implementation]))
    return found


@torch.no_grad()
def looks_in_bfloat16(model: nn.Module, prompt: list[int], rest: list[int]) -> list[torch.Tensor]:
    """By pass, where every head looks [layers, heads, rows]: the whole prompt, then token by token.

    The rows of the prompt are recomputed, those of single tokens are seen as they are made.
    """
    cache, found = DynamicCache(), []
    with probing(attention_modules(model)) as probe:
        for ids in (prompt, *([token] for token in rest)):
            rows = torch.arange(len(ids))[None] if len(ids) > 1 else None
            probe.reads = {"look": LookedAt(rows)}
            model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=True)
            found.append(probe.take(LAYERS)["look"][0])
    return found


def further_apart(looks: torch.Tensor, eager: Eager) -> tuple[int, int]:
    """Rows whose position is not the eager one, and those of them whose logits are no near tie."""
    theirs = eager.weights.float().argmax(dim=-1)
    ours, best = (eager.logits.gather(-1, at[..., None])[..., 0] for at in (looks, theirs))
    other = looks != theirs
    allowed = GAP * torch.maximum(ours.abs(), best.abs()) + GAP / 2
    return int(other.sum()), int((other & ((ours - best).abs() > allowed)).sum())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_in_bfloat16_heads_look_where_eager_attention_has_its_largest_weight(
    name, implementation, monkeypatch
):
    model = deepcopy(families.build(name, implementation)).bfloat16()
    eager = eager_beside(monkeypatch, implementation)
    count = other = apart = moved = 0
    for example in (e for examples in EXAMPLES.values() for e in examples):
        eager.clear()
        passes = looks_in_bfloat16(model, example.prompt_ids.tolist(), example.target_ids.tolist())
        looks = [layer for found in passes for layer in found]
        for ours, theirs in zip(looks, eager, strict=True):
            count += ours.numel()
            others, further = further_apart(ours, theirs)
            other, apart = other + others, apart + further
            moved += further_apart((ours - 1).clamp(min=0), theirs)[1]
    assert apart == 0
    assert other < 0.02 * count
    assert moved > 0.8 * count


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_and_that_is_what_the_stock_model_puts_out(name, monkeypatch):
    ids = torch.tensor([EXAMPLES["none"][0].prompt_ids.tolist()])
    stock = deepcopy(families.build(name, "eager")).bfloat16()
    theirs = stock(input_ids=ids, output_attentions=True).attentions
    eager = eager_beside(monkeypatch, "sce_eager")
    deepcopy(families.build(name, "sce_eager")).bfloat16()(input_ids=ids)
    for beside, weights in zip(eager, theirs, strict=True):
        assert torch.equal(beside.weights, weights[0])


# -- adapters -----------------------------------------------------------------------------------

TARGETS = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "gpt2": ["c_attn", "attn.c_proj"],
}


@cache
def adapted(name: str) -> nn.Module:
    """With an adapter on every attention projection, B drawn too."""
    config = LoraConfig(
        r=4, target_modules=TARGETS[name], fan_in_fan_out=name == "gpt2", task_type="CAUSAL_LM"
    )
    torch.manual_seed(7)
    model = get_peft_model(deepcopy(families.build(name, "sce_fused")), config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.normal_(std=0.3)
    return model.eval()


def ov_write(model: nn.Module) -> torch.Tensor:
    found = decode(model, collate(EXAMPLES["left"]), settings("llama", "ov_write"))
    return torch.stack([outcome.scores["ov_write", "teacher_forced"] for outcome in found])


@pytest.mark.parametrize("name", TARGETS)
def test_what_an_adapter_s_heads_write_is_what_the_merged_model_s_write(name, monkeypatch):
    found = ov_write(adapted(name))
    merged = ov_write(deepcopy(adapted(name)).merge_and_unload())
    close = {"atol": float(merged.abs().max()) * 1e-4, "rtol": 0.0}
    torch.testing.assert_close(found, merged, **close)
    assert not torch.allclose(found, ov_write(families.build(name, "sce_fused")), **close)
    own = HeadOutputs.pulled_back

    def without_adapter(self, direction):
        return own(replace(self, projection=self.projection.base_layer), direction)

    monkeypatch.setattr(HeadOutputs, "pulled_back", without_adapter)
    assert not torch.allclose(ov_write(adapted(name)), merged, **close)


@pytest.mark.parametrize("name", TARGETS)
def test_and_agrees_with_full_attention_of_the_merged_model(name):
    merged = deepcopy(adapted(name)).merge_and_unload()
    merged.set_attn_implementation("eager")
    unembedding = merged.get_output_embeddings().weight.detach().numpy()
    for found, example in zip(ov_write(adapted(name)), EXAMPLES["left"], strict=True):
        ids = [*example.prompt_ids.tolist(), *example.target_ids.tolist()]
        theirs = written(name, example, full(name, ids, merged), unembedding)
        np.testing.assert_allclose(found.numpy(), theirs, atol=1e-4 * np.abs(theirs).max(), rtol=0)
