"""Fixtures of the tests of the ledger."""

import pytest

from offsets import ledger
from offsets.ledger import Baseline
from tests.support.ledger import GROUP, HANDLER


@pytest.fixture(autouse=True)
def partitions() -> None:
    baselines = {number: Baseline("topic-id", 0, "earliest") for number in range(3)}
    assert ledger.insert_baselines(GROUP, "t", baselines, HANDLER.dimensions) == [0, 1, 2]
