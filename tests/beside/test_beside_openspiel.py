"""Our policies in OpenSpiel's world: what it works out of them is what our trees do."""

import copy
import importlib
import sys
from functools import partial

import numpy as np
import pytest
import torch

import lit_rl
from datamodules.self_play import SelfPlayDataModule
from envs.game import load_interface
from lit_rl.evaluation import exact_metrics
from lit_rl.league.game_policy import GamePolicy
from lit_rl.networks import MLP
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.ppo import PPO
from lit_rl.run.allowed import _trusted
from lit_rl.run.errors import ArtefactError, ConfigError

pyspiel = pytest.importorskip("pyspiel")

from open_spiel.python.algorithms import expected_game_score, exploitability  # noqa: E402

from lit_rl.league.beside.openspiel import ExactByOpenSpiel, OpenSpielPolicy, PolicyBot  # noqa: E402


def some_policy(game, scale=3.0):
    network = MLP(game, hidden=(16,)).eval().requires_grad_(False)
    for x in network.parameters():
        x *= scale  # far from uniform
    return GamePolicy(network, game)


class Counting(ActorCritic):
    """Plays by how many decisions it remembers to have made."""

    state_shape = (1,)

    def __init__(self, game):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, game.num_actions))

    def forward(self, obs, legal, state=None):
        return PolicyOutput(mask_logits(self.weight * state, legal), torch.zeros(len(obs)), state + 1)


@pytest.mark.parametrize("name", ["kuhn", "leduc"])
def test_nash_conv_by_open_spiel_is_ours(name, request):
    game, tree = request.getfixturevalue(name), request.getfixturevalue(f"{name}_tree")
    policy = some_policy(game)
    ours = exact_metrics(policy.network, tree)
    theirs = OpenSpielPolicy(policy)
    assert exploitability.nash_conv(theirs.game, theirs) == pytest.approx(ours["eval/nash_conv"], abs=1e-9)
    assert ours["eval/nash_conv"] > 0.5  # of no equilibrium, where many policies agree
    values = expected_game_score.policy_value(theirs.game.new_initial_state(), [theirs, theirs])
    assert values[0] == pytest.approx(ours["eval/return_player_0"], abs=1e-9)


def test_a_policy_of_openspiels_own_states_is_the_same_policy(kuhn, kuhn_tree):
    """openspiel:kuhn_poker shows the same numbers as our Kuhn poker, so one network has one NashConv in both."""
    policy = some_policy(kuhn)
    same = GamePolicy(copy.deepcopy(policy.network), load_interface("openspiel:kuhn_poker"))
    theirs = OpenSpielPolicy(same)
    expected = exact_metrics(policy.network, kuhn_tree)["eval/nash_conv"]
    assert exploitability.nash_conv(theirs.game, theirs) == pytest.approx(expected, abs=1e-5)


def test_exact_evaluation_of_its_games_in_a_run(short_fit, kuhn, kuhn_tree):
    name, job = "openspiel:kuhn_poker", ExactByOpenSpiel()
    model = PPO(name)
    trainer = short_fit(model, SelfPlayDataModule(name, num_envs=16, num_steps=8, evaluation=[job]))
    ours = exact_metrics(model.export_policy(), kuhn_tree)
    assert ours.keys() == job.metrics(model.game)
    for key, value in ours.items():
        assert float(trainer.callback_metrics[key]) == pytest.approx(value, abs=1e-5), key


@pytest.mark.parametrize(
    ("game", "job", "message"),
    [
        ("envs.kuhn_poker", {}, "kuhn_poker is no game of OpenSpiel's; use lit_rl.evaluation.Exact"),
        ("openspiel:leduc_poker", {"max_nodes": 100}, "leduc_poker has more than 100 histories; raise max_nodes"),
        ("openspiel:tic_tac_toe", {}, "may be the same in several of OpenSpiel's infostates"),
    ],
)
def test_what_cannot_be_evaluated_exactly_is_refused(game, job, message):
    with pytest.raises(ConfigError, match=message):
        ExactByOpenSpiel(**job).open(load_interface(game), 0, None)


