"""League play by a Trainer: what trains, that a resumed run plays the same games, and what is refused."""

import os
import subprocess
import sys

import lightning as L
import numpy as np
import pytest
import torch
from league_runs import (
    HEURISTICS,
    ROOT,
    SPEC,
    TWICE_TWO,
    exact_return,
    league_data,
    league_fit,
    lively,
    open_league,
    small,
)

from callbacks.scalar_schedule import ScalarSchedule
from datamodules.league_play import LeagueDataModule
from lit_rl.algorithm import rollout_of
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.parameter_groups import Groups, GroupSettings
from lit_rl.evaluation import policy_table
from lit_rl.league.league import League, Member
from lit_rl.league.player_file import save_player
from lit_rl.league.players import HeuristicPlayer, player_table
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.schedules import Linear


def test_only_the_learners_decisions_train(leduc):
    seen = []

    class Listen(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.append(len(batch.action))
            rollout = rollout_of(trainer)
            assert 0 < int(rollout.learner.sum()) < rollout.learner.numel()
            assert (batch.log_prob <= 0).all() and (batch.log_prob < 0).any()

    data = league_data(opponents=HEURISTICS, self_play_share=0.0)
    league_fit(data, callbacks=[Listen()])
    assert sum(seen) < 2 * 6 * 64 * 8 * 0.7  # two passes over about half of the decisions


def test_against_a_caller_it_learns_to_win(leduc, leduc_tree):
    """The exploiter's problem: one fixed opponent, no self-play."""
    caller = player_table(HeuristicPlayer(HEURISTICS[0], leduc), leduc_tree)
    model = PPO("envs.leduc_poker", network=small, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    data = league_data(opponents=HEURISTICS[:1], self_play_share=0.0, num_envs=256, num_steps=8)
    before = exact_return(leduc_tree, policy_table(model.policy, leduc_tree), caller).mean()
    league_fit(data, model, max_epochs=60)
    after = exact_return(leduc_tree, policy_table(model.policy, leduc_tree), caller).mean()
    best = leduc_tree.evaluate(caller).best_response_returns.mean()
    assert before < 0.2 * best and after > 0.85 * best


@pytest.mark.parametrize("algorithm", ["ppo", "rnad", "neurd", "armac"])
def test_algorithms_resume_bit_by_bit(tmp_path, algorithm):
    """From a checkpoint in mid-run, whatever global random state: the same weights, the same games."""

    def make():
        torch.manual_seed(3)
        if algorithm == "ppo":
            return PPO("envs.leduc_poker", network=small)
        if algorithm == "armac":
            steady = GroupSettings(lr=1e-2, lr_end=1e-2)  # whatever the length of the run
            groups = Groups(steady, steady, steady, steady)
            return ARMAC("envs.leduc_poker", network=small, mix_lambda=0.25, groups=groups)
        return RNaD("envs.leduc_poker", network=small, form="neurd" if algorithm == "neurd" else "kl")

    options = dict(opponents=["random", *HEURISTICS], league=str(tmp_path / "a.sqlite"), run="main")
    whole, model = league_fit(league_data(**options), make(), max_epochs=7)
    options["league"] = str(tmp_path / "b.sqlite")
    first, _ = league_fit(league_data(**options), make(), max_epochs=4)
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(99)
    again, resumed = league_fit(league_data(**options), make(), max_epochs=7, ckpt_path=tmp_path / "half.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), resumed.state_dict().values()))
    first, second = whole.datamodule.opposition, again.datamodule.opposition
    for name in ("table", "turn", "earned", "streams"):
        assert np.array_equal(getattr(first.seating, name), getattr(second.seating, name))
    assert first.counts == second.counts != {}


def test_a_curriculum_by_rungs_resumes_bit_by_bit(tmp_path):
    """The schedule says whom the learner meets, from the first game on; a resumed run meets the same."""
    climb = ScalarSchedule("data.rung", Linear(0.0, 2.0))
    ladder = {"ladder": ["always_call", "always_raise", "hand_strength"]}
    options = dict(opponents=HEURISTICS, matchmaker="rungs", matchmaker_options=ladder, self_play_share=0.0)
    met = []

    class Listen(L.Callback):
        def on_train_epoch_end(self, trainer, _):
            met.append({name: share for name, share in trainer.datamodule.opposition.shares.items() if share})

    whole, model = league_fit(league_data(**options), callbacks=[climb, Listen()], max_epochs=5)
    assert met[0] == met[1] == {"always_call": 1.0} and met[4] == {"hand_strength": 1.0}
    assert met[2] == met[3] == {"always_raise": 1.0}

    class Save(L.Callback):
        def on_train_epoch_end(self, trainer, _):
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    league_fit(league_data(**options), callbacks=[climb, Save()], max_epochs=5)
    again, resumed = league_fit(
        league_data(**options), callbacks=[climb], max_epochs=5, ckpt_path=tmp_path / "half.ckpt"
    )
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), resumed.state_dict().values()))
    assert whole.datamodule.opposition.counts == again.datamodule.opposition.counts
    with pytest.raises(ConfigError, match=r"ladder: 'ghost' is no member; there are always_call"):
        league_data(**(options | {"matchmaker_options": {"ladder": ["ghost"]}}))
    with pytest.raises(ConfigError, match="rung=-1"):
        league_data(**options, rung=-1)


