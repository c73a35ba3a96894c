"""Any of our games as PettingZoo's AEC env.

    env = GameAEC("envs.leduc_poker")
    env.reset(seed=0)
    for agent in env.agent_iter():
        observation, reward, termination, truncation, info = env.last()
        ended = termination or truncation
        env.step(None if ended else env.action_space(agent).sample(observation["action_mask"]))

Letters: A actions, D obs shape, P players.
"""

import numpy as np

from envs.env import IllegalActionError
from envs.extras import need_extra
from envs.game import CHANCE, TERMINAL, Game, load_game
from envs.rng import make_streams, uniform
from lit_rl.league.beside.gymnasium import obs_space
from lit_rl.run.errors import ConfigError

need_extra("pettingzoo", "pettingzoo")
from gymnasium import spaces  # noqa: E402
from pettingzoo import AECEnv  # noqa: E402


class GameAEC(AECEnv):
    """One game, all players of which are agents, `player_0` to `player_{P-1}`; chance plays by itself.

    An observation is {"observation": [*D] the agent's infostate, "action_mask": [A] int8, 1 = legal}; nothing is legal
    for an agent that is not to move. All that happens is a function of the seed of `reset` and of the actions.

    Args:
        game: import path of a game, or the game itself.
        render_mode: ansi: `render` gives the position as text, all cards open.

    Raises:
        ConfigError: an unknown render_mode.
    """

    def __init__(self, game: str | Game, render_mode: str | None = None):
        super().__init__()
        if render_mode not in (None, "ansi"):
            raise ConfigError(f"render_mode={render_mode!r}: use 'ansi' or None")
        self.game, self.render_mode = load_game(game) if isinstance(game, str) else game, render_mode
        self.metadata = {"render_modes": ["ansi"], "name": self.game.name, "is_parallelizable": False}
        self.possible_agents = [f"player_{p}" for p in range(self.game.num_players)]
        seen = {"observation": obs_space(self.game), "action_mask": spaces.Box(0, 1, (self.game.num_actions,), np.int8)}
        self.observation_spaces = {agent: spaces.Dict(seen) for agent in self.possible_agents}
        self.action_spaces = {agent: spaces.Discrete(self.game.num_actions) for agent in self.possible_agents}
        self._entropy = np.random.default_rng()

    def observation_space(self, agent: str) -> spaces.Dict:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> None:
        """Begin a new game. Without a seed the games go on to differ from each other, as those after a seed do."""
        if seed is not None:
            self._entropy = np.random.default_rng(seed)
        self._chance = make_streams(1, int(self._entropy.integers(2**63)))
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self._state = self.game.new_state()
        self._settle()
        self.agent_selection = self.possible_agents[self._mover()]

    def step(self, action: int | None) -> None:
        """The decision of `agent_selection`; None of one whose game is over.

        Raises:
            IllegalActionError: it is not legal; nothing has happened.
        """
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        legal = self._legal()
        if not isinstance(action, int | np.integer) or not 0 <= action < len(legal) or not legal[action]:
            raise IllegalActionError(
                f"{self.game.name}: action {action} is illegal for {agent}, "
                f"legal actions {np.flatnonzero(legal).tolist()}"
            )
        self._cumulative_rewards[agent] = 0.0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._play(int(action))
        self._settle()
        self._accumulate_rewards()
        if self._mover() == TERMINAL:
            self.terminations = dict.fromkeys(self.agents, True)
            self._skip_agent_selection = None
            self.agent_selection = self.agents[0]
        else:
            self.agent_selection = self.possible_agents[self._mover()]

    def observe(self, agent: str) -> dict[str, np.ndarray]:
        """What the agent may know, and what it may do."""
        obs = np.zeros(self.game.obs_shape, self.game.obs_dtype)
        self.game.observe(self._state[0], self.possible_agents.index(agent), obs)
        legal = np.zeros(self.game.num_actions, np.int8)
        if agent == self.agent_selection and self._mover() >= 0:
            legal[:] = self._legal()
        return {"observation": obs, "action_mask": legal}

    def render(self) -> str | None:
        return self.game.render(self._state[0]) if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Nothing is held."""

    def _mover(self) -> int:
        return int(self.game.current_player(self._state[0]))

    def _legal(self) -> np.ndarray:
        legal = np.zeros(self.game.num_actions, np.bool_)
        self.game.legal_actions(self._state[0], legal)
        return legal

    def _play(self, action: int) -> None:
        earned = np.zeros(self.game.num_players)
        self.game.apply_action(self._state[0], action)
        self.game.rewards(self._state[0], earned)
        for agent, reward in zip(self.possible_agents, earned.tolist()):
            self.rewards[agent] += reward

    def _settle(self) -> None:
        """Let chance play until a player is to move, or the game is over."""
        while self._mover() == CHANCE:
            probs = np.zeros(self.game.num_chance_outcomes)
            self.game.chance_probs(self._state[0], probs)
            possible = np.flatnonzero(probs > 0)
            drawn = np.searchsorted(np.cumsum(probs[possible]), uniform(self._chance, 0) * probs.sum(), side="right")
            self._play(int(possible[min(drawn, len(possible) - 1)]))
