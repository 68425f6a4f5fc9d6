"""The scripts of ESPnet that its wheel lacks, for tests of what runs through its asr.sh."""

import os
from pathlib import Path

import pytest
from egs.recipes import REPOSITORY
from tracked import copy_tracked

CHECKOUT = Path(os.environ.get("ESPNET_ROOT") or REPOSITORY / ".espnet")
needs_checkout = pytest.mark.skipif(
    not (CHECKOUT / "egs2/TEMPLATE/asr1/asr.sh").is_file(),
    reason=f"no asr.sh in {CHECKOUT}: tools/fetch_espnet.sh, or export ESPNET_ROOT",
)


def copy_recipes(folder):
    """Copy egs/ and conf/: asr.sh writes into the recipe's folder."""
    return copy_tracked(folder, "egs", "conf") / "egs"
