// An engine whose weights are in a serial flash, with the pins of `edgeml_link`.
module edgeml_serial_flash_engine #(
    parameter IS_SPI = 0,
    parameter DIVIDER = 16,
    parameter TIMEOUT = 65536,
    parameter LANES = 8,
    parameter PROGRAM_WORDS = 1024,
    parameter WEIGHT_WORDS = 1024,
    parameter PARAMETER_WORDS = 256,
    parameter TABLES = 1,
    parameter ACTIVATION_WORDS = 1024,
    parameter WEIGHTS_ARE_LARGE = 0,
    parameter ACTIVATIONS_ARE_LARGE = 0,
    parameter [23:0] FAR_BASE = 0,
    parameter [127:0] BUILD = 0
) (
    input  wire        clock,
    input  wire        reset,
    input  wire [2:0]  pins_in,
    output wire        pin_out,
    output wire        flash_sck,
    output wire        flash_cs_n,
    output wire        flash_mosi,
    input  wire        flash_miso,
    output wire        busy,
    output wire        done
);
    wire stb, we, ack;
    wire [19:0] adr;
    wire [31:0] dat_w, dat_r;

    edgeml_link #(.IS_SPI(IS_SPI), .DIVIDER(DIVIDER), .TIMEOUT(TIMEOUT)) link (
        .clock(clock), .reset(reset), .pins_in(pins_in), .pin_out(pin_out), .stb(stb), .we(we),
        .adr(adr), .dat_w(dat_w), .dat_r(dat_r), .ack(ack)
    );
    edgeml_flash_engine #(
        .LANES(LANES), .PROGRAM_WORDS(PROGRAM_WORDS), .WEIGHT_WORDS(WEIGHT_WORDS),
        .PARAMETER_WORDS(PARAMETER_WORDS), .TABLES(TABLES), .ACTIVATION_WORDS(ACTIVATION_WORDS),
        .WEIGHTS_ARE_LARGE(WEIGHTS_ARE_LARGE), .ACTIVATIONS_ARE_LARGE(ACTIVATIONS_ARE_LARGE),
        .FAR_BASE(FAR_BASE), .BUILD(BUILD)
    ) engine (
        .clock(clock), .reset(reset), .cyc(stb), .stb(stb), .we(we), .adr(adr), .dat_w(dat_w),
        .dat_r(dat_r), .ack(ack), .flash_sck(flash_sck), .flash_cs_n(flash_cs_n),
        .flash_mosi(flash_mosi), .flash_miso(flash_miso), .busy(busy), .done(done)
    );
endmodule
