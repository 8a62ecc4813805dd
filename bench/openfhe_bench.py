#!/usr/bin/env python3
"""Single operations of OpenFHE at N = 2^16 with 24 limbs of 50 bits, and one full bootstrap, one thread: the column beside
`tacit bench engine --others FILE`.

    python3.10 -m venv venv && venv/bin/pip install numpy openfhe==1.6.1.0.22.4      (the wheel's extension is for Python 3.10 only)
    venv/bin/python bench/openfhe_bench.py --json openfhe.json
    venv/bin/python bench/openfhe_bench.py --bootstrap --json openfhe.json                  (14 GiB)

Both use the parameters that the library checks for 128 bits. The bootstrap is its fastest with all 2^15 slots on such a machine: encapsulated
sparse secret, SlotsToCoeffs first, three levels for each linear map, nine levels of 54 bits afterwards.
"""
import argparse
import importlib.metadata
import json
import os
import statistics
import time

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np  # noqa: E402
import openfhe  # noqa: E402

LOG_N, LIMBS = 16, 24
SLOTS = 1 << (LOG_N - 1)


def timed(work, runs, at_least):
    """Seconds of one call, after one that touches its memory for the first time."""
    work()
    took = []
    while len(took) < runs or sum(took) < at_least:
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return {"median": statistics.median(took), "min": min(took), "runs": len(took)}


def context(depth, scale_bits, first_bits, technique, secret, digits=0):
    parameters = openfhe.CCParamsCKKSRNS()
    parameters.SetSecurityLevel(openfhe.SecurityLevel.HEStd_128_classic)
    parameters.SetRingDim(1 << LOG_N)
    parameters.SetBatchSize(SLOTS)
    parameters.SetMultiplicativeDepth(depth)
    parameters.SetScalingModSize(scale_bits)
    parameters.SetFirstModSize(first_bits)
    parameters.SetScalingTechnique(technique)
    parameters.SetSecretKeyDist(secret)
    parameters.SetKeySwitchTechnique(openfhe.KeySwitchTechnique.HYBRID)
    if digits:
        parameters.SetNumLargeDigits(digits)
    made = openfhe.GenCryptoContext(parameters)
    for feature in ("PKE", "KEYSWITCH", "LEVELEDSHE", "ADVANCEDSHE", "FHE"):
        made.Enable(getattr(openfhe.PKESchemeFeature, feature))
    return made


def values():
    return np.random.default_rng(1).uniform(-1, 1, SLOTS)


def operations():
    c = context(LIMBS - 1, 50, 60, openfhe.ScalingTechnique.FIXEDMANUAL, openfhe.SecretKeyDist.UNIFORM_TERNARY)
    keys = c.KeyGen()
    c.EvalMultKeyGen(keys.secretKey)
    c.EvalRotateKeyGen(keys.secretKey, list(range(1, 9)))
    x = values()
    plain = c.MakeCKKSPackedPlaintext(x)
    a, b, total = (c.Encrypt(keys.publicKey, plain) for _ in range(3))
    order = 2 << LOG_N

    def eight_rotations():
        digits = c.EvalFastRotationPrecompute(a)
        return [c.EvalFastRotation(a, k, order, digits) for k in range(1, 9)]

    work = {
        "encode": lambda: c.MakeCKKSPackedPlaintext(x),
        "encrypt": lambda: c.Encrypt(keys.publicKey, plain),
        "decrypt+decode": lambda: c.Decrypt(keys.secretKey, a),
        "ct+ct": lambda: c.EvalAdd(a, b),
        "ct+ct in place": lambda: c.EvalAddInPlace(total, b),
        "ct*pt (no rescale)": lambda: c.EvalMult(a, plain),
        "ct*pt+rescale": lambda: c.ModReduce(c.EvalMult(a, plain)),
        "ct*ct+relin+rescale": lambda: c.ModReduce(c.EvalMult(a, b)),
        "rotate": lambda: c.EvalRotate(a, 1),
        "rotate hoisted x8": eight_rotations,
    }
    return f"N=2^16 {LIMBS} limbs", {name: timed(call, 7, 0.5) for name, call in work.items()}


def bootstrap():
    secret, budget = openfhe.SecretKeyDist.SPARSE_ENCAPSULATED, [3, 3]
    depth = 9 + openfhe.CryptoContext.GetBootstrapDepth(budget, secret)
    c = context(depth, 54, 60, openfhe.ScalingTechnique.FLEXIBLEAUTO, secret, digits=6)
    c.EvalBootstrapSetup(budget, [0, 0], SLOTS, 0, True, True)
    start = time.perf_counter()
    keys = c.KeyGen()
    c.EvalMultKeyGen(keys.secretKey)
    c.EvalBootstrapKeyGen(keys.secretKey, SLOTS)
    made = time.perf_counter() - start
    x = values()
    low = c.Encrypt(keys.publicKey, c.MakeCKKSPackedPlaintext(x, 1, depth - 1 - budget[1], None, SLOTS))
    fresh = c.EvalBootstrap(low)
    decrypted = c.Decrypt(keys.secretKey, fresh)
    decrypted.SetLength(SLOTS)
    error = np.abs(np.asarray(decrypted.GetRealPackedValue()) - x).max()
    return "bootstrap, 2^15 real slots", {
        "bootstrap": timed(lambda: c.EvalBootstrap(low), 3, 0),
        "key generation seconds": made,
        "worst bits": float(-np.log2(error)),
        "levels after": depth - fresh.GetLevel() - 1 - budget[1],
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", metavar="FILE", help="append one JSON object")
    arguments.add_argument("--bootstrap", action="store_true", help="a full bootstrap instead of single operations")
    chosen = arguments.parse_args()
    case, results = bootstrap() if chosen.bootstrap else operations()
    report = {"lib": "openfhe", "version": importlib.metadata.version("openfhe"), "case": case, "results": results}
    for name, found in results.items():
        text = f"{1000 * found['median']:10.2f} ms" if isinstance(found, dict) else f"{found:10.2f}"
        print(f"{name:28}{text}")
    if chosen.json:
        with open(chosen.json, "a", encoding="utf-8") as file:
            file.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
