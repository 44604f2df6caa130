"""Which walls can this machine put around candidates?

    python -m nas_ray.sandbox [cpu | cuda] [--json]

In: nothing. Out: the tier, what it is made of, and why the rest is missing.
"""

from __future__ import annotations

import argparse
import json

from nas_ray.sandbox.probe import probe_walls


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m nas_ray.sandbox", description="Which walls stand on this machine?")
    parser.add_argument("device", nargs="?", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    walls = probe_walls(options.device)
    if options.json:
        print(json.dumps(walls.to_json()))
        return
    print(walls.describe())
    for reason in walls.missing:
        print(f"  not {reason}")


if __name__ == "__main__":
    main()
