"""A small transducer on features, and batches for it."""

import torch
from espnet2.asr.ctc import CTC

from espnet_quant4.asr.decoder.transducer_decoder import QuantTransducerDecoder
from espnet_quant4.asr.encoder.rnn_encoder import QuantRNNEncoder
from espnet_quant4.asr.espnet_model import QuantESPnetASRModel

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "c", "<sos/eos>"]
FEATURES = 8

# Every family of quantizers at work: weight statistics, learned clips, constants.
SCHEME = {
    "lstm": {
        "weight_ih": {"quantizer": "sawb+", "bits": 4, "granularity": "gate"},
        "weight_hh": {"quantizer": "lsq", "bits": 4, "granularity": "gate"},
        "input": {"quantizer": "pact+", "bits": 4, "init": "mse"},
        "hidden": {"quantizer": "fix", "bits": 4, "clip": 1.0},
    },
    "linear": {
        "weight": {"quantizer": "max", "bits": 4},
        "input": {"quantizer": "max", "bits": 4},
    },
    "embedding": {"weight": {"quantizer": "max", "bits": 4}},
}


def build_transducer(scheme=None, decoder=None, seed=0, **model_conf):
    torch.manual_seed(seed)
    encoder = QuantRNNEncoder(
        FEATURES, use_projection=False, num_layers=2, hidden_size=6, output_size=6, stack_frames=2
    )
    if decoder is None:
        decoder = QuantTransducerDecoder(len(TOKENS), encoder_output_size=6, hidden_size=5)
    return QuantESPnetASRModel(
        vocab_size=len(TOKENS),
        token_list=TOKENS,
        frontend=None,
        specaug=None,
        normalize=None,
        preencoder=None,
        encoder=encoder,
        postencoder=None,
        decoder=decoder,
        ctc=CTC(odim=len(TOKENS), encoder_output_size=6),
        joint_network=None,
        scheme=scheme,
        joint_network_conf={"joint_space_size": 7},
        report_cer=False,
        report_wer=False,
        **{"ctc_weight": 0.3, **model_conf},
    )


def random_batch(seed=0):
    torch.manual_seed(seed)
    return {
        "speech": torch.randn(3, 24, FEATURES),
        "speech_lengths": torch.tensor([24, 20, 13]),
        "text": torch.tensor([[3, 4, 5, 2], [5, 3, -1, -1], [4, -1, -1, -1]]),
        "text_lengths": torch.tensor([4, 2, 1]),
    }
