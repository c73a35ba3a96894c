"""Seating: members are drawn by their shares, seats are teams, and the tally is what happened."""

import itertools

import numpy as np
import pytest
import quarrel
import torch
from league_runs import HEURISTICS, exact_return, lively, small
from naive import seat, settle

from envs.rng import make_streams, uniform
from envs.vector_env import VectorEnv
from lit_rl.evaluation import policy_table
from lit_rl.league.players import RANDOM, HeuristicPlayer, NetworkPlayer, player_table
from lit_rl.league.seating import DRAWS, LEARNER, LEARNER_RETURN, LOSSES, MEMBER_RETURN, WINS, Seating, _seat, _settle
from lit_rl.rollout import Collecting, collect
from lit_rl.run.replay import finished_games, game_record, verify, weights_hash
from lit_rl.run.replay_file import ReplayWriter

TEAMS = [(0, 1), (0, 1, 2), (0, 1, 0, 1), (1, 0, 0, 2)]


@pytest.fixture
def seating(leduc):
    env = VectorEnv(leduc, 1000, seed=1)
    seating = Seating(env, seed=2)
    for name in HEURISTICS:
        seating.meet(name, HeuristicPlayer(name, leduc))
    return seating


def test_members_are_drawn_by_their_shares_and_seats_alternate(leduc, seating):
    shares, games, seats = [0.6, 0.3, 0.1], np.zeros(3), []
    seating.draw_from(dict(zip(HEURISTICS, shares)), self_play_share=0.25)
    seating.seat_all_rows()
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
    seating.draw_from(dict(zip(HEURISTICS, [0.4, 0.3, 0.3])), self_play_share=0.0)
    seating.seat_all_rows()
    rollouts = [
        collect(seating.env, network, 10, opponents=seating, collecting=Collecting(merge_rows=True)) for _ in range(12)
    ]
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
    seating.draw_from({"a": 0.5, "b": 0.5}, 0.0)
    seating.seat_all_rows()
    who = seating.table.copy()
    r = collect(env, small(leduc), 1, opponents=seating)  # all games stand at player 0's first decision
    for k, network in enumerate(networks):
        rows = torch.from_numpy(who[:, 0] == k)
        expected = torch.softmax(network(r.obs[0][rows], r.legal[0][rows]).logits, -1).mean(0)
        got = torch.bincount(r.action[0][rows], minlength=3) / rows.sum()
        assert torch.allclose(got, expected, atol=0.06) and not r.learner[0][rows].any()
    assert r.learner[0][torch.from_numpy(who[:, 0] < 0)].all()


def test_seating_goes_on_where_it_was_saved(leduc, seating):
    seating.draw_from(dict(zip(HEURISTICS, [0.6, 0.3, 0.1])), 0.25)
    network = small(leduc)
    collect(seating.env, network, 7, opponents=seating)
    env = VectorEnv(leduc, 1000, seed=9)
    other = Seating(env, seed=9)
    env.load_state_dict(seating.env.state_dict())
    other.load_state_dict(seating.state_dict())
    for name in HEURISTICS:
        other.meet(name, HeuristicPlayer(name, leduc))
    first, second = (collect(s.env, network, 9, opponents=s) for s in (seating, other))
    assert torch.equal(first.action, second.action) and torch.equal(first.learner, second.learner)
    assert np.array_equal(seating.take_tally(), other.take_tally())
    with pytest.raises(ValueError, match="saved seating does not fit"):
        Seating(VectorEnv(leduc, 10, seed=0), 0).load_state_dict(seating.state_dict())


@pytest.mark.parametrize("team", TEAMS)
def test_seats_are_given_as_the_twin_gives_them(team):
    rng, num_seats = np.random.default_rng(0), max(team) + 1
    shares, drawn = rng.dirichlet(np.ones(3)), np.array([4, 0, 2], np.int16)
    tables = [np.full((200, num_seats), LEARNER, np.int16) for _ in range(2)]
    turns = [(np.arange(200) % num_seats).astype(np.int8) for _ in range(2)]
    streams = [make_streams(200, 5, 6) for _ in range(2)]
    for _ in range(20):
        began = rng.random(200) < 0.5
        _seat(began, 0.3, drawn, np.cumsum(shares), tables[0], turns[0], streams[0])
        seat(began, 0.3, drawn, shares, tables[1], turns[1], lambda b: uniform(streams[1], b))
        assert np.array_equal(*tables) and np.array_equal(*turns) and np.array_equal(*streams)
    with_others = (tables[0] != LEARNER).any(1)
    assert ((tables[0] == LEARNER).sum(1)[with_others] == 1).all() and 0 < with_others.sum() < 200


