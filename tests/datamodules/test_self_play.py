"""Self-play data: a simulator is an env like any other, and what cannot work is refused before anything is compiled."""

import lightning as L
import pytest
import torch
from conftest import grouped, small_mlp
from simulator import INTERFACE, Simulator, SimulatorDataModule

from datamodules.self_play import SelfPlayDataModule
from envs.vector_env import VectorEnv
from lit_rl.evaluation import Exact, Matches
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD
from lit_rl.rollout import STEPS, collect
from lit_rl.run.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:.*across ranks is zero", "ignore:.*have no `validation_step`")


def test_a_simulator_plays_the_same_games(kuhn):
    """The slow twin: every byte of three rollouts, and the same again from its saved state."""
    network = small_mlp(kuhn)
    fast, slow, before, previous = VectorEnv(kuhn, 20, seed=3), Simulator(20, 3), None, None
    for _ in range(3):
        before, previous = (collect(env, network, 6, previous=r) for env, r in ((fast, before), (slow, previous)))
        for name in STEPS:
            if name != "game_stream":
                assert torch.equal(getattr(before, name), getattr(previous, name)), name
        state, slow = slow.state_dict(), Simulator(20, 99)
        slow.load_state_dict(state)


@pytest.mark.parametrize("algorithm", [PPO, RNaD])
def test_trained_judged_and_resumed_on_a_simulator(short_trainer, tmp_path, algorithm):
    """Interface only: the same weights as by the compiled rules, matches instead of a tree, resumed bit by bit."""

    def fit(kind, game, ckpt_path=None, epochs=4, evaluation=()):
        torch.manual_seed(0)
        trainer = short_trainer(max_epochs=epochs)
        model = algorithm(game, **grouped({"network": small_mlp, "update_epochs": 2, "num_minibatches": 2}))
        data = kind(game, num_envs=16, num_steps=8, evaluation=list(evaluation))
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return trainer, model

    _, compiled = fit(SelfPlayDataModule, "envs.kuhn_poker")
    trainer, simulated = fit(SimulatorDataModule, "simulator", evaluation=[Matches(["random"], games=50)])
    for name, weights in compiled.state_dict().items():
        assert torch.equal(weights, simulated.state_dict()[name]), name
    assert 0 < float(trainer.callback_metrics["eval/win_rate/random"]) < 1
    trainer, _ = fit(SimulatorDataModule, "simulator", epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = fit(SimulatorDataModule, "simulator", ckpt_path=tmp_path / "half.ckpt")
    assert torch.equal(resumed.policy.policy_head.weight, simulated.policy.policy_head.weight)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: SelfPlayDataModule("simulator"), r"data\.game: kuhn_poker has no rules here"),
        (lambda: SimulatorDataModule("simulator", evaluation=[Exact()]), "has no rules here to be enumerated"),
    ],
)
def test_what_needs_rules_says_so(short_trainer, data, said):
    with pytest.raises(ConfigError, match=said):
        short_trainer().fit(PPO("simulator", network=small_mlp), data())
    assert INTERFACE.name == "kuhn_poker"


def test_what_is_no_algorithm_is_refused_by_name(short_trainer):
    class Nothing(L.LightningModule):
        def training_step(self, batch, batch_idx): ...

        def configure_optimizers(self): ...

    with pytest.raises(ConfigError, match="model=Nothing: game is missing"):
        short_trainer().fit(Nothing(), SelfPlayDataModule("envs.kuhn_poker"))


def test_nothing_need_be_divisible(make_fit):
    """96 decisions in 7 minibatches."""
    trainer, model, data = make_fit({"num_minibatches": 7}, {"num_envs": 12, "num_steps": 8}, max_epochs=1)
    trainer.fit(model, data)
    assert trainer.global_step == 28
