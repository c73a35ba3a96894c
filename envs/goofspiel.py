"""Goofspiel for two with hidden bids: `goofspiel(num_cards)` builds the `Game`; `envs.goofspiel_5` is one of them.

Rules, action ids, chance ids and the infostate tensor (from 2 on) are OpenSpiel's `goofspiel` with imp_info=True,
points_order=random and returns_type=win_loss. Each round chance turns a point card up, both bid one of their cards at
once (here in sequence, the first bid unseen), and the higher bid takes the points; equal bids waste them. Only who won
a round is told, not the bids. The last round plays itself. Who has more points wins 1.

obs uint8: 0-1 the player, own and the other's points (one bit each), own hand, who won each round, the point cards and
own bids in order. Action and outcome a are the card a + 1.
"""

import numpy as np
from numba import njit

from envs.game import CHANCE, TERMINAL, Game, Part


def goofspiel(num_cards: int) -> Game:
    """Goofspiel with cards 1 to `num_cards`.

    Raises:
        ValueError: num_cards outside 2 to 15.
    """
    if not 2 <= num_cards <= 15:
        raise ValueError(f"num_cards={num_cards}: must be from 2 to 15")
    n, most, none = num_cards, num_cards * (num_cards + 1) // 2, -1
    points_at = 2
    hand_at = points_at + 2 * (most + 1)
    winner_at = hand_at + n
    cards_at = winner_at + 2 * n
    bids_at = cards_at + n * n
    state_dtype = np.dtype(
        [
            ("card", np.int8, n),  # turned up in each round
            ("bid", np.int8, (2, n)),
            ("winner", np.int8, n),  # of each round; -1: neither
            ("points", np.int8, 2),
            ("used", np.int16, 3),  # sets of cards: by player 0, by player 1, turned up
            ("num_cards", np.int8),  # turned up so far
            ("num_bids", np.int8, 2),
        ]
    )

    @njit
    def init(state):
        for i in range(n):
            state.card[i] = none
            state.winner[i] = none
            state.bid[0, i] = none
            state.bid[1, i] = none
        for i in range(3):
            state.used[i] = 0
        for p in range(2):
            state.points[p] = 0
            state.num_bids[p] = 0
        state.num_cards = 0

    @njit
    def current_player(state):
        if state.num_bids[1] == n:
            return TERMINAL
        if state.num_cards == state.num_bids[1]:
            return CHANCE
        return 0 if state.num_bids[0] == state.num_bids[1] else 1

    @njit
    def legal_actions(state, legal):
        used = state.used[0 if state.num_bids[0] == state.num_bids[1] else 1]
        for a in range(n):
            legal[a] = (used >> a) & 1 == 0

    @njit
    def chance_probs(state, probs):
        p = 1.0 / (n - state.num_cards)
        for a in range(n):
            probs[a] = p if (state.used[2] >> a) & 1 == 0 else 0.0

    @njit
    def _turn_up(state, action):
        state.card[state.num_cards] = action
        state.num_cards += 1
        state.used[2] |= np.int16(1 << action)

    @njit
    def _bid(state, player, action):
        r = state.num_bids[player]
        state.bid[player, r] = action
        state.num_bids[player] += 1
        state.used[player] |= np.int16(1 << action)
        if player == 0:
            return
        mine, theirs = state.bid[0, r], state.bid[1, r]
        if mine != theirs:
            winner = 0 if mine > theirs else 1
            state.winner[r] = winner
            state.points[winner] += state.card[r] + 1

    @njit
    def _left(used):
        a = 0
        while (used >> a) & 1:
            a += 1
        return a

    @njit
    def apply_action(state, action):
        if state.num_cards == state.num_bids[1]:
            _turn_up(state, action)
            return
        player = 0 if state.num_bids[0] == state.num_bids[1] else 1
        _bid(state, player, action)
        if state.num_bids[1] == n - 1:
            _turn_up(state, _left(state.used[2]))
            _bid(state, 0, _left(state.used[0]))
            _bid(state, 1, _left(state.used[1]))

    @njit
    def rewards(state, out):
        if state.num_bids[1] == n and state.points[0] != state.points[1]:
            winner = 0 if state.points[0] > state.points[1] else 1
            out[winner] = 1.0
            out[1 - winner] = -1.0

    @njit
    def observe(state, player, obs):
        obs[player] = 1
        obs[points_at + state.points[player]] = 1
        obs[points_at + most + 1 + state.points[1 - player]] = 1
        for a in range(n):
            obs[hand_at + a] = (state.used[player] >> a) & 1 == 0
        for r in range(state.num_bids[1]):
            if state.winner[r] >= 0:
                obs[winner_at + 2 * r + state.winner[r]] = 1
        for r in range(state.num_cards):
            obs[cards_at + n * r + state.card[r]] = 1
        for r in range(state.num_bids[player]):
            obs[bids_at + n * r + state.bid[player, r]] = 1

    def render(state) -> str:
        shown = [
            " ".join("-" if a < 0 else str(a + 1) for a in row[: state["num_cards"]]) or "-"
            for row in (state["card"], *state["bid"])
        ]
        return f"cards {shown[0]} | bids {shown[1]} / {shown[2]} | points {state['points'][0]} {state['points'][1]}"

    return Game(
        name=f"goofspiel_{n}",
        version="1.0",
        num_players=2,
        num_actions=n,
        num_chance_outcomes=n,
        max_steps=3 * (n - 1),
        obs_shape=(bids_at + n * n,),
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
        chance_names=tuple(f"card {a + 1}" for a in range(n)),
        action_names=tuple(f"bid {a + 1}" for a in range(n)),
        obs_parts={
            "player": Part(0, (2,)),
            "points": Part(points_at, (2, most + 1)),
            "hand": Part(hand_at, (n,)),
            "winner": Part(winner_at, (n, 2)),
            "cards": Part(cards_at, (n, n)),
            "bids": Part(bids_at, (n, n)),
        },
    )
