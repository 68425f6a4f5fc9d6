"""What the quantized layers share: setting quantizers, using them, loading float checkpoints."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from espnet_quant4.kernels.tracing import tracer_of
from espnet_quant4.quantizers import Quantizer, build
from espnet_quant4.quantizers.base import widened
from espnet_quant4.quantizers.calibration import calibrate_from
from espnet_quant4.quantizers.registry import describe

Specification = Mapping[str, Any]

# Where an inference runner keeps what it made of a module.
CONVERTED = "_converted"

# Where the metadata of a ``state_dict`` say what a layer's quantizers were.
RECORD = "espnet_quant4_quantizers"

NOTHING_TO_SWAP = (
    "PyTorch's quantization (quantize_dynamic; ESPnet's quantize_asr_model and quantize_lm) was asked "
    "to change a model with layers of espnet_quant4, and leaves these as they are: it swaps "
    "torch.nn.LSTM and torch.nn.Linear themselves, not classes that derive from them. Leave the option "
    "out: with a scheme, these layers compute on 4-bit codes already (model_conf: inference: int4)."
)

_QUANTIZER_KEY = re.compile(r"(^|\.)quantizers\.")


def is_quantizer_key(key: str) -> bool:
    """Whether a name in a ``state_dict`` is of a quantizer's state."""
    return _QUANTIZER_KEY.search(key) is not None


def _pass_over_quantizers(module: torch.nn.Module, incompatible: Any) -> None:
    """Take quantizers out of the complaints of a strict ``load_state_dict``.

    Those that the checkpoint lacks stay as they are; an activation's then refuses evaluation until
    it is calibrated, so that nothing goes wrong in silence.
    """
    for keys in (incompatible.missing_keys, incompatible.unexpected_keys):
        keys[:] = [key for key in keys if not is_quantizer_key(key)]


class QuantizedModule(torch.nn.Module):
    """Mixin of the quantized layers; put before the ``torch.nn`` class among the bases.

    Checkpoints load both ways: one of a float layer leaves the quantizers as they are, and
    quantizer entries that this layer has no quantizer for are passed over.
    """

    quantizers: torch.nn.ModuleDict

    #: What computes instead of this module in evaluation without gradients, if anything: called with
    #: the module and its arguments; may answer NotImplemented. `espnet_quant4.int4.use_int4` sets it.
    inference_runner: Callable[..., Any] | None = None

    #: Who chose it, or none; for people.
    inference_choice = "no inference was chosen (espnet_quant4.int4.use_int4)"

    def _init_quantizers(self) -> None:
        self.quantizers = torch.nn.ModuleDict()
        self.register_load_state_dict_post_hook(_pass_over_quantizers)

    def run_inference(self, *args: Any, **kwargs: Any) -> Any:
        """Return the inference runner's result; NotImplemented where this module is to compute."""
        if self.inference_runner is None or (self.training and torch.is_grad_enabled()):
            return NotImplemented
        return self.inference_runner(self, *args, **kwargs)

    # PyTorch's quantization sets `qconfig` on all modules of a model before it looks for what it swaps,
    # and deletes it afterwards. There is no other sign that it was asked for.
    @property
    def qconfig(self) -> Any:
        if "qconfig" not in self.__dict__:
            raise AttributeError("qconfig")
        return self.__dict__["qconfig"]

    @qconfig.setter
    def qconfig(self, value: Any) -> None:
        warnings.warn(NOTHING_TO_SWAP, UserWarning, stacklevel=3)
        self.__dict__["qconfig"] = value

    @qconfig.deleter
    def qconfig(self) -> None:
        del self.__dict__["qconfig"]

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", None)
        if metadata is not None and prefix[:-1] in metadata:
            metadata[prefix[:-1]][RECORD] = {
                name: describe(q)
                for name, q in self.quantizers.named_modules()
                if isinstance(q, Quantizer)
            }

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles leave out what a runner made of this module. PyTorch's LSTM leaves out
        # more; up to Python 3.10 other modules have no such method.
        inherited = getattr(super(), "__getstate__", None)
        state = dict(self.__dict__) if inherited is None else dict(inherited())
        state.pop(CONVERTED, None)
        return state

    #: Largest magnitude that the input can have by construction: 1 behind an LSTM or a tanh. None
    #: where nothing bounds it. Who builds a model says so, by `reads`.
    input_bound: float | None = None

    # The dropout whose output this layer reads, if any.
    _input_dropout: torch.nn.Dropout | None = None

    def reads(self, bound: float | None = None, dropout: torch.nn.Dropout | None = None) -> None:
        """Say what this layer's input is.

        Args:
            bound: of its magnitude by construction, without dropout; None where there is none.
            dropout: the module whose output the input is. What it keeps it scales by
                ``1 / (1 - p)``; quantizers undo that, so that the input is quantized as if before
                dropout, on the same grid in training and evaluation.
        """
        self.input_bound = bound
        # Not as a submodule, which would stand twice in the model.
        self.__dict__["_input_dropout"] = dropout

    @property
    def dropout_of_input(self) -> float:
        """Probability of the dropout that is active in front of this layer; 0 where none is."""
        dropout = self._input_dropout
        return dropout.p if dropout is not None and dropout.training else 0.0

    def bound_of_input(self, suffix: str) -> float | None:
        """Return the bound of the input of a site; None where nothing bounds it.

        Args:
            suffix: one that ``quant_sites`` returns.
        """
        return self.input_bound

    def quant_sites(self) -> list[tuple[str, str]]:
        """Return ``(suffix of the site's name, kind)`` of each place that takes quantizers."""
        raise NotImplementedError

    def set_quantizers(
        self, suffix: str, specifications: Mapping[str, Specification | None]
    ) -> None:
        """Put quantizers on one site.

        Args:
            suffix: one that ``quant_sites`` returns.
            specifications: ``{tensor: quantizer specification or None for float}``.
        """
        raise NotImplementedError


