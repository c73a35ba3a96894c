"""How a policy meets an env: `collect` plays T steps of B games and keeps what learning needs.

Letters: T steps, B envs, A actions, W bytes of legal bits, P players, D obs shape, S shape of a policy's memory; time
comes first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from jsonargparse.typing import restricted_number_type
from torch import Tensor, nn

from envs.bits import pack, unpack
from envs.env import Env
from envs.sampling import draw
from lit_rl.policy import MASKED, PolicyOutput
from lit_rl.row_index import merge_equal_rows
from lit_rl.run.errors import ConfigError
from lit_rl.run.saved_values import need

CutGames = Literal["carry", "bootstrap", "drop"]
Temperature = restricted_number_type(
    "Temperature", float, (">=", 1e-3), docstring="float of at least 0.001, below which sampling is no longer random"
)
MOST_DISTINCT = 0.9  # of a step's rows: beyond, merging equal ones costs more than it brings


def check_cut_games(value: str) -> None:
    if value not in get_args(CutGames):
        raise ConfigError(f"cut_games={value!r}: unknown; use one of {', '.join(get_args(CutGames))}")


@dataclass(frozen=True)
class Collecting:
    """How an algorithm wants its rollouts: its optional settings object `collecting`.

    cut_games says what becomes of the games that are unfinished when a rollout ends:

    carry      their decisions stand in front of the next rollout and are learned from once their game is over. Unbiased
               as to *which* decisions are learned from, and in nothing else: carried rows were met, and played on, by
               older weights, whose value they keep; only the action's own ratio is corrected. The share of them falls
               with num_steps: 42 % of what is learned from where Leduc is cut every 4 steps, 11 % at 16.
    bootstrap  the rollout is cut there, and each player's last decision is followed by that player's value there. As
               biased as the critic is wrong, and loses nobody's decision: for long games. With perfect information and
               two players the other's value is minus the mover's; else it is asked at the other's own infostate, since
               what the mover expects knows nothing of the other's hand.
    drop       likewise, but for the player to move alone; the others' last decisions are lost. Which ones depends on
               how the game went on, and so the mean return of an action comes out wrong (tests/lit_rl/test_returns.py).
    """

    temperature: float = 1.0  # the policy samples from softmax(logits / temperature)
    exploration: float = 0.0  # so often a player who explores draws uniformly from its legal actions instead
    explorers: Literal["all", "one"] = "all"  # one: in row b only player b mod P explores
    cut_games: CutGames = "carry"
    merge_rows: bool = False  # the policy sees each distinct infostate of a step only once
    observe_all: bool = False  # keep every player's infostate at each decision, for critics of whole histories
    truncation: bool = True  # false: the algorithm cannot learn from games that data.truncate_after cuts off
    shaping: bool = True  # false: it learns from outcomes alone, without data.bonus_coef and data.team_share
    chunk_length: int | None = None  # decisions of a seat that it learns from at once; a rollout has no fewer steps

    def check_steps(self, num_steps: int) -> None:
        """Raise ConfigError where a rollout of `num_steps` new steps is shorter than one chunk."""
        if self.chunk_length is not None and num_steps < self.chunk_length:
            raise ConfigError(
                f"minibatches.chunk_length={self.chunk_length}: longer than a rollout, data.num_steps={num_steps}; "
                "lower it, raise data.num_steps, or use null for all that a rollout has of a game"
            )

    def explores(self, num_envs: int, num_players: int) -> Tensor | None:
        """[B, P] float32: how often each player explores; None where nobody does.

        Raises:
            ConfigError: one explores, row by row another one, and the rows do not come out even.
        """
        if not self.exploration:
            return None
        if self.explorers == "one" and num_envs % num_players:
            raise ConfigError(
                f"num_envs={num_envs}: players explore in turns, row by row; use a multiple of {num_players}"
            )
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

    Where `learner` is false somebody else decided, who is environment to the learner: log_prob, exploration, value,
    state and the policy's extras are 0, logits uniform, and nothing is learned from the row.
    """

    obs: Tensor  # [T, B, *D] the mover's infostate, in the game's dtype
    legal_bits: Tensor  # [T, B, W] uint8, the mover's legal actions, see `envs.bits`
    player: Tensor  # [T, B] int8
    action: Tensor  # [T, B] int64
    log_prob: Tensor  # [T, B] float32 of the action, exactly as sampled, `exploration` included
    exploration: Tensor  # [T, B] float32, the probability with which a uniform draw took the place of the policy's
    value: Tensor  # [T, B] float32, the critic's view of the mover's return
    rewards: Tensor  # [T, B, P] float32, what is learned from: outcomes, the game's bonus, the team's share
    outcomes: Tensor  # [T, B, P] float32, by the rules alone: what matches, replays and statistics see
    done: Tensor  # [T, B] bool, the game ended with this decision
    bootstrap: Tensor  # [T, B, P] float32, value of going on where a game was cut off; 0 where it ended by its rules
    history: Tensor  # [T, B, P, *D] every player's infostate, for critics; [T, B, 0, *D] where the env does not say
    game_stream: Tensor  # [T, B] int64, `VectorEnv.game_streams` bit by bit: where the game's chance came from
    state: Tensor  # [T, B, *S] float32, the policy's memory before the decision; [T, B, 0] where it has none
    logits: Tensor  # [T, B, A] float32 of the policy that plays, temperature included; [T, B, 0] unless asked for
    played: Tensor  # [T, B] bool
    learner: Tensor  # [T, B] bool, the policy that learns made this decision
    extras: dict[str, Tensor]  # [T, B, ...] each, from `PolicyOutput.extras` and `Opponents.extras`
    carried: int
    last_value: Tensor  # [B, P] float32, each player's value after the last step
    last_known: Tensor  # [B, P] bool, whose: nobody's where unfinished games are carried, else see `Collecting`
    last_state: Tensor  # [B, P, *S] float32, the memory of each seat after the last step; [B, P, 0]
    num_actions: int
    temperature: float  # that the logits of the new steps were divided by

    @property
    def legal(self) -> Tensor:
        """[T, B, A] bool; unpacked at each call, so ask for few rows at a time where actions are many."""
        return legal_of(self.legal_bits, self.num_actions)

    def distinct(self) -> tuple[Tensor, Tensor, Tensor]:
        """obs [M, *D] and legal [M, A] of the M distinct infostates, and which of them each of the T * B rows is."""
        obs, bits = self.obs.flatten(0, 1), self.legal_bits.flatten(0, 1)
        first, row = merge_equal_rows(obs, bits)
        return obs[first], legal_of(bits[first], self.num_actions), row

    def each(self) -> tuple[Tensor, Tensor, Tensor]:
        """As `distinct`, where no two rows are alike, since a memory stands beside them: M = T * B."""
        return self.obs.flatten(0, 1), self.legal.flatten(0, 1), torch.arange(self.action.numel())

    @property
    def num_decisions(self) -> int:
        """Decisions that are new in this rollout."""
        return self.action[self.carried :].numel()

    def unfinished(self) -> Tensor:
        """[T, B] bool: the decisions of games that had not ended when the rollout did."""
        ends_later = self.done.flip(0).cummax(0).values.flip(0)
        return self.played & ~ends_later

    def games(self, carries: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The G games that begin in here: their first decisions [G], as b * T + t, how many they make in here [G], and
        the actions [G, longest]. Where nothing is carried, those of the first step may have begun earlier.
        """
        t, b = self.player.shape
        played, done, action = (x.T.contiguous().numpy() for x in (self.played, self.done, self.action))
        before = np.ones((b, t), np.bool_)  # a game that has ended, or nothing, goes before
        before[:, 1:] = done[:, :-1] | ~played[:, :-1]
        if not carries:
            before[:, 0] = False
        first = np.flatnonzero(played & before)
        ends = np.flatnonzero(done | (np.arange(t) == t - 1))
        lengths = ends[np.searchsorted(ends, first)] - first + 1
        at = np.minimum(first[:, None] + np.arange(lengths.max(initial=0)), b * t - 1)
        return first, lengths, action.reshape(-1)[at]

    def tail(self) -> "Rollout":
        """What the next rollout needs of this one: the steps that unfinished games reach back, and where all stand."""
        unfinished = self.unfinished()
        if self.last_known.any():
            unfinished = torch.zeros_like(unfinished)  # cut, and nothing is carried
        first = len(unfinished) - int(unfinished.sum(0).max())
        steps = {name: getattr(self, name)[first:].clone() for name in STEPS}
        extras = {name: x[first:].clone() for name, x in self.extras.items()}
        return replace(self, **steps | {"extras": extras, "played": unfinished[first:].clone(), "carried": 0})

    def state_dict(self) -> dict:
        return {f.name: getattr(self, f.name) for f in fields(self)}

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


STEPS = (  # the tensors [T, B, ...] of a rollout
    "obs", "legal_bits", "player", "action", "log_prob", "exploration", "value", "rewards", "outcomes", "done",
    "bootstrap", "history", "game_stream", "state", "logits", "played", "learner",
)  # fmt: skip


def legal_of(bits: Tensor, num_actions: int) -> Tensor:
    """Legal actions [..., A] bool from their bits [..., W]."""
    rows = bits.reshape(-1, bits.shape[-1]).numpy()
    return torch.from_numpy(unpack(rows, num_actions)).view(*bits.shape[:-1], num_actions)


class Opponents(Protocol):
    """Who sits in the seats that are not the learner's, as `collect` asks at each step. It draws them by itself."""

    def learner_moves(self, env: Env) -> np.ndarray:
        """[B] bool: the player to move in that row is the learner."""

    def act(self, env: Env, probs: np.ndarray, part: slice) -> None:
        """Write into `probs` [B, A] float32 what those to move in the other rows of `part` do; it is sampled from."""

    def extras(self, env: Env) -> Mapping[str, Tensor]:
        """[B, ...] each: what the rollout is to keep of this decision; mostly nothing."""

    def stepped(self, env: Env) -> None:
        """The env has made a step: `env.rewards` were earned, and where `env.done` a new game has begun."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


Notes = Callable[[Env, np.ndarray], Mapping[str, Tensor]]
"""(env, rows [n] int64 where the learner is to move) -> [n, ...] each, for `Rollout.extras`; 0 in other rows."""


@torch.no_grad()
def collect(
    env: Env,
    policy: nn.Module,
    num_steps: int,
    *,
    collecting: Collecting = Collecting(),
    opponents: Opponents | None = None,
    previous: Rollout | None = None,
    bonus_coef: float = 0.0,
    team_share: float = 0.0,
    keep_logits: bool = False,
    notes: Notes | None = None,
) -> Rollout:
    """Play `num_steps` decisions in every row of `env`; games and memories go on from call to call.

    `policy` plays all seats, or those that `opponents` leave it. Log-probs are of the distribution that was sampled
    from, temperature and exploration included; logits of the policy with its temperature. Unfinished games are treated
    as `collecting.cut_games` says.

    Args:
        previous: the rollout before; None begins with empty memories and carries nothing.
        bonus_coef: weight of the game's bonus in `rewards`.
        team_share: each player's rewards become so much of its team's mean, and the rest its own.
        keep_logits: for a replay; 4 A bytes per decision.
        notes: what is to be kept of the learner's decisions besides, see there.

    Raises:
        FloatingPointError: the policy's output cannot be sampled from.
    """
    collecting.check_steps(num_steps)
    shapes = bonus_coef != 0 or team_share != 0
    sums_to_zero = _sums_to_zero(env, bonus_coef, team_share)
    actor = _Actor(env, policy, collecting, opponents, keep_logits, previous, sums_to_zero, notes)
    carry = collecting.cut_games == "carry" and previous is not None
    unfinished = previous.unfinished() if carry else None
    carried = int(unfinished.sum(0).max()) if carry else 0
    steps = _allocate(env, actor, carried + num_steps, shapes)
    extras: dict[str, Tensor] = {}
    if carried:
        for name, tensor in steps.items():
            before = getattr(previous, name)[-carried:]
            if before.shape == tensor[:carried].shape:  # logits are there from one rollout on only
                tensor[:carried] = before
        steps["played"][:carried] = unfinished[-carried:]
    for i in range(carried, carried + num_steps):
        for part in env.parts:
            if i > carried:
                _receive(env, part, steps, i - 1, actor, bonus_coef, team_share)
            now = {name: tensor[i, part] for name, tensor in steps.items()}
            for name, x in actor.act(now, part).items():
                if name not in extras:
                    extras[name] = _room_for(name, x, carried + num_steps, env.num_envs, previous if carried else None)
                extras[name][i, part] = x
            env.send(now["action"].numpy(), part)
    for part in env.parts:
        _receive(env, part, steps, carried + num_steps - 1, actor, bonus_coef, team_share)
    last_value, last_known = actor.value_at_cut()
    return Rollout(
        **steps,
        extras=extras,
        carried=carried,
        last_value=last_value,
        last_known=last_known,
        last_state=actor.state,
        num_actions=env.game.num_actions,
        temperature=float(collecting.temperature),  # the CLI's number types cannot be loaded with weights_only
    )


def _allocate(env: Env, actor: "_Actor", t: int, shapes_rewards: bool) -> dict[str, Tensor]:
    """The tensors [T, B, ...] of a rollout of t steps; rewards are the outcomes if nothing shapes them."""
    b, p = env.num_envs, env.game.num_players
    obs = torch.empty(t, *env.obs.shape, dtype=torch.from_numpy(env.obs).dtype)
    outcomes = torch.empty(t, b, p)
    return {
        "obs": obs,
        "legal_bits": torch.empty(t, b, -(-env.game.num_actions // 8), dtype=torch.uint8),
        "player": torch.empty(t, b, dtype=torch.int8),
        "action": torch.empty(t, b, dtype=torch.int64),
        "log_prob": torch.empty(t, b),
        "exploration": torch.zeros(t, b),
        "value": torch.zeros(t, b),
        "rewards": torch.empty(t, b, p) if shapes_rewards else outcomes,
        "outcomes": outcomes,
        "done": torch.empty(t, b, dtype=torch.bool),
        "bootstrap": torch.zeros(t, b, p),
        "history": torch.empty(t, *env.history.shape, dtype=obs.dtype),
        "game_stream": torch.empty(t, b, dtype=torch.int64),
        "state": torch.zeros(t, b, *actor.state.shape[2:]),
        "logits": torch.zeros(t, b, env.game.num_actions if actor.keep_logits else 0),
        "played": torch.ones(t, b, dtype=torch.bool),
        "learner": torch.ones(t, b, dtype=torch.bool),
    }


def _room_for(name: str, x: Tensor, t: int, b: int, previous: Rollout | None) -> Tensor:
    """[T, B, ...] for an extra of which `x` [n, ...] is one step, with what is carried of the rollout before."""
    room = x.new_zeros(t, b, *x.shape[1:])
    if previous is not None and name in previous.extras:
        carried = int(previous.unfinished().sum(0).max())
        before = previous.extras[name][-carried:]
        need(
            before.dtype == x.dtype and before.shape[1:] == room.shape[1:],
            f"rollout.extras.{name} is {before.dtype} {list(before.shape[1:])} a step, "
            f"needs {x.dtype} {list(room.shape[1:])}",
        )
        room[:carried] = before
    return room


def _sums_to_zero(env: Env, bonus_coef: float, team_share: float) -> bool:
    """What is learned from sums to 0 over the players."""
    game = env.game
    return game.zero_sum and (bonus_coef == 0 or game.bonus_zero_sum) and team_share == 0


def _receive(
    env: Env, part: slice, steps: dict[str, Tensor], i: int, actor: "_Actor", bonus_coef: float, team_share: float
) -> None:
    """Record what step i has brought in these rows: the outcome, and what is learned from it."""
    env.receive(part)
    if actor.opponents is not None:
        actor.opponents.stepped(env)
    outcomes, rewards = torch.from_numpy(env.rewards[part]), steps["rewards"][i, part]
    steps["outcomes"][i, part] = outcomes
    steps["done"][i, part] = torch.from_numpy(env.done[part])
    if bonus_coef:
        rewards[:] = outcomes + bonus_coef * torch.from_numpy(env.bonus[part])
    elif team_share:
        rewards[:] = outcomes
    if team_share:
        mates = torch.tensor(env.game.team).unsqueeze(0) == torch.tensor(env.game.team).unsqueeze(1)  # [P, P]
        mean = mates / mates.sum(1, keepdim=True)
        rewards[:] = (1 - team_share) * rewards + team_share * rewards @ mean.T
    if env.truncated[part].any():
        steps["bootstrap"][i, part] = actor.value_of_truncated(part)
    actor.forget(env.done[part], part)


class _Actor:
    """The policy at the table: asks it row by row, draws actions, and keeps the memory [B, P, *S] of each seat."""

    def __init__(
        self,
        env: Env,
        policy: nn.Module,
        collecting: Collecting,
        opponents: Opponents | None,
        keep_logits: bool,
        previous: Rollout | None,
        sums_to_zero: bool,
        notes: Notes | None,
    ):
        self.env, self.policy, self.collecting, self.opponents = env, policy, collecting, opponents
        self.notes, self.keep_logits, self.device = notes, keep_logits, next(policy.parameters()).device
        two = env.game.num_players == 2
        self.mirrored = two and env.game.perfect_information and sums_to_zero  # one's value is minus the other's
        self.merges = collecting.merge_rows  # until a step shows that it does not pay
        self.explores = collecting.explores(env.num_envs, env.game.num_players)
        shape = (env.num_envs, env.game.num_players, *(getattr(policy, "state_shape", ()) or (0,)))
        self.state = torch.zeros(shape) if previous is None else previous.last_state.clone()
        self.has_state = self.state.shape[2:] != (0,)
        self._rows = torch.arange(env.num_envs)

    def act(self, now: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
        """Fill in one step of a rollout in these rows, [n, ...], up to the action; the extras [n, ...] of it."""
        env, player = self.env, torch.from_numpy(self.env.player[part])
        now["obs"][:] = torch.from_numpy(env.obs[part])
        now["legal_bits"][:] = torch.from_numpy(pack(env.legal[part]))
        now["player"][:] = player
        now["game_stream"][:] = torch.from_numpy(env.game_streams[part].view(np.int64))
        now["history"][:] = torch.from_numpy(env.history[part])
        if self.explores is not None:
            rates = self.explores[part].gather(1, player.long().unsqueeze(1))
            now["exploration"][:] = rates.squeeze(1)
        if self.opponents is not None:
            now["learner"][:] = torch.from_numpy(self.opponents.learner_moves(env)[part])
        rows = None if bool(now["learner"].all()) else now["learner"].nonzero().squeeze(1)
        values, extras = self._decide(now, part, rows)
        others = None
        if rows is not None:
            others = ~now["learner"].numpy()
            now["exploration"][now["learner"].logical_not()] = 0.0
            values = self._with_others(values, part)
        if self.opponents is not None:
            extras |= {name: x[part] for name, x in self.opponents.extras(env).items()}
        action, log_prob = draw(
            env, values, now["legal_bits"].numpy(), is_probs=others, temperature=self.collecting.temperature,
            exploration=now["exploration"].numpy(), part=part,
        )  # fmt: skip
        now["action"][:] = torch.from_numpy(action)
        now["log_prob"][:] = torch.from_numpy(log_prob)
        if rows is not None:
            now["log_prob"][now["learner"].logical_not()] = 0.0
        return extras

    def _with_others(self, values: np.ndarray, part: slice) -> np.ndarray:
        """The learner's logits [n, A] of these rows, and the opponents' probabilities in theirs."""
        if len(values) == self.env.num_envs:
            self.opponents.act(self.env, values, part)
            return values
        of_all = np.zeros((self.env.num_envs, values.shape[1]), np.float32)
        of_all[part] = values
        self.opponents.act(self.env, of_all, part)
        return of_all[part]

    def _decide(self, now: dict[str, Tensor], part: slice, rows: Tensor | None):
        """Logits [n, A] of the part's learner's rows (null: all; elsewhere left open for opponents), its extras."""
        obs, legal = now["obs"], torch.from_numpy(self.env.legal[part])
        here = torch.arange(len(obs)) if rows is None else rows
        memory = self.state[part]
        state = memory[here, now["player"][here].long()] if self.has_state else None
        if rows is not None:
            obs, legal = obs[rows], legal[rows]
        if len(here):
            output = self.evaluate(obs, legal, now["legal_bits"][here], state)
            logits, value = output.logits.cpu().float(), output.value.cpu().float()
            if self.has_state:
                now["state"][here] = state
                memory[here, now["player"][here].long()] = output.state.cpu().float()
            extras = {name: x.cpu() for name, x in output.extras.items()}
            if self.notes is not None:
                extras |= self.notes(self.env, self._rows[part][here].numpy())
        else:
            logits, value, extras = torch.empty(0, legal.shape[1]), torch.empty(0), {}
        if rows is None:
            now["value"][:] = value
            values = logits
        else:
            now["value"][rows] = value
            values = torch.where(torch.from_numpy(self.env.legal[part]), 0.0, MASKED)
            values[rows] = logits
            blank = {name: x.new_zeros(len(now["obs"]), *x.shape[1:]) for name, x in extras.items()}
            extras = {name: blank[name].index_copy_(0, rows, x) for name, x in extras.items()}
        if self.keep_logits:
            now["logits"][:] = values
            now["logits"][here] = logits / self.collecting.temperature
        return values.numpy(), extras

    def evaluate(self, obs: Tensor, legal: Tensor, bits: Tensor | None = None, state: Tensor | None = None):
        """The policy's PolicyOutput for obs [N, *D], legal [N, A], their bits [N, W] and memories [N, *S]."""
        more = () if state is None else (state.to(self.device),)
        if not self.merges or state is not None or bits is None:
            return self.policy(obs.to(self.device), legal.to(self.device), *more)
        first, row = merge_equal_rows(obs, bits)
        self.merges = len(first) <= MOST_DISTINCT * len(row)
        output = self.policy(obs[first].to(self.device), legal[first].to(self.device))
        extras = {name: x.cpu()[row] for name, x in output.extras.items()}
        return PolicyOutput(output.logits.cpu()[row], output.value.cpu()[row], None, extras)

    def forget(self, done: np.ndarray, part: slice) -> None:
        """Where `done` [n] bool a new game has begun in these rows: nobody remembers anything of it."""
        if self.has_state and done.any():
            self.state[part][torch.from_numpy(done)] = 0.0

    def value_at_cut(self) -> tuple[Tensor, Tensor]:
        """What each player's next decision is worth where the games stand, [B, P], and whose is known, [B, P] bool."""
        env, p = self.env, self.env.game.num_players
        known = torch.zeros(env.num_envs, p, dtype=torch.bool)
        value = torch.zeros(env.num_envs, p)
        if self.collecting.cut_games == "carry":
            return value, known
        player = torch.from_numpy(env.player).long()
        state = self.state[self._rows, player] if self.has_state else None
        legal = torch.from_numpy(env.legal)
        movers = self.evaluate(torch.from_numpy(env.obs), legal, torch.from_numpy(pack(env.legal)), state).value.cpu()
        value[self._rows, player] = movers.float()
        known[self._rows, player] = True
        if self.collecting.cut_games == "drop":
            return value, known
        known[:] = True
        if self.mirrored:
            value[self._rows, 1 - player] = -movers.float()  # asked where the critic was trained
        elif p > 1:
            everybody = self._value_of_everybody(torch.from_numpy(env.observe_all()), self.state)
            value = torch.where(torch.arange(p) == player.unsqueeze(1), value, everybody)
            value[torch.from_numpy(env.out())] = 0.0
        return value, known

    def value_of_truncated(self, part: slice) -> Tensor:
        """[n, P] in these rows: each player's value where a game was truncated, 0 elsewhere."""
        rows = torch.from_numpy(self.env.truncated[part])
        memory = self.state[part]
        values = torch.zeros(len(rows), self.env.game.num_players)
        final_obs = torch.from_numpy(self.env.final_obs[part])[rows]
        if self.mirrored:
            mover = torch.from_numpy(self.env.final_player[part])[rows].long().unsqueeze(1)
            obs = final_obs[torch.arange(len(final_obs)), mover.squeeze(1)]  # where the critic was trained
            legal = torch.ones(len(obs), self.env.game.num_actions, dtype=torch.bool)
            state = memory[rows, mover.squeeze(1)] if self.has_state else None
            value = self.evaluate(obs, legal, None, state).value.cpu().float().unsqueeze(1)
            values[rows] = torch.where(torch.arange(2) == mover, value, -value)
        else:
            values[rows] = self._value_of_everybody(final_obs, memory[rows])
        values[torch.from_numpy(self.env.final_out[part]) & rows.unsqueeze(1)] = 0.0
        return values

    def _value_of_everybody(self, obs: Tensor, state: Tensor) -> Tensor:
        """[N, P]: each player's value of its own infostate, obs [N, P, *D], with memories [N, P, *S]."""
        n, p = obs.shape[:2]
        legal = torch.ones(n * p, self.env.game.num_actions, dtype=torch.bool)
        state = state.flatten(0, 1) if self.has_state else None
        return self.evaluate(obs.flatten(0, 1), legal, None, state).value.cpu().float().view(n, p)
