"""What the libraries below read from the environment once, when they are imported or first used."""

import os

DEFAULTS = {
    # torch's OpenMP threads spin while they wait for each other, far longer than two busy cores can bear: with other
    # work on them a step of a micro model took 4 to 500 times its time. To spin for some microseconds and then sleep
    # costs an idle machine nothing (24.1 samples/s of `tiny`; 23.9 spinning, 20.0 sleeping at once).
    "GOMP_SPINCOUNT": "10000",
    # A rank that loses rank 0 says so in a sentence; without this 60 lines of C++ frames stand before it.
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # NCCL's own watchdog would abort the process before the heartbeat (ranks/heartbeat.py) can say which rank hangs.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    # Evaluations and samplers use other sizes than steps do; blocks of fixed size would leave gaps between them.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}


def settle() -> None:
    """Set what nobody has set. Call before torch is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
