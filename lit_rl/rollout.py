"""How a policy meets an env: `collect` plays T steps of B games and keeps what learning needs.

Letters: T steps, B envs, A actions, P players, D obs shape; time comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from envs.vector_env import VectorEnv
from lit_rl.policy import MASKED, PolicyOutput
from lit_rl.row_index import merge_equal_rows


@dataclass(frozen=True)
class Collecting:
    """How an algorithm wants its rollouts: its optional settings object `collecting`."""

    temperature: float = 1.0
    exploration: float = 0.0  # so often a player who explores draws uniformly from its legal actions instead
    explorers: Literal["all", "one"] = "all"  # one: in row b only player b mod P explores
    merge_rows: bool = False
    observe_all: bool = False
    truncation: bool = True  # false: the algorithm cannot learn from games that data.truncate_after cuts off

    def explores(self, num_envs: int, num_players: int) -> Tensor | None:
        """[B, P] float32: how often each player explores; None where nobody does."""
        if not self.exploration:
            return None
        rates = torch.full((num_envs, num_players), float(self.exploration))
        return rates if self.explorers == "all" else rates * explorer_seat(num_envs, num_players)


def explorer_seat(num_envs: int, num_players: int) -> Tensor:
    """[B, P] bool: player b mod P, the one who explores in row b where only one does."""
    return torch.arange(num_players) == (torch.arange(num_envs) % num_players).unsqueeze(1)


@dataclass(frozen=True)
class Rollout:
    """T steps of B envs. Row (t, b) is one decision by `player[t, b]`, if `played[t, b]`.

    The first `carried` steps repeat the decisions of games that were unfinished when the rollout before ended; where a
    game had begun later than that, their rows are filler and not `played`. Everything lies on the CPU. `rewards[t]`
    come after the decision at t: what each player earned until the next one.

    Where `learner` is false somebody else decided, who is environment to the learner: logits are uniform, log_prob,
    exploration and value 0, and nothing is learned from the row.
    """

    obs: Tensor  # [T, B, *D] the mover's infostate, in the game's dtype
    legal: Tensor  # [T, B, A] bool
    player: Tensor  # [T, B] int8
    action: Tensor  # [T, B] int64
    logits: Tensor  # [T, B, A] float32, of the policy that plays (temperature included), illegal ones at MASKED
    log_prob: Tensor  # [T, B] float32 of the action, exactly as sampled, `exploration` included
    exploration: Tensor  # [T, B] float32, the probability with which a uniform draw took the place of the policy's
    value: Tensor  # [T, B] float32, the critic's view of the mover's return
    rewards: Tensor  # [T, B, P] float32
    done: Tensor  # [T, B] bool, the game ended with this decision
    bootstrap: Tensor  # [T, B, P] float32, value of going on where a game was cut off; 0 where it ended by its rules
    history: Tensor  # [T, B, P, *D] every player's infostate, for critics; [T, B, 0, *D] where the env does not say
    game_stream: Tensor  # [T, B] int64, `VectorEnv.game_streams` bit by bit: where the game's chance came from
    played: Tensor  # [T, B] bool
    learner: Tensor  # [T, B] bool, the policy that learns made this decision
    carried: int
    last_player: Tensor  # [B] int8, to move after the last step
    last_value: Tensor  # [B] float32, that player's value there
    temperature: float  # that the logits of the new steps were divided by
    extras: dict[str, Tensor] = field(default_factory=dict)  # [T, B, ...] each, from policy and opponents
    notes: dict[str, Tensor] = field(default_factory=dict)  # what an algorithm worked out once and a resume must keep

    @property
    def num_decisions(self) -> int:
        """Decisions that are new in this rollout."""
        return self.action[self.carried :].numel()

    def unfinished(self) -> Tensor:
        """[T, B] bool: the decisions of games that had not ended when the rollout did."""
        ends_later = self.done.flip(0).cummax(0).values.flip(0)
        return self.played & ~ends_later

    def check_finite(self) -> None:
        """Raise FloatingPointError that names the first tensor, step and env row that is not finite."""
        for name in ("obs", "logits", "value", "rewards", "bootstrap"):
            tensor = getattr(self, name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum())):
                bad = (~torch.isfinite(tensor)).nonzero()
                if len(bad):
                    where = bad[0].tolist()
                    raise FloatingPointError(
                        f"rollout {name}[step {where[0]}, env row {where[1]}] = {tensor[tuple(where)].item()}"
                    )


class Opponents(Protocol):
    """Who sits in the seats that are not the learner's, as `collect` asks at each step. It draws them by itself."""

    def learner_moves(self, env: VectorEnv) -> np.ndarray:
        """[B] bool: the player to move in that row is the learner."""

    def act(self, env: VectorEnv, probs: np.ndarray) -> None:
        """Write into `probs` [B, A] float32 what those to move in the other rows do; the env samples from it."""

    def extras(self, env: VectorEnv) -> Mapping[str, Tensor]:
        """[B, ...] each: what the rollout is to keep of this decision; mostly nothing."""

    def stepped(self, env: VectorEnv) -> None:
        """The env has made a step: `env.rewards` were earned, and where `env.done` a new game has begun."""


