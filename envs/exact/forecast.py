"""What exact evaluation of a game will cost, about: from random games, in seconds, before anything is prepared.

Knuth's estimate (`envs.expansion`) tells how many histories, public positions or private records there are; what each
of them costs was measured. Where a few games may be far off, only what is `SURELY` times too large is refused by the
forecast; the rest is by what preparation finds.
"""

import time
from dataclasses import dataclass

import numpy as np

from envs.exact.phantom import ADD, PER_ROW
from envs.exact.records import estimate_records
from envs.expansion import ENOUGH, GameTooLargeError, count_histories, estimate_histories
from envs.game import CHANCE, TERMINAL, Game
from envs.structure import DealtThenPublic, PhantomBoard

TREE = 200_000  # histories: so many are kept as a tree
GAMES = 2_000  # random games that a forecast is made from
SURELY = 10  # times more than allowed: so many that public positions are refused unprepared
WALK = 6.0  # a walk that prepares takes about so many times as long as one that counts
PER_POSITION, PER_HAND = 1e-7, 9e-9  # seconds of preparation; of evaluation, for each hand
BYTES_OF_POSITION, BYTES_OF_HAND = 40, 8
PER_RECORD = {False: 1e-6, True: 2.4e-6}  # seconds of preparation; by abruptness
ADDITIONS = {False: (20.0, 1.16), True: (180.0, 1.17)}  # factor, exponent: of an evaluation, by the number of records


@dataclass(frozen=True)
class Forecast:
    """About how large a game is, and what its exact evaluation takes; without what the policy takes."""

    game: str
    size: float
    unit: str  # of what there are so many
    to_prepare: float  # seconds
    seconds: float  # of one evaluation
    nbytes: float  # 0: not known
    surely: float = 1.0  # how many times too large it has to be, to be refused

    def __str__(self) -> str:
        memory = f", {self.nbytes / 1e9:.1g} GB" if self.nbytes else ""
        return (
            f"{self.game}: about {_about(self.size)} {self.unit}; about {self.to_prepare:.1g} s to prepare, "
            f"{self.seconds:.1g} s for an evaluation{memory}"
        )

    def refuse_if_too_large(self, max_seconds: float, max_bytes: int) -> None:
        """Raise GameTooLargeError where it takes more than that, `surely`."""
        seconds, surely = max(self.to_prepare, self.seconds), self.surely
        if seconds > surely * max_seconds or self.nbytes > surely * max_bytes:
            more = f"{seconds:.0e} s" if seconds > surely * max_seconds else f"{self.nbytes:.0e} bytes"
            limit = f"max_seconds={max_seconds:g}" if seconds > surely * max_seconds else f"max_bytes={max_bytes}"
            raise GameTooLargeError(
                f"{self.game}: about {_about(self.size)} {self.unit}, estimated from {GAMES} random games, and about "
                f"{more.replace('e+', 'e')} for them, while {limit}; too large for exact evaluation"
            )


def forecast(game: Game, max_seconds: float) -> Forecast:
    """By the structure that the game declares, or by a walk over its histories, exactly counted if few.

    Raises:
        GameTooLargeError: so many histories that nothing needs to be compiled to know.
    """
    if isinstance(game.structure, DealtThenPublic):
        return _public(game)
    if isinstance(game.structure, PhantomBoard):
        return _phantom(game)
    return _histories(game, max_seconds)


def _public(game: Game) -> Forecast:
    """A random game tells the deals before its first decision, and the public positions after it."""
    rng = np.random.default_rng(0)
    deals, positions = np.array([_one_deal(game, rng) for _ in range(GAMES)]).mean(axis=0)
    hands = np.sqrt(deals)  # of each player, about: as if both were dealt alike and apart
    nbytes = positions * (BYTES_OF_POSITION + BYTES_OF_HAND * hands)
    to_prepare, seconds = positions * PER_POSITION + deals * 1e-4, positions * hands * PER_HAND
    return Forecast(game.name, positions, "public positions", to_prepare, seconds, nbytes, SURELY)


def _one_deal(game: Game, rng: np.random.Generator) -> tuple[float, float]:
    """Knuth's estimate of the deals, and of the positions after one of them."""
    state, deals, positions, here, dealt = game.new_state()[0], 1.0, 0.0, 1.0, False
    for _ in range(game.max_steps + 1):
        player = game.current_player(state)
        dealt |= player != CHANCE
        positions += here if dealt else 0.0
        if player == TERMINAL or positions > ENOUGH:
            break
        children = np.zeros(game.num_chance_outcomes if player == CHANCE else game.num_actions)
        if player == CHANCE:
            game.chance_probs(state, children)
        else:
            legal = np.zeros(game.num_actions, np.bool_)
            game.legal_actions(state, legal)
            children[:] = legal
        children = np.flatnonzero(children)
        deals *= 1 if dealt else len(children)
        here *= len(children) if dealt else 1
        game.apply_action(state, int(children[rng.integers(len(children))]))
    return deals, positions


def _phantom(game: Game) -> Forecast:
    abrupt, records = game.structure.abrupt, estimate_records(game.structure, GAMES)
    factor, exponent = ADDITIONS[abrupt]
    seconds = factor * records**exponent * ADD
    return Forecast(game.name, records, "private records", records * PER_RECORD[abrupt], seconds, records * PER_ROW)


def _histories(game: Game, max_seconds: float) -> Forecast:
    estimate = estimate_histories(game, GAMES)
    found = Forecast(game.name, estimate, "histories", estimate * 1e-8, estimate * 1e-8, 0.0, 100.0)
    found.refuse_if_too_large(max_seconds, 1)  # no machine walks so many: nothing needs to be compiled to know
    count_histories(game, 1)  # compiles, or loads what was compiled
    began = time.thread_time()
    counted = count_histories(game, 10 * TREE)
    each = WALK * (time.thread_time() - began) / counted
    histories = float(counted) if counted < 10 * TREE else max(estimate, counted)
    return Forecast(game.name, histories, "histories", histories * each, histories * each, 0.0)


def _about(size: float) -> str:
    if size < 10_000:
        return f"{size:.0f}"
    return "more than 1e300" if size > ENOUGH else f"{size:.0e}".replace("e+0", "e").replace("e+", "e")
