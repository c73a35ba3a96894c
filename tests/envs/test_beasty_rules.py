"""Beasty Bar's rules: hand-made positions and the slow twin of the tests."""

import pytest
from games import beasty_oracle as oracle
from games.beasty_positions import ROWS, cards


@pytest.mark.parametrize("name, before, play, parameters, queue, bar, hell", ROWS)
def test_oracle_position(name, before, play, parameters, queue, bar, hell):
    table = oracle.Table([[oracle.Card(play, 0)], []], [[], []], [oracle.Card(*card) for card in cards(before)], turn=9)
    assert (0, parameters) in table.plays()
    table.play(0, parameters)
    found = [[(card.species, card.owner) for card in zone] for zone in (table.queue, table.bar, table.hell)]
    assert found == [cards(queue), cards(bar), cards(hell)]
