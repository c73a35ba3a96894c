"""The contract every game signs: `check_game(game)`, or `python -m envs.contract envs.kuhn_poker` from a shell.

Random games are played by the scalar functions alone; each promise of `envs.game.Game` is checked at every position.
"""

import sys

import numpy as np

from envs.game import CHANCE, TERMINAL, Game, load_game
from envs.structure import DealtThenPublic


class ContractError(ValueError):
    """A game breaks a promise; the message holds the promise, the position and the moves that lead there."""


PROMISES = {
    "declared": "name, version, sizes and dtypes are present and sensible",
    "ends": "a game ends within max_steps, and only then has no player to move",
    "legal": "the player to move always has a legal action",
    "chance": "chance probabilities are not negative and sum to 1",
    "bounds": "functions write inside their buffers only",
    "returns": "rewards are finite, none before the first decision, no total beyond max_return",
    "zero-sum": "rewards sum to 0 (where claimed)",
    "init": "init over the remains of another game begins the same game as init over zeros",
    "infostate": "equal infostates have equal legal actions",
    "hidden": "hidden_from means never sees: no obs of that player until the game ends depends on the action "
    "(where declared)",
    "recall": "equal infostates have equal own pasts (where perfect recall is claimed)",
    "render": "render gives a text",
    "teams": "every player has a team, and teams are numbered from 0 without gaps (where declared)",
    "parts": "the named parts lie inside a flat obs and do not overlap (where declared)",
    "redact": "what redact leaves of a state depends on the player's obs alone, and keeps that and the legal actions "
    "(where declared)",
    "bonus": "bonuses are finite, none before the first decision, and sum to 0 where that is claimed (where declared)",
    "names": "every legal action has a name, and no two share one (where positions name them)",
    "structure": "games that end with equal payoff_class and equal hands are worth the same (where declared)",
    "out": "a player who is out does not decide again in that game (where declared)",
}


def check_game(game: Game, num_games: int = 500, seed: int = 0) -> list[str]:
    """Play `num_games` random games and check every promise; return the promises kept, one line each.

    Raises:
        ContractError: the first broken promise.
    """
    _check_declaration(game)
    rng = np.random.default_rng(seed)
    legal_of: dict[bytes, bytes] = {}
    past_of: dict[bytes, tuple] = {}
    worth_of: dict[tuple, tuple] = {}
    remains, games = game.new_state(), []
    for _ in range(num_games):
        actions = _play(game, rng, legal_of, past_of, worth_of)
        games.append(actions)
        _check_init(game, remains, actions)
        if game.hidden_from is not None:
            _check_hidden(game, rng, actions)
    if game.redact is not None:
        _check_redact(game, games)
    kept = {
        "zero-sum": game.zero_sum,
        "hidden": game.hidden_from is not None,
        "recall": game.perfect_recall,
        "teams": bool(game.teams),
        "parts": bool(game.obs_parts),
        "redact": game.redact is not None,
        "bonus": game.bonus is not None,
        "names": game.names_of is not None,
        "structure": isinstance(game.structure, DealtThenPublic),
        "out": game.out is not None,
    }
    return [f"{name}: {text}" for name, text in PROMISES.items() if kept.get(name, True)]


def _broken(game: Game, promise: str, detail: str, actions: list[int]) -> ContractError:
    return ContractError(f"{game.name} breaks '{promise}' ({PROMISES[promise]}): {detail}; after actions {actions}")


