"""A rollout out of a checkpoint, held against the env it belongs to before anything is computed from it.

Dtypes, shapes and ranges of all tensors are checked first. Where the rules are known (`VectorEnv`), every game that
begins in the rollout is then played again from its stream and its actions: who moves, what is legal, what is seen, what
is earned and when a game ends must be what the rollout says, and the unfinished games must be those of the env. A
memory must be empty where a seat has not decided yet. What the rules do not tell (values, log-probs, other memories) is
held to its range only. Letters as in `lit_rl.rollout`.
"""

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from envs.env import Env, SavedGamesError
from envs.vector_env import Games, VectorEnv
from lit_rl.rollout import STEPS, Collecting, Rollout
from lit_rl.row_index import obs_dtype
from lit_rl.run.errors import ArtefactError
from lit_rl.run.saved_values import need, saved_dict, saved_float, saved_int, saved_tensor

ROUNDING = 1e-6


def rollout_of_state(
    state: dict, env: Env, collecting: Collecting, state_shape: tuple[int, ...] = (), everybody_learns: bool = True
) -> Rollout:
    """What `Rollout.state_dict` returned, for the games that `env` holds.

    Args:
        state_shape: of the policy's memory.
        everybody_learns: there are no opponents.

    Raises:
        ArtefactError: names the tensor and what is wrong with it.
    """
    saved_dict(state, "rollout", [f.name for f in fields(Rollout)])
    game, b = env.game, env.num_envs
    p, d, w, dtype = game.num_players, game.obs_shape, -(-game.num_actions // 8), obs_dtype(game)
    memory = tuple(state_shape) or (0,)
    t = len(saved_tensor(state["player"], "rollout.player", torch.int8, (None, b), 0, p - 1))
    logits = state["logits"].shape[-1] if isinstance(state["logits"], Tensor) and state["logits"].ndim else -1
    earned = 2 * game.max_return + ROUNDING
    kinds = {  # dtype, shape beyond [T, B], smallest, largest
        "obs": (dtype, d, None, None),
        "legal_bits": (torch.uint8, (w,), 0, 255),
        "player": (torch.int8, (), 0, p - 1),
        "action": (torch.int64, (), 0, game.num_actions - 1),
        "log_prob": (torch.float32, (), None, ROUNDING),
        "exploration": (torch.float32, (), 0, 1),
        "value": (torch.float32, (), None, None),
        "rewards": (torch.float32, (p,), None, None),
        "outcomes": (torch.float32, (p,), -earned, earned),
        "done": (torch.bool, (), None, None),
        "bootstrap": (torch.float32, (p,), None, None),
        "history": (dtype, (env.history.shape[1], *d), None, None),
        "game_stream": (torch.int64, (), None, None),
        "state": (torch.float32, memory, None, None),
        "logits": (torch.float32, (game.num_actions if logits else 0,), None, None),
        "played": (torch.bool, (), None, None),
        "learner": (torch.bool, (), None, None),
    }
    found = {
        name: saved_tensor(state[name], f"rollout.{name}", kind, (t, b, *shape), low, high)
        for name, (kind, shape, low, high) in kinds.items()
    }
    if state["rewards"] is state["outcomes"]:
        found["rewards"] = found["outcomes"]
    extras = {}
    for name, value in saved_dict(state["extras"], "rollout.extras").items():
        need(isinstance(value, Tensor) and value.ndim >= 2, f"rollout.extras.{name[:50]} is no tensor [T, B, ...]")
        low = None if value.dtype.is_floating_point else 0
        extras[name] = saved_tensor(value, f"rollout.extras.{name[:50]}", value.dtype, (t, b, *value.shape[2:]), low)
    rollout = Rollout(
        **found,
        extras=extras,
        carried=saved_int(state["carried"], "rollout.carried", 0, t),
        last_value=saved_tensor(state["last_value"], "rollout.last_value", torch.float32, (b, p)),
        last_known=saved_tensor(state["last_known"], "rollout.last_known", torch.bool, (b, p)),
        last_state=saved_tensor(state["last_state"], "rollout.last_state", torch.float32, (b, p, *memory)),
        num_actions=saved_int(state["num_actions"], "rollout.num_actions", game.num_actions, game.num_actions),
        temperature=saved_float(state["temperature"], "rollout.temperature", 1e-30),
    )
    _check_consistency(rollout, collecting, everybody_learns)
    if isinstance(env, VectorEnv) and t:
        try:
            _check_rules(rollout, env, carries=collecting.cut_games == "carry")
        except SavedGamesError as error:
            raise ArtefactError(f"checkpoint: rollout: {error}") from None
    return rollout


def _check_consistency(rollout: Rollout, collecting: Collecting, everybody_learns: bool) -> None:
    last, action = rollout.legal_bits[..., -1], rollout.action
    spare = 8 * rollout.legal_bits.shape[-1] - rollout.num_actions
    need(not bool((last >> (8 - spare)).any()) or not spare, "rollout.legal_bits has actions that do not exist")
    byte = rollout.legal_bits.gather(2, (action >> 3).unsqueeze(2)).squeeze(2).long()
    need(bool((byte >> (action & 7) & 1).all()), "rollout.action is not legal by rollout.legal_bits")
    need(not everybody_learns or bool(rollout.learner.all()), "rollout.learner leaves out decisions of the learner's")
    over = rollout.done[-1:].flatten().nonzero().squeeze(1)
    need(not bool(rollout.last_state[over].any()), "rollout.last_state is not 0 where a game has just ended")
    known = bool(rollout.last_known.any())
    need(not bool(rollout.last_value[~rollout.last_known].any()), "rollout.last_value is not 0 where it is not known")
    need(known == (collecting.cut_games != "carry"), "rollout.last_known does not fit credit.cut_games")
    new = rollout.played[rollout.carried :]
    whole = bool(new.all()) or torch.equal(rollout.played, rollout.unfinished())
    need(whole, "rollout.played leaves out decisions that were played")
    begun = rollout.played[1:] >= rollout.played[:-1]
    need(bool(begun.all()), "rollout.played has gaps")
    over = rollout.done[: rollout.carried] & rollout.played[: rollout.carried]
    need(not bool(over.any()), f"rollout.carried is {rollout.carried}, and games were over by then")
    if known:
        need(rollout.carried == 0, f"rollout.carried is {rollout.carried}, and nothing is carried")


def _check_rules(rollout: Rollout, env: VectorEnv, carries: bool) -> None:
    """Play the games that begin in the rollout again."""
    t, b = rollout.player.shape
    rows = {name: _by_row(getattr(rollout, name)) for name in STEPS}  # [B * T, ...]
    first, lengths, moves = rollout.games(carries)
    if not len(first):
        need(not carries or not env.num_decisions.any(), "rollout.played leaves out the games that are running")
        return
    last, longest = first + lengths - 1, int(lengths.max())
    need(longest <= env.game.max_steps, f"rollout: a game of {longest} decisions, at most {env.game.max_steps}")
    games = Games(env, rows["game_stream"][first].view(np.uint64), lengths, moves)
    undecided = np.ones((len(first), env.game.num_players), np.bool_)
    first, now = first[games.rows], games.buffers
    bits = np.unpackbits(rows["legal_bits"], axis=1, count=env.game.num_actions, bitorder="little").view(np.bool_)
    for i in range(games.longest):
        n = games.going_on(i)
        here, player = first[:n] + i, now.player[:n].astype(np.int64)
        _need_same(rows["player"][here], now.player[:n], "player")
        new = undecided[np.arange(n), player]
        need(not rows["state"][here][new].any(), "rollout.state is not 0 where a seat first decides in a game")
        undecided[np.arange(n), player] = False
        _need_same(bits[here], now.legal[:n], "legal_bits")
        _need_same(rows["obs"][here], now.obs[:n], "obs")
        _need_same(rows["history"][here], now.history[:n], "history")
        _need_same(rows["game_stream"][here].view(np.uint64), now.game_streams[:n], "game_stream")
        games.play(i)
        _need_same(rows["outcomes"][here], now.rewards[:n], "outcomes")
        _need_same(rows["done"][here], now.done[:n], "done")
        cut = now.truncated[:n]
        need(not rows["bootstrap"][here][~cut].any(), "rollout.bootstrap is not 0 where no game was cut off")
    running = ~rows["done"][last]
    row = last[running] // t
    if carries:
        _need_same(env.num_decisions, np.bincount(row, lengths[running], b), "played")
    _need_same(env.num_decisions[row], lengths[running], "done")
    own = now.game_streams[np.argsort(games.rows)][running]
    _need_same(env.game_streams[row], own, "game_stream")
    made = np.arange(longest) < lengths[running][:, None]
    _need_same(env.moves[row][:, :longest][made[:, : env.moves.shape[1]]], moves[running][made], "action")


def _by_row(tensor: Tensor) -> np.ndarray:
    """[T, B, ...] as [B * T, ...]."""
    t, b = tensor.shape[:2]
    return np.ascontiguousarray(tensor.transpose(0, 1).numpy()).reshape(b * t, *tensor.shape[2:])


def _need_same(there: np.ndarray, here: np.ndarray, name: str) -> None:
    need(np.array_equal(there, here), f"rollout.{name} is not what the rules say of the games in it")
