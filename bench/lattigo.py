#!/usr/bin/env python3
"""Single operations of Lattigo at N = 2^16 with 24 limbs of 50 bits, one thread: the column beside `tacit bench engine --others FILE`.

    python3 -m venv venv && venv/bin/pip install numpy && venv/bin/pip install --no-deps orion-fhe==1.0.2
    venv/bin/python bench/lattigo.py --json lattigo.json

Lattigo comes as the shared object inside the wheel orion-fhe; only its exported C functions are called. Weight-192 secret, seven special
primes of 60 bits (dnum 4); 4.6 GiB.
"""
import argparse
import ctypes
import importlib.metadata
import importlib.util
import json
import os
import statistics
import threading
import time
from pathlib import Path

os.environ["GOMAXPROCS"] = "1"
import numpy as np  # noqa: E402

LOG_N, LIMBS, LOG_SCALE = 16, 24, 50


def library():
    root = Path(importlib.util.find_spec("orion").submodule_search_locations[0])
    lib = ctypes.CDLL(str(root / "backend" / "lattigo" / "lattigo-linux.so"))

    class Floats(ctypes.Structure):
        _fields_ = [("data", ctypes.POINTER(ctypes.c_float)), ("n", ctypes.c_ulong)]

    lib.Decode.restype = Floats
    lib.Encode.argtypes = [ctypes.POINTER(ctypes.c_float), ctypes.c_int, ctypes.c_int, ctypes.c_ulong]
    lib.FreeCArray.argtypes = [ctypes.c_void_p]
    return lib


def timed(work, release=None, warm_up=1.0, at_least=1.0):
    """Seconds of one call, after a second of calls in which its memory is touched for the first time; what it returns is released
    outside the clock."""
    took, began = [], time.perf_counter()
    while len(took) < 7 or sum(took) < at_least:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
        if release:
            release(result)
        if start - began > warm_up:
            took.append(seconds)
    return {"median": statistics.median(took), "min": min(took), "runs": len(took)}


def measure(path):
    lib = library()
    primes, special = [60] + [LOG_SCALE] * (LIMBS - 1), [60] * 7
    ints = lambda v: (ctypes.c_int * len(v))(*v)  # noqa: E731
    lib.NewScheme(LOG_N, ints(primes), len(primes), ints(special), len(special), LOG_SCALE, 192, b"standard", b"", b"none")
    for step in ("NewKeyGenerator", "GenerateSecretKey", "GeneratePublicKey", "GenerateRelinearizationKey",
                 "GenerateEvaluationKeys", "NewEncoder", "NewEncryptor", "NewDecryptor", "NewEvaluator"):
        getattr(lib, step)()
    random = np.random.default_rng(7)
    x, y = (random.uniform(-1, 1, 1 << (LOG_N - 1)).astype(np.float32) for _ in range(2))
    level = LIMBS - 1
    encode = lambda v: lib.Encode(v.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), len(v), level, 1 << LOG_SCALE)  # noqa: E731

    def decrypt(ciphertext):
        plain = lib.Decrypt(ciphertext)
        values = lib.Decode(plain)
        out = np.ctypeslib.as_array(values.data, (values.n,)).copy()
        lib.FreeCArray(ctypes.cast(values.data, ctypes.c_void_p))
        lib.DeletePlaintext(plain)
        return out

    px, py = encode(x), encode(y)
    cx, cy, total = lib.Encrypt(px), lib.Encrypt(py), lib.Encrypt(px)
    free = lib.DeleteCiphertext
    results = {
        "encode": timed(lambda: encode(x), lib.DeletePlaintext),
        "encrypt": timed(lambda: lib.Encrypt(px), free),
        "decrypt+decode": timed(lambda: decrypt(cx)),
        "ct+ct": timed(lambda: lib.AddCiphertextNew(cx, cy), free),
        "ct+ct in place": timed(lambda: lib.AddCiphertext(total, cy)),
        "ct*pt (no rescale)": timed(lambda: lib.MulPlaintextNew(cx, py), free),
        "ct*pt+rescale": timed(lambda: lib.Rescale(lib.MulPlaintextNew(cx, py)), free),
        "ct*ct+relin+rescale": timed(lambda: lib.Rescale(lib.MulRelinCiphertextNew(cx, cy)), free),
        "rotate": timed(lambda: lib.RotateNew(cx, 1), free),
    }
    product = decrypt(lib.Rescale(lib.MulRelinCiphertextNew(cx, cy)))[: len(x)]
    worst = float(np.abs(product - x.astype(np.float64) * y).max())
    if worst > 2.0**-20:
        raise SystemExit(f"a product decrypts to values that are off by {worst:.3e}: the library does not work on this machine")
    for name, value in results.items():
        print(f"{name:22s} {value['median'] * 1e3:10.3f} ms median of {value['runs']}")
    row = {"lib": "lattigo (orion-fhe)", "version": importlib.metadata.version("orion-fhe"),
           "case": f"N=2^{LOG_N} {LIMBS} limbs", "results": results}
    with open(path, "w") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", default="lattigo.json", help="where the figures go")
    arguments = parser.parse_args()
    # From the main thread of a process a call into Go costs about half a millisecond more than from any other.
    worker = threading.Thread(target=measure, args=(arguments.json,))
    worker.start()
    worker.join()