def _check_declaration(game: Game) -> None:
    for name, ok in (
        ("name", bool(game.name)),
        ("version", isinstance(game.version, str) and bool(game.version)),
        ("num_players", game.num_players >= 1),
        ("num_actions", game.num_actions >= 1),
        ("num_chance_outcomes", game.num_chance_outcomes >= 0),
        ("max_steps", game.max_steps >= 1),
        ("max_return", np.isfinite(game.max_return) and game.max_return > 0),
        ("obs_shape", len(game.obs_shape) >= 1 and all(n >= 1 for n in game.obs_shape)),
        ("state_dtype", game.state_dtype.names is not None),
        (
            "roles",
            not game.roles or (len(game.roles) == game.num_players and {*game.roles} == {*range(len({*game.roles}))}),
        ),
        ("action_names", len({*game.action_names}) == len(game.action_names) in (0, game.num_actions)),
        ("chance_names", len({*game.chance_names}) == len(game.chance_names) in (0, game.num_chance_outcomes)),
    ):
        if not ok:
            raise _broken(game, "declared", f"{name}={getattr(game, name)!r}", [])
    if game.teams and (len(game.teams) != game.num_players or {*game.teams} != {*range(len({*game.teams}))}):
        raise _broken(game, "teams", f"teams={game.teams} for {game.num_players} players", [])
    if game.roles and (len(game.roles) != game.num_players or {*game.roles} != {*range(len({*game.roles}))}):
        raise _broken(game, "declared", f"roles={game.roles} for {game.num_players} players", [])
    end = 0
    for name, part in sorted(game.obs_parts.items(), key=lambda item: item[1].start):
        if len(game.obs_shape) != 1 or not (min(part.shape, default=1) >= 1 and end <= part.start):
            raise _broken(game, "parts", f"{name} is {part}, obs_shape={game.obs_shape}, taken up to {end}", [])
        end = part.stop
        if end > game.obs_shape[0]:
            raise _broken(game, "parts", f"{name} ends at {end}, obs_shape={game.obs_shape}", [])


class _Guarded:
    """A zeroed buffer between two canaries, for functions that might write beside it."""

    def __init__(self, shape, dtype):
        size = int(np.prod(shape))
        whole = np.zeros(size + 128, dtype)
        self._canaries = [part.view(np.uint8) for part in (whole[:64], whole[-64:])]
        for part in self._canaries:
            part[:] = 0xA5  # no value that a game would write
        self.array = whole[64 : 64 + size].reshape(shape)

    def intact(self) -> bool:
        return all((part == 0xA5).all() for part in self._canaries)


def _ask(game: Game, question: str, shape, dtype, actions: list[int], *args) -> np.ndarray:
    buffer = _Guarded(shape, dtype)
    getattr(game, question)(*args, buffer.array)
    if not buffer.intact():
        raise _broken(game, "bounds", f"{question} wrote beside its buffer of shape {shape}", actions)
    return buffer.array


def _legal(game, state, actions):
    return _ask(game, "legal_actions", game.num_actions, np.bool_, actions, state)


def _chance(game, state, actions):
    return _ask(game, "chance_probs", game.num_chance_outcomes, np.float64, actions, state)


def _obs(game, state, player, actions):
    return _ask(game, "observe", game.obs_shape, game.obs_dtype, actions, state, player)


def _rewards(game, state, actions):
    return _ask(game, "rewards", game.num_players, np.float64, actions, state)


def _bonus(game, state, actions):
    return _ask(game, "bonus", game.num_players, np.float64, actions, state)


