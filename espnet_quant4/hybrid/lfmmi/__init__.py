"""Sequence training by lattice-free maximum mutual information."""

from espnet_quant4.hybrid.lfmmi.loss import LFMMILoss, build_lfmmi_loss

__all__ = ["LFMMILoss", "build_lfmmi_loss"]
