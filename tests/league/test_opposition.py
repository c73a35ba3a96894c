"""The opposition without a Trainer: who is met, how often, and that a resumed run plays the same games."""

from functools import partial

import numpy as np
import pytest
import quarrel
import torch
from league_runs import HEURISTICS, SPEC, lively, small

from envs.vector_env import VectorEnv
from lit_rl.league.league import League, Member, Result
from lit_rl.league.matchmaking import Pool, inverse_standing, uniform
from lit_rl.league.opposition import Opposition, permanent_members
from lit_rl.league.player_file import save_player
from lit_rl.league.players import load_player
from lit_rl.league.seating import Seating
from lit_rl.rollout import collect
from lit_rl.run.errors import ArtefactError, ConfigError


def by_names(game):
    """Builds players of `game` as the datamodule does, on the CPU."""
    return lambda spec, sha256: load_player(spec, game, sha256=sha256, make=lambda: small(game))


def opposition_in(env, game, specs=HEURISTICS, matchmaker=uniform, seed=2, **options):
    members = permanent_members(specs, game)
    return Opposition(Seating(env, seed), matchmaker, by_names(game), permanent=members, **options)


def play(opposition, network, num_steps=8):
    return collect(opposition.seating.env, network, num_steps, opponents=opposition)


@pytest.fixture
def league(tmp_path, leduc):
    league = League(tmp_path / "league.sqlite", leduc)
    yield league
    league.close()


def test_without_a_league_the_permanent_members_are_met(leduc):
    env = VectorEnv(leduc, 64, seed=1)
    opposition = opposition_in(env, leduc, ["random", *HEURISTICS])
    assert opposition.shares == {} and opposition.learner_moves(env).all()  # before the first refresh: self-play
    opposition.refresh(0, 0, self_play_share=0.0)
    assert opposition.shares == dict.fromkeys(["random", "always_call", "always_raise", "hand_strength"], 0.25)
    rollout = play(opposition, small(leduc))
    assert 0 < int(rollout.learner.sum()) < rollout.learner.numel()
    opposition.refresh(1, 512, self_play_share=1.0)
    assert opposition.refreshed == 1 and set(opposition.counts) == set(opposition.shares)
    with pytest.raises(ConfigError, match="needs a league file"):
        _ = opposition.members_folder


def test_results_go_to_the_league_and_the_matchmaker_and_fade(leduc, league):
    env = VectorEnv(leduc, 256, seed=1)
    opposition = opposition_in(
        env, leduc, HEURISTICS[:2], partial(inverse_standing, floor=0.0, prior_games=0), league=league,
        folder=league.path.parent, memory_games=50,
    )  # fmt: skip
    opposition.refresh(0, 0, 0.0)
    play(opposition, small(leduc), 16)
    opposition.refresh(1, 4096, 0.0)
    results = [r for *_, r in league.results()]
    assert {(r.opponent, r.seat) for r in results} == {(n, s) for n in ("always_call", "always_raise") for s in (0, 1)}
    for name, (score, games, returns, squares) in opposition.counts.items():
        rows = [r for r in results if r.opponent == name]
        total = sum(r.games for r in rows)
        assert games == pytest.approx(50)
        assert score / games == pytest.approx(sum(r.wins + 0.5 * r.draws for r in rows) / total)
        assert returns / games == pytest.approx(sum(r.member_return for r in rows) / total / leduc.max_return)
        assert squares / games == pytest.approx(sum(r.member_square for r in rows) / total / leduc.max_return**2)
    columns = np.array(list(opposition.counts.values())).T
    pool = Pool(tuple(opposition.counts), ("heuristic",) * 2, *columns, np.full(2, 1500.0))
    expected = inverse_standing(pool, floor=0.0, prior_games=0)
    assert list(opposition.shares.values()) == pytest.approx(expected.tolist())
    opposition.remember([Result("main", "always_call", 0, 0, 0, 10_000)])
    assert opposition.counts["always_call"][0] < 1  # ten thousand new games weigh more than fifty
    assert league.find("main").role == "main" and opposition.members_folder == league.path.parent / "members"


