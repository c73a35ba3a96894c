"""An env that is no VectorEnv: one game after the other in plain Python, as an external simulator would be driven.

It knows Kuhn poker's rules, and shows the world its `INTERFACE` only. The slow twin of `envs.vector_env`, too.
"""

from dataclasses import fields

import numpy as np

from datamodules.self_play import SelfPlayDataModule
from envs.env import Env
from envs.game import CHANCE, TERMINAL, Interface, load_game
from envs.rng import make_streams, uniform
from envs.vector_env import ACTION_STREAM, CHANCE_STREAM

RULES = load_game("envs.kuhn_poker")
INTERFACE = Interface(**{f.name: getattr(RULES, f.name) for f in fields(Interface)})


class Simulator(Env):
    """B games of `rules`, stepped in a loop; satisfies `envs.env.Env`."""

    def __init__(self, num_envs, seed, rules=RULES, game=INTERFACE):
        b, p, d = num_envs, rules.num_players, rules.obs_shape
        self.rules, self.game, self.num_envs, self.record = rules, game, num_envs, False
        self.states = [rules.new_state()[0] for _ in range(b)]
        self.player, self.legal = np.zeros(b, np.int8), np.zeros((b, rules.num_actions), np.bool_)
        self.obs, self.history = np.zeros((b, *d), rules.obs_dtype), np.zeros((b, 0, *d), rules.obs_dtype)
        self.rewards, self.bonus = np.zeros((b, p), np.float32), np.zeros((b, p), np.float32)
        self.done, self.truncated = np.zeros(b, np.bool_), np.zeros(b, np.bool_)
        self.final_player = np.zeros(b, np.int8)
        self.final_obs, self.final_out = np.zeros((b, 0, *d), rules.obs_dtype), np.zeros((b, p), np.bool_)
        self.num_decisions, self.game_streams = np.zeros(b, np.int32), np.zeros(b, np.uint64)
        self.chance, self.action_streams = make_streams(b, seed, CHANCE_STREAM), make_streams(b, seed, ACTION_STREAM)
        for i in range(b):
            self._go_on(i)

    def step(self, action):
        self.rewards[:], self.done[:] = 0, False
        for i, a in enumerate(action):
            if not self.legal[i, a]:
                raise ValueError(f"env row {i}: action {a} is illegal")
        for i, a in enumerate(action):
            self._apply(i, int(a))
            self.num_decisions[i] += 1
            self._go_on(i)

    def sample(self, probs):
        action = np.zeros(self.num_envs, np.int64)
        for i in range(self.num_envs):
            mass = np.where(self.legal[i], probs[i], 0).astype(np.float64)
            action[i] = np.searchsorted(np.cumsum(mass), uniform(self.action_streams, i) * mass.sum(), side="right")
        return action

    def observe_all(self):
        return np.stack([[self._seen(state, p) for p in range(self.rules.num_players)] for state in self.states])

    def out(self):
        return np.zeros((self.num_envs, self.rules.num_players), np.bool_)

    def state_dict(self):
        streams = {name: getattr(self, name).tobytes() for name in ("chance", "action_streams", "num_decisions")}
        return streams | {"states": [state.tobytes() for state in self.states]}

    def load_state_dict(self, state):
        if len(state["states"]) != self.num_envs:
            raise ValueError(f"saved env state has {len(state['states'])} games, this env {self.num_envs}")
        for name in ("chance", "action_streams", "num_decisions"):
            array = getattr(self, name)
            array[:] = np.frombuffer(state[name], array.dtype)
        self.states = [np.frombuffer(bytearray(x), self.rules.state_dtype)[0] for x in state["states"]]
        for i in range(self.num_envs):
            self._go_on(i)

    def _apply(self, i, action):
        earned = np.zeros(self.rules.num_players)
        self.rules.apply_action(self.states[i], action)
        self.rules.rewards(self.states[i], earned)
        self.rewards[i] += earned

    def _go_on(self, i):
        while (player := self.rules.current_player(self.states[i])) < 0:
            if player == TERMINAL:
                self.done[i], self.num_decisions[i] = True, 0
                self.states[i] = self.rules.new_state()[0]
            elif player == CHANCE:
                probs = np.zeros(self.rules.num_chance_outcomes)
                self.rules.chance_probs(self.states[i], probs)
                self._apply(i, int(np.searchsorted(np.cumsum(probs), uniform(self.chance, i), side="right")))
        self.player[i], self.legal[i] = player, False
        self.rules.legal_actions(self.states[i], self.legal[i])
        self.obs[i] = self._seen(self.states[i], player)

    def _seen(self, state, player):
        obs = np.zeros(self.rules.obs_shape, self.rules.obs_dtype)
        self.rules.observe(state, player, obs)
        return obs


class SimulatorDataModule(SelfPlayDataModule):
    """Rollouts of a game whose rules are elsewhere."""

    def make_env(self, num_envs, seed, *, record=False, observe_all=False):
        return Simulator(num_envs, seed)
