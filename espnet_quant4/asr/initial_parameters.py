"""Starts a training of ESPnet3 from a checkpoint.

ESPnet2 has ``--init_param`` and the command ``espnet-quant4 calibrate`` for this. ESPnet3 has no
such option, but hands the callbacks of its configuration to the trainer, and this is one::

    trainer:
        callbacks:
        -   _target_: espnet_quant4.asr.initial_parameters.InitialParameters
            path: exp/asr_fp32/valid.loss.ave_5best.pth
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import Any

from espnet2.torch_utils.device_funcs import to_device
from lightning.pytorch.callbacks import Callback

from espnet_quant4.checkpoints import listed
from espnet_quant4.initial_parameters import load_initial_parameters, still_random
from espnet_quant4.quantizers import Quantizer
from espnet_quant4.quantizers.calibration import calibrate_on


class InitialParameters(Callback):
    """Lightning callback: loads a checkpoint before training and sets activation clips from data.

    A training that is resumed keeps what its own checkpoint says: neither is done then.

    Args:
        path: a model's parameters, as ESPnet2's ``--init_param`` names them:
            ``FILE``, or ``FILE:FROM:TO:EXCLUDED`` for a part of them. None loads nothing.
        calibration_batches: number of training batches that pass through the model in float,
            without dropout and augmentation of features, to set the clips of its activations; 0
            leaves this to the first batch of training. A model without activation quantizers needs
            none.

    Raises:
        ValueError: for a negative number of batches.
        CheckpointError: at the start of training, for a file that is not there or is no checkpoint,
            and for parameters of another shape, or that the model does not have.
    """

    def __init__(self, path: str | None = None, calibration_batches: int = 16):
        super().__init__()
        if calibration_batches < 0:
            raise ValueError(f"calibration_batches: {calibration_batches}; valid: 0 and above")
        self.path = path
        self.calibration_batches = calibration_batches

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Load the parameters; the trainer restores its own checkpoint after this."""
        if stage != "fit" or trainer.ckpt_path is not None:
            return
        loaded = load_initial_parameters(pl_module.model, str(self.path)) if self.path else set()
        random = still_random(pl_module.model, loaded)
        logging.info(f"initial parameters: {self.path}: {len(loaded)} tensors")
        if random:
            # Training from there may be meant; clips that calibration then sets say little.
            logging.warning(
                f"initial parameters: {self.path}: {len(random)} parameters start random: "
                f"{listed(random)}"
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Calibrate; the model is on its device by now, and nothing has been evaluated yet."""
        model = pl_module.model
        if (
            trainer.ckpt_path is not None
            or self.calibration_batches == 0
            or not any(isinstance(m, Quantizer) and m.role == "activation" for m in model.modules())
        ):
            return
        was_training = model.training
        model.eval()
        first = islice(pl_module.train_dataloader(), self.calibration_batches)
        activations = calibrate_on(
            model, (to_device(batch, pl_module.device) for _, batch in first)
        )
        model.train(was_training)
        for name, quantizer in activations:
            logging.info(f"clip {quantizer.clip()[0].item():.4f}, {quantizer.bits} bits: {name}")
