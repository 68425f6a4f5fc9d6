"""The LSTM cell compiled by ``torch.compile``, for devices that the C++ kernels do not serve.

A step in eager mode starts some ten elementwise kernels forward and twenty backward, each of them too
small to fill a GPU; compiled, it is one kernel each way. The products stay with the vendor's BLAS.
"""

from __future__ import annotations

import functools
import logging

import torch

from espnet_quant4.kernels.reference import Cell, lstm_cell


class CompiledCell:
    """`lstm_cell`, compiled at the first call; as it stands where it does not compile.

    Args:
        backend: of ``torch.compile``.
    """

    def __init__(self, backend: str = "inductor"):
        # The batch changes from call to call; one compilation serves all.
        self._compiled: Cell | None = torch.compile(lstm_cell, backend=backend, dynamic=True)

    @property
    def is_compiled(self) -> bool:
        """False once compilation has failed."""
        return self._compiled is not None

    def __call__(
        self, gates: torch.Tensor, cell_state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._compiled is not None:
            try:
                return self._compiled(gates, cell_state)
            except Exception as error:
                # Compilers fail in ways of their own (no Triton, no C compiler, an old driver), and
                # what fails for another reason fails again below, with its own message.
                self._compiled = None
                result = lstm_cell(gates, cell_state)
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                logging.warning(
                    f"the LSTM cell does not compile on {gates.device} and runs uncompiled, with the "
                    f"same results and slower. Is Triton installed? {reason}"
                )
                return result
        return lstm_cell(gates, cell_state)


@functools.lru_cache(maxsize=1)
def compiled_cell() -> CompiledCell:
    """Return the cell that all layers share."""
    return CompiledCell()


def cell_for(device: torch.device) -> Cell:
    """Return what computes `lstm_cell` on a device."""
    if device.type == "cpu" or torch.compiler.is_compiling():
        return lstm_cell
    return compiled_cell()
