"""Patching by hand on planted models, and on random ones against a plain re-implementation."""

import math
from contextlib import suppress

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig

import planted
from sce.data.batch import collate
from sce.decode import decode, prefix_cache
from sce.errors import InputError
from sce.interventions.patching import Side, patched
from sce.interventions.select import all_heads
from sce.model.adapters import (
    UNTUNED,
    load_adapters,
    require_rope_of_base,
    require_same_base,
    use_adapter,
)
from sce.model.projections import head_outputs
from sce.options import ModelOptions
from test_knockout import LONG, SETTINGS, SHORT, build, example, num_hooks

HEAD = frozenset({(planted.LAYER, planted.HEAD)})
OTHERS = all_heads((3, 4)) - HEAD
HEADS = frozenset({(0, 1), (2, 0), (2, 3)})
BATCH = collate(
    [
        example([7, 9, 30, 44, 12, 60, 33], [5, 6, 7], 1, "a"),
        example([50, 61, 13, 20], [8], 1, "b"),
    ]
)
COLUMN = BATCH.num_prompt - 1


def lesioned() -> nn.Module:
    """The planted model with the head's values gone: what it writes with, W_O, is still there."""
    model = planted.build()
    with torch.no_grad():
        model.model.layers[planted.LAYER].self_attn.v_proj.weight.zero_()
    return model


