"""Fixtures of the tests of ESPnet classes."""

import pytest
from small_transducer import random_batch


@pytest.fixture
def batch():
    return random_batch()
