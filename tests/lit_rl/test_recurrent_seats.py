"""A policy with a memory wherever policies sit: exact evaluation, matches, files, replays, exploiters, predictions."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from league_runs import TWICE_TWO, league_fit, open_league
from naive import chance_of, child, legal_of, obs_of, rewards_of
from replays import forge, record_games

import lit_rl
from callbacks.arena import Arena
from callbacks.exploiter_verdict import ExploiterVerdict, exploitation
from callbacks.oracle_exploiter import OracleExploiter
from callbacks.snapshot import Snapshot
from datamodules.league_play import LeagueDataModule
from datamodules.self_play import SelfPlayDataModule
from envs.exact import GameTree, exact_evaluator
from envs.game import CHANCE, TERMINAL, load_game
from envs.vector_env import VectorEnv
from lit_rl.evaluation import evaluator_for, exact_evaluation, exact_metrics, policy_table, probabilities
from lit_rl.league.beside.export import export_policy
from lit_rl.league.game_policy import GamePolicy, load_policy, play_match, save_policy
from lit_rl.league.match import games_of, match_players
from lit_rl.league.player_file import load_network, save_player
from lit_rl.league.players import NetworkPlayer, load_player, player_table
from lit_rl.league.policies import Sharpened
from lit_rl.networks import MLP, Dense, Recurrent
from lit_rl.policy import ActorCritic, PolicyOutput
from lit_rl.ppo import PPO
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.replay import verify

DENSE = {"class_path": "lit_rl.networks.Dense", "init_args": {"hidden": [16]}}
FORGETFUL = load_game("envs.leduc_poker_last_card")


def network(game=FORGETFUL, cell="gru", memory=8):
    """Untrained, and far from uniform."""
    found = Recurrent(game, encoder=partial(Dense, hidden=(16,)), cell=cell, memory=memory)
    with torch.no_grad():
        found.policy_head.weight.mul_(400)
    return found.requires_grad_(False).eval()


class Pretends(ActorCritic):
    """A policy without memory that says it has one."""

    state_shape = (3,)

    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, obs, legal, state=None):
        return self.plain(obs, legal)._replace(state=state + 1)


def returns_of(game, policy, state=None, memories=None):
    """Expected returns [P] by walking the tree, each player with a memory of its own."""
    state = game.new_state() if state is None else state
    memories = [torch.zeros(1, *policy.state_shape)] * game.num_players if memories is None else memories
    player = game.current_player(state[0])
    if player == TERMINAL:
        return np.zeros(game.num_players)
    if player == CHANCE:
        probs = chance_of(game, state[0])
    else:
        seen, legal = obs_of(game, state[0], player), legal_of(game, state[0])
        output = policy(torch.from_numpy(seen[None]), torch.from_numpy(legal[None]), memories[player])
        probs = torch.softmax(output.logits[0].double(), 0).numpy() * legal
        memories = [output.state if p == player else x for p, x in enumerate(memories)]
    total = np.zeros(game.num_players)
    for action in np.flatnonzero(probs):
        after = child(game, state, int(action))
        total += probs[action] * (rewards_of(game, after[0]) + returns_of(game, policy, after, memories))
    return total


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_exact_returns_are_those_of_walking_the_tree(kuhn, kuhn_tree, cell):
    policy = network(kuhn, cell)
    found = exact_evaluation(policy, kuhn_tree)
    assert np.allclose(found.returns, returns_of(kuhn, policy), atol=1e-6)
    maze = load_game("envs.t_maze")
    policy = network(maze, cell)
    assert np.allclose(exact_evaluation(policy, GameTree(maze)).returns, returns_of(maze, policy), atol=1e-6)


def test_exact_returns_where_obs_forgets_are_those_of_a_match():
    policy = network()
    found, tree = exact_evaluation(policy, GameTree(FORGETFUL)), GameTree(FORGETFUL).unfolded
    match = match_players(games_of(FORGETFUL), NetworkPlayer(policy), load_player("random", FORGETFUL), 20_000, 0)
    uniform, table = tree.uniform_policy(), policy_table(policy, tree)
    seats = [tree.evaluate(np.where((tree.row_player == p)[:, None], table, uniform)).returns[p] for p in range(2)]
    low, high = match.return_interval(4.0)
    assert low < np.mean(seats) < high and high - low < 1.0
    assert found.nash_conv > 1 and tree.num_rows == tree.num_infosets == 936
    groups = {}
    for row, probs in zip(tree.obs, table):
        groups.setdefault(row.tobytes(), []).append(probs)
    assert max(np.ptp(np.array(x), axis=0).max() for x in groups.values()) > 0.1  # the past does matter


@pytest.mark.parametrize("name", ["kuhn_poker", "leduc_poker_last_card", "recall"])
def test_a_policy_without_memory_is_worth_the_same_on_the_unfolded_tree(name):
    game = load_game(f"envs.{name}")
    tree, plain = GameTree(game), MLP(game, hidden=(8,))
    with torch.no_grad():
        plain.policy_head.weight.mul_(200)
    found, expected = (exact_evaluation(policy, tree) for policy in (Pretends(plain), plain))
    assert found.nash_conv == pytest.approx(expected.nash_conv, abs=1e-6)
    assert np.allclose(found.returns, expected.returns, atol=1e-6)
    unfolded = tree.unfolded
    assert unfolded.unfolded is unfolded and len(unfolded.before) == unfolded.num_rows == tree.num_infosets
    for row, before in list(enumerate(unfolded.before))[:2000]:
        assert before < row and (before < 0 or unfolded.row_player[before] == unfolded.row_player[row])
    seen = np.zeros(game.obs_shape, game.obs_dtype)
    for row in (0, 1, unfolded.num_rows // 2, unfolded.num_rows - 1):  # `state` is a history of that very row
        seen[:] = 0
        game.observe(unfolded.state[row], unfolded.row_player[row], seen)
        assert np.array_equal(seen, unfolded.obs[row])


def test_without_a_tree_a_memory_is_refused(leduc):
    evaluator = exact_evaluator(leduc)
    assert evaluator_for(MLP(leduc, hidden=(4,)), evaluator) is evaluator
    with pytest.raises(ConfigError, match=r"Recurrent has a memory.*raise max_nodes of Exact, or use Matches"):
        exact_metrics(network(leduc), evaluator)


def test_saved_loaded_asked_and_matched(tmp_path, kuhn):
    model = PPO("envs.leduc_poker_last_card", network=partial(Recurrent, memory=8))
    save_policy(model, tmp_path / "player.pt")
    loaded = load_policy(tmp_path / "player.pt")
    tree = GameTree(FORGETFUL)
    assert np.array_equal(policy_table(loaded.network, tree), policy_table(model.policy, tree))
    policy = GamePolicy(network(), FORGETFUL)
    deal = ["deal Js", "deal Qs"]
    first, second = (policy.at([*deal, *moves, "deal Ks"]) for moves in (["call", "call"], ["call", "raise", "call"]))
    assert first.keys() == second.keys() and first != second  # the same obs after two pasts
    table, asked = policy_table(policy.network, tree), np.zeros(3)
    asked[[1, 2]] = first["call"], first["raise"]
    assert np.abs(table - asked).max(1).min() < 1e-5  # it is in the table
    match = play_match(policy, loaded, games=200)
    assert match.games.sum() == 200
    assert export_policy(policy, tmp_path / "policy.pt2") < 1e-5


@pytest.mark.parametrize("network_spec", [None, "its own"])
def test_a_member_file_of_another_memory_size_is_refused_in_one_line(tmp_path, network_spec):
    spec = None
    if network_spec:
        spec = {"class_path": "lit_rl.networks.Recurrent", "init_args": {"memory": 9}}
    save_player(tmp_path / "player.pt", Recurrent(FORGETFUL, memory=8), FORGETFUL, spec)
    with pytest.raises(ArtefactError, match="its weights are of another network") as caught:
        load_network(tmp_path / "player.pt", FORGETFUL, make=lambda: Recurrent(FORGETFUL, memory=9))
    assert "\n" not in str(caught.value)
    checkpoint = tmp_path / "own.pt"
    save_player(checkpoint, Recurrent(FORGETFUL, memory=9), FORGETFUL, spec)
    assert load_network(checkpoint, FORGETFUL, make=lambda: Recurrent(FORGETFUL, memory=9)).state_shape == (9,)


@pytest.mark.parametrize("hidden", [16, 24])
def test_a_file_says_how_a_network_and_its_encoder_are_built(tmp_path, hidden):
    model = PPO("envs.leduc_poker_last_card", network=partial(Recurrent, encoder=partial(Dense, hidden=(hidden,))))
    save_policy(model, tmp_path / "player.pt")
    loaded = load_policy(tmp_path / "player.pt").network
    assert loaded.encoder.width == hidden and loaded.state_shape == (128,)
    save_policy(PPO("envs.kuhn_poker", network=partial(Recurrent, encoder=lambda game: Dense(game))), tmp_path / "x.pt")
    with pytest.raises(ArtefactError, match="does not say how its network is built"):
        load_policy(tmp_path / "x.pt")


def test_an_encoder_that_is_no_module_is_refused(tmp_path):
    spec = {"class_path": "lit_rl.networks.Recurrent", "init_args": {"encoder": {"class_path": "envs.game.Game"}}}
    save_player(tmp_path / "player.pt", network(), FORGETFUL, spec)
    with pytest.raises(ArtefactError, match=r"envs\.game\.Game is no module"):
        load_network(tmp_path / "player.pt", FORGETFUL)


def test_sharpened_keeps_the_memory():
    spec = {"class_path": "lit_rl.networks.Recurrent", "init_args": {"memory": 8}}
    policy = Sharpened(FORGETFUL, spec, 0.5)
    found = policy_table(policy, GameTree(FORGETFUL))
    plain = policy_table(policy.network, GameTree(FORGETFUL))
    expected = np.where(plain > 0, plain, 0) ** 2
    assert np.allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_replay_is_verified_along_each_players_own_decisions(tmp_path, cell):
    path, policy = tmp_path / "replay.jsonl", network(cell=cell)
    record_games(path, FORGETFUL, policy)
    report = verify(path, FORGETFUL, policy, tolerance=1e-5)
    assert report.games > 50 and 0 < report.games_of_weights < report.games  # not those that were carried
    assert report.max_logit_error < 1e-3

    def change(record):
        move = record["moves"][-1]
        move["value"] += 0.1

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    line = next(i for i, record in enumerate(lines, 1) if record.get("carried") == 0 and len(record["moves"]) > 3)
    forge(path, change, line)
    with pytest.raises(ArtefactError, match="values are off"):
        verify(path, FORGETFUL, policy, tolerance=1e-5)


def test_what_a_player_thinks_is_not_remembered():
    player = NetworkPlayer(network())
    env, rows, probs = VectorEnv(FORGETFUL, 6, seed=0), np.arange(6), np.zeros((6, 3), np.float32)
    for _ in range(5):
        before = player.state_dict()
        value = player.value(env, rows)
        after = player.state_dict()
        assert value.shape == (6,)
        b, p = before["memory"].shape[:2]
        assert torch.equal(before["memory"], after["memory"][:b, :p]) and not after["memory"][:, p:].any()
        player.act(env, rows, probs)
        env.step(env.sample(probs))
        player.begin(np.flatnonzero(env.done))


MADE = {"class_path": "lit_rl.networks.Recurrent", "init_args": {"memory": 8}}


def learner(game):
    model = PPO(game, network=partial(Recurrent, memory=8), minibatches=TWICE_TWO)
    model.hparams["network"] = MADE  # as the command line leaves it
    return model


def test_a_league_has_members_with_memories_and_an_oracle(tmp_path, kuhn):
    """Its own past in other seats, the exact best response, and an arena."""
    data = LeagueDataModule("envs.kuhn_poker", num_envs=32, num_steps=8, opponents=["random"], refresh_every=1)
    callbacks = [Snapshot(every=2), OracleExploiter(every=2), Arena(every=3, games=20)]
    league_fit(data, learner("envs.kuhn_poker"), callbacks, tmp_path / "run", max_epochs=6)
    roles = [m.role for m in open_league(tmp_path / "run", kuhn).members("active")]
    assert {"past", "exploiter"} <= set(roles)
    seated = {m.name for m in data.opposition.members.values() if m.role == "past"}
    players = [data.opposition.player(name) for name in seated]
    assert any(isinstance(p, NetworkPlayer) and p.state_shape == (8,) for p in players)
    data = LeagueDataModule("envs.leduc_poker_last_card", num_envs=32, num_steps=8, opponents=["random"])
    with pytest.raises(ConfigError, match="OracleExploiter: the observations of leduc_poker_last_card forget"):
        league_fit(data, learner("envs.leduc_poker_last_card"), [OracleExploiter(every=2)], tmp_path / "other")


def test_an_exploiter_of_a_policy_with_memory_is_judged_exactly(tmp_path):
    victim = network()
    save_player(tmp_path / "victim.pt", victim, FORGETFUL, MADE | {"init_args": {"memory": 8, "encoder": DENSE}})
    game = "envs.leduc_poker_last_card"
    data = LeagueDataModule(
        game, num_envs=32, num_steps=8, opponents=[str(tmp_path / "victim.pt")], self_play_share=0.0
    )
    verdict = ExploiterVerdict(games=4000, temperature=0.5)
    league_fit(data, learner(game), [verdict], tmp_path / "run", max_epochs=2)
    content = json.loads((tmp_path / "run" / "verdict.json").read_text())
    tree = GameTree(FORGETFUL).unfolded
    kept = load_network(tmp_path / "run" / "player.pt", FORGETFUL)
    expected = exploitation(tree, policy_table(kept, tree), policy_table(victim, tree))
    assert content["share"] == pytest.approx(expected["share"], abs=1e-6)
    low, high = content["return_interval"]
    assert low - (high - low) < content["exact_return"] < high + (high - low)


def test_predict_tells_infosets_apart(tmp_path):
    model = PPO("envs.leduc_poker_last_card", network=partial(Recurrent, memory=8))
    data = SelfPlayDataModule("envs.leduc_poker_last_card", num_envs=8, num_steps=4)
    trainer = lit_rl.Trainer(max_epochs=1, default_root_dir=tmp_path)
    (table,) = trainer.predict(model, data)
    assert table.shape == (936, 3)
    with Path(tmp_path / "policy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 936 and len({row["obs"] for row in rows}) == 108
    assert all(int(row["before"]) < i for i, row in enumerate(rows)) and "raise" in rows[0]


def test_player_tables_and_probabilities_are_of_policies_without_memory(leduc, leduc_tree):
    plain = MLP(leduc, hidden=(8,))
    assert np.allclose(player_table(NetworkPlayer(plain), leduc_tree), policy_table(plain, leduc_tree), atol=1e-6)
    assert probabilities(plain)(leduc_tree.obs[:3], leduc_tree.legal[:3]).shape == (3, 3)
    assert isinstance(plain(torch.from_numpy(leduc_tree.obs), torch.from_numpy(leduc_tree.legal)), PolicyOutput)
