"""Which way of exact evaluation suits a game, and what it will cost: said before the work is begun."""

import time
from collections.abc import Callable

from envs.exact.evaluation import ExactEvaluator
from envs.exact.forecast import TREE, forecast
from envs.exact.phantom import PhantomEvaluator
from envs.exact.public import PublicEvaluator
from envs.exact.stream import StreamEvaluator
from envs.exact.tree import GameTree
from envs.game import Game
from envs.structure import DealtThenPublic, PhantomBoard


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
        say: is told the forecast, one line before preparation is begun, and one after it.

    Raises:
        GameTooLargeError: it takes longer than max_seconds or more than max_bytes. Where only preparation can tell,
            it is begun.
    """
    expected = forecast(game, max_seconds)
    expected.refuse_if_too_large(max_seconds, max_bytes)
    say(str(expected))
    began = time.thread_time()
    if isinstance(game.structure, DealtThenPublic):
        evaluator = PublicEvaluator(game, max_seconds, max_bytes)
        way = f"{evaluator.num_nodes} public positions and hands"
    elif isinstance(game.structure, PhantomBoard):
        evaluator = PhantomEvaluator(game, max_seconds, max_bytes, threads)
        way = f"operators on private records, about {evaluator.seconds:.1g} s for each evaluation"
    elif expected.size <= TREE:
        evaluator = GameTree(game)
        way = f"{evaluator.num_nodes} histories, kept as a tree"
    else:
        evaluator = StreamEvaluator(game, max_seconds, max_bytes)
        way = f"{evaluator.num_nodes} histories, {'on tape' if evaluator.taped else 'walked each time'}"
    seconds = time.thread_time() - began
    say(f"{game.name}: exact by {way}; {evaluator.num_infosets} infosets, prepared in {seconds:.1f} s")
    return evaluator