def two_adapters() -> nn.Module:
    """One tiny base with adapters `source` and `target`."""
    model = build("llama, grouped queries")
    config = LoraConfig(r=2, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    model = get_peft_model(model, config, "source")
    model.add_adapter("target", config)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.mark.parametrize("prefixed", [False, True], ids=["whole", "prefix"])
def test_the_planted_head_s_output_restores_the_answers_and_that_of_others_does_not(prefixed):
    source, target = planted.build(), lesioned()
    batch = collate([SHORT, LONG])
    prefixes = (prefix_cache(target, batch), prefix_cache(source, batch)) if prefixed else None
    own = prefixes[0] if prefixes else None
    intact = decode(source, batch, SETTINGS)
    with patched(
        Side(target), Side(source), HEAD, from_column=batch.num_prompt - 1, prefixes=prefixes
    ):
        restored = decode(target, batch, SETTINGS, own)
    assert [o.answer_ids for o in restored] == [(5, 6, 7), (10, 11)]
    for one, other in zip(restored, intact, strict=True):
        # The rest of the two models is the same, so with the head's output all is.
        assert one.nll == pytest.approx(other.nll, abs=1e-5)
    with patched(
        Side(target), Side(source), OTHERS, from_column=batch.num_prompt - 1, prefixes=prefixes
    ):
        unchanged = decode(target, batch, SETTINGS, own)
    for outcome in unchanged:
        assert outcome.nll == pytest.approx(outcome.num_labels * math.log(32), abs=1e-4)
        assert outcome.answer_ids == (0, 0, 0, 0)


def test_the_reverse_direction_destroys_the_answers():
    source, target = planted.build(), lesioned()
    batch = collate([SHORT, LONG])
    with patched(Side(source), Side(target), HEAD, from_column=batch.num_prompt - 1):
        for outcome in decode(source, batch, SETTINGS):
            assert outcome.nll == pytest.approx(outcome.num_labels * math.log(32), abs=1e-4)
    with patched(Side(source), Side(target), OTHERS, from_column=batch.num_prompt - 1):
        assert [o.answer_ids for o in decode(source, batch, SETTINGS)] == [(5, 6, 7), (10, 11)]


@pytest.mark.parametrize("prefixed", [False, True], ids=["whole", "prefix"])
@pytest.mark.parametrize("adapter", ["source", UNTUNED])
def test_patching_a_model_into_itself_changes_nothing_bit_for_bit(adapter, prefixed):
    model = two_adapters()
    use_adapter(model, adapter)
    side = Side(model, adapter)
    prefixes = None
    if prefixed:
        prefixes = prefix_cache(model, BATCH), prefix_cache(model, BATCH)
    own = prefixes[0] if prefixes else None
    plain = decode(model, BATCH, SETTINGS, own)
    for column in (COLUMN, None):
        with patched(side, side, all_heads((3, 4)), from_column=column, prefixes=prefixes):
            same = decode(model, BATCH, SETTINGS, own)
        assert [(o.nll, o.answer_ids) for o in same] == [(o.nll, o.answer_ids) for o in plain]


@torch.no_grad()
def by_hand(model: nn.Module, ids: torch.Tensor, column: int, heads=HEADS) -> torch.Tensor:
    """Logits of the target patched from the source, both run whole and without a cache."""
    taken, hooks = {}, []
    outputs = head_outputs(model, 4)
    for layer, output in outputs.items():

        def take(module, args, layer=layer):
            taken[layer] = args[0].clone()

        hooks.append(output.projection.register_forward_pre_hook(take))
    model.set_adapter("source")
    model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    hooks = []
    for layer, output in outputs.items():

        def put(module, args, layer=layer, output=output):
            changed = args[0].clone()
            for head in (h for at, h in heads if at == layer):
                own = output.slice_of(head)
                changed[:, column:, own] = taken[layer][:, column:, own]
            return (changed,)

        hooks.append(output.projection.register_forward_pre_hook(put))
    model.set_adapter("target")
    logits = model(input_ids=ids, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return logits


def test_every_step_equals_a_patch_by_hand_without_a_cache():
    model = two_adapters()
    prompt = [7, 9, 30, 44, 12, 60, 33]
    batch = collate([example(prompt, [5, 6], 96)])
    with patched(Side(model, "target"), Side(model, "source"), HEADS, from_column=6):
        (outcome,) = decode(model, batch, SETTINGS)
    emitted = []
    for _ in range(4):
        logits = by_hand(model, torch.tensor([prompt + emitted]), 6)
        emitted.append(int(logits[0, -1].argmax()))
    assert list(outcome.answer_ids) == emitted
    logits = by_hand(model, torch.tensor([[*prompt, 5, 6]]), 6)[0, 6:].log_softmax(-1)
    nll = -sum(float(logits[row, token]) for row, token in enumerate((5, 6, 96)))
    assert outcome.nll == pytest.approx(nll, rel=1e-4)
    model.set_adapter("target")
    assert decode(model, batch, SETTINGS)[0].nll != pytest.approx(nll, rel=1e-3)


def test_all_heads_at_the_answer_s_positions_do_not_make_the_target_the_source():
    model = two_adapters()
    with patched(
        Side(model, "target"), Side(model, "source"), all_heads((3, 4)), from_column=COLUMN
    ):
        everything = [o.nll for o in decode(model, BATCH, SETTINGS)]
    use_adapter(model, "source")
    source = [o.nll for o in decode(model, BATCH, SETTINGS)]
    assert all(abs(a - b) > 1e-3 for a, b in zip(everything, source, strict=True))


def test_prefixes_serve_any_number_of_sets_and_both_directions():
    model = two_adapters()
    sides = {name: Side(model, name) for name in ("source", "target")}
    prefixes = {}
    for name in sides:
        use_adapter(model, name)
        prefixes[name] = prefix_cache(model, BATCH)
    found = {}
    for turn in range(2):
        for taker, giver in (("target", "source"), ("source", "target")):
            for heads in (HEADS, OTHERS):
                both = prefixes[taker], prefixes[giver]
                with patched(sides[taker], sides[giver], heads, from_column=COLUMN, prefixes=both):
                    outcomes = decode(model, BATCH, SETTINGS, prefixes[taker])
                found[turn, taker, heads] = [(o.nll, o.answer_ids) for o in outcomes]
                assert {p.get_seq_length() for p in prefixes.values()} == {COLUMN}
    for (turn, taker, heads), outcomes in found.items():
        assert outcomes == found[1 - turn, taker, heads]
        giver = "source" if taker == "target" else "target"
        with patched(sides[taker], sides[giver], heads, from_column=COLUMN):
            whole = decode(model, BATCH, SETTINGS)
        for (nll, answer), outcome in zip(outcomes, whole, strict=True):
            assert answer == outcome.answer_ids
            assert nll == pytest.approx(outcome.nll, rel=1e-4)


def test_transformers_generate_is_patched_too():
    model = two_adapters()
    prompt = torch.tensor([[7, 9, 30, 44, 12, 60, 33]])
    batch = collate([example(prompt[0].tolist(), [5], 96)])
    with patched(Side(model, "target"), Side(model, "source"), HEADS, from_column=6):
        (outcome,) = decode(model, batch, SETTINGS)
        generated = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=4,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert generated[0, 7:].tolist() == list(outcome.answer_ids)


def test_afterwards_hooks_are_gone_and_the_target_is_on_also_after_an_error():
    model = two_adapters()
    use_adapter(model, "target")
    before = [o.nll for o in decode(model, BATCH, SETTINGS)]
    with suppress(RuntimeError), patched(Side(model, "target"), Side(model, "source"), HEADS):
        decode(model, BATCH, SETTINGS)
        raise RuntimeError("in between")
    assert num_hooks(model) == 0
    assert [o.nll for o in decode(model, BATCH, SETTINGS)] == before


def test_an_error_in_the_source_s_pass_leaves_the_target_on():
    model = two_adapters()
    use_adapter(model, "target")
    before = [o.nll for o in decode(model, BATCH, SETTINGS)]

    def fail(module, args):
        if model.active_adapter == "source":
            raise RuntimeError("in the source")

    handle = head_outputs(model, 4)[1].projection.register_forward_pre_hook(fail)
    with (
        pytest.raises(RuntimeError, match="in the source"),
        patched(Side(model, "target"), Side(model, "source"), HEADS),
    ):
        decode(model, BATCH, SETTINGS)
    handle.remove()
    assert [o.nll for o in decode(model, BATCH, SETTINGS)] == before


@torch.no_grad()
def test_a_cache_that_the_source_knows_nothing_of_is_refused():
    model = two_adapters()
    cache = DynamicCache()
    model(input_ids=torch.tensor([[7, 9, 30]]), past_key_values=cache, use_cache=True)
    with (
        patched(Side(model, "target"), Side(model, "source"), HEADS),
        pytest.raises(InputError, match="hand both in as prefixes"),
    ):
        model(input_ids=torch.tensor([[44]]), past_key_values=cache, use_cache=True)


def test_no_heads_absent_heads_and_models_of_other_shapes_are_refused():
    model = two_adapters()
    side = Side(model, "source")
    with pytest.raises(InputError, match="the set is empty"), patched(side, side, frozenset()):
        pass
    with pytest.raises(InputError, match="head 3-0"), patched(side, side, frozenset({(3, 0)})):
        pass
    with (
        pytest.raises(InputError, match="adapter third"),
        patched(side, Side(model, "third"), HEADS),
    ):
        pass
    other = AutoModelForCausalLM.from_config(
        LlamaConfig(
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=97,
        )
    )
    with pytest.raises(InputError, match="2 x 4"), patched(side, Side(other), HEADS):
        pass
    assert num_hooks(model) == 0


def test_switching_is_what_peft_s_own_switching_is():
    model = two_adapters()
    ids = torch.tensor([[7, 9, 30, 44]])

    @torch.no_grad()
    def logits():
        return model(input_ids=ids, use_cache=False).logits

    model.set_adapter("source")
    source = logits()
    model.set_adapter("target")
    target = logits()
    with model.disable_adapter():
        untuned = logits()
    for name, expected in (("source", source), (UNTUNED, untuned), ("target", target)):
        use_adapter(model, name)
        assert torch.equal(logits(), expected)


def save_adapters(folder, **notes):
    """Adapters as the exporter writes them, with a note beside each."""
    from sce.records import write_json

    model = two_adapters()
    model.save_pretrained(str(folder))
    for name, note in notes.items():
        write_json(folder / name / "sce.json", note)
    return {name: folder / name for name in ("source", "target")}


def test_two_saved_adapters_load_on_one_base_and_give_what_each_gives_alone(tmp_path):
    from sce.model.build import load_adapter

    folders = save_adapters(tmp_path)
    both = load_adapters(build("llama, grouped queries"), folders)
    for name, folder in folders.items():
        alone = load_adapter(build("llama, grouped queries"), folder).eval()
        use_adapter(both, name)
        own, theirs = (decode(m, BATCH, SETTINGS) for m in (both, alone))
        assert [o.nll for o in own] == [o.nll for o in theirs]
    base = build("llama, grouped queries")
    assert load_adapters(base, {}) is base


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        (({"weights_sha256": "a" * 64}, {"weights_sha256": "b" * 64}), "different weights"),
        (({"rope": {"theta": 1e4}}, {"rope": {"theta": 5e5}}), "different rope_theta"),
        (({"rope": {"theta": 1e4}}, {"rope": {"theta": 1e4, "yarn": 4}}), "different rope_scaling"),
    ],
)
def test_adapters_of_different_bases_or_rope_are_refused(tmp_path, notes, message):
    folders = save_adapters(tmp_path, source=notes[0], target=notes[1])
    with pytest.raises(InputError, match=message):
        require_same_base(folders)


