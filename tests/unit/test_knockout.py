"""Knockout against weights taken out by hand, and the answers without the planted head."""

import copy
import math
import sys
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

import planted
from sce.data.batch import collate
from sce.data.encode import Encoded
from sce.decode import DecodeSettings, decode, prefix_cache
from sce.errors import InputError
from sce.interventions.knockout import ABLATIONS, head_means, knockout
from sce.interventions.passes import Passes
from sce.interventions.select import all_heads
from sce.model.build import head_shape
from sce.model.projections import head_outputs

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
}
CONFIGS = {
    "llama, grouped queries": LlamaConfig(**SMALL),
    "gemma2, head_dim not hidden / heads": Gemma2Config(
        **SMALL, head_dim=20, sliding_window=11, query_pre_attn_scalar=16
    ),
    "qwen3, norms of queries": Qwen3Config(**SMALL, head_dim=16),
    "gpt2, absolute positions": GPT2Config(n_embd=48, n_layer=3, n_head=4, vocab_size=97),
}
HEADS = frozenset({(0, 1), (2, 0), (2, 3)})
IDS = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(3))
SETTINGS = DecodeSettings(max_new_tokens=4, scorers=())


def build(name: str, implementation: str = "sce_fused", seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
    return model.eval()


def adapted(name: str = "llama, grouped queries") -> nn.Module:
    model = get_peft_model(
        build(name), LoraConfig(r=2, target_modules=["q_proj", "v_proj", "o_proj"])
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits


def example(prompt: list[int], target: list[int], end: int, name: str = "x") -> Encoded:
    return Encoded(
        id=name,
        task="mdqa",
        prompt_ids=np.array(prompt, dtype=np.int32),
        target_ids=np.array(target, dtype=np.int32),
        end_id=end,
        evidence=np.array([0], dtype=np.int32),
        answers=("",),
        needles=np.zeros(1, dtype=np.int32),
        cited=np.full(len(target), -1, dtype=np.int32),
    )


SHORT = example([20, 21, 22, 5, 6, 7, 8, 23, 4], [5, 6, 7], 8, "short")
LONG = example([20, 22, 24, 26, 28, 30, 10, 11, 12, 14, 16, 18, 9], [10, 11], 12, "long")
MEANS = head_means(planted.build(), [collate([LONG])], positions="answer")


def without(model: nn.Module, mode: str, means=None) -> nn.Module:
    """The same by hand: W_O of the heads is 0 (and their mean's write added), or W_Q is."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer, output in head_outputs(model, 4).items():
            weight = output.projection.weight
            weight = weight if isinstance(output.projection, nn.Linear) else weight.T
            added = torch.zeros(weight.shape[0])
            for head in (h for at, h in HEADS if at == layer):
                own = output.slice_of(head)
                if mode == "uniform":
                    zero_query(output.attention, own)
                    continue
                if mode == "mean":
                    added += weight[:, own] @ means[layer][head].float()
                weight[:, own] = 0
            output.projection.register_forward_hook(lambda m, a, out, added=added: out + added)
    return model


def zero_query(attention: nn.Module, own: slice) -> None:
    if hasattr(attention, "q_proj"):
        attention.q_proj.weight[own] = 0
    else:  # GPT-2: queries, keys and values in one, stored the other way round
        attention.c_attn.weight[:, own] = 0
        attention.c_attn.bias[own] = 0


# transformers has no capped logits under its own SDPA.
CASES = [
    pytest.param(name, implementation, id=f"{name}-{implementation}")
    for name in CONFIGS
    for implementation in ("sce_fused", "sce_eager", "sdpa", "eager")
    if not ("gemma" in name and implementation == "sdpa")
]


@pytest.mark.parametrize("mode", ABLATIONS)
@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_every_mode_equals_taking_the_weights_out_by_hand(name, mode, implementation):
    model = build(name, implementation)
    batch = collate([example(row.tolist(), [5, 6], 1) for row in IDS])
    means = head_means(model, [batch])
    with knockout(model, HEADS, mode=mode, means=means):
        ablated = logits(model)
    torch.testing.assert_close(ablated, logits(without(model, mode, means)), atol=1e-3, rtol=1e-3)
    assert (ablated - logits(model)).abs().max() > 0.05


@pytest.mark.parametrize("mode", ABLATIONS)
@pytest.mark.parametrize("name", [*CONFIGS, "lora"])
def test_afterwards_the_model_is_bit_for_bit_what_it_was_also_after_an_error(name, mode):
    model = adapted() if name == "lora" else build(name, "eager")
    means = head_means(model, [collate([example(IDS[0].tolist(), [5], 1)])])
    before, hooks = logits(model), num_hooks(model)
    with knockout(model, HEADS, mode=mode, means=means):
        assert not torch.equal(logits(model), before)
    assert torch.equal(logits(model), before)
    with suppress(RuntimeError), knockout(model, HEADS, mode=mode, means=means):
        raise RuntimeError("in between")
    assert torch.equal(logits(model), before)
    assert num_hooks(model) == hooks
    assert not any(hasattr(module, "sce_query_edit") for module in model.modules())
    assert model.config._attn_implementation == ("sce_fused" if name == "lora" else "eager")


def num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_the_modes_differ_from_each_other_and_a_model_under_lora_is_ablated_too():
    model = adapted()
    means = head_means(model, [collate([example(IDS[0].tolist(), [5], 1)])])
    found = []
    for mode in ABLATIONS:
        with knockout(model, HEADS, mode=mode, means=means):
            found.append(logits(model))
    assert all(
        (a - b).abs().max() > 0.05 for a, b in zip(found, found[1:] + found[:1], strict=True)
    )


def inputs_of(model: nn.Module, layer: int, run) -> list[torch.Tensor]:
    """What the layer's output projection is handed, pass by pass."""
    seen = []
    output = head_outputs(model, head_shape(model)[1])[layer]
    handle = output.projection.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    try:
        with torch.no_grad():
            run()
    finally:
        handle.remove()
    return seen


def test_zero_makes_the_head_s_slice_zero_and_leaves_the_others():
    model = build("gemma2, head_dim not hidden / heads", "eager")
    (before,) = inputs_of(model, 0, lambda: logits(model))
    with knockout(model, frozenset({(0, 1)})):
        (after,) = inputs_of(model, 0, lambda: logits(model))
    assert (after[..., 20:40] == 0).all()
    assert (before[..., 20:40] != 0).any()
    assert torch.equal(after[..., :20], before[..., :20])
    assert torch.equal(after[..., 40:], before[..., 40:])


def test_uniform_gives_the_mean_of_the_values_that_are_visible():
    # A token's value is 8 times its one-hot code: RMS norm over 64 numbers of which one is 1.
    model = planted.build()
    prompt = torch.tensor([[20, 21, 22, 5, 6, 7, 8, 23, 4]])
    head = frozenset({(planted.LAYER, planted.HEAD)})
    with knockout(model, head, mode="uniform"):
        (found,) = inputs_of(model, planted.LAYER, lambda: logits(model, prompt))
    own = slice(planted.HEAD * planted.HEAD_DIM, (planted.HEAD + 1) * planted.HEAD_DIM)
    for row in range(9):
        expected = torch.zeros(planted.HEAD_DIM)
        expected[prompt[0, : row + 1]] = 8 / (row + 1)
        torch.testing.assert_close(found[0, row, own], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("positions", "prefixed"), [("all", False), ("answer", False), ("answer", True)]
)
def test_without_the_planted_head_nothing_is_known_and_without_others_nothing_changes(
    positions, prefixed
):
    model, batch = planted.build(), collate([SHORT, LONG])
    column = batch.num_prompt - 1 if positions == "answer" else None
    prefix = prefix_cache(model, batch) if prefixed else None
    head = frozenset({(planted.LAYER, planted.HEAD)})
    plain = decode(model, batch, SETTINGS, prefix)
    assert [o.answer_ids for o in plain] == [(5, 6, 7), (10, 11)]
    with knockout(model, head, from_column=column):
        for outcome in decode(model, batch, SETTINGS, prefix):
            # Nothing is written where lm_head reads: all 32 tokens are as likely.
            assert outcome.nll == pytest.approx(outcome.num_labels * math.log(32), abs=1e-4)
            assert outcome.answer_ids == (0, 0, 0, 0)
    with knockout(model, head, mode="uniform", from_column=column):
        short = decode(model, batch, SETTINGS, prefix)[0]
    # Every token of the prompt once: the lowest of the equally likely.
    assert short.answer_ids[0] == 4
    with knockout(model, head, mode="mean", from_column=column, means=MEANS):
        short = decode(model, batch, SETTINGS, prefix)[0]
    assert set(short.answer_ids) <= {10, 11, 12}  # what LONG's answer is made of
    for mode in ABLATIONS:
        others = all_heads(head_shape(model)) - head
        zeros = {layer: torch.zeros(4, planted.HEAD_DIM) for layer in range(3)}
        with knockout(model, others, mode=mode, from_column=column, means=zeros):
            after = decode(model, batch, SETTINGS, prefix)
        assert [(o.nll, o.answer_ids) for o in after] == [(o.nll, o.answer_ids) for o in plain]
    assert decode(model, batch, SETTINGS, prefix)[0].nll == plain[0].nll


@pytest.mark.parametrize("mode", ABLATIONS)
def test_a_pass_after_a_prefix_is_ablated_in_the_same_columns_as_a_whole_one(mode):
    model = build("llama, grouped queries")
    means = head_means(model, [collate([example(IDS[0].tolist(), [5], 1)])])
    with knockout(model, HEADS, mode=mode, from_column=20, means=means), torch.no_grad():
        whole = logits(model)
        cache, parts = DynamicCache(), []
        for first, last in ((0, 17), (17, 21), (21, 22), (22, 24)):  # before, across, after
            out = model(input_ids=IDS[:, first:last], past_key_values=cache, use_cache=True)
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)
    plain = logits(model)
    assert torch.equal(whole[:, :20], plain[:, :20])
    assert (whole[:, 20:] - plain[:, 20:]).abs().amax(dim=(0, 2)).min() > 1e-3


def test_rows_are_those_from_the_column_on():
    passes = Passes(20, frozenset())
    cache = DynamicCache()
    for cached, num_rows, expected in ((0, 24, (20, 24)), (0, 17, (17, 17)), (17, 4, (3, 4))):
        cache = DynamicCache()
        if cached:
            cache.update(torch.zeros(1, 1, cached, 4), torch.zeros(1, 1, cached, 4), 0)
        passes.begin(nn.Module(), (), {"past_key_values": cache})
        rows = passes.rows(0, num_rows)
        assert (rows.start, rows.stop) == expected
    passes = Passes(None, frozenset())
    passes.begin(nn.Module(), (), {})
    assert passes.rows(0, 7) == slice(0, 7)


@pytest.mark.parametrize("positions", ["all", "answer"])
def test_means_are_over_real_tokens_alone(positions):
    model = build("llama, grouped queries")
    examples = [
        example(IDS[0].tolist(), [5, 6, 7], 1, "a"),
        example(IDS[1, :9].tolist(), [8], 1, "b"),
    ]
    found = head_means(model, [collate(examples)], positions=positions)
    rows = []
    for one in examples:
        ids = torch.tensor([[*one.prompt_ids.tolist(), *one.target_ids.tolist()]])
        (seen,) = inputs_of(model, 1, lambda ids=ids: logits(model, ids))
        first = len(one.prompt_ids) - 1 if positions == "answer" else 0
        rows.append(seen[0, first:])
    expected = torch.cat(rows).double().mean(dim=0).view(4, 12)
    assert found[1].dtype == torch.float64
    torch.testing.assert_close(found[1], expected, atol=1e-6, rtol=1e-5)


def test_knockouts_can_be_nested():
    model = build("llama, grouped queries")
    first, second = frozenset({(0, 1)}), frozenset({(0, 2)})
    for mode in ("zero", "uniform"):
        with knockout(model, first | second, mode=mode):
            together = logits(model)
        with knockout(model, first, mode=mode), knockout(model, second, mode=mode):
            torch.testing.assert_close(logits(model), together, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("heads", "options", "message"),
    [
        ({(3, 0)}, {}, "head 3-0: the model has layers 0 to 2 and heads 0 to 3"),
        ({(0, 4)}, {}, "head 0-4"),
        ({(-1, 0)}, {}, "head -1-0"),
        ({(0, 0)}, {"mode": "noise"}, "ablation=noise: choose from zero, mean, uniform"),
        ({(0, 0)}, {"mode": "mean"}, "needs the heads' means"),
    ],
)
def test_what_cannot_be_ablated_is_refused(heads, options, message):
    model = build("llama, grouped queries")
    with pytest.raises(InputError, match=message), knockout(model, frozenset(heads), **options):
        pass
    assert num_hooks(model) == 0


def test_a_layer_that_is_not_reached_is_an_error_and_not_a_silent_nothing(monkeypatch):
    model = build("llama, grouped queries", "eager")
    module = sys.modules["sce.interventions.knockout"]
    # As if the model's own attention, which edits no query, were one of ours.
    monkeypatch.setattr(module, "own_attention", lambda base: nullcontext())
    with (
        knockout(model, HEADS, mode="uniform"),
        pytest.raises(InputError, match=r"layers \[0, 2\] of LlamaModel were not reached"),
    ):
        logits(model)


def test_a_model_outside_the_attention_interface_is_refused():
    model = AutoModelForCausalLM.from_config(
        BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=97)
    ).eval()
    with pytest.raises(InputError), knockout(model, frozenset({(0, 0)}), mode="uniform"):
        logits(model)


def test_no_calibration_example_is_an_error():
    with pytest.raises(InputError, match="no example"):
        head_means(build("llama, grouped queries"), [])
    with pytest.raises(InputError, match="positions=some"):
        head_means(build("llama, grouped queries"), [], positions="some")


def test_under_beam_search_every_beam_is_ablated():
    model = build("llama, grouped queries")
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False, "eos_token_id": None}
    options |= {"attention_mask": torch.ones_like(IDS), "pad_token_id": 0}
    with knockout(model, HEADS):
        ablated = model.generate(input_ids=IDS, **options)
    assert torch.equal(ablated, without(model, "zero").generate(input_ids=IDS, **options))
    assert not torch.equal(ablated, model.generate(input_ids=IDS, **options))
