"""Replays: finished games as records that the rules alone can play again, and their verification move by move.

A record, one line of the file (`run.replay_file`): index, iteration, decisions (made by then in the run), row (of
the env), stream (the row's chance stream when the game began, hexadecimal), weights (hash of the policy that played),
precision, temperature, carried (so many decisions at the front fell to earlier weights), truncated, history (all
actions, chance's and players', in order) and moves: per decision player, legal, logits (of legal actions, divided by
the temperature), value, log_prob (as sampled), exploration (where it was more than 0), rewards (of every player until
the next decision), extras (what the algorithm adds). Obs are recomputed. Of a move that was not the learner's,
`opponent` is true and logits, value, log_prob and extras are missing.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from envs.game import CHANCE, TERMINAL, Game
from envs.rng import uniform
from lit_rl.policy import MASKED, PolicyOutput, state_shape_of
from lit_rl.rollout import Rollout, legal_of
from lit_rl.run.errors import ArtefactError
from lit_rl.run.plain_file import cut
from lit_rl.run.replay_file import read

EXCLUDED = MASKED / 1e6  # a logit below stands for a probability of 0, whatever the temperature


def weights_hash(module: nn.Module) -> str:
    """sha256 of a module's state: names, dtypes, shapes, bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class Position:
    """One game as its rules see it."""

    def __init__(self, game: Game):
        self.game, self.state = game, game.new_state()[0]

    @property
    def player(self) -> int:
        return int(self.game.current_player(self.state))

    def legal(self) -> np.ndarray:
        """[A] bool."""
        legal = np.zeros(self.game.num_actions, np.bool_)
        self.game.legal_actions(self.state, legal)
        return legal

    def obs(self) -> np.ndarray:
        """[*D], the infostate of the player to move."""
        obs = np.zeros(self.game.obs_shape, self.game.obs_dtype)
        self.game.observe(self.state, self.player, obs)
        return obs

    def draw(self, stream: np.ndarray) -> int:
        """Chance's outcome as `VectorEnv` draws it from `stream` [1] uint64, which advances."""
        probs = np.zeros(self.game.num_chance_outcomes)
        self.game.chance_probs(self.state, probs)
        threshold, cumulated, outcome = uniform(stream, 0), 0.0, 0
        for p in probs.tolist():
            cumulated += p
            outcome += cumulated <= threshold
        while outcome == len(probs) or probs[outcome] <= 0.0:
            outcome -= 1
        return outcome

    def play(self, action: int) -> np.ndarray:
        """Play a player's or chance's action: [P] float64, what it earned."""
        self.game.apply_action(self.state, action)
        earned = np.zeros(self.game.num_players)
        self.game.rewards(self.state, earned)
        return earned


def finished_games(rollout: Rollout) -> Iterator[tuple[int, int, int]]:
    """(row, first step, last step) of each game that ended in the rollout and has all its decisions there."""
    cut = bool(rollout.last_known.any())  # then games that began in the rollout before were not carried
    for last, row in rollout.done[rollout.carried :].nonzero().tolist():
        last += rollout.carried
        outside = rollout.done[:last, row] | ~rollout.played[:last, row]
        first = int(outside.nonzero().max()) + 1 if outside.any() else 0
        if (first > 0 or not cut) and rollout.game_stream[first, row] != 0:
            yield row, first, last


def game_record(game: Game, rollout: Rollout, row: int, first: int, last: int) -> dict:
    """The game in steps first..last of `row`, its chance outcomes drawn again from where its stream stood.

    Raises:
        RuntimeError: the rollout does not follow from the rules.
    """
    stream = int(rollout.game_stream[first, row]) % 2**64
    position, chance = Position(game), np.array([stream], np.uint64)
    history, moves = [], []
    for t in range(first, last + 2):
        while position.player == CHANCE:
            history.append(position.draw(chance))
            position.play(history[-1])
        if t > last:
            break
        legal = np.flatnonzero(position.legal()) if position.player >= 0 else np.empty(0, np.int64)
        action, bits = int(rollout.action[t, row]), rollout.legal_bits[t, row]
        recorded = legal_of(bits, rollout.num_actions).nonzero().flatten().numpy()
        if position.player != rollout.player[t, row] or not np.array_equal(legal, recorded) or action not in legal:
            raise RuntimeError(f"{game.name}, env row {row}, step {t}: what was played does not follow from the rules")
        history.append(action)
        position.play(action)
        move = {
            "player": rollout.player[t, row], "legal": legal, "logits": rollout.logits[t, row, legal],
            "value": rollout.value[t, row], "log_prob": rollout.log_prob[t, row], "rewards": rollout.outcomes[t, row],
        }  # fmt: skip
        if not rollout.learner[t, row]:
            moves.append({key: move[key] for key in ("player", "legal", "rewards")} | {"opponent": True})
            continue
        if rollout.exploration[t, row] > 0:
            move["exploration"] = rollout.exploration[t, row]
        extras = {name: x[t, row] for name, x in rollout.extras.items()}
        moves.append(move | ({"extras": extras} if extras else {}))
    return {
        "row": row, "stream": f"{stream:016x}", "carried": max(0, min(rollout.carried, last + 1) - first),
        "temperature": rollout.temperature, "truncated": position.player != TERMINAL, "history": history,
        "moves": moves,
    }  # fmt: skip


