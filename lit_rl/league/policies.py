"""Policies that are not trained themselves: a table over infostates, and a network played more sharply.

Letters: N rows, R infostates, A actions.
"""

import numpy as np
import torch
from torch import Tensor

from envs.exact import ExactEvaluator
from envs.exact.evaluation import CHUNK, all_rows
from envs.game import Interface
from lit_rl.league.player_file import build_network
from lit_rl.policy import MASKED, ActorCritic, PolicyOutput, mask_logits
from lit_rl.row_index import obs_dtype


class TablePolicy(ActorCritic):
    """A policy that is a table over the infostates of a game, such as an exact best response.

    Args:
        game: tells the sizes of obs and actions.
        num_rows: R, infostates in the table.
    """

    def __init__(self, game: Interface, num_rows: int):
        super().__init__()
        width = int(np.prod(game.obs_shape))
        generator = torch.Generator("cpu").manual_seed(0)
        factors = torch.randint(-(2**62), 2**62, (width,), generator=generator, device="cpu")
        self.register_buffer("factors", factors)  # of the hash
        self.register_buffer("hashes", torch.zeros(num_rows, dtype=torch.int64))  # ascending
        self.register_buffer("obs", torch.zeros(num_rows, width, dtype=obs_dtype(game)))
        self.register_buffer("probs", torch.zeros(num_rows, game.num_actions))

    @classmethod
    def of(cls, evaluator: ExactEvaluator, probs: np.ndarray) -> "TablePolicy":
        """The table `probs` [R, A] over the rows of `evaluator`.

        Raises:
            ValueError: two infostates hash alike.
        """
        policy = cls(evaluator.game, len(probs))
        obs = torch.cat([torch.from_numpy(some).flatten(1) for some, _, _ in all_rows(evaluator)])
        hashes, order = torch.cat([policy._hash(some.float()) for some in obs.split(CHUNK)]).sort()
        if len(hashes.unique()) != len(hashes):
            raise ValueError(
                f"{evaluator.game.name}: two infostates of {len(hashes)} hash alike, or do so by player alone"
            )
        policy.hashes, policy.obs = hashes, obs[order]
        policy.probs = torch.from_numpy(np.asarray(probs, np.float32))[order]
        return policy

    def _hash(self, obs: Tensor) -> Tensor:
        bits = obs.contiguous().view(torch.int32).long()  # all of a float's bits count
        return (bits * self.factors).sum(1)

    def forward(self, obs: Tensor, legal: Tensor, state: Tensor | None = None) -> PolicyOutput:
        """logits [N, A] = log of the table's probabilities, value [N] = 0.

        Raises:
            ValueError: an infostate that is not in the table.
        """
        seen = obs.flatten(1).float()
        row = torch.searchsorted(self.hashes, self._hash(seen)).clamp_max(len(self.hashes) - 1)
        unknown = (self.obs[row].float() != seen).any(1)
        if bool(unknown.any()):
            raise ValueError(f"the table has no infostate obs={obs[unknown][0].tolist()}")
        probs = self.probs[row]
        logits = torch.where(probs > 0, probs.log(), MASKED)
        return PolicyOutput(mask_logits(logits, legal), torch.zeros(len(seen), device=logits.device))


class Sharpened(ActorCritic):
    """A network that plays softmax(logits / temperature): below 1 more often what it holds likeliest.

    Args:
        game: tells the sizes of obs and actions.
        network: class path and arguments of the network, see `build_network`.
        temperature: in (0, 1] for an exploiter, since some best response is deterministic.
    """

    def __init__(self, game: Interface, network: dict, temperature: float):
        super().__init__()
        self.network, self.temperature = build_network(network, game), temperature
        self.state_shape = self.network.state_shape

    def forward(self, obs: Tensor, legal: Tensor, state: Tensor | None = None) -> PolicyOutput:
        output = self.network(obs, legal, state) if self.state_shape else self.network(obs, legal)
        return output._replace(logits=mask_logits(output.logits / self.temperature, legal))
