"""Env: what rollouts, matches and leagues ask of B games played side by side.

`envs.vector_env.VectorEnv` is one, compiled around any `Game`; a simulator in another process is another.

The env owns all randomness of its games: a stream for the actions of each row, and whatever chance takes. Policies and
players draw nothing; they write probabilities, and `sample` draws. So the seed and the probabilities fix every byte,
and `state_dict` is all that a resume needs.

Letters: B envs, A actions, P players, D obs shape.
"""

from typing import Protocol

import numpy as np

from envs.game import Interface

ALL_ROWS = slice(None)


class IllegalActionError(ValueError):
    """An action outside the legal set; no row of the environment has changed."""


class RulesError(ValueError):
    """The rules of a game break a promise of `envs.game.Game`."""


class NoLegalActionError(RulesError):
    """A player is to move and the rules leave it no action."""


class SavedGamesError(ValueError):
    """Saved games that the rules could not have brought about; no row of the environment has changed."""


class NoDecisionError(RulesError):
    """Chance does not come to an end, or its probabilities are none."""


class Env(Protocol):
    """B games, each at a decision of some player. Arrays are read by others and written by the env alone.

    `step` overwrites all arrays in place; who keeps one copies it. An env inherits from this class: `parts`, `send`,
    `receive` and `rest` are for those whose steps are dear, and do the plain thing in all others.
    """

    parts: tuple[slice, ...] = (ALL_ROWS,)
    """Rows that can be played apart from the rest, in order: while some are stepped elsewhere, others decide."""
    game: Interface
    """Sizes and names."""
    num_envs: int
    """B."""
    player: np.ndarray
    """[B] int8: the player to move; never chance."""
    legal: np.ndarray
    """[B, A] bool: True = legal for the player to move, who always has such an action."""
    obs: np.ndarray
    """[B, *D]: the infostate of the player to move."""
    rewards: np.ndarray
    """[B, P] float32: the outcome of the game, as far as it was earned since the decision before."""
    bonus: np.ndarray
    """[B, P] float32: earned besides in the same time, for learning only; zeros where the game has no bonus."""
    done: np.ndarray
    """[B] bool: the game of that row ended with the last step, and a new one has begun there."""
    truncated: np.ndarray
    """[B] bool: it ended because it was cut off, not by its rules; implies done."""
    final_obs: np.ndarray
    """[B, P, *D]: every player's infostate where a game was truncated, stale elsewhere; [B, 0, *D] of an env that
    never truncates."""
    final_player: np.ndarray
    """[B] int8: who was to move where a game was truncated; stale elsewhere."""
    final_out: np.ndarray
    """[B, P] bool: who was out (see `out`) where a game was truncated; stale elsewhere."""
    history: np.ndarray
    """[B, P, *D]: every player's infostate where the games stand, for critics; [B, 0, *D] of an env not told to."""
    num_decisions: np.ndarray
    """[B] int32: decisions made so far in the running game."""
    action_streams: np.ndarray
    """[B] uint64: state of the random stream that `sample` draws from."""
    game_streams: np.ndarray
    """[B] uint64: where the running game's chance came from, for replays; 0 where not known."""

    def step(self, action: np.ndarray) -> None:
        """Play `action` [B] of any integer dtype, one in each row.

        Raises:
            TypeError, ValueError: wrong dtype or shape, or an action that is not legal. No row has changed.
        """

    def send(self, action: np.ndarray, part: slice) -> None:
        """Begin a step in the rows of one of `parts`, with `action` [n] of these; `receive` ends it.

        Until then the arrays of these rows are as they were. What `step` raises.
        """
        self.step(action)

    def receive(self, part: slice) -> None:
        """The step begun in these rows is made; in all others `rewards` and `bonus` are 0, `done` is False."""

    def rest(self, rows: np.ndarray) -> None:
        """Nobody looks at these rows [n] any more: what is played there costs nothing where steps are dear."""

    def sample(self, probs: np.ndarray) -> np.ndarray:
        """Draw a legal action for each row from `probs` [B, A] float32, which need not be normalised: [B] int64.

        Raises:
            FloatingPointError: a row is not finite or has no mass on a legal action.
        """

    def observe_all(self) -> np.ndarray:
        """[B, P, *D] every player's infostate where the games stand now; the next call may overwrite it."""

    def out(self) -> np.ndarray:
        """[B, P] bool: who will not decide again in the running game, so that its value is 0 from here on.

        All False where the game does not say.
        """

    def state_dict(self) -> dict:
        """All that the games to come depend on: plain values that load with `torch.load(weights_only=True)`."""

    def load_state_dict(self, state: dict) -> None:
        """Go on where `state` was taken, bit by bit.

        Raises:
            ValueError: it was taken from an env of another game, version or number of rows. Nothing changed.
            SavedGamesError: it is damaged: the rules could not have brought it about. Nothing changed.
        """
