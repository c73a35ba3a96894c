"""Exact evaluation against theory, brute force and OpenSpiel."""

import dataclasses

import constants
import naive
import numpy as np
import pytest

from envs.exact import GameTooLargeError, GameTree
from envs.game import CHANCE, load_game


def as_dict(tree, table):
    return {(int(p), obs.tobytes()): row for p, obs, row in zip(tree.row_player, tree.obs, table, strict=True)}


def random_policy(tree, rng):
    weights = rng.exponential(size=tree.legal.shape) * tree.legal
    return weights / weights.sum(1, keepdims=True)


def kuhn_equilibrium(tree, alpha):
    """Kuhn (1950): first player bets J with alpha, K with 3 alpha, calls with Q with alpha + 1/3, and so on."""
    bet = {
        (0, 0, ""): alpha, (0, 1, ""): 0.0, (0, 2, ""): 3 * alpha,
        (0, 0, "pb"): 0.0, (0, 1, "pb"): alpha + 1 / 3, (0, 2, "pb"): 1.0,
        (1, 0, "p"): 1 / 3, (1, 1, "p"): 0.0, (1, 2, "p"): 1.0,
        (1, 0, "b"): 0.0, (1, 1, "b"): 1 / 3, (1, 2, "b"): 1.0,
    }  # fmt: skip
    table = np.zeros(tree.legal.shape)
    for r, obs in enumerate(tree.obs):
        moves = "".join("p" if obs[5 + 2 * i] else "b" for i in range(3) if obs[5 + 2 * i] or obs[6 + 2 * i])
        p = bet[int(obs[:2].argmax()), int(obs[2:5].argmax()), moves]
        table[r] = 1 - p, p
    return table


def test_kuhn_constants(kuhn_tree):
    assert kuhn_tree.num_infosets == kuhn_tree.num_rows == constants.KUHN_INFOSETS
    assert kuhn_tree.num_terminals == constants.KUHN_TERMINALS
    uniform = kuhn_tree.evaluate(kuhn_tree.uniform_policy())
    assert uniform.nash_conv == pytest.approx(constants.KUHN_UNIFORM_NASH_CONV, abs=1e-12)
    assert uniform.exploitability == pytest.approx(constants.KUHN_UNIFORM_NASH_CONV / 2, abs=1e-12)
    first = kuhn_tree.evaluate(kuhn_tree.first_action_policy())
    assert first.nash_conv == pytest.approx(constants.KUHN_ALWAYS_FIRST_ACTION_NASH_CONV, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.2, 1 / 3])
def test_kuhn_equilibrium_family(kuhn_tree, alpha):
    result = kuhn_tree.evaluate(kuhn_equilibrium(kuhn_tree, alpha))
    assert result.nash_conv == pytest.approx(0, abs=1e-12)
    assert result.returns == pytest.approx([constants.KUHN_VALUE, -constants.KUHN_VALUE], abs=1e-12)


def test_outside_the_family_is_exploitable(kuhn_tree):
    assert kuhn_tree.evaluate(kuhn_equilibrium(kuhn_tree, 0.333)).nash_conv < 1e-9
    table = kuhn_equilibrium(kuhn_tree, 0.2)
    table[0] = table[0][::-1]
    assert kuhn_tree.evaluate(table).nash_conv > 0.01


def test_leduc_constants(leduc_tree):
    assert leduc_tree.num_infosets == leduc_tree.num_rows == constants.LEDUC_INFOSETS
    assert leduc_tree.num_terminals == constants.LEDUC_TERMINALS
    uniform = leduc_tree.evaluate(leduc_tree.uniform_policy())
    assert uniform.nash_conv == pytest.approx(constants.LEDUC_UNIFORM_NASH_CONV, abs=1e-12)


def test_cfr_plus_finds_the_equilibrium(kuhn_tree, leduc_tree):
    assert kuhn_tree.evaluate(kuhn_tree.cfr_plus(2000)).nash_conv < 1e-3
    leduc = leduc_tree.evaluate(leduc_tree.cfr_plus(2000))
    assert leduc.nash_conv < 5e-4
    assert leduc.returns[0] == pytest.approx(constants.LEDUC_VALUE, abs=3e-4)


