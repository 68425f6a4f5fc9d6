"""Choose the bits of each weight by measured sensitivity, under a budget of size.

    espnet-quant4 search exp/asr_tailored --budget 0.1 --output conf/mixed.yaml

The experiment is a trained quantized model. Each of its weights gets each of --widths, one at a time,
and the loss on training data tells what that costs; then the widths with the least sum of losses are
chosen whose size is at most --budget of the model in float32. What is written is a scheme for
quantization-aware training. Losses are kept beside it: an interrupted search goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.task_class import SPEECH_TASKS, task_class
from espnet_quant4.report.results import write_json
from espnet_quant4.text_files import TextFileError, read_json, write_text

if TYPE_CHECKING:
    from espnet_quant4.report.experiment.data import Data


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="experiment of a quantized model")
    parser.add_argument(
        "--task", choices=SPEECH_TASKS, default="asr", help="which training wrote it"
    )
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

    espnet_quant4.plugin.register()
    search(args)
    return 0


def search(args: argparse.Namespace) -> None:
    """Measure, choose and write the scheme that ``args`` ask for.

    Raises:
        ReportError: where the experiment or its data are missing or of something else.
        BudgetError: for a budget that no choice of widths keeps, before anything is measured.
    """
    import yaml

    from espnet_quant4.report.experiment import data, folder
    from espnet_quant4.report.model_size import measure as measure_size
    from espnet_quant4.search import allocation, sensitivity

    task = task_class(args.task)
    model, training = folder.load_model(args.folder, args.model, task)
    scheme, sites = _quantized(args, model, training)
    widths = {site: {*args.widths, bits} for site, (_, bits) in sites.items()}
    parameters = {site: count for site, (count, _) in sites.items()}
    now = {site: bits for site, (_, bits) in sites.items()}
    size = measure_size(model)
    fixed = 8 * size.packed - allocation.total_bits(now, parameters)
    budget = max(args.budget * 8 * size.float32 - fixed, 0)
    try:
        # Whether any choice fits does not depend on what it costs.
        costless = {site: dict.fromkeys(choices, 0.0) for site, choices in widths.items()}
        allocation.allocate(costless, parameters, budget)
    except allocation.BudgetError as error:
        fewest = {site: min(choices) for site, choices in widths.items()}
        least = (fixed + allocation.total_bits(fewest, parameters)) / (8 * size.float32)
        raise allocation.BudgetError(
            f"--budget {args.budget}: {error} At their fewest bits all weights are {least:.4f} of the "
            "size in float32."
        ) from error
    read = _training_data(args, training)
    batches = list(data.batches(task, training, read, args.batches))
    kept = Kept(
        args.output.with_suffix(".losses.json"), args.folder / args.model, len(batches), read.names
    )
    build = sensitivity.builder(task, training, model.state_dict())
    measured = _measure(build, scheme, batches, args.widths, kept, widths)
    chosen = allocation.allocate(sensitivity.increases(measured), parameters, budget)
    _show(measured, chosen, sorted(set().union(*widths.values())))
    share = (fixed + allocation.total_bits(chosen, parameters)) / (8 * size.float32)
    changed = {site: bits for site, bits in chosen.items() if bits != now[site]}
    text = yaml.safe_dump(sensitivity.with_widths(scheme, changed), sort_keys=False)
    head = f"# espnet-quant4 search --budget {args.budget}: {share:.4f} of the size in float32."
    write_text(args.output, f"{head}\n{text}")
    print(f"\nsaved {args.output}: {share:.4f} of the size in float32")


def _quantized(args: argparse.Namespace, model: Any, training: Any) -> tuple[Any, Any]:
    """Return the scheme of an experiment and its quantized weights."""
    from espnet_quant4.report.experiment.error import ReportError
    from espnet_quant4.search.sensitivity import weight_sites

    scheme = (getattr(training, "model_conf", None) or {}).get("scheme")
    sites = weight_sites(model)
    if scheme is None or not sites:
        raise ReportError(
            f"{args.folder}: no scheme in model_conf: a search starts from a model that is quantized, "
            "such as exp/asr_tailored."
        )
    return scheme, sites


def _training_data(args: argparse.Namespace, training: Any) -> Data:
    """Return the data that an experiment was trained on."""
    from espnet_quant4.report.experiment.data import data_of
    from espnet_quant4.report.experiment.error import ReportError

    read = data_of(training, "train")
    if read is None:
        raise ReportError(
            f"{args.folder}/config.yaml names no training data: neither "
            "train_data_path_and_name_and_type nor dataset: train. Give the folder of the training."
        )
    if missing := read.missing():
        raise ReportError(
            f"{missing[0]}: no such file from {Path.cwd()}; run the command where the training ran"
        )
    return read


def _measure(
    build: Any, scheme: Any, batches: Any, asked: Sequence[int], kept: Kept, widths: Any
) -> Any:
    """Measure what is not kept, with a bar that counts losses."""
    from tqdm import tqdm

    from espnet_quant4.search import sensitivity

    with tqdm(total=sum(len(choices) for choices in widths.values()), desc="losses") as bar:
        bar.update(sum(len(losses) for losses in kept.losses.values()))

        def keep(site: sensitivity.Site, width: int, loss: float) -> None:
            kept.add(site, width, loss)
            bar.update()

        return sensitivity.measure(build, scheme, batches, asked, kept.losses, keep)


class Kept:
    """Losses on disk, each written as it is known.

    Args:
        path: JSON file.
        checkpoint: that they are of; losses of an earlier one of that name are forgotten.
        batches: number of batches.
        data: names of what these are of.

    Raises:
        TextFileError: for a file that is there and holds something else.
    """

    def __init__(self, path: Path, checkpoint: Path, batches: int, data: Sequence[str]):
        self.path = path
        self.of = {
            "checkpoint": str(checkpoint.resolve()),
            "batches": batches,
            "data": list(data),
            "time": checkpoint.stat().st_mtime,
        }
        self.losses: dict[tuple[str, str], dict[int, float]] = {}
        if path.is_file():
            content = read_json(path)
            try:
                (content,) = content
                if content["of"] == self.of:
                    for layer, tensor, bits, loss in content["losses"]:
                        self.losses.setdefault((layer, tensor), {})[bits] = loss
            except (TypeError, KeyError, ValueError) as error:
                raise TextFileError(
                    f"{path}: holds no losses of this command. Remove it, or choose another --output."
                ) from error

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
