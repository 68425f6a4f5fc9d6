"""A small recognizer of ESPnet's, with a frontend, on disk as training leaves it."""

import argparse

import numpy as np
import torch
from espnet2.tasks.asr import ASRTask
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump
from small_transducer import TOKENS

from espnet_quant4.quantizers.calibration import calibrating


def write_recognizer(folder, bidirectional=True, encoder_conf=None, frontend_conf=None, **options):
    """Write config.yaml, model.pth and feats_stats.npz; return the two paths.

    Args:
        folder: where to.
        bidirectional: of the encoder.
        encoder_conf: further options of the encoder.
        frontend_conf: likewise.
        options: whatever else the training's configuration should hold.
    """
    rng = np.random.default_rng(0)
    stats = folder / "feats_stats.npz"
    values = rng.normal(size=(500, 10)) * 2 - 8
    np.savez(stats, count=np.array(500), sum=values.sum(0), sum_square=(values**2).sum(0))
    args = argparse.Namespace(**ASRTask.get_default_config())
    vars(args).update(
        token_list=TOKENS,
        token_type="char",
        frontend="default",
        frontend_conf={"fs": "8k", "n_fft": 256, "hop_length": 80, "n_mels": 10,
                       **(frontend_conf or {})},
        normalize="global_mvn",
        normalize_conf={"stats_file": str(stats)},
        encoder="quant_rnn",
        encoder_conf={"num_layers": 2, "hidden_size": 20, "output_size": 12, "stack_frames": 3,
                      "use_projection": False, "bidirectional": bidirectional,
                      **(encoder_conf or {})},
        decoder="quant_transducer",
        decoder_conf={"hidden_size": 12},
        joint_net_conf={"joint_space_size": 16},
        model="quant_espnet",
        model_conf={"scheme": "tailored", "ctc_weight": 0.3},
    )  # fmt: skip
    vars(args).update(options)
    torch.manual_seed(5)
    model = ASRTask.build_model(args)
    with torch.no_grad():
        # So that blank does not always win: real texts come out.
        outputs = model.joint_network.lin_out if args.decoder else model.ctc.ctc_lo
        outputs.weight.mul_(8.0)
    with calibrating(model.eval()), torch.no_grad():
        model.encode(0.3 * torch.randn(2, 8000), torch.tensor([8000, 6000]))
        if args.decoder:
            model.joint_network(torch.randn(1, 3, 1, 12).tanh(), torch.randn(1, 1, 2, 12).tanh())
            model.decoder(torch.tensor([[0, 3, 4]]))
        model.ctc.ctc_lo(torch.randn(3, 12).tanh())
    torch.save(model.state_dict(), folder / "model.pth")
    with (folder / "config.yaml").open("w", encoding="utf-8") as config:
        yaml_no_alias_safe_dump(vars(args), config)
    return folder / "config.yaml", folder / "model.pth"
