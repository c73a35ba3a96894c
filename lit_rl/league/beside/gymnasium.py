"""One seat of a game against opponents, as Gymnasium's vector env and as its env.

    envs = SeatEnvs("envs.leduc_poker", num_envs=64, opponents=["random", "runs/version_0/checkpoints/last.ckpt"])
    obs, infos = envs.reset(seed=0)
    obs, rewards, terminated, truncated, infos = envs.step(actions)  # infos["action_mask"] [B, A]

Letters: B envs, A actions, D obs shape, P players, S seats (teams).
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from envs.extras import need_extra
from envs.game import Game, load_game
from envs.rng import derive_key
from envs.vector_env import VectorEnv
from lit_rl.league.players import Spec, load_player, name_of
from lit_rl.league.seating import LEARNER, Seating
from lit_rl.run.errors import ConfigError

need_extra("gymnasium", "gymnasium")
import gymnasium  # noqa: E402
from gymnasium import spaces  # noqa: E402
from gymnasium.vector import AutoresetMode  # noqa: E402
from gymnasium.vector.utils import batch_space  # noqa: E402

Illegal = Literal["raise", "lose"]


def obs_space(game: Game) -> spaces.Box:
    """The space of one infostate; what a game does not say is taken to have no bounds but those of its type."""
    dtype = np.dtype(game.obs_dtype)
    if dtype == np.bool_:
        return spaces.Box(0, 1, game.obs_shape, np.bool_)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return spaces.Box(limits.min, limits.max, game.obs_shape, dtype.type)


class SeatEnvs(gymnasium.vector.VectorEnv):
    """B games, in each of which the agent takes one seat and opponents take the others; a step is the agent's decision.

    The seat alternates from game to game. An opponent is drawn for each of the other seats, all equally likely. A seat
    is a team of the game: the agent decides for all of its players, and its reward is their mean. Where a game ends,
    the next one begins in the same step (`AutoresetMode.SAME_STEP`). A game that ends before the agent has decided
    anything is not seen. All that happens is a function of the seed of `reset` and of the actions.

    infos, beside `_<name>` [B] bool each, as Gymnasium has it:
        action_mask: [B, A] int8, 1 = legal.
        player: [B] int8, whom the agent decides for.
        final_obs: [B] of obs, where a game ended: of one cut off the infostate there, of another, where nobody needs a
            value any more, the last one that the agent decided at.

    Args:
        game: import path of a game, or the game itself.
        num_envs: B.
        opponents: who sits in the other seats, each as `data.opponents` of a league names it.
        truncate_after: cut a game off after so many decisions of all players; null plays all to the end.
        num_threads: threads of the games.
        illegal: what an illegal action does. raise: IllegalActionError. lose: the game ends there and the agent has
            lost as much as the game can cost, max_return; for agents and checks that know no masks.

    Raises:
        ConfigError: no opponents, or one that cannot play the game.
    """

    def __init__(
        self,
        game: str | Game,
        num_envs: int = 1,
        opponents: Sequence[Spec] = ("random",),
        truncate_after: int | None = None,
        num_threads: int = 1,
        illegal: Illegal = "raise",
    ):
        if illegal not in get_args(Illegal):
            raise ConfigError(f"illegal={illegal!r}: unknown; use one of {', '.join(get_args(Illegal))}")
        if isinstance(opponents, str) or not opponents:
            raise ConfigError(f"opponents={opponents!r}: give a list of at least one, such as ['random']")
        self.game = load_game(game) if isinstance(game, str) else game
        if self.game.num_teams < 2:
            raise ConfigError(f"game={self.game.name!r}: has one team, so there is no seat for an opponent")
        self.num_envs, self.illegal = num_envs, illegal
        self.opponents = {f"{i} {name_of(spec)}": load_player(spec, self.game) for i, spec in enumerate(opponents)}
        self.settings = {"truncate_after": truncate_after, "num_threads": num_threads}
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["ansi"]}
        self.render_mode = "ansi"
        self.single_observation_space = obs_space(self.game)
        self.single_action_space = spaces.Discrete(self.game.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        team = np.array(self.game.team)
        in_team = np.equal.outer(np.arange(self.game.num_teams), team)
        self._share = in_team / in_team.sum(1, keepdims=True)  # [S, P] of a player's rewards in its team's
        self.env = VectorEnv(self.game, num_envs, 0, **self.settings)  # refuses what cannot be, before any reset
        self._begun = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """New games in all rows: obs [B, *D] and infos.

        Raises:
            ConfigError: `options` asks to reset some rows only; games that end begin anew by themselves.
        """
        if options and "reset_mask" in options:
            raise ConfigError("options: reset_mask is not taken; games that end begin anew by themselves")
        super().reset(seed=seed)
        key = int(self.np_random.integers(2**63))
        self.env = VectorEnv(self.game, self.num_envs, key, **self.settings)
        self.seating = Seating(self.env, derive_key(key, 1))
        for name, player in self.opponents.items():
            self.seating.meet(name, player)
        self.seating.draw_from(dict.fromkeys(self.opponents, 1.0 / len(self.opponents)), 0.0)
        self.seating.seat_all_rows()
        self._ahead = np.zeros(self.num_envs)  # earned before the agent's first decision in a game
        self._lost = np.zeros(self.num_envs, np.bool_)
        self._decided = np.zeros(self.num_envs, np.bool_)  # the agent has, in the running game
        self._probs = np.zeros(self.env.legal.shape, np.float32)
        self._begun = True
        self._play_on(np.zeros(0, np.int64), np.zeros(0, np.int64))
        return self.env.obs.copy(), self._infos()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """The agent's decisions [B]; obs [B, *D], rewards [B] float64, terminated [B], truncated [B] and infos.

        Raises:
            ConfigError: before the first `reset`.
            IllegalActionError, TypeError, ValueError: as of `envs.vector_env.VectorEnv.step`; nothing has happened.
        """
        if not self._begun:
            raise ConfigError("step: call reset first")
        env = self.env
        actions = np.asarray(actions)
        everywhere = np.arange(self.num_envs)
        if self.illegal == "lose" and actions.shape == (self.num_envs,) and actions.dtype.kind in "iu":
            known = (actions >= 0) & (actions < self.game.num_actions)
            self._lost = ~(known & env.legal[everywhere, np.where(known, actions, 0)])
            actions = np.where(self._lost, env.legal.argmax(1), actions)
        seen, who = env.obs.copy(), env.player.copy()
        return self._play_on(everywhere, actions, seen, who)

    def _play_on(self, rows: np.ndarray, actions: np.ndarray, seen=None, who=None):
        """Play `actions` in `rows`, and then everybody else's, until the agent is to move in all rows."""
        env, seating, everywhere = self.env, self.seating, np.arange(self.num_envs)
        rewards, self._ahead = self._ahead, np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        over = np.ones(self.num_envs, np.bool_)  # what is earned from now on is of the next game
        over[rows] = False
        final = np.full(self.num_envs, None, object)
        self._decided[rows] = True
        while True:
            if len(rows):
                seat = (seating.table == LEARNER).argmax(1)
                env.step_rows(rows, actions)
                earned = (env.rewards * self._share[seat]).sum(1)
                rewards[~over] += earned[~over]
                self._ahead[over] += earned[over]
                ended = env.done.copy()
                for b in np.flatnonzero(ended & self._decided):
                    cut = env.truncated[b] and not self._lost[b]
                    truncated[b], terminated[b] = cut, not cut
                    over[b] = True
                    final[b] = (env.final_obs[b, who[b]] if cut else seen[b]).copy()
                rewards[ended & self._lost] = -self.game.max_return
                self._ahead[ended & ~self._decided] = 0.0
                self._decided[ended], self._lost[ended] = False, False
                seating.stepped(env)
            waiting = seating.learner_moves(env) & ~self._lost
            if waiting.all():
                break
            self._probs[:] = env.legal  # of rows that wait or are lost
            seating.act(env, self._probs)
            self._probs[self._lost] = env.legal[self._lost]
            rows = everywhere[~waiting]
            actions = env.sample(self._probs)[rows]
        infos = self._infos()
        ended = terminated | truncated
        if ended.any():
            infos |= {"final_obs": final, "_final_obs": ended.copy()}
        return env.obs.copy(), rewards, terminated, truncated, infos

    def _infos(self) -> dict[str, np.ndarray]:
        everywhere = np.ones(self.num_envs, np.bool_)
        return {
            "action_mask": self.env.legal.astype(np.int8),
            "_action_mask": everywhere,
            "player": self.env.player.copy(),
            "_player": everywhere.copy(),
        }

    def action_masks(self) -> np.ndarray:
        """[B, A] bool, True = legal: what sb3-contrib asks for."""
        return self.env.legal.copy()

    def render(self) -> tuple[str, ...]:
        """Each row's position as text, all cards open."""
        return tuple(self.game.render(state) for state in self.env.state)


