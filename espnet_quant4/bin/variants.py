"""Write the schemes of an ablation, and say with which options each is trained.

    espnet-quant4 variants --file egs/an4/ablation.yaml --family asr --output exp/schemes

prints one line a variant: its scheme file, or its name where that is a scheme of the package, then the
options of run.sh.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_quant4.bin.arguments import require_folder_output
from espnet_quant4.bin.command import run_command
from espnet_quant4.bin.task_class import SPEECH_TASKS
from espnet_quant4.text_files import write_text


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which variants of a file are meant."""
    parser.add_argument("--file", type=Path, required=True, help="variants, as YAML")
    parser.add_argument("--family", choices=SPEECH_TASKS, required=True)
    parser.add_argument("--only", nargs="+", default=[], help="names; all where left out")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 variants",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_selection(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the schemes")
    args = parser.parse_args(arguments)

    import yaml

    from espnet_quant4.scheme import bundled_names
    from espnet_quant4.scheme_variants import read_variants, scheme_of, select

    require_folder_output("--output", args.output)
    base, variants = read_variants(args.file)
    # All of them first: a wrong one must not leave half of the schemes.
    texts: dict[Path, str] = {}
    lines: list[str] = []
    for variant in select(variants, args.family, args.only):
        options = variant.arguments.get(args.family, "")
        if variant.name in bundled_names():
            lines.append(f"{variant.name} {options}".rstrip())
            continue
        path = args.output / f"{variant.name}.yaml"
        own = variant.schemes.get(args.family)
        start = base if own is None else args.file.parent / own
        scheme = yaml.safe_dump(scheme_of(start, variant), sort_keys=False)
        texts[path] = f"# {' '.join(variant.title.split())}\n{scheme}"
        lines.append(f"{path} {options}".rstrip())
    for path, text in texts.items():
        # What has not changed keeps its time.
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("variants", main))
