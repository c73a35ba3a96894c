"""Players: what sits in a seat, the files, and matches against what exact evaluation says."""

import warnings

import lightning as L
import numpy as np
import pytest
import torch

from datamodules.self_play import SelfPlayDataModule
from envs.heuristics import load_heuristic
from lit_rl.armac.armac import ARMAC
from lit_rl.league.match import play_match
from lit_rl.league.players import (
    RANDOM,
    HeuristicPlayer,
    NetworkPlayer,
    TablePolicy,
    build_network,
    load_policy,
    player_table,
    save_player,
)
from lit_rl.networks import MLP
from lit_rl.policy import policy_table
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD
from lit_rl.run.errors import ArtefactError, ConfigError

SPEC = {"class_path": "lit_rl.networks.MLP", "init_args": {"hidden": [16]}}


def lively(game, seed=0):
    torch.manual_seed(seed)
    network = MLP(game, hidden=(16,))
    torch.nn.init.normal_(network.policy_head.weight)
    return network


def exact_return(tree, first, second):
    """[P] what `first` gets in each seat, the others playing `second`; both [R, A]."""
    seats = range(tree.game.num_players)
    mixed = [np.where((tree.row_player == p)[:, None], first, second) for p in seats]
    return np.array([tree.evaluate(table).returns[p] for p, table in zip(seats, mixed)])


@pytest.mark.parametrize("merge_rows", [True, False])
def test_a_network_player_plays_its_policy(leduc, leduc_tree, merge_rows):
    network = lively(leduc)
    table = player_table(NetworkPlayer(network, merge_rows=merge_rows), leduc_tree)
    assert table == pytest.approx(policy_table(network, leduc_tree), abs=1e-6)


def test_heuristics(leduc, leduc_tree, kuhn):
    assert player_table(HeuristicPlayer(RANDOM, leduc), leduc_tree) == pytest.approx(leduc_tree.uniform_policy())
    tables = {}
    for name in ("always_call", "always_raise", "hand_strength"):
        tables[name] = player_table(HeuristicPlayer(f"envs.leduc_heuristics.{name}", leduc), leduc_tree)
        leduc_tree.evaluate(tables[name])  # refuses mass on an illegal action
    assert (tables["always_call"][:, 1] == 1).all()
    assert (tables["always_raise"][:, 2] == leduc_tree.legal[:, 2]).all()
    assert exact_return(leduc_tree, tables["hand_strength"], tables["always_raise"]).sum() > 0
    assert exact_return(leduc_tree, tables["hand_strength"], leduc_tree.uniform_policy()).sum() > 0
    with pytest.raises(ConfigError, match="always_bluff': no such heuristic"):
        HeuristicPlayer("envs.leduc_heuristics.always_bluff", leduc)
    with pytest.raises(ConfigError, match="is no heuristic for leduc_poker"):
        HeuristicPlayer("envs.leduc_poker.init", leduc)
    with pytest.raises(ValueError, match="no such heuristic"):
        load_heuristic("nothing", kuhn)


def test_a_table_is_a_policy(leduc, leduc_tree, tmp_path):
    best = leduc_tree.best_response(leduc_tree.uniform_policy())
    policy = TablePolicy.of(leduc_tree, best)
    assert player_table(NetworkPlayer(policy), leduc_tree) == pytest.approx(best)
    spec = {"class_path": "lit_rl.league.players.TablePolicy", "init_args": {"num_rows": len(best)}}
    sha = save_player(tmp_path / "oracle.pt", policy, leduc, spec)
    loaded = load_policy(tmp_path / "oracle.pt", leduc, sha)
    assert player_table(NetworkPlayer(loaded), leduc_tree) == pytest.approx(best)
    with pytest.raises(ValueError, match="the table has no infostate"):
        loaded(torch.ones(1, 30, dtype=torch.uint8), torch.ones(1, 3, dtype=torch.bool))


def test_player_files_come_back_as_they_went(leduc, tmp_path):
    network = lively(leduc)
    before = torch.random.get_rng_state()
    for spec, make in ((SPEC, None), (None, lambda: MLP(leduc, hidden=(16,)))):
        sha = save_player(tmp_path / "p.pt", network, leduc, spec)
        loaded = load_policy(tmp_path / "p.pt", leduc, sha, make)
        assert all(torch.equal(x, loaded.state_dict()[name]) for name, x in network.state_dict().items())
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    save_player(tmp_path / "p.pt", network, leduc, SPEC)
    torch.random.set_rng_state(before)
    load_policy(tmp_path / "p.pt", leduc)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody's random numbers were used


@pytest.mark.parametrize("algorithm", [PPO, RNaD, ARMAC])
def test_a_checkpoint_plays_the_policy_that_its_run_exports(leduc, leduc_tree, tmp_path, algorithm):
    options = {} if algorithm is ARMAC else {"ema_decay": 0.9}
    model = algorithm("envs.leduc_poker", network=lambda game: MLP(game, hidden=(16,)), **options)
    model.hparams["network"] = SPEC  # as the command line leaves it
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(model, SelfPlayDataModule("envs.leduc_poker", num_envs=32, num_steps=8))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_policy(tmp_path / "last.ckpt", leduc)
    assert np.array_equal(policy_table(loaded, leduc_tree), policy_table(model.export_policy(), leduc_tree))
    assert not np.array_equal(policy_table(loaded, leduc_tree), policy_table(model.policy, leduc_tree))


def test_what_is_no_player_here_is_refused_by_name(leduc, kuhn, tmp_path):
    path = tmp_path / "p.pt"
    with pytest.raises(ArtefactError, match=r"p.pt: no such file"):
        load_policy(path, leduc)
    sha = save_player(path, lively(leduc), leduc, SPEC)
    with pytest.raises(ArtefactError, match=r"is of leduc_poker .*not of kuhn_poker"):
        load_policy(path, kuhn, sha)
    with pytest.raises(ArtefactError, match="SHA-256 is not the recorded one"):
        load_policy(path, leduc, "0" * 64)
    save_player(path, lively(leduc), leduc, SPEC | {"init_args": {"hidden": [8]}})
    with pytest.raises(ArtefactError, match="weights are of another network"):
        load_policy(path, leduc)
    save_player(path, lively(leduc), leduc)
    with pytest.raises(ArtefactError, match="does not say how its network is built"):
        load_policy(path, leduc)
    torch.save({"player": 1, "code": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(ArtefactError, match="is none"):
        load_policy(path, leduc)
    for class_path in ("subprocess.Popen", "lit_rl.ppo.PPO", "no.such.Net"):
        with pytest.raises(ArtefactError, match=f"network {class_path}: cannot be built here"):
            build_network({"class_path": class_path, "init_args": {}}, leduc)


def test_matches_agree_with_exact_evaluation(leduc, leduc_tree):
    network, caller = NetworkPlayer(lively(leduc)), HeuristicPlayer("envs.leduc_heuristics.always_call", leduc)
    exact = exact_return(leduc_tree, player_table(network, leduc_tree), player_table(caller, leduc_tree))
    match = play_match(leduc, network, caller, 20_001, seed=3)
    assert match.games.tolist() == [10_001, 10_001]
    low, high = match.return_interval(z=4)
    assert low < exact.mean() < high and high - low < 0.5
    error = np.sqrt(match.squares / match.games / match.games)
    assert (np.abs(match.returns / match.games - exact) < 4 * error).all()
    assert match.others == pytest.approx(-match.returns)  # zero sum
    again = play_match(leduc, network, caller, 20_001, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(match, again))
    assert 0 < match.win_interval()[0] < match.win_rate < match.win_interval()[1] < 1
