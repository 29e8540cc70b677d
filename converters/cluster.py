"""A Ray cluster as a place where artifacts run: actors, one for each session.

The driver takes part in nothing but the reading of data: model files and tensors are sent to
the actors, so that nodes need edgeml and its runtimes, and no part of this file system. What
is written down about a measurement names this machine, so only nodes of its kind are used:
the same processor, the same runtimes in the same versions. All that race sit on one node;
evaluation spreads over a slot for each CPU.
"""

import importlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

from converters.executor import Channel
from converters.worker import Reply, Request, Worker
from edgeml.errors import EdgemlError, ModelError, RemoteError, ToolchainError
from hardware.capabilities import Capabilities
from hardware.probes import instruction_set, probe

_REACHING_S = 5.0
_JOINING_S = 10.0
_PROBING_S = 30.0
_MOST_SLOTS = 64
_START = "Start one with `ray start --head`, or name one in RAY_ADDRESS."


class RayExecutor:
    """Actors of a Ray cluster.

    Args:
        address: `host:port`, or `auto` for one that runs on this machine; as RAY_ADDRESS says
            where it is empty.

    Raises:
        ToolchainError: Ray is not installed.
        RemoteError: there is no such cluster, or none of its nodes is like this machine.
    """

    name = "ray"
    copies = True
    ahead = 0

    def __init__(self, address: str = "") -> None:
        address = address or os.environ.get("RAY_ADDRESS") or "auto"
        try:
            self._ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError:
            raise ToolchainError(
                "The executor ray needs Ray.",
                why="The Python package ray is not installed.",
                fix="Install it with: pip install 'edgeml[ray]'",
            ) from None
        _reach(address)
        _bounded(lambda: self._join(address), address)
        try:
            cpus = {
                node["NodeID"]: int(node["Resources"].get("CPU", 0))
                for node in self._ray.nodes()
                if node["Alive"]
            }
            here = probe()
            left_out = {
                node: reason
                for node, there in self._probed([node for node in cpus if cpus[node]]).items()
                if (reason := unlike(here, there))
            }
            self._slots = slots(cpus, left_out, self._ray.get_runtime_context().get_node_id())
        except BaseException:
            self._ray.shutdown()
            raise
        self.slots = len(self._slots)
        self.remarks = tuple(
            f"Node {node[:8]} of the Ray cluster is left out: {reason}."
            for node, reason in left_out.items()
        )

    def start(self, slot: int = 0) -> Channel:
        """Start an actor on a slot's node; those of one slot share a machine."""
        return _RayChannel(self._ray, self._slots[slot])

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()

    def _join(self, address: str) -> None:
        self._ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)

    def _probed(self, nodes: list[str]) -> dict[str, Capabilities | str]:
        """What each node is, or why it does not say."""
        found: dict[str, Capabilities | str] = dict.fromkeys(nodes, "it does not answer")
        asked = {_placed(self._ray, probe, node).remote(): node for node in nodes}
        done, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=_PROBING_S)
        for reference in done:
            try:
                found[asked[reference]] = self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                found[asked[reference]] = (
                    "edgeml is not installed there"
                    if isinstance(cause, ModuleNotFoundError)
                    else f"it fails with {str(cause).strip().splitlines()[0].rstrip('.')}"
                )
        return found


def unlike(here: Capabilities, there: Capabilities | str) -> str:
    """What sets a node apart from this machine, as a clause; empty where nothing does.

    What is measured there is written down as measured here, and judged side by side with what
    other nodes answer: so processor and runtimes have to be the same.
    """
    if isinstance(there, str):
        return there
    ours, theirs = _described(here), _described(there)
    for what, mine in ours.items():
        if theirs[what] != mine:
            return f"its {what} {theirs[what]}, this machine's {mine}"
    return ""


def slots(cpus: Mapping[str, int], left_out: Mapping[str, str], driver: str) -> tuple[str, ...]:
    """The node of each slot, one a CPU; the driver's node first, where it can serve.

    Args:
        cpus: how many CPUs each node offers.
        left_out: nodes that are not to be used, with the reason.
        driver: the driver's own node.

    Raises:
        RemoteError: no node is left.
    """
    usable = sorted(
        (node for node, count in cpus.items() if count and node not in left_out),
        key=lambda node: (node != driver, node),
    )
    if not usable:
        reasons = "; ".join(f"{node[:8]}: {reason}" for node, reason in left_out.items())
        raise RemoteError(
            "No node of the Ray cluster can take part.",
            why=f"{reasons or 'None of them offers a CPU'}.",
            fix="Run the command on a machine of the nodes' kind, for example with "
            "`ray job submit`, and install edgeml with the same runtimes on each.",
        )
    return tuple(node for node in usable for _ in range(cpus[node]))[:_MOST_SLOTS]


def _described(host: Capabilities) -> dict[str, str]:
    runtimes = ", ".join(f"{runtime.name} {runtime.version}" for runtime in host.runtimes)
    return {
        "processor is": f"{host.cpu.model or 'unnamed'} ({host.cpu.cores} cores)",
        "instruction set is": instruction_set(host),
        "runtimes are": runtimes or "none",
    }


def _reach(address: str) -> None:
    """Ask for a connection: Ray itself would try for a minute."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHING_S).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, str(error)) from None


def _bounded(join: Callable[[], None], address: str) -> None:
    """Join a cluster, or give up; a port may be open and no Ray behind it."""
    failures: list[Exception] = []

    def try_to() -> None:
        try:
            join()
        except Exception as error:  # noqa: BLE001 -- raised again where the caller waits
            failures.append(error)

    trying = threading.Thread(target=try_to, daemon=True)
    trying.start()
    trying.join(_JOINING_S)
    if trying.is_alive():
        raise _no_cluster(address, f"No Ray answers within {_JOINING_S:.0f} s")
    for error in failures:
        if isinstance(error, EdgemlError):
            raise error
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> RemoteError:
    named = "" if address == "auto" else f" at {address}"
    lines = why.strip().splitlines() or ["no reason is given"]
    return RemoteError(
        f"There is no Ray cluster to run on{named}.", why=f"{lines[0].rstrip('.')}.", fix=_START
    )


def _placed(ray: Any, what: Any, node: str) -> Any:
    """A task or an actor class, bound to a node; it counts for no CPU, as sessions take turns."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=there)(what)


class _RayChannel:
    def __init__(self, ray: Any, node: str) -> None:
        self._ray = ray
        self._node = node
        self._actor: Any = _placed(ray, Worker, node).remote()

    def ask(self, request: Request) -> Reply:
        try:
            reply: Reply = self._ray.get(self._actor.answer.remote(request))
        except self._ray.exceptions.RayError as error:
            why = str(error).strip().splitlines()[0]
            if self._is_out_of_reach(error):
                raise RemoteError(
                    "A node of the Ray cluster is gone.",
                    why=why,
                    fix="Run the command again: what was finished is kept.",
                ) from None
            raise ModelError("The runtime died on the Ray cluster.", why=why) from None
        return reply

    def close(self) -> None:
        self._ray.kill(self._actor)

    def _is_out_of_reach(self, error: Exception) -> bool:
        """Whether it is the machine that is lost; the cluster notices after some seconds."""
        known = self._ray.exceptions
        if isinstance(error, (known.ActorUnavailableError, known.ActorUnschedulableError)):
            return True
        return not any(n["Alive"] for n in self._ray.nodes() if n["NodeID"] == self._node)
