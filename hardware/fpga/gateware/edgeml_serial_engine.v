// An engine with a UART, or with SPI where IS_SPI: `pins_in` are {sck, cs_n, mosi} or {2'b0, rx},
// `pin_out` is miso or tx.
module edgeml_serial_engine #(
    parameter IS_SPI = 0,
    parameter DIVIDER = 16,
    parameter TIMEOUT = 65536,
    parameter LANES = 8,
    parameter PROGRAM_WORDS = 1024,
    parameter WEIGHT_WORDS = 1024,
    parameter PARAMETER_WORDS = 256,
    parameter TABLES = 1,
    parameter ACTIVATION_WORDS = 1024,
    parameter [127:0] BUILD = 0,
    parameter HAS_IMAGES = 0
) (
    input  wire       clock,
    input  wire       reset,
    input  wire [2:0] pins_in,
    output wire       pin_out,
    output wire       busy,
    output wire       done
);
    wire received, send, ready, stb, we, ack;
    wire [7:0] in, out;
    wire [19:0] adr;
    wire [31:0] dat_w, dat_r;

    generate
        if (IS_SPI != 0) begin : spi
            edgeml_spi link (
                .clock(clock), .reset(reset), .sck(pins_in[2]), .cs_n(pins_in[1]),
                .mosi(pins_in[0]), .miso(pin_out), .received(received), .in(in), .send(send),
                .out(out), .ready(ready)
            );
        end else begin : uart
            wire unused = &{1'b0, pins_in[2:1]};
            edgeml_uart #(.DIVIDER(DIVIDER)) link (
                .clock(clock), .reset(reset), .rx(pins_in[0]), .tx(pin_out),
                .received(received), .in(in), .send(send), .out(out), .ready(ready)
            );
        end
    endgenerate

    edgeml_bridge #(.TIMEOUT(TIMEOUT)) bridge (
        .clock(clock), .reset(reset), .received(received), .in(in), .send(send), .out(out),
        .ready(ready), .stb(stb), .we(we), .adr(adr), .dat_w(dat_w), .dat_r(dat_r), .ack(ack)
    );
    edgeml_engine #(
        .LANES(LANES), .PROGRAM_WORDS(PROGRAM_WORDS), .WEIGHT_WORDS(WEIGHT_WORDS),
        .PARAMETER_WORDS(PARAMETER_WORDS), .TABLES(TABLES), .ACTIVATION_WORDS(ACTIVATION_WORDS),
        .BUILD(BUILD), .HAS_IMAGES(HAS_IMAGES)
    ) engine (
        .clock(clock), .reset(reset), .cyc(stb), .stb(stb), .we(we), .adr(adr), .dat_w(dat_w),
        .dat_r(dat_r), .ack(ack), .busy(busy), .done(done)
    );
endmodule
