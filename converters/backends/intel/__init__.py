"""Intel's NPU, by OpenVINO, which compiles for it on the device."""
