"""Policies from Python: saved, loaded, measured, asked and played against, without a trainer."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from callbacks.trainer import Trainer
from datamodules.self_play import SelfPlayDataModule
from envs.exact import GameTree
from envs.game import Interface, load_game
from lit_rl.armac.armac import ARMAC
from lit_rl.evaluation import exact_metrics, policy_table
from lit_rl.league.game_policy import GamePolicy, evaluate, load_policy, play_match, policy_of, save_policy
from lit_rl.league.history import History
from lit_rl.league.players import HeuristicPlayer
from lit_rl.networks import MLP
from lit_rl.policy import ActorCritic, PolicyOutput, mask_logits
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.resume import spec_of

SMALL = functools.partial(MLP, hidden=(16,), activation="gelu")


def lively(module):
    """With weights far from zero, so that actions differ."""
    for p in module.policy.parameters():
        nn.init.normal_(p, std=0.5)
    return module


@pytest.fixture
def model():
    return lively(PPO("envs.kuhn_poker", network=SMALL, ema_decay=0.9))


class Counter(ActorCritic):
    """Remembers how often it has been asked: logits [0, count]."""

    state_shape = (1,)

    def __init__(self, game):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, obs, legal, state=None):
        count = state[:, 0] * self.weight
        logits = torch.stack([torch.zeros_like(count), count], 1)
        return PolicyOutput(mask_logits(logits, legal), count, state + 1)


@pytest.mark.parametrize("make", [PPO, RNaD, ARMAC])
def test_every_algorithm_saves_what_loads_and_plays_the_same(make, tmp_path):
    module = make("envs.leduc_poker", network=SMALL)
    save_policy(module, tmp_path / "policy.pt")
    policy = load_policy(tmp_path / "policy.pt")
    assert policy.game is load_game("envs.leduc_poker") and repr(policy) == "GamePolicy(MLP, leduc_poker)"
    history = ["deal Qs", "deal Kh", "call", "call", "deal Jh"]
    assert policy.at(history) == policy_of(module).at(history)
    assert evaluate(policy).nash_conv == evaluate(module).nash_conv == evaluate(tmp_path / "policy.pt").nash_conv
    assert set(torch.load(tmp_path / "policy.pt", weights_only=True)) == {
        "player", "game", "game_path", "version", "interface", "network", "state_dict",
    }  # fmt: skip


def test_a_checkpoint_of_a_run_from_python_loads_by_itself(tmp_path, model):
    data = SelfPlayDataModule("envs.kuhn_poker", num_envs=16, num_steps=8)
    trainer = Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, enable_progress_bar=False)
    trainer.fit(model, data)
    policy = load_policy(trainer.run_folder / "checkpoints" / "last.ckpt")
    for a, b in zip(policy.network.parameters(), model.average.module.parameters()):
        assert torch.equal(a, b)
    again = PPO.load_from_checkpoint(trainer.run_folder / "checkpoints" / "last.ckpt", network=SMALL)
    assert evaluate(again).nash_conv == evaluate(policy).nash_conv


def test_what_a_policy_says_is_what_the_table_has(model, kuhn_tree):
    """At every infostate; the card of the other player changes nothing."""
    policy, kuhn = policy_of(model), kuhn_tree.game
    table = policy_table(model.export_policy(), kuhn_tree)
    for own, other in [(a, b) for a in range(3) for b in range(3) if a != b]:
        for moves in ([], ["pass", "bet"]):
            history = [own, other, *moves]
            position = History(kuhn)
            position.play_all(history)
            row = next(i for i, obs in enumerate(kuhn_tree.obs) if (obs == position.obs[0]).all())
            assert policy.at(history) == pytest.approx(dict(zip(kuhn.action_names, table[row])), abs=1e-6)
            assert policy.at(history) == policy.at([own, 3 - own - other, *moves])


def test_a_policy_answers_in_every_game(any_game):
    network = MLP(any_game)
    rng, position, history = np.random.default_rng(1), History(any_game), []
    while position.mover < 0:
        history.append(int(rng.choice(list(position.choices()))))
        position.play(history[-1])
    probs = GamePolicy(network, any_game).at(history)
    assert list(probs) == list(position.choices().values()) and sum(probs.values()) == pytest.approx(1, abs=1e-6)


def test_a_policy_with_a_memory_has_seen_its_own_earlier_decisions(kuhn):
    """The second decision of player 0; player 1's one between them counts for player 1 alone."""
    policy = GamePolicy(Counter(kuhn), kuhn)
    assert policy.at([0, 1])["bet"] == pytest.approx(0.5)
    assert policy.at([0, 1, "pass"])["bet"] == pytest.approx(0.5)
    assert policy.at([0, 1, "pass", "bet"])["bet"] == pytest.approx(1 / (1 + np.exp(-1)))
    with pytest.raises(ConfigError, match="give a list"):
        policy.at("pass")


def test_exact_values_are_those_of_the_validation_loop(model, kuhn_tree):
    exact = evaluate(model)
    assert exact.nash_conv == exact_metrics(model.export_policy(), kuhn_tree)["eval/nash_conv"]
    assert str(exact).startswith(f"NashConv {exact.nash_conv:.6f}   exploitability {exact.nash_conv / 2:.6f}   returns")


def test_measuring_leaves_the_model_as_it_is(model):
    model.train()
    before = {name: (x.clone(), x.requires_grad) for name, x in model.named_parameters()}
    evaluate(model)
    play_match(model, "random", games=10)
    assert model.training and model.policy.training
    for name, x in model.named_parameters():
        assert torch.equal(x, before[name][0]) and x.requires_grad == before[name][1]


