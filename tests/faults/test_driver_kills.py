"""The driver killed at twenty random moments; see `tests.faults.driver_kills`."""

from __future__ import annotations

from pathlib import Path

import pytest

from macil.data.store.feature_store import FeatureStore
from tests.faults.driver_kills import kill_again_and_again


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(1500)
def test_a_driver_killed_at_twenty_random_moments_comes_to_equal_digits(
    tmp_path: Path, demo_store: FeatureStore
) -> None:
    outcome = kill_again_and_again(tmp_path, demo_store, kills=20, seed=0)
    assert sum(kill.equal and kill.kept for kill in outcome.kills) == 20
    assert outcome.digits_equal
    assert outcome.study_equal
    assert len({kill.epochs for kill in outcome.kills}) > 5, "the kills should find it at different points"
