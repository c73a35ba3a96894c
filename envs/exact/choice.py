"""Which way of exact evaluation suits a game, and what it will cost: said before the work is begun."""

import time
from collections.abc import Callable

from envs.exact.evaluation import ExactEvaluator
from envs.exact.phantom import PhantomEvaluator
from envs.exact.public import PublicEvaluator
from envs.exact.stream import StreamEvaluator
from envs.exact.tree import GameTree
from envs.expansion import ENOUGH, GameTooLargeError, count_histories, estimate_histories
from envs.game import Game
from envs.structure import DealtThenPublic, PhantomBoard

TREE = 200_000  # histories: so many are kept as a tree
GAMES = 2_000  # random games that the number of histories is estimated from
WALK = 6.0  # a walk that prepares takes about so many times as long as one that counts


def exact_evaluator(
    game: Game,
    max_seconds: float = 60.0,
    max_bytes: int = 4 << 30,
    threads: int = 1,
    say: Callable[[str], None] = print,
) -> ExactEvaluator:
    """The fastest way to evaluate policies of `game` exactly.

    Where the game declares a structure, that is used. Else few histories are kept as a tree, and more are walked each
    time, infosets alone being kept. Both limits count without what the policy itself takes.

    Args:
        max_seconds: of preparation, and of one evaluation; CPU time of the calling thread.
        max_bytes: memory.
        threads: that evaluate, where there is more than one to gain from: on phantom boards.
        say: is told the forecast, one line before the work is begun and one after preparation.

    Raises:
        GameTooLargeError: it takes longer than max_seconds or more than max_bytes. Where only preparation can tell,
            it is begun.
    """
    began = time.thread_time()
    if isinstance(game.structure, DealtThenPublic):
        evaluator = PublicEvaluator(game, max_seconds, max_bytes)
        way = f"{evaluator.num_nodes} public positions and hands"
    elif isinstance(game.structure, PhantomBoard):
        evaluator = PhantomEvaluator(game, max_seconds, max_bytes, threads)
        way = f"operators on private records, about {evaluator.seconds:.1g} s for each evaluation"
    else:
        histories, seconds = forecast(game, max_seconds)
        if histories <= TREE:
            evaluator = GameTree(game)
            way = f"{evaluator.num_nodes} histories, kept as a tree"
        else:
            say(
                f"{game.name}: about {histories:.1e} histories to walk, about {seconds:.1g} s; an evaluation takes less"
            )
            evaluator = StreamEvaluator(game, max_seconds, max_bytes)
            way = f"{evaluator.num_nodes} histories, {'on tape' if evaluator.taped else 'walked each time'}"
    seconds = time.thread_time() - began
    say(f"{game.name}: exact by {way}; {evaluator.num_infosets} infosets, prepared in {seconds:.1f} s")
    return evaluator


def forecast(game: Game, max_seconds: float) -> tuple[float, float]:
    """About how many histories the game has, exactly if few, and about how many seconds a first walk takes.

    Raises:
        GameTooLargeError: more seconds than `max_seconds`.
    """
    estimate = estimate_histories(game, GAMES)
    if estimate > max_seconds * 1e10:  # no machine walks so many; nothing needs to be compiled to know
        _refuse(game, estimate, estimate * 1e-8, max_seconds)
    count_histories(game, 1)  # compiles, or loads what was compiled
    began = time.thread_time()
    counted = count_histories(game, 10 * TREE)
    each = WALK * (time.thread_time() - began) / counted
    histories = float(counted) if counted < 10 * TREE else max(estimate, counted)
    if histories * each > max_seconds:
        _refuse(game, histories, histories * each, max_seconds)
    return histories, histories * each


def _refuse(game: Game, histories: float, seconds: float, max_seconds: float) -> None:
    about = "more than 1e300" if histories > ENOUGH else f"about {histories:.0e}".replace("e+", "e")
    raise GameTooLargeError(
        f"{game.name}: {about} histories, estimated from {GAMES} random games, and about {seconds:.0e} s to walk them, "
        f"while max_seconds={max_seconds:g}; too large for exact evaluation"
    )
