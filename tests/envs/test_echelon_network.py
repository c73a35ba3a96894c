"""Echelon's encoders, its roles, and a short run of its league."""

import dataclasses
import json
from functools import partial

import lightning as L
import pytest
import torch

from callbacks.promotion import Promotion
from callbacks.start_from import StartFrom
from datamodules.league_play import LeagueDataModule
from datamodules.self_play import SelfPlayDataModule
from envs.echelon.lesson import GAME as LESSON
from envs.echelon.network import Streams
from envs.echelon.observe import SELF
from envs.echelon.two import GAME as TWO
from envs.game import parts
from envs.leduc_poker import GAME as LEDUC
from envs.vector_env import VectorEnv
from lit_rl import losses
from lit_rl.batches import Minibatches
from lit_rl.league.league import League
from lit_rl.league.player_file import save_player
from lit_rl.networks import Recurrent
from lit_rl.ppo import PPO
from lit_rl.returns import Credit, gae
from lit_rl.rollout import Collecting, collect
from lit_rl.run.errors import ConfigError

SIX_LIKE = dataclasses.replace(
    TWO,  # an interface with larger sets, whose rules nobody plays
    obs_shape=(54 + 5 * 24 + 6 * 24 + 81,),
    obs_parts={
        "self": TWO.obs_parts["self"],
        "squad": TWO.obs_parts["squad"]._replace(shape=(5, 24)),
        "enemy": TWO.obs_parts["enemy"]._replace(start=54 + 5 * 24, shape=(6, 24)),
        "ground": TWO.obs_parts["ground"]._replace(start=54 + 11 * 24),
    },
)
POOLS = ["mean", "max", "attention"]
ENCODER = {"class_path": "envs.echelon.network.Streams", "init_args": {"width": 32, "each": 16}}
SPEC = {"class_path": "lit_rl.networks.Recurrent", "init_args": {"encoder": ENCODER, "memory": 16}}


@pytest.mark.parametrize("pool", POOLS)
def test_it_does_not_matter_in_which_slot_a_mech_stands(pool):
    torch.manual_seed(0)
    encoder, obs = Streams(SIX_LIKE, 32, 16, pool), torch.rand(4, *SIX_LIKE.obs_shape)
    named = parts(SIX_LIKE, obs)
    named["enemy"][:, 3:] = 0  # three are seen
    shuffled, absent = obs.clone(), obs.clone()
    parts(SIX_LIKE, shuffled)["enemy"][:] = named["enemy"][:, [4, 2, 0, 5, 1, 3]]
    parts(SIX_LIKE, absent)["enemy"][:, 4, 1:] = 9.0  # not there, whatever else is said
    found = encoder(obs)
    assert found.shape == (4, 32)
    assert torch.allclose(found, encoder(shuffled), atol=1e-5) and torch.allclose(found, encoder(absent), atol=1e-5)
    alone = obs.clone()
    parts(SIX_LIKE, alone)["enemy"][:] = 0
    assert torch.isfinite(encoder(alone)).all() and not torch.allclose(found, encoder(alone))


@pytest.mark.parametrize("pool", POOLS)
def test_every_weight_has_a_gradient(pool):
    encoder, obs = Streams(SIX_LIKE, 32, 16, pool), torch.rand(4, *SIX_LIKE.obs_shape)
    for name in ("squad", "enemy"):
        parts(SIX_LIKE, obs)[name][0] = 0  # nobody is there
    encoder(obs).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_refusals():
    with pytest.raises(ValueError, match="Streams: reads the obs of Echelon, not of leduc_poker"):
        Streams(LEDUC)
    with pytest.raises(ValueError, match="pool='sum': must be one of mean, max, attention"):
        Streams(TWO, pool="sum")
    with pytest.raises(ConfigError, match="normalize_advantages=role: all players of leduc_poker are alike"):
        PPO("envs.leduc_poker", normalize_advantages="role")


def small(game):
    return Recurrent(game, partial(Streams, width=32, each=16), memory=16)


def test_advantages_are_normalised_within_each_role():
    torch.manual_seed(0)
    model = PPO(
        "envs.echelon.two", small, normalize_advantages="role", credit=Credit(gamma=0.99, cut_games="bootstrap"),
        minibatches=Minibatches(update_epochs=1, num_minibatches=1, merge_rows=False),
    )  # fmt: skip
    rollout = collect(VectorEnv(TWO, 8, seed=1), model.policy, 64, collecting=model.collecting, bonus_coef=1.0)
    (batch,) = model.make_batches(rollout, torch.Generator().manual_seed(0))
    plain, valid = gae(rollout, 0.99, 0.95)
    assert valid.all()  # whatever is cut is worth something
    role = torch.tensor(TWO.roles)[rollout.player.long()]
    for number in (0, 1):
        wanted, found = losses.normalized(plain[role == number]), batch.advantages[role_in(batch) == number]
        assert torch.allclose(wanted.sort().values, found.sort().values, atol=1e-5)
    assert torch.allclose(batch.returns.sort().values, (plain + rollout.value).flatten().sort().values, atol=1e-5)


def role_in(batch):
    """0 a scout, 1 a heavy, as obs says."""
    return (parts(TWO, batch.obs)["self"][batch.row, SELF.index("heavy")] > 0).long()


