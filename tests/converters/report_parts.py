"""Conversions made up for the report: a win, an undecided one, a refused one, float kept.

Only what was counted and timed is invented; gates, choices and digests follow from it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cloud_sync.evidence import GateResult, Verdict, Verification
from cloud_sync.golden import GoldenSet
from cloud_sync.release import Release, Variant
from cloud_sync.release.model import ReleaseFile
from converters.build import Parts
from converters.candidates import Candidate
from converters.contest import Attempt
from converters.decide import Choice, choose
from converters.diagnosis import Diagnosis
from converters.emulated import no_speed
from converters.evaluation import Judged
from converters.gates import accuracy_gate, speed_gate
from converters.lanes import Lane, Timing
from converters.losses import losses_of
from converters.methods import CalibrationReport, NodeLoss
from converters.methods.calibration_report import InputCoverage, Saturation
from converters.metrics import find_metric
from converters.plan import flavours_of
from converters.recipe import FLOAT, Inputs, Recipe, VariantRecipe, float16, static_qdq
from converters.request import Request
from converters.result import Skipped
from converters.workshop import Artifact
from hardware.capabilities import Capabilities, Cpu, RuntimeInfo
from hardware.profiles import TargetProfile, select

ORT, OPENVINO = RuntimeInfo(name="onnxruntime", version="1.31.1"), RuntimeInfo(
    name="openvino", version="2026.3.0"
)  # fmt: skip
RUNTIMES = {info.name: info for info in (ORT, OPENVINO)}
HOST = Capabilities(
    hardware_class="x86_64-avx512_vnni-2c",
    cpu=Cpu(
        model="Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz",
        cores=2,
        features=("avx2", "avx512_vnni"),
    ),
    memory_bytes=16_777_216_000,
    runtimes=(ORT, OPENVINO),
)
FLOAT_RULES = VariantRecipe(target="", precision="float32", rank=0).rules


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was executed: its milliseconds, and samples lost and gained, by runtime."""

    move: str
    rules: tuple[Any, ...]
    precision: str
    words: str
    size: int
    nodes: int
    p50: dict[str, float]
    changed: dict[str, tuple[int, int]] = {}
    refused: str = ""
    failed: dict[str, str] = {}


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Story:
    """A conversion of one model: `float_p50` by runtime, `n` samples, `right` by float32."""

    def __init__(
        self,
        name: str,
        *,
        float_p50: dict[str, float],
        n: int,
        right: float,
        size: int,
        targets: Sequence[str],
        proxies: Sequence[str] = (),
        warnings: Sequence[str] = (),
        skipped: Sequence[Skipped] = (),
        foreign: Sequence[str] = (),
        **request: Any,
    ) -> None:
        self.request = Request(
            model=Path(f"models/{name}.onnx"),
            calibration=f"data/{name}/calibration.npz",
            evaluation=f"data/{name}/evaluation.npz",
            name=name,
            version="1.2.0",
            out=Path(f"releases/{name}"),
            targets=tuple(targets),
            **request,
        )
        self.targets = select(targets)
        self.proxies = proxies
        self.warnings = warnings
        self.skipped, self.foreign = tuple(skipped), foreign
        self.float_p50, self.n = float_p50, n
        self.correct = np.arange(n) < round(right * n)
        self.float = self._artifact("float32", FLOAT_RULES, "float32", "", size, 0)
        self.candidates: list[Candidate] = []
        self.attempts: dict[str, tuple[Attempt, ...]] = {}

    def contest(self, targets: Sequence[str], tried: Sequence[Tried], raced: Sequence[str]) -> None:
        """All that was tried for these targets, and the moves that were in the last race."""
        mine = [target for target in self.targets if target.name in targets]
        self.attempts["+".join(flavours_of(mine[0]))] = tuple(map(self._attempt, tried))
        for target in mine:
            for file in (file for file in tried if file.move in raced):
                self.candidates += [
                    self._candidate(target, file, runtime) for runtime in file.changed
                ]
            self.candidates += [self._float(target, runtime) for runtime in self.float_p50]

    def parts(self, **changes: Any) -> Parts:
        chosen = [c for c in self.candidates if c.choice.deployable]
        variants = []
        for target in self.targets:
            here = [c for c in chosen if c.target.name == target.name]
            here.sort(key=lambda c: c.timing.latency.p50_ms if c.timing.latency else 0.0)
            variants += [
                VariantRecipe(
                    target=target.name,
                    runtime=c.lane.runtime,
                    precision=c.lane.artifact.precision,
                    rank=rank,
                    rules=c.lane.artifact.rules,
                    accepted=c.choice.accepted,
                )
                for rank, c in enumerate(here)
            ]
        given: dict[str, Any] = {
            "request": self.request,
            "metric": find_metric(self.request.metric),
            "host": HOST,
            "pipeline": None,
            "recipe": Recipe(
                tools={"edgeml": "0.1.0", "onnx": "1.23.2", "onnxruntime": "1.31.1"},
                inputs=Inputs(
                    model=digest("model"), calibration=digest("cal"), evaluation=digest("eval")
                ),
                variants=tuple(variants),
            ),
            "candidates": tuple(chosen),
            "doubted": tuple(c for c in self.candidates if not c.choice.deployable),
            "attempts": self.attempts,
            "golden": GoldenSet(inputs=np.zeros((1, 1)), labels=None, outputs=(np.zeros((1, 1)),)),
            "recorded": {},
            "warnings": tuple(self.warnings),
            "losses": losses_of(self._preprocessing(), self._conversions(), self.candidates),
            "diagnosis": self._diagnosis(),
            "skipped": self.skipped,
        }
        return Parts(**given | changes)

    def _preprocessing(self) -> GateResult:
        gate = self._gate(90, 2)
        return msgspec.structs.replace(gate, name="pre-processing")

    def _conversions(self) -> dict[str, GateResult]:
        gate = msgspec.structs.replace(self._gate(0, 1), name="conversion")
        return {r: gate for r in self.float_p50 if r != "onnxruntime"}

    def _diagnosis(self) -> Diagnosis:
        quantized = [c for c in self.candidates if not c.is_float]
        if not quantized:
            return Diagnosis(skipped="the model is no ONNX file")
        report = CalibrationReport(
            samples=300,
            duplicates=4,
            calibration="percentile",
            saturated=(
                Saturation(tensor="relu_3", share=0.021), Saturation(tensor="relu_1", share=0.0004),
            ),
            converged=True,
            converged_after=120,
            unsettled=("relu_9",),
            inputs=(InputCoverage(name="image", low=0.0, high=1.0),),
            classes={0: 150, 1: 150},
            warnings=("There are two samples that repeat another one.",),
        )  # fmt: skip
        return Diagnosis(move=quantized[0].move, calibration=report, skipped="Not here.")

    def times(self, p50: float, seed: int) -> tuple[float, ...]:
        """Two hundred rounds; the noise is a machine's: a hard floor, a tail, some outliers."""
        rng = np.random.default_rng(seed)
        noise = 1 + np.abs(rng.normal(0, 0.012, 200)) + rng.exponential(0.012, 200)
        noise[rng.integers(0, 200, 3)] *= 1.8
        return tuple((p50 * noise / np.median(noise)).tolist())

    def _gate(self, lost: int, gained: int) -> GateResult:
        return accuracy_gate(
            self.correct,
            self._outcomes(lost, gained),
            metric=self.request.metric,
            max_drop=self.request.max_drop,
            confidence=self.request.confidence,
        )

    def _outcomes(self, lost: int, gained: int) -> np.ndarray:
        outcomes = self.correct.copy()
        outcomes[:lost] = False
        outcomes[self.n - gained :] = True
        return outcomes

    def _artifact(self, move: str, rules: Any, precision: Any, words: str, size: int, nodes: int
    ) -> Artifact:  # fmt: skip
        return Artifact(
            key="float32" if precision == FLOAT else f"{precision}-{digest(move)[7:19]}",
            path=Path("model.onnx"),
            digest=digest(move),
            size=size,
            precision=precision,
            rules=rules,
            quantization=words,
            nodes=nodes,
        )

    def _attempt(self, file: Tried) -> Attempt:
        if file.refused:
            return Attempt(move=file.move, refused=file.refused)
        return Attempt(
            move=file.move,
            artifact=digest(file.move),
            bytes=file.size,
            nodes=file.nodes,
            speedups={r: self.float_p50[r] / ms for r, ms in file.p50.items()},
            accuracy={r: self._gate(*changed) for r, changed in file.changed.items()},
            failed=file.failed,
        )

    def _candidate(self, target: Any, file: Tried, runtime: str) -> Candidate:
        artifact = self._artifact(
            file.move, file.rules, file.precision, file.words, file.size, file.nodes
        )
        times = self.times(file.p50[runtime], 1)
        accuracy = self._gate(*file.changed[runtime])
        speed = speed_gate(
            np.array(self.times(self.float_p50[runtime], 2)),
            np.array(times),
            min_speedup=self.request.min_speedup,
            confidence=self.request.confidence,
        )
        if target.name in self.foreign:
            speed = no_speed("cortex-a53", self.request.min_speedup)
        return Candidate(
            target=target,
            lane=Lane(artifact, runtime),
            move=file.move,
            choice=choose((accuracy, speed), accept=self.request.accept_undecided),
            gates=(accuracy, speed),
            judged=self._judged(self._outcomes(*file.changed[runtime])),
            timing=self._timing(target, times, runtime, artifact.size),
            verification=self._verification(target),
        )

    def _float(self, target: Any, runtime: str) -> Candidate:
        return Candidate(
            target=target,
            lane=Lane(self.float, runtime),
            move="float32",
            choice=Choice(deployable=True, reason="the float model is always an answer"),
            gates=(),
            judged=self._judged(self.correct),
            timing=self._timing(
                target, self.times(self.float_p50[runtime], 2), runtime, self.float.size
            ),
            verification=self._verification(target),
        )

    def _judged(self, outcomes: np.ndarray) -> Judged:
        return Judged(tuple(map(bool, outcomes)), (True,) * self.n)

    def _timing(
        self, target: TargetProfile, times: tuple[float, ...], runtime: str, size: int
    ) -> Timing:
        if target.name in self.foreign:
            return Timing((), (), (), {}, RUNTIMES[runtime])
        slow = 4.2 if runtime == "openvino" else 1.0
        return Timing(
            times, (41.7 * slow,), (62_000_000 + int(slow * size),), {}, RUNTIMES[runtime]
        )

    def _verification(self, target: Any) -> Verification:
        if target.name in self.foreign:
            return Verification.ARTIFACT_EXECUTED_EMULATED
        proxy = target.name in self.proxies
        return Verification.CPU_PROXY if proxy else Verification.ARTIFACT_EXECUTED


