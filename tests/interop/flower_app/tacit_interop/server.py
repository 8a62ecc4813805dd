"""Flower's FedAvg. Replies come in any order, and floating-point sums depend on it: they are put in the order of the clients' numbers first, and
everything else is Flower's."""

import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Ordered(FedAvg):
    """FedAvg over replies in the order of the clients' numbers."""

    def aggregate_train(self, server_round, replies):
        def number(reply):
            return next(iter(reply.content.metric_records.values()))["client"]

        return super().aggregate_train(server_round, sorted(replies, key=number))


@app.main()
def main(grid: Grid, context: Context) -> None:
    nodes = int(context.run_config["nodes"])
    strategy = Ordered(
        fraction_evaluate=1.0, min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes
    )
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.5)
    first = list(grid.get_node_ids())[0]
    question = Message(content=RecordDict({"config": ConfigRecord({"what": "start"})}), message_type="query", dst_node_id=first)
    (answer,) = grid.send_and_receive([question])
    result = strategy.start(grid=grid, initial_arrays=answer.content["arrays"], num_rounds=int(context.run_config["rounds"]))
    np.savez(context.run_config["out"], **{name: array.numpy() for name, array in result.arrays.items()})
