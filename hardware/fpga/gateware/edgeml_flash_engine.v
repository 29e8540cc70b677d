// An engine whose weights are in a serial flash, from FAR_BASE on: its weight memory holds those of
// one layer.
module edgeml_flash_engine #(
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
    input  wire        cyc,
    input  wire        stb,
    input  wire        we,
    input  wire [19:0] adr,
    input  wire [31:0] dat_w,
    output wire [31:0] dat_r,
    output wire        ack,
    output wire        flash_sck,
    output wire        flash_cs_n,
    output wire        flash_mosi,
    input  wire        flash_miso,
    output wire        busy,
    output wire        done
);
    wire far_request, far_valid;
    wire [23:0] far_address;
    wire [31:0] far_data;

    edgeml_flash flash (
        .clock(clock), .reset(reset), .request(far_request), .address(far_address),
        .valid(far_valid), .data(far_data), .sck(flash_sck), .cs_n(flash_cs_n), .mosi(flash_mosi),
        .miso(flash_miso)
    );
    edgeml_engine #(
        .LANES(LANES), .PROGRAM_WORDS(PROGRAM_WORDS), .WEIGHT_WORDS(WEIGHT_WORDS),
        .PARAMETER_WORDS(PARAMETER_WORDS), .TABLES(TABLES), .ACTIVATION_WORDS(ACTIVATION_WORDS),
        .WEIGHTS_ARE_LARGE(WEIGHTS_ARE_LARGE), .ACTIVATIONS_ARE_LARGE(ACTIVATIONS_ARE_LARGE),
        .FAR_BASE(FAR_BASE), .BUILD(BUILD)
    ) engine (
        .clock(clock), .reset(reset), .cyc(cyc), .stb(stb), .we(we), .adr(adr), .dat_w(dat_w),
        .dat_r(dat_r), .ack(ack), .far_request(far_request), .far_address(far_address),
        .far_valid(far_valid), .far_data(far_data), .busy(busy), .done(done)
    );
endmodule