@torch.no_grad()
def collect(
    env: VectorEnv,
    policy: nn.Module,
    num_steps: int,
    *,
    opponents: Opponents | None = None,
    previous: Rollout | None = None,
    temperature: float = 1.0,
    exploration: Tensor | None = None,
    merge_rows: bool = False,
) -> Rollout:
    """Play `num_steps` decisions in every row of `env`; games go on from call to call.

    `policy` plays all seats, or those that `opponents` leave it.

    The policy samples from softmax(logits / temperature); the stored logits and log-probs are of that distribution.
    With `exploration` [B, P] player p of row b draws uniformly from its legal actions that often instead; log-probs are
    of the mixture, logits of the policy.
    The decisions of `previous` whose games were unfinished stand in front, so that each can be learned from once its
    game is over. With `merge_rows` the policy sees each distinct infostate of a step only once.

    Raises:
        FloatingPointError: the policy's output cannot be sampled from.
    """
    unfinished = None if previous is None else previous.unfinished()
    carried = 0 if unfinished is None else int(unfinished.sum(0).max())
    t, b, p = carried + num_steps, env.num_envs, env.game.num_players
    device = next(policy.parameters()).device
    obs = torch.empty(t, *env.obs.shape, dtype=torch.from_numpy(env.obs).dtype)
    legal = torch.empty(t, *env.legal.shape, dtype=torch.bool)
    player = torch.empty(t, b, dtype=torch.int8)
    action = torch.empty(t, b, dtype=torch.int64)
    logits = torch.empty(t, *env.legal.shape)
    log_prob, value, explored = torch.empty(t, b), torch.empty(t, b), torch.zeros(t, b)
    history = torch.empty(t, *env.history.shape, dtype=obs.dtype)
    rewards, bootstrap = torch.empty(t, b, p), torch.zeros(t, b, p)
    game_stream = torch.empty(t, b, dtype=torch.int64)
    done, played = torch.empty(t, b, dtype=torch.bool), torch.ones(t, b, dtype=torch.bool)
    learner = torch.ones(t, b, dtype=torch.bool)
    steps = dict(
        obs=obs, legal=legal, player=player, action=action, logits=logits, log_prob=log_prob, value=value,
        exploration=explored, rewards=rewards, done=done, bootstrap=bootstrap, history=history, game_stream=game_stream,
        learner=learner,
    )  # fmt: skip
    if carried:
        for name, tensor in steps.items():
            tensor[:carried] = getattr(previous, name)[-carried:]
        played[:carried] = unfinished[-carried:]

    def evaluate(obs: Tensor, legal: Tensor) -> PolicyOutput:
        if not merge_rows:
            return policy(obs.to(device), legal.to(device))
        first, row = merge_equal_rows(obs, legal)
        output = policy(obs[first].to(device), legal[first].to(device))
        extras = {name: x.cpu()[row] for name, x in output.extras.items()}
        return PolicyOutput(output.logits.cpu()[row], output.value.cpu()[row], None, extras)

    extras: dict[str, Tensor] = {}

    def keep(step: int, more: Mapping[str, Tensor], rows: Tensor | None = None) -> None:
        for name, x in more.items():
            if name not in extras:
                extras[name] = x.new_zeros(t, b, *x.shape[1:])
                if carried and name in previous.extras:
                    extras[name][:carried] = previous.extras[name][-carried:]
            if rows is None:
                extras[name][step] = x
            else:
                extras[name][step, rows] = x

    for i in range(carried, t):
        obs[i] = torch.from_numpy(env.obs)
        legal[i] = torch.from_numpy(env.legal)
        player[i] = torch.from_numpy(env.player)
        game_stream[i] = torch.from_numpy(env.game_streams.view(np.int64))
        history[i] = torch.from_numpy(env.history)
        if opponents is not None:
            learner[i] = torch.from_numpy(opponents.learner_moves(env))
        everywhere = opponents is None or bool(learner[i].all())
        if everywhere:
            output = evaluate(obs[i], legal[i])
            logits[i] = output.logits / temperature
            value[i] = output.value
            keep(i, output.extras)
        else:
            rows = learner[i].nonzero().squeeze(1)
            logits[i], value[i] = torch.where(legal[i], 0.0, MASKED), 0.0
            if len(rows):
                output = evaluate(obs[i, rows], legal[i, rows])
                logits[i, rows] = output.logits.cpu().float() / temperature
                value[i, rows] = output.value.cpu().float()
                keep(i, output.extras, rows)
        log_probs = torch.log_softmax(logits[i], dim=-1)
        if exploration is not None:
            explored[i] = exploration.gather(1, player[i].long().unsqueeze(1)).squeeze(1)
            log_probs = explore(log_probs, legal[i], explored[i])
        probs = log_probs.exp().numpy()
        if not everywhere:
            opponents.act(env, probs)
        if hasattr(opponents, "extras"):
            keep(i, opponents.extras(env))
        action[i] = torch.from_numpy(env.sample(probs))
        log_prob[i] = log_probs.gather(1, action[i].unsqueeze(1)).squeeze(1)
        if not everywhere:
            log_prob[i, ~learner[i]] = explored[i, ~learner[i]] = 0.0
        env.step(action[i].numpy())
        if opponents is not None:
            opponents.stepped(env)
        rewards[i] = torch.from_numpy(env.rewards)
        done[i] = torch.from_numpy(env.done)
        if env.truncated.any():
            bootstrap[i] = _value_of_cut_games(env, policy, device)
    return Rollout(
        **steps,
        extras=extras,
        played=played,
        carried=carried,
        last_player=torch.from_numpy(env.player.copy()),
        last_value=evaluate(torch.from_numpy(env.obs), torch.from_numpy(env.legal)).value.cpu(),
        temperature=float(temperature),  # the CLI's number types cannot be loaded with weights_only
    )


def explore(log_probs: Tensor, legal: Tensor, exploration: Tensor) -> Tensor:
    """Log-probs [N, A] of a policy that draws uniformly from `legal` with probability `exploration` [N]."""
    exploration = exploration.unsqueeze(1)
    mixed = (1 - exploration) * log_probs.exp() + exploration * legal / legal.sum(1, keepdim=True)
    return torch.where(legal, mixed.log(), log_probs)


def _value_of_cut_games(env: VectorEnv, policy: nn.Module, device: torch.device) -> Tensor:
    """[B, P]: each player's value where a game was truncated, 0 elsewhere."""
    rows = torch.from_numpy(env.truncated)
    final_obs = torch.from_numpy(env.final_obs)[rows].flatten(0, 1).to(device)
    all_legal = torch.ones(len(final_obs), env.game.num_actions, dtype=torch.bool, device=device)
    values = torch.zeros(env.num_envs, env.game.num_players)
    values[rows] = policy(final_obs, all_legal).value.cpu().view(-1, env.game.num_players)
    return values
