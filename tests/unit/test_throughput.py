"""Throughput: real tokens, and operations that agree with a count of what torch computes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed import ReduceOp
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, YoutuConfig

import callbacks.throughput as throughput
from callbacks import Throughput
from callbacks.throughput import training_flops
from conftest import tiny_llama_config
from families import CONFIGS, HEADS, LATENT, LAYERS, WINDOW
from sce.data.batch import collate, collate_shared
from sce.model import build
from sce.model.flops import FlopCounter, Flops, spans
from sce.model.layers import wrap_layers
from sce.options import LoraOptions, ModelOptions
from test_callbacks import metrics, module  # noqa: F401 - a fixture
from test_decode import example

TUNED = ["attention", "all_linear", "none"]


def tuned(config, lora: str = "attention", kept: bool | str = False, **lora_options) -> nn.Module:
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sce_fused")
    model.requires_grad_(False)
    wrap_layers(model, ModelOptions(activation_checkpointing=kept))
    return build.tune(model, LoraOptions(name=lora, **lora_options))


def test_operations_of_a_small_model_by_hand():
    model = tuned(tiny_llama_config(), r=2)
    q, kv, mlp = 48 * 64, 48 * 32, 48 * 64
    inputs, rest = q + 2 * kv, q + 3 * mlp  # q, k and v; o and the MLP
    # A of q, k and v reads 48 numbers, A of o 64; B writes 64, 32, 32 and 48.
    a_inputs, a_output, b = 2 * 3 * 48, 2 * 64, 2 * (64 + 32 + 32 + 48)
    upper = 4 * (inputs + rest) + 6 * (a_inputs + a_output + b)
    # The first layer reads embeddings, which want no gradient.
    first = 2 * inputs + 4 * rest + 4 * a_inputs + 6 * (a_output + b)
    attention = 3 * 3 * 4 * (4 * 16) * (10**2 + 20**2) / 2
    assert training_flops(model, [10, 20]) == 30 * (first + 2 * upper) + attention


def counted(model: nn.Module, tokens: int) -> int:
    """Operations of all products with weights, by torch's own count of a pass."""
    base = build.base_of(model)
    with FlopCounterMode(display=False) as counter:
        ids = torch.full((1, tokens), 5)
        base.model(input_ids=ids, use_cache=False).last_hidden_state.sum().backward()
    return sum(
        number
        for operation, number in counter.get_flop_counts()["Global"].items()
        if "scaled_dot_product" not in str(operation)
    )


@pytest.mark.parametrize("kept", [False, "full", "selective"])
@pytest.mark.parametrize("lora", TUNED)
def test_products_are_those_that_torch_computes(lora, kept):
    model = tuned(tiny_llama_config(), lora, kept)
    flops = FlopCounter(model).of([(50, 0)])
    forward = 3 * 4 * (4 * 16) * 50**2 / 2
    again = forward if kept == "full" else 0
    products = flops.needed + flops.recomputed - 3 * forward - again
    assert products == counted(model, 50)


@pytest.mark.parametrize("lora", TUNED)
def test_products_of_latent_attention_are_those_that_torch_computes(lora):
    """Projections behind projections, whose inputs want gradients in the first layer too."""
    shape = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, **LATENT}
    config = YoutuConfig(vocab_size=97, hidden_size=48, intermediate_size=64, **shape)
    model = tuned(config, lora)
    a_pair = LAYERS * 2 * HEADS * (24 + 12)  # queries with keys and weights with values
    products = FlopCounter(model).of([(50, 0)]).needed - 3 * a_pair * 50**2 / 2
    assert products == counted(model, 50)


def test_recomputation_is_no_part_of_what_training_needs():
    plain, full, selective = (
        FlopCounter(tuned(tiny_llama_config(), kept=kept)).of([(50, 0)])
        for kept in (False, "full", "selective")
    )
    assert plain.needed == full.needed == selective.needed
    assert plain.recomputed == 0 < selective.recomputed < full.recomputed


def test_nothing_goes_back_below_the_first_trained_layer():
    model = tuned(tiny_llama_config())
    for name, parameter in model.named_parameters():
        if ".layers.0." in name or ".layers.1." in name:
            parameter.requires_grad_(False)
    flops = FlopCounter(model).of([(50, 0)])
    # Layers 0 and 1 forward only, layer 2 forward and backward.
    assert flops.needed - (1 + 1 + 3) * 4 * 64 * 50**2 / 2 == counted(model, 50)


