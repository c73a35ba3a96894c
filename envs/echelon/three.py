"""Echelon, three against three: scout, medium and heavy."""

from envs.echelon.game import echelon
from envs.echelon.mechs import HEAVY, MEDIUM, SCOUT

GAME = echelon("echelon_three", (SCOUT, MEDIUM, HEAVY))