@dataclass
class Report:
    """What a verification has looked at; it raises rather than report an error."""

    games: int = 0
    decisions: int = 0
    games_of_weights: int = 0  # games with decisions of the given weights
    decisions_of_weights: int = 0  # whose logits and values were recomputed
    max_logit_error: float = 0.0
    max_value_error: float = 0.0


def verify(
    path: Path,
    game: Game,
    policy: nn.Module | None = None,
    weights: str | None = None,
    tolerance: float = 1e-6,
) -> Report:
    """Play every game of the file again by the rules; hold logits and values against `policy` where it played.

    Checked of every game: chance outcomes (against its stream), players, legal sets, actions, rewards, its end, and
    each log_prob (against the logits). Where the game's `weights` are `weights` (null: the hash of `policy`) and it was
    played in fp32, logits and values are recomputed, one game at a time; they may differ by `tolerance` times
    the largest of them in the game, or 1 if that is larger: other batches, other processors round differently. A policy
    with a memory goes along each player's decisions; of a game that older weights began it is not known what they
    remembered, so only the rules are checked there.

    Raises:
        ArtefactError: names the first bad line.
    """
    report = Report()
    weights = weights_hash(policy) if policy is not None and weights is None else weights
    for number, record in read(path):
        with refusing(path, number):
            if number == 1:
                found, needed = (record["name"], record["version"]), (game.name, game.version)
                _need(found == needed, "is of {} {}, the rules here are {} {}".format(*map(cut, found), *needed))
                _check_form(record, HEADER, "the header")
                continue
            _check_form(record, RECORD, "the game")
            for move in record["moves"]:
                _check_form(move, MOVE, "a move")
            obs, legal = check_rules(game, record)
            report.games += 1
            report.decisions += len(obs)
            carried = record["carried"]
            _need(type(carried) is int and 0 <= carried < len(obs), f"carried={carried} of {len(obs)} decisions")
            known = policy is not None and not (state_shape_of(policy) and carried)
            if known and record["weights"] == weights and record["precision"] == "32-true":
                errors = _check_policy(policy, record, obs, legal, carried, tolerance)
                report.games_of_weights += 1
                report.decisions_of_weights += sum("logits" in move for move in record["moves"][carried:])
                report.max_logit_error = max(report.max_logit_error, errors[0])
                report.max_value_error = max(report.max_value_error, errors[1])
    return report


@contextmanager
def refusing(path: Path, number: int) -> Iterator[None]:
    """Whatever a record that is not as it should be makes us stumble over becomes an ArtefactError with its line."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ArtefactError(f"{path}, line {number}: {what}; not what this game and policy would write") from None


def _need(ok: bool, what: str) -> None:
    if not ok:
        raise ValueError(what)


def _check_form(record: Mapping, form: Mapping[str, Callable], what: str) -> None:
    """Names that we write, no others, and values of the kind that we write; what they say is looked at elsewhere."""
    unknown, missing = sorted(record.keys() - form.keys()), sorted(form.keys() - record.keys() - OPTIONAL)
    _need(not unknown, f"{what} says {[name[:50] for name in unknown[:5]]}, which means nothing")
    _need(not missing, f"{what} does not say {missing[:5]}")
    for name, value in record.items():
        _need(form[name](value), f"{what} has {name}={cut(value)}")


def _is_count(value) -> bool:
    large = isinstance(value, str) and value.isdecimal()  # JSON would round it
    return large or (type(value) is int and value >= 0)


def _is_text(value) -> bool:
    return isinstance(value, str) and len(value) <= 500


def _are_numbers(value) -> bool:
    """A number, or lists of them."""
    return all(map(_are_numbers, value)) if isinstance(value, list) else type(value) in (int, float, bool)


def _are_extras(value) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value)) and all(map(_are_numbers, value.values()))


HEADER = {
    "kind": _is_text, "schema": lambda x: type(x) is int and x >= 1, "run": _is_text, "continues": _is_text,
    "game": _is_text, "name": _is_text, "version": _is_text, "seed": _is_count,
}  # fmt: skip
RECORD = {
    "kind": _is_text, "index": _is_count, "iteration": _is_count, "decisions": _is_count, "row": _is_count,
    "stream": _is_text, "weights": lambda x: isinstance(x, str) and re.fullmatch("[0-9a-f]{64}", x) is not None,
    "precision": _is_text, "temperature": lambda x: type(x) in (int, float) and x > 0, "carried": _is_count,
    "truncated": lambda x: type(x) is bool, "history": _are_numbers, "moves": lambda x: isinstance(x, list),
}  # fmt: skip
MOVE = {name: _are_numbers for name in ("player", "legal", "logits", "value", "log_prob", "exploration", "rewards")}
OPTIONAL = {"continues", "seed", "logits", "value", "log_prob", "exploration", "opponent", "extras"}
MOVE |= {"opponent": lambda x: type(x) is bool, "extras": _are_extras}


def check_rules(game: Game, record: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Play `record` by the rules alone: obs [n, *D] and legal [n, A] of its n decisions.

    Raises:
        ValueError: the first thing that breaks a rule; or what Python says of a record of another form.
    """
    position, chance = Position(game), np.array([int(record["stream"], 16)], np.uint64)
    moves, observed, legal_sets, paid = iter(record["moves"]), [], [], []
    _need(len(record["history"]) <= game.max_steps, f"{len(record['history'])} actions, at most {game.max_steps}")
    for i, action in enumerate(record["history"]):
        player = position.player
        _need(player != TERMINAL, f"action {i} comes after the end of the game")
        if player == CHANCE:
            outcome = position.draw(chance)
            _need(
                action == outcome and type(action) is int, f"chance outcome {i} is {action}, the stream says {outcome}"
            )
        else:
            move, mask = next(moves, None), position.legal()
            _need(move is not None, f"action {i} is no decision on record")
            legal = np.flatnonzero(mask).tolist()
            _need(move["player"] == player, f"action {i} is player {player}'s, not {move['player']}'s")
            _need(move["legal"] == legal, f"action {i}: legal are {legal}, not {move['legal']}")
            _need(type(action) is int and action in legal, f"action {i} is {action}, legal are {legal}")
            if move.get("opponent") is not True:
                _check_log_prob(move, legal.index(action), i)
            observed.append(position.obs())
            legal_sets.append(mask)
            paid.append(np.zeros(game.num_players, np.float32))
        earned = position.play(action)
        if paid:
            paid[-1] += earned  # in float32, as the env adds up
    _need(next(moves, None) is None, "more decisions on record than actions")
    for i, (move, rewards) in enumerate(zip(record["moves"], paid)):
        _need(move["rewards"] == rewards.tolist(), f"rewards of decision {i} are {rewards.tolist()}")
    _need(position.player != CHANCE, "ends where chance has to play")
    _need(record["truncated"] is (position.player != TERMINAL), "its end is not the end of the game")
    return np.stack(observed), np.stack(legal_sets)


