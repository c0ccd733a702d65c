"""The benchmarks still run, and compare before they time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_training_benchmark_compares_and_times_both_steps(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.training", "--json", str(tmp_path / "result.json")]
    small = ["--batch-size=4", "--snippets=20", "--shortest=2", "--check-batch=5", "--steps=1", "--threads=1"]
    done = subprocess.run([*command, *small], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert list(result["cases"]) == ["all 20", "2 to 20"]
    for case in result["cases"].values():
        assert case["largest_difference"] < 1e-8
        assert case["ratio_of_median"] > 0
        assert set(case["seconds"]) == {"reference", "macil"}