def test_a_llama_of_8b_takes_53_7_gflop_a_token_at_32k():
    config = LlamaConfig(
        **{"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336},
        **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    )
    with torch.device("meta"):
        model = tuned(config, kept="selective")
    flops = FlopCounter(model).of([(32768, 0)])
    assert flops.needed / 32768 / 1e9 == pytest.approx(53.68, abs=0.005)
    # Selective: the forward pass again, without attention (8.59) and the last product of each MLP.
    assert flops.recomputed / 32768 / 1e9 == pytest.approx(10.21, abs=0.005)


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_a_window_bounds_what_a_token_is_multiplied_with(name):
    counter = FlopCounter(tuned(CONFIGS[name]))
    tokens = 40
    local = WINDOW**2 / 2 + (tokens - WINDOW) * WINDOW
    pairs = 3 * local if name == "mistral" else 2 * local + tokens**2 / 2
    weights = counter.of([(1, 0)]).needed - 3 * 3 * (4 * 64) / 2
    assert counter.of([(tokens, 0)]).needed == weights * tokens + 3 * (4 * 64) * pairs


def test_a_token_meets_the_experts_it_is_sent_to():
    model = tuned(CONFIGS["mixtral"])
    experts = sum(p.numel() for n, p in model.named_parameters() if "experts." in n)
    dense = FlopCounter(model).of([(1, 0)]).needed
    model.config.num_experts_per_tok = 4
    # All four experts rather than two, forward and backward to the activations.
    assert FlopCounter(model).of([(1, 0)]).needed - dense == 4 * experts / 2


def test_spans_of_a_batch_are_its_real_tokens():
    batch = collate([example(list(range(2, 12)), [3], [5, 6], 1), example([3, 4], [0], [5], 1)])
    assert spans(batch) == [(12, 0), (3, 0)]
    assert sum(tokens for tokens, _ in spans(batch)) == batch.num_tokens


def test_a_shared_context_counts_once():
    context = list(range(10, 30))
    group = [example([*context, *rest], [3], [5, 6], 1) for rest in ([40, 41], [50, 51, 52])]
    batch = collate_shared([group])
    assert spans(batch) == [(20, 0), (4, 20), (5, 20)]
    assert sum(tokens for tokens, _ in spans(batch)) == batch.num_tokens
    counter = FlopCounter(tuned(tiny_llama_config()))
    shared, apart = counter.of(spans(batch)), counter.of([(24, 0), (25, 0)])
    context_alone = counter.of([(20, 0)])
    assert apart.needed - shared.needed == pytest.approx(context_alone.needed)


BATCH = collate([example([3, 4, 5], [0], [5], 1)])


@pytest.fixture
def clock(monkeypatch):
    def runs(*seconds: float) -> None:
        times = iter(seconds)
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(times))

    return runs


def test_real_tokens_and_the_share_of_scoring(module, clock):  # noqa: F811
    clock(0.0, 2.0, 2.0, 3.0, 7.0, 8.0)
    module.net = tuned(tiny_llama_config(), kept="full")
    callback = Throughput()
    callback.on_train_batch_start(module.trainer, module, BATCH, 0)  # 0
    callback.on_train_batch_end(module.trainer, module, None, BATCH, 0)  # 2: 2 tokens a second
    callback.on_validation_start(module.trainer, module)  # 2
    callback.on_validation_batch_start(module.trainer, module, BATCH, 0, 1)  # 3
    callback.on_validation_batch_end(module.trainer, module, None, BATCH, 0, 1)  # 7: 4 s of scoring
    callback.on_validation_end(module.trainer, module)  # 8: 6 s in all
    found = metrics(module)
    assert found["perf/tokens_per_s_per_device"] == pytest.approx(2)
    assert found["perf/scoring_share_of_validation"] == pytest.approx(4 / 6)
    flops = FlopCounter(module.net).of([(4, 0)])
    share = flops.recomputed / (flops.needed + flops.recomputed)
    assert found["perf/recomputed_share"] == pytest.approx(share)
    assert "perf/mfu" not in found


