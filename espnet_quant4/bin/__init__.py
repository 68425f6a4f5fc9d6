"""The command line: one thin module for each sub-command of ``espnet-quant4``."""