def test_what_a_team_earns_comes_to_its_wrecks():
    """A mech that is dead is asked now and then, so that its last decision is followed by what the critic expects."""
    torch.manual_seed(1)
    env, policy = VectorEnv(TWO, 4, seed=3), small(TWO)
    for row in range(4):
        env.state[row]["alive"][3] = 0
        env.state[row]["losses"][1] = 1
    rollout = collect(env, policy, 200, collecting=Collecting(cut_games="bootstrap"))
    turns = (rollout.player == 3).sum(0)
    assert ((turns >= 2) & (turns <= 5)).all()  # against 60 of the living
    assert rollout.last_known.all() and (rollout.last_value != 0).all()


def test_a_league_seats_whole_teams(short_trainer):
    """One iteration: a member moves for a whole pack, and nothing is learned from its decisions."""
    data = LeagueDataModule(
        "envs.echelon.two", opponents=["random", "envs.echelon.heuristics.lieutenant_50"], num_envs=8, num_steps=64,
        self_play_share=0.0, evaluation=[], bonus_coef=1.0, team_share=0.3,
    )  # fmt: skip
    model = PPO(
        "envs.echelon.two", small, normalize_advantages="role", credit=Credit(gamma=0.99, cut_games="bootstrap"),
        minibatches=Minibatches(update_epochs=2, num_minibatches=2, merge_rows=False, chunk_length=8),
    )  # fmt: skip
    before = [p.clone() for p in model.policy.parameters()]
    short_trainer(max_epochs=1, limit_val_batches=0).fit(model, data)
    rollout, table = data.loader.rollout, torch.from_numpy(data.opposition.seating.table)
    assert table.shape == (8, 2) and ((table < 0).sum(1) == 1).all()
    team = torch.tensor(TWO.team)[rollout.player.long()]
    assert (rollout.learner == (team == (table < 0).int().argmax(1))).all()
    assert any((p != q).any() for p, q in zip(before, model.policy.parameters()))


def test_a_run_begins_with_what_a_lesson_has_taught(short_trainer, tmp_path):
    taught, begun = small(LESSON), {}
    save_player(tmp_path / "taught.pt", taught, LESSON, SPEC)

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            begun.update({name: x.clone() for name, x in pl_module.policy.state_dict().items()})

    def fit(game):
        minibatches = Minibatches(update_epochs=1, num_minibatches=1, merge_rows=False, chunk_length=8)
        model = PPO("envs.echelon.two", small, minibatches=minibatches, credit=Credit(cut_games="bootstrap"))
        data = SelfPlayDataModule("envs.echelon.two", num_envs=2, num_steps=16, evaluation=[])
        start = StartFrom(str(tmp_path / "taught.pt"), game)
        short_trainer(max_epochs=1, limit_val_batches=0, callbacks=[start, Look()]).fit(model, data)

    fit("envs.echelon.lesson")
    assert all(torch.equal(x, begun[name]) for name, x in taught.state_dict().items())
    with pytest.raises(ConfigError, match=r"StartFrom.policy: .* is of echelon_lesson .* not of echelon_two"):
        fit(None)


def test_weights_fit_packs_of_any_size():
    """Sets know no number of mechs: what two against two has taught is where six against six may begin."""
    small(SIX_LIKE).load_state_dict(small(TWO).state_dict())


def test_candidates_with_a_memory_are_rated(tmp_path, short_trainer):
    data = LeagueDataModule(
        "envs.echelon.two", league=str(tmp_path / "league.sqlite"), run="main", num_envs=4, num_steps=32,
        opponents=["envs.echelon.heuristics.zone_walker"], matchmaker="skill_matched", rate_training=False,
        evaluation=[],
    )  # fmt: skip
    minibatches = Minibatches(update_epochs=1, num_minibatches=1, merge_rows=False, chunk_length=8)
    model = PPO("envs.echelon.two", small, minibatches=minibatches, credit=Credit(cut_games="bootstrap"))
    model.hparams["network"] = SPEC  # as the command line leaves it
    promotion = Promotion(every=1, games=2, periods=1, keep_top=1)
    short_trainer(max_epochs=2, limit_val_batches=0, callbacks=[promotion]).fit(model, data)
    league = League(tmp_path / "league.sqlite", TWO)
    members = {m.name: m for m in league.members()}
    assert members.keys() == {"main", "zone_walker", "main-0000001", "main-0000002"}
    assert {r.member for *_, source, r in league.results() if source == "matches 1"} >= {"main-0000001"}
    assert members["main"].rating == members["main-0000002"].rating and members["zone_walker"].permanent
    league.close()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning")
@pytest.mark.parametrize("config", ["echelon_ppo", "echelon_league"])
def test_the_configs_run(command, config):
    matches = {"class_path": "Matches", "init_args": {"opponents": ["random"], "games": 2, "metric": "win_rate"}}
    small = (
        "--data.game", "envs.echelon.two", "--trainer.max_epochs", 1, "--data.num_envs", 8, "--data.num_steps", 64,
        "--model.minibatches.num_minibatches", 2, "--data.evaluation",
        json.dumps([matches]),
    )  # fmt: skip
    code, out, err = command("fit", "--config", config, *small)
    assert code == 0, err
    assert "against random" in out