def test_a_match_has_the_expected_return_of_the_tree(model, kuhn, kuhn_tree):
    """Against the random player, in both seats, within five standard errors."""
    match = play_match(model, "random", games=20_000, seed=3)
    mine, uniform = policy_table(model.export_policy(), kuhn_tree), kuhn_tree.uniform_policy()
    expected = 0.0
    for seat in range(2):
        table = np.where((kuhn_tree.row_player == seat)[:, None], mine, uniform)
        expected += kuhn_tree.evaluate(table).returns[seat] / 2
    low, high = match.return_interval(5.0)
    assert low < expected < high and high - low < 0.15 and match.games.tolist() == [10_000, 10_000]
    assert str(match).startswith(f"win rate {match.win_rate:.3f} [")
    again = play_match(policy_of(model), HeuristicPlayer("envs.heuristics.uniform", kuhn), games=20_000, seed=3)
    assert again.returns.tolist() == match.returns.tolist()


def test_opponents_are_policies_algorithms_files_and_names(model, tmp_path):
    save_policy(model, tmp_path / "rival.pt")
    spec = {"class_path": "envs.heuristics.uniform"}
    for rival in (model, policy_of(model), tmp_path / "rival.pt", str(tmp_path / "rival.pt"), spec):
        assert play_match(tmp_path / "rival.pt", rival, games=20).games.tolist() == [10, 10]
    with pytest.raises(ConfigError, match="a match of two games: kuhn_poker and leduc_poker"):
        play_match(model, PPO("envs.leduc_poker"))
    with pytest.raises(ConfigError, match="no such heuristic or player"):
        play_match(model, "envs.heuristics.unifrom")
    with pytest.raises(ConfigError, match="games=0: needs at least 1"):
        play_match(model, "random", games=0)
    with pytest.raises(ConfigError, match="'random': is no policy; give one, an algorithm, or a file"):
        evaluate("random")


def test_a_network_that_only_code_knows_is_given_again(tmp_path):
    module = lively(PPO("envs.kuhn_poker", network=lambda game: MLP(game, hidden=(16,))))
    save_policy(module, tmp_path / "policy.pt")
    with pytest.raises(ArtefactError, match=r"does not say how its network is built; in Python give load_policy netwo"):
        load_policy(tmp_path / "policy.pt")
    policy = load_policy(tmp_path / "policy.pt", network=functools.partial(MLP, hidden=(16,)))
    assert evaluate(policy).nash_conv == evaluate(module).nash_conv
    with pytest.raises(ArtefactError, match="weights are of another network"):
        load_policy(tmp_path / "policy.pt", network=MLP)


def test_files_that_are_refused(tmp_path, model):
    with pytest.raises(ArtefactError, match="no such file"):
        load_policy(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match=r"let it end with \.pt"):
        save_policy(model, tmp_path / "policy.ckpt")
    path = tmp_path / "policy.pt"
    save_policy(model, path)
    with pytest.raises(ArtefactError, match=r"is of kuhn_poker .* not of leduc_poker"):
        load_policy(path, "envs.leduc_poker")
    content = torch.load(path, weights_only=True)
    torch.save(content | {"game_path": None}, path)
    with pytest.raises(ArtefactError, match="does not say where its game is; give load_policy game="):
        load_policy(path)
    assert load_policy(path, "envs.kuhn_poker").game.name == load_policy(path, model.game).game.name
    for evil in ("os", "my_pkg.game", ["envs"], "lit_rl.cli"):
        torch.save(content | {"game_path": evil}, path)
        with pytest.raises((ArtefactError, ValueError), match=r"code that is not ours|defines neither GAME"):
            load_policy(path)


def test_a_game_of_ones_own_may_be_named_when_it_is_allowed(tmp_path, pairs):
    module = PPO("games.pairs", network=SMALL)
    save_policy(module, tmp_path / "policy.pt")
    import lit_rl.run.allowed as allowed

    known = set(allowed._trusted)
    allowed._trusted.clear()
    try:
        with pytest.raises(ArtefactError, match=r"names games\.pairs, code that is not ours.*allow=\['"):
            load_policy(tmp_path / "policy.pt")
        assert load_policy(tmp_path / "policy.pt", allow=["games"]).game is pairs
    finally:
        allowed._trusted.clear()
        allowed._trusted.update(known)


def test_a_game_without_rules_here_is_said_to_be_one(kuhn):
    sizes = {name: getattr(kuhn, name) for name in Interface.__dataclass_fields__}
    policy = GamePolicy(MLP(kuhn), Interface(**sizes))
    for ask in (policy.at, lambda: evaluate(policy), lambda: play_match(policy, "random")):
        with pytest.raises(ConfigError, match="its rules are not written here"):
            ask()


def test_how_a_network_is_built_is_said_where_it_can_be():
    assert spec_of(MLP) == {"class_path": "lit_rl.networks.MLP", "init_args": {}}
    assert spec_of(SMALL)["init_args"] == {"hidden": [16], "activation": "gelu"}
    assert spec_of({"class_path": "a.B"}) == {"class_path": "a.B"}

    class Local(MLP):
        """Of a function's own."""

    for unsayable in (None, lambda game: MLP(game), Local, functools.partial(MLP, load_game("envs.kuhn_poker"))):
        assert spec_of(unsayable) is None
    assert spec_of(functools.partial(MLP, hidden=torch.zeros(1))) is None


def test_trees_are_built_once(model, monkeypatch):
    evaluate(model)
    monkeypatch.setattr(GameTree, "__init__", lambda *args: pytest.fail("built again"))
    evaluate(model)
