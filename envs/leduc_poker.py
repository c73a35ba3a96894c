"""Leduc poker: six cards, two betting rounds and one public card; the fruit fly of hidden-information research.

`leduc(num_ranks, num_suits)` builds relatives with more cards, such as `envs.leduc_poker_5x2`; the rest is of `GAME`.

Rules, action ids, chance ids and the infostate tensor are OpenSpiel's `leduc_poker` (two players): cards 0-5, the rank
is card // 2; each antes 1, a raise adds 2 chips in the first round and 4 in the second, at most two raises a round;
player 0 speaks first in both rounds. Actions: 0 = fold (only when facing a raise), 1 = call or check, 2 = raise.
A pair with the public card wins, else the higher rank; equal ranks split. 936 infosets, value for player 0 at
equilibrium -0.085606 chips.

obs [30] uint8: 0-1 the player, 2-7 own card, 8-13 public card, then two rounds of four actions of two bits each:
14 + 8r + 2i call, 15 + 8r + 2i raise (a fold ends the game and is never seen). With C cards the parts begin at 2,
2 + C and 2 + 2C.
"""

import numpy as np
from numba import njit

from envs.betting import Betting
from envs.game import CHANCE, TERMINAL, Game, Part
from envs.structure import DealtThenPublic

FOLD, CALL, RAISE = 0, 1, 2
NO_CARD = -1

STATE = np.dtype(
    [
        ("card", np.int8, 3),  # private 0, private 1, public
        ("dealt", np.int8),
        ("round", np.int8),
        ("player", np.int8),
        ("chips", np.int8, 2),  # put in so far
        ("num_raises", np.int8),  # in this round
        ("num_moves", np.int8, 2),  # per round
        ("moves", np.int8, (2, 4)),
        ("folded", np.bool_),
        ("over", np.bool_),
    ]
)


@njit
def init(state):
    for i in range(3):
        state.card[i] = NO_CARD
    state.dealt = 0
    state.round = 0
    state.player = 0
    state.num_raises = 0
    for p in range(2):
        state.chips[p] = 1
        state.num_moves[p] = 0
    state.folded = False
    state.over = False


@njit
def current_player(state):
    if state.over:
        return TERMINAL
    if state.dealt < 2 + state.round:
        return CHANCE
    return state.player


@njit
def legal_actions(state, legal):
    legal[FOLD] = state.chips[1 - state.player] > state.chips[state.player]
    legal[CALL] = True
    legal[RAISE] = state.num_raises < 2


@njit
def apply_action(state, action):
    if state.dealt < 2 + state.round:
        state.card[state.dealt] = action
        state.dealt += 1
        return
    me = state.player
    if action == FOLD:
        state.folded = True
        state.over = True
        return
    r = state.round
    state.moves[r, state.num_moves[r]] = action
    state.num_moves[r] += 1
    state.chips[me] = state.chips[1 - me]
    if action == RAISE:
        state.chips[me] += 2 + 2 * r
        state.num_raises += 1
    elif state.num_raises > 0 or state.num_moves[r] == 2:  # a call closes the round, so does the second check
        if r == 1:
            state.over = True
        else:
            state.round = 1
            state.num_raises = 0
            state.player = 0
        return
    state.player = 1 - me


@njit
def hidden_from(state, player):
    return state.dealt < 2 and state.dealt != player


@njit
def redact(state, player):
    state.card[1 - player] = NO_CARD
    for r in range(2):
        for i in range(state.num_moves[r], 4):
            state.moves[r, i] = 0  # remains of another game


def betting(obs: np.ndarray) -> Betting:
    """The second round begins with the public card; nobody puts in more than 13 chips, 26 in all."""
    moves_at = obs.shape[1] - 16  # behind the player and twice as many bits as there are cards
    if moves_at < 8 or moves_at % 2:
        raise ValueError(f"obs {obs.shape}: is of no Leduc poker")
    chips = np.ones((len(obs), 2))
    public_at = 1 + moves_at // 2
    for r in range(2):
        for i in range(4):
            at = moves_at + 8 * r + 2 * i
            me, called, raised = i % 2, obs[:, at] > 0, obs[:, at + 1] > 0
            chips[:, me] = np.where(called | raised, chips[:, 1 - me] + (2 + 2 * r) * raised, chips[:, me])
    own = np.where(obs[:, 0] > 0, chips[:, 0], chips[:, 1])
    second = (obs[:, public_at:moves_at] > 0).any(axis=1)
    return Betting(round=second.astype(np.int64), pot=chips.sum(axis=1) / 26, stack=(13 - own) / 13)


