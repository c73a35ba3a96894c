"""What has happened in one game, told action by action, and the table of one row where any player can then be asked.

Players' and chance's actions are told by their names (`Game.action_names`, `Game.chance_names`) or their numbers:
["deal K", "deal Q", "bet"] in Kuhn poker. Letters: A actions, D obs shape.
"""

from collections.abc import Sequence

import numpy as np

from envs.game import CHANCE, TERMINAL, Game, Interface, action_names
from lit_rl.run.errors import ConfigError


class History:
    """One game from its beginning on; a table (`lit_rl.league.players.Table`) of the position that it has reached.

    Args:
        game: whose rules are known.

    Raises:
        ConfigError: a game without rules here.
    """

    def __init__(self, game: Interface):
        if not isinstance(game, Game):
            raise ConfigError(f"{game.name}: its rules are not written here, so no history of it can be told")
        self.game = game
        self.num_moves = 0  # of players and chance so far
        self.state = game.new_state()  # [1]
        self._look()

    def _look(self) -> None:
        """Read off who is to move and what the mover sees: `player` [1], `legal` [1, A], `obs` [1, *D]."""
        game, state = self.game, self.state[0]
        mover = int(game.current_player(state))
        self.player = np.array([mover], np.int8)
        self.legal = np.zeros((1, game.num_actions), np.bool_)
        self.obs = np.zeros((1, *game.obs_shape), game.obs_dtype)
        if mover >= 0:
            game.legal_actions(state, self.legal[0])
            game.observe(state, mover, self.obs[0])

    @property
    def mover(self) -> int:
        """The player to move, or CHANCE, or TERMINAL."""
        return int(self.player[0])

    def choices(self) -> dict[int, str]:
        """What can happen here, numbers and names; nothing where the game is over."""
        game = self.game
        if self.mover != CHANCE:
            return {int(a): action_names(game, self.state[0], int(a))[0] for a in np.flatnonzero(self.legal[0])}
        probs, names = np.zeros(game.num_chance_outcomes), game.chance_names
        game.chance_probs(self.state[0], probs)
        return {int(i): names[i] if names else str(i) for i in np.flatnonzero(probs)}

    def play(self, action: str | int) -> None:
        """Let `action` of the player to move, or of chance, happen.

        Raises:
            ConfigError: it cannot happen here; the message lists what can. Nothing has happened then.
        """
        choices, number = self.choices(), None
        if isinstance(action, str):
            number = next((i for i, name in choices.items() if name == action), None)
        elif isinstance(action, int | np.integer) and not isinstance(action, bool):
            number = int(action)
        if number not in choices:
            raise ConfigError(f"history[{self.num_moves}]={action!r}: {self._say()}")
        self.game.apply_action(self.state[0], number)
        self.num_moves += 1
        self._look()

    def play_all(self, actions: Sequence[str | int]) -> None:
        """Let all of `actions` happen, one after the other.

        Raises:
            ConfigError: no list, or something in it cannot happen where it stands.
        """
        if isinstance(actions, str) or not isinstance(actions, Sequence):
            raise ConfigError(f"history={actions!r}: give a list, such as ['deal K', 'deal Q', 'bet']")
        for action in actions:
            self.play(action)

    def need_decision(self) -> None:
        """Raise ConfigError where no player is to move: the game is over, or chance comes first."""
        if self.mover < 0:
            raise ConfigError(f"history of {self.num_moves}: nobody decides after it, {self._say()}")

    def _say(self) -> str:
        where = f"{self.game.name} at {self.game.render(self.state[0])!r}"
        if self.mover == TERMINAL:
            return f"the game is over ({where})"
        who = "chance" if self.mover == CHANCE else f"player {self.mover}"
        return f"here {who} has {', '.join(self.choices().values())} ({where})"
