"""Beasty Bar as it is told at the table: slow, plain Python, with lists of cards and no tricks.

The twin of `envs.beasty_bar`, which was written after it; nothing is shared. Decks are shuffled lists here.
A play is (slot, parameters): a place in the hand, and for
    a kangaroo     (hop,), or () on an empty queue
    a parrot       (target,), counted in the queue before the play
    a chameleon    (target,) of the card it copies, then the parameter of that card's ability if it takes one
"""

from dataclasses import dataclass, field

STRENGTH = {
    "lion": 12, "hippo": 11, "crocodile": 10, "snake": 9, "giraffe": 8, "zebra": 7,
    "seal": 6, "chameleon": 5, "monkey": 4, "kangaroo": 3, "parrot": 2, "skunk": 1,
}  # fmt: skip
POINTS = {
    "lion": 2, "hippo": 2, "crocodile": 3, "snake": 2, "giraffe": 3, "zebra": 4,
    "seal": 2, "chameleon": 3, "monkey": 3, "kangaroo": 4, "parrot": 4, "skunk": 4,
}  # fmt: skip


@dataclass(eq=False)
class Card:
    species: str
    owner: int
    entered_turn: int = -1
    copies: str = ""  # while a chameleon's ability is being carried out

    @property
    def acts_as(self):
        return self.copies or self.species

    @property
    def strength(self):
        return STRENGTH[self.acts_as]

    def __repr__(self):
        return f"{self.species}{self.owner}"


@dataclass
class Table:
    hands: list  # of each player: cards
    decks: list  # of each player: cards, the next one first
    queue: list = field(default_factory=list)  # the front, next to the bar, first
    bar: list = field(default_factory=list)
    hell: list = field(default_factory=list)
    turn: int = 0
    player: int = 0

    def score(self, player):
        return sum(POINTS[card.species] for card in self.bar if card.owner == player)

    def is_over(self):
        left = len(self.queue) + sum(map(len, self.hands)) + sum(map(len, self.decks))
        return self.turn > 0 and left < 5

    def plays(self):
        """All that the player to move may do."""
        return [
            (slot, parameters)
            for slot, card in enumerate(self.hands[self.player])
            for parameters in self.parameters(card.species)
        ]

    def parameters(self, species):
        places = range(len(self.queue))
        if species == "parrot":
            return [(target,) for target in places]
        if species == "kangaroo":
            return [(hop,) for hop in (1, 2) if hop <= len(self.queue)] or [()]
        if species == "chameleon":
            others = [target for target in places if self.queue[target].species != "chameleon"]
            return [(target, *more) for target in others for more in self.parameters(self.queue[target].species)]
        return [()]

    def play(self, slot, parameters=()):
        card = self.hands[self.player].pop(slot)
        before = list(self.queue)
        card.entered_turn = self.turn
        self.queue.append(card)
        if card.species == "chameleon":
            target, *parameters = parameters
            card.copies = before[target].species
        self.act(card, parameters, before)
        card.copies = ""
        self.recur()
        if len(self.queue) == 5:
            first, second, third, fourth, last = self.queue
            self.bar += [first, second]
            self.hell += [last]
            self.queue = [third, fourth]
        if self.decks[self.player]:
            self.hands[self.player].append(self.decks[self.player].pop(0))
        self.turn += 1
        self.player = 1 - self.player

    def expel(self, cards):
        for card in cards:
            self.queue.remove(card)
            self.hell.append(card)

    def act(self, card, parameters, before):
        """What an animal does when it is played, as the species that it acts as."""
        others = [other for other in self.queue if other is not card]
        species = card.acts_as
        if species == "lion":
            if any(other.acts_as == "lion" for other in others):
                self.expel([card])
            else:
                self.expel([other for other in others if other.acts_as == "monkey"])
                self.queue.remove(card)
                self.queue.insert(0, card)
        elif species == "hippo":
            self.push_forward(card)
        elif species == "crocodile":
            self.eat_forward(card)
        elif species == "snake":
            self.queue.sort(key=lambda other: -other.strength)
        elif species == "giraffe":
            self.step_forward(card)
        elif species == "seal":
            self.queue.reverse()
        elif species == "monkey":
            monkeys = [other for other in others if other.acts_as == "monkey"]
            if monkeys:
                self.expel([other for other in others if other.acts_as in ("hippo", "crocodile")])
                rest = [other for other in self.queue if other is not card and other not in monkeys]
                self.queue = [card, *reversed(monkeys), *rest]
        elif species == "kangaroo":
            if parameters:
                (hop,) = parameters
                self.move(card, self.queue.index(card) - hop)
        elif species == "parrot":
            (target,) = parameters
            self.expel([before[target]])
        elif species == "skunk":
            present = {other.acts_as for other in others} - {"skunk"}
            strongest = sorted(present, key=STRENGTH.get)[-2:]
            self.expel([other for other in others if other.acts_as in strongest])

    def move(self, card, place):
        self.queue.remove(card)
        self.queue.insert(place, card)

    def push_forward(self, hippo):
        place = self.queue.index(hippo)
        while place > 0 and self.gives_way(self.queue[place - 1], hippo):
            place -= 1
        self.move(hippo, place)

    def eat_forward(self, crocodile):
        while (place := self.queue.index(crocodile)) > 0 and self.gives_way(self.queue[place - 1], crocodile):
            self.expel([self.queue[place - 1]])

    def step_forward(self, giraffe):
        place = self.queue.index(giraffe)
        if place > 0 and self.queue[place - 1].strength < giraffe.strength:
            self.move(giraffe, place - 1)

    @staticmethod
    def gives_way(ahead, card):
        return ahead.acts_as != "zebra" and ahead.strength < card.strength

    def recur(self):
        """The walk from the front to the back."""
        place = 0
        while place < len(self.queue):
            card = self.queue[place]
            if card.species == "hippo":
                self.push_forward(card)
                place = self.queue.index(card)
            elif card.species == "crocodile":
                self.eat_forward(card)
                place = self.queue.index(card)
            elif card.species == "giraffe" and card.entered_turn != self.turn:
                self.step_forward(card)  # what it passed stands at `place` now, and is none of the three
            place += 1


def deal(orders):
    """The table at the start, with the species of each deck in the order in which they are drawn."""
    decks = [[Card(species, owner) for species in orders[owner]] for owner in (0, 1)]
    return Table(hands=[deck[:4] for deck in decks], decks=[deck[4:] for deck in decks])
