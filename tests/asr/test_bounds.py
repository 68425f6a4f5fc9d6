"""What bounds a layer's input, and what a scheme makes of it: ESPnet's own encoder configurations."""

import copy

import pytest
import torch
from espnet2.asr.ctc import CTC
from small_transducer import TOKENS

from espnet_quant4.asr.decoder.transducer_decoder import QuantTransducerDecoder
from espnet_quant4.asr.encoder.rnn_encoder import QuantRNNEncoder
from espnet_quant4.asr.encoder.vgg_rnn_encoder import QuantVGGRNNEncoder
from espnet_quant4.asr.espnet_model import QuantESPnetASRModel
from espnet_quant4.asr.lm.seq_rnn_lm import QuantSequentialRNNLM
from espnet_quant4.nn import QuantLinear, QuantLSTM
from espnet_quant4.quantizers.calibration import ClippingError, calibrate_on
from espnet_quant4.quantizers.statistics import FixedQuantizer
from espnet_quant4.scheme import Scheme, apply_scheme

FEATURES = 16
ENCODERS = {"rnn": QuantRNNEncoder, "vgg_rnn": QuantVGGRNNEncoder}
# The tokens are told by which of the features is loud.
SPEAKABLE = [2, 3, 4, 5]


def speak(count, seed):
    """Utterances whose tokens can be heard: ``speech``, ``text`` and their lengths."""
    generator = torch.Generator().manual_seed(seed)
    texts = torch.tensor(SPEAKABLE)[torch.randint(4, (count, 4), generator=generator)]
    speech = 0.5 * torch.randn(count, 48, FEATURES, generator=generator)
    for position in range(4):
        for row, token in enumerate(texts[:, position].tolist()):
            speech[row, 12 * position + 2 : 12 * position + 10, 3 * token - 6 : 3 * token - 3] += 3
    lengths = {"speech_lengths": torch.full((count,), 48), "text_lengths": torch.full((count,), 4)}
    return {"speech": speech, "text": texts, **lengths}


def build(
    encoder,
    bidirectional,
    use_projection,
    scheme=None,
    dropout=0.0,
    ctc_dropout=0.0,
    joint_network_conf=None,
):
    torch.manual_seed(1)
    options = {} if encoder == "vgg_rnn" else {"subsample": (2, 2)}
    built = ENCODERS[encoder](
        FEATURES,
        bidirectional=bidirectional,
        use_projection=use_projection,
        num_layers=2,
        hidden_size=48,
        output_size=48,
        **options,
    )
    return QuantESPnetASRModel(
        vocab_size=len(TOKENS),
        token_list=TOKENS,
        frontend=None,
        specaug=None,
        normalize=None,
        preencoder=None,
        encoder=built,
        postencoder=None,
        decoder=QuantTransducerDecoder(
            len(TOKENS),
            encoder_output_size=48,
            hidden_size=48,
            dropout=dropout,
            dropout_embed=dropout,
        ),
        ctc=CTC(odim=len(TOKENS), encoder_output_size=48, dropout_rate=ctc_dropout),
        joint_network=None,
        scheme=scheme,
        joint_network_conf={"joint_space_size": 48, **(joint_network_conf or {})},
        report_cer=False,
        report_wer=False,
        ctc_weight=0.3,
    )


