"""The quantized classes in float against the ESPnet classes whose place they take."""

import pytest
import torch
from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
from espnet2.asr.encoder.rnn_encoder import RNNEncoder
from espnet2.asr.encoder.vgg_rnn_encoder import VGGRNNEncoder
from espnet2.lm.seq_rnn_lm import SequentialRNNLM

from espnet_quant4.asr.decoder.transducer_decoder import QuantTransducerDecoder
from espnet_quant4.asr.encoder.rnn_encoder import QuantRNNEncoder
from espnet_quant4.asr.encoder.vgg_rnn_encoder import QuantVGGRNNEncoder
from espnet_quant4.asr.frame_stacking import stack_frames
from espnet_quant4.asr.lm.seq_rnn_lm import QuantSequentialRNNLM

SMALL = {"hidden_size": 6, "output_size": 5, "num_layers": 2}


def same_weights(ours, theirs):
    """Load ESPnet's checkpoint; strict, so that the names must agree."""
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert set(dict(ours.named_parameters())) == set(dict(theirs.named_parameters()))
    return ours, theirs


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    "options",
    [{"use_projection": True, "subsample": (2, 1)}, {"use_projection": False}],
    ids=["projection", "plain"],
)
def test_rnn_encoder(options, bidirectional):
    torch.manual_seed(0)
    options = {**SMALL, **options, "bidirectional": bidirectional}
    ours, theirs = same_weights(QuantRNNEncoder(7, **options), RNNEncoder(7, **options))
    x, lengths = torch.randn(3, 12, 7), torch.tensor([12, 9, 4])
    for training in (True, False):
        got, got_lengths, _ = ours.train(training)(x, lengths)
        expected, expected_lengths, _ = theirs.train(training)(x, lengths)
        assert got_lengths.tolist() == expected_lengths.tolist()
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_rnn_encoder_carries_states_as_espnet_does():
    torch.manual_seed(0)
    options = {**SMALL, "use_projection": True, "subsample": None, "bidirectional": False}
    ours, theirs = same_weights(QuantRNNEncoder(7, **options), RNNEncoder(7, **options))
    x, lengths = torch.randn(2, 8, 7), torch.tensor([4, 4])
    states = expected_states = None
    for chunk in x.split(4, dim=1):
        got, _, states = ours.eval()(chunk, lengths, states)
        expected, _, expected_states = theirs.eval()(chunk, lengths, expected_states)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("use_projection", [True, False])
def test_vgg_rnn_encoder(use_projection):
    torch.manual_seed(0)
    options = {**SMALL, "use_projection": use_projection, "in_channel": 1}
    ours, theirs = same_weights(QuantVGGRNNEncoder(16, **options), VGGRNNEncoder(16, **options))
    x, lengths = torch.randn(2, 21, 16), torch.tensor([21, 10])
    got, got_lengths, _ = ours.eval()(x, lengths)
    expected, expected_lengths, _ = theirs.eval()(x, lengths)
    assert list(map(int, got_lengths)) == list(map(int, expected_lengths))
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_transducer_decoder():
    torch.manual_seed(0)
    options = {"num_layers": 2, "hidden_size": 6}
    ours, theirs = same_weights(
        QuantTransducerDecoder(9, encoder_output_size=5, **options), TransducerDecoder(9, **options)
    )
    labels = torch.randint(0, 9, (3, 5))
    torch.testing.assert_close(ours(labels), theirs(labels), atol=1e-6, rtol=1e-6)


def test_language_model():
    torch.manual_seed(0)
    ours, theirs = same_weights(QuantSequentialRNNLM(9, 6, nlayers=2), SequentialRNNLM(9, 6))
    tokens = torch.randint(0, 9, (3, 5))
    torch.testing.assert_close(ours(tokens, None), theirs(tokens, None), atol=1e-6, rtol=1e-6)
    states = [ours.zero_state() for _ in range(3)]
    got, _ = ours.batch_score(tokens, states, None)
    expected, _ = theirs.batch_score(tokens, states, None)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
    tied = QuantSequentialRNNLM(9, 6, tie_weights=True)
    assert tied.decoder.weight is tied.encoder.weight


@pytest.mark.parametrize(
    "build",
    [
        lambda: QuantRNNEncoder(7, rnn_type="gru"),
        lambda: QuantVGGRNNEncoder(16, rnn_type="gru"),
        lambda: QuantTransducerDecoder(9, 6, rnn_type="gru"),
        lambda: QuantSequentialRNNLM(9, rnn_type="gru"),
    ],
)
def test_gru_is_refused_with_the_way_out(build):
    with pytest.raises(ValueError, match="rnn_type: 'gru' has no quantized form.*ESPnet's own"):
        build()


@pytest.mark.parametrize("encoder", [QuantRNNEncoder(7, **SMALL), QuantVGGRNNEncoder(16, **SMALL)])
@pytest.mark.parametrize("wrong", [0, 13])
def test_wrong_lengths_are_named(encoder, wrong):
    size = 7 if isinstance(encoder, QuantRNNEncoder) else 16
    with pytest.raises(ValueError, match=rf"lengths \[{wrong}\] at batch positions \[1\]"):
        encoder(torch.randn(3, 12, size), torch.tensor([12, wrong, 4]))


def test_one_frame_utterance():
    encoder = QuantRNNEncoder(7, stack_frames=3, **SMALL)
    output, lengths, _ = encoder(torch.randn(2, 12, 7), torch.tensor([12, 1]))
    assert lengths.tolist()[1] == 1 and output.isfinite().all()


def test_stack_frames():
    feats = torch.arange(1.0, 11.0).view(1, 5, 2).repeat(2, 1, 1)
    stacked, lengths = stack_frames(feats, torch.tensor([5, 3]), 2)
    assert lengths.tolist() == [3, 2]
    assert stacked[0].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 0]]
    assert stacked[1].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="stack_frames: 0"):
        QuantRNNEncoder(7, stack_frames=0)
