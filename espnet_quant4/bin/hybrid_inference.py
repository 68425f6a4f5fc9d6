"""Score utterances with a hybrid acoustic model, for alignment or for search in a decoding graph.

    espnet-quant4 hybrid-inference --hybrid_train_config EXP/config.yaml \\
        --hybrid_model_file EXP/valid.loss.ave.pth --log_prior EXP/log_prior \\
        --data_path_and_name_and_type DATA/wav.scp,speech,sound --output_dir OUT

Writes ``scores.ark`` and ``scores.scp`` (log posterior - prior_scale * log prior, float32), ``seconds``
(spent, and of audio) and ``failed.txt``. Utterances that are in ``scores.scp`` are passed over.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espnet_quant4.bin.command import run_command
from espnet_quant4.hybrid.stage_record import file_input, listed_inputs
from espnet_quant4.text_files import read_lines, read_pairs, write_lines


def get_parser() -> Any:
    """Return the command's parser; options may stand in a YAML file, ``--config``."""
    from espnet2.utils import config_argparse
    from espnet2.utils.types import str2bool, str2triple_str, str_or_none

    parser = config_argparse.ArgumentParser(
        prog="espnet-quant4 hybrid-inference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    levels = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "NOTSET")
    parser.add_argument("--log_level", type=str.upper, default="INFO", choices=levels)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--ngpu", type=int, default=0, help="0: CPU, 1: GPU")
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=1, help="processes that read data")
    group = parser.add_argument_group("Input data related")
    group.add_argument(
        "--data_path_and_name_and_type", type=str2triple_str, required=True, action="append"
    )
    group.add_argument("--key_file", type=str_or_none, help="utterances to score; default: all")
    group.add_argument("--allow_variable_data_keys", type=str2bool, default=False)
    group = parser.add_argument_group("The model configuration related")
    group.add_argument("--hybrid_train_config", type=str_or_none, help="config.yaml")
    group.add_argument("--hybrid_model_file", type=str_or_none, help="such as valid.loss.ave.pth")
    group.add_argument("--int4_file", type=str_or_none, help="instead: made by convert")
    group.add_argument("--model_tag", type=str_or_none, help="instead: made by hybrid_pack")
    group = parser.add_argument_group("Scores related")
    group.add_argument(
        "--log_prior",
        type=str_or_none,
        help="Kaldi text vector; none: that of the INT4 or packed file, or log posteriors",
    )
    group.add_argument("--prior_scale", type=float, default=1.0)
    group.add_argument(
        "--repeat_frames",
        type=str2bool,
        default=True,
        help="with model_conf: subsample, a row for every frame of the features",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 where utterances failed."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    logging.basicConfig(
        level=args.log_level,
        format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s",
    )
    if args.ngpu not in (0, 1):
        parser.error(f"--ngpu {args.ngpu}: valid are 0 and 1")
    if args.num_threads < 1:
        parser.error(f"--num_threads {args.num_threads}: valid are 1 and above")
    import torch

    torch.set_num_threads(args.num_threads)
    return run(args)


def run(args: argparse.Namespace) -> int:
    """Score the utterances that were not scored yet; returns 1 where some failed.

    Raises:
        ValueError, OSError: for a model, prior or data that cannot be used.
    """
    from espnet_quant4.hybrid.scorer import unpacked_model

    options = {
        "hybrid_train_config": args.hybrid_train_config,
        "hybrid_model_file": args.hybrid_model_file,
        "int4_file": args.int4_file,
        "log_prior": args.log_prior,
    }
    if args.model_tag is None:
        return score(args, options)
    with unpacked_model(args.model_tag) as files:
        prior = args.log_prior or files.get("log_prior")
        return score(args, {**options, **files, "log_prior": prior})


def score(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Score with the model that ``options`` of `AcousticScorer` name; returns and raises as `run`."""
    from tqdm import tqdm

    from espnet_quant4.hybrid.score_archive import ScoreArchive
    from espnet_quant4.hybrid.task import HybridTask

    keys = _keys(args)
    archive = ScoreArchive(args.output_dir, _settings(options, args), keys)
    left = [key for key in keys if key not in archive.done]
    logging.info(f"{len(keys)} utterances, {len(keys) - len(left)} scored already")
    failed = Path(args.output_dir, "failed.txt")
    failed.unlink(missing_ok=True)
    if left:
        scorer = _scorer(options, args)
        todo = Path(args.output_dir, "keys.left")
        write_lines(todo, left)
        loader = HybridTask.build_streaming_iterator(
            args.data_path_and_name_and_type,
            preprocess_fn=HybridTask.build_preprocess_fn(scorer.train_args, False),
            collate_fn=HybridTask.build_collate_fn(scorer.train_args, False),
            dtype="float32",
            key_file=str(todo),
            num_workers=args.num_workers,
            allow_variable_data_keys=args.allow_variable_data_keys,
            inference=True,
        )
        shown = tqdm(loader, total=len(left), unit="utt", disable=not sys.stderr.isatty())
        for number, ((key,), batch) in enumerate(shown, 1):
            speech = batch["speech"][0]
            start = time.perf_counter()
            try:
                scores = scorer(speech, args.repeat_frames)
            except ValueError as error:
                logging.error(f"{key}: {error}")
                with failed.open("a", encoding="utf-8") as listed:
                    listed.write(f"{key} {error}\n")
                continue
            spent = time.perf_counter() - start
            archive.write(key, scores, spent, len(speech) / scorer.samples_per_second)
            logging.info(f"scored {key}: {len(scores)} frames ({number}/{len(left)})")
        todo.unlink()
    spent, audio = archive.finish()
    if audio > 0:
        logging.info(
            f"real-time factor of the acoustic model: {spent / audio:.4f} ({spent:.2f} s for "
            f"{audio:.2f} s of audio, {args.num_threads} threads)"
        )
    if failed.exists():
        count = len(read_lines(failed))
        logging.error(f"{count} utterances failed: {failed}")
        return 1
    return 0


def _scorer(options: dict[str, Any], args: argparse.Namespace) -> Any:
    """Return a scorer that has scored something, so that no utterance pays for a first call."""
    import torch

    from espnet_quant4.hybrid.scorer import AcousticScorer

    scorer = AcousticScorer(
        **options, prior_scale=args.prior_scale, device="cuda" if args.ngpu else "cpu"
    )
    second = scorer.samples_per_second
    size = () if scorer.model.frontend is not None else (scorer.train_args.input_size,)
    scorer(0.01 * torch.randn(second, *size, generator=torch.Generator().manual_seed(0)))
    return scorer


def _keys(args: argparse.Namespace) -> list[str]:
    """Return the names of the utterances to score."""
    path = Path(args.key_file or args.data_path_and_name_and_type[0][0])
    return [key for _, key, _ in read_pairs(path)]


def _settings(options: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Return all that scores depend on: lists and models by content, recordings by size and time."""
    from espnet_quant4.int4.runner import SWITCH

    files = {
        name: file_input(Path(path)).checksum for name, path in options.items() if path is not None
    }
    data: dict[str, str] = {}
    for path, _, _ in args.data_path_and_name_and_type:
        data |= {role: found.checksum for role, found in listed_inputs(path, Path(path)).items()}
    return {
        **files,
        "data": data,
        "prior_scale": args.prior_scale,
        "repeat_frames": args.repeat_frames,
        "ngpu": args.ngpu,
        "num_threads": args.num_threads,
        SWITCH: os.environ.get(SWITCH, ""),
    }


if __name__ == "__main__":
    sys.exit(run_command("hybrid-inference", main))
