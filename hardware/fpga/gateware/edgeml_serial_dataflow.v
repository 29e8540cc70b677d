// A net unrolled into logic with a UART, or with SPI where IS_SPI; the pins are those of
// `edgeml_link`.
module edgeml_serial_dataflow #(
    parameter IS_SPI = 0,
    parameter DIVIDER = 16,
    parameter TIMEOUT = 65536,
    parameter INPUT_BITS = 8,
    parameter OUTPUT_BITS = 8,
    parameter LATENCY = 1,
    parameter [127:0] BUILD = 0
) (
    input  wire       clock,
    input  wire       reset,
    input  wire [2:0] pins_in,
    output wire       pin_out,
    output wire       busy,
    output wire       done
);
    wire stb, we, ack;
    wire [19:0] adr;
    wire [31:0] dat_w, dat_r;

    edgeml_link #(.IS_SPI(IS_SPI), .DIVIDER(DIVIDER), .TIMEOUT(TIMEOUT)) link (
        .clock(clock), .reset(reset), .pins_in(pins_in), .pin_out(pin_out), .stb(stb), .we(we),
        .adr(adr), .dat_w(dat_w), .dat_r(dat_r), .ack(ack)
    );
    edgeml_dataflow #(
        .INPUT_BITS(INPUT_BITS), .OUTPUT_BITS(OUTPUT_BITS), .LATENCY(LATENCY), .BUILD(BUILD)
    ) dataflow (
        .clock(clock), .reset(reset), .cyc(stb), .stb(stb), .we(we), .adr(adr), .dat_w(dat_w),
        .dat_r(dat_r), .ack(ack), .busy(busy), .done(done)
    );
endmodule
