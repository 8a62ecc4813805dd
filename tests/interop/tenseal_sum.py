#!/usr/bin/env python3
"""The anchor of encrypted aggregation: TenSEAL as NVIDIA FLARE uses it (CKKS vectors, N = 8192, primes of 60, 40 and 40 bits, scale 2^40).

    python3 -m venv venv && venv/bin/pip install tenseal==0.3.18
    venv/bin/python tests/interop/tenseal_sum.py [threads]

Beside it: RAYON_NUM_THREADS=1 cargo run --release -p tacit-federated --example encrypted_sum
"""
import sys
import time

import numpy as np
import tenseal as ts

CLIENTS = 8
threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
context = ts.context(ts.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=threads)
context.global_scale = 2**40
public = ts.context_from(context.serialize(save_secret_key=False, save_galois_keys=False, save_relin_keys=False), n_threads=threads)
SLOTS = 4096
print(f"TenSEAL {ts.__version__}, {CLIENTS} clients, {threads} thread(s)")
for dimension in [100_000, 1_000_000]:
    for fraction in [1.0, 0.1]:
        count = int(dimension * fraction)
        rng = np.random.default_rng(0)
        updates = rng.uniform(-1, 1, (CLIENTS, count))
        encrypting = adding = 0.0
        total = None
        for u in updates:
            start = time.perf_counter()
            message = [ts.ckks_vector(context, u[i : i + SLOTS]).serialize() for i in range(0, count, SLOTS)]
            encrypting += time.perf_counter() - start
            start = time.perf_counter()
            parts = [ts.ckks_vector_from(public, m) for m in message]
            if total is None:
                total = parts
            else:
                for t, p in zip(total, parts):
                    t += p
            adding += time.perf_counter() - start
        down = [t.serialize() for t in total]
        start = time.perf_counter()
        mean = np.concatenate([ts.ckks_vector_from(context, m).decrypt() for m in down]) / CLIENTS
        decrypting = time.perf_counter() - start
        up = sum(map(len, message)) + 4 * (dimension - count)
        print(
            f"{dimension} values, {100 * fraction:.0f} % encrypted: encrypt {encrypting / CLIENTS:.4f} s, add {adding / CLIENTS:.4f} s, decrypt {decrypting:.4f} s; "
            f"{up} bytes up ({up / 4 / dimension:.2f} of plain f32), {sum(map(len, down)) + 4 * (dimension - count)} down; largest error {abs(mean - updates.mean(0)).max():.1e}",
            flush=True,
        )
