"""Every backend on this machine against eager `output_attentions=True`; each check can fail."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from sce.errors import InputError
from sce.model import attention
from sce.model import backends as choices
from sce.model.capture import probing
from sce.model.projections import attention_modules
from sce.model.reads import LookedAt

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 97,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "sliding window": MistralConfig(**SMALL, sliding_window=11),
    "qwen3": Qwen3Config(**SMALL),
    "absolute positions": GPT2Config(n_embd=48, n_layer=3, n_head=4, vocab_size=97),
    "soft-capping, local layers": Gemma2Config(
        **SMALL, sliding_window=11, attn_logit_softcapping=20.0, query_pre_attn_scalar=16
    ),
}
PADDINGS = ("none", "left", "right")
ROWS = slice(24, 33)


def build(name: str, implementation: str):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=implementation)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)  # attention that prefers something
    return model.eval()


def inputs(padding: str):
    torch.manual_seed(3)
    ids = torch.randint(3, 97, (3, 40))
    mask = torch.ones_like(ids)
    if padding == "left":
        mask[0, :9], mask[2, :3] = 0, 0
    if padding == "right":
        mask[0, 34:], mask[2, 36:] = 0, 0
    if padding == "none":
        return {"input_ids": ids}
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def eager_argmax(name: str, padding: str) -> tuple[torch.Tensor, torch.Tensor]:
    model = build(name, "eager")
    with torch.no_grad():
        out = model(**inputs(padding), output_attentions=True, use_cache=False)
    looked_at = torch.stack([a[:, :, ROWS].argmax(-1) for a in out.attentions], dim=1)
    return looked_at, out.logits


def probed(name: str, padding: str, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    model = build(name, attention.IMPLEMENTATIONS[backend])
    with torch.no_grad(), probing(attention_modules(model)) as probe:
        probe.reads = {"at": LookedAt(torch.arange(ROWS.start, ROWS.stop).expand(3, -1))}
        out = model(**inputs(padding), use_cache=False)
        return probe.take(3)["at"], out.logits


def backends(name: str) -> list[str]:
    return ["sdpa", "eager"]


CASES = [
    pytest.param(name, padding, backend, id=f"{name}-{padding}-{backend}")
    for name in CONFIGS
    for padding in PADDINGS
    for backend in backends(name)
]


@pytest.mark.parametrize(("name", "padding", "backend"), CASES)
def test_prefill_rows_and_outputs_agree_with_eager(name, padding, backend):
    expected, logits = eager_argmax(name, padding)
    found, own_logits = probed(name, padding, backend)
    assert torch.equal(found, expected)
    real = inputs(padding).get("attention_mask", torch.ones(3, 40)).bool()
    torch.testing.assert_close(own_logits[real], logits[real], atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("name", ["llama", "sliding window", "qwen3", "absolute positions"])
@pytest.mark.parametrize("own_cache", [True, False], ids=["full cache", "model's cache"])
def test_decoding_steps_agree_with_eager(name, padding, own_cache):
    expected, logits = eager_argmax(name, padding)
    model, batch = build(name, "sce_fused"), inputs(padding)
    # The model's own cache drops keys outside the window: indices must be shifted back.
    cache = DynamicCache() if own_cache else DynamicCache(config=model.config)
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    found, step_logits = [], []
    with torch.no_grad(), probing(attention_modules(model)) as probe:
        for step in range(ROWS.start, ROWS.stop):
            start = 0 if step == ROWS.start else step
            rows = torch.full((3, 1), step) if start == 0 else None
            probe.reads = {"at": LookedAt(rows)}
            out = model(
                input_ids=batch["input_ids"][:, start : step + 1],
                attention_mask=None if mask is None else mask[:, : step + 1],
                position_ids=None if positions is None else positions[:, start : step + 1],
                past_key_values=cache,
                use_cache=True,
            )
            found.append(probe.take(3)["at"])
            step_logits.append(out.logits[:, -1])
    assert torch.equal(torch.cat(found, dim=-1), expected)
    torch.testing.assert_close(
        torch.stack(step_logits, dim=1), logits[:, ROWS], atol=2e-4, rtol=1e-3
    )


def broken(monkeypatch, **changes):
    """Have every mask told with these fields changed."""
    tell = attention.tell_rows

    def tell_wrong(*args, **kwargs):
        return dataclasses.replace(tell(*args, **kwargs), **changes)

    from transformers.masking_utils import AttentionMaskInterface

    for name in attention.IMPLEMENTATIONS.values():
        monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, tell_wrong)


def causal_only(b, h, q, k):
    return k <= q


def test_the_check_fails_without_the_padding_mask(monkeypatch):
    broken(monkeypatch, function=causal_only, padding=None)
    assert not torch.equal(probed("llama", "left", "sdpa")[0], eager_argmax("llama", "left")[0])


def test_the_decoding_check_fails_without_the_padding_mask(monkeypatch):
    broken(monkeypatch, function=causal_only, padding=None)
    with pytest.raises(AssertionError):
        test_decoding_steps_agree_with_eager("llama", "left", own_cache=True)


def test_the_check_fails_without_the_causal_mask(monkeypatch):
    broken(monkeypatch, function=lambda b, h, q, k: k >= 0 * q)
    assert not torch.equal(probed("llama", "none", "sdpa")[0], eager_argmax("llama", "none")[0])


def test_the_check_fails_without_the_window(monkeypatch):
    broken(monkeypatch, function=causal_only, window=None)
    found, expected = (
        probed("sliding window", "none", "sdpa")[0],
        eager_argmax("sliding window", "none"),
    )
    assert not torch.equal(found, expected[0])


def test_the_check_fails_without_the_shift_of_a_window_cache(monkeypatch):
    broken(monkeypatch, key_offset=0)
    with pytest.raises(AssertionError):
        test_decoding_steps_agree_with_eager("sliding window", "none", own_cache=False)


class NoSquares(TorchDispatchMode):
    """Fails as soon as an operation makes a tensor with two dimensions of at least `size`."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and sum(s >= self.size for s in tensor.shape) > 1:
                raise AssertionError(f"{func} made a tensor of shape {tuple(tensor.shape)}")
        return result


