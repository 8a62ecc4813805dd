"""A client that says who it is and then answers every question to train with something else that is no answer."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    # The coordinator's mark, as a node of its own would know it.
    config = ConfigRecord({"tacit": message.content["config"]["tacit"]})
    metrics = MetricRecord({"client": int(context.node_config["client"]), "num-examples": 10})
    return Message(content=RecordDict({"config": config, "metrics": metrics}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    kinds = ["error", "flood", "shape", "huge"]
    kind = kinds[(int(message.content["config"]["server-round"]) - 1) % len(kinds)]
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    if kind == "error":
        raise RuntimeError("nonsense")
    if kind == "flood":
        arrays = {"flood": np.random.default_rng(1).integers(0, 256, 96 << 20, dtype=np.uint8)}
    if kind == "shape":
        arrays = {name: a.reshape(-1)[:-1] for name, a in arrays.items()}
    if kind == "huge":
        arrays = {name: np.full_like(a, 3e38) for name, a in arrays.items()}
    record = ArrayRecord({name: Array(a) for name, a in arrays.items()})
    metrics = MetricRecord({"num-examples": 10, "train-loss": float("nan")})
    return Message(content=RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 1e300, "loss": float("inf")})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