def test_mfu_counts_no_recomputation_and_hfu_does(module, clock, monkeypatch):  # noqa: F811
    counter = SimpleNamespace(of=lambda _: Flops(needed=500.0, recomputed=100.0))
    monkeypatch.setattr(throughput, "FlopCounter", lambda _: counter)
    monkeypatch.setattr(throughput, "_peak_flops", lambda _: 1000.0)
    module.net = nn.Identity()
    callback = Throughput()
    for step in range(2):  # counted afresh after each validation
        clock(0.0, 2.0, 2.0, 3.0)
        callback.on_train_batch_start(module.trainer, module, BATCH, step)
        callback.on_train_batch_end(module.trainer, module, None, BATCH, step)
        callback.on_validation_start(module.trainer, module)
        callback.on_validation_end(module.trainer, module)
        assert metrics(module)["perf/mfu"] == pytest.approx(0.25)
        assert metrics(module)["perf/hfu"] == pytest.approx(0.3)
        assert metrics(module)["perf/recomputed_share"] == pytest.approx(1 / 6)


def test_tokens_are_a_device_s_own_and_time_is_that_of_the_slowest(module, clock, monkeypatch):  # noqa: F811
    """Four ranks with as many tokens each, of which one took five times as long."""
    answers = {ReduceOp.SUM: lambda values: [4 * v for v in values]}
    answers[ReduceOp.MAX] = lambda values: [10.0, values[1]]
    monkeypatch.setattr(throughput, "_over_ranks", lambda _, values, how: answers[how](values))
    monkeypatch.setattr(throughput, "_peak_flops", lambda _: 1000.0)
    counter = SimpleNamespace(of=lambda _: Flops(needed=500.0, recomputed=0.0))
    monkeypatch.setattr(throughput, "FlopCounter", lambda _: counter)
    clock(0.0, 2.0, 2.0, 3.0)
    module.net, module.trainer.world_size = nn.Identity(), 4
    callback = Throughput()
    callback.on_train_batch_start(module.trainer, module, BATCH, 0)
    callback.on_train_batch_end(module.trainer, module, None, BATCH, 0)
    callback.on_validation_start(module.trainer, module)
    callback.on_validation_end(module.trainer, module)
    assert metrics(module)["perf/tokens_per_s_per_device"] == pytest.approx(4 / 10)
    assert metrics(module)["perf/mfu"] == pytest.approx(500 / 10 / 1000)


def test_an_architecture_that_cannot_be_counted_has_no_mfu(module, clock, monkeypatch):  # noqa: F811
    def refuse(_):
        raise throughput.InputError("no output projection by a known name")

    monkeypatch.setattr(throughput, "FlopCounter", refuse)
    monkeypatch.setattr(throughput, "_peak_flops", lambda _: 1000.0)
    clock(0.0, 2.0, 2.0, 3.0)
    module.net = nn.Identity()
    callback = Throughput()
    callback.on_train_batch_start(module.trainer, module, BATCH, 0)
    callback.on_train_batch_end(module.trainer, module, None, BATCH, 0)
    callback.on_validation_start(module.trainer, module)
    callback.on_validation_end(module.trainer, module)
    assert metrics(module)["perf/tokens_per_s_per_device"] == pytest.approx(2)
    assert not {"perf/mfu", "perf/hfu", "perf/recomputed_share"} & metrics(module).keys()


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L40", 181),
        ("NVIDIA L4", 121),
    ],
)
def test_the_peak_is_the_dense_rate_of_the_gpu_s_name(monkeypatch, name, tflops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    on_gpu = SimpleNamespace(device=torch.device("cuda", 0))
    assert throughput._peak_flops(on_gpu) == pytest.approx(tflops * 1e12)


def test_lightning_is_asked_for_the_gpus_that_are_not_in_our_table(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA GeForce RTX 4090")
    on_gpu = SimpleNamespace(device=torch.device("cuda", 0))
    assert throughput._peak_flops(on_gpu) == pytest.approx(8.26e13)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA T400 4GB")
    monkeypatch.setattr(throughput, "get_available_flops", lambda *_: None)
    assert throughput._peak_flops(on_gpu) is None
    assert throughput._peak_flops(SimpleNamespace(device=torch.device("cpu"))) is None


def test_memory_is_that_of_the_device_the_run_is_on(monkeypatch):
    """A run on the CPU of a machine with a GPU has its own."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "max_memory_allocated", lambda device=None: asked.append(device) or 2**31
    )
    assert throughput._peak_memory_gib(torch.device("cpu")) > 0
    assert asked == []
    assert throughput._peak_memory_gib(torch.device("cuda", 3)) == 2
    assert asked == [torch.device("cuda", 3)]