def static(flavour: str, words: str = "minmax", **given: Any) -> Tried:
    options = {"rules": static_qdq(flavour), "size": 4_901_233, "nodes": 81, **given}
    return Tried(move=f"static {flavour} {words}", precision="int8",
                 words=f"static-qdq-{flavour}", **options)  # fmt: skip


def classifier(**request: Any) -> Story:
    """EfficientNet on two targets: int8 wins on another runtime than float, and on a proxy."""
    story = Story(
        "efficientnet-lite0",
        float_p50={"onnxruntime": 14.2, "openvino": 14.7},
        n=3000,
        right=0.753,
        size=18_582_312,
        targets=("cpu-x86-64-vnni", "cpu-x86-64"),
        proxies=("cpu-x86-64",),
        **request,
    )
    story.contest(
        ["cpu-x86-64-vnni"],
        [
            static("u8s8", p50={"onnxruntime": 7.6, "openvino": 5.7},
                   changed={"onnxruntime": (61, 18), "openvino": (58, 19)}),
            static("u8s8", "percentile", p50={"onnxruntime": 7.6, "openvino": 5.7},
                   changed={"onnxruntime": (38, 25), "openvino": (36, 26)}),
            static("u8s8", "minmax bias-corrected equalised",
                   p50={"onnxruntime": 7.59, "openvino": 5.68},
                   changed={"onnxruntime": (25, 21), "openvino": (24, 22)}),
            static("s8s8", p50={"onnxruntime": 12.4, "openvino": 5.9},
                   changed={"openvino": (1804, 12)}),
            Tried(move="float16", rules=float16(), precision="float16", words="float16",
                  size=9_301_220, nodes=81, p50={"onnxruntime": 20.3, "openvino": 14.6}),
        ],
        raced=["static u8s8 minmax bias-corrected equalised"],
    )  # fmt: skip
    story.contest(
        ["cpu-x86-64"],
        [
            static("u8s8-reduced", p50={"onnxruntime": 9.1, "openvino": 8.8},
                   changed={"onnxruntime": (88, 31), "openvino": (84, 30)}),
            static("u8s8-reduced", "minmax bias-corrected equalised",
                   p50={"onnxruntime": 9.1, "openvino": 8.8},
                   changed={"onnxruntime": (33, 22), "openvino": (31, 23)}),
            static("u8u8", p50={"onnxruntime": 69.0, "openvino": 13.9}),
        ],
        raced=["static u8s8-reduced minmax bias-corrected equalised"],
    )  # fmt: skip
    return story


