"""Echelon, two against two: scout and heavy."""

from envs.echelon.game import echelon
from envs.echelon.mechs import HEAVY, SCOUT

GAME = echelon("echelon_two", (SCOUT, HEAVY))
