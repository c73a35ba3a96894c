"""Past policies: a buffer of what the policy was, and seats for them in the games (Gruslys et al. 2020).

Where every past policy plays equally often, the mean of the regrets met is the average regret of the whole past, and no
memory has to sum them up. Evaluating a network costs a forward, so a few past policies sit at the table at a time, and
each iteration one of them makes room for another one drawn from the buffer.

Letters: N decisions, B envs, A actions, K kept policies, J seated ones, W weights.
"""

import copy
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from envs.rng import derive_key, make_streams, uniform
from envs.vector_env import VectorEnv
from lit_rl.armac.mixed_policy import CachedPolicy, MixedPolicy
from lit_rl.run.errors import ConfigError

PAST_STREAM = 12


class PastPolicies:
    """Opponents for `lit_rl.rollout.collect`: player (row mod P) is the learner, the others are one past policy, drawn
    as their game begins from those at the table. Of these one makes room in each iteration, also in running games.

    Args:
        env: whose rows are seated.
        policy: what is kept copies of.
        capacity: K.
        keep: reservoir (all of the past equally likely) or fifo (the last K).
        seated: J.
        seed: of the draws.

    Attributes:
        slot: [B] int64, which of the J policies plays in each row.
    """

    def __init__(
        self,
        env: VectorEnv,
        policy: MixedPolicy,
        capacity: int,
        keep: Literal["reservoir", "fifo"],
        seated: int,
        seed: int,
    ):
        if keep not in ("reservoir", "fifo"):
            raise ConfigError(f"keep={keep!r}: unknown; use one of reservoir, fifo")
        self.capacity, self.keep, self.seed = capacity, keep, seed
        self.players = [CachedPolicy(copy.deepcopy(policy), env.game) for _ in range(seated)]
        self.kept = torch.zeros(0, len(parameters_to_vector(policy.parameters())))  # [K, W]
        self.seen = 0  # policies that were offered
        self.streams = make_streams(env.num_envs, seed, PAST_STREAM)
        self.slot = torch.zeros(env.num_envs, dtype=torch.int64)
        self.slots: list[Tensor] = []  # [B] at each step of this rollout
        self._seat(torch.ones(env.num_envs, dtype=torch.bool))

    def begin(self, policy: MixedPolicy, iteration: int) -> None:
        """Keep the policy as it is now, and let one of those at the table make room."""
        generator = np.random.default_rng(derive_key(self.seed, PAST_STREAM, iteration))
        weights = parameters_to_vector(policy.parameters()).detach().cpu().unsqueeze(0)
        place = self.seen % self.capacity if self.keep == "fifo" else int(generator.integers(self.seen + 1))
        if len(self.kept) < self.capacity:
            self.kept = torch.cat([self.kept, weights])
        elif place < self.capacity:
            self.kept[place] = weights[0]
        self.seen += 1
        leaves = range(len(self.players)) if self.seen == 1 else [iteration % len(self.players)]
        for j in leaves:
            drawn = self.kept[int(generator.integers(len(self.kept)))].clone()  # parameters become views of it
            player = self.players[j]
            vector_to_parameters(drawn.to(next(player.parameters()).device), player.policy.parameters())
        for player in self.players:  # all: which rows share a forward must not depend on where a run was resumed
            player.renew()
        self.slots.clear()

    def learner_moves(self, env: VectorEnv) -> np.ndarray:
        self.slots.append(self.slot.clone())
        return env.player == np.arange(env.num_envs) % env.game.num_players

    def act(self, env: VectorEnv, probs: np.ndarray) -> None:
        rows = np.flatnonzero(env.player != np.arange(env.num_envs) % env.game.num_players)
        obs, legal = torch.from_numpy(env.obs[rows]), torch.from_numpy(env.legal[rows])
        probs[rows] = self.probs(obs, legal, self.slot[rows]).numpy()

    def stepped(self, env: VectorEnv) -> None:
        if env.done.any():
            self._seat(torch.from_numpy(env.done))

    def probs(self, obs: Tensor, legal: Tensor, slot: Tensor) -> Tensor:
        """[N, A]: what the policies in those slots [N] do at obs [N, *D], legal [N, A]."""
        result = torch.empty(legal.shape)
        for j, player in enumerate(self.players):
            rows = slot == j
            if rows.any():
                result[rows] = player.mixture(obs[rows], legal[rows]).probs.float()
        return result

    def _seat(self, began: Tensor) -> None:
        for row in began.nonzero().flatten().tolist():
            self.slot[row] = int(uniform(self.streams, row) * len(self.players))

    def state_dict(self) -> dict:
        tables = [
            {"weights": parameters_to_vector(p.policy.parameters()).detach().cpu(), "seen": p.index.state_dict()}
            for p in self.players
        ]
        streams = torch.from_numpy(self.streams.view(np.int64).copy())
        return {"kept": self.kept, "seen": self.seen, "players": tables, "slot": self.slot, "streams": streams}

    def load_state_dict(self, state: dict) -> None:
        """Go on where it was saved.

        Raises:
            ConfigError: another number of rows or of seated policies.
        """
        if len(state["players"]) != len(self.players) or len(state["slot"]) != len(self.slot):
            raise ConfigError(
                f"data.seated={len(self.players)}: the checkpoint has {len(state['players'])} past policies in "
                f"{len(state['slot'])} rows; use the run's own"
            )
        self.kept, self.seen = state["kept"].clone(), int(state["seen"])
        self.slot, self.streams = state["slot"].clone(), state["streams"].numpy().view(np.uint64).copy()
        for player, saved in zip(self.players, state["players"]):
            vector_to_parameters(saved["weights"].to(next(player.parameters()).device), player.policy.parameters())
            player.index.load_state_dict(saved["seen"])
            player.renew()
