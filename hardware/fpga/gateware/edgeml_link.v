// From pins to a bus: a UART, or SPI where IS_SPI, and the bridge. `pins_in` are {sck, cs_n, mosi}
// or {2'b0, rx}, `pin_out` is miso or tx.
module edgeml_link #(
    parameter IS_SPI = 0,
    parameter DIVIDER = 16,
    parameter TIMEOUT = 65536
) (
    input  wire        clock,
    input  wire        reset,
    input  wire [2:0]  pins_in,
    output wire        pin_out,
    output wire        stb,
    output wire        we,
    output wire [19:0] adr,
    output wire [31:0] dat_w,
    input  wire [31:0] dat_r,
    input  wire        ack
);
    wire received, send, ready;
    wire [7:0] in, out;

    generate
        if (IS_SPI != 0) begin : spi
            edgeml_spi port (
                .clock(clock), .reset(reset), .sck(pins_in[2]), .cs_n(pins_in[1]),
                .mosi(pins_in[0]), .miso(pin_out), .received(received), .in(in), .send(send),
                .out(out), .ready(ready)
            );
        end else begin : uart
            wire unused = &{1'b0, pins_in[2:1]};
            edgeml_uart #(.DIVIDER(DIVIDER)) port (
                .clock(clock), .reset(reset), .rx(pins_in[0]), .tx(pin_out),
                .received(received), .in(in), .send(send), .out(out), .ready(ready)
            );
        end
    endgenerate

    edgeml_bridge #(.TIMEOUT(TIMEOUT)) bridge (
        .clock(clock), .reset(reset), .received(received), .in(in), .send(send), .out(out),
        .ready(ready), .stb(stb), .we(we), .adr(adr), .dat_w(dat_w), .dat_r(dat_r), .ack(ack)
    );
endmodule
