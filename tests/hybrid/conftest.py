"""Fixtures of the tests of hybrid systems."""

import pytest
import torch


@pytest.fixture(autouse=True)
def keep_threads():
    """Leave the number of threads as it was, which scoring sets for its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
