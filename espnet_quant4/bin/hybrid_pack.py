"""Pack a hybrid acoustic model into one archive; ``espnet2.bin.pack`` for the task ``hybrid``.

    espnet-quant4 hybrid-pack --hybrid_train_config EXP/config.yaml \\
        --hybrid_model_file EXP/valid.loss.ave.pth --log_prior EXP/log_prior --outpath EXP/model.zip

Feature statistics that the configuration names are packed too. The archive is what
``AcousticScorer.from_pretrained`` and ``hybrid_inference --model_tag`` take.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from espnet_quant4.bin.command import run_command

# Endings by which ESPnet tells the kinds of archives.
PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class HybridPackedContents:
    """What is packed, as ``espnet2.bin.pack`` declares it; names are those of `AcousticScorer`."""

    files = ("hybrid_model_file", "log_prior")
    yaml_files = ("hybrid_train_config",)


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 hybrid-pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--outpath", required=True, help="such as model.zip or model.tar.gz")
    parser.add_argument("--hybrid_train_config", required=True, help="config.yaml")
    parser.add_argument("--hybrid_model_file", required=True, help="such as valid.loss.ave.pth")
    parser.add_argument("--log_prior", help="Kaldi text vector")
    parser.add_argument("--option", action="append", default=[], help="a further file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(arguments)
    from espnet2.main_funcs.pack_funcs import pack

    from espnet_quant4.checkpoints import read_checkpoint
    from espnet_quant4.hybrid.model.prior import read_vector
    from espnet_quant4.hybrid.task import HybridTask
    from espnet_quant4.trained_model import read_training_options

    given = {
        kind: {
            name: value
            for name in getattr(HybridPackedContents, kind)
            if (value := getattr(args, name)) is not None
        }
        for kind in ("files", "yaml_files")
    }
    # What is packed is found wrong here, and not where it is unpacked.
    config = read_training_options(HybridTask, args.hybrid_train_config)
    read_checkpoint(args.hybrid_model_file)
    if args.log_prior is not None:
        read_vector(args.log_prior)
    if not args.outpath.endswith(PACKED):
        raise ValueError(f"--outpath {args.outpath}: valid endings are {', '.join(PACKED)}.")
    statistics = (config.get("normalize_conf") or {}).get("stats_file")
    options = list(dict.fromkeys([*args.option, *([statistics] if statistics else [])]))
    pack(**given, outpath=args.outpath, option=options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hybrid-pack", main))
