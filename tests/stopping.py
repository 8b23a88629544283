"""A training that is asked to stop on the way."""

import os
import signal

from dslbi_torch.training.run import loop


def stop_after(monkeypatch, count):
    """SIGTERM reaches this process in its ``count``-th step; the list grows by one in each."""
    step, calls = loop.train_step, []

    def signalled(*args):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

    monkeypatch.setattr(loop, "train_step", signalled)
    return calls