def trained(model, steps):
    """Train until the output of a projection has left what a tanh could put out."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(steps):
        loss, _, _ = model(**speak(8, step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return model.eval()


def calibrated(model, *configuration):
    """The same model with a scheme, its clips set from other utterances; the clips by tensor."""
    quantized = build(*configuration).eval()
    quantized.load_state_dict(model.state_dict())
    return quantized, dict(calibrate_on(quantized, [speak(32, 20_000)]))


def loss_of(model):
    with torch.no_grad():
        return model(**speak(64, 10_000))[0].item()


@pytest.mark.parametrize("use_projection", [True, False])
@pytest.mark.parametrize(
    ("encoder", "bidirectional", "steps"),
    [("rnn", True, 50), ("rnn", False, 100), ("vgg_rnn", True, 20), ("vgg_rnn", False, 20)],
)
def test_calibration_alone_costs_little_with_espnets_encoders(
    encoder, bidirectional, steps, use_projection
):
    configuration = encoder, bidirectional, use_projection
    model = trained(build(*configuration), steps)
    test = speak(64, 10_000)
    largest = model.encode(test["speech"], test["speech_lengths"])[0].abs().max().item()
    assert (largest > 1) == use_projection
    quantized, activations = calibrated(model, *configuration, "tailored")
    expected = loss_of(model)
    assert loss_of(quantized) <= 1.02 * expected
    assert max(quantizer.share_cut_off for quantizer in activations.values()) < 0.05
    for reader in ("joint_network.lin_enc", "ctc.ctc_lo"):
        assert isinstance(activations[f"{reader}.input"], FixedQuantizer) != use_projection
    if encoder == "rnn" and use_projection:
        # What a clip of 1 would have cost, which the scheme once asserted here.
        flat = Scheme.load("tailored").to_dict()
        flat["linear"]["input"] = {
            "quantizer": "fix", "bits": 4, "clip": 1.0, "allow_clipping": True
        }  # fmt: skip
        assert loss_of(calibrated(model, *configuration, flat)[0]) > 1.1 * expected


def test_a_constant_that_cuts_off_what_nothing_bounds_is_refused():
    configuration = "rnn", False, True
    model = build(*configuration)
    with torch.no_grad():
        model.encoder.enc[0].bt1.weight.mul_(30)
    flat = {"linear": {"input": {"quantizer": "fix", "bits": 4, "clip": 1.0}}}
    with pytest.raises(
        ClippingError, match=r"lin_enc.input: \d+\.\d % beyond 1, the largest"
    ) as caught:
        calibrated(model, *configuration, flat)
    assert "ctc.ctc_lo.input" in str(caught.value)
    assert "bt0" not in str(caught.value), "what an LSTM puts out is bounded"
    flat["linear"]["input"]["allow_clipping"] = True
    _, activations = calibrated(model, *configuration, flat)
    assert activations["joint_network.lin_enc.input"].share_cut_off > 0.3
    assert activations["encoder.enc.0.bt1.input"].share_cut_off == 0.0


@pytest.mark.parametrize(
    ("options", "encoder_bound", "joint_bound"),
    [
        ({}, None, 1.0),
        ({"use_projection": False}, 1.0, 1.0),
        ({"joint_activation_type": "relu"}, None, None),
        ({"joint_activation_type": "hardtanh", "hardtanh_max_val": 3.0}, None, 3.0),
    ],
)
def test_layers_know_what_bounds_their_input(options, encoder_bound, joint_bound):
    joint = {k: v for k, v in options.items() if "tanh" in k or "activation" in k}
    model = build("rnn", True, options.get("use_projection", True), joint_network_conf=joint)
    assert model.joint_network.lin_enc.input_bound == encoder_bound
    assert model.ctc.ctc_lo.input_bound == encoder_bound
    assert model.joint_network.lin_dec.input_bound == 1.0
    assert model.joint_network.lin_out.input_bound == joint_bound
    for name, module in model.encoder.named_modules():
        if isinstance(module, QuantLinear):
            assert module.input_bound == 1.0
        elif isinstance(module, QuantLSTM):
            is_first = name in ("enc.0.birnn0", "enc.0.nbrnn")
            assert module.bound_of_input("l0") == (None if is_first else 1.0)
            assert module.bound_of_input("l1") == 1.0


def test_a_bound_is_known_through_espnets_dropout_of_ctc():
    model = build("rnn", True, False, ctc_dropout=0.2)
    assert model.ctc.ctc_lo.input_bound == 1.25
    apply_scheme(model, "tailored")
    assert model.ctc.ctc_lo.quantizers["input"].constant == 1.25


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("quantizer", ["fix", "max", "pact+"])
def test_quantization_behind_dropout_is_that_before_it(quantizer, probability):
    dropout = torch.nn.Dropout(probability)
    layer = QuantLinear(6, 3)
    layer.reads(bound=1.0, dropout=dropout)
    apply_scheme(layer, {"linear": {"input": {"quantizer": quantizer, "bits": 4}}})
    within = layer.quantizers["input"]
    hidden = (2 * torch.rand(50, 6) - 1).requires_grad_()
    twin = copy.deepcopy(within)
    torch.manual_seed(0)
    found = layer(dropout(hidden))
    torch.manual_seed(0)
    expected = torch.nn.functional.linear(dropout(twin(hidden)), layer.weight, layer.bias)
    if quantizer == "fix":
        torch.testing.assert_close(found, expected)
        found.sum().backward()
        kept = hidden.grad.clone()
        hidden.grad = None
        expected.sum().backward()
        torch.testing.assert_close(kept, hidden.grad)
    # Statistics are of the values without dropout's scale.
    assert within.clip().item() <= 1.0 + 1e-6


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_naive_clips_of_a_transducer_are_the_same_with_dropout(probability):
    """What dropout scales up would stay in the maximum, and leave codes unused in evaluation."""
    model = build("rnn", True, True, "naive", dropout=probability)
    for step in range(3):
        model(**speak(8, step))
    assert model.joint_network.lin_dec.quantizers["input"].clip().item() < 1.0
    embedding = model.decoder.embed.weight.abs().max().item()
    assert model.decoder.decoder[0].quantizers["l0"]["input"].clip().item() <= embedding * 1.001


def test_the_dropout_in_front_of_a_layer_is_the_copys_own():
    model = build("rnn", True, True, dropout=0.3)
    copied = copy.deepcopy(model)
    copied.eval()
    assert copied.joint_network.lin_dec.dropout_of_input == 0.0
    assert model.joint_network.lin_dec.dropout_of_input == 0.3
    assert copied.joint_network.lin_dec._input_dropout is copied.decoder.dropout_dec[-1]
    assert [n for n, _ in model.named_modules()] == [n for n, _ in copied.named_modules()]


def test_lm_reads_its_embedding_and_output_through_dropout():
    lm = QuantSequentialRNNLM(9, unit=12, nlayers=2, dropout_rate=0.5, scheme="naive")
    for seed in range(3):
        lm(torch.randint(9, (4, 7), generator=torch.Generator().manual_seed(seed)), None)
    assert lm.decoder.quantizers["input"].clip().item() < 1.0
    largest = lm.encoder.weight.abs().max().item()
    assert lm.rnn.quantizers["l0"]["input"].clip().item() <= largest * 1.001


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dropout_is_undone_in_every_precision(dtype):
    layer = QuantLinear(6, 3)
    layer.reads(bound=1.0, dropout=torch.nn.Dropout(0.3))
    apply_scheme(layer, {"linear": {"input": {"quantizer": "fix", "bits": 4}}})
    layer.to(dtype)
    hidden = torch.linspace(-1, 1, 60, dtype=dtype).reshape(10, 6)
    # As if nothing had been dropped.
    found = layer((hidden.double() / 0.7).to(dtype))
    expected = torch.nn.functional.linear(
        (layer.quantizers["input"].quantize(hidden).double() / 0.7).to(dtype),
        layer.weight,
        layer.bias,
    )
    assert found.dtype == dtype
    torch.testing.assert_close(
        found, expected, atol=0.25 if dtype == torch.bfloat16 else 1e-9, rtol=0
    )
