"""The search as a Cross-Entropy method: the theory of docs/theory.md as pure functions on numbers and arrays.

One module or two for each of its six results: R1 `cross_entropy`, R2 `quality_gain`, R3 `convergence` (predictions) and
`elite_rate_fits` (estimators), R4 `token_errors`, R5 `novelty_filter`, R6 `reliability` and `reliability_estimates`.
Parameters and result fields carry the symbols of docs/theory.md (P0, a, rho, Lam, ...), so that a formula can be read
beside its code. Logarithms are natural; likelihoods are in nats, rates and probabilities are shares from 0 to 1.
"""