def recogniser(**request: Any) -> Story:
    """A sign recogniser on a hundred samples: all that is fast fails or cannot be decided."""
    story = Story(
        "sign-recogniser",
        float_p50={"onnxruntime": 9.4, "openvino": 5.02},
        n=100,
        right=0.9,
        size=10_857_958,
        targets=("cpu-x86-64-vnni",),
        warnings=(
            "The float model's top1 is 90.0 % on 100 samples: too few to show a drop of 1 point.",
        ),
        skipped=(Skipped(target="cpu-arm64", reason="needs arm64, the device is amd64"),),
        **request,
    )
    story.contest(
        ["cpu-x86-64-vnni"],
        [
            static("u8s8", p50={"onnxruntime": 6.5, "openvino": 4.1}, size=2_911_000, nodes=58,
                   changed={"onnxruntime": (77, 0), "openvino": (76, 0)}),
            static("s8s8", p50={"onnxruntime": 9.5}, size=2_911_000, nodes=58,
                   failed={"openvino": "It has no kernel for it."}),
            static("u8s8", "minmax 10 % of the nodes in float", size=3_340_110, nodes=52,
                   p50={"onnxruntime": 7.8, "openvino": 4.3},
                   changed={"onnxruntime": (1, 0), "openvino": (2, 1)}),
            Tried(move="weight-only int4", rules=(), precision="int4", words="", size=0, nodes=0,
                  p50={}, refused="The model cannot be quantized by weight-only. It has no "
                  "product of matrices whose weights are constant."),
        ],
        raced=["static u8s8 minmax 10 % of the nodes in float"],
    )  # fmt: skip
    return story


