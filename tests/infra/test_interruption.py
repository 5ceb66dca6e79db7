import os
import signal

import pytest

from infra.interruption import ending_with_parent


@pytest.fixture
def terminations():
    """Collect SIGTERM instead of ending this process."""
    found = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_several_signals_of_the_end_of_the_parent_interrupt_once(terminations):
    """Each thread of a killed parent may send one."""
    with ending_with_parent() as has_ended:
        assert not has_ended()
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert has_ended()
    assert terminations == [signal.SIGTERM]