def test_the_untuned_model_is_not_put_under_an_adapter_s_scaling(tmp_path):
    folders = save_adapters(tmp_path, target={"rope": {"theta": 1e4, "was": 1e4, "linear": 2.0}})
    with pytest.raises(InputError, match=r"rope_scaling .*, and the untuned model beside it"):
        require_rope_of_base({"target": folders["target"]}, 1e4, ModelOptions(rope_theta=1e4))
    asked = ModelOptions(rope_scaling={"type": "linear", "factor": 2})
    require_rope_of_base({"target": folders["target"]}, 1e4, asked)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    folders = save_adapters(tmp_path)
    (folders["target"] / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"target=.*no adapter_model.safetensors"):
        load_adapters(build("llama, grouped queries"), folders)
    with pytest.raises(InputError, match=r"no adapter_config.json"):
        require_same_base({"source": tmp_path})


def generated(model: nn.Module, ids: torch.Tensor, **options) -> list[list[int]]:
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=4,
        eos_token_id=None,
        pad_token_id=0,
        **options,
    )
    return found[:, ids.shape[1] :].tolist()


PROMPT = torch.tensor([[7, 9, 30, 44, 12, 60, 33]])


def test_beam_search_is_refused_and_leaves_the_model_as_it_was():
    model = two_adapters()
    plain = generated(model, PROMPT, do_sample=False)
    with (
        patched(Side(model, "target"), Side(model, "source"), HEADS, from_column=6),
        pytest.raises(InputError, match=r"beam search.* num_beams=1") as refused,
    ):
        generated(model, PROMPT, do_sample=False, num_beams=2)
    assert "\n" not in str(refused.value)
    assert num_hooks(model) == 0
    use_adapter(model, "source")
    assert generated(model, PROMPT, do_sample=False) == plain