def leduc(num_ranks: int, num_suits: int) -> Game:
    """Leduc poker with a deck of `num_ranks` ranks in `num_suits` suits; the rank of a card is card // num_suits.

    Raises:
        ValueError: ranks outside 2 to 13, suits outside 1 to 4, or fewer than three cards.
    """
    if not (2 <= num_ranks <= 13 and 1 <= num_suits <= 4 and num_ranks * num_suits >= 3):
        raise ValueError(f"num_ranks={num_ranks}, num_suits={num_suits}: 2 to 13 ranks, 1 to 4 suits, 3 cards or more")
    num_cards = num_ranks * num_suits
    public_at, moves_at = 2 + num_cards, 2 + 2 * num_cards
    ranks = "23456789TJQK"[-num_ranks:] if num_ranks < 13 else "23456789TJQKA"

    @njit
    def chance_probs(state, probs):
        p = 1.0 / (num_cards - state.dealt)
        for card in range(num_cards):
            probs[card] = p * ((card != state.card[0]) & (card != state.card[1]))  # no branch to mispredict

    @njit
    def _strength(state, player):
        rank = state.card[player] // num_suits
        return rank + num_ranks if rank == state.card[2] // num_suits else rank

    @njit
    def rewards(state, out):
        if not state.over:
            return
        if state.folded:
            winner = 1 - state.player
        else:
            mine, theirs = _strength(state, 0), _strength(state, 1)
            if mine == theirs:
                return
            winner = 0 if mine > theirs else 1
        stake = float(state.chips[1 - winner])
        out[winner] = stake
        out[1 - winner] = -stake

    @njit
    def observe(state, player, obs):
        obs[player] = 1
        if state.card[player] >= 0:
            obs[2 + state.card[player]] = 1
        if state.card[2] >= 0:
            obs[public_at + state.card[2]] = 1
        for r in range(2):
            for i in range(state.num_moves[r]):
                obs[moves_at - 1 + 8 * r + 2 * i + state.moves[r, i]] = 1

    @njit
    def payoff_class(state):
        if state.folded:
            return 14 * (1 - state.player) + state.chips[state.player]
        return 28 + 14 * state.card[2] + state.chips[0]

    def render(state) -> str:
        names = ["-" if c < 0 else ranks[c // num_suits] + "shdc"[c % num_suits] for c in state["card"]]
        moves = ["".join("fcr"[m] for m in state["moves"][r][: state["num_moves"][r]]) for r in range(2)]
        bets = " / ".join(m or "-" for m in moves) + (" f" if state["folded"] else "")
        chips = f"{state['chips'][0]} {state['chips'][1]}"
        return f"hands {names[0]} {names[1]} | public {names[2]} | moves {bets} | chips {chips}"

    return Game(
        name="leduc_poker" if num_cards == 6 else f"leduc_poker_{num_ranks}x{num_suits}",
        version="1.0",
        num_players=2,
        num_actions=3,
        num_chance_outcomes=num_cards,
        max_steps=11,
        obs_shape=(moves_at + 16,),
        obs_dtype=np.dtype(np.uint8),
        state_dtype=STATE,
        max_return=13.0,
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
        action_names=("fold", "call", "raise"),
        chance_names=tuple(f"deal {ranks[c // num_suits]}{'shdc'[c % num_suits]}" for c in range(num_cards)),
        obs_parts={
            "player": Part(0, (2,)),
            "card": Part(2, (num_cards,)),
            "public": Part(public_at, (num_cards,)),
            "moves": Part(moves_at, (2, 4, 2)),
        },
        structure=DealtThenPublic(payoff_class),
    )


GAME = leduc(3, 2)
