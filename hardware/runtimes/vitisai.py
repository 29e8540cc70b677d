"""AMD's Vitis AI as a runtime: onnxruntime with its provider, on DPUs in FPGAs and Ryzen AI's NPUs.

AMD's packages are an onnxruntime with one provider more. Where it is there, this runtime is, too:
it takes ONNX files in QDQ and leaves what the accelerator cannot run to the CPU, which
`placement` tells. Nothing here ran on such a device.

https://onnxruntime.ai/docs/execution-providers/Vitis-AI-ExecutionProvider.html
"""

from pathlib import Path

import msgspec

from hardware.capabilities import RuntimeInfo
from hardware.runtimes.formats import ONNX
from hardware.runtimes.interface import Session, SessionOptions
from hardware.runtimes.onnx import OnnxRuntime, OnnxSession
from hardware.runtimes.refusal import no_provider

NAME = "vitisai"
PROVIDER = "VitisAIExecutionProvider"


class VitisAiRuntime:
    """The runtime `vitisai`; its one provider is Vitis AI's."""

    name = NAME
    formats: tuple[str, ...] = (ONNX,)
    provider = PROVIDER

    def info(self) -> RuntimeInfo | None:
        """The installed onnxruntime; None where it has no such provider."""
        found = OnnxRuntime().info()
        if found is None or self.provider not in found.providers:
            return None
        return RuntimeInfo(name=self.name, version=found.version, providers=(self.provider,))

    def load(self, model: Path, options: SessionOptions) -> Session:
        """Load an ONNX file; see `Runtime.load`."""
        if options.provider not in {"", self.provider}:
            raise no_provider(self.name, options.provider, (self.provider,))
        return OnnxSession(model, msgspec.structs.replace(options, provider=self.provider))
