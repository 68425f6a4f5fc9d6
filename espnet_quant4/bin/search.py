"""Choose the bits of each weight by measured sensitivity, under a budget of size.

    espnet-quant4 search exp/asr_tailored --budget 0.1 --output conf/mixed.yaml

The experiment is a trained quantized model. Each of its weights gets each of --widths, one at a time,
and the loss on training data tells what that costs; then the widths with the least sum of losses are
chosen whose size is at most --budget of the model in float32. What is written is a scheme for
quantization-aware training. Losses are kept beside it: an interrupted search goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.task_class import TASKS, task_class
from espnet_quant4.report.results import write_json


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="experiment of a quantized model")
    parser.add_argument("--task", choices=TASKS, default="asr", help="which training wrote it")
    parser.add_argument("--model", default="valid.loss.ave.pth", help="checkpoint in the folder")
    parser.add_argument("--budget", type=float, required=True, help="share of the size in float32")
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 3, 4, 5, 6, 8])
    parser.add_argument("--batches", type=int, default=50, help="training batches of 4 utterances")
    parser.add_argument("--output", type=Path, required=True, help="scheme to write")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    if not 0 < args.budget < 1:
        parser.error(f"--budget {args.budget}: valid are numbers above 0, below 1")
    if args.batches < 1:
        parser.error(f"--batches {args.batches}: valid are 1 and above")
    wrong = [width for width in args.widths if not 2 <= width <= 8]
    if wrong:
        parser.error(f"--widths {wrong[0]}: valid are 2 to 8")
    import espnet_quant4.plugin  # the switch that turns the plugin off is not for this command
    from espnet_quant4.report.experiment.error import ReportError
    from espnet_quant4.search.allocation import BudgetError

    espnet_quant4.plugin.register()
    try:
        return search(args)
    except (ReportError, BudgetError) as error:
        print(f"espnet-quant4 search: {error}", file=sys.stderr)
        return 1


def search(args: argparse.Namespace) -> int:
    """Measure, choose and write the scheme that ``args`` ask for."""
    import yaml
    from tqdm import tqdm

    from espnet_quant4.report.experiment import data, folder
    from espnet_quant4.report.experiment.error import ReportError
    from espnet_quant4.report.model_size import measure as measure_size
    from espnet_quant4.search import allocation, sensitivity

    task = task_class(args.task)
    model, training = folder.load_model(args.folder, args.model, task)
    scheme = (getattr(training, "model_conf", None) or {}).get("scheme")
    sites = sensitivity.weight_sites(model)
    if scheme is None or not sites:
        raise ReportError(
            f"{args.folder}: no scheme in model_conf: a search starts from a model that is quantized, "
            "such as exp/asr_tailored."
        )
    read = training.train_data_path_and_name_and_type
    missing = data.missing_files(read)
    if missing:
        raise ReportError(
            f"{missing[0]}: no such file from {Path.cwd()}; run the command where the training ran"
        )
    batches = list(data.batches(task, training, read, args.batches))
    kept = Kept(
        args.output.with_suffix(".losses.json"), args.folder / args.model, len(batches), read
    )
    widths = {*args.widths, *(bits for _, bits in sites.values())}
    with tqdm(total=sum(len({*args.widths, b}) for _, b in sites.values()), desc="losses") as bar:
        bar.update(sum(len(losses) for losses in kept.losses.values()))

        def keep(site: sensitivity.Site, width: int, loss: float) -> None:
            kept.add(site, width, loss)
            bar.update()

        measured = sensitivity.measure(
            sensitivity.builder(task, training, model.state_dict()),
            scheme, batches, args.widths, kept.losses, keep,
        )  # fmt: skip
    size = measure_size(model)
    parameters = {site: entry.parameters for site, entry in measured.items()}
    now = {site: entry.bits for site, entry in measured.items()}
    fixed = 8 * size.packed - allocation.total_bits(now, parameters)
    budget = args.budget * 8 * size.float32
    chosen = allocation.allocate(
        sensitivity.increases(measured), parameters, max(budget - fixed, 0)
    )
    _show(measured, chosen, sorted(widths))
    share = (fixed + allocation.total_bits(chosen, parameters)) / (8 * size.float32)
    changed = {site: bits for site, bits in chosen.items() if bits != now[site]}
    text = yaml.safe_dump(sensitivity.with_widths(scheme, changed), sort_keys=False)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(
        f"# espnet-quant4 search --budget {args.budget}: {share:.4f} of the size in float32.\n{text}",
        encoding="utf-8",
    )
    print(f"\nsaved {args.output}: {share:.4f} of the size in float32")
    return 0


class Kept:
    """Losses on disk, each written as it is known.

    Args:
        path: JSON file.
        checkpoint: that they are of; losses of an earlier one of that name are forgotten.
        batches: number of batches.
        data: ``(path, name, type)`` of the files that these are of.
    """

    def __init__(self, path: Path, checkpoint: Path, batches: int, data: Sequence[Sequence[str]]):
        self.path = path
        self.of = {
            "checkpoint": str(checkpoint.resolve()),
            "batches": batches,
            "data": [file for file, *_ in data],
            "time": checkpoint.stat().st_mtime,
        }
        self.losses: dict[tuple[str, str], dict[int, float]] = {}
        if path.is_file():
            (content,) = json.loads(path.read_text(encoding="utf-8"))
            if content.get("of") == self.of:
                for layer, tensor, bits, loss in content["losses"]:
                    self.losses.setdefault((layer, tensor), {})[bits] = loss

    def add(self, site: tuple[str, str], bits: int, loss: float) -> None:
        """Add a loss and write the file."""
        self.losses.setdefault(site, {})[bits] = loss
        rows = [[*s, b, value] for s, losses in self.losses.items() for b, value in losses.items()]
        write_json([{"of": self.of, "losses": rows}], self.path)


def _show(measured: Any, chosen: Any, widths: Sequence[int]) -> None:
    print(f"{'loss at':>10}      " + " ".join(f"{w:>8}" for w in widths) + "  chosen  tensor")
    for (layer, tensor), entry in measured.items():
        cells = [
            f"{entry.losses[width]:8.4f}" if width in entry.losses else f"{'-':>8}"
            for width in widths
        ]
        bits = chosen[(layer, tensor)]
        print(f"{entry.parameters:>10}      {' '.join(cells)}  {bits:>6}  {layer}.{tensor}")


if __name__ == "__main__":
    sys.exit(run_command("search", main))
