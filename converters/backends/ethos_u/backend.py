"""The backend `ethos-u`: ONNX to float `.tflite` (onnx2tf), to int8 (ai-edge-quantizer), to Vela.

What Vela makes loads in nothing but a device, so that what is executed is the int8 file right
before it, on LiteRT's reference kernels, whose integers are those of the NPU's specification: level
`pre-compile-executed`. Cycles and memory are Vela's own estimates.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import (
    CompileReport,
    Estimate,
    LeftOnCpu,
    Placement,
    Verification,
)
from converters.artifact import Artifact, Made, write_artifact
from converters.backends.ethos_u import rules as rules_of
from converters.backends.interface import Execution, Job, Offer, Proof, refusal
from converters.backends.placement import placement_gate
from converters.backends.support import Constraint
from converters.executor import LocalExecutor, open_remote
from converters.litert import rules as litert_rules
from converters.methods import NotQuantizableError
from converters.recipe import Rule
from converters.toolchains.environment import VENV
from converters.toolchains.exchange import ask
from converters.toolchains.store import require
from converters.tools import toolchain_versions
from edgeml.errors import ModelError, UserError
from hardware.profiles import TargetProfile
from hardware.runtimes.formats import VELA
from hardware.runtimes.litert import NAME, REFERENCE, LiteRtRuntime

TOOLCHAIN = "ethos-u-vela"
RUNTIME = "ethosu"
_CONFIG = "lib/python*/site-packages/ethosu/config_files/Arm/vela.ini"
_ENDS = {"QUANTIZE", "DEQUANTIZE"}
# What Vela says of an inference, by its own names: its name here and its unit.
_ESTIMATES = {
    "cycles_total": ("cycles", "cycles"),
    "cycles_npu": ("cycles of the NPU", "cycles"),
    "inference_time": ("time of an inference", "ms"),
    "sram_memory_used": ("SRAM", "bytes"),
    "dram_memory_used": ("DRAM", "bytes"),
    "on_chip_flash_memory_used": ("on-chip flash", "bytes"),
    "off_chip_flash_memory_used": ("off-chip flash", "bytes"),
    "nn_macs": ("multiply-accumulates", "multiply-accumulates"),
}
_FACTORS = {"ms": 1e3, "bytes": 1024.0}
_REMARK = (
    "The int8 file before Vela was executed on LiteRT's reference kernels; nothing here loads what "
    "Vela made of it."
)
_OPTIONS: Mapping[str, str] = {
    "system-config": "a system of Vela's configuration file, for that part",
    "memory-mode": "a memory mode of that file: what lies in SRAM, what in flash or DRAM",
}
_TOLERANCE = 0.01  # of the largest output: a softmax on the NPU rounds in its own way


class EthosU:
    """Files for Arm's Ethos-U55, U65 and U85."""

    name = "ethos-u"
    toolchains: tuple[str, ...] = ("onnx2tf", "ai-edge-quantizer", TOOLCHAIN)
    options: Mapping[str, str] = _OPTIONS
    proof = Proof(
        executes="the int8 .tflite file right before Vela, on LiteRT's reference kernels",
        verification=Verification.PRE_COMPILE_EXECUTED,
    )

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:
        """What the target runs, as Vela says it."""
        is_u85 = str(target.settings["accelerator"]).startswith("ethos-u85")
        return rules_of.U85 if is_u85 else rules_of.U55

    def check(self, target: TargetProfile, options: Mapping[str, str]) -> None:
        """Check that Vela has the configurations that options name.

        Raises:
            UserError: it has not.
        """
        [described] = (require(TOOLCHAIN).folder / VENV).glob(_CONFIG)
        known = re.findall(r"^\[(\w+)\.(\w+)\]", described.read_text("utf-8"), re.MULTILINE)
        for option, value in options.items():
            section = option.replace("-", "_").title()
            names = [name for kind, name in known if kind == section]
            if value not in names:
                part = str(target.settings["accelerator"]).partition("-u")[2][:2]
                fitting = [name for name in names if f"_U{part}_" in name] or names
                raise UserError(
                    f"The option {option}={value} cannot be used for {target.name}.",
                    why=f"Vela's Arm/vela.ini has: {', '.join(fitting)}.",
                    fix=f"Name one of them, or leave the option out for {target.settings[option]}.",
                )

    def offer(self, job: Job) -> Iterator[Offer]:
        """Static int8 with ranges by the extremes, then by their moving average.

        Weights are symmetric with a scale a channel, activations int8: what the NPU multiplies.
        """
        settings = _settings(job)
        if job.decided is not None:
            yield self._offer(job, job.decided.rules, settings)
            return
        for calibration in litert_rules.CALIBRATIONS[::-1]:
            yield self._offer(job, litert_rules.static(calibration), settings)

    def _offer(self, job: Job, rules: tuple[Rule, ...], settings: dict[str, str]) -> Offer:
        try:
            with job.exclusively:
                int8 = job.workshop.litert.make(rules)
                logs = dict(job.workshop.litert.logs)
        except NotQuantizableError as error:
            raise ModelError(error.what, why=error.why, fix=error.fix) from None
        toolchain = require(TOOLCHAIN)
        origin = [int8.digest, settings, toolchain.identity]
        began = time.monotonic()
        known = job.cache.get("vela", origin)
        if known is None:
            known = msgspec.msgpack.encode(_compile(job, int8, settings))
            job.cache.put("vela", origin, known)
        data, reply = msgspec.msgpack.decode(known, type=tuple[bytes, dict[str, Any]])
        placement = _placement(job, reply["operators"])
        logs["vela"] = reply["log"].encode()
        documents = {f"{name}.log": job.folder / f"{name}.log" for name in logs}
        for path in documents.values():
            path.write_bytes(logs[path.stem])
        compiled = write_artifact(Made(data, int8.nodes), rules, job.folder, VELA)
        versions = toolchain_versions(*self.toolchains)
        return Offer(
            artifact=compiled,
            runtime=RUNTIME,
            move=f"static int8, {'extremes' if _by_extremes(rules) else 'average extremes'}",
            verification=Verification.PRE_COMPILE_EXECUTED,
            execution=lambda: _opened(int8.path),
            origin=(int8.digest, REFERENCE, _kernels()),
            executed_on="reference kernels",
            tolerance=_TOLERANCE,
            settings=dict(settings),
            gates=(placement_gate(placement, job.request.min_offload),),
            report=CompileReport(
                compiler=f"ethos-u-vela {versions['ethos-u-vela']}",
                settings=settings,
                seconds=reply.get("seconds", time.monotonic() - began),
                placement=placement,
                estimates=_estimates(reply["summary"], versions["ethos-u-vela"]),
                remarks=(_REMARK,),
            ),
            documents=documents,
            tools=versions,
        )


