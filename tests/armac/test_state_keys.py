"""Keys over whole game trees: that tiers really split, that they follow the rules, and that they never change."""

import dataclasses
import math
import random

import numpy as np
import pytest
import torch

from envs import kuhn_poker, leduc_poker
from envs.betting import Betting
from envs.game import load_game
from lit_rl.armac.state_keys import InfostateKeys, StateKeys, TieredKeys
from lit_rl.run.errors import ConfigError

TIERS = ("coarse", "medium", "fine")


def tiered(game, *args, **options):
    return TieredKeys(game, *args, **{"facts": f"envs.{game.name}.betting"} | options)


def rounded_betting(obs):
    """Of Leduc's obs in other numbers."""
    return leduc_poker.betting(np.rint(obs).astype(np.uint8))


def first_number(obs):
    """The pot is what the first number of the obs says, in percent."""
    share = obs[:, 0] / 100
    return Betting(np.zeros(len(obs), np.int64), share, 1 - share)


def tree_rows(tree):
    return torch.from_numpy(tree.obs), torch.from_numpy(tree.row_player)


def field(keys, shift, bits=8):
    return (keys >> shift & (1 << bits) - 1).tolist()


def test_how_far_each_tier_splits(kuhn_tree, leduc_tree):
    """Kuhn: 4 public positions. Leduc: 11 pairs of pot and stack for each player, 3 of them in the first round. The
    documents' buckets of 10 chips knew one and three pots."""
    for tree, coarse, medium in ((kuhn_tree, 2, 4), (leduc_tree, 4, 22)):
        counts = [len(tiered(tree.game, tier)(*tree_rows(tree)).unique()) for tier in TIERS]
        assert counts[:2] == [coarse, medium]
        assert 2 * medium < counts[2] < tree.num_rows
        assert len(InfostateKeys(tree.game)(*tree_rows(tree)).unique()) == tree.num_rows


@pytest.mark.parametrize("name", ["kuhn_tree", "leduc_tree"])
def test_each_tier_refines_the_one_before(name, request):
    tree = request.getfixturevalue(name)
    keys = [tiered(tree.game, tier)(*tree_rows(tree)).tolist() for tier in TIERS]
    keys.append(InfostateKeys(tree.game)(*tree_rows(tree)).tolist())
    for coarser, finer in zip(keys, keys[1:]):
        assert len(set(zip(finer, coarser))) == len(set(finer)) > len(set(coarser))


def test_leducs_keys_follow_the_chips(leduc):
    """Round, pot and stack as the rules' own state has them, over random games."""
    keys, rng = tiered(leduc, "medium"), random.Random(0)
    for _ in range(300):
        state = leduc.new_state()[0]
        while (player := leduc.current_player(state)) != -4:
            if player >= 0:
                obs = np.zeros((1, 30), np.uint8)
                leduc.observe(state, player, obs[0])
                key = keys(torch.from_numpy(obs), torch.tensor([player]))
                own, pot = int(state["chips"][player]), int(state["chips"].sum())
                expected = int(state["round"]), player, 10 * pot // 26, 10 * (13 - own) // 13
                assert tuple(field(key, shift)[0] for shift in (48, 40, 32, 24)) == expected
                allowed = np.zeros(3, np.bool_)
                leduc.legal_actions(state, allowed)
            else:
                allowed = np.zeros(6)
                leduc.chance_probs(state, allowed)
            leduc.apply_action(state, rng.choice(np.flatnonzero(allowed).tolist()))


def test_kuhns_keys_by_hand(kuhn, kuhn_tree):
    """Pass-bet: player 0 faces 3 chips of at most 4; whoever decides has the second of two chips left."""
    obs = torch.zeros(4, 11, dtype=torch.uint8)
    obs[0, [0, 2]] = 1  # nothing yet
    obs[1, [1, 3, 5]] = 1  # after a pass
    obs[2, [1, 3, 6]] = 1  # after a bet
    obs[3, [0, 2, 5, 8]] = 1  # pass-bet
    keys = tiered(kuhn, "medium")(obs, torch.tensor([0, 1, 1, 0]))
    assert field(keys, 40) == [0, 1, 1, 0]
    assert field(keys, 32) == [5, 5, 7, 7] and field(keys, 24) == [5] * 4
    assert kuhn_poker.betting(kuhn_tree.obs).stack.tolist() == [0.5] * 12


