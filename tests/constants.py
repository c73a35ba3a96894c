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

# Lanctot et al. (2013) and OpenSpiel: infosets of liar's dice are (hand, set of bids): hands times 2 ** bids.
LIARS_DICE_INFOSETS = {"1x4": 4 * 2**8, "1x5": 5 * 2**10, "1x6": 6 * 2**12, "2x3": 6 * 2**12, "2x5": 15 * 2**20}

# Goofspiel with hidden bids and random point cards: (num_cards!) ** 3 games.
GOOFSPIEL_TERMINALS = {4: 24**3, 5: 120**3}
GOOFSPIEL_INFOSETS = {4: 3608, 5: 236_450}

# Rudolph et al. (2025), arXiv 2502.08938: infosets and games of phantom boards; uniform play as exp-a-spiel has it.
DARK_HEX_INFOSETS, DARK_HEX_TERMINALS = 6_072_917, 9_469_697_760  # no draws in hex
PHANTOM_TIC_TAC_TOE_INFOSETS, ABRUPT_PHANTOM_TIC_TAC_TOE_INFOSETS = 5_990_669, 23_310_269
ABRUPT_DARK_HEX_INFOSETS = 27_325_277
DARK_HEX_UNIFORM_NASH_CONV = 1.832804
PHANTOM_TIC_TAC_TOE_UNIFORM_NASH_CONV, ABRUPT_PHANTOM_TIC_TAC_TOE_UNIFORM_NASH_CONV = 1.577463, 1.238668
DARK_HEX_UNIFORM_VALUE = 1 / 3  # 84 of 126 full boards connect the first player's sides

LN2 = math.log(2)