def _play(game: Game, rng, legal_of: dict, past_of: dict, worth_of: dict) -> list[int]:
    """One random game with the promises about single positions; returns its actions."""
    state = game.new_state()[0]
    actions: list[int] = []
    past: list[tuple] = [()] * game.num_players
    totals, decided = np.zeros(game.num_players), False
    gone: set[int] = set()
    hands: list[bytes] = []
    while True:
        if not isinstance(game.render(state), str):
            raise _broken(game, "render", f"render returned {type(game.render(state)).__name__}", actions)
        player = game.current_player(state)
        if player == TERMINAL:
            if isinstance(game.structure, DealtThenPublic):
                ended = (game.structure.payoff_class(state), *hands)
                if ended[0] < 0 or worth_of.setdefault(ended, totals.tolist()) != totals.tolist():
                    detail = f"payoff_class={ended[0]}: worth {totals.tolist()} here, {worth_of.get(ended)} there"
                    raise _broken(game, "structure", detail, actions)
            return actions
        if len(actions) == game.max_steps:
            raise _broken(game, "ends", f"player {player} is to move after max_steps={game.max_steps}", actions)
        if player == CHANCE:
            probs = _chance(game, state, actions)
            if not (probs >= 0).all() or abs(probs.sum() - 1) > 1e-9:
                raise _broken(game, "chance", f"probs={probs.tolist()}", actions)
            action = int(rng.choice(len(probs), p=probs / probs.sum()))
        elif 0 <= player < game.num_players:
            if not decided:
                hands = [_obs(game, state, p, actions).tobytes() for p in range(game.num_players)]
            decided = True
            if player in gone:
                raise _broken(game, "out", f"player {player} decides", actions)
            legal = _legal(game, state, actions)
            if not legal.any():
                raise _broken(game, "legal", f"player {player} has no legal action", actions)
            action = int(rng.choice(np.flatnonzero(legal)))
            if game.names_of is not None:
                _check_names(game, state, np.flatnonzero(legal).tolist(), actions)
            infostate = bytes([player]) + _obs(game, state, player, actions).tobytes()
            if legal_of.setdefault(infostate, legal.tobytes()) != legal.tobytes():
                raise _broken(game, "infostate", f"player {player}: {np.flatnonzero(legal).tolist()} now", actions)
            if game.perfect_recall:
                if past_of.setdefault(infostate, past[player]) != past[player]:
                    raise _broken(game, "recall", f"player {player} forgot something", actions)
                past[player] = (*past[player], infostate, action)
        else:
            raise _broken(game, "ends", f"current_player={player}", actions)
        game.apply_action(state, action)
        actions.append(action)
        earned = _rewards(game, state, actions)
        totals += earned
        if not np.isfinite(earned).all() or np.abs(totals).max() > game.max_return + 1e-9:
            raise _broken(game, "returns", f"rewards={earned.tolist()}, totals={totals.tolist()}", actions)
        if not decided and earned.any():
            raise _broken(game, "returns", f"rewards={earned.tolist()} before the first decision", actions)
        if game.zero_sum and abs(earned.sum()) > 1e-9:
            raise _broken(game, "zero-sum", f"rewards={earned.tolist()}", actions)
        if game.bonus is not None:
            bonus = _bonus(game, state, actions)
            if not np.isfinite(bonus).all() or (bonus.any() and not decided):
                raise _broken(game, "bonus", f"bonus={bonus.tolist()}", actions)
            if game.bonus_zero_sum and abs(bonus.sum()) > 1e-9:
                raise _broken(game, "bonus", f"bonus={bonus.tolist()}, bonus_zero_sum is claimed", actions)
        if game.out is not None:
            gone |= {p for p in range(game.num_players) if game.out(state, p)}


def _check_names(game: Game, state, legal: list[int], actions: list[int]) -> None:
    found: dict[str, int] = {}
    for action in legal:
        names = game.names_of(state, action)
        if not names or any(found.setdefault(name, action) != action for name in names):
            raise _broken(game, "names", f"action {action} is called {names}; taken are {found}", actions)


def _views(game: Game, state, actions: list[int]) -> tuple:
    """All that the functions say of a position; what was earned is asked after an action only."""
    player = game.current_player(state)
    legal = _legal(game, state, actions).tobytes() if player >= 0 else b""
    probs = _chance(game, state, actions).tobytes() if player == CHANCE else b""
    obs = [_obs(game, state, p, actions).tobytes() for p in range(game.num_players)]
    earned = [_rewards(game, state, actions).tobytes()] if actions else []
    if game.bonus is not None and actions:
        earned.append(_bonus(game, state, actions).tobytes())
    gone = [bool(game.out(state, p)) for p in range(game.num_players)] if game.out is not None else []
    return player, legal, probs, obs, earned, gone