@pytest.mark.parametrize("team", TEAMS)
def test_games_are_counted_as_the_twin_counts_them(team):
    rng, team = np.random.default_rng(0), np.array(team)
    num_seats, total = team.max() + 1, 0.0
    tally, found = np.zeros((3, num_seats, 7)), np.zeros((3, num_seats, 7))
    for _ in range(20):
        table = rng.integers(0, 3, (50, num_seats)).astype(np.int16)
        table[np.arange(50), rng.integers(0, num_seats, 50)] = LEARNER
        table[rng.random(50) < 0.2] = LEARNER  # self-play
        earned = rng.integers(-2, 3, (50, len(team))).astype(np.float32)
        done = rng.random(50) < 0.5
        found += settle(done, table, team, earned, 3)
        total += (done & (table >= 0).any(1)).sum() * (num_seats - 1)
        kept = earned[~done].copy()
        _settle(done, table, team, earned, tally)
        assert not earned[done].any() and np.array_equal(earned[~done], kept)
    assert tally == pytest.approx(found, abs=1e-9) and found[:, :, [WINS, DRAWS, LOSSES]].sum() == total


@pytest.mark.parametrize("team", TEAMS)
def test_a_member_moves_for_its_whole_team_and_is_told_of_its_games(team):
    env = VectorEnv(quarrel.make(*team), 30, seed=0)
    seating, players = Seating(env, seed=1), {"low": quarrel.Says(0), "high": quarrel.Says(2)}
    for name, player in players.items():
        seating.meet(name, player)
    seating.draw_from({"low": 0.5, "high": 0.5}, self_play_share=0.2)
    seating.seat_all_rows()
    expected = np.zeros((2, max(team) + 1, 7))
    for _ in range(4):
        table = seating.table.copy()
        for number, player in enumerate(players.values()):
            assert player.began[-1] == np.flatnonzero((table == number).any(1)).tolist()
            player.moves.clear()
        said = np.zeros((30, len(team)), int)
        for p in range(len(team)):  # everybody moves once, in order
            learner = table[np.arange(30), team[p]] == LEARNER
            assert np.array_equal(seating.learner_moves(env), learner)
            probs = np.zeros((30, 3), np.float32)
            probs[learner, 1] = 1
            seating.act(env, probs)
            action = env.sample(probs)
            said[:, p] = action
            assert np.array_equal(action, np.array([1, 0, 2])[table[:, team[p]] + 1])
            env.step(action)
            seating.stepped(env)
        earned = np.arange(len(team)) + 10 * said - np.roll(said, 1, axis=1)
        expected += settle(np.ones(30, bool), table, team, earned, 2)
        for number, player in enumerate(players.values()):
            whose = {(b, p) for b in range(30) for p in range(len(team)) if table[b, team[p]] == number}
            assert set(player.moves) == whose and len(player.moves) == len(whose)
    assert seating.take_tally() == pytest.approx(expected)


def test_whoever_is_loaded_in_mid_game_is_told_that_it_begins(leduc):
    env = VectorEnv(leduc, 10, seed=0)
    seating = Seating(env, seed=1)
    seating.meet("a", HeuristicPlayer(RANDOM, leduc))
    seating.draw_from({"a": 1.0}, 0.0)
    seating.seat_all_rows()
    other, player = Seating(env, seed=9), quarrel.Says(0)
    other.load_state_dict(seating.state_dict())
    assert other.needed() == ["a"] and other.player("a") is None and other.shares == {"a": 1.0}
    other.meet("a", player)
    assert player.began == [list(range(10))]


def test_replays_know_whose_moves_are_the_learners(leduc, tmp_path):
    env = VectorEnv(leduc, 50, seed=4)
    seating = Seating(env, seed=2)
    seating.meet("random", HeuristicPlayer(RANDOM, leduc))
    seating.draw_from({"random": 1.0}, 0.3)
    seating.seat_all_rows()
    network = lively(leduc)
    rollout = collect(env, network, 12, opponents=seating, keep_logits=True)
    writer, count, theirs = ReplayWriter(tmp_path / "replay.jsonl"), 0, 0
    writer.begin(
        {"run": "x", "continues": "", "game": "envs.leduc_poker", "name": leduc.name, "version": leduc.version}
    )
    for game in finished_games(rollout):
        record = game_record(leduc, rollout, *game)
        facts = {"iteration": 0, "decisions": 1, "precision": "32-true", "weights": weights_hash(network)}
        writer.append(facts | record)
        count += 1
        theirs += sum("logits" not in move for move in record["moves"])
        assert all(("logits" in move) != move.get("opponent", False) for move in record["moves"])
    writer.sync()
    report = verify(tmp_path / "replay.jsonl", leduc, network)
    assert report.games == report.games_of_weights == count > 50 and theirs > 30
    assert report.decisions_of_weights == report.decisions - theirs
