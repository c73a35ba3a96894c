"""Kuhn poker: three cards, one bet, the smallest game in which bluffing pays.

Rules, action ids, chance ids and the infostate tensor are OpenSpiel's `kuhn_poker` (two players): each antes 1 and
gets one of the cards 0, 1, 2; actions are 0 = pass (check or fold) and 1 = bet (bet or call) one chip. Play ends after
pass-pass, bet-pass, bet-bet, pass-bet-pass or pass-bet-bet. Value for player 0 at equilibrium: -1/18.

obs [11] uint8: 0-1 the player, 2-4 own card, then for each of up to three actions two bits: 5 + 2i pass, 6 + 2i bet.
"""

import numpy as np
from numba import njit

from envs.betting import Betting
from envs.game import CHANCE, TERMINAL, Game, Part

PASS, BET = 0, 1
NO_CARD = -1

STATE = np.dtype([("card", np.int8, 2), ("dealt", np.int8), ("num_moves", np.int8), ("moves", np.int8, 3)])


@njit
def init(state):
    state.dealt = 0
    state.num_moves = 0


@njit
def _is_over(state):
    n = state.num_moves
    if n < 2:
        return False
    return n == 3 or state.moves[0] == BET or state.moves[1] == PASS


@njit
def current_player(state):
    if state.dealt < 2:
        return CHANCE
    if _is_over(state):
        return TERMINAL
    return state.num_moves % 2


@njit
def legal_actions(state, legal):
    legal[PASS] = True
    legal[BET] = True


@njit
def chance_probs(state, probs):
    for card in range(3):
        if state.dealt == 0 or card != state.card[0]:
            probs[card] = 1.0 / (3 - state.dealt)


@njit
def apply_action(state, action):
    if state.dealt < 2:
        state.card[state.dealt] = action
        state.dealt += 1
    else:
        state.moves[state.num_moves] = action
        state.num_moves += 1


@njit
def rewards(state, out):
    if state.dealt < 2 or not _is_over(state):
        return
    last, before = state.moves[state.num_moves - 1], state.moves[state.num_moves - 2]
    if last == before:  # a showdown, for two chips if both bet
        winner = 0 if state.card[0] > state.card[1] else 1
        stake = 2.0 if last == BET else 1.0
    else:  # the last one passed in the face of a bet
        winner = state.num_moves % 2
        stake = 1.0
    out[winner] = stake
    out[1 - winner] = -stake


@njit
def observe(state, player, obs):
    obs[player] = 1
    if state.dealt > player:
        obs[2 + state.card[player]] = 1
    for i in range(state.num_moves):
        obs[5 + 2 * i + state.moves[i]] = 1


@njit
def hidden_from(state, player):
    return state.dealt < 2 and state.dealt != player


@njit
def redact(state, player):
    state.card[1 - player] = NO_CARD
    for i in range(state.num_moves, 3):
        state.moves[i] = 0  # remains of another game


def betting(obs: np.ndarray) -> Betting:
    """One round; the pot is 2 to 4 chips, each began with 2."""
    bets = obs[:, 6::2].astype(np.float64)  # [N, 3], by player 0, 1, 0
    own = np.where(obs[:, 0] > 0, bets[:, 0] + bets[:, 2], bets[:, 1])
    return Betting(round=np.zeros(len(obs), np.int64), pot=(2 + bets.sum(axis=1)) / 4, stack=(1 - own) / 2)


def render(state) -> str:
    known = [p < state["dealt"] and state["card"][p] != NO_CARD for p in range(2)]
    cards = ["JQK"[state["card"][p]] if known[p] else "?" for p in range(2)]
    moves = " ".join("pb"[m] for m in state["moves"][: state["num_moves"]]) or "-"
    return f"cards {cards[0]} {cards[1]} | moves {moves}"


GAME = Game(
    name="kuhn_poker",
    version="1.0",
    num_players=2,
    num_actions=2,
    num_chance_outcomes=3,
    max_steps=5,
    obs_shape=(11,),
    obs_dtype=np.dtype(np.uint8),
    state_dtype=STATE,
    max_return=2.0,
    init=init,
    current_player=current_player,
    legal_actions=legal_actions,
    chance_probs=chance_probs,
    apply_action=apply_action,
    rewards=rewards,
    observe=observe,
    render=render,
    hidden_from=hidden_from,
    redact=redact,
    action_names=("pass", "bet"),
    chance_names=("deal J", "deal Q", "deal K"),
    obs_parts={"player": Part(0, (2,)), "card": Part(2, (3,)), "moves": Part(5, (3, 2))},
)
