"""Recomputed and compiled layers: the same loss and gradients, less memory, nothing seen twice."""

import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

import test_shared_context as shared_context
from families import CONFIGS, LAYERS
from sce.errors import InputError
from sce.model import attention, build, layers
from sce.model.capture import probing
from sce.model.layers import decoder_layers, recomputed, wrap_layers
from sce.model.projections import attention_modules
from sce.model.reads import LookedAt
from sce.options import LoraOptions, ModelOptions

FULL, SELECTIVE = {"activation_checkpointing": True}, {"activation_checkpointing": "selective"}
KINDS = ["llama", "gemma2", "gpt2", "gpt_oss", "mixtral", "lfm2"]


def tuned(name: str, dropout: float = 0.0, num_layers: int = 3, **asked) -> nn.Module:
    """The family's tiny model with an adapter that does something, its layers as asked for."""
    torch.manual_seed(1)
    config = deepcopy(CONFIGS[name])
    config.num_hidden_layers = num_layers
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sce_fused")
    model.requires_grad_(False)
    wrap_layers(model, ModelOptions(dtype="float32", **asked))
    adapted = build.add_lora(model, LoraOptions(r=2, dropout=dropout))
    generator = torch.Generator().manual_seed(3)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            parameter.data.normal_(generator=generator)
    return adapted


def trained(model: nn.Module, tokens: int = 40, pad: int = 7) -> tuple[float, dict]:
    """Loss and gradients of a batch of two, one of them padded."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(3, 90, (2, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :pad] = 0
    torch.manual_seed(5)
    model.zero_grad()
    logits = model(
        input_ids=ids,
        attention_mask=mask if pad else None,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=5,
    ).logits
    loss = logits.float().logsumexp(-1).sum()
    loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), grads


@pytest.mark.parametrize("asked", [FULL, SELECTIVE, {**SELECTIVE, "offload_activations": True}])
@pytest.mark.parametrize("name", KINDS)
def test_recomputation_changes_neither_loss_nor_gradients(name, asked):
    loss, grads = trained(tuned(name, dropout=0.1))
    model = tuned(name, dropout=0.1, **asked)
    assert recomputed(model) == ("full" if asked is FULL else "selective")
    again, same = trained(model)
    assert again == loss
    assert grads.keys() == same.keys()
    assert all(torch.equal(grads[key], same[key]) for key in grads)


def calls(monkeypatch, target: object, name: str) -> list:
    """Every call of a function from now on."""
    seen, original = [], getattr(target, name)

    def counted(*args, **kwargs):
        seen.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(target, name, counted)
    return seen


class Operations(TorchDispatchMode):
    """Counts what is computed; entered first, it sees nothing of what checkpoints had kept."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket._qualified_op_name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("asked", "kernels"), [({}, 3), (FULL, 6), (SELECTIVE, 3)])
def test_selective_recomputation_keeps_what_attention_put_out(asked, kernels):
    model = tuned("llama", **asked)
    with Operations() as seen:
        trained(model, pad=0)
    assert seen.counts["aten::_scaled_dot_product_flash_attention_for_cpu"] == kernels
    assert seen.counts["aten::silu"] == (3 if not asked else 6)  # never kept


def test_values_narrower_than_keys_go_through_the_fused_kernel_too():
    """SDPA would make a matrix of tokens x tokens of them."""
    model = tuned("deepseek_v3")
    with Operations() as seen:
        trained(model, pad=0)
    assert seen.counts["aten::_scaled_dot_product_flash_attention_for_cpu"] == LAYERS


