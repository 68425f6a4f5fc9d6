"""Train a hybrid acoustic model; ``espnet2.bin.asr_train`` for the task ``hybrid``.

    espnet-quant4 hybrid-train --config conf/train_hybrid_fp32.yaml \\
        --num_pdfs ALI/num_pdfs --train_data_path_and_name_and_type DATA/wav.scp,speech,sound \\
        --train_data_path_and_name_and_type ALI/pdf_ids,pdf_ids,text_int ...

``--print_config`` prints all options with their defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.stage_record import Stage, check_complete, file_input


def get_parser() -> Any:
    """Return the task's parser."""
    from espnet_quant4.hybrid.task import HybridTask

    parser = HybridTask.get_parser()
    parser.prog = "espnet-quant4 hybrid-train"
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    from espnet_quant4.hybrid.task import HybridTask

    args = get_parser().parse_args(arguments)
    HybridTask.check_required_command_args(args)
    if args.output_dir is not None and not args.collect_stats and args.dist_rank in (None, 0):
        _stage(args).resume(Path(args.output_dir) / "checkpoint.pth")
    HybridTask.main(args=args)
    return 0


def _stage(args: Any) -> Stage:
    """Return the record of the alignments that a network is trained on.

    Everything else may change while a training goes on, such as the number of epochs.
    """
    inputs = {}
    for kind in ("train", "valid"):
        for path, _, data_type in getattr(args, f"{kind}_data_path_and_name_and_type"):
            if data_type == "text_int":
                check_complete(Path(path).parent)
                inputs[f"{kind} {Path(path).name}"] = file_input(Path(path))
    return Stage("hybrid-train", Path(args.output_dir), ("config.yaml",), inputs)


if __name__ == "__main__":
    sys.exit(run_command("hybrid-train", main))
