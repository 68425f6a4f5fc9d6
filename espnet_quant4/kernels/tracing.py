"""What records PyTorch's operations instead of computing, and so cannot see kernels behind ctypes.

A kernel fills memory that PyTorch handed out empty. A tracer records the handing out, not the filling,
and what it recorded then returns whatever the memory holds.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, TypeVar, cast

import torch
from torch.autograd import forward_ad

Forward = TypeVar("Forward", bound=Any)

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def tracer_of(*tensors: torch.Tensor | None) -> str | None:
    """Return the name of what would not see a kernel on these tensors, here and now; None for nothing.

    Args:
        tensors: that the kernel would read.
    """
    # First: the compiler takes this for a constant, and need not understand the rest.
    if torch.compiler.is_compiling():
        return "torch.compile or torch.export"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace or an ONNX export"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a transform of torch.func"
    for place in range(torch._C._len_torch_dispatch_stack()):
        mode = torch._C._get_dispatch_stack_at(place)
        # PyTorch's own, which fake, record or rewrite; a user's mode that counts operations misses
        # kernels, and they compute right.
        if getattr(mode, "_mode_key", None) is not None:
            return type(mode).__name__
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in _PLAIN and is_opaque(tensor):
            return f"a tensor of class {type(tensor).__name__}"
        if torch._C._functorch.is_legacy_batchedtensor(tensor):
            return "a batch of gradients (is_grads_batched)"
    if forward_ad._current_level >= 0 and any(_has_tangent(tensor) for tensor in tensors):
        return "forward-mode differentiation"
    return None


def is_opaque(tensor: torch.Tensor) -> bool:
    """Whether a tensor of a subclass has operations of its own, and perhaps no memory."""
    own = getattr(type(tensor), "__torch_dispatch__", None)
    return own is not getattr(torch.Tensor, "__torch_dispatch__", None) and own is not (
        torch._C._disabled_torch_dispatch_impl
    )


def _has_tangent(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None


def refuse_tracing(name: str, *tensors: torch.Tensor | None) -> None:
    """Raise where a module that has nothing but kernels would not be seen.

    Args:
        name: of the module, for the message.
        tensors: that it gets.

    Raises:
        RuntimeError: says what to use instead.
    """
    found = tracer_of(*tensors)
    if found is not None:
        raise RuntimeError(cannot_follow(name, found))


def cannot_follow(name: str, tracer: str) -> str:
    """Return the message for a module whose kernels a tracer would not see."""
    return (
        f"{name}: {tracer} cannot follow INT4 kernels, which compute outside PyTorch. Export or "
        "transform the trained model instead: its FP32 form, or the quantized one with "
        "ESPNET_QUANT4_INFERENCE=emulated, which computes the same values in PyTorch."
    )


def graph_break(forward: Forward) -> Forward:
    """Return a module's forward function as one that ``torch.compile`` leaves to Python.

    This is ``torch.compiler.disable``, which would import the compiler here and now.
    """

    @functools.wraps(forward)
    def uncompiled(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" in sys.modules and not torch.compiler.is_compiling():
            return _disabled(forward)(*args, **kwargs)
        return forward(*args, **kwargs)

    uncompiled._torchdynamo_disable = True  # type: ignore[attr-defined]
    uncompiled._torchdynamo_disable_msg = cannot_follow(  # type: ignore[attr-defined]
        forward.__qualname__, "torch.export or a full graph of torch.compile"
    )
    return cast(Forward, uncompiled)


@functools.cache
def _disabled(forward: Any) -> Any:
    return torch.compiler.disable(forward)


class _Forward:
    """Stands for the context of an autograd function of which only the forward pass is run."""

    needs_input_grad = (False,) * 64

    def save_for_backward(self, *tensors: Any) -> None:
        """Save nothing."""

    def set_materialize_grads(self, value: bool) -> None:
        """Change nothing."""

    def mark_non_differentiable(self, *tensors: torch.Tensor) -> None:
        """Mark nothing."""


def apply_function(function: Any, *arguments: Any) -> Any:
    """Return ``function.apply(*arguments)`` of an autograd function; while tracing its operations.

    ``torch.jit.trace`` records the call of Python code otherwise, which no other program can run.

    Args:
        function: subclass of ``torch.autograd.Function`` whose forward pass is PyTorch's operations.
        arguments: of its ``forward``, after the context.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is None:
        return function.apply(*arguments)
    return function.forward(_Forward(), *arguments)
