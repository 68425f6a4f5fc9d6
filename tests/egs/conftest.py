"""What tests of whole recipes share."""

import pytest
from egs.warm_python import WarmPython


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory):
    """Path of an interpreter that has ESPnet imported already."""
    python = WarmPython(tmp_path_factory.mktemp("warm"))
    yield str(python.path)
    python.stop()
