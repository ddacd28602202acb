"""Rotary position embeddings changed for longer contexts: theta, position interpolation, YaRN.

Changed in the config before the weights load, checked in the tables after. On transformers 5 a
change after loading does nothing, because the model has computed `inv_freq` by then; and tables in
bfloat16 are wrong at long positions. Both are asserted here, against formulas of our own.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig

from sce.errors import InputError
from sce.options import RopeScaling

# Turns over the trained context: YaRN leaves pairs that make more than FAST as they are, stretches
# those that make fewer than SLOW in full (Peng et al. 2023, arXiv 2309.00071, section 3.2).
FAST, SLOW = 32, 1


def _parameter_sets(config: PreTrainedConfig) -> list[dict]:
    """The config's RoPE parameters: one dict, or one for each type of layer."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None)
    if not parameters:
        return []
    if "rope_theta" in parameters:
        return [parameters]
    return [p for p in parameters.values() if isinstance(p, dict) and "rope_theta" in p]


def _global_sets(config: PreTrainedConfig) -> list[dict]:
    """Those with the largest theta, which serve the layers that see the whole context."""
    sets, theta = _parameter_sets(config), rope_theta(config)
    return [p for p in sets if float(p["rope_theta"]) == theta]


def rope_theta(config: PreTrainedConfig) -> float | None:
    """Theta of the (global) rotary embedding; None for a model without one."""
    sets = _parameter_sets(config)
    return float(max(p["rope_theta"] for p in sets)) if sets else None


def require_rope(config: PreTrainedConfig, asked: str) -> None:
    """Refuse to change the rotary embedding of a model that has none.

    Raises:
        InputError: names `asked`, the option as it was given.
    """
    if not _parameter_sets(config):
        raise InputError(f"{asked}: {config.model_type} has no rotary embedding; leave it out")


def set_rope_theta(config: PreTrainedConfig, theta: float) -> None:
    """Set theta in a config that no model has been built from yet.

    In models with several thetas (local and global layers) the global layers' is changed.

    Raises:
        InputError: the model has no rotary embedding.
    """
    require_rope(config, f"model.rope_theta={theta:g}")
    for parameters in _global_sets(config):
        parameters["rope_theta"] = float(theta)


def resolved(scaling: RopeScaling | None, config: PreTrainedConfig) -> dict[str, Any] | None:
    """A scaling in full and in plain types, as it is recorded: with what it leaves to the model.

    Args:
        scaling: as asked for.
        config: the model's own, unchanged.
    """
    if scaling is None:
        return None
    full = asdict(scaling) | {"factor": float(scaling.factor)}
    if scaling.type == "linear":
        del full["original_max_position_embeddings"]
    elif full["original_max_position_embeddings"] is None:
        full["original_max_position_embeddings"] = config.get_text_config().max_position_embeddings
    return full


def in_use(
    config: PreTrainedConfig, theta: float | None, scaling: RopeScaling | None
) -> dict[str, float | None]:
    """What is recorded of a model's RoPE (sce.records.RunFacts.rope).

    Args:
        config: the model's own, unchanged.
        theta: asked for; None: the model's own.
        scaling: likewise.
    """
    own = rope_theta(config)
    full = resolved(scaling, config)
    if full is None:
        more = {}
    elif full["type"] == "linear":
        more = {"linear": full["factor"]}
    else:
        more = {"yarn": full["factor"], "yarn_from": full["original_max_position_embeddings"]}
    return {"theta": theta or own, "was": own, **more}


