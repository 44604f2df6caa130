"""Containment: candidate programs run in warm, killable children, away from labels and from everything else.

In: code. Out: what became of it, as a value. `Sandbox` is the whole interface; `probe_walls` says what this node can
do. Importing this does not import torch.

A child is forked from a warm zygote and confines itself before it meets the program, in this order; each layer is one
module:

    descriptors      nothing is open but its channel, its output and its logits     (confinement)
    privileges       a user id of its own, or no capabilities                       (privileges)
    resources        private memory, file size, open files, no core dump            (resource_limits)
    files            Landlock: libraries to read, one scratch folder to write       (landlock, reach)
                     bubblewrap where there is no Landlock                          (namespace)
    system calls     seccomp: no sockets, processes, privileges, shared memory      (seccomp, syscalls)

From outside it is watched (watchdog, gauges, output: time, memory, threads, scratch space, printed text) and its
forbidden attempts are seen and named even where it swallows the error (witness). What stands is tried on every node
(probe) and has a name (tiers).

Covered: endless loops, deadlocks, hunger of every kind, crashes, files, network, other processes, signals, privileges,
the environment, validation labels, forged accuracy and forged messages.

NOT covered: holes in the kernel or, on a GPU, in its driver, which all candidates share; a GPU's memory and time, which
nothing outside watches; looking (that a file exists, its size and times: `stat` is allowed); reading library code; how
long a calculation takes and how warm a cache is. Parameters, FLOPs, the graph's signature, depth, latency and the
training curve are the child's own word, which a program in the same process can forge: accuracy and loss alone are
measured outside.
Below tier A also whatever the missing layer would have covered.
"""

from nas_ray.sandbox.launcher import ZygoteLost
from nas_ray.sandbox.probe import probe_walls
from nas_ray.sandbox.supervisor import Sandbox, Training
from nas_ray.sandbox.tiers import ContainmentError, Walls

__all__ = ["ContainmentError", "Sandbox", "Training", "Walls", "ZygoteLost", "probe_walls"]
