"""Histories and where they lead, held against the driver and the tree; mistakes are told in a line."""

import numpy as np
import pytest

from envs.game import CHANCE, TERMINAL, Interface
from envs.vector_env import VectorEnv
from lit_rl.league.history import History
from lit_rl.run.errors import ConfigError


def reached(game, *history):
    position = History(game)
    position.play_all(history)
    return position


def random_history(game, rng, length):
    """What happened in a random game of at most `length` moves, and the position after it."""
    position, history = History(game), []
    while len(history) < length and position.mover != TERMINAL:
        choice = int(rng.choice(list(position.choices())))
        position.play(choice)
        history.append(choice)
    return history, position


def test_names_and_numbers_lead_to_the_same_position(any_game):
    rng = np.random.default_rng(0)
    for length in range(6):
        history, position = random_history(any_game, rng, length)
        named, walk = [], History(any_game)
        for action in history:
            named.append(walk.choices()[action] if any_game.chance_names or walk.mover >= 0 else action)
            walk.play(action)
        again = reached(any_game, *named)
        for name in ("state", "player", "legal", "obs"):
            assert getattr(again, name).tobytes() == getattr(position, name).tobytes()


def test_a_mover_sees_what_the_tree_has_there(kuhn, kuhn_tree):
    """Every infostate of Kuhn poker is reached by some history, with the obs and the legal actions of the tree."""
    found, frontier = set(), [()]
    while frontier:
        history = frontier.pop()
        position = reached(kuhn, *history)
        if position.mover >= 0:
            row = next(i for i, obs in enumerate(kuhn_tree.obs) if (obs == position.obs[0]).all())
            assert (kuhn_tree.legal[row] == position.legal[0]).all() and kuhn_tree.row_player[row] == position.mover
            found.add(row)
        frontier += [(*history, action) for action in position.choices()]
    assert len(found) == kuhn_tree.num_rows == 12


def test_it_begins_as_the_driver_does(leduc):
    env = VectorEnv(leduc, 1, seed=3)
    cards = env.state[0]["card"][:2].tolist()
    position = reached(leduc, *cards, "raise")
    env.step(np.array([2]))
    assert (position.obs == env.obs).all() and (position.legal == env.legal).all()
    assert (position.player == env.player).all()


@pytest.mark.parametrize(
    "history, message",
    [
        (["deal K", "deal K"], "history[1]='deal K': here chance has deal J, deal Q (kuhn_poker at 'cards K ? "),
        (["deal K", 2], "history[1]=2: here chance has deal J, deal Q"),
        (["deal K", "deal Q", "raise"], "history[2]='raise': here player 0 has pass, bet"),
        (["deal K", "deal Q", True], "history[2]=True: here player 0 has pass, bet"),
        (["deal K", "deal Q", "bet", "pass", "bet"], "history[4]='bet': the game is over"),
        (["deal K", None], "history[1]=None: here chance has"),
        (["deal K", []], "history[1]=[]: here chance has"),
        ("deal K", "history='deal K': give a list"),
        (5, "history=5: give a list"),
        (iter(["deal K"]), "give a list"),
    ],
)
def test_what_cannot_happen_is_refused_in_a_line_that_says_what_can(kuhn, history, message):
    position = History(kuhn)
    with pytest.raises(ConfigError) as error:
        position.play_all(history)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_refused_action_leaves_the_position(kuhn):
    position = reached(kuhn, "deal K")
    before = position.state.tobytes()
    with pytest.raises(ConfigError):
        position.play("deal K")
    assert position.state.tobytes() == before and position.num_moves == 1 and position.mover == CHANCE


def test_nobody_decides_before_chance_or_after_the_end(kuhn):
    with pytest.raises(ConfigError, match="history of 1: nobody decides after it, here chance has deal Q, deal K"):
        reached(kuhn, "deal J").need_decision()
    with pytest.raises(ConfigError, match="nobody decides after it, the game is over"):
        reached(kuhn, "deal J", "deal Q", "pass", "pass").need_decision()
    reached(kuhn, "deal J", "deal Q").need_decision()


def test_a_game_without_rules_has_no_positions(kuhn):
    sizes = {name: getattr(kuhn, name) for name in Interface.__dataclass_fields__}
    with pytest.raises(ConfigError, match="kuhn_poker: its rules are not written here"):
        History(Interface(**sizes))
