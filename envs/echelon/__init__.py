"""Echelon: two packs of mechs of five classes fight for a zone, and see only what is in sight.

`envs.echelon` is six against six; `envs.echelon.three` and `envs.echelon.two` are smaller. Rules: README.md here.
"""

from envs.echelon.game import echelon
from envs.echelon.mechs import SIX

GAME = echelon("echelon", SIX)
