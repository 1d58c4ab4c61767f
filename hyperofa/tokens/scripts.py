"""Which scripts put no spaces between words.

A list, since no input says it for certain: a tokenizer may drop its marks (BERT), and the words of a vector file are
cut already. It holds the scripts that Unicode lets break a line within a run of letters, because words end there unseen
(UAX #14, classes ID, CJ, SA and AK), and Tibetan, whose tsheg ends a syllable, not a word. Hangul is not among them.
"""

import re

_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17ff\u19e0-\u19ff"  # Khmer
    "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\ua000-\ua4cf"  # Yi
    "]"
)


def is_unspaced(text: str) -> bool:
    """Whether a text has a letter of a script that puts no spaces between words."""
    return not text.isascii() and _UNSPACED.search(text) is not None
