"""The scripts of ESPnet that its wheel lacks, for tests of what runs through its asr.sh."""

import os
import shutil
from pathlib import Path

import pytest
from egs.recipes import EGS, REPOSITORY

CHECKOUT = Path(os.environ.get("ESPNET_ROOT") or REPOSITORY / ".espnet")
needs_checkout = pytest.mark.skipif(
    not (CHECKOUT / "egs2/TEMPLATE/asr1/asr.sh").is_file(),
    reason=f"no asr.sh in {CHECKOUT}: tools/fetch_espnet.sh, or export ESPNET_ROOT",
)


def copy_recipes(folder):
    """Copy egs/ and conf/ without what runs have left there: asr.sh writes into the recipe's folder."""
    left = shutil.ignore_patterns(
        "exp", "data", "dump", "downloads", "asr.sh.bak", "utils", "steps", "scripts", "pyscripts"
    )
    shutil.copytree(EGS, folder / "egs", ignore=left)
    shutil.copytree(REPOSITORY / "conf", folder / "conf")
    return folder / "egs"
