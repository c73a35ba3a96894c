"""Players: what sits in a seat, and what a spec names."""

import numpy as np
import pytest
import torch
from league_runs import HEURISTICS, SPEC, exact_return, lively
from torch import nn

from envs.heuristics import load_heuristic
from envs.vector_env import VectorEnv
from lit_rl.evaluation import policy_table
from lit_rl.league.player_file import save_player
from lit_rl.league.players import (
    RANDOM,
    HeuristicPlayer,
    NetworkPlayer,
    Player,
    Remembering,
    load_player,
    name_of,
    player_table,
)
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.run.errors import ArtefactError, ConfigError


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


class Stubborn:
    """A stranger's player: always takes the legal action of its number, if it can, counted from the last."""

    def __init__(self, game, number=0):
        if number >= game.num_actions:
            raise ValueError(f"number={number}: {game.name} has {game.num_actions} actions")
        self.number = number

    def act(self, table, rows, probs):
        for b in rows:
            legal = np.flatnonzero(table.legal[b])[::-1]
            probs[b] = 0
            probs[b, legal[min(self.number, len(legal) - 1)]] = 1

    def begin(self, rows):
        pass


def test_a_spec_names_whatever_can_play(leduc, leduc_tree, tmp_path):
    assert player_table(load_player("random", leduc), leduc_tree) == pytest.approx(leduc_tree.uniform_policy())
    caller = player_table(load_player(HEURISTICS[0], leduc), leduc_tree)
    assert (caller[:, 1] == 1).all()
    network = lively(leduc)
    save_player(tmp_path / "rival.pt", network, leduc, SPEC)
    for spec in (str(tmp_path / "rival.pt"), tmp_path / "rival.pt"):
        assert player_table(load_player(spec, leduc), leduc_tree) == pytest.approx(policy_table(network, leduc_tree))
        assert name_of(spec) == "rival"
    stranger = {"class_path": "test_players.Stubborn", "init_args": {"number": 1}}
    last, second = load_player("test_players.Stubborn", leduc), load_player(stranger, leduc)
    assert isinstance(last, Player) and not isinstance(last, Remembering) and second.number == 1
    assert (player_table(last, leduc_tree)[leduc_tree.legal[:, 2], 2] == 1).all()
    assert name_of("random") == "random" and name_of(HEURISTICS[0]) == "always_call"
    assert name_of("test_players.Stubborn") == "Stubborn" and name_of(stranger) == "Stubborn(number=1)"
    assert name_of("runs/leduc/version_3/checkpoints/last.ckpt") == "leduc-version_3-last"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (
            "no_such.Thing",
            ConfigError,
            "'no_such.Thing': no such heuristic or player .*; give random, a file that ends",
        ),
        ("nothing", ConfigError, "'nothing': no such heuristic or player"),
        ("lit_rl.networks.MLP", ConfigError, r"is no Player; it needs act\(table, rows, probs\) and begin\(rows\)"),
        ("envs.leduc_poker.init", ConfigError, "is no heuristic for leduc_poker"),
        ({"class_path": HEURISTICS[0], "init_args": {"x": 1}}, ConfigError, "takes no init_args; got x"),
        ({"class": "x"}, ConfigError, "give {class_path: my_pkg.MyPlayer"),
        (
            {"class_path": "test_players.Stubborn", "init_args": {"number": 9}},
            ConfigError,
            "cannot be built for leduc_poker .*ValueError: number=9: leduc_poker has 3 actions",
        ),
        ({"class_path": "test_players.Stubborn", "init_args": {"depth": 9}}, ConfigError, "unexpected keyword"),
        ("nowhere.pt", ArtefactError, "nowhere.pt: no such file"),
    ],
)
def test_what_is_no_player_is_refused_by_name(leduc, spec, error, message):
    with pytest.raises(error, match=message):
        load_player(spec, leduc)


class Counter(ActorCritic):
    """Plays the legal action whose number is that of its own decisions so far: a memory that shows."""

    state_shape = (1,)

    def __init__(self, game):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.num_actions = game.num_actions

    def forward(self, obs, legal, state=None):
        logits = torch.zeros(len(obs), self.num_actions)
        logits[torch.arange(len(obs)), state[:, 0].long() % self.num_actions] = 50.0
        return PolicyOutput(mask_logits(logits, legal), torch.zeros(len(obs)), state + 1)


def test_a_policy_with_memory_has_one_for_each_row_and_player(leduc):
    env, player = VectorEnv(leduc, 6, seed=0), NetworkPlayer(Counter(leduc), merge_rows=True)
    decisions = np.zeros((6, 2), int)
    for step in range(4):
        rows = np.flatnonzero(np.arange(6) != step)
        before = decisions[rows, env.player[rows]]
        env.legal[:] = True  # so that the count shows
        probs = np.zeros(env.legal.shape, np.float32)
        player.act(env, rows, probs)
        assert (probs[rows].argmax(1) == before % 3).all() and (probs[step] == 0).all()
        decisions[rows, env.player[rows]] += 1
        env.player[:] = 1 - env.player
    other = NetworkPlayer(Counter(leduc))
    other.load_state_dict(player.state_dict())
    player.begin(np.array([1, 4]))
    decisions[[1, 4]] = 0
    probs = np.zeros(env.legal.shape, np.float32)
    player.act(env, np.arange(6), probs)
    assert (probs.argmax(1) == decisions[np.arange(6), env.player] % 3).all()
    assert (other.state_dict()["memory"][[1, 4]] > 0).any()  # what was saved has not forgotten
