"""Fixtures of the tests of dead letters."""

import pytest

from analytics.processor import EngagementProcessor
from offsets import ledger
from offsets.ledger import Baseline
from tests.support.page_rows import GROUP


@pytest.fixture
def _partitions(db: None) -> None:
    baselines = {number: Baseline("topic-id", 0, "earliest") for number in range(2)}
    ledger.insert_baselines(GROUP, "t", baselines, EngagementProcessor().dimensions)
