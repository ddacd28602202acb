"""A device that is not the CPU, on machines that have none: what mixes devices fails as on a GPU.

Its tensors hold CPU tensors and compute with them, so results are the CPU's. As on a GPU, an
operation on a tensor of this device and one of the CPU is refused, but for numbers (no dimensions),
copies, and indices into the device's own tensors; so is `numpy()`. Importing this gives the process
the device for good.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
DEVICE = torch.device("privateuseone", 0)
computed: Counter[str] = Counter()
"""Operations on the device, by name."""
_INDEXING = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put_.default,
    torch.ops.aten.index_put.default,
    torch.ops.aten._index_put_impl_.default,
}


class _Elsewhere(Tensor):
    @staticmethod
    def __new__(cls, held: Tensor) -> "_Elsewhere":
        with torch.inference_mode(False):  # a view of a tensor from outside has to be like it
            return torch.Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=DEVICE,
            )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        del tensor_contents
        return f"{self.held!r} elsewhere"

    def tolist(self) -> Any:
        return self.held.tolist()

    def storage(self) -> Any:
        return self.held.storage()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def numpy(self, *, force: bool = False) -> Any:
        del force
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Makes what is made on the device, or taken there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Module:
    """What torch asks of torch.<device>."""

    is_initialized = is_available = staticmethod(lambda: True)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float32])


# Before anything is differentiated: autograd counts devices then, once.
_setup_privateuseone_for_python_backend(NAME, _Module())


def _run(func, args, kwargs):
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    own = [tensor for tensor in tensors if isinstance(tensor, _Elsewhere)]
    devices = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    there = any(device.type == NAME for device in devices) if devices else bool(own)
    may_mix = func is torch.ops.aten.copy_.default or (
        func in _INDEXING and isinstance(args[0], _Elsewhere)
    )
    apart = any(not isinstance(tensor, _Elsewhere) and tensor.dim() for tensor in tensors)
    if own and apart and not devices and not may_mix:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, {DEVICE}")
    computed[func.overloadpacket.__name__] += there
    found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not there:
        return found
    found = tree_map(lambda leaf: _Elsewhere(leaf) if isinstance(leaf, Tensor) else leaf, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if own else found


def _inner(leaf):
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.held if isinstance(leaf, _Elsewhere) else leaf


@contextmanager
def other_device() -> Iterator[torch.device]:
    """The device exists inside."""
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # parameters change their class
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) goes by the CPU
    try:
        with _Mode():
            yield DEVICE
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_swap_module_params_on_conversion(swaps)
