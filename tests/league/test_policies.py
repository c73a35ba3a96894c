"""Policies that are not trained themselves."""

import pytest
import torch
from league_runs import SPEC, lively

from lit_rl.evaluation import policy_table
from lit_rl.league.player_file import load_network, save_player
from lit_rl.league.players import NetworkPlayer, player_table
from lit_rl.league.policies import Sharpened, TablePolicy


def test_a_table_is_a_policy(leduc, leduc_tree, tmp_path):
    best = leduc_tree.best_response(leduc_tree.uniform_policy())
    policy = TablePolicy.of(leduc_tree, best)
    assert player_table(NetworkPlayer(policy), leduc_tree) == pytest.approx(best)
    spec = {"class_path": "lit_rl.league.policies.TablePolicy", "init_args": {"num_rows": len(best)}}
    sha = save_player(tmp_path / "oracle.pt", policy, leduc, spec)
    loaded = load_network(tmp_path / "oracle.pt", leduc, sha)
    assert player_table(NetworkPlayer(loaded), leduc_tree) == pytest.approx(best)
    with pytest.raises(ValueError, match="the table has no infostate"):
        loaded(torch.ones(1, 30, dtype=torch.uint8), torch.ones(1, 3, dtype=torch.bool))


def test_a_sharpened_network_plays_a_lower_temperature(leduc, leduc_tree):
    network = lively(leduc)
    sharpened = Sharpened(leduc, SPEC, temperature=0.25)
    sharpened.network.load_state_dict(network.state_dict())
    plain = policy_table(network, leduc_tree)
    assert policy_table(sharpened, leduc_tree) == pytest.approx(plain**4 / (plain**4).sum(1, keepdims=True), abs=1e-5)