def test_a_saved_opposition_goes_on_with_the_same_games(leduc, league, tmp_path):
    save_player(tmp_path / "rival.pt", lively(leduc), leduc, SPEC)
    league.add(Member("rival", "past", file="rival.pt"))
    network, options = lively(leduc, 3), dict(folder=tmp_path)
    env = VectorEnv(leduc, 64, seed=1)
    whole = opposition_in(env, leduc, league=league, **options)
    whole.refresh(0, 0, 0.25)
    play(whole, network)
    whole.refresh(1, 512, 0.5)
    play(whole, network)
    torch.save({"env": env.state_dict(), "opposition": whole.state_dict()}, tmp_path / "saved.pt")
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    other_env = VectorEnv(leduc, 64, seed=9)
    other_env.load_state_dict(saved["env"])
    again = opposition_in(other_env, leduc, seed=9, league=league, **options)
    again.load_state_dict(saved["opposition"])
    again.load_missing_players()
    assert again.shares == whole.shares and again.counts == whole.counts and again.refreshed == 1
    for iteration in (2, 3):
        first, second = play(whole, network), play(again, network)
        assert torch.equal(first.action, second.action) and torch.equal(first.learner, second.learner)
        whole.refresh(iteration, 512 * iteration, 0.5)
        again.refresh(iteration, 512 * iteration, 0.5)  # the league answers as it did
        assert again.shares == whole.shares and again.counts == whole.counts
    with pytest.raises(ValueError, match="saved seating does not fit"):
        opposition_in(VectorEnv(leduc, 10, seed=0), leduc).load_state_dict(saved["opposition"])


class Remembers(quarrel.Says):
    """A stranger's player with a memory that checkpoints keep."""

    def __init__(self, game):
        super().__init__(1)

    def state_dict(self):
        return {"moves": [list(move) for move in self.moves]}

    def load_state_dict(self, state):
        self.moves = [tuple(move) for move in state["moves"]]


def test_players_memories_are_saved(leduc):
    env = VectorEnv(leduc, 16, seed=1)
    opposition = opposition_in(env, leduc, ["test_opposition.Remembers"])
    opposition.refresh(0, 0, 0.0)
    play(opposition, small(leduc))
    state = opposition.state_dict()
    again = opposition_in(env, leduc, ["test_opposition.Remembers"])
    again.load_state_dict(state)
    assert again.state_dict()["memories"] == state["memories"]  # saved again before anybody was loaded
    again.load_missing_players()
    (before,), (after,) = opposition.seating.players, again.seating.players
    assert len(before.moves) > 10 and after.moves == before.moves and after is not before
    assert opposition.player("Remembers").moves == []  # whoever asks gets a player of its own


def test_a_lost_member_of_saved_games_is_named(leduc, tmp_path):
    save_player(tmp_path / "rival.pt", lively(leduc), leduc, SPEC)
    env = VectorEnv(leduc, 16, seed=1)
    opposition = opposition_in(env, leduc, [str(tmp_path / "rival.pt")])
    opposition.refresh(0, 0, 0.0)
    state = opposition.state_dict()
    (tmp_path / "rival.pt").unlink()
    again = Opposition(Seating(env, 2), uniform, by_names(leduc))
    again.load_state_dict(state)
    with pytest.raises(ArtefactError, match=r"rival plays in the checkpoint's games and is lost: .*no such file"):
        again.load_missing_players()


