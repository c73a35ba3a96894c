"""Throughput and EpisodeStats: speeds and games are measured."""

import pytest

from callbacks.episode_stats import EpisodeStats
from callbacks.throughput import Throughput


def test_throughput_and_episode_stats(make_fit):
    trainer, model, data = make_fit(callbacks=[Throughput(), EpisodeStats()], max_epochs=2)
    trainer.fit(model, data)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert metrics["perf/decisions_per_second"] > 0
    assert 0 < metrics["perf/collect_share"] < 1
    assert 2 <= metrics["episode/length"] <= 3.5
    assert metrics["episode/return_player_0"] == pytest.approx(-metrics["episode/return_player_1"], abs=1e-6)
    assert metrics["decisions"] == 2 * 64 * 8
