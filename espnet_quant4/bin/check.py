"""Say which programs, Python packages, folders and how much room a recipe needs that are not there.

    espnet-quant4 check --programs perl sclite --packages torch lhotse --folders SWBD=/corpora \\
        --room dump=40

Exit status 1 where something is missing, each with where to get it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_quant4.bin.command import run_command
from espnet_quant4.extras import install_command
from espnet_quant4.report.sctk import find_program

#: Packages that every recipe needs.
PACKAGES = ("espnet2", "torch", "torchaudio", "soundfile", "soxr", "kaldiio")

# Where to get what its name alone does not say.
SOURCES = {
    "LDC97S62": "Switchboard-1 release 2, https://catalog.ldc.upenn.edu/LDC97S62",
    "LDC2002S09": "Hub5 2000's audio, https://catalog.ldc.upenn.edu/LDC2002S09",
    "LDC2002T43": "Hub5 2000's transcripts, https://catalog.ldc.upenn.edu/LDC2002T43",
    "swb_ms98_transcriptions": "ISIP's transcripts; --local_data_opts '--download_transcripts true'",
    "awk": "Debian: apt-get install gawk",
    "bc": "Debian: apt-get install bc",
    "perl": "Debian: apt-get install perl",
    "sox": "Debian: apt-get install sox; or --speed_perturb_by soxr, which does without",
    "sclite": "Debian: apt-get install sctk; or ESPnet's tools/installers/install_sctk.sh",
    "hubscr.pl": "Debian: apt-get install sctk; or ESPnet's tools/installers/install_sctk.sh",
    "sph2pipe": "ESPnet's tools/installers/install_sph2pipe.sh",
    "espnet2": 'pip install "espnet>=202511"',
    "lhotse": install_command("swbd"),
    **dict.fromkeys(
        ("kaldi_hmm_gmm", "kaldi_decoder", "kaldi_native_fbank", "kaldifst"),
        install_command("hybrid"),
    ),
}


@dataclass(frozen=True)
class Need:
    """One thing that is needed.

    Attributes:
        kind: ``program``, ``package``, ``folder`` or ``room``.
        name: its name.
        found: where or which it is; None: missing.
        source: where to get it.
    """

    kind: str
    name: str
    found: str | None
    source: str


def programs(names: Sequence[str]) -> Iterator[Need]:
    """Look programs up on PATH and where Debian keeps NIST's."""
    for name in names:
        yield Need("program", name, find_program(name), SOURCES.get(name, "install it"))


def packages(names: Sequence[str]) -> Iterator[Need]:
    """Look Python packages up without importing them."""
    for name in names:
        found = None
        if _is_installed(name):
            distribution = "espnet" if name == "espnet2" else name.replace("_", "-")
            try:
                found = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                found = "there"
        yield Need("package", name, found, SOURCES.get(name, f"pip install {name}"))


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    # Of a package in one that is missing, and of what is no name.
    except (ModuleNotFoundError, ValueError):
        return False


def folders(pairs: Sequence[str]) -> Iterator[Need]:
    """Look ``NAME=PATH`` up; an empty path is one that nobody has entered.

    Raises:
        ValueError: for what has another form.
    """
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not name or not equals:
            raise ValueError(f"--folders {pair}: valid is NAME=PATH, such as SWBD=/corpora")
        there = bool(path) and Path(path).is_dir()
        source = f"no folder {path}" if path else f"enter it in db.sh, or export {name}"
        if name in SOURCES:
            source += f"; {SOURCES[name]}"
        yield Need("folder", name, path if there else None, source)


def room(pairs: Sequence[str]) -> Iterator[Need]:
    """Compare ``FOLDER=GIGABYTES`` with what is free where the folder is, or will be.

    Raises:
        ValueError: for a size that is no number, or negative.
    """
    for pair in pairs:
        folder, _, size = pair.rpartition("=")
        if not folder or not 0 <= _number(size) < math.inf:
            raise ValueError(f"--room {pair}: valid is FOLDER=GIGABYTES, such as dump=40")
        there = Path(folder).absolute()
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free / 1e9
        found = f"{free:.0f} GB free" if free >= float(size) else None
        source = f"{free:.0f} GB are free in {there}; link {folder} to another disk"
        yield Need("room", f"{folder}: {size} GB", found, source)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="espnet-quant4 check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Each may be given more than once.
    for name, what in (
        ("programs", "programs on PATH"),
        ("packages", f"Python packages besides {', '.join(PACKAGES)}"),
        ("folders", "NAME=PATH of corpora"),
        ("room", "FOLDER=GIGABYTES of free space"),
    ):
        parser.add_argument(f"--{name}", nargs="+", action="extend", default=[], help=what)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(arguments)
    try:
        needs = [
            *programs(args.programs),
            *packages([*PACKAGES, *args.packages]),
            *folders(args.folders),
            *room(args.room),
        ]
    except ValueError as error:
        parser.error(str(error))
    for need in needs:
        print(
            f"{'ok' if need.found else 'MISSING':<8} {need.kind:<8} {need.name:<20} {need.found or ''}"
        )
    missing = [need for need in needs if need.found is None]
    if not missing:
        print("nothing is missing")
        return 0
    print(f"missing: {len(missing)} of {len(needs)}")
    for need in missing:
        print(f"  {need.kind} {need.name}: {need.source}")
    return 1


if __name__ == "__main__":
    sys.exit(run_command("check", main))
