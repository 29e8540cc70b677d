"""Run every benchmark, each in a process of its own, and print the page (`make bench`)."""

import subprocess
import sys

BENCHMARKS = (
    "convert_cpu",
    "convert_npu",
    "convert_fpga",
    "fpga_overlap",
    "fusing",
    "agent",
    "pipeline",
    "fleet",
    "console",
    "sync",
)

if __name__ == "__main__":
    print("# Benchmarks\n", flush=True)
    failed = 0
    for name in BENCHMARKS:
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False
        )
        failed |= done.returncode
        print(flush=True)
    sys.exit(failed)
