"""The transducer's published parts that ESPnet lacks: multiplying joint, narrow embedding, deltas."""

import argparse

import pytest
import torch
from espnet2.tasks.asr import ASRTask
from hypothesis import given, settings
from hypothesis import strategies as st
from small_transducer import TOKENS, build_transducer, random_batch

from espnet_quant4 import plugin
from espnet_quant4.asr.decoder.transducer_decoder import QuantTransducerDecoder
from espnet_quant4.asr.joint_network import QuantJointNetwork
from espnet_quant4.int4 import convert
from espnet_quant4.quantizers.calibration import calibrating


@settings(deadline=None, max_examples=20)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.sampled_from(["add", "multiply"])
)
def test_joint_equals_its_formula(encoder_size, decoder_size, joint_size, operation):
    torch.manual_seed(encoder_size)
    joint = QuantJointNetwork(
        5, encoder_size, decoder_size, joint_space_size=joint_size, joint_operation=operation
    )
    encoded, decoded = torch.randn(2, 3, 1, encoder_size), torch.randn(2, 1, 4, decoder_size)
    one, other = joint.lin_enc(encoded), joint.lin_dec(decoded)
    joined = one + other if operation == "add" else one * other
    expected = joined.tanh() @ joint.lin_out.weight.T + joint.lin_out.bias
    torch.testing.assert_close(joint(encoded, decoded), expected)
    torch.testing.assert_close(joint(one, other, no_projection=True), expected)
    assert expected.shape == (2, 3, 4, 5)


def test_another_operation_is_refused():
    with pytest.raises(ValueError, match="joint_operation: 'divide'; valid: add, multiply"):
        QuantJointNetwork(5, 4, 3, joint_operation="divide")


def test_embedding_of_another_width():
    decoder = QuantTransducerDecoder(7, None, num_layers=2, hidden_size=6, embed_size=3)
    assert decoder.embed.weight.shape == (7, 3)
    assert [layer.input_size for layer in decoder.decoder] == [3, 6]
    assert decoder(torch.tensor([[0, 3, 4]])).shape == (1, 3, 6)
    with pytest.raises(ValueError, match="embed_size: 0; valid are 1 and above"):
        QuantTransducerDecoder(7, None, embed_size=0)


def build(scheme=None):
    plugin.register()
    args = argparse.Namespace(**ASRTask.get_default_config())
    settings = {
        "token_list": TOKENS,
        "token_type": "char",
        "frontend_conf": {"fs": "8k", "n_fft": 256, "hop_length": 80, "n_mels": 10},
        "preencoder": "frame_context",
        "preencoder_conf": {"input_size": 10, "deltas": 2},
        "encoder": "quant_rnn",
        "encoder_conf": {
            "num_layers": 1,
            "hidden_size": 5,
            "output_size": 5,
            "use_projection": False,
            "stack_frames": 2,
        },
        "decoder": "quant_transducer",
        "decoder_conf": {"hidden_size": 6, "embed_size": 3},
        "joint_net_conf": {"joint_space_size": 6, "joint_operation": "multiply"},
        "model": "quant_espnet",
        "model_conf": {"scheme": scheme, "ctc_weight": 0.0},
    }
    for key, value in settings.items():
        setattr(args, key, value)
    return ASRTask.build_model(args)


def test_all_three_in_a_model_by_configuration_and_on_codes():
    torch.manual_seed(0)
    model = build("tailored")
    # Ten energies, their differences of two orders, two frames at a time.
    assert model.encoder.enc[0].nbrnn.weight_ih_l0.shape == (4 * 5, 60)
    speech, lengths = torch.randn(2, 8000), torch.tensor([8000, 6000])

    def logits(model):
        encoded, _ = model.encode(speech, lengths)
        decoded = model.decoder(torch.tensor([[0, 3, 4], [0, 5, 2]]))
        return model.joint_network(encoded.unsqueeze(2), decoded.unsqueeze(1))

    with torch.no_grad():
        with calibrating(model.eval()):
            logits(model)
        expected, found = logits(model), logits(convert(model))
    far = (found - expected).abs() > 1e-4
    assert expected.std() > 0.01 and far.float().mean() < 0.05


def test_a_step_of_training_reaches_all_three():
    decoder = QuantTransducerDecoder(len(TOKENS), 6, hidden_size=5, embed_size=2)
    model = build_transducer(decoder=decoder)
    model.joint_network.operation = torch.mul
    loss, _, _ = model(**random_batch())
    loss.backward()
    for parameter in (decoder.embed.weight, model.joint_network.lin_enc.weight):
        assert parameter.grad.abs().sum() > 0