def test_whoever_cannot_play_is_quarantined_and_replaced_files_are_loaded_anew(leduc, kuhn, league, tmp_path):
    save_player(tmp_path / "good.pt", lively(leduc), leduc, SPEC)
    save_player(tmp_path / "foreign.pt", lively(kuhn), kuhn, SPEC)
    league.add(Member("foreign", "external", file="foreign.pt"))
    league.add(Member("odd", "external", path="lit_rl.networks.MLP"))
    env = VectorEnv(leduc, 16, seed=1)
    opposition = opposition_in(env, leduc, [], league=league, folder=tmp_path)
    with pytest.warns(UserWarning) as caught:
        opposition.refresh(0, 0, 0.5)
    said = [str(w.message) for w in caught]
    assert len(said) == 3 and "foreign is quarantined" in said[0] and "is no Player" in said[1]
    assert "nobody to play against yet: self-play until it has" in said[2]
    league.add(Member("good", "past", file="good.pt"))
    opposition.refresh(1, 0, 0.5)
    first = opposition.seating.player("good")
    opposition.refresh(2, 0, 0.5)
    assert opposition.seating.player("good") is first and opposition.shares == {"good": 1.0}
    save_player(tmp_path / "good.pt", lively(leduc, 7), leduc, SPEC)
    league.add(Member("good", "past", file="good.pt"), replace=True)
    opposition.refresh(3, 0, 0.5)
    assert opposition.seating.player("good") is not first


def test_several_ranks_hand_in_one_sum_and_see_one_roster(leduc, league):
    """Rank 0 holds the league; rank 1 is told."""
    told = {}
    ranks = []
    for rank in (0, 1):
        env = VectorEnv(leduc, 64, seed=rank)
        ranks.append(
            opposition_in(
                env, leduc, HEURISTICS, seed=rank, league=league if rank == 0 else None, folder=league.path.parent,
                sum_over_ranks=lambda tally: sum(told["tallies"]),
                from_first_rank=lambda value: told.setdefault("roster", value),
            )
        )  # fmt: skip
    for iteration in range(3):
        told["tallies"] = [opposition.seating.tally.copy() for opposition in ranks]
        told.pop("roster", None)
        for opposition in ranks:
            opposition.refresh(iteration, 0, 0.0)
        for opposition in ranks:
            play(opposition, small(leduc))
    assert ranks[0].counts == ranks[1].counts and ranks[0].shares == ranks[1].shares
    assert not np.array_equal(ranks[0].seating.table, ranks[1].seating.table)
    handed_in = sum(r.games for _, iteration, _, r in league.results() if iteration == 2)
    assert handed_in == pytest.approx(told["tallies"][0][..., :3].sum() + told["tallies"][1][..., :3].sum())


def test_teams_play_in_a_league(tmp_path):
    game = quarrel.make(0, 1, 0, 1)
    env, league = VectorEnv(game, 40, seed=0), League(tmp_path / "l.sqlite", game)
    opposition = opposition_in(env, game, ["random"], league=league)
    opposition.refresh(0, 0, 0.0)
    network = small(game)
    rollout = play(opposition, network, 8)
    assert (rollout.learner.sum(0) == 4).all()  # two games of four decisions; in each of them half of the players
    opposition.refresh(1, 320, 0.0)
    results = [r for *_, r in league.results()]
    assert [(r.seat, r.games) for r in results] == [(0, 40), (1, 40)]
    league.close()


def test_permanent_members_have_roles_and_names(leduc, tmp_path):
    save_player(tmp_path / "rival.pt", lively(leduc), leduc, SPEC)
    specs = ["random", HEURISTICS[0], str(tmp_path / "rival.pt"), {"class_path": "test_opposition.Remembers"}]
    found = [(m.name, m.role, m.permanent) for m in permanent_members(specs, leduc)]
    assert found == [
        ("random", "random", True), ("always_call", "heuristic", True), ("rival", "external", True),
        ("Remembers", "external", True),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="random is listed twice"):
        permanent_members(["random", "random"], leduc)
    with pytest.raises(ConfigError, match=r"'nowhere.pt': no such player file or checkpoint"):
        permanent_members(["nowhere.pt"], leduc)
