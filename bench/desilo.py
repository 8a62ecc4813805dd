#!/usr/bin/env python3
"""Single operations of DESILO FHE at N = 2^16 with 24 words a coefficient, one thread: a column beside `tacit bench engine`.

    python3 -m venv bench/venv && bench/venv/bin/pip install numpy desilofhe
    bench/venv/bin/python bench/desilo.py --json desilo.json

The library publishes neither its chain nor its secret's weight; level 30 is that with 24 words. Its products are rescaled. Read its licence before
any other use.
"""
import argparse
import importlib.metadata
import json
import statistics
import time

import desilofhe
import numpy as np

LEVEL = 30


def timed(work, runs=7, at_least=0.5):
    """Seconds of one call, after one that touches its memory for the first time."""
    work()
    took = []
    while len(took) < runs or sum(took) < at_least:
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return {"median": statistics.median(took), "min": min(took), "runs": len(took)}


def measure():
    engine = desilofhe.Engine(max_level=LEVEL)
    secret = engine.create_secret_key()
    public = engine.create_public_key(secret)
    relinearisation = engine.create_relinearization_key(secret)
    rotations = [engine.create_fixed_rotation_key(secret, step) for step in range(1, 9)]
    rng = np.random.default_rng(7)
    x, y = (rng.uniform(-1, 1, engine.slot_count) for _ in range(2))
    a, b, plain = engine.encrypt(x, public, LEVEL), engine.encrypt(y, public, LEVEL), engine.encode(y, LEVEL)
    kept = engine.clone(a)
    results = {
        "encode": timed(lambda: engine.encode(x, LEVEL)),
        "encrypt": timed(lambda: engine.encrypt(x, public, LEVEL)),
        "decrypt+decode": timed(lambda: engine.decrypt(a, secret)),
        "ct+ct": timed(lambda: engine.add(a, b)),
        "ct+ct in place": timed(lambda: engine.add(kept, b, kept)),
        "ct*pt+rescale": timed(lambda: engine.multiply(a, plain)),
        "ct*ct+relin+rescale": timed(lambda: engine.multiply(a, b, relinearisation)),
        "rotate": timed(lambda: engine.rotate(a, rotations[0])),
        "rotate hoisted x8": timed(lambda: engine.rotate_many(a, rotations)),
    }
    product = engine.decrypt(engine.multiply(a, b, relinearisation), secret)
    wrong = np.abs(np.asarray(product) - x * y).max()
    assert wrong < 1e-3, f"a product is off by {wrong}"
    words = a.nbytes // (16 * 2 * engine.slot_count)
    return {
        "lib": "DESILO",
        "version": importlib.metadata.version("desilofhe"),
        "case": f"N=2^{(2 * engine.slot_count).bit_length() - 1}, {words} words",
        "results": results,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="file to write, one JSON object a line")
    arguments = parser.parse_args()
    case = measure()
    with open(arguments.json, "w", encoding="utf-8") as file:
        file.write(json.dumps(case) + "\n")
