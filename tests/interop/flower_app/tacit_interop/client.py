"""A client that adds its share to every value: what a coordinator makes of four of them is known beforehand."""

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays = ArrayRecord({name: Array(array.numpy() + 1) for name, array in message.content["arrays"].items()})
    metrics = MetricRecord({"num-examples": 10, "train-loss": 0.5})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 10, "loss": 2.0})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