@torch.no_grad()
def test_a_cache_that_was_patched_can_be_shuffled_again_afterwards():
    model, cache = two_adapters(), DynamicCache()
    ids = PROMPT.repeat(2, 1)
    with patched(Side(model, "target"), Side(model, "source"), HEADS):
        model(input_ids=ids, past_key_values=cache, use_cache=True)
        with pytest.raises(InputError, match="beam search"):
            cache.reorder_cache(torch.tensor([1, 0]))
    before = cache.layers[0].keys.clone()
    cache.reorder_cache(torch.tensor([1, 0]))
    assert torch.equal(cache.layers[0].keys, before[[1, 0]])


@torch.no_grad()
def test_a_pass_of_other_rows_than_its_caches_is_refused():
    model = two_adapters()
    prefixes = prefix_cache(model, BATCH), prefix_cache(model, BATCH)
    with (
        patched(Side(model, "target"), Side(model, "source"), HEADS, prefixes=prefixes),
        pytest.raises(InputError, match="a pass of 4 rows goes on from a cache of 2"),
    ):
        model(input_ids=torch.tensor([[44]] * 4), past_key_values=prefixes[0], use_cache=True)


def test_assisted_decoding_and_sampling_are_patched_as_greedy_decoding_is():
    model, assistant = two_adapters(), build("llama, grouped queries", seed=2)
    with patched(Side(model, "target"), Side(model, "source"), HEADS, from_column=6):
        greedy = generated(model, PROMPT, do_sample=False)
        # What the assistant proposes is thrown away where it is wrong, and the cache cropped.
        assert generated(model, PROMPT, do_sample=False, assistant_model=assistant) == greedy
        assert generated(model, PROMPT, do_sample=True, top_k=1) == greedy
        several = generated(model, PROMPT, do_sample=True, top_k=1, num_return_sequences=2)
        assert several == greedy * 2
    model.set_adapter("target")
    assert generated(model, PROMPT, do_sample=False) != greedy