def test_results_reach_the_file_once_even_if_iterations_are_played_twice(tmp_path, leduc):
    options = dict(opponents=HEURISTICS, league=str(tmp_path / "l.sqlite"), run="main", self_play_share=0.0)
    first, _ = league_fit(league_data(**options), max_epochs=3)
    first.save_checkpoint(tmp_path / "early.ckpt")
    league_fit(league_data(**options), max_epochs=7)
    league = League(tmp_path / "l.sqlite", leduc)
    before = league.results()
    league_fit(league_data(**options), max_epochs=7, ckpt_path=tmp_path / "early.ckpt")
    assert league.results() == before  # iterations 4 and 6 were handed in twice
    assert {iteration for _, iteration, _, _ in before} == {2, 4, 6}
    seats = {(r.opponent, r.seat) for *_, r in before}
    assert len(seats) == 6  # each of three opponents with the learner in both seats
    ratings = {m.name: m.rating.rating for m in league.members()}
    assert all(rating != 1500 for rating in ratings.values()) and len(ratings) == 4
    league.close()


def test_members_that_cannot_play_are_quarantined_and_the_others_play_on(tmp_path, leduc, kuhn):
    league = League(tmp_path / "l.sqlite", leduc)
    folder = tmp_path / "members"
    save_player(folder / "good.pt", lively(leduc), leduc, SPEC)
    save_player(folder / "altered.pt", lively(leduc), leduc, SPEC)
    save_player(folder / "foreign.pt", lively(kuhn), kuhn, SPEC)
    save_player(folder / "gone.pt", lively(leduc), leduc, SPEC)
    for name in ("good", "altered", "foreign", "gone"):
        league.add(Member(name, "external", file=f"members/{name}.pt"))
    league.add(Member("nonsense", "heuristic", path="envs.leduc_heuristics.no_such"))
    save_player(folder / "altered.pt", lively(leduc, 1), leduc, SPEC)
    (folder / "gone.pt").unlink()
    data = league_data(league=str(league.path), run="main")
    with pytest.warns(UserWarning) as caught:
        torch.manual_seed(0)
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(PPO("envs.leduc_poker", network=small), data)
    said = [str(w.message) for w in caught if "quarantined" in str(w.message)]
    assert len(said) == 4 and list(data.opposition.shares) == ["good"]
    states = {m.name: (m.state, m.reason) for m in league.members()}
    assert states["good"] == ("active", "")
    for name, why in (
        ("altered", "SHA-256"),
        ("foreign", "of kuhn_poker"),
        ("gone", "no such file"),
        ("nonsense", "no such heuristic"),
    ):
        assert states[name][0] == "quarantined" and why in states[name][1]
    league.close()


