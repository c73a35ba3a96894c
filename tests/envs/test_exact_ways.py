"""Every way of exact evaluation against the tree, theory, OpenSpiel and games that are played."""

import dataclasses

import constants
import naive
import numpy as np
import pytest
from test_expansion import wide_and_deep

from envs.exact import GameTooLargeError, GameTree, exact_evaluator
from envs.exact.forecast import forecast
from envs.exact.phantom import PhantomEvaluator
from envs.exact.public import PublicEvaluator
from envs.exact.stream import StreamEvaluator
from envs.game import TERMINAL, load_game
from envs.goofspiel import goofspiel
from envs.leduc_poker import leduc
from envs.liars_dice import liars_dice
from envs.phantom_board import hex_wins, phantom_board

PUBLIC = {"liars dice 1x3": lambda: liars_dice(1, 3), "liars dice 2x2": lambda: liars_dice(2, 2)}
PUBLIC |= {"leduc 3x2": lambda: leduc(3, 2), "leduc 4x1": lambda: leduc(4, 1)}
STREAM = {name: lambda name=name: load_game(name) for name in ("envs.kuhn_poker", "envs.tic_tac_toe", "games.pairs")}
STREAM |= {"goofspiel 3": lambda: goofspiel(3), **PUBLIC}


def lines_of_six() -> np.ndarray:
    """Two rows of three cells; a full row wins, so most games are drawn."""
    return np.array([[cells & 0b111 == 0b111 or cells >> 3 == 0b111 for cells in range(64)]] * 2)


BOARDS = {"hex 2x2": lambda: hex_wins(2, 2), "hex 2x3": lambda: hex_wins(2, 3)}
BOARDS |= {"lines": lines_of_six}
PHANTOM = {
    f"{name}{' abrupt' * abrupt}": lambda name=name, wins=wins, abrupt=abrupt: phantom_board(name, 3, wins(), abrupt)
    for name, wins in BOARDS.items()
    for abrupt in (False, True)
    if not (abrupt and name == "lines")  # 3 million histories
}


def untaped(game):
    """Too little memory for a tape, enough for the infosets."""
    evaluator = StreamEvaluator(game, max_bytes=6_000_000)
    assert not evaluator.taped
    return evaluator


WAYS = [(StreamEvaluator, name, make) for name, make in STREAM.items()]
WAYS += [(untaped, name, STREAM[name]) for name in ("envs.kuhn_poker", "games.pairs", "goofspiel 3")]
WAYS += [(PublicEvaluator, name, make) for name, make in PUBLIC.items()]
WAYS += [(PhantomEvaluator, name, make) for name, make in PHANTOM.items()]


def uniform(obs, legal):
    return legal / legal.sum(axis=1, keepdims=True)


def random_policy(legal, seed, sparse=False):
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=legal.shape) * legal
    if sparse:  # some actions never
        weights *= rng.random(legal.shape) < 0.5
        weights[weights.sum(axis=1) == 0] = legal[weights.sum(axis=1) == 0]
    return weights / weights.sum(axis=1, keepdims=True)


def rows_in(tree, evaluator):
    """[R] the row of `tree` that each row of the evaluator is; both have the same rows."""
    known = {(int(p), obs.tobytes()): i for i, (p, obs) in enumerate(zip(tree.row_player, tree.obs))}
    obs, legal, player = evaluator.rows(0, evaluator.num_rows)
    found = np.array([known[int(p), o.tobytes()] for p, o in zip(player, obs)])
    assert len(set(found.tolist())) == evaluator.num_rows == tree.num_rows
    assert np.array_equal(tree.legal[found], legal)
    return found