LENGTH = 1200  # above every width of the tiny models


def long_batch():
    torch.manual_seed(0)
    ids = torch.randint(3, 97, (2, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, :100] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", ["llama", "sliding window"])
def test_no_tensor_of_keys_by_keys_is_made(name):
    model = build(name, "sce_fused")
    with torch.no_grad(), probing(attention_modules(model)) as probe, NoSquares(LENGTH - 100):
        probe.reads = {"at": LookedAt(torch.arange(LENGTH - 8, LENGTH).expand(2, -1))}
        cache = DynamicCache()
        model(**long_batch(), past_key_values=cache, use_cache=True)
        probe.take(3)
        probe.reads = {"at": LookedAt(None)}
        mask = torch.nn.functional.pad(long_batch()["attention_mask"], (0, 1), value=1)
        model(
            input_ids=torch.ones(2, 1, dtype=torch.long),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        )
        probe.take(3)


@pytest.mark.parametrize("name", ["llama", "sliding window"])
def test_no_tensor_of_keys_by_keys_is_made_in_training(name):
    model = build(name, "sce_fused").train()
    with NoSquares(LENGTH - 100):
        model(**long_batch(), use_cache=False, logits_to_keep=4).logits.sum().backward()


def test_that_check_fails_under_output_attentions():
    model = build("llama", "eager")
    with (
        torch.no_grad(),
        NoSquares(LENGTH - 100),
        pytest.raises(AssertionError, match="made a tensor"),
    ):
        model(**long_batch(), output_attentions=True)


def test_gradients_equal_those_of_stock_sdpa():
    gradients = []
    for implementation in ("sdpa", "sce_fused"):
        model = build("llama", implementation).train()
        batch = inputs("left")
        logits = model(**batch, use_cache=False).logits
        (logits * batch["attention_mask"][..., None]).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-3, rtol=1e-3)


def test_a_model_outside_the_attention_interface_is_refused():
    from transformers import BloomConfig

    from sce.data.batch import collate
    from sce.decode import DecodeSettings, decode
    from test_decode import SHORT

    model = AutoModelForCausalLM.from_config(
        BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=97)
    ).eval()
    with pytest.raises(InputError, match="AttentionInterface"):
        decode(model, collate([SHORT]), DecodeSettings())


