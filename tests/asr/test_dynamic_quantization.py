"""PyTorch's dynamic quantization, which ESPnet offers in decoding, says that it does nothing here."""

import copy
import warnings

import pytest
import torch
from espnet2.torch_utils.quantization import quantize_dynamic
from small_transducer import SCHEME, build_transducer

from espnet_quant4.asr.lm.seq_rnn_lm import QuantSequentialRNNLM
from espnet_quant4.nn import QuantEmbedding, QuantLinear, QuantLSTM

MODELS = {
    "asr": lambda: build_transducer(SCHEME),
    "asr in float": build_transducer,
    "lm": lambda: QuantSequentialRNNLM(7, unit=6, scheme=SCHEME),
    "lstm": lambda: QuantLSTM(3, 4),
    "linear": lambda: QuantLinear(3, 4),
    "embedding": lambda: QuantEmbedding(3, 4),
}


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
@pytest.mark.parametrize("name", MODELS)
def test_dynamic_quantization_says_that_it_leaves_quantized_layers(name):
    model = MODELS[name]().eval()
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning, match="quantize_asr_model and quantize_lm") as caught:
        result = quantize_dynamic(
            model, qconfig_spec={torch.nn.LSTM, torch.nn.Linear}, dtype=torch.qint8
        )
    ours = {str(w.message) for w in caught if "espnet_quant4" in str(w.message)}
    assert len(ours) == 1  # however many layers there are
    assert not hasattr(model, "qconfig")
    assert [type(m) for m in result.modules()] == [type(m) for m in model.modules()]
    torch.testing.assert_close(result.state_dict(), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not [m for m in copy.deepcopy(result).modules() if hasattr(m, "qconfig")]


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization:DeprecationWarning")
def test_models_without_our_layers_are_quantized_without_a_word():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(3, 4)), {torch.nn.Linear})
    assert not [w for w in caught if "espnet_quant4" in str(w.message)]
    assert type(result[0]) is not torch.nn.Linear