class SeatEnv(gymnasium.Env):
    """One game after the other, the agent in one seat: a row of `SeatEnvs`, whose arguments it takes.

    info has `action_mask` [A] int8 and `player`.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (as Gymnasium has it)

    def __init__(self, game: str | Game, opponents: Sequence[Spec] = ("random",), render_mode=None, **settings):
        if render_mode not in (None, "ansi"):
            raise ConfigError(f"render_mode={render_mode!r}: use 'ansi' or None")
        self.envs, self.render_mode = SeatEnvs(game, 1, opponents, **settings), render_mode
        self.observation_space, self.action_space = self.envs.single_observation_space, self.envs.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """A new game: obs [*D] and info."""
        super().reset(seed=seed)
        obs, infos = self.envs.reset(seed=int(self.np_random.integers(2**31)), options=options)
        return obs[0], self._info(infos)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One decision of the agent: obs [*D], reward, terminated, truncated and info."""
        obs, rewards, terminated, truncated, infos = self.envs.step(np.array([action]))
        over = bool(terminated[0] or truncated[0])
        seen = infos["final_obs"][0] if over else obs[0]
        return seen, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), self._info(infos)

    def _info(self, infos: dict) -> dict:
        return {"action_mask": infos["action_mask"][0], "player": int(infos["player"][0])}

    def action_masks(self) -> np.ndarray:
        """[A] bool, True = legal: what sb3-contrib asks for."""
        return self.envs.action_masks()[0]

    def render(self) -> str | None:
        """The position as text, all cards open."""
        return self.envs.render()[0] if self.render_mode == "ansi" else None