def test_an_average_of_policies_earns_the_average(kuhn_tree, leduc_tree):
    """Each player draws one of three policies by itself: the return is the mean over the nine pairs."""
    for tree in (kuhn_tree, leduc_tree):
        rng = np.random.default_rng(5)
        tables = [np.where(tree.legal, rng.random(tree.legal.shape) ** 3, 0.0) for _ in range(3)]
        tables = [table / table.sum(1, keepdims=True) for table in tables]
        weights = [0.5, 0.2, 0.3]
        first = (tree.row_player == 0)[:, None]
        expected = sum(
            v * w * tree.evaluate(np.where(first, mine, theirs)).returns
            for v, mine in zip(weights, tables)
            for w, theirs in zip(weights, tables)
        )
        average = tree.average(tables, weights)
        assert np.allclose(tree.evaluate(average).returns, expected, atol=1e-12)
        assert not np.allclose(average, sum(w * t for w, t in zip(weights, tables)), atol=1e-3)
    deterministic = [tree.first_action_policy(), tree.first_action_policy()]
    assert np.allclose(tree.average(deterministic).sum(1), 1)  # where nobody comes, all alike
    with pytest.raises(ValueError, match="needs one for each of 2 policies"):
        tree.average(deterministic, [1.0])


def test_biased_rps():
    tree = GameTree(load_game("envs.biased_rps"))
    table = np.tile(constants.BIASED_RPS_EQUILIBRIUM, (2, 1))
    assert tree.evaluate(table).nash_conv == pytest.approx(0, abs=1e-12)
    assert tree.evaluate(tree.uniform_policy()).nash_conv == pytest.approx(4 / 3)  # paper wins (3 - 1) / 3 on each side
    assert GameTree(load_game("envs.matching_pennies")).evaluate(np.full((2, 2), 0.5)).nash_conv == 0


def test_tic_tac_toe():
    """obs forgets the order of moves, so infosets outnumber rows; a best responder remembers and never loses."""
    tree = GameTree(load_game("envs.tic_tac_toe"))
    assert tree.num_terminals == constants.TIC_TAC_TOE_TERMINALS
    assert tree.num_rows == 4520 < tree.num_infosets
    result = tree.evaluate(tree.uniform_policy())
    assert (result.best_response_returns >= result.returns).all() and (result.best_response_returns > 0.9).all()
    with pytest.raises(ValueError, match="perfect_recall"):
        tree.best_response(tree.uniform_policy())


def test_two_against_two(pairs, pairs_tree):
    """Four players; what a best response gains alone, against enumeration of a player's plans."""
    assert pairs_tree.num_infosets == pairs_tree.num_rows == 4 * (2 + 2 * 6)
    table = random_policy(pairs_tree, np.random.default_rng(3))
    result, policy = pairs_tree.evaluate(table), as_dict(pairs_tree, table)
    assert result.returns == pytest.approx(naive.action_values(pairs, policy), abs=1e-12)
    assert result.returns == pytest.approx(result.returns[0] * np.array([1, -1, 1, -1]), abs=1e-12)
    best = pairs_tree.best_response(table)
    for p in range(4):
        mixed = np.where((pairs_tree.row_player == p)[:, None], best, table)
        assert pairs_tree.evaluate(mixed).returns[p] == pytest.approx(result.best_response_returns[p], abs=1e-12)


def test_brute_force_twin(kuhn, kuhn_tree):
    rng = np.random.default_rng(0)
    for _ in range(3):
        table = random_policy(kuhn_tree, rng)
        result, policy = kuhn_tree.evaluate(table), as_dict(kuhn_tree, table)
        assert result.returns == pytest.approx(naive.action_values(kuhn, policy), abs=1e-12)
        for p in range(2):
            assert result.best_response_returns[p] == pytest.approx(
                naive.best_response_value(kuhn, policy, p), abs=1e-12
            )


def test_best_response_policy_earns_its_value(leduc_tree):
    rng = np.random.default_rng(1)
    table = random_policy(leduc_tree, rng)
    result, best = leduc_tree.evaluate(table), leduc_tree.best_response(table)
    for p in range(2):
        mixed = np.where((leduc_tree.row_player == p)[:, None], best, table)
        assert leduc_tree.evaluate(mixed).returns[p] == pytest.approx(result.best_response_returns[p], abs=1e-12)


