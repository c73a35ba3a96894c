"""League play: who sits where, what it comes to, and that a resumed run plays the same games."""

import itertools
import warnings

import lightning as L
import numpy as np
import pytest
import torch
from test_players import SPEC, exact_return, lively

from datamodules.league_play import LeagueDataModule
from envs.vector_env import VectorEnv
from lit_rl.armac.armac import ARMAC
from lit_rl.armac.parameter_groups import GroupSettings
from lit_rl.league.league import League, Member
from lit_rl.league.players import RANDOM, HeuristicPlayer, NetworkPlayer, player_table, save_player
from lit_rl.league.seating import DRAWS, LEARNER_RETURN, LOSSES, MEMBER_RETURN, WINS, Seating
from lit_rl.networks import MLP
from lit_rl.policy import policy_table
from lit_rl.ppo import PPO
from lit_rl.rnad import RNaD
from lit_rl.rollout import collect
from lit_rl.run.errors import ArtefactError, ConfigError
from lit_rl.run.replay import finished_games, game_record, verify

HEURISTICS = [f"envs.leduc_heuristics.{name}" for name in ("always_call", "always_raise", "hand_strength")]


def small(game):
    return MLP(game, hidden=(16,))


def fit(data, model=None, callbacks=(), ckpt_path=None, **trainer):
    """Train a small PPO on Leduc against `data`."""
    torch.manual_seed(0)
    model = model or PPO("envs.leduc_poker", network=small, update_epochs=2, num_minibatches=2)
    defaults = dict(
        accelerator="cpu", max_epochs=6, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, log_every_n_steps=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = L.Trainer(**(defaults | trainer), callbacks=list(callbacks))
        trainer.fit(model, data, ckpt_path=ckpt_path)
    return trainer, model


def league_data(**options):
    return LeagueDataModule("envs.leduc_poker", **({"num_envs": 64, "num_steps": 8, "refresh_every": 2} | options))


@pytest.fixture
def seating(leduc):
    env = VectorEnv(leduc, 1000, seed=1)
    seating = Seating(env, seed=2)
    for name in HEURISTICS:
        seating.meet(name, HeuristicPlayer(name, leduc))
    return seating


def test_members_are_drawn_by_their_shares_and_seats_alternate(leduc, seating):
    shares, games, seats = [0.6, 0.3, 0.1], np.zeros(3), []
    seating.draw_from(HEURISTICS, shares, self_play_share=0.25)
    seating.begin_anew()
    network, alone, total = small(leduc), 0, 0
    for _ in range(30):
        before = seating.table.copy()
        r = collect(seating.env, network, 1, opponents=seating)
        done = r.done[0].numpy()
        for row in before[done]:
            total += 1
            alone += (row < 0).all()
            if row.max() >= 0:
                games[row.max()] += 1
                assert (row < 0).sum() == 1  # the learner has one seat
        seats.append(np.where((seating.table < 0).all(1), -1, (seating.table < 0).argmax(1)))
    # by Hoeffding: off by more than this with probability 1e-6
    bound = np.sqrt(np.log(2e6) / 2 / total)
    assert abs(alone / total - 0.25) < bound
    assert np.abs(games / games.sum() - shares).max() < 2 * bound
    for b in range(50):  # in a row, games against others have the learner in the seats 0, 1, 0, 1, ...
        changes = [s for s, _ in itertools.groupby(column[b] for column in seats) if s >= 0]
        assert changes == [(changes[0] + i) % 2 for i in range(len(changes))]


def test_the_tally_is_what_happened_and_agrees_with_exact_evaluation(leduc, leduc_tree, seating):
    network = lively(leduc)
    seating.draw_from(HEURISTICS, [0.4, 0.3, 0.3], self_play_share=0.0)
    seating.begin_anew()
    rollouts = [collect(seating.env, network, 10, opponents=seating, merge_rows=True) for _ in range(12)]
    tally = seating.take_tally()
    games = tally[:, :, [WINS, DRAWS, LOSSES]].sum(2)
    assert games.sum() == sum(int(r.done.sum()) for r in rollouts) and seating.take_tally().sum() == 0
    assert tally[:, :, LEARNER_RETURN] == pytest.approx(-tally[:, :, MEMBER_RETURN])
    table = policy_table(network, leduc_tree)
    for k, name in enumerate(HEURISTICS):
        theirs = player_table(HeuristicPlayer(name, leduc), leduc_tree)
        exact = exact_return(leduc_tree, table, theirs)
        # a game of Leduc wins or loses 13 chips at most; short games are over-represented by no more than one per row
        error = 5 * 13 / np.sqrt(games[k]) / 2 + 0.2
        assert (np.abs(tally[k, :, LEARNER_RETURN] / games[k] - exact) < error).all()


def test_network_opponents_act_as_they_would_alone(leduc, leduc_tree):
    """The actions of two networks that sit at the same tables have each its own frequencies."""
    env = VectorEnv(leduc, 4000, seed=1)
    seating, networks = Seating(env, seed=2), [lively(leduc, seed) for seed in (5, 6)]
    for name, network in zip("ab", networks):
        seating.meet(name, NetworkPlayer(network, merge_rows=True))
    seating.draw_from("ab", [0.5, 0.5], 0.0)
    seating.begin_anew()
    who = seating.table.copy()
    r = collect(env, small(leduc), 1, opponents=seating)  # all games stand at player 0's first decision
    for k, network in enumerate(networks):
        rows = torch.from_numpy(who[:, 0] == k)
        expected = torch.softmax(network(r.obs[0][rows], r.legal[0][rows]).logits, -1).mean(0)
        got = torch.bincount(r.action[0][rows], minlength=3) / rows.sum()
        assert torch.allclose(got, expected, atol=0.06) and not r.learner[0][rows].any()
    assert r.learner[0][torch.from_numpy(who[:, 0] < 0)].all()


def test_seating_goes_on_where_it_was_saved(leduc, seating):
    seating.draw_from(HEURISTICS, [0.6, 0.3, 0.1], 0.25)
    network = small(leduc)
    collect(seating.env, network, 7, opponents=seating)
    env = VectorEnv(leduc, 1000, seed=9)
    other = Seating(env, seed=9)
    env.load_state_dict(seating.env.state_dict())
    other.load_state_dict(seating.save())
    for name in HEURISTICS:
        other.meet(name, HeuristicPlayer(name, leduc))
    other.draw_from(HEURISTICS, [0.6, 0.3, 0.1], 0.25)
    first, second = (collect(s.env, network, 9, opponents=s) for s in (seating, other))
    assert torch.equal(first.action, second.action) and torch.equal(first.learner, second.learner)
    assert np.array_equal(seating.take_tally(), other.take_tally())
    with pytest.raises(ValueError, match="saved seating does not fit"):
        Seating(VectorEnv(leduc, 10, seed=0), 0).load(seating.save())


def test_only_the_learners_decisions_train(leduc):
    seen = []

    class Listen(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            seen.append(len(batch.action))
            rollout = trainer.train_dataloader.rollout
            assert 0 < int(rollout.learner.sum()) < rollout.learner.numel()
            assert (batch.log_prob <= 0).all() and (batch.log_prob < 0).any()

    data = league_data(opponents=HEURISTICS, self_play_share=0.0)
    fit(data, callbacks=[Listen()])
    assert sum(seen) < 2 * 6 * 64 * 8 * 0.7  # two passes over about half of the decisions


def test_against_a_caller_it_learns_to_win(leduc, leduc_tree):
    """The exploiter's problem: one fixed opponent, no self-play."""
    caller = player_table(HeuristicPlayer(HEURISTICS[0], leduc), leduc_tree)
    model = PPO("envs.leduc_poker", network=small, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    data = league_data(opponents=HEURISTICS[:1], self_play_share=0.0, num_envs=256, num_steps=8)
    before = exact_return(leduc_tree, policy_table(model.policy, leduc_tree), caller).mean()
    fit(data, model, max_epochs=60)
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
            groups = {f"{name}_group": steady for name in ("regret", "average", "critic", "actor")}
            return ARMAC("envs.leduc_poker", network=small, mix_lambda=0.25, **groups)
        return RNaD("envs.leduc_poker", network=small, form="neurd" if algorithm == "neurd" else "kl")

    options = dict(opponents=["random", *HEURISTICS], league=str(tmp_path / "a.sqlite"), run="main")
    whole, model = fit(league_data(**options), make(), max_epochs=7)
    options["league"] = str(tmp_path / "b.sqlite")
    first, _ = fit(league_data(**options), make(), max_epochs=4)
    first.save_checkpoint(tmp_path / "half.ckpt")
    torch.manual_seed(99)
    again, resumed = fit(league_data(**options), make(), max_epochs=7, ckpt_path=tmp_path / "half.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), resumed.state_dict().values()))
    for name in ("table", "turn", "earned", "streams"):
        assert np.array_equal(getattr(whole.datamodule.seating, name), getattr(again.datamodule.seating, name))
    assert whole.datamodule.counts == again.datamodule.counts != {}


def test_results_reach_the_file_once_even_if_iterations_are_played_twice(tmp_path, leduc):
    options = dict(opponents=HEURISTICS, league=str(tmp_path / "l.sqlite"), run="main", self_play_share=0.0)
    first, _ = fit(league_data(**options), max_epochs=3)
    first.save_checkpoint(tmp_path / "early.ckpt")
    fit(league_data(**options), max_epochs=7)
    league = League(tmp_path / "l.sqlite", leduc)
    before = league.results()
    fit(league_data(**options), max_epochs=7, ckpt_path=tmp_path / "early.ckpt")
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
    assert len(said) == 4 and list(data.shares) == ["good"]
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
    model = PPO("envs.leduc_poker", network=small, update_epochs=2, num_minibatches=2)
    with pytest.warns(UserWarning) as caught:
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=5, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(model, data)
    assert len([w for w in caught if "nobody to play against yet: self-play" in str(w.message)]) == 1
    assert data.loader.rollout.learner.all() and data.run.startswith("run-")


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
    data = league_data(opponents=HEURISTICS, matchmaker="inverse_win_rate", matchmaker_options={"min_share": 0.4})
    with pytest.raises(ConfigError, match=r"min_share=0.4 x 3 members > 1; use at most 0.333"):
        fit(data)


def test_a_checkpoint_whose_members_are_lost_is_refused_by_name(tmp_path, leduc):
    save_player(tmp_path / "rival.pt", lively(leduc), leduc, SPEC)
    options = dict(opponents=[str(tmp_path / "rival.pt")], self_play_share=0.0)
    first, _ = fit(league_data(**options), max_epochs=2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    (tmp_path / "rival.pt").rename(tmp_path / "hidden.pt")
    (tmp_path / "rival.pt").write_bytes(b"something else")
    with pytest.raises(ArtefactError, match=r"rival plays in the checkpoint's games and is lost: .*restart_games"):
        fit(league_data(**options), max_epochs=4, ckpt_path=tmp_path / "half.ckpt")


def test_replays_know_whose_moves_are_the_learners(leduc, tmp_path, seating):
    env = VectorEnv(leduc, 50, seed=4, record=True)
    seats = Seating(env, seed=2)
    seats.meet("random", HeuristicPlayer(RANDOM, leduc))
    seats.draw_from(["random"], [1.0], 0.3)
    seats.begin_anew()
    network = lively(leduc)
    r = collect(env, network, 12, opponents=seats)
    from lit_rl.run.replay import weights_hash
    from lit_rl.run.replay_file import ReplayWriter

    writer, count, theirs = ReplayWriter(tmp_path / "replay.jsonl"), 0, 0
    writer.begin(
        {"run": "x", "continues": "", "game": "envs.leduc_poker", "name": leduc.name, "version": leduc.version}
    )
    for game in finished_games(r, whole_games=True):
        record = game_record(leduc, r, *game, {})
        facts = {"iteration": 0, "decisions": 1, "precision": "32-true", "weights": weights_hash(network)}
        writer.append(facts | record)
        count += 1
        theirs += sum("logits" not in move for move in record["moves"])
        assert all(("logits" in move) != move.get("opponent", False) for move in record["moves"])
    writer.sync()
    report = verify(tmp_path / "replay.jsonl", leduc, network)
    assert report.games == report.games_of_weights == count > 50 and theirs > 30
    assert report.decisions_of_weights == report.decisions - theirs
