"""Train a hybrid acoustic model; ``espnet2.bin.asr_train`` for the task ``hybrid``.

    espnet-quant4 hybrid-train --config conf/train_hybrid_fp32.yaml \\
        --num_pdfs ALI/num_pdfs --train_data_path_and_name_and_type DATA/wav.scp,speech,sound \\
        --train_data_path_and_name_and_type ALI/pdf_ids,pdf_ids,text_int ...

``--print_config`` prints all options with their defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from espnet_quant4.bin.command import run_command


def get_parser() -> Any:
    """Return the task's parser."""
    from espnet_quant4.hybrid.task import HybridTask

    parser = HybridTask.get_parser()
    parser.prog = "espnet-quant4 hybrid-train"
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    from espnet_quant4.hybrid.task import HybridTask

    HybridTask.main(args=get_parser().parse_args(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(run_command("hybrid-train", main))
