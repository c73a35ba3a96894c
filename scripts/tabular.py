"""What tables alone reach on as many decisions: outcome-sampling MCCFR+, to lay beside the networks' numbers.

    python scripts/tabular.py --game envs.leduc_poker --decisions 1 10 100 --seeds 101 102 103 104 105

One game after another, as in Lanctot et al. 2009: the players take turns to explore, the explorer draws uniformly and
alone learns regrets, kept at 0 or above (RM+, Tammelin 2014); the other draws by its policy, which goes into its
average with the weight t^power after t games. `--baseline mean` corrects sampled values by a running mean for each
history and action (VR-MCCFR, Schmid et al. 2019), which is what a learned critic of histories stands for. Decisions are
those of both players, as everywhere in lit-rl. Prints the NashConv of the average policy, exact. Two players, zero sum.
"""

import argparse
import statistics
from typing import NamedTuple

import numpy as np

from envs.exact import GameTree
from envs.expansion import expand
from envs.game import TERMINAL, Game, load_game
from envs.jit import njit

WINDOW = 30.0  # values that a running mean is of, once it has seen as many


class Histories(NamedTuple):
    """A game's tree, node 0 its root, H histories, O the most actions or chance outcomes of one."""

    player: np.ndarray  # [H] int64, < 0 where no player decides
    row: np.ndarray  # [H] int64, its row of the tree's policies
    child: np.ndarray  # [H, O] int64, -1 where there is none
    prob: np.ndarray  # [H, O] float64, of chance's outcomes
    value: np.ndarray  # [H] float64, what player 0 gets at an end


def histories(game: Game, tree: GameTree) -> Histories:
    levels = expand(game)
    rows = tree._collect_rows(levels)
    outcomes = max(game.num_actions, game.num_chance_outcomes)
    start = np.cumsum([0, *(len(level.player) for level in levels)])
    child, prob = np.full((start[-1], outcomes), -1), np.zeros((start[-1], outcomes))
    for depth, level in enumerate(levels[1:], 1):
        above = start[depth - 1] + level.parent
        child[above, level.action] = start[depth] + np.arange(len(level.player))
        prob[above, level.action] = level.edge_prob
    player = np.concatenate([level.player for level in levels]).astype(np.int64)
    value = np.concatenate([level.returns[:, 0] for level in levels])
    return Histories(player, np.concatenate(rows), child, prob, np.where(player == TERMINAL, value, 0.0))


@njit
def learn(player, row, child, prob, value, regrets, total, baseline, seen, games, decisions, corrects, power, seed):
    """Play until `decisions` have been made; returns games and decisions so far."""
    np.random.seed(seed)
    num_outcomes = child.shape[1]
    path, chosen, made = np.empty(1000, np.int64), np.empty(1000, np.int64), 0
    policy, estimate = np.empty(num_outcomes), np.empty(num_outcomes)
    while made < decisions:
        explorer = games % 2
        games += 1
        node, length = 0, 0
        while player[node] != TERMINAL:
            _policy(node, player, row, child, prob, regrets, policy)
            if player[node] >= 0:
                made += 1
                if player[node] == explorer:
                    count = (child[node] >= 0).sum()
                    policy[:] = np.where(child[node] >= 0, 1.0 / count, 0.0)
                else:
                    total[row[node]] += policy[: total.shape[1]] * float(games) ** power
            number, a = np.random.random(), 0
            number -= policy[0]
            while number >= 0.0 and a < num_outcomes - 1:
                a += 1
                number -= policy[a]
            while child[node, a] < 0 or policy[a] <= 0.0:  # rounding
                a -= 1
            path[length], chosen[length] = node, a
            length += 1
            node = child[node, a]
        sign = 1.0 if explorer == 0 else -1.0
        worth = sign * value[node]  # to the explorer
        reach = 1.0  # of the explorer's own draws
        for i in range(length):
            if player[path[i]] == explorer:
                reach /= (child[path[i]] >= 0).sum()
        for i in range(length - 1, -1, -1):
            node, a = path[i], chosen[i]
            _policy(node, player, row, child, prob, regrets, policy)
            drawn = policy[a]
            if player[node] == explorer:
                drawn = 1.0 / (child[node] >= 0).sum()
                reach /= drawn
            mean = 0.0
            for b in range(num_outcomes):
                estimate[b] = sign * baseline[node, b] if child[node, b] >= 0 else 0.0
            estimate[a] += (worth - estimate[a]) / drawn
            for b in range(num_outcomes):
                mean += policy[b] * estimate[b]
            if corrects:
                seen[node, a] += 1.0
                baseline[node, a] += (sign * worth - baseline[node, a]) / min(seen[node, a], WINDOW)
            if player[node] == explorer:
                for b in range(regrets.shape[1]):
                    if child[node, b] >= 0:
                        regrets[row[node], b] = max(0.0, regrets[row[node], b] + (estimate[b] - mean) / reach)
            worth = mean
    return games, made


@njit
def _policy(node, player, row, child, prob, regrets, out):
    """Chance's probabilities, or regret matching: uniform where no regret is positive."""
    out[:] = prob[node]
    if player[node] < 0:
        return
    total = regrets[row[node]].sum()
    count = (child[node] >= 0).sum()
    for a in range(len(out)):
        if child[node, a] < 0:
            out[a] = 0.0
        elif total > 0.0:
            out[a] = regrets[row[node], a] / total
        else:
            out[a] = 1.0 / count


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="envs.leduc_poker")
    parser.add_argument("--decisions", type=float, nargs="+", default=[1, 10], help="millions, rising")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104, 105])
    parser.add_argument("--baseline", choices=["none", "mean"], default="mean")
    parser.add_argument("--power", type=float, default=2.0, help="of the number of games, weights of the average")
    args = parser.parse_args(arguments)
    game = load_game(args.game)
    if game.num_players != 2 or not game.zero_sum:
        parser.error(f"--game {args.game}: needs two players and zero sum")
    if args.decisions != sorted(args.decisions) or args.decisions[0] <= 0:
        parser.error(f"--decisions {args.decisions}: needs rising numbers above 0")
    tree = GameTree(game)
    nodes = histories(game, tree)
    found = {millions: [] for millions in args.decisions}
    for seed in args.seeds:
        regrets, total = np.zeros(tree.legal.shape), np.zeros(tree.legal.shape)
        baseline, seen = np.zeros(nodes.child.shape), np.zeros(nodes.child.shape)
        games = made = 0
        for number, millions in enumerate(args.decisions):
            games, new = learn(
                *nodes, regrets, total, baseline, seen, games, int(millions * 1e6) - made, args.baseline == "mean",
                args.power, seed + 1000 * number,
            )  # fmt: skip
            made += new
            sums = total.sum(1, keepdims=True)
            policy = np.where(sums > 0, total / np.where(sums > 0, sums, 1), tree.uniform_policy())
            found[millions].append(tree.evaluate(policy).nash_conv)
    for millions, values in found.items():
        print(
            f"{game.name}, {millions:g} M decisions, baseline {args.baseline}: NashConv median "
            f"{statistics.median(values):.4f}, worst {max(values):.4f} of {len(values)}", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