def recorded_scaling(recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    """The scaling, as `resolved` gives it, of what `in_use` made; None: the model's own."""
    if recorded.get("linear") is not None:
        return {"type": "linear", "factor": recorded["linear"]}
    if recorded.get("yarn") is None:
        return None
    original = recorded.get("yarn_from")
    return {
        "type": "yarn",
        "factor": recorded["yarn"],
        "original_max_position_embeddings": original,
    }


def own_scaling(config: PreTrainedConfig) -> dict[str, Any] | None:
    """The scaling in a config, as `frequencies` takes it, where it is linear or LongRoPE's.

    None for the rest: they leave the first pairs alone, which tell of theta by themselves.
    """
    for parameters in _global_sets(config):
        if parameters.get("rope_type") == "linear":
            return {"type": "linear", "factor": float(parameters["factor"])}
        if parameters.get("rope_type") == "longrope":
            # A factor a pair; tables are made with the short ones until a prompt is longer.
            return {"type": "longrope", "factor": list(map(float, parameters["short_factor"]))}
    return None


def set_rope_scaling(config: PreTrainedConfig, scaling: RopeScaling) -> None:
    """Put a scaling in the place of the model's own, in a config no model has been built from yet.

    The config's number of positions grows with it. Local layers keep what they have.

    Raises:
        InputError: the model has no rotary embedding.
    """
    require_rope(config, f"model.rope_scaling={{type: {scaling.type}}}")
    full = resolved(scaling, config)
    assert full is not None
    full["rope_type"] = full.pop("type")
    for parameters in _global_sets(config):
        kept = {
            k: parameters[k] for k in ("rope_theta", "partial_rotary_factor") if k in parameters
        }
        parameters.clear()
        parameters.update(kept | full)
    text = config.get_text_config()
    text.max_position_embeddings = positions(text.max_position_embeddings, scaling)


def positions(own: int, scaling: RopeScaling) -> int:
    """Positions of a model under a scaling.

    Args:
        own: without it.
        scaling: whose original length counts where it names one.
    """
    return round((scaling.original_max_position_embeddings or own) * scaling.factor)


def frequencies(
    theta: float, num_pairs: int, scaling: Mapping[str, Any] | None
) -> tuple[Float[Tensor, " pairs"], float | None]:
    """What tables must hold: radians a position of each pair, and the factor of cos and sin.

    LongRoPE's factor of cos and sin is the model's own affair and None here: no change touches it.

    Args:
        theta: the base; pair i of n turns by theta^(-i/n) a position.
        num_pairs: half of the dimensions that are rotated.
        scaling: as by `resolved` or `own_scaling`.
    """
    plain = theta ** -(torch.arange(num_pairs, dtype=torch.float64) / num_pairs)
    if scaling is None:
        return plain, 1.0
    factor = scaling["factor"]
    if scaling["type"] == "linear":
        return plain / factor, 1.0
    if scaling["type"] == "longrope":
        return plain / torch.tensor(factor, dtype=torch.float64), None
    original = scaling["original_max_position_embeddings"]

    def pair_turning(turns: int) -> float:
        """The pair, as a fractional index, that makes so many turns over the trained context."""
        return num_pairs * math.log(original / (turns * 2 * math.pi)) / math.log(theta)

    low = max(math.floor(pair_turning(FAST)), 0)
    high = min(math.ceil(pair_turning(SLOW)), 2 * num_pairs - 1)
    width = max(high - low, 0.001)
    stretched = ((torch.arange(num_pairs, dtype=torch.float64) - low) / width).clamp(0, 1)
    return plain * (1 - stretched) + plain / factor * stretched, 0.1 * math.log(factor) + 1


def check_tables(model: nn.Module, theta: float, scaling: Mapping[str, Any] | None) -> None:
    """Assert that the model's tables are float32 and were computed as asked.

    Args:
        model: built.
        theta: its base.
        scaling: as by `resolved` or `own_scaling`; None: another one of the model's own, or none.

    Raises:
        RuntimeError: they are not; the library ignored the config.
    """
    tables = [(name, b) for name, b in model.named_buffers() if name.endswith("inv_freq")]
    if not tables:
        raise RuntimeError("the model has no inv_freq table, though its config has a rope_theta")
    for name, table in tables:
        if table.dtype != torch.float32:
            raise RuntimeError(f"{name} is {table.dtype}; rotary tables must stay float32")
    if not any(_holds(model, name, table, theta, scaling) for name, table in tables):
        asked = f"rope_theta={theta:g}" + (f" and rope_scaling={dict(scaling)}" if scaling else "")
        found = {name: [f"{value:g}" for value in table.flatten()[:4]] for name, table in tables}
        raise RuntimeError(f"{asked} did not reach inv_freq (found {found})")


def _holds(
    model: nn.Module, name: str, table: Tensor, theta: float, scaling: Mapping[str, Any] | None
) -> bool:
    """Whether one table, and the factor beside it, are what they must be."""
    table = table.flatten().double().cpu()
    expected, factor = frequencies(theta, table.numel(), scaling)
    # Other scalings of a model's own (llama3, yarn) leave the highest frequencies as they are, so
    # the second entry tells of theta for all of them.
    compared = slice(None) if scaling is not None else slice(0, 2)
    module, _, buffer = name.rpartition(".")
    attribute = buffer.replace("original_", "").replace("inv_freq", "attention_scaling")
    own = getattr(model.get_submodule(module), attribute, 1.0)
    return torch.allclose(table[compared], expected[compared], rtol=1e-4, atol=0) and (
        scaling is None or factor is None or math.isclose(own, factor, rel_tol=1e-6)
    )


def turns_with_length(config: PreTrainedConfig) -> bool:
    """Whether tables follow the longest position of a pass (longrope, dynamic)."""
    told = [str(parameters.get("rope_type", "")) for parameters in _parameter_sets(config)]
    return any(kind == "longrope" or "dynamic" in kind for kind in told)
