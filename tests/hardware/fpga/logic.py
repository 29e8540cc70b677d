"""A net unrolled into logic that a test can compute by hand: x + y and x - y."""

import numpy as np

from hardware.fpga.artifact import DataflowArtifact, HostSide
from hardware.fpga.dataflow import Bits, Dataflow

_VERILOG = """
module sums (input clk, input [11:0] model_inp, output reg [13:0] model_out);
    wire signed [6:0] x = {{2{model_inp[4]}}, model_inp[4:0]};
    wire signed [6:0] y = model_inp[11:5];
    reg signed [6:0] x_1, y_1;
    always @(posedge clk) begin
        {x_1, y_1} <= {x, y};
        model_out <= {x_1 - y_1, x_1 + y_1};
    end
endmodule
"""


def sums(text: str = _VERILOG) -> Dataflow:
    """Its x has 5 bits and its y 7; its outputs are without a zero below, two clocks later."""
    return Dataflow(
        sources={"static/sums.v": text},
        module="sums",
        inputs=(Bits(signed=True, bits=5, zeros=0), Bits(signed=True, bits=7, zeros=0)),
        outputs=(Bits(signed=True, bits=7, zeros=1), Bits(signed=True, bits=7, zeros=1)),
        input_shape=(1, 1, 2),
        output_shape=(1, 1, 2),
        latency=1,
    )


def expected(codes: np.ndarray) -> np.ndarray:
    """What it answers: sums and differences, twice, for the zero below the output's bits."""
    x, y = codes[..., 0], codes[..., 1]
    answer: np.ndarray = 2 * np.stack([x + y, x - y], axis=-1)
    return answer


def artifact() -> DataflowArtifact:
    """A file of it: numbers are codes, and half an output's code."""
    host = HostSide(
        input_shape=(2,),
        input_order=(0, 1),
        gain=1.0,
        offset=0.0,
        low=-16,
        high=15,
        output_shape=(2,),
        output_order=(0, 1),
        output_scale=0.5,
    )
    return DataflowArtifact(dataflow=sums(), host=host)