def saved_bytes(model: nn.Module) -> int:
    """What autograd keeps between forward and backward, without weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.full((1, 64), 5), use_cache=False, logits_to_keep=1)
    return sum(kept.values())


def test_recomputation_saves_memory():
    assert saved_bytes(tuned("llama", **FULL)) < saved_bytes(tuned("llama")) / 4


def test_the_layers_inputs_and_nothing_else_go_to_the_host(monkeypatch):
    moved: list[torch.Size] = []

    def keep(tensor):
        moved.append(tensor.shape)
        return tensor

    monkeypatch.setattr(layers, "save_on_cpu", lambda **_: saved_tensors_hooks(keep, lambda t: t))
    trained(tuned("llama", **FULL, offload_activations=True))
    hidden = [shape for shape in moved if shape.numel()]
    assert hidden == [torch.Size((2, 40, 48))] * 3


def test_a_probe_sees_nothing_twice():
    model = tuned("llama", **FULL)
    with torch.no_grad(), probing(attention_modules(model)) as probe:
        probe.reads = {"at": LookedAt(torch.tensor([[10, 20]]))}
        model(input_ids=torch.full((1, 30), 5), use_cache=False, logits_to_keep=1)
        assert probe.take(3)["at"].shape == (1, 3, 4, 2)


def test_without_gradients_a_layer_runs_as_it_is(monkeypatch):
    model = tuned("llama", **FULL)
    seen = calls(monkeypatch, layers, "checkpoint")
    ids = torch.full((1, 9), 5)
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    model.eval()(input_ids=ids, use_cache=False)
    assert not seen
    model.train()(input_ids=ids, use_cache=False)
    assert len(seen) == len(decoder_layers(model)) == 3


def test_a_model_without_layers_of_its_own_is_refused():
    with pytest.raises(InputError, match="activation_checkpointing: Linear has no layers"):
        wrap_layers(nn.Linear(2, 2), ModelOptions(**FULL))
    with pytest.raises(InputError, match="compile: Linear has no layers"):
        wrap_layers(nn.Linear(2, 2), ModelOptions(compile=True))
    wrap_layers(nn.Linear(2, 2), ModelOptions())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"activation_checkpointing": "some"}, "choose from false, true, full, selective"),
        ({"offload_activations": True}, "needs model.activation_checkpointing=full or selective"),
    ],
)
def test_options_that_would_do_nothing_are_refused(asked, message):
    with pytest.raises(InputError, match=message):
        ModelOptions(**asked)


# -- compiled -------------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch):
    """Sets the backend, forgets what was compiled, and gives attention back as it was after."""
    import torch._dynamo as dynamo

    interfaces = attention.AttentionInterface._global_mapping
    before, real = dict(interfaces), torch.compile

    def use(backend: str) -> Callable[[], int]:
        def with_backend(function, **options):
            return real(function, backend=backend, **options)

        monkeypatch.setattr(torch, "compile", with_backend)
        dynamo.reset()
        dynamo.utils.counters.clear()
        return lambda: dynamo.utils.counters["stats"]["unique_graphs"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        yield use
    interfaces.clear()
    interfaces.update(before)
    dynamo.reset()


def close(one: tuple[float, dict], other: tuple[float, dict]) -> bool:
    """Loss and gradients equal to float32's rounding."""
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    largest = {key: float(grad.abs().max()) for key, grad in one[1].items()}
    return all(float((one[1][k] - other[1][k]).abs().max()) <= 1e-3 * largest[k] for k in largest)


@pytest.mark.slow
def test_compiled_layers_learn_the_same_and_one_graph_serves_all_lengths(compiled):
    plain = tuned("llama")
    num_graphs = compiled("aot_eager")
    model = tuned("llama", compile=True, **SELECTIVE)
    assert close(trained(model, 40, 7), trained(plain, 40, 7))
    first = num_graphs()
    assert first > 0
    for tokens, pad in ((50, 3), (33, 0)):
        assert close(trained(model, tokens, pad), trained(plain, tokens, pad))
    assert num_graphs() == first
    assert not any("_orig_mod" in name for name in model.state_dict())
    assert model.state_dict().keys() == plain.state_dict().keys()
    ids = torch.full((1, 30), 5)
    with torch.no_grad(), probing(attention_modules(model)) as probe:
        probe.reads = {"at": LookedAt(torch.tensor([[10, 20]]))}
        seen = model(input_ids=ids, use_cache=False).logits
        assert probe.take(3)["at"].shape == (1, 3, 4, 2)
        assert torch.equal(seen, plain(input_ids=ids, use_cache=False).logits)
    assert num_graphs() == first


@pytest.mark.slow
def test_compiled_layers_take_several_questions_to_a_context(compiled):
    num_graphs = compiled("aot_eager")
    shared_context.assert_equal(
        tuned("llama", compile=True), shared_context.contexts(*shared_context.TWO)
    )
    assert num_graphs() > 0


@pytest.mark.slow
def test_generated_code_learns_the_same(compiled):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler")
    num_graphs = compiled("inductor")
    model = tuned("llama", num_layers=1, compile=True)
    assert close(trained(model, pad=0), trained(tuned("llama", num_layers=1), pad=0))
    assert num_graphs() > 0
