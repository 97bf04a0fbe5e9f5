"""Batches: checked against the plain loop, and as fast from a disk full of spikes."""

import json

import pytest

from neuroformer.bench.data import run_large
from neuroformer.cli import main


def test_small_and_checked(capsys):
    assert main(["bench", "data", "--json", "--spikes", "50000"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["checked"] and result["spikes"] == 50_000
    assert result["ratio_to_small"] == result["windows_per_second"] / result["windows_per_second_small"]


@pytest.mark.slow
def test_a_hundred_million_spikes_cost_less_than_half_of_the_speed():
    result = run_large(100_000_000)
    assert result["checked"] and result["open_seconds"] < 2
    assert result["ratio_to_small"] >= 0.5
