"""Liar's dice for two: `liars_dice(num_dice, num_faces)` builds the `Game`; `envs.liars_dice_1x6` is one of them.

Rules, action ids, chance ids and the infostate tensor are OpenSpiel's `liars_dice`. Each player rolls dice that only
he sees. A bid says how many dice of both together show a face at least; each bid is higher than the one before:
bid b is (1 + b // num_faces) times the face b % num_faces. The highest face counts as every face. The last action
calls the bid a lie and ends the game: who was wrong loses 1.

obs uint8: 0-1 the player, then one bit for each of the player's dice and faces (sorted dice), then one for each bid
that was made, and one for the call.
"""

import numpy as np
from numba import njit

from envs.game import CHANCE, TERMINAL, Game, Part
from envs.structure import DealtThenPublic


def liars_dice(num_dice: int, num_faces: int) -> Game:
    """Liar's dice of `num_dice` dice each; the bids of a game are kept in a set of 62 bits.

    Raises:
        ValueError: fewer than one die or two faces, or more than 61 bids.
    """
    num_bids = 2 * num_dice * num_faces
    if num_dice < 1 or num_faces < 2 or num_bids > 61:
        raise ValueError(f"num_dice={num_dice}, num_faces={num_faces}: at least 1 and 2, and at most 61 bids")
    liar, first_bid, none = num_bids, 2 + num_dice * num_faces, -1
    state_dtype = np.dtype(
        [
            ("bids", np.int64),  # a bit for each bid that was made
            ("dice", np.int8, (2, num_dice)),
            ("rolled", np.int8),  # dice of both
            ("last", np.int8),  # bid; -1: none
            ("player", np.int8),
            ("called", np.bool_),
        ]
    )

    @njit
    def init(state):
        state.bids = 0
        for p in range(2):
            for i in range(num_dice):
                state.dice[p, i] = none
        state.rolled = 0
        state.last = none
        state.player = 0
        state.called = False

    @njit
    def current_player(state):
        if state.called:
            return TERMINAL
        if state.rolled < 2 * num_dice:
            return CHANCE
        return state.player

    @njit
    def legal_actions(state, legal):
        legal[liar] = state.last >= 0
        for b in range(state.last + 1, num_bids):
            legal[b] = True

    @njit
    def chance_probs(state, probs):
        probs[:] = 1.0 / num_faces

    @njit
    def apply_action(state, action):
        if state.rolled < 2 * num_dice:
            state.dice[state.rolled // num_dice, state.rolled % num_dice] = action
            state.rolled += 1
            if state.rolled == 2 * num_dice:
                for p in range(2):
                    for i in range(1, num_dice):  # sorted by insertion
                        die, k = state.dice[p, i], i
                        while k > 0 and state.dice[p, k - 1] > die:
                            state.dice[p, k] = state.dice[p, k - 1]
                            k -= 1
                        state.dice[p, k] = die
            return
        state.player = 1 - state.player
        if action == liar:
            state.called = True
        else:
            state.bids |= np.int64(1) << action
            state.last = action

    @njit
    def rewards(state, out):
        if not state.called:
            return
        quantity, face, shown = 1 + state.last // num_faces, state.last % num_faces, 0
        for p in range(2):
            for i in range(num_dice):
                shown += (state.dice[p, i] == face) | (state.dice[p, i] == num_faces - 1)
        bidder = state.player  # the other one called
        out[bidder] = 1.0 if shown >= quantity else -1.0
        out[1 - bidder] = -out[bidder]

    @njit
    def observe(state, player, obs):
        obs[player] = 1
        for i in range(num_dice):
            if state.dice[player, i] >= 0:
                obs[2 + i * num_faces + state.dice[player, i]] = 1
        bids = state.bids
        for b in range(num_bids):
            obs[first_bid + b] = (bids >> b) & 1
        obs[first_bid + liar] = state.called

    @njit
    def hidden_from(state, player):
        return state.rolled < 2 * num_dice and state.rolled // num_dice != player

    @njit
    def redact(state, player):
        for i in range(num_dice):
            state.dice[1 - player, i] = none

    @njit
    def payoff_class(state):
        return 2 * state.last + state.player

    def name_of(bid: int) -> str:
        return f"{1 + bid // num_faces} x {1 + bid % num_faces}"

    def render(state) -> str:
        hands = ["".join("-" if die < 0 else str(die + 1) for die in hand) for hand in state["dice"]]
        bids = " | ".join(name_of(b) for b in range(num_bids) if int(state["bids"]) >> b & 1) or "-"
        return f"dice {hands[0]} {hands[1]} | bids {bids}" + (" | liar" if state["called"] else "")

    return Game(
        name=f"liars_dice_{num_dice}x{num_faces}",
        version="1.0",
        num_players=2,
        num_actions=num_bids + 1,
        num_chance_outcomes=num_faces,
        max_steps=2 * num_dice + num_bids + 1,
        obs_shape=(first_bid + num_bids + 1,),
        obs_dtype=np.dtype(np.uint8),
        state_dtype=state_dtype,
        max_return=1.0,
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
        chance_names=tuple(f"roll {1 + face}" for face in range(num_faces)),
        action_names=(*(name_of(b) for b in range(num_bids)), "liar"),
        obs_parts={
            "player": Part(0, (2,)),
            "dice": Part(2, (num_dice, num_faces)),
            "bids": Part(first_bid, (num_bids + 1,)),
        },
        structure=DealtThenPublic(payoff_class),
    )