def _check_init(game: Game, remains: np.ndarray, actions: list[int]) -> None:
    fresh, used = game.new_state()[0], remains[0]
    game.init(used)
    for i in range(len(actions) + 1):
        if _views(game, fresh, actions[:i]) != _views(game, used, actions[:i]):
            raise _broken(game, "init", "the position differs from that of a fresh state", actions[:i])
        if i < len(actions):
            game.apply_action(fresh, actions[i])
            game.apply_action(used, actions[i])


def _check_hidden(game: Game, rng, actions: list[int]) -> None:
    """Change one action that some player cannot see, replay the rest: that player's obs must stay as it was."""
    nodes = []
    state = game.new_state()[0]
    for i, action in enumerate(actions):
        hidden = [p for p in range(game.num_players) if game.hidden_from(state, p)]
        if hidden:
            nodes.append((i, hidden))
        game.apply_action(state, action)
    for i, hidden in nodes:
        ours, other = game.new_state()[0], game.new_state()[0]
        for action in actions[:i]:
            game.apply_action(ours, action)
            game.apply_action(other, action)
        is_chance = game.current_player(ours) == CHANCE
        possible = np.flatnonzero(_chance(game, ours, actions[:i]) if is_chance else _legal(game, ours, actions[:i]))
        swapped = int(rng.choice(possible))
        for k, action in enumerate(actions[i:], start=i):
            theirs = swapped if k == i else action
            player = game.current_player(other)
            if player != game.current_player(ours) or player == TERMINAL:
                break  # the hidden action has become known by its consequences
            allowed = _chance(game, other, actions[:k]) if player == CHANCE else _legal(game, other, actions[:k])
            if not allowed[theirs]:
                break
            game.apply_action(ours, action)
            game.apply_action(other, theirs)
            if game.current_player(ours) == TERMINAL or game.current_player(other) == TERMINAL:
                break
            for p in hidden:
                if not np.array_equal(_obs(game, ours, p, actions), _obs(game, other, p, actions)):
                    raise _broken(
                        game, "hidden", f"player {p} sees at action {k} that action {i} was {actions[i]} and not "
                        f"{swapped}; what is shown later is not hidden",
                        actions[: k + 1],
                    )  # fmt: skip


def _check_redact(game: Game, games: list[list[int]]) -> None:
    """Replay the games over each other's remains; what is left at a decision must be the same for the same obs."""
    state, left_of = game.new_state()[0], {}
    for actions in games:
        game.init(state)
        for i, action in enumerate(actions):
            player, before = game.current_player(state), actions[:i]
            if player >= 0:
                copy = np.array([state], game.state_dtype)
                game.redact(copy[0], player)
                obs = _obs(game, state, player, before).tobytes()
                if _obs(game, copy[0], player, before).tobytes() != obs:
                    raise _broken(game, "redact", f"player {player} sees something else in what is left", before)
                if _legal(game, copy[0], before).tobytes() != _legal(game, state, before).tobytes():
                    raise _broken(game, "redact", f"player {player} has other legal actions in what is left", before)
                same = left_of.setdefault(bytes([player]) + obs, copy)
                if same.tobytes() != copy.tobytes():
                    raise _broken(game, "redact", f"player {player}, same obs: {copy[0]} here, {same[0]} there", before)
            game.apply_action(state, action)


def main(args: list[str] | None = None) -> int:
    args = sys.argv[1:] if args is None else args
    if len(args) != 1:
        print("usage: python -m envs.contract MODULE     (a module with GAME = Game(...), such as envs.kuhn_poker)")
        return 2
    sys.path.insert(0, "")
    try:
        game = load_game(args[0])
        kept = check_game(game)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{game.name} {game.version} keeps its promises:")
    print("\n".join(f"  {line}" for line in kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