@pytest.mark.parametrize(("way", "name", "make"), WAYS, ids=[f"{w.__name__} {n}" for w, n, _ in WAYS])
def test_every_way_is_the_tree(way, name, make):
    """Same rows, values and best responses, for policies that are mixed, sparse and uniform."""
    game = make()
    tree, evaluator = GameTree(game), way(game)
    at = rows_in(tree, evaluator)
    assert evaluator.num_infosets == tree.num_infosets
    for seed, sparse in ((0, False), (1, True)):
        table = random_policy(tree.legal, seed, sparse)
        expected, found = tree.evaluate(table), evaluator.evaluate(table[at])
        assert found.returns == pytest.approx(expected.returns, abs=1e-12)
        assert found.best_response_returns == pytest.approx(expected.best_response_returns, abs=1e-12)
        if tree.num_infosets > tree.num_rows:
            with pytest.raises(ValueError, match="perfect_recall"):
                evaluator.best_actions(table[at])
            continue
        best = np.empty(tree.num_rows, np.int64)
        best[at] = evaluator.best_actions(table[at])
        for p in range(game.num_players):
            mixed = np.where((tree.row_player == p)[:, None], np.eye(game.num_actions)[best], table)
            assert tree.evaluate(mixed).returns[p] == pytest.approx(expected.best_response_returns[p], abs=1e-12)
    expected, found = tree.evaluate(tree.uniform_policy()), evaluator.evaluate(uniform)
    assert found.nash_conv == pytest.approx(expected.nash_conv, abs=1e-12)
    assert found.exploitability == pytest.approx(expected.exploitability, abs=1e-12)


