"""The compiled cell against the cell, on the CPU, where inductor makes C++ of it instead of Triton."""

import pytest
import torch

from espnet_quant4.kernels import compiled_cell, recurrence
from espnet_quant4.kernels.compiled_cell import CompiledCell, cell_for
from espnet_quant4.kernels.reference import lstm_cell
from espnet_quant4.nn import QuantLSTM


@pytest.mark.slow
def test_training_with_the_compiled_cell_equals_the_loop(monkeypatch):
    torch.manual_seed(0)
    lstm = QuantLSTM(4, 6, 2, bidirectional=True)
    lstm.fused = False
    for suffix, _ in lstm.quant_sites():
        lstm.set_quantizers(suffix, {"hidden": {"quantizer": "fix", "bits": 8, "clip": 1.0}})
    cell = CompiledCell()
    for batch in (3, 5):  # one compilation serves both
        x, lengths = torch.randn(7, batch, 4), torch.tensor([7, 2, 4, 7, 1])[:batch]
        found = []
        for used in (lstm_cell, cell):
            monkeypatch.setattr(recurrence, "cell_for", lambda device, used=used: used)
            output, states = lstm(x, lengths=lengths)
            loss = output.square().sum() + states[1].sum()
            found.append((output, *states, *torch.autograd.grad(loss, list(lstm.parameters()))))
        torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
    assert cell.is_compiled


def test_what_does_not_compile_runs_uncompiled(caplog):
    def broken(graph, inputs):
        raise RuntimeError("no Triton here")

    cell = CompiledCell(backend=broken)
    gates, state = torch.randn(2, 12), torch.randn(2, 3)
    torch.testing.assert_close(cell(gates, state), lstm_cell(gates, state))
    assert not cell.is_compiled and "Is Triton installed?" in caplog.text
    torch.testing.assert_close(cell(gates, state), lstm_cell(gates, state))


def test_other_devices_get_the_compiled_cell():
    assert cell_for(torch.device("cpu")) is lstm_cell
    assert cell_for(torch.device("cuda")) is compiled_cell.compiled_cell()


def test_meta_device_runs():
    """A device without C++ kernels goes through the loop."""
    with torch.device("meta"):
        lstm = QuantLSTM(4, 6, bidirectional=True)
        output, _ = lstm(torch.randn(5, 2, 4))
    assert output.shape == (5, 2, 12) and output.device.type == "meta"
