// A UART of 8 data bits, no parity, one stop bit: bytes in, bytes out. DIVIDER clocks a bit.
module edgeml_uart #(
    parameter DIVIDER = 16
) (
    input  wire       clock,
    input  wire       reset,
    input  wire       rx,
    output wire       tx,
    output reg        received,  // for one clock: a byte is in `in`
    output reg  [7:0] in,
    input  wire       send,      // taken in the clock in which `ready` is high
    input  wire [7:0] out,
    output wire       ready
);
    localparam BITS = $clog2(DIVIDER + 1);
    localparam BIT = DIVIDER - 1, HALF = DIVIDER / 2 - 1;
    reg [2:0] sampled;  // the pin is of another clock
    reg [BITS-1:0] rx_clocks, tx_clocks;
    reg [3:0] rx_left, tx_left;
    reg [7:0] shifted_in;
    reg [9:0] shifted_out;

    assign ready = tx_left == 0;
    assign tx = shifted_out[0];

    always @(posedge clock) begin
        sampled <= {sampled[1:0], rx};
        received <= 0;
        if (rx_left == 0) begin
            if (!sampled[2]) begin
                rx_left <= 4'd10;
                rx_clocks <= HALF[BITS-1:0];
            end
        end else if (rx_clocks != 0) rx_clocks <= rx_clocks - 1'b1;
        else begin
            rx_clocks <= BIT[BITS-1:0];
            rx_left <= rx_left - 4'd1;
            // A start bit that was none ends it; so does the stop bit, and then the byte counts.
            if (rx_left == 4'd10 && sampled[2]) rx_left <= 0;
            if (rx_left != 4'd1) shifted_in <= {sampled[2], shifted_in[7:1]};
            else if (sampled[2]) begin
                received <= 1;
                in <= shifted_in;
            end
        end

        if (tx_left == 0) begin
            if (send) begin
                shifted_out <= {1'b1, out, 1'b0};
                tx_left <= 4'd10;
                tx_clocks <= BIT[BITS-1:0];
            end
        end else if (tx_clocks != 0) tx_clocks <= tx_clocks - 1'b1;
        else begin
            tx_clocks <= BIT[BITS-1:0];
            tx_left <= tx_left - 4'd1;
            shifted_out <= {1'b1, shifted_out[9:1]};
        end
        if (reset) begin
            sampled <= 3'b111;
            {rx_left, tx_left} <= 0;
            shifted_out <= 10'h3FF;
        end
    end
endmodule