@pytest.mark.parametrize(
    ("way", "make"),
    [
        (StreamEvaluator, lambda: goofspiel(3)),
        (PublicEvaluator, lambda: leduc(3, 2)),
        (PhantomEvaluator, PHANTOM["hex 2x3"]),
    ],
)
def test_rows_are_rebuilt_in_any_chunk_and_bad_policies_refused(way, make):
    evaluator = way(make())
    obs, legal, player = evaluator.rows(0, evaluator.num_rows)
    for start in range(0, evaluator.num_rows, 37):
        stop = min(start + 37, evaluator.num_rows)
        for whole, part in zip((obs, legal, player), evaluator.rows(start, stop)):
            assert np.array_equal(whole[start:stop], part)
    table = random_policy(legal, 0)
    flat = evaluator.flat(table)
    assert evaluator.evaluate(flat).nash_conv == evaluator.evaluate(table).nash_conv
    assert evaluator.evaluate(table.astype(np.float32)).nash_conv == pytest.approx(evaluator.evaluate(table).nash_conv)
    some = int(np.argmax(legal.sum(axis=1) < legal.shape[1]))
    for change, message in (
        (table[:-1], "must have shape"),
        (np.where(np.arange(len(table))[:, None] == some, np.nan, table), f"row {some} is not finite"),
        (np.where(np.arange(len(table))[:, None] == some, 1 / table.shape[1], table), f"row {some} has mass on an ill"),
        (np.where(np.arange(len(table))[:, None] == some, 0.5 * table, table), f"row {some} does not sum to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluator.evaluate(change)


@pytest.mark.parametrize("size", ["1x4", "1x5", "1x6", "2x3"])
def test_liars_dice_constants(size):
    evaluator = exact_evaluator(load_game(f"envs.liars_dice_{size}"))
    assert isinstance(evaluator, PublicEvaluator)
    assert evaluator.num_rows == evaluator.num_infosets == constants.LIARS_DICE_INFOSETS[size]
    result = evaluator.evaluate(uniform)
    assert result.returns.sum() == pytest.approx(0, abs=1e-12)
    assert result.exploitability == pytest.approx(
        {"1x5": 0.721, "1x6": 0.781}.get(size, result.exploitability), abs=5e-4
    )


@pytest.mark.parametrize("num_cards", [4, 5])
def test_goofspiel_constants(num_cards):
    evaluator = StreamEvaluator(load_game(f"envs.goofspiel_{num_cards}"))
    assert evaluator.taped
    assert evaluator.num_terminals == constants.GOOFSPIEL_TERMINALS[num_cards]
    assert evaluator.num_infosets == constants.GOOFSPIEL_INFOSETS[num_cards]
    result = evaluator.evaluate(uniform)
    assert result.returns == pytest.approx([0, 0], abs=1e-12)  # the game is the same for both
    assert result.best_response_returns[0] == pytest.approx(result.best_response_returns[1], abs=1e-12)


def test_open_spiel_agrees_on_liars_dice():
    pyspiel = pytest.importorskip("pyspiel")
    from open_spiel.python import policy as policies
    from open_spiel.python.algorithms import exploitability

    game, evaluator = pyspiel.load_game("liars_dice(numdice=1,dice_sides=4)"), PublicEvaluator(liars_dice(1, 4))
    obs, legal, _ = evaluator.rows(0, evaluator.num_rows)
    table = random_policy(legal, 2)
    ours = {o.tobytes(): row for o, row in zip(obs, table)}
    tabular = policies.TabularPolicy(game)
    for state in tabular.states:
        seen = np.array(state.information_state_tensor(), np.uint8).tobytes()
        tabular.policy_for_key(state.information_state_string())[:] = ours[seen]
    assert evaluator.evaluate(table).nash_conv == pytest.approx(exploitability.nash_conv(game, tabular), abs=1e-9)


@pytest.mark.parametrize(
    ("way", "make"),
    [
        (StreamEvaluator, lambda: goofspiel(4)),
        (PublicEvaluator, lambda: liars_dice(1, 6)),
        (PhantomEvaluator, PHANTOM["hex 2x3 abrupt"]),
    ],
)
def test_best_responses_earn_their_value_in_games(way, make):
    """3,000 games of each best responder, mean within four standard errors."""
    game, rng = make(), np.random.default_rng(0)
    evaluator = way(game)
    obs, legal, player = evaluator.rows(0, evaluator.num_rows)
    row = {(int(p), o.tobytes()): i for i, (p, o) in enumerate(zip(player, obs))}
    table = random_policy(legal, 5)
    best, expected = evaluator.best_actions(table), evaluator.evaluate(table).best_response_returns
    for responder in range(2):
        earned = []
        for _ in range(3000):
            state, total = game.new_state()[0], 0.0
            while (p := game.current_player(state)) != TERMINAL:
                if p < 0:
                    probs = naive.chance_of(game, state)
                else:
                    i = row[p, naive.obs_of(game, state, p).tobytes()]
                    probs = np.eye(game.num_actions)[best[i]] if p == responder else table[i]
                game.apply_action(state, int(np.searchsorted(np.cumsum(probs), rng.random(), side="right")))
                total += naive.rewards_of(game, state)[responder]
            earned.append(total)
        assert abs(np.mean(earned) - expected[responder]) < 4 * np.std(earned) / np.sqrt(len(earned)) + 1e-9


def test_the_way_that_suits():
    said = []
    assert isinstance(exact_evaluator(load_game("envs.kuhn_poker"), say=said.append), GameTree)
    assert isinstance(exact_evaluator(load_game("envs.goofspiel_5"), say=said.append), StreamEvaluator)
    assert isinstance(exact_evaluator(PHANTOM["hex 2x2"](), say=said.append), PhantomEvaluator)
    assert "about 58 histories" in said[0] and "58 histories" in said[1] and "12 infosets" in said[1]
    assert "histories; about" in said[2] and "3346656 histories, on tape; 236450 infosets" in said[3]
    assert "private records; about" in said[4] and "70 infosets" in said[5]


def test_refused_before_the_work():
    """A game without end needs no compiling; a long one is counted for a moment only."""
    with pytest.raises(GameTooLargeError, match=r"wide_and_deep: about 1e96 histories.*max_seconds=60"):
        exact_evaluator(wide_and_deep({}))
    with pytest.raises(GameTooLargeError, match=r"goofspiel_6: about \d.* histories.*max_seconds=0.5"):
        exact_evaluator(load_game("envs.goofspiel_6"), max_seconds=0.5)
    with pytest.raises(GameTooLargeError, match="max_bytes"):
        exact_evaluator(load_game("envs.goofspiel_5"), max_bytes=100_000)
    with pytest.raises(GameTooLargeError, match="max_bytes=50000000 reached"):  # the forecast is not sure enough
        exact_evaluator(load_game("envs.liars_dice_2x5"), max_bytes=50_000_000)


@pytest.mark.parametrize(
    ("make", "limits", "said"),
    [
        (lambda: liars_dice(3, 6), {}, r"about \de1\d public positions.*while max_seconds=60"),
        (lambda: load_game("envs.liars_dice_2x5"), {"max_bytes": 10**6}, "bytes for them, while max_bytes=1000000"),
        (
            lambda: load_game("envs.dark_hex_3x3_abrupt"),
            {"max_bytes": 10**8, "max_seconds": 600},
            "about 3e7 private.*max_bytes",
        ),
        (lambda: load_game("envs.phantom_tic_tac_toe"), {"max_seconds": 0.5}, "private records.*max_seconds=0.5"),
    ],
)
def test_structured_games_are_refused_unprepared(make, limits, said, monkeypatch):
    def prepare(*arguments):
        raise AssertionError("prepared")

    for name in ("PublicEvaluator", "PhantomEvaluator"):
        monkeypatch.setattr(f"envs.exact.choice.{name}", prepare)
    lines = []
    with pytest.raises(GameTooLargeError, match=said):
        exact_evaluator(make(), **limits, say=lines.append)
    assert not lines


def test_forecasts_of_structured_games():
    assert forecast(load_game("envs.phantom_tic_tac_toe"), 60).size == pytest.approx(
        constants.PHANTOM_TIC_TAC_TOE_INFOSETS, rel=0.05
    )
    assert forecast(load_game("envs.dark_hex_3x3_abrupt"), 60).size == pytest.approx(
        constants.ABRUPT_DARK_HEX_INFOSETS, rel=0.05
    )
    found = forecast(liars_dice(1, 3), 60)  # 7 actions, all of them once at most: 64 sets of bids, half of them called
    assert found.size == pytest.approx(PublicEvaluator(liars_dice(1, 3)).num_nodes, rel=0.1)
    assert forecast(load_game("envs.liars_dice_2x5"), 60).size == pytest.approx(2**21, rel=0.8)


def test_a_structure_that_the_game_does_not_have(leduc):
    for way in (PublicEvaluator, PhantomEvaluator):
        with pytest.raises(ValueError, match=r"kuhn_poker: needs .*structure="):
            way(load_game("envs.kuhn_poker"))


def test_infostates_with_unequal_legal_actions_are_an_error(leduc):
    def observe(state, player, obs):
        obs[0] = player

    forgetful = dataclasses.replace(leduc, observe=__import__("numba").njit(observe))
    with pytest.raises(ValueError, match="has different legal actions in two histories"):
        StreamEvaluator(forgetful)


def test_threads_change_nothing():
    game = PHANTOM["hex 2x3"]()
    one, two = PhantomEvaluator(game), PhantomEvaluator(game, threads=2)
    table = random_policy(one.rows(0, one.num_rows)[1], 7)
    assert one.evaluate(table).nash_conv == two.evaluate(table).nash_conv


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "infosets", "nash_conv", "value"),
    [
        (
            "phantom_tic_tac_toe",
            constants.PHANTOM_TIC_TAC_TOE_INFOSETS,
            constants.PHANTOM_TIC_TAC_TOE_UNIFORM_NASH_CONV,
            0.296825,  # that of tic-tac-toe
        ),
        (
            "dark_hex_3x3",
            constants.DARK_HEX_INFOSETS,
            constants.DARK_HEX_UNIFORM_NASH_CONV,
            constants.DARK_HEX_UNIFORM_VALUE,
        ),
        (
            "phantom_tic_tac_toe_abrupt",
            constants.ABRUPT_PHANTOM_TIC_TAC_TOE_INFOSETS,
            constants.ABRUPT_PHANTOM_TIC_TAC_TOE_UNIFORM_NASH_CONV,
            None,
        ),
        ("dark_hex_3x3_abrupt", constants.ABRUPT_DARK_HEX_INFOSETS, 1.525209, None),  # NashConv: as measured here
    ],
)
def test_phantom_boards_of_nine_cells(name, infosets, nash_conv, value):
    """Known sizes and numbers, with a random policy too: the seats' values come from different operators."""
    evaluator = PhantomEvaluator(load_game(f"envs.{name}"), max_seconds=600, max_bytes=12 << 30)
    assert evaluator.num_infosets == infosets
    result = evaluator.evaluate(uniform)
    assert result.nash_conv == pytest.approx(nash_conv, abs=1e-6)
    assert result.returns.sum() == pytest.approx(0, abs=1e-9)
    if value is not None:
        assert result.returns[0] == pytest.approx(value, abs=1e-6)
        rng = np.random.default_rng(0)
        mixed = evaluator.evaluate(lambda obs, legal: random_policy(legal, rng.integers(2**31)))
        assert mixed.returns.sum() == pytest.approx(0, abs=1e-9)
    if name == "dark_hex_3x3":
        assert evaluator.won_histories() == constants.DARK_HEX_TERMINALS


@pytest.mark.slow
def test_liars_dice_of_two_dice_and_five_faces():
    evaluator = exact_evaluator(load_game("envs.liars_dice_2x5"))
    assert evaluator.num_infosets == constants.LIARS_DICE_INFOSETS["2x5"]
    result = evaluator.evaluate(uniform)
    assert result.exploitability == pytest.approx(0.891, abs=5e-4)
    assert result.returns.sum() == pytest.approx(0, abs=1e-9)