def test_auto_says_what_it_took_and_why(monkeypatch):
    def auto(**changes):
        return attention.choose("auto", **{"on_gpu": True, "dtype": "bfloat16", **changes})

    def machine(capability: int, *modules: str, packages=()) -> None:
        names = {"flash_attn": list(packages)} if packages else {}
        monkeypatch.setattr(choices, "packages_distributions", lambda: names)
        monkeypatch.setattr(choices, "find_spec", lambda name: name in modules or None)
        monkeypatch.setattr(choices, "import_module", lambda name: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (capability, 0))

    machine(8)
    assert auto(on_gpu=False).backend == "sdpa"
    assert auto(on_gpu=False).reason.endswith("it needs a GPU, and this run is on the CPU")
    assert "bfloat16" in auto(dtype="float32").reason
    assert auto().backend == "sdpa"
    assert "version 2 needs the package flash-attn" in auto().reason
    machine(9, "flash_attn", "flash_attn_interface", "flash_attn.cute")
    assert auto().backend == "flash_attention_4"
    machine(9, "flash_attn", "flash_attn_interface")
    assert auto().backend == "flash_attention_3"
    assert "version 4 needs the package flash-attn-4" in auto().reason
    machine(8, "flash_attn", "flash_attn.cute", packages=["flash-attn-4"])  # which version 2 is not
    assert "version 2 needs the package flash-attn" in auto().reason
    machine(9, "flash_attn", "flash_attn.cute", packages=["flash_attn"])  # the part, not version 4
    assert auto().backend == "flash_attention_2"
    machine(8, "flash_attn", "flash_attn_interface", "flash_attn.cute")
    assert auto().backend == "flash_attention_2"
    assert "version 3 needs a GPU of compute capability 9.x, and this one is 8.x" in auto().reason
    with pytest.raises(InputError, match=r"9\.x or 10\.x, and this one is 8\.x; use"):
        attention.choose("flash_attention_4", on_gpu=True, dtype="bfloat16")
    with pytest.raises(InputError, match="a GPU"):
        attention.choose("flash_attention_2", on_gpu=False, dtype="bfloat16")
    with pytest.raises(InputError, match="choose from auto"):
        attention.choose("fast", on_gpu=True, dtype="bfloat16")