def test_an_empty_pool_is_self_play_and_one_warning(tmp_path, leduc):
    data = league_data(league=str(tmp_path / "l.sqlite"))
    model = PPO("envs.leduc_poker", network=small, minibatches=TWICE_TWO)
    with pytest.warns(UserWarning) as caught:
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=5, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(model, data)
    assert len([w for w in caught if "nobody to play against yet: self-play" in str(w.message)]) == 1
    assert data.loader.rollout.learner.all() and data.opposition.run.startswith("run-")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matchmaker": "elo"}, "matchmaker='elo': no such function"),
        ({"matchmaker": "role_weights", "matchmaker_options": {"weights": {"ghost": 1.0}}}, "unknown role 'ghost'"),
        ({"self_play_share": 1.5}, "self_play_share=1.5"),
        ({"refresh_every": 0}, "refresh_every=0"),
        ({"opponents": ["nowhere.pt"]}, "'nowhere.pt': no such player file or checkpoint"),
        ({"opponents": ["envs.leduc_heuristics.bluff"]}, "no such heuristic"),
        ({"opponents": ["random", "random"]}, "random is listed twice"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        league_data(**options)


def test_a_floor_too_high_for_the_pool_is_refused():
    with pytest.raises(ConfigError, match=r"min_share=0.4 x 3 members > 1; use at most 0.333"):
        league_data(opponents=HEURISTICS, matchmaker="inverse_standing", matchmaker_options={"min_share": 0.4})


def test_a_checkpoint_whose_members_are_lost_is_refused_by_name(tmp_path, leduc):
    save_player(tmp_path / "rival.pt", lively(leduc), leduc, SPEC)
    options = dict(opponents=[str(tmp_path / "rival.pt")], self_play_share=0.0)
    first, _ = league_fit(league_data(**options), max_epochs=2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    (tmp_path / "rival.pt").rename(tmp_path / "hidden.pt")
    (tmp_path / "rival.pt").write_bytes(b"something else")
    with pytest.raises(ArtefactError, match=r"rival plays in the checkpoint's games and is lost: .*restart_games"):
        league_fit(league_data(**options), max_epochs=4, ckpt_path=tmp_path / "half.ckpt")


class LastAction:
    """A stranger's player, named by its import path."""

    def __init__(self, game, number=0):
        self.number, self.games = number, 0

    def act(self, table, rows, probs):
        for b in rows:
            probs[b] = 0
            probs[b, np.flatnonzero(table.legal[b])[-1]] = 1

    def begin(self, rows):
        self.games += len(rows)


def test_a_strangers_player_is_met_by_its_import_path(tmp_path):
    spec = {"class_path": "test_league_play.LastAction", "init_args": {"number": 3}}
    data = league_data(opponents=[spec, "test_league_play.LastAction"], self_play_share=0.0)
    league_fit(data, folder=tmp_path / "run", max_epochs=3)
    assert list(data.opposition.shares) == ["LastAction(number=3)", "LastAction"]
    players = data.opposition.seating.players
    assert [p.number for p in players] == [3, 0] and all(p.games > 0 for p in players)


def test_callbacks_ask_for_a_league(tmp_path):
    class Ask(L.Callback):
        def setup(self, trainer, pl_module, stage):
            LeagueDataModule.of(trainer, "Ask")

    with pytest.raises(ConfigError, match=r"this needs a league file: set data.league, or let the run have a folder"):
        league_fit(league_data(opponents=HEURISTICS), callbacks=[Ask()])


def train(tmp_path, *arguments):
    """`litrl fit` of a tiny league run in tmp_path; its output."""
    command = [
        sys.executable, "-W", "ignore", "-m", "lit_rl", "fit", "--config", str(ROOT / "configs" / "leduc_ppo.yaml"),
        "--data", "LeagueDataModule", "--data.num_envs=32", "--data.num_steps=8", "--data.refresh_every=3",
        "--trainer.enable_progress_bar=false", "--trainer.check_val_every_n_epoch=30", "--trainer.log_every_n_steps=1",
        f"--trainer.default_root_dir={tmp_path}", *arguments,
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_ranks_play_one_league(tmp_path, leduc):
    snapshots = ["--trainer.callbacks+=Snapshot", "--trainer.callbacks.every=4"]
    train(
        tmp_path, "--trainer.max_epochs=13", "--trainer.devices=2", "--trainer.strategy=ddp",
        "--data.opponents=[random]", *snapshots,
    )  # fmt: skip
    league = open_league(tmp_path / "version_0", leduc)
    assert [m.name for m in league.members()] == ["main", "random", *(f"main-{i:07d}" for i in (4, 8, 12))]
    batches = {iteration for _, iteration, _, _ in league.results()}
    assert batches == {3, 6, 9, 12}
    checkpoint = torch.load(tmp_path / "version_0" / "checkpoints" / "last.ckpt", weights_only=True)
    first, second = (rank["opponents"]["seating"] for rank in checkpoint["LeagueDataModule"]["ranks"])
    assert first["table"] != second["table"]
    assert first["names"] == second["names"] == ["random", *(f"main-{i:07d}" for i in (4, 8, 12))]
    # a batch holds the games of both ranks: 2 ranks x 32 rows x 3 iterations x 8 decisions, halved by self-play
    games = sum(r.games for _, iteration, _, r in league.results() if iteration == 3)
    assert 100 < games < 400
    league.close()
