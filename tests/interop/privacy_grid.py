#!/usr/bin/env python3
"""Makes crates/federated/tests/data/privacy_grid.csv: epsilon of Google's dp-accounting over 200 settings.

    python3 -m venv venv && venv/bin/pip install dp-accounting==0.6.0
    venv/bin/python tests/interop/privacy_grid.py > crates/federated/tests/data/privacy_grid.csv

With --check FILE it recomputes every 20th row and fails if one is off by more than 0.1 %.

Columns: mechanism (gaussian: noise multiplier sigma, sensitivity 1; discrete: discrete Gaussian of parameter sigma, integer
sensitivity), sampling (Poisson) rate, sigma, sensitivity, steps, delta, epsilon by Renyi orders (empty for discrete), epsilon by privacy
loss distributions. Adjacency is add-or-remove-one.
"""
import csv
import itertools
import random
import sys

import dp_accounting as dp
from dp_accounting import pld, rdp
from dp_accounting.pld import privacy_loss_distribution as loss

# Whole orders only: at fractional ones dp-accounting 0.6.0 adds the terms of Mironov, Talwar and Zhang's series without their signs, which is an upper
# bound but not the value (at q = 0.05, sigma = 0.8, order 1.9 it is 3.2 % above the integral). The Rust tests check fractional orders against the integral.
ORDERS = list(range(2, 64)) + [64 + 8 * i for i in range(8)] + [128 + 16 * i for i in range(8)] + [256, 320, 384, 512, 768, 1024]


def gaussian(q, sigma, steps, delta):
    event = dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(sigma)), steps)
    by_orders = rdp.RdpAccountant(ORDERS)
    by_orders.compose(event)
    # For small losses the default grid of 1e-4 is what decides the result; 2e-5 costs more and shows the value itself.
    fine = 2e-5 if q <= 0.01 and sigma >= 1 else 1e-4
    by_loss = pld.PLDAccountant(value_discretization_interval=fine)
    by_loss.compose(event)
    return by_orders.get_epsilon(delta), by_loss.get_epsilon(delta)


def discrete(q, sigma, sensitivity, steps, delta):
    one = loss.from_discrete_gaussian_mechanism(sigma, sensitivity, sampling_prob=q, use_connect_dots=True)
    return one.self_compose(steps).get_epsilon_for_delta(delta)


def settings():
    rows = []
    for q, sigma, steps, delta in itertools.product(
        [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0], [0.6, 0.8, 1.0, 1.5, 2.5, 4.0, 8.0], [1, 10, 50, 300, 1000, 5000], [1e-5, 1e-6, 1e-8]
    ):
        # Only what one could want to run: epsilon roughly between 0.05 and 30.
        rough = q * (steps**0.5) / sigma * 4 + (q > 0.2) * steps * q * q / sigma**2 / 2
        if 0.15 < rough < 12:
            rows.append(("gaussian", q, sigma, 1, steps, delta))
    random.Random(1).shuffle(rows)
    small = []
    for q, (sigma, sensitivity), steps, delta in itertools.product(
        [0.01, 0.1, 0.3, 1.0], [(2.0, 1), (8.0, 3), (5.0, 4), (20.0, 16), (64.0, 25)], [1, 20, 200], [1e-5, 1e-7]
    ):
        ratio = sigma / sensitivity
        rough = q * (steps**0.5) / ratio * 4 + (q > 0.2) * steps * q * q / ratio**2 / 2
        if 0.15 < rough < 12:
            small.append(("discrete", q, sigma, sensitivity, steps, delta))
    stride = len(small) / 40
    return sorted(rows[:160]) + [small[int(i * stride)] for i in range(40)]


def epsilon(row):
    mechanism, q, sigma, sensitivity, steps, delta = row
    if mechanism == "gaussian":
        return gaussian(q, sigma, steps, delta)
    return "", discrete(q, sigma, sensitivity, steps, delta)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--check":
        with open(sys.argv[2]) as file:
            kept = list(csv.DictReader(file))
        bad = 0
        for row in kept[::20]:
            key = (row["mechanism"], float(row["sampling"]), float(row["sigma"]), int(row["sensitivity"]), int(row["steps"]), float(row["delta"]))
            for got, name in zip(epsilon(key), ["epsilon_rdp", "epsilon_pld"]):
                if got != "" and abs(got - float(row[name])) > 1e-3 * got:
                    print(f"{key}: {name} is {got}, the file has {row[name]}")
                    bad += 1
        print(f"{len(kept[::20])} settings recomputed, {bad} differ")
        sys.exit(bad != 0)
    out = csv.writer(sys.stdout)
    out.writerow(["mechanism", "sampling", "sigma", "sensitivity", "steps", "delta", "epsilon_rdp", "epsilon_pld"])
    for row in settings():
        a, b = epsilon(row)
        out.writerow([*row, a if a == "" else f"{a:.10g}", f"{b:.10g}"])


main()