@pytest.mark.parametrize("make", [*(lambda g, t=t: tiered(g, t) for t in TIERS), InfostateKeys])
def test_a_key_depends_on_its_row_alone(leduc, leduc_tree, make):
    """Not on its neighbours, their number, or the number of threads."""
    keys, (obs, player) = make(leduc), tree_rows(leduc_tree)
    whole = keys(obs, player)
    assert whole.dtype == torch.int64 and whole.shape == (936,)
    order = torch.randperm(936)
    assert torch.equal(keys(obs[order], player[order]), whole[order])
    assert torch.equal(torch.cat([keys(obs[i : i + 1], player[i : i + 1]) for i in range(936)]), whole)
    assert keys(obs[:0], player[:0]).shape == (0,)
    many = obs.repeat(40, 1), player.repeat(40)
    assert torch.equal(keys(*many), whole.repeat(40))


def test_keys_are_the_same_in_every_version(leduc, leduc_tree):
    """Written down once: a table saved by an older version must go on meaning the same."""
    obs, player = (x[[0, 400, 935]] for x in tree_rows(leduc_tree))
    golden = {
        "coarse": [0, 282574488338432, 282574488338432],
        "medium": [72057594188922880, 72340177233641472, 72340202936336384],
        "fine": [144115188226850981, 144397771271569601, 144397796974264533],
        "infostate": [4221116759950424282, 4139599670351171936, -4753439369286420976],
    }
    made = {tier: tiered(leduc, tier) for tier in TIERS} | {"infostate": InfostateKeys(leduc)}
    assert {name: keys(obs, player).tolist() for name, keys in made.items()} == golden


def test_a_key_never_changes_its_meaning(leduc, leduc_tree, tmp_path):
    """The planes of a checkpoint win over those of another seed, and no cast to half precision touches them."""
    keys = tiered(leduc, "fine", seed=3)
    before = keys(*tree_rows(leduc_tree))
    torch.save(keys.state_dict(), tmp_path / "keys.pt")
    other = tiered(leduc, "fine", seed=4)
    assert not torch.equal(other(*tree_rows(leduc_tree)), before)
    other.load_state_dict(torch.load(tmp_path / "keys.pt", weights_only=True))
    assert torch.equal(other(*tree_rows(leduc_tree)), before)
    assert torch.equal(other.to(torch.bfloat16)(*tree_rows(leduc_tree)), before)
    assert torch.equal(tiered(leduc, "fine", seed=3)(*tree_rows(leduc_tree)), before)
    assert not list(keys.parameters())


def test_fine_clusters_split_by_what_is_seen(leduc, leduc_tree):
    """More planes, more clusters; none of them depends on pot and stack alone."""
    counts = [len(tiered(leduc, "fine", num_planes=n)(*tree_rows(leduc_tree)).unique()) for n in (1, 4, 8, 16, 24)]
    assert counts == sorted(set(counts)) and counts[-1] > 800
    clusters = field(tiered(leduc, "fine", num_planes=3)(*tree_rows(leduc_tree)), 0, bits=24)
    assert set(clusters) == set(range(8))


def test_obs_that_are_no_whole_numbers(leduc, leduc_tree):
    """Rounded to 1/1024 first, so that the sums have no rounding errors that could depend on the batch."""
    game = dataclasses.replace(leduc, obs_dtype=np.dtype(np.float32))
    obs, player = tree_rows(leduc_tree)
    noisy = obs.float() + 0.3 * torch.rand(obs.shape)
    keys = tiered(game, "fine", facts=f"{__name__}.rounded_betting")
    whole = keys(noisy, player)
    assert torch.equal(torch.cat([keys(noisy[i : i + 1], player[i : i + 1]) for i in range(936)]), whole)
    hair = -0.0004 * keys.planes[:1].sign().float()  # on the other side of the first plane, but for the rounding
    assert torch.equal(keys(hair, player[:1]), keys(0 * hair, player[:1]))


