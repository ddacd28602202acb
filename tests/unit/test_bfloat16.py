"""Products in bfloat16 on a CPU without instructions for them: as if it had them."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sce.model import bfloat16, build
from sce.model.attention import Choice
from sce.model.bfloat16 import FEWEST_ROWS, EmulatedLinear, emulate
from sce.model.full_tuning import Float32Linear
from sce.model.source import find
from sce.options import LoraOptions, ModelOptions
from test_tuning import of


@pytest.fixture(autouse=True)
def without_instructions(monkeypatch):
    monkeypatch.setattr(bfloat16, "emulates_bfloat16", lambda: True)


def whole(*shape: int) -> torch.Tensor:
    """Numbers whose products are summed without rounding, in whatever order."""
    return torch.randint(-3, 4, shape).to(torch.bfloat16)


def pair(*, bias: bool) -> tuple[nn.Linear, nn.Linear]:
    """A linear layer in bfloat16 and the same, emulated."""
    torch.manual_seed(0)
    plain, emulated = (nn.Linear(24, 16, bias=bias, dtype=torch.bfloat16) for _ in range(2))
    for parameter in plain.parameters():
        parameter.data = whole(*parameter.shape)
    emulated.load_state_dict(plain.state_dict())
    emulate(emulated)
    assert isinstance(emulated, EmulatedLinear)
    return plain, emulated


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("shape", [(FEWEST_ROWS, 24), (2, FEWEST_ROWS, 24), (1, 3, 24), (0, 24)])
def test_products_and_gradients_are_a_linear_layers(bias, frozen, shape):
    found = []
    for layer in pair(bias=bias):
        layer.requires_grad_(not frozen)
        torch.manual_seed(1)
        rows = whole(*shape).requires_grad_()
        product = layer(rows)
        product.backward(whole(*product.shape))
        assert product.dtype == torch.bfloat16
        found.append([product, rows.grad, *(p.grad for p in layer.parameters())])
    assert_close(*found, rtol=0, atol=0)


def test_the_sum_is_rounded_once():
    """256 + 1 + 1 is 258; rounded on the way it is 256, the first number after it being 258."""
    layer = nn.Linear(3, 1, bias=False, dtype=torch.bfloat16)
    layer.weight.data = torch.ones(1, 3, dtype=torch.bfloat16)
    emulate(layer)
    rows = torch.tensor([[256.0, 1.0, 1.0]], dtype=torch.bfloat16).expand(FEWEST_ROWS, 3)
    assert set(layer(rows).flatten().tolist()) == {258.0}


@pytest.fixture
def products(monkeypatch) -> list[torch.Tensor]:
    """What was multiplied in float32."""
    seen = []
    product = bfloat16.Float32Product.apply
    monkeypatch.setattr(
        bfloat16.Float32Product, "apply", lambda x, *a: seen.append(x) or product(x, *a)
    )
    return seen


def test_few_rows_are_left_to_torch(products):
    _, layer = pair(bias=False)
    for rows in (1, FEWEST_ROWS - 1, FEWEST_ROWS):
        layer(whole(1, rows, 24))
    assert [len(x[0]) for x in products] == [FEWEST_ROWS]


def learnt(name: str, monkeypatch, *, emulated: bool) -> tuple[torch.Tensor, dict, set]:
    """A loss, its gradients, and the types that SDPA was given, with and without gradients."""
    given = set()
    sdpa = nn.functional.scaled_dot_product_attention
    spy = lambda query, *rest, **o: given.add(query.dtype) or sdpa(query, *rest, **o)  # noqa: E731
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(bfloat16, "emulates_bfloat16", lambda: emulated)
    model = of(name, torch.bfloat16)
    names = list(model.state_dict())
    if emulated:
        emulate(model)
    assert list(model.state_dict()) == names
    torch.manual_seed(3)
    tuned = build.tune(model, LoraOptions(name="attention", r=2, dropout=0.0))
    torch.manual_seed(4)
    ids = torch.randint(5, 90, (2, FEWEST_ROWS))
    output = tuned(input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    grads = {n: p.grad for n, p in tuned.named_parameters() if p.grad is not None}
    with torch.no_grad():
        assert torch.equal(tuned(input_ids=ids, use_cache=False).logits, output.logits)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", sdpa)
    return output.loss, grads, given


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi"])
def test_a_model_computes_and_learns_the_same(name, monkeypatch):
    loss, grads, given = learnt(name, monkeypatch, emulated=False)
    emulated_loss, emulated_grads, given_emulated = learnt(name, monkeypatch, emulated=True)
    assert (given, given_emulated) == ({torch.bfloat16}, {torch.float32})
    assert_close(emulated_loss, loss, rtol=1e-2, atol=0)
    assert grads.keys() == emulated_grads.keys()
    for key, grad in grads.items():
        atol = 0.05 * float(grad.abs().max()) + 1e-6
        assert_close(emulated_grads[key], grad, rtol=0.05, atol=atol)


def test_weights_tuned_themselves_are_kept_in_float32_there_too():
    model = of("llama", torch.bfloat16)
    emulate(model)
    tuned = build.tune(model, LoraOptions(name="none"))
    layers = {type(m) for n, m in tuned.named_modules() if n.endswith("q_proj")}
    assert layers == {Float32Linear}


@pytest.mark.parametrize("emulated", [False, True])
def test_a_model_is_loaded_for_the_cpu_it_runs_on(tiny_folder, emulated):
    options = ModelOptions(name_or_path=str(tiny_folder), dtype="bfloat16")
    model = build.load_model(find(options), options, Choice("sdpa", "test", emulated))
    layers = {type(m) for n, m in model.named_modules() if n.endswith("_proj")}
    assert layers == {EmulatedLinear if emulated else nn.Linear}


def test_weights_tuned_themselves_learn_what_the_layer_would(products):
    plain, _ = pair(bias=True)
    tuned = Float32Linear(24, 16)
    tuned.load_state_dict(plain.state_dict())
    found = []
    for layer in (plain, tuned):
        torch.manual_seed(1)
        rows = whole(FEWEST_ROWS, 24).requires_grad_()
        layer(rows).backward(whole(FEWEST_ROWS, 16))
        grads = [p.grad for p in (rows, *layer.parameters())]
        found.append([grad.bfloat16() for grad in grads if grad is not None])
    assert (len(found[1]), len(products)) == (3, 1)
    assert_close(*found, rtol=0, atol=0)


def test_other_types_and_layers_are_left_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.Embedding(2, 2, dtype=torch.bfloat16))
    emulate(model)
    assert [type(m) for m in model] == [nn.Linear, nn.Embedding]