def test_a_file_that_names_its_games_is_asked_about(tmp_path):
    name, path = "openspiel:kuhn_poker", tmp_path / "kuhn.pt"
    lit_rl.save_policy(PPO(name, network=partial(MLP, hidden=(8,))), path)
    _trusted.discard("openspiel")
    with pytest.raises(ArtefactError, match=r"names openspiel:kuhn_poker, code that .* allow=\['openspiel'\]"):
        lit_rl.load_policy(path)
    assert lit_rl.load_policy(path, allow=["openspiel"]).game.name == name
    assert lit_rl.load_policy(path, name).game.name == name
    assert abs(lit_rl.play_match(path, "random", games=20).mean_return) <= 2


def test_a_bot_plays_what_the_policy_is_worth():
    policy = OpenSpielPolicy(some_policy(load_interface("openspiel:kuhn_poker")))
    state = policy.game.new_initial_state()
    exact = expected_game_score.policy_value(state, [policy, policy])[0]
    bots = [PolicyBot(policy, player, seed=player) for player in (0, 1)]
    returns = [pyspiel.evaluate_bots(policy.game.new_initial_state(), bots, seed)[0] for seed in range(1500)]
    assert abs(np.mean(returns) - exact) < 4 * np.std(returns) / np.sqrt(1500)


def test_a_bot_whose_only_action_is_0_takes_it():
    policy = OpenSpielPolicy(some_policy(load_interface("openspiel:tic_tac_toe")))
    state = policy.game.new_initial_state()
    for action in (4, 2, 1, 7, 3, 5, 8, 6):
        state.apply_action(action)
    assert state.legal_actions() == [0] and PolicyBot(policy, 0).step(state) == 0


def test_our_tic_tac_toe_plays_on_their_board():
    policy = OpenSpielPolicy(some_policy(load_interface("envs.tic_tac_toe")))
    bots = [PolicyBot(policy, player, seed=player) for player in (0, 1)]
    for seed in range(20):
        pyspiel.evaluate_bots(policy.game.new_initial_state(), bots, seed)


def test_a_policy_with_a_memory_remembers(leduc):
    policy = GamePolicy(Counting(leduc).eval(), leduc)
    theirs, state = OpenSpielPolicy(policy), pyspiel.load_game("leduc_poker").new_initial_state()
    told = []
    for action in (0, 3, 1, 1, 5, 2):  # cards, call, call, public card, raise
        if not state.is_chance_node():
            told.append((list(state.history()), theirs.action_probabilities(state)))
        state.apply_action(action)
    told.append((list(state.history()), theirs.action_probabilities(state)))
    for history, probs in told:
        assert list(probs.values()) == pytest.approx(list(policy.at(history).values()), abs=1e-6)
    assert told[0][1] != told[2][1]


def test_bad_input(kuhn, pairs):
    with pytest.raises(ConfigError, match=r"the policy plays kuhn_poker \(2 players, 2 actions\), OpenSpiel's game is"):
        OpenSpielPolicy(some_policy(kuhn), "leduc_poker")
    with pytest.raises(ConfigError, match="is not one of OpenSpiel's games"):
        OpenSpielPolicy(GamePolicy(MLP(pairs, hidden=(4,)), pairs))
    pennies = load_interface("envs.matching_pennies")
    with pytest.raises(ConfigError, match="is not one of OpenSpiel's games"):
        OpenSpielPolicy(some_policy(pennies))
    policy = OpenSpielPolicy(some_policy(kuhn))
    with pytest.raises(ConfigError, match=r"player=2: kuhn_poker.* has players 0 to 1"):
        PolicyBot(policy, 2)
    state = policy.game.new_initial_state()
    with pytest.raises(ConfigError, match="player 0 does not decide in this state"):
        policy.action_probabilities(state, 0)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspiel", None)
    monkeypatch.delitem(sys.modules, "lit_rl.league.beside.openspiel", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pyspiel is not installed: pip install .*lit-rl\[openspiel"):
        importlib.import_module("lit_rl.league.beside.openspiel")
