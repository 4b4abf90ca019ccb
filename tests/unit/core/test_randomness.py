"""Workers are forked: what they draw must differ all the same, or two requests would have one id."""

import os
import random

from gateway.core.trace_context import new_span_id, new_trace_id


def test_forked_workers_make_ids_of_their_own():
    made = []
    for _ in range(3):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, f"{new_trace_id()}{new_span_id()}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        made.append(os.read(reading, 48))
        os.close(reading)
        os.close(writing)
    made.append(f"{new_trace_id()}{new_span_id()}".encode())
    assert len({part for ids in made for part in (ids[:32], ids[32:])}) == 8


def test_nobody_else_can_seed_it():
    random.seed(1)
    first = new_trace_id()
    random.seed(1)
    assert new_trace_id() != first
