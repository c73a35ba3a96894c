"""Replays for tests: the games of two rollouts in a file, and a file whose chain was written anew around a change."""

import json

import torch

from envs.vector_env import VectorEnv
from lit_rl.rollout import Collecting, collect
from lit_rl.run.replay import finished_games, game_record, weights_hash
from lit_rl.run.replay_file import ReplayWriter, seal


def record_games(path, game, policy, num_envs=32, steps=16, limit=10_000, **env):
    """A replay of all games of two rollouts, the second carrying the open games of the first."""
    env = VectorEnv(game, num_envs, seed=3, **env)
    writer = ReplayWriter(path)
    writer.begin({"run": "test", "game": f"envs.{game.name}", "name": game.name, "version": game.version})
    rollout = None
    for iteration in range(2):
        rollout = collect(
            env, policy, steps, previous=rollout, collecting=Collecting(temperature=0.5), keep_logits=True
        )
        rollout.extras["bin"] = torch.zeros(*rollout.done.shape, 2)
        for found in list(finished_games(rollout))[:limit]:
            facts = {"iteration": iteration, "decisions": 0, "precision": "32-true", "weights": weights_hash(policy)}
            writer.append(facts | game_record(game, rollout, *found))
    return writer


def forge(path, change, line=2):
    """Rewrite the chain with one record changed: only the rules or the policy can tell."""
    text, previous = b"", ""
    for number, sealed in enumerate(path.read_bytes().splitlines(), 1):
        record = json.loads(sealed)
        record.pop("sha256")
        if number == line:
            change(record)
        sealed, previous = seal(previous, record)
        text += sealed
    path.write_bytes(text)