def test_open_spiel_agrees(leduc_tree):
    pyspiel = pytest.importorskip("pyspiel")
    from open_spiel.python import policy as policies
    from open_spiel.python.algorithms import exploitability

    game = pyspiel.load_game("leduc_poker")
    table = random_policy(leduc_tree, np.random.default_rng(2))
    ours = {obs.tobytes(): row for obs, row in zip(leduc_tree.obs, table, strict=True)}
    tabular = policies.TabularPolicy(game)
    for state in tabular.states:
        obs = np.array(state.information_state_tensor(), np.uint8).tobytes()
        tabular.policy_for_key(state.information_state_string())[:] = ours[obs]
    theirs = exploitability.nash_conv(game, tabular)
    assert leduc_tree.evaluate(table).nash_conv == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, legal: t * 0.9, "row 0 does not sum to 1"),
        (lambda t, legal: np.where(np.arange(len(t))[:, None] == 5, np.nan, t), "row 5 is not finite"),
        (lambda t, legal: np.full_like(t, 1 / 3), "has mass on an illegal action"),
        (lambda t, legal: t[:-1], r"must have shape \(936, 3\)"),
        (lambda t, legal: np.where(np.arange(len(t))[:, None] == 7, [-0.5, 1.0, 0.5], t), "row 7 has a negative"),
    ],
)
def test_bad_policies_are_refused(leduc_tree, change, message):
    with pytest.raises(ValueError, match=message):
        leduc_tree.evaluate(change(leduc_tree.uniform_policy(), leduc_tree.legal))


def test_float32_rounding_is_no_error(kuhn_tree):
    kuhn_tree.evaluate(random_policy(kuhn_tree, np.random.default_rng(0)).astype(np.float32))


def test_impossible_values_are_an_error(kuhn):
    tree = GameTree(dataclasses.replace(kuhn, max_return=0.1))
    with pytest.raises(ArithmeticError, match="outside"):
        tree.evaluate(tree.uniform_policy())


def test_too_large_a_tree_is_refused(leduc):
    with pytest.raises(GameTooLargeError, match="max_nodes=1000"):
        GameTree(leduc, max_nodes=1000)


def test_cfr_plus_needs_an_iteration(kuhn_tree):
    with pytest.raises(ValueError, match="iterations=0"):
        kuhn_tree.cfr_plus(0)


def others_reach(game, policy, state=None, reach=None, found=None):
    """{(player, infostate bytes): probability that chance and the others lead there}, by walking the tree."""
    state = game.new_state() if state is None else state
    reach, found = np.ones(game.num_players) if reach is None else reach, {} if found is None else found
    player = game.current_player(state[0])
    if player < 0:
        probs = naive.chance_of(game, state[0]) if player == CHANCE else []
        factors = [np.full(game.num_players, p) for p in probs]
    else:
        key = player, naive.obs_of(game, state[0], player).tobytes()
        found[key] = found.get(key, 0.0) + reach[player]
        factors = [np.where(np.arange(game.num_players) == player, 1.0, p) for p in policy[key]]
        factors = [f * ok for f, ok in zip(factors, naive.legal_of(game, state[0]))]
    for a, factor in enumerate(factors):
        if factor.any():
            others_reach(game, policy, naive.child(game, state, a), reach * factor, found)
    return found


@pytest.mark.parametrize("temperature", [0.04, 0.3])
def test_in_a_quantal_response_equilibrium_every_infostate_plays_the_softmax_of_its_values(
    kuhn, kuhn_tree, temperature
):
    """With q, up to a constant, from a walk through the game."""
    policy = as_dict(kuhn_tree, kuhn_tree.quantal_response(temperature))
    reach = others_reach(kuhn, policy)
    regrets = naive.counterfactual_regrets(kuhn, policy)
    assert len(regrets) == constants.KUHN_INFOSETS
    for key, (found, *_) in regrets.items():
        response = np.exp(found / reach[key] / temperature)
        assert policy[key] == pytest.approx(response / response.sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("game", "temperature", "nash_conv"),
    [
        ("kuhn", 0.04, 0.0108), ("kuhn", 0.003, 0.0007), ("leduc", 0.2, 0.167), ("leduc", 0.15, 0.122),
        ("leduc", 0.08, 0.0562),
    ],
)  # fmt: skip
def test_what_an_entropy_coefficient_costs(game, temperature, nash_conv, request):
    """From hardly anything to the uniform policy; 0.2 and 0.15 as an independent solver found them."""
    tree = request.getfixturevalue(f"{game}_tree")
    assert tree.evaluate(tree.quantal_response(temperature)).nash_conv == pytest.approx(nash_conv, rel=0.01, abs=5e-5)
    assert tree.quantal_response(1e4) == pytest.approx(tree.uniform_policy(), abs=1e-3)


def test_a_quantal_response_needs_a_temperature_and_time(kuhn_tree):
    with pytest.raises(ValueError, match="temperature=0: must be positive"):
        kuhn_tree.quantal_response(0)
    with pytest.raises(ArithmeticError, match=r"temperature=0\.01: not settled after 10 iterations"):
        kuhn_tree.quantal_response(0.01, max_iterations=10)
