"""The tabular yardstick: what it learns is an equilibrium, and it counts what it says."""

import numpy as np
import pytest

from envs.exact import GameTree
from envs.game import CHANCE, TERMINAL
from scripts import tabular


@pytest.mark.parametrize(("baseline", "most"), [("mean", 0.02), ("none", 0.06)])
def test_kuhn(capsys, baseline, most):
    words = ["--game", "envs.kuhn_poker", "--decisions", "0.05", "0.3", "--seeds", "1", "--baseline", baseline]
    tabular.main(words)
    said = capsys.readouterr().out.splitlines()
    early, late = (float(line.split("worst ")[1].split()[0]) for line in said)
    assert late < min(most, early) and "0.3 M decisions" in said[1]


def test_histories_are_the_trees(kuhn):
    tree = GameTree(kuhn)
    nodes = tabular.histories(kuhn, tree)
    assert len(nodes.player) == tree.num_nodes
    assert (nodes.player == TERMINAL).sum() == tree.num_terminals
    assert ((nodes.child < 0).all(1) == (nodes.player == TERMINAL)).all()
    assert np.allclose(nodes.prob[nodes.player == CHANCE].sum(1), 1.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--decisions", "2", "1"], "needs rising numbers"), (["--game", "games.pairs"], "needs two players")],
)
def test_bad_input(words, said, capsys):
    with pytest.raises(SystemExit):
        tabular.main(words)
    assert said in capsys.readouterr().err
