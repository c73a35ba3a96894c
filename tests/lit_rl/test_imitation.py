"""Imitation: the learner comes to act as its teacher does, of either kind; it resumes, and hands on its weights."""

from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from conftest import small_mlp
from league_runs import digest, same

from callbacks.start_from import StartFrom
from datamodules.self_play import SelfPlayDataModule
from envs.vector_env import VectorEnv
from lit_rl.algorithm import check_algorithm
from lit_rl.batches import Minibatches
from lit_rl.imitation import Imitation, agreement
from lit_rl.league.player_file import save_player
from lit_rl.league.players import load_player
from lit_rl.networks import MLP
from lit_rl.ppo import PPO
from lit_rl.references import Portfolio
from lit_rl.rnad import RNaD
from lit_rl.run.errors import ConfigError

TEACHER = "envs.leduc_heuristics.hand_strength"


@pytest.fixture
def quick(short_trainer):
    """A trainer without validation."""
    return partial(short_trainer, limit_val_batches=0)


def fit(trainer, game="envs.leduc_poker", ckpt_path=None, num_envs=64, num_steps=16, **model):
    L.seed_everything(0, verbose=False)
    data = SelfPlayDataModule(game, num_envs=num_envs, num_steps=num_steps, evaluation=[], seed=1)
    module = Imitation(game, **{"teacher": TEACHER, "network": partial(MLP, hidden=(64,))} | model)
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module, data


def test_the_learner_agrees_with_its_teacher(quick, leduc):
    """At infostates of its own play with fresh cards, at least 95 of 100; before, as chance has it."""
    module, _ = fit(quick(max_epochs=60))
    fresh = Imitation("envs.leduc_poker", TEACHER, network=partial(MLP, hidden=(64,)))
    env, teacher, agreed = VectorEnv(leduc, 512, seed=77), load_player(TEACHER, leduc), []
    for _ in range(12):
        obs, legal = torch.from_numpy(env.obs.copy()), torch.from_numpy(env.legal.copy())
        target = np.zeros(env.legal.shape, np.float32)
        teacher.act(env, np.arange(512), target)
        with torch.no_grad():
            outputs = [one.policy(obs, legal) for one in (module, fresh)]
        agreed.append([float(agreement(output.logits, torch.from_numpy(target))) for output in outputs])
        env.step(env.sample(torch.softmax(outputs[0].logits, 1).numpy()))
    learned, before = np.mean(agreed, 0)
    assert learned >= 0.95 and before < 0.8, (learned, before)


def test_a_teacher_that_reads_the_state_and_one_with_ties(quick):
    """The redacted state is there when he is asked; of equal actions each is agreement."""
    _, data = fit(
        quick(max_epochs=2), "envs.beasty_bar", num_envs=4, num_steps=8, network=partial(MLP, hidden=(8,)),
        teacher="envs.beasty_bar.heuristics.heuristic",
        minibatches=Minibatches(update_epochs=1, num_minibatches=1), credit={"cut_games": "bootstrap"},
    )  # fmt: skip
    target = data.loader.rollout.extras["teacher"]
    assert torch.allclose(target.sum(-1), torch.ones(target.shape[:2]))
    assert not (target[~data.loader.rollout.legal]).any()
    ties = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    assert agreement(torch.tensor([[0.0, 3.0, 1.0], [0.0, -1.0, 1.0]]), ties) == 0.5


def test_notes_stand_beside_the_decisions_that_they_are_about(quick, leduc):
    """What was noted when a decision was made is what the teacher says of its infostate later, carried rows too."""
    module, data = fit(quick(max_epochs=3), num_envs=8, num_steps=3)
    rollout, teacher = data.loader.rollout, load_player(TEACHER, leduc)
    assert rollout.carried > 0
    table = type("Table", (), {"obs": rollout.obs.flatten(0, 1).numpy(), "legal": rollout.legal.flatten(0, 1).numpy()})
    said = np.zeros(table.legal.shape, np.float32)
    table.state, table.player = np.zeros(len(said)), rollout.player.flatten().numpy()
    rows = np.flatnonzero(rollout.played.flatten())
    teacher.act(table, rows, said)
    np.testing.assert_array_equal(rollout.extras["teacher"].flatten(0, 1)[rows], said[rows])
    for lesson in module.make_batches(rollout, torch.Generator().manual_seed(0)):
        np.testing.assert_array_equal(lesson.target, said[lesson.batch.decision])
        np.testing.assert_array_equal(lesson.batch.obs[lesson.batch.row], table.obs[lesson.batch.decision])


def test_it_is_an_algorithm_and_resumes_bit_by_bit(quick, tmp_path):
    check_algorithm(Imitation("envs.leduc_poker", TEACHER))
    whole, _ = fit(quick(max_epochs=4))
    trainer = quick(max_epochs=2)
    fit(trainer)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fit(quick(max_epochs=4), ckpt_path=tmp_path / "half.ckpt")
    assert same(digest(whole), digest(resumed))


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        ("envs.leduc_heuristics.nobody", r"^model.teacher: 'envs.leduc_heuristics.nobody': no such heuristic"),
        ("nowhere.ckpt", r"nowhere.ckpt: no such file"),
        ("envs.showdown.players.MaxDamage", r"model.teacher: .*plays showdown, not leduc"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_one_line(quick, teacher, words):
    with pytest.raises(ConfigError, match=words):
        fit(quick(max_epochs=1), teacher=teacher)


@pytest.mark.parametrize("kind", [PPO, partial(RNaD, reference=partial(Portfolio, capacity=2, add_every=5))])
def test_a_run_starts_from_anothers_weights_with_all_copies(quick, tmp_path, leduc, kind):
    torch.manual_seed(3)
    source = small_mlp(leduc)
    torch.nn.init.normal_(source.policy_head.weight)
    save_player(tmp_path / "source.pt", source, leduc)
    spec = {"class_path": "lit_rl.networks.MLP", "init_args": {"hidden": [7]}}
    save_player(tmp_path / "other.pt", MLP(leduc, hidden=(7,)), leduc, spec)
    module, begun = kind("envs.leduc_poker", network=small_mlp, ema_decay=0.9), []

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            begun.extend(digest(part) for part in pl_module.modules() if type(part) is type(source))

    start = StartFrom(str(tmp_path / "source.pt"))
    trainer = quick(max_epochs=1, callbacks=[start, Look()])
    trainer.fit(module, SelfPlayDataModule("envs.leduc_poker", num_envs=16, num_steps=8, evaluation=[]))
    assert len(begun) == (2 if kind is PPO else 5) and all(same(each, digest(source)) for each in begun)
    with pytest.raises(ConfigError, match=r"StartFrom.policy=nowhere.pt: no such player file or checkpoint"):
        quick(max_epochs=1, callbacks=[StartFrom("nowhere.pt")]).fit(
            module, SelfPlayDataModule("envs.leduc_poker", num_envs=16, num_steps=8, evaluation=[])
        )
    for name, words in (("other", "other.pt: its network is another than model.network"),
                        ("source", "source.pt: its weights are of another network than the learner's")):  # fmt: skip
        other = PPO("envs.leduc_poker", network=partial(MLP, hidden=(5,)))
        with pytest.raises(ConfigError, match=words):
            quick(max_epochs=1, callbacks=[StartFrom(str(tmp_path / f"{name}.pt"))]).fit(
                other, SelfPlayDataModule("envs.leduc_poker", num_envs=16, num_steps=8, evaluation=[])
            )