def _check_log_prob(move: Mapping, chosen: int, i: int) -> None:
    logits = torch.tensor(move["logits"], dtype=torch.float64)
    _need(logits.shape == (len(move["legal"]),), f"action {i}: {len(move['logits'])} logits for {move['legal']}")
    exploration = move.get("exploration", 0.0)
    _need(0.0 <= exploration <= 1.0, f"action {i}: exploration={exploration}")
    probs = (1 - exploration) * torch.softmax(logits, -1) + exploration / len(logits)
    error = abs(float(probs.log()[chosen]) - move["log_prob"])
    bound = 1e-6 * max(4.0, _largest(logits))  # fp32 rounds three times here, relative to the largest
    _need(error <= bound, f"log_prob of action {i} is off by {error:.2g}")


def _largest(logits: Tensor) -> float:
    """The largest absolute value, but for those that stand for a probability of 0."""
    return float(torch.where(logits < EXCLUDED, 0.0, logits).abs().max())


@torch.no_grad()
def _answers(policy: nn.Module, obs: Tensor, legal: Tensor, player: list[int]) -> PolicyOutput:
    """Of the decisions [n] of one game, by these players; a memory is each player's own."""
    shape = state_shape_of(policy)
    if not shape:
        return policy(obs, legal)
    memory, found = {p: torch.zeros(1, *shape) for p in player}, []
    for i, p in enumerate(player):
        found.append(policy(obs[i : i + 1], legal[i : i + 1], memory[p]))
        memory[p] = found[-1].state
    return PolicyOutput(torch.cat([x.logits for x in found]), torch.cat([x.value for x in found]))


def _check_policy(
    policy: nn.Module, record: Mapping, obs: np.ndarray, legal: np.ndarray, carried: int, tolerance: float
) -> tuple[float, float]:
    """Largest absolute errors of logits and values of the learner's decisions from `carried` on."""
    chosen = [i for i, move in enumerate(record["moves"]) if i >= carried and move.get("opponent") is not True]
    if not chosen:
        return 0.0, 0.0
    moves, obs, legal = (
        [record["moves"][i] for i in chosen],
        torch.from_numpy(obs[chosen]),
        torch.from_numpy(legal[chosen]),
    )
    output = _answers(policy, obs, legal, [move["player"] for move in moves])
    logits = (output.logits.float() / record["temperature"])[legal]
    errors = []
    for name, ours, theirs in (
        ("logits", logits, torch.tensor([x for move in moves for x in move["logits"]])),
        ("values", output.value, torch.tensor([move["value"] for move in moves])),
    ):
        same = torch.equal(ours < EXCLUDED, theirs < EXCLUDED)
        _need(same, f"{name} are off by more than a number: other actions have probability 0")
        error = float((ours.double() - theirs.double()).abs().max())
        bound = tolerance * max(1.0, _largest(theirs))
        _need(error <= bound, f"{name} are off by {error:.3g}, more than {bound:.3g} (see --tolerance)")
        errors.append(error)
    return errors[0], errors[1]
