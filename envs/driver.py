"""The driver: kernels compiled around the rules of one game, which step rows of `envs.vector_env.VectorEnv`'s buffers.

Letters: B envs, A actions, P players, C chance outcomes.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from envs.game import CHANCE, TERMINAL, Game
from envs.jit import njit
from envs.rng import uniform

# Kernels that only read and write arrays they are given: without the GIL, so that plain threads run them side by side,
# and without numba's reference counting, which would cost half of their speed (measured on Leduc). Not prange: its
# OpenMP threads and torch's are the same pool, and torch's small operations were seen to slow down a hundredfold.
kernel = njit(nogil=True, error_model="numpy", _nrt=False)

inlined = njit(forceinline=True)  # what a kernel calls for each row: LLVM by itself passes all arrays by value (- 20 %)

ENDLESS, NO_PROBS = -101, -102  # instead of a player: what is wrong with the rules
MAX_RESTARTS = 1000  # games in a row that end without a decision


class Buffers(NamedTuple):
    """What the kernels read and write; every field is an attribute of `VectorEnv` too."""

    state: np.ndarray
    player: np.ndarray
    legal: np.ndarray
    obs: np.ndarray
    rewards: np.ndarray
    bonus: np.ndarray
    done: np.ndarray
    truncated: np.ndarray
    final_obs: np.ndarray
    final_player: np.ndarray
    final_out: np.ndarray
    history: np.ndarray
    num_decisions: np.ndarray
    moves: np.ndarray  # [B, L] what the players have done in the running game; L is at least its decisions so far
    chance_streams: np.ndarray
    game_streams: np.ndarray
    fresh: np.ndarray  # [1] the state that every game begins with
    probs: np.ndarray  # scratch per thread: [threads, C]
    earned: np.ndarray  # scratch per thread: [threads, P]


@njit
def _no_bonus(state, out):
    pass


@njit
def _nobody_is_out(state, player):
    return False


@cache
def compile_driver(game: Game, truncate_after: int | None, observe_all: bool = False):
    """The two kernels of one game: (reset(thread, lo, hi, *buffers), step(thread, lo, hi, action, *buffers)).

    A game begins with a copy of one fresh state, so that nothing is left of the game before, and the bytes of a state
    are a function of the game's stream and the players' actions. They are closures over the game's functions, so numba
    compiles them once per process, on first call. They return
    the first row whose game's rules are wrong, player[row] saying how, or -1.
    """
    current_player, legal_actions = game.current_player, game.legal_actions
    apply_action, observe = game.apply_action, game.observe
    game_chance_probs, game_rewards = game.chance_probs, game.rewards
    num_players, num_outcomes, max_steps = game.num_players, game.num_chance_outcomes, game.max_steps
    truncates, has_bonus = truncate_after is not None, game.bonus is not None
    game_bonus, game_out = game.bonus or _no_bonus, game.out or _nobody_is_out

    @inlined
    def pay(state, earned, rewards, bonus):
        for p in range(num_players):
            earned[p] = 0.0
        game_rewards(state, earned)
        for p in range(num_players):
            rewards[p] += earned[p]
        if has_bonus:
            for p in range(num_players):
                earned[p] = 0.0
            game_bonus(state, earned)
            for p in range(num_players):
                bonus[p] += earned[p]

    @inlined
    def settle(states, fresh, streams, b, probs, earned, rewards, bonus):
        """Let chance play and restart a finished game until a player is to move.

        Returns that player, whether a game ended, and the stream as it was when the new one began. Where the rules come
        to no decision within max_steps, or give chance no probabilities, ENDLESS or NO_PROBS stands for the player.
        """
        state, ended, began = states[b], False, streams[b]
        steps, restarts = 0, 0
        while True:
            player = current_player(state)
            if player >= 0:
                return player, ended, began
            if player == TERMINAL:
                ended, began = True, streams[b]
                steps, restarts = 0, restarts + 1
                if restarts > MAX_RESTARTS:
                    return ENDLESS, ended, began
                states[b] = fresh[0]
                continue
            steps += 1
            if steps > max_steps or player != CHANCE:
                return ENDLESS, ended, began
            for c in range(num_outcomes):
                probs[c] = 0.0
            game_chance_probs(state, probs)
            threshold = uniform(streams, b)
            cumulated, absolute, outcome = 0.0, 0.0, 0
            for c in range(num_outcomes):
                cumulated += probs[c]
                absolute += abs(probs[c])
                outcome += cumulated <= threshold
            if not (abs(cumulated - 1.0) < 1e-6 and abs(absolute - 1.0) < 1e-6):  # NaN neither
                return NO_PROBS, ended, began
            while outcome == num_outcomes or probs[outcome] <= 0.0:
                outcome -= 1  # only where rounding left the threshold above the sum
            apply_action(state, outcome)
            pay(state, earned, rewards, bonus)

    @inlined
    def show(state, mover, legal, obs, history):
        for a in range(len(legal)):
            legal[a] = False
        legal_actions(state, legal)
        obs[:] = 0
        observe(state, mover, obs)
        if observe_all:
            for p in range(num_players):
                history[p] = 0
                observe(state, p, history[p])

    @kernel
    def reset(
        thread, lo, hi, state, player, legal, obs, rewards, bonus, done, truncated, final_obs, final_player,
        final_out, history, num_decisions, moves, streams, game_streams, fresh, probs, earned,
    ):  # fmt: skip
        for b in range(lo, hi):
            for p in range(num_players):
                rewards[b, p] = bonus[b, p] = 0.0
            done[b] = truncated[b] = False
            num_decisions[b] = 0
            state[b] = fresh[0]
            player[b], _, game_streams[b] = settle(
                state, fresh, streams, b, probs[thread], earned[thread], rewards[b], bonus[b]
            )
            if player[b] < 0:
                return b
            show(state[b], player[b], legal[b], obs[b], history[b])
        return -1

    @kernel
    def step(
        thread, lo, hi, action, state, player, legal, obs, rewards, bonus, done, truncated, final_obs, final_player,
        final_out, history, num_decisions, moves, streams, game_streams, fresh, probs, earned,
    ):  # fmt: skip
        for b in range(lo, hi):
            for p in range(num_players):
                rewards[b, p] = 0.0
                if has_bonus:
                    bonus[b, p] = 0.0
            moves[b, num_decisions[b]] = action[b]
            num_decisions[b] += 1
            apply_action(state[b], action[b])
            pay(state[b], earned[thread], rewards[b], bonus[b])
            mover, ended, began = settle(state, fresh, streams, b, probs[thread], earned[thread], rewards[b], bonus[b])
            if truncates:
                truncated[b] = not ended and num_decisions[b] >= truncate_after
                if truncated[b]:
                    final_player[b] = mover
                    for p in range(num_players):
                        final_obs[b, p] = 0
                        observe(state[b], p, final_obs[b, p])
                        final_out[b, p] = game_out(state[b], p)
                    state[b] = fresh[0]
                    mover, _, began = settle(
                        state, fresh, streams, b, probs[thread], earned[thread], rewards[b], bonus[b]
                    )
                    ended = True
            player[b] = mover
            if mover < 0:
                return b
            if ended:
                num_decisions[b] = 0
                game_streams[b] = began
            done[b] = ended
            show(state[b], mover, legal[b], obs[b], history[b])
        return -1

    return reset, step


@cache
def compile_views(game: Game):
    """Kernels that look at all players: observe_all(thread, lo, hi, state, obs), out(thread, lo, hi, state, gone)."""
    observe, game_out, num_players = game.observe, game.out or _nobody_is_out, game.num_players

    @kernel
    def observe_all(thread, lo, hi, state, obs):
        for b in range(lo, hi):
            for p in range(num_players):
                obs[b, p] = 0
                observe(state[b], p, obs[b, p])

    @kernel
    def out(thread, lo, hi, state, gone):
        for b in range(lo, hi):
            for p in range(num_players):
                gone[b, p] = game_out(state[b], p)

    return observe_all, out
