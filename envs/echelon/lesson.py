"""A first lesson: a scout and a heavy against the same, on the sixteen maps with the shortest ways, close together."""

from envs.echelon.game import echelon
from envs.echelon.mechs import HEAVY, SCOUT

GAME = echelon("echelon_lesson", (SCOUT, HEAVY), maps=16, formation="close")
