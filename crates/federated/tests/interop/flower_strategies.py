#!/usr/bin/env python3
"""What Flower's own strategies make of given updates.

Runs the strategies of flwr.serverapp.strategy on seeded inputs over several rounds and prints JSON: per strategy its settings, and per round the
weights and arrays of every client and the arrays that the strategy returns. The Rust test aggregation_rules.rs replays them.

    pip install flwr==1.41.0
    python flower_strategies.py > ../data/flower_strategies.json
"""

import json
import sys

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from flwr.supercore.task_identity import TaskIdentity
import flwr

# Messages carry the identity of the task that makes them; here there is none.
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

SHAPES = {"layers.0.qkv.lora_b": (6, 2), "norm": (5,)}
ROUNDS, CLIENTS = 4, 3


def arrays(values):
    return ArrayRecord({k: Array(np.asarray(v)) for k, v in values.items()})


class NoGrid:
    """configure_train wants a grid to sample nodes from: these strategies get all of them."""

    def get_node_ids(self):
        return list(range(1, CLIENTS + 1))


def run(name, strategy, settings):
    rng = np.random.default_rng(20261120)
    current = {k: rng.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}
    out = {"rule": name, "settings": settings, "start": flat(current), "rounds": []}
    for server_round in range(1, ROUNDS + 1):
        requests = list(strategy.configure_train(server_round, arrays(current), ConfigRecord(), NoGrid()))
        replies, clients = [], []
        for request in requests:
            local = {k: (v + rng.normal(scale=0.1, size=v.shape)).astype(np.float32) for k, v in current.items()}
            examples = int(rng.integers(5, 300))
            content = RecordDict({"arrays": arrays(local), "metrics": MetricRecord({"num-examples": examples})})
            reply = Message(content=content, reply_to=request)
            replies.append(reply)
            clients.append({"examples": examples, "arrays": flat(local)})
        result, _ = strategy.aggregate_train(server_round, replies)
        current = {k: a.numpy().astype(np.float32) for k, a in result.items()}
        out["rounds"].append({"clients": clients, "result": flat(current)})
    return out


def flat(values):
    return {k: [float(x) for x in np.asarray(v).ravel()] for k, v in values.items()}


def main():
    common = {"min_train_nodes": CLIENTS, "min_available_nodes": CLIENTS}
    runs = [
        ("fedavg", FedAvg, {}),
        ("fedavgm", FedAvgM, {"server_learning_rate": 0.7, "server_momentum": 0.9}),
        ("fedadam", FedAdam, {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3}),
        ("fedyogi", FedYogi, {"eta": 0.05, "beta_1": 0.8, "beta_2": 0.95, "tau": 1e-3}),
        ("fedadagrad", FedAdagrad, {"eta": 0.1, "tau": 1e-2}),
    ]
    report = {
        "flwr": flwr.__version__,
        "shapes": {k: list(s) for k, s in SHAPES.items()},
        "runs": [run(name, kind(**common, **settings), settings) for name, kind, settings in runs],
    }
    json.dump(report, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