def test_keys_in_words(kuhn, leduc, leduc_tree):
    obs, player = tree_rows(leduc_tree)
    last = obs[-1:], player[-1:]
    words = [tiered(leduc, tier).describe(int(tiered(leduc, tier)(*last))) for tier in TIERS]
    assert words[0] == "round 1, player 1"
    assert words[1].startswith("round 1, player 1, pot ") and words[2].startswith(words[1] + ", cluster ")
    assert len(InfostateKeys(kuhn).describe(-1)) == 16


def test_facts_are_asked_for_by_name(leduc):
    game = load_game("envs.tic_tac_toe")
    for facts, words in (
        (None, "facts: .* tic_tac_toe, an import path such as envs.kuhn_poker.betting, or use InfostateKeys"),
        ("envs.kuhn_poker.bets", "facts='envs.kuhn_poker.bets': no such function"),
        ("betting", "facts='betting': no such function"),
        ("envs.leduc_poker.betting", "cannot read an obs of tic_tac_toe"),
        ("numpy.sum", "must return envs.betting.Betting"),
    ):
        with pytest.raises(ConfigError, match=words):
            TieredKeys(game, facts=facts)
    with pytest.raises(ConfigError, match="facts: "):
        TieredKeys(leduc)


def test_a_game_without_bets():
    game = load_game("envs.tic_tac_toe")
    obs = torch.eye(math.prod(game.obs_shape), dtype=torch.uint8).reshape(-1, *game.obs_shape)
    keys = InfostateKeys(game)(obs, torch.zeros(len(obs), dtype=torch.int64))
    other = InfostateKeys(game)(obs, torch.ones(len(obs), dtype=torch.int64))
    assert len(torch.cat([keys, other]).unique()) == 2 * len(obs)


def too_large(obs):
    return Betting(np.zeros(len(obs), np.int64), np.full(len(obs), 2.0), np.zeros(len(obs)))


def test_facts_that_a_key_has_no_room_for(leduc, leduc_tree):
    with pytest.raises(ValueError, match=r"facts: pot=2.0 of obs=.*, 0 to 1 fit"):
        tiered(leduc, facts=f"{__name__}.too_large")(*tree_rows(leduc_tree))


def test_buckets_reach_from_end_to_end(leduc):
    obs = torch.zeros(101, 30, dtype=torch.uint8)
    obs[:, 0] = torch.arange(101)
    for buckets in (1, 4, 10):
        keys = tiered(leduc, num_buckets=buckets, facts=f"{__name__}.first_number")
        keys = keys(obs, torch.zeros(101, dtype=torch.int64))
        pots = field(keys, 32)
        assert pots == sorted(pots) and set(pots) == set(range(buckets))
        assert set(field(keys, 24)) == set(range(buckets))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tier": "finest"}, "tier='finest': unknown; use one of coarse, medium, fine"),
        ({"num_buckets": 0}, "num_buckets=0"),
        ({"num_buckets": 300}, "num_buckets=300: at most 256"),
        ({"num_planes": 0}, "num_planes=0"),
        ({"num_planes": 25}, "num_planes=25: at most 24"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_refused_by_name(leduc, options, words):
    with pytest.raises(ValueError, match=words):
        tiered(leduc, **options)


def test_bad_rows_are_refused(leduc):
    obs = torch.zeros(3, 30, dtype=torch.uint8)
    for keys in (tiered(leduc), InfostateKeys(leduc)):
        for wrong in (torch.zeros(2, dtype=torch.int64), torch.zeros(3, 1, dtype=torch.int64), torch.zeros(3)):
            with pytest.raises(ValueError, match=r"must be \[N, \*D\]"):
                keys(obs, wrong)
        with pytest.raises(ValueError, match="player=-1"):
            keys(obs, torch.tensor([0, -1, 1]))
    with pytest.raises(TypeError, match="does not define forward"):
        StateKeys()(obs, torch.zeros(3, dtype=torch.int64))
