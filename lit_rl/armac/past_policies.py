"""Past policies: a buffer of what the policy was, and seats for them in the games (Gruslys et al. 2020).

Where every past policy plays equally often, the mean of the regrets met is the average regret of the whole past, and no
memory has to sum them up. Evaluating a network costs a forward, so a few past policies sit at the table at a time, and
each iteration one of them makes room for another one drawn from the buffer.

Letters: B envs, A actions, P players, K kept policies, J seated ones, W weights.
"""

import copy
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from envs.env import ALL_ROWS
from envs.rng import derive_key, make_streams, uniform
from envs.vector_env import VectorEnv
from lit_rl.armac.mixed_policy import MixedPolicy
from lit_rl.policy import ActorCritic
from lit_rl.rollout import explorer_seat
from lit_rl.run.errors import ConfigError
from lit_rl.run.saved_values import need, saved_dict, saved_int, saved_list, saved_tensor

PAST_STREAM = 12

Keep = Literal["reservoir", "fifo"]


class PastPolicies:
    """Opponents for `lit_rl.rollout.collect`: player (row mod P) is the learner, the others are one past policy, drawn
    as their game begins from those at the table. Of these one makes room in each iteration, also in running games.

    Args:
        env: whose rows are seated.
        policy: what is kept copies of; the past plays softmax(logits).
        capacity: K.
        keep: reservoir (all of the past equally likely) or fifo (the last K).
        seated: J.
        seed: of the draws.

    Attributes:
        slot: [B] int64, which of the J policies plays in each row.
    """

    def __init__(self, env: VectorEnv, policy: ActorCritic, capacity: int, keep: Keep, seated: int, seed: int):
        if keep not in get_args(Keep):
            raise ConfigError(f"keep={keep!r}: unknown; use one of {', '.join(get_args(Keep))}")
        self.capacity = capacity
        self.keep = keep
        self.seed = seed
        self.players = [copy.deepcopy(policy).eval() for _ in range(seated)]
        self.kept = torch.zeros(0, len(parameters_to_vector(policy.parameters())))  # [K, W]
        self.seen = 0  # policies that were offered
        self.streams = make_streams(env.num_envs, seed, PAST_STREAM)
        self.slot = torch.zeros(env.num_envs, dtype=torch.int64)
        self._learner = explorer_seat(env.num_envs, env.game.num_players).numpy()  # [B, P], whose seat is the learner's
        self._probs: Tensor | None = None  # [B, A], where the games stand now
        self._seat(torch.ones(env.num_envs, dtype=torch.bool))

    def begin(self, policy: ActorCritic, iteration: int) -> None:
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
            drawn = self.kept[int(generator.integers(len(self.kept)))]
            _give(self.players[j], drawn)
        for player in self.players:  # all: which rows share a forward must not depend on where a run was resumed
            player.to(next(policy.parameters()).device)
            _renew(player)
        self._probs = None

    def learner_moves(self, env: VectorEnv) -> np.ndarray:
        return self._learner[np.arange(env.num_envs), env.player]

    def act(self, env: VectorEnv, probs: np.ndarray, part: slice = ALL_ROWS) -> None:
        others = ~self.learner_moves(env)
        probs[others] = self.probs(env)[torch.from_numpy(others)].numpy()

    def extras(self, env: VectorEnv) -> dict[str, Tensor]:
        """past_probs [B, A]: what the past policy of each row's game would do at this decision, whoever makes it."""
        return {"past_probs": self.probs(env)}

    def stepped(self, env: VectorEnv) -> None:
        self._probs = None
        if env.done.any():
            self._seat(torch.from_numpy(env.done))

    @torch.no_grad()
    def probs(self, env: VectorEnv) -> Tensor:
        """[B, A] float32: what the past policy in each row does where the games stand now."""
        if self._probs is None:
            obs = torch.from_numpy(env.obs)
            legal = torch.from_numpy(env.legal)
            self._probs = torch.empty(legal.shape)
            for j, player in enumerate(self.players):
                rows = self.slot == j
                if rows.any():
                    device = next(player.parameters()).device
                    logits = player(obs[rows].to(device), legal[rows].to(device)).logits
                    self._probs[rows] = torch.softmax(logits.float(), -1).cpu()
        return self._probs

    def _seat(self, began: Tensor) -> None:
        for row in began.nonzero().flatten().tolist():
            self.slot[row] = int(uniform(self.streams, row) * len(self.players))

    def state_dict(self) -> dict:
        weights = [parameters_to_vector(player.parameters()).detach().cpu() for player in self.players]
        memos = [memo_of(player).state_dict() for player in self.players if memo_of(player) is not None]
        streams = torch.from_numpy(self.streams.view(np.int64).copy())
        return {
            "kept": self.kept,
            "seen": self.seen,
            "seed": self.seed,
            "weights": weights,
            "memos": memos,
            "slot": self.slot,
            "streams": streams,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on where it was saved.

        Raises:
            ConfigError: another number of rows or of seated policies.
        """
        names = ("kept", "seen", "seed", "weights", "memos", "slot", "streams")
        saved_dict(state, "past policies", names)
        saved_list(state["weights"], "past policies.weights")
        if len(state["weights"]) != len(self.players) or len(state["slot"]) != len(self.slot):
            raise ConfigError(
                f"data.seated={len(self.players)}: the checkpoint has {len(state['weights'])} past policies in "
                f"{len(state['slot'])} rows; use the run's own"
            )
        b, w = len(self.slot), self.kept.shape[1]
        with_memo = [player for player in self.players if memo_of(player) is not None]
        saved_list(state["memos"], "past policies.memos", len(with_memo))
        given = [saved_tensor(x, "past policies.weights", torch.float32, (w,)) for x in state["weights"]]
        slot = saved_tensor(state["slot"], "past policies.slot", torch.int64, (b,), 0, len(self.players) - 1)
        streams = saved_tensor(state["streams"], "past policies.streams", torch.int64, (b,))
        seed = saved_int(state["seed"], "past policies.seed", 0, 2**64 - 1)
        self.inherit(state)
        self.seed = seed
        self.slot = slot
        self.streams = streams.numpy().view(np.uint64).copy()
        for player, weights in zip(self.players, given):
            _give(player, weights)
        for player, memo in zip(with_memo, state["memos"]):
            memo_of(player).load_state_dict(memo)
        self._probs = None

    def inherit(self, state: dict) -> None:
        """Take over the past alone, for a run that goes on with new games."""
        kept = saved_tensor(state["kept"], "past policies.kept", torch.float32, (None, self.kept.shape[1]))
        seen = saved_int(state["seen"], "past policies.seen", len(kept))
        need(len(kept) > 0 or seen == 0, "past policies.kept is empty")
        self.kept, self.seen = kept, seen


def memo_of(player: ActorCritic):
    """What a policy remembers of itself within an iteration; None where it does not."""
    return player.memo if isinstance(player, MixedPolicy) else None


def _give(player: ActorCritic, weights: Tensor) -> None:
    weights = weights.clone().to(next(player.parameters()).device)  # parameters become views of it
    vector_to_parameters(weights, player.parameters())
    _renew(player)


def _renew(player: ActorCritic) -> None:
    if memo_of(player) is not None:
        player.renew()
