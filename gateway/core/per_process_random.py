"""Random numbers that each process draws from a generator of its own, not for secrets.

They decide traffic shares and retry jitter. Workers are forked, and each must draw its own. Not the `random` module's own
generator, which anybody may seed.
"""

import os
import random
from typing import Final

_source: Final = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_source.seed)

random_share: Final = _source.random
random_between: Final = _source.uniform