@pytest.mark.parametrize(
    ("cpu", "told"),
    [
        ({"architecture": "x86_64", "avx512_f": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": True}, False),
        ({"architecture": "x86_64", "amx_bf16": True}, False),
        ({"architecture": "arm64"}, False),  # not known to be slow
        ({}, False),
    ],
)
def test_a_cpu_without_bfloat16_is_told_of(monkeypatch, cpu, told):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
    lines = attention.choose("auto", on_gpu=False, dtype="bfloat16").lines
    assert lines[0].startswith("attention  sdpa (auto: no flash-attn")
    assert ["products in float32, rounded" in line for line in lines[1:]] == [True] * told
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    for on_gpu, dtype in ((True, "bfloat16"), (False, "float32")):
        assert len(attention.choose("sdpa", on_gpu=on_gpu, dtype=dtype).lines) == 1
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # torch before it had it
    assert len(attention.choose("auto", on_gpu=False, dtype="bfloat16").lines) == 1


def test_flash_attention_4_without_flash_attn_is_absent_and_no_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    with pytest.raises(InputError, match="needs the package flash-attn-4"):
        attention.choose("flash_attention_4", on_gpu=True, dtype="bfloat16")


def test_a_flash_attn_that_does_not_load_is_not_taken(monkeypatch, tmp_path):
    """As a wheel for another torch does, whose parts fail with it."""
    (tmp_path / "flash_attn").mkdir()
    lines = "raise ImportError('flash_attn_2_cuda.so: undefined symbol:\\n _ZNK3c10')\n"
    (tmp_path / "flash_attn" / "__init__.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    choice = attention.choose("auto", on_gpu=True, dtype="bfloat16")
    assert choice.backend == "sdpa"
    why = "flash-attn that loads (ImportError: flash_attn_2_cuda.so: undefined symbol: _ZNK3c10)"
    assert f"version 2 needs a {why}" in choice.reason
    for backend in ("flash_attention_2", "flash_attention_4"):
        with pytest.raises(InputError, match=r"undefined symbol.*; use attention=auto") as error:
            attention.choose(backend, on_gpu=True, dtype="bfloat16")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", attention.IMPLEMENTATIONS)
def test_a_model_builds_under_every_registered_name(backend):
    assert build("llama", attention.IMPLEMENTATIONS[backend]) is not None


@pytest.mark.parametrize("version", [2, 3, 4])
def test_flash_is_handed_the_rows_it_expects(monkeypatch, version):
    """Without a GPU: what would go to flash-attn, with the kernel's place taken by SDPA."""
    seen = []

    def kernel(query, key, value, padding, **kwargs):
        seen.append((padding, kwargs["attn_implementation"], kwargs["is_causal"]))
        q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
        output = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=kwargs["softmax_scale"], enable_gqa=True
        )
        return output.transpose(1, 2)

    monkeypatch.setattr(attention, "_flash_attention_forward", kernel)
    expected, logits = eager_argmax("llama", "none")
    found, own_logits = probed("llama", "none", f"flash_attention_{version}")
    assert torch.equal(found, expected)
    torch.testing.assert_close(own_logits, logits, atol=2e-4, rtol=1e-3)
    assert seen == [(None, f"flash_attention_{version}", True)] * 3
    seen.clear()
    probed("llama", "left", f"flash_attention_{version}")
    assert seen[0][0].tolist() == inputs("left")["attention_mask"].bool().tolist()


def test_flash_is_handed_values_as_wide_as_keys(monkeypatch):
    """Latent attention's are narrower, which flash-attn 2 does not take."""
    import families

    def kernel(query, key, value, padding, **kwargs):
        assert query.shape[-1] == key.shape[-1] == value.shape[-1] == 24
        return families.causal_kernel(query, key, value, padding, **kwargs)

    monkeypatch.setattr(attention, "_flash_attention_forward", kernel)
    ids = torch.randint(5, 90, (2, 40), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        flash, eager = (families.build("deepseek_v3", n)(ids).logits for n in ("sce_fa2", "eager"))
    torch.testing.assert_close(flash, eager, atol=2e-4, rtol=1e-3)


def test_sinks_never_go_to_a_flash_kernel_that_would_leave_them_out(monkeypatch):
    import families

    def kernel(*args, **kwargs):
        raise AssertionError("flash-attn 2 has no sinks")

    monkeypatch.setattr(attention, "_flash_attention_forward", kernel)
    ids = torch.tensor([[3, 5, 7, 4, 6, 9, 8, 3, 5, 5]])
    with torch.no_grad():
        flash, eager = (families.build("gpt_oss", n)(ids).logits for n in ("sce_fa2", "eager"))
    torch.testing.assert_close(flash, eager, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("backend", ["sdpa", "flash_attention_2", "eager"])
def test_packed_rows_see_their_own_sequence_alone(monkeypatch, backend):
    import families

    monkeypatch.setattr(attention, "_flash_attention_forward", families.causal_kernel)
    model = build("llama", attention.IMPLEMENTATIONS[backend])
    ids = torch.randint(5, 90, (1, 29), generator=torch.Generator().manual_seed(2))
    parts = ids[:, :12], ids[:, 12:]
    positions = torch.cat([torch.arange(part.shape[1]) for part in parts])[None]
    with torch.no_grad():
        apart = torch.cat([model(part, use_cache=False).logits for part in parts], dim=1)
        packed = model(ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(packed, apart, atol=2e-4, rtol=1e-3)


def test_masks_cut_into_chunks_do_not_go_to_a_flash_kernel(monkeypatch):
    """Llama 4's text model: half of its layers see no further back than their own chunk."""
    import families

    monkeypatch.setattr(attention, "_flash_attention_forward", families.causal_kernel)
    config = families.chunked_config()
    ids = torch.randint(5, 90, (2, 40), generator=torch.Generator().manual_seed(2))
    found = []
    for name in ("sce_fa2", "sce_fused", "eager"):
        torch.manual_seed(1)
        model = families.AutoModelForCausalLM.from_config(config, attn_implementation=name).eval()
        with torch.no_grad():
            found.append(model(ids, use_cache=False).logits)
    for logits in found[:2]:
        torch.testing.assert_close(logits, found[2], atol=2e-4, rtol=1e-3)


def test_logits_are_float32_under_autocast_too():
    query, key = torch.randn(1, 4, 3, 16), torch.randn(1, 2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention.row_logits(query, key, 1.0).dtype == torch.float32


@pytest.mark.skipif(
    not torch.cuda.is_available() or choices.find_spec("flash_attn") is None,
    reason="needs a GPU and flash-attn",
)
@pytest.mark.parametrize("padding", PADDINGS)
def test_flash_attention_agrees_with_eager(padding):
    model = build("llama", "sce_fa2").to("cuda", torch.bfloat16)
    batch = {name: tensor.cuda() for name, tensor in inputs(padding).items()}
    with torch.no_grad(), probing(attention_modules(model)) as probe:
        rows = torch.arange(ROWS.start, ROWS.stop, device="cuda").expand(3, -1)
        probe.reads = {"at": LookedAt(rows)}
        model(**batch, use_cache=False)
        found = probe.take(3)["at"].cpu()
    agreement = (found == eager_argmax("llama", padding)[0]).float().mean()
    assert agreement > 0.9  # bfloat16 moves near-ties
