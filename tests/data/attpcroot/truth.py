"""What stands in the ROOT miniatures beside this file: numbers by rule, the same for every file.

``make.py`` (under ROOT) hands them to ROOT, the tests compare what was read with them.
"""

import numpy as np

N_ENTRIES = 9


def n_objects(entry: int, several: bool) -> int:
    """Events in an entry's TClonesArray: one, or none, one, two, three in turn."""
    return (1, 0, 2, 1, 3)[entry % 5] if several else 1


def pads(entry: int, index: int) -> list[dict]:
    """Pads of an event of an entry; one is a null pointer, one unmapped, one has an odd class."""
    made = []
    for place in range(3 + (entry * 5 + index) % 4):
        number = -1 if place == 1 else (entry * 997 + index * 131 + place * 17) % 10240
        samples = np.arange(512)
        raw = (number + 300 + 3 * (samples % 40) + (samples == 100 + place) * 2500) % 4096
        made.append(
            {
                "null": place == 2 and entry % 2 == 0,
                "twin": place == 0 and entry % 3 == 0,
                "num": number,
                "size": place % 2,
                "x": number / 64.0 - 80.0,
                "y": 70.5 - number / 32.0,
                "raw": raw.astype(np.int32),
                "adc": raw - 300.25,
                "valid": place != 1,
                "subtracted": True,
            }
        )
    return made


def hits(entry: int, index: int) -> list[dict]:
    """Hits of an event of an entry."""
    made = []
    for place in range((entry * 7 + index * 3) % 11):
        number = (entry * 331 + index * 77 + place * 19) % 10240
        made.append(
            {
                "x": number / 128.0 - 40.0,
                "y": 20.25 - place,
                "z": 1000.0 - 3.5 * place - entry,
                "time": 500 - 7 * place,
                "charge": 100.125 + 10 * place + entry,
                "integral": 900.5 + place,
                "pad": number,
            }
        )
    return made
