"""Records of games: every one can be played again by the rules alone, and none that was touched passes."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import small_mlp
from numba import njit
from replays import forge, record_games

from envs.game import CHANCE, TERMINAL, load_game
from envs.vector_env import VectorEnv
from lit_rl.networks import MLP
from lit_rl.policy import PolicyOutput
from lit_rl.rollout import Collecting, collect
from lit_rl.run.errors import ArtefactError
from lit_rl.run.replay import finished_games, game_record, verify, weights_hash
from lit_rl.run.replay_file import ReplayWriter, read


def test_exploration_is_on_record_and_part_of_what_is_verified(tmp_path, kuhn):
    path, policy = tmp_path / "replay.jsonl", small_mlp(kuhn)
    writer = ReplayWriter(path)
    writer.begin({"run": "test", "game": "envs.kuhn_poker", "name": kuhn.name, "version": kuhn.version})
    collecting = Collecting(exploration=0.7, explorers="one")
    rollout = collect(VectorEnv(kuhn, 8, seed=3), policy, 6, collecting=collecting, keep_logits=True)
    facts = {"iteration": 0, "decisions": 0, "precision": "32-true", "weights": weights_hash(policy)}
    for found in finished_games(rollout):
        writer.append(facts | game_record(kuhn, rollout, *found))
    report = verify(path, kuhn, policy)
    assert report.games_of_weights == report.games > 5

    def explored_less(record):
        record["moves"][0]["exploration"] = 0.3

    forge(path, explored_less)
    with pytest.raises(ArtefactError, match="log_prob of action"):
        verify(path, kuhn, policy)


STATE = np.dtype([("dealt", np.int8), ("dice", np.int8), ("moved", np.bool_), ("over", np.bool_)])


@njit
def init(state):
    state.dealt = state.dice = 0
    state.moved = state.over = False


@njit
def current_player(state):
    if state.over:
        return TERMINAL
    return 0 if state.dice > 0 and not state.moved else CHANCE


@njit
def legal_actions(state, legal):
    legal[:] = True


@njit
def chance_probs(state, probs):
    probs[:] = (0.2, 0.3, 0.5)


@njit
def apply_action(state, action):
    if state.dice > 0 and not state.moved:
        state.moved = True
    elif action > 0:  # zero rolls again
        state.over = state.moved
        state.dice += action


@njit
def rewards(state, out):
    if state.over:
        out[0] = state.dice / 3.0
        out[1] = -out[0]


@njit
def observe(state, player, obs):
    obs[player] = 1
    obs[2] = state.dice


DICE = dataclasses.replace(  # chance plays as often as it likes, before the only decision and after it
    load_game("envs.matching_pennies"), name="dice", num_chance_outcomes=3, max_steps=1000, max_return=2.0,
    state_dtype=STATE, init=init, current_player=current_player, legal_actions=legal_actions,
    chance_probs=chance_probs, apply_action=apply_action, rewards=rewards, observe=observe,
)  # fmt: skip


@pytest.mark.parametrize(
    ("any_game", "truncate_after"),
    [(load_game("envs.kuhn_poker"), None), (load_game("envs.leduc_poker"), 3), (DICE, None)],
    ids=["kuhn", "leduc cut off", "dice"],
)
def test_every_game_is_recorded_as_it_was_and_can_be_played_again(tmp_path, any_game, truncate_after):
    policy = MLP(any_game, hidden=(16,))
    path = tmp_path / "replay.jsonl"
    record_games(path, any_game, policy, truncate_after=truncate_after)
    report = verify(path, any_game, policy)
    env = VectorEnv(any_game, 32, seed=3, truncate_after=truncate_after)
    rollout = collect(env, policy, 32, collecting=Collecting(temperature=0.5), keep_logits=True)
    assert report.games == report.games_of_weights == int(rollout.done.sum())
    ends = rollout.done.flip(0).cummax(0).values.flip(0)
    assert report.decisions == int(ends.sum())
    assert report.decisions_of_weights + sum(r["carried"] for n, r in read(path) if n > 1) == report.decisions
    assert report.max_logit_error < 1e-6 and report.max_value_error < 1e-6


def test_games_whose_beginning_is_unknown_are_left_out(leduc):
    """Cut by the rollout without carrying."""
    env = VectorEnv(leduc, 40, seed=0)
    policy = MLP(leduc, hidden=(8,))
    collect(env, policy, 3)
    cut = collect(env, policy, 8, collecting=Collecting(cut_games="drop"))
    assert all(first > 0 for _, first, _ in finished_games(cut))


def swap(history):
    history[0], history[1] = history[1], history[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: swap(r["history"]), "chance outcome 0 is"),
        (lambda r: r.update(stream="0123456789abcdef"), "the stream says"),
        (lambda r: r["history"].append(0), "comes after the end of the game"),
        (lambda r: r["history"].pop(), "more decisions on record than actions"),
        (lambda r: r["moves"].pop(), "is no decision on record"),
        (lambda r: r["history"].__setitem__(2, 2), r"action 2 is 2, legal are \[0, 1\]"),
        (lambda r: r["history"].__setitem__(2, -1), r"action 2 is -1, legal are"),
        (lambda r: r["history"].__setitem__(2, 10**30), "the game has history="),
        (lambda r: r["moves"][0].update(legal=[0]), "legal are"),
        (lambda r: r["moves"][0].update(player=1), "action 2 is player 0's, not 1's"),
        (lambda r: r["moves"][-1].update(rewards=[5.0, -5.0]), "rewards of decision"),
        (lambda r: r["moves"][0].update(log_prob=-0.1), "log_prob of action 2 is off"),
        (lambda r: r["moves"][0].update(logits=[0.0]), "1 logits for"),
        (lambda r: r["moves"][0].update(logits="ab"), "line 3"),
        (lambda r: r["moves"][0].update(logits=[[1.0, 2.0], 3]), "line 3"),
        (lambda r: r["moves"][0].pop("value"), "no 'value'"),
        (lambda r: r["moves"][0].update(logits=[0.3, 0.1], log_prob=math.log(1 / (1 + math.exp(-0.2)))), "are off by"),
        (lambda r: r.update(history=[]), "line 3"),
        (lambda r: r.update(history=[0] * 6), "6 actions, at most 5"),
        (lambda r: r.update(moves={}), "line 3"),
        (lambda r: r.update(truncated=True), "its end is not the end of the game"),
        (lambda r: r.update(carried=9), "carried=9"),
        (lambda r: r.update(temperature=0.0), "the game has temperature=0.0"),
        (lambda r: r.pop("weights"), "does not say"),
        (lambda r: r.update(weights="0" * 63), "the game has weights="),
        (lambda r: r.update(more=1), "which means nothing"),
        (lambda r: r["moves"][0].update(extras={"bin": {"class_path": "os.system"}}), "a move has extras="),
    ],
)
def test_a_forged_record_breaks_the_rules(tmp_path, kuhn, change, words):
    policy = small_mlp(kuhn)
    path = tmp_path / "replay.jsonl"
    record_games(path, kuhn, policy, num_envs=4, steps=6)
    forge(path, change, line=3)
    with pytest.raises(ArtefactError, match=rf"line 3: .*{words}" if words != "line 3" else words):
        verify(path, kuhn, policy)


def test_logits_are_held_against_the_policy(tmp_path, leduc):
    policy = MLP(leduc, hidden=(16,))
    path = tmp_path / "replay.jsonl"
    record_games(path, leduc, policy, num_envs=64)

    class OneByOne(torch.nn.Module):
        def forward(self, obs, legal):
            rows = [policy(o[None], m[None]) for o, m in zip(obs, legal)]
            return PolicyOutput(torch.cat([row.logits for row in rows]), torch.cat([row.value for row in rows]))

    report = verify(path, leduc, OneByOne(), weights_hash(policy))
    assert report.games_of_weights == report.games > 100 and report.max_logit_error < 1e-6
    other = MLP(leduc, hidden=(16,))
    with torch.no_grad():
        other.policy_head.weight += 1
    assert verify(path, leduc, other).games_of_weights == 0

    claimed = weights_hash(policy)
    with torch.no_grad():
        policy.policy_head.bias[2] += 1e-4
    bad = next(n for n, r in read(path) if n > 1 and any(2 in m["legal"] for m in r["moves"][r["carried"] :]))
    with pytest.raises(ArtefactError, match=rf"line {bad}: logits are off by 0.0002, more than 1e-06"):
        verify(path, leduc, policy, claimed)