def _by_extremes(rules: Sequence[Rule]) -> bool:
    return litert_rules.ranges_of(rules) == "minmax"


def _settings(job: Job) -> dict[str, str]:
    """What Vela is told: the recipe's, else the options', else the profile's."""
    names = ("accelerator", *EthosU.options)
    if job.decided is not None and job.decided.settings:
        return {name: str(job.decided.settings[name]) for name in names}
    given = {name: str(job.target.settings[name]) for name in names}
    return given | job.request.options


def _compile(job: Job, int8: Artifact, settings: dict[str, str]) -> tuple[bytes, dict[str, Any]]:
    """What Vela makes of an int8 file, and its answer.

    Raises:
        ModelError: Vela refuses it.
    """
    output, log = job.folder / "compiled.tflite", job.folder / "vela.log"
    began = time.monotonic()
    request = {"model": str(int8.path), "output": str(output.resolve()), **settings}
    reply = ask(require(TOOLCHAIN), request, log=log)
    if "refused" in reply:
        raise refusal(job, "Vela", reply)
    data = output.read_bytes()
    output.unlink()
    more = {"seconds": time.monotonic() - began, "log": log.read_text("utf-8", "replace")}
    return data, reply | more


def _kernels() -> str:
    """The version of the kernels that answer."""
    info = LiteRtRuntime().info()
    return info.version if info else ""


def _opened(path: Path) -> AbstractContextManager[Execution]:
    """The int8 file on LiteRT's reference kernels, in a process of its own."""
    return closing(open_remote(LocalExecutor(), NAME, path, provider=REFERENCE))


def _placement(job: Job, operators: Sequence[dict[str, Any]]) -> Placement:
    """What Vela left on the CPU, of the model's own operators.

    What turns floats to integers at the model's ends is none of them: it is there so that the
    pipeline serves all variants alike.
    """
    mine = [o for o in operators if not (o["operator"] in _ENDS and _is_float(o))]
    left = [o for o in mine if not o["offloaded"]]
    predicted = {node.node: node.reason for node in job.unsupported}
    return Placement(
        operators=len(mine),
        offloaded=len(mine) - len(left),
        macs=sum(o["macs"] for o in mine),
        offloaded_macs=sum(o["macs"] for o in mine if o["offloaded"]),
        left=tuple(
            LeftOnCpu(
                node=o["name"],
                operator=o["operator"],
                reason=o.get("reason", "") or _reason(o, predicted),
                macs=o["macs"],
            )
            for o in left
        ),
    )


_FLOAT32 = 0  # of TensorType in TensorFlow Lite's schema


def _is_float(operator: dict[str, Any]) -> bool:
    return _FLOAT32 in operator["types"]


def _reason(operator: dict[str, Any], predicted: Mapping[str, str]) -> str:
    if _is_float(operator):
        return "it computes in float32"
    near = [why for name, why in predicted.items() if name and name in operator["name"]]
    return near[0] if near else "Vela does not place it on the NPU"


def _estimates(summary: Mapping[str, str], version: str) -> tuple[Estimate, ...]:
    made = []
    for field, (name, unit) in _ESTIMATES.items():
        if value := float(summary.get(field) or 0):
            made.append(
                Estimate(
                    name=name,
                    value=value * _FACTORS.get(unit, 1.0),
                    unit=unit,
                    source=f"Vela {version}",
                )
            )
    return tuple(made)
