"""Beasty Bar, position by position: what each animal does, as one reads it in the rules.

Player 0 plays. A row is (queue, play, parameters, queue after, bar after, hell after); the front of the queue comes
first, and animals arrive in bar and hell from left to right. A bare name is player 0's animal, a name in capitals
player 1's.
"""

POSITIONS = {
    "lion": [
        ("", "lion", (), "lion", "", ""),
        ("ZEBRA hippo", "lion", (), "lion ZEBRA hippo", "", ""),
        ("MONKEY seal monkey", "lion", (), "lion seal", "", "MONKEY monkey"),
        ("MONKEY seal LION", "lion", (), "MONKEY seal LION", "", "lion"),  # nothing else happens
        ("SEAL snake ZEBRA parrot", "lion", (), "snake ZEBRA", "lion SEAL", "parrot"),
    ],
    "hippo": [
        ("", "hippo", (), "hippo", "", ""),
        ("lion SEAL parrot", "hippo", (), "lion hippo SEAL parrot", "", ""),
        ("seal ZEBRA parrot", "hippo", (), "seal ZEBRA hippo parrot", "", ""),
        ("seal HIPPO parrot", "hippo", (), "HIPPO hippo seal parrot", "", ""),  # as strong: it stops, HIPPO goes on
        ("CROCODILE", "hippo", (), "hippo CROCODILE", "", ""),
        ("LION HIPPO seal", "skunk", (), "seal skunk", "", "LION HIPPO"),
        ("parrot SEAL HIPPO", "kangaroo", (1,), "HIPPO parrot SEAL kangaroo", "", ""),  # recurring, in anybody's turn
    ],
    "crocodile": [
        ("", "crocodile", (), "crocodile", "", ""),
        ("lion SEAL parrot", "crocodile", (), "lion crocodile", "", "parrot SEAL"),  # the nearest first
        ("seal ZEBRA parrot", "crocodile", (), "seal ZEBRA crocodile", "", "parrot"),
        ("seal CROCODILE snake", "crocodile", (), "CROCODILE crocodile", "", "snake seal"),
        ("HIPPO snake", "crocodile", (), "HIPPO crocodile", "", "snake"),
        ("HIPPO CROCODILE", "zebra", (), "HIPPO CROCODILE zebra", "", ""),
        ("seal ZEBRA CROCODILE", "parrot", (1,), "CROCODILE parrot", "", "ZEBRA seal"),  # recurring, once it is free
    ],
    "snake": [
        ("", "snake", (), "snake", "", ""),
        ("skunk LION parrot", "snake", (), "LION snake parrot skunk", "", ""),
        ("SNAKE skunk snake", "snake", (), "SNAKE snake snake skunk", "", ""),
        ("parrot SKUNK PARROT", "snake", (), "snake parrot PARROT SKUNK", "", ""),  # stable
        ("parrot ZEBRA CROCODILE", "snake", (), "CROCODILE snake ZEBRA parrot", "", ""),  # then nothing to eat ahead
    ],
    "giraffe": [
        ("", "giraffe", (), "giraffe", "", ""),
        ("SEAL parrot", "giraffe", (), "SEAL giraffe parrot", "", ""),  # once in the turn that it enters
        ("seal ZEBRA", "giraffe", (), "seal giraffe ZEBRA", "", ""),
        ("GIRAFFE", "giraffe", (), "GIRAFFE giraffe", "", ""),
        ("SEAL parrot GIRAFFE", "skunk", (), "parrot skunk", "", "SEAL GIRAFFE"),
        ("SEAL parrot GIRAFFE", "zebra", (), "SEAL GIRAFFE parrot zebra", "", ""),  # recurring
        ("SEAL GIRAFFE parrot", "giraffe", (), "GIRAFFE SEAL giraffe parrot", "", ""),  # the other one too
        ("LION skunk GIRAFFE", "hippo", (), "LION hippo GIRAFFE skunk", "", ""),
        # Past the parrot, overtaken by the hippo, and so met again by the walk: past the skunk, too.
        ("HIPPO GIRAFFE parrot skunk", "seal", (), "GIRAFFE skunk", "HIPPO seal", "parrot"),
    ],
    "zebra": [
        ("", "zebra", (), "zebra", "", ""),
        ("SEAL parrot", "zebra", (), "SEAL parrot zebra", "", ""),
        ("seal zebra HIPPO", "zebra", (), "seal zebra HIPPO zebra", "", ""),
    ],
    "seal": [
        ("", "seal", (), "seal", "", ""),
        ("LION parrot", "seal", (), "seal parrot LION", "", ""),
        ("parrot SKUNK HIPPO", "seal", (), "HIPPO seal SKUNK parrot", "", ""),  # then the hippo walks
    ],
    "chameleon": [
        ("LION", "chameleon", (0,), "LION", "", "chameleon"),  # a lion is there, always
        ("monkey LION", "chameleon", (1,), "monkey LION", "", "chameleon"),
        ("LION HIPPO seal", "chameleon", (1,), "LION HIPPO chameleon seal", "", ""),  # HIPPO is as strong
        ("SEAL zebra HIPPO", "chameleon", (2,), "SEAL zebra HIPPO chameleon", "", ""),
        ("SNAKE CROCODILE seal", "chameleon", (1,), "CROCODILE chameleon", "", "seal SNAKE"),
        ("CROCODILE seal parrot", "chameleon", (0,), "CROCODILE chameleon", "", "parrot seal"),
        ("parrot SNAKE lion", "chameleon", (1,), "lion SNAKE chameleon parrot", "", ""),  # sorted as a 9
        ("zebra snake seal", "chameleon", (1,), "snake chameleon zebra seal", "", ""),
        ("giraffe zebra", "chameleon", (0,), "giraffe chameleon zebra", "", ""),  # with strength 8, once
        ("GIRAFFE seal", "chameleon", (0,), "GIRAFFE chameleon seal", "", ""),
        ("parrot zebra", "chameleon", (1,), "parrot zebra chameleon", "", ""),
        ("LION SEAL parrot", "chameleon", (1,), "chameleon parrot SEAL LION", "", ""),
        ("seal MONKEY parrot", "chameleon", (1,), "chameleon MONKEY seal parrot", "", ""),
        ("MONKEY HIPPO monkey", "chameleon", (0,), "chameleon monkey MONKEY", "", "HIPPO"),
        ("LION zebra KANGAROO", "chameleon", (2, 2), "LION chameleon zebra KANGAROO", "", ""),
        ("KANGAROO", "chameleon", (0, 1), "chameleon KANGAROO", "", ""),
        ("ZEBRA parrot", "chameleon", (1, 0), "parrot chameleon", "", "ZEBRA"),
        ("ZEBRA parrot", "chameleon", (1, 1), "ZEBRA chameleon", "", "parrot"),  # the copied one itself
        ("SKUNK lion SEAL", "chameleon", (0,), "SKUNK chameleon", "", "lion SEAL"),
        ("SKUNK CHAMELEON parrot", "chameleon", (0,), "SKUNK chameleon", "", "CHAMELEON parrot"),  # itself a skunk
        ("SKUNK", "chameleon", (0,), "SKUNK chameleon", "", ""),
        ("zebra HIPPO skunk", "chameleon", (0,), "zebra HIPPO skunk chameleon", "", ""),
        ("CROCODILE ZEBRA snake seal", "chameleon", (3,), "snake ZEBRA", "chameleon seal", "CROCODILE"),
    ],
    "monkey": [
        ("", "monkey", (), "monkey", "", ""),
        ("HIPPO parrot", "monkey", (), "HIPPO parrot monkey", "", ""),  # alone: nothing
        ("seal MONKEY", "monkey", (), "monkey MONKEY seal", "", ""),
        ("HIPPO MONKEY seal CROCODILE", "monkey", (), "monkey MONKEY seal", "", "HIPPO CROCODILE"),
        ("seal MONKEY skunk monkey", "monkey", (), "MONKEY seal", "monkey monkey", "skunk"),
        ("seal MONKEY CHAMELEON", "monkey", (), "monkey MONKEY seal CHAMELEON", "", ""),  # no monkey any more
    ],
    "kangaroo": [
        ("", "kangaroo", (), "kangaroo", "", ""),
        ("LION", "kangaroo", (1,), "kangaroo LION", "", ""),
        ("LION ZEBRA seal", "kangaroo", (1,), "LION ZEBRA kangaroo seal", "", ""),
        ("LION ZEBRA seal", "kangaroo", (2,), "LION kangaroo ZEBRA seal", "", ""),
    ],
    "parrot": [
        ("ZEBRA", "parrot", (0,), "parrot", "", "ZEBRA"),
        ("LION seal ZEBRA", "parrot", (1,), "LION ZEBRA parrot", "", "seal"),
        ("LION seal ZEBRA PARROT", "parrot", (0,), "seal ZEBRA PARROT parrot", "", "LION"),  # four are left: no check
    ],
    "skunk": [
        ("", "skunk", (), "skunk", "", ""),
        ("LION", "skunk", (), "skunk", "", "LION"),
        ("SEAL zebra lion", "skunk", (), "SEAL skunk", "", "zebra lion"),
        ("SEAL parrot seal PARROT", "skunk", (), "skunk", "", "SEAL parrot seal PARROT"),  # all animals of both species
        ("SKUNK parrot", "skunk", (), "SKUNK skunk", "", "parrot"),
        ("SKUNK", "skunk", (), "SKUNK skunk", "", ""),
        ("SKUNK kangaroo PARROT MONKEY", "skunk", (), "SKUNK PARROT skunk", "", "kangaroo MONKEY"),
    ],
    "the five": [
        ("LION ZEBRA seal PARROT", "zebra", (), "seal PARROT", "LION ZEBRA", "zebra"),
        ("LION ZEBRA seal PARROT", "kangaroo", (2,), "kangaroo seal", "LION ZEBRA", "PARROT"),
        ("LION ZEBRA seal PARROT", "giraffe", (), "seal giraffe", "LION ZEBRA", "PARROT"),
        ("LION zebra seal parrot", "seal", (), "seal zebra", "seal parrot", "LION"),
    ],
}  # fmt: skip


def cards(text):
    """'lion ZEBRA' -> [('lion', 0), ('zebra', 1)]."""
    return [(word.lower(), int(word.isupper())) for word in text.split()]


ROWS = [(name, *row) for name, rows in POSITIONS.items() for row in rows]
