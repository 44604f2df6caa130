"""How OpenMP's threads wait, in every process of ours on a CPU: asleep.

In: nothing. Out: environment variables that must be set before torch is imported. By default threads spin, and on two
contended cores that made a training loop seven times slower.
"""

from __future__ import annotations

PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
