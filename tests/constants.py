"""Numbers of theory, with their sources. NashConv in reward units per game, summed over players."""

import math

# OpenSpiel, python/algorithms/exploitability_test.py and its games' documentation.
KUHN_UNIFORM_NASH_CONV = 11 / 12
KUHN_ALWAYS_FIRST_ACTION_NASH_CONV = 2.0
KUHN_VALUE = -1 / 18  # Kuhn (1950), of player 0
KUHN_INFOSETS, KUHN_TERMINALS = 12, 30
LEDUC_UNIFORM_NASH_CONV = 4.747222222222222
LEDUC_VALUE = -0.085606424078  # by linear programming, of player 0
LEDUC_INFOSETS, LEDUC_TERMINALS = 936, 5520

# From p A = 0 with p the row player's mix, see envs/biased_rps.py.
BIASED_RPS_EQUILIBRIUM = (0.2, 0.6, 0.2)

# Counting boards: 255,168 games of tic-tac-toe (every textbook); first player wins with perfect play: never.
TIC_TAC_TOE_TERMINALS = 255_168

LN2 = math.log(2)