def float_state_dict(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a model without its quantizers, for ``torch.nn`` layers to load."""
    return {key: value for key, value in module.state_dict().items() if not is_quantizer_key(key)}


def build_quantizer(
    specification: Specification | None, role: str, rows: int, gates: int = 1
) -> Quantizer | None:
    """Build the quantizer of a tensor, or None where the scheme leaves it in float.

    Args:
        specification: the tensor's entry in a resolved scheme.
        role: ``weight`` or ``activation``.
        rows: rows of the weight, for granularity ``row``.
        gates: gates of the weight, for granularity ``gate``.
    """
    if specification is None:
        return None
    groups = {"tensor": 1, "gate": gates, "row": rows}[specification.get("granularity", "tensor")]
    return build(specification, role=role, groups=groups)


def get_quantizer(quantizers: torch.nn.ModuleDict, name: str) -> Quantizer | None:
    """Return the quantizer of a tensor, or None where it is float."""
    if name not in quantizers:
        return None
    found = quantizers[name]
    return found if isinstance(found, Quantizer) else None


def change_key(tensors: Iterable[torch.Tensor]) -> tuple[Any, ...] | None:
    """Return what differs whenever the content of one of the tensors may.

    None where that cannot be known: tensors made in inference mode do not count their changes, and a
    tracer's have no address.
    """
    if tracer_of() is not None:
        return None
    key = []
    for tensor in tensors:
        if tensor.is_inference():
            return None
        key.append((tensor.data_ptr(), tensor._version))
    return tuple(key)


def in_dtype_of(original: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    """Return what was computed in float32 or wider in the dtype of what it came from.

    So a model that was converted to another precision stays in it, as ``torch.nn`` layers do. Under
    autocast float32 stays: each product says itself what precision it wants.
    """
    if result.dtype == original.dtype or torch.is_autocast_enabled(original.device.type):
        return result
    return result.to(original.dtype)


def quantize_weight(quantizer: Quantizer | None, weight: torch.Tensor) -> torch.Tensor:
    """Fake-quantize a weight in float32 or wider, whatever autocast says; see `in_dtype_of`.

    In evaluation without gradients the result is kept until the weight or the clip changes: a
    transducer's prediction network is called for every token of every hypothesis.
    """
    if quantizer is None:
        return weight
    if quantizer.training or quantizer.calibrating or torch.is_grad_enabled():
        return in_dtype_of(weight, quantizer.quantize(weight))
    key = change_key((weight, quantizer.clip_value))
    if key is None:
        return in_dtype_of(weight, quantizer.quantize(weight))
    kept: tuple[Any, torch.Tensor] | None = quantizer.__dict__.get("_kept_weight")
    if kept is None or kept[0] != key:
        kept = (key, in_dtype_of(weight, quantizer.quantize(weight)))
        quantizer.__dict__["_kept_weight"] = kept
    return kept[1]


def prepare_activation(
    quantizer: Quantizer, x: torch.Tensor, valid: torch.Tensor | None = None
) -> None:
    """Let an activation quantizer see data before it is used on it.

    Args:
        quantizer: one of role ``activation``.
        x: ``(..., F)``.
        valid: ``(...)`` bool, False where ``x`` is padding, which must not shape statistics.

    Raises:
        RuntimeError: in evaluation, for a quantizer whose clip was never set.
    """
    if quantizer.watcher is not None:
        quantizer.watcher(x if valid is None else x[valid])
    if not (quantizer.calibrating or quantizer.training or not quantizer.is_calibrated):
        return
    if valid is not None:
        x = x[valid]
    if quantizer.calibrating:
        quantizer.observe(x.detach())
    elif not quantizer.is_calibrated:
        if not quantizer.training:
            raise RuntimeError(
                f"{type(quantizer).__name__}: the clip of an activation was never set, so this "
                "model cannot be evaluated. Calibrate it first (espnet-quant4 calibrate; --task "
                "hybrid or --task lm for those models), or load a checkpoint of a quantized model."
            )
        calibrate_from(quantizer, x.detach())
    elif quantizer.training:
        quantizer.observe(x.detach())


def quantize_activation(
    quantizer: Quantizer | None,
    x: torch.Tensor,
    valid: torch.Tensor | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Fake-quantize an activation ``(..., F)``; see `prepare_activation` and `in_dtype_of`.

    Args:
        quantizer: of role ``activation``, or None for float.
        x: ``(..., F)``.
        valid: as of `prepare_activation`.
        dropout: probability of the dropout that ``x`` has just passed. Its scale is undone, for the
            clip and its statistics are of values without it: what was bounded by 1 goes up to
            ``1 / (1 - dropout)`` here. Zero stays zero on every grid, so this equals quantization
            before dropout.
    """
    if quantizer is None:
        return x
    if not 0.0 < dropout < 1.0:
        prepare_activation(quantizer, x, valid)
        return in_dtype_of(x, quantizer.quantize(x))
    kept = 1.0 - dropout
    unscaled = widened(x) * kept
    prepare_activation(quantizer, unscaled, valid)
    return in_dtype_of(x, quantizer.quantize(unscaled) / kept)
