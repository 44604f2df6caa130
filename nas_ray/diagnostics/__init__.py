"""Is a search still learning, or does it memorise, starve or measure noise? The theory's diagnostics on a run's rows.

In: a `RunTable`. Out: a `Diagnosis`: seventeen diagnostics D1 to D17, each with a verdict, a number with its interval,
what it means and what to change, and the causes that follow from them.
"""

from nas_ray.diagnostics.diagnosis import Diagnosis, diagnose
from nas_ray.diagnostics.diagnostic import Diagnostic

__all__ = ["Diagnosis", "Diagnostic", "diagnose"]