def refused(**request: Any) -> Story:
    """A net of which nothing can be made: float32 is all there is."""
    story = Story(
        "tiny-autoencoder",
        float_p50={"onnxruntime": 0.041},
        n=800,
        right=0.31,
        size=213_990,
        targets=("cpu-x86-64-vnni",),
        **request,
    )
    story.contest(
        ["cpu-x86-64-vnni"],
        [
            static("u8s8", size=71_020, nodes=9, p50={"onnxruntime": 0.047}),
            Tried(move="dynamic", rules=(), precision="int8", words="", size=0, nodes=0, p50={},
                  refused="It is the same file as one tried before."),
        ],
        raced=[],
    )  # fmt: skip
    return story


def emulated(**request: Any) -> Story:
    """A net for a machine of another architecture: its answers are known, its times are not."""
    story = Story(
        "keyword-spotter",
        float_p50={"onnxruntime": 0.31},
        n=800,
        right=0.93,
        size=98_212,
        targets=("cpu-arm64",),
        foreign=("cpu-arm64",),
        **request,
    )
    story.contest(
        ["cpu-arm64"],
        [
            static("u8s8", size=31_020, nodes=9, p50={"onnxruntime": 0.19},
                   changed={"onnxruntime": (1, 1)}),
        ],
        raced=["static u8s8 minmax"],
    )  # fmt: skip
    return story


def release_of(parts: Parts) -> Release:
    """The release that such parts would become."""
    variants = tuple(
        Variant(
            digest=digest(f"{v.target}{v.rank}"),
            size=1,
            target=v.target,
            rank=v.rank,
            requires=parts.candidates[0].target.requirements(),
            format="onnx",
            precision=v.precision,
            quantization="",
            verification="artifact-executed",
            files=(
                ReleaseFile(role="recipe", path="recipe.json", media_type="application/json",
                            digest=digest("recipe"), size=1),
            ),
        )
        for v in parts.recipe.variants
    )  # fmt: skip
    request = parts.request
    return Release(model=request.name, version=request.version, digest=digest(request.name),
                   size=1, variants=variants)  # fmt: skip


def losses(count: int = 81) -> tuple[NodeLoss, ...]:
    """A depthwise net's nodes, most sensitive first."""
    decibels = 6.5 + 31 * np.sqrt(np.linspace(0, 1, count))
    return tuple(
        NodeLoss(
            name=f"efficientnet-lite0/model/blocks_{i % 16}/depthwise_{i}/depthwise_Fused",
            operator=("Conv", "Add", "Conv", "Clip")[i % 4],
            sqnr_db=float(db),
        )
        for i, db in enumerate(decibels)
    )


__all__ = ["Verdict", "classifier", "emulated", "losses", "recogniser", "refused", "release_of"]
