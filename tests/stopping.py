"""A training that is asked to stop on the way."""

import os
import signal

from dslbi_torch.training.run import train


def stop_after(monkeypatch, count):
    """SIGTERM reaches this process in its ``count``-th step; the list grows by one in each."""
    step, calls = train.train_step, []

    def signalled(*args):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*args)

    monkeypatch.setattr(train, "train_step", signalled)
    return calls
