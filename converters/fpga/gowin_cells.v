// Behaviour of Gowin's block RAM with one port, which Yosys has as a black box, for the netlist's
// simulation: what `synth_gowin` makes of our Verilog, and no more. Another use does not elaborate.

// 2048 bytes of BYTE bits, as words of WIDTH bits. Of words of several bytes the lowest bits of the
// address say which are written. A port that writes keeps what it read last, or gives what was there
// before.
module edgeml_gowin_ram #(
    parameter integer BYTE = 8,
    parameter integer WIDTH = 32,
    parameter integer WRITE_MODE = 0,
    parameter integer READ_MODE = 0,
    parameter integer BLK_SEL = 0
) (
    input wire CLK, CE, WRE, RESET,
    input wire [2:0] BLKSEL,
    input wire [13:0] AD,
    input wire [BYTE*4-1:0] DI,
    output wire [BYTE*4-1:0] DO
);
    localparam integer COUNT = WIDTH / BYTE;  // of a word's bytes; 0 where it is less than one
    localparam integer LOW = COUNT == 4 ? 2 : COUNT == 2 ? 1 : 0;
    reg [BYTE-1:0] bytes [0:2047];
    reg [BYTE*4-1:0] read;
    wire [10:0] first = (AD[13:3] >> LOW) << LOW;
    integer i;

    generate
        if (READ_MODE != 0 || BLK_SEL != 0 || (WRITE_MODE != 0 && WRITE_MODE != 2))
            block_ram_of_a_kind_that_has_no_model missing ();
    endgenerate

    always @(posedge CLK) begin
        if (CE && WRE && BLKSEL == 0) begin
            if (COUNT == 0) for (i = 0; i < WIDTH; i = i + 1)
                bytes[AD[13:3]][AD[2:0] + i[2:0]] <= DI[i];
            else for (i = 0; i < COUNT; i = i + 1)
                if (COUNT == 1 || AD[i]) bytes[first + i[10:0]] <= DI[i*BYTE +: BYTE];
        end
        if (RESET) read <= 0;
        else if (CE && BLKSEL == 0 && (!WRE || WRITE_MODE == 2)) begin
            if (COUNT == 0) read[BYTE-1:0] <= bytes[AD[13:3]] >> AD[2:0];
            else for (i = 0; i < COUNT; i = i + 1)
                read[i*BYTE +: BYTE] <= bytes[first + i[10:0]];
        end
    end
    assign DO = read;
endmodule

module SP #(
    parameter integer BIT_WIDTH = 32,
    parameter integer WRITE_MODE = 0,
    parameter integer READ_MODE = 0,
    parameter integer BLK_SEL = 0,
    parameter RESET_MODE = "SYNC"
) (
    input wire CLK, CE, OCE, WRE, RESET,
    input wire [2:0] BLKSEL,
    input wire [13:0] AD,
    input wire [31:0] DI,
    output wire [31:0] DO
);
    edgeml_gowin_ram #(
        .BYTE(8), .WIDTH(BIT_WIDTH), .WRITE_MODE(WRITE_MODE), .READ_MODE(READ_MODE),
        .BLK_SEL(BLK_SEL)
    ) ram (.CLK(CLK), .CE(CE), .WRE(WRE), .RESET(RESET), .BLKSEL(BLKSEL), .AD(AD), .DI(DI), .DO(DO));
    wire unused = &{1'b0, OCE};
endmodule

module SPX9 #(
    parameter integer BIT_WIDTH = 36,
    parameter integer WRITE_MODE = 0,
    parameter integer READ_MODE = 0,
    parameter integer BLK_SEL = 0,
    parameter RESET_MODE = "SYNC"
) (
    input wire CLK, CE, OCE, WRE, RESET,
    input wire [2:0] BLKSEL,
    input wire [13:0] AD,
    input wire [35:0] DI,
    output wire [35:0] DO
);
    edgeml_gowin_ram #(
        .BYTE(9), .WIDTH(BIT_WIDTH), .WRITE_MODE(WRITE_MODE), .READ_MODE(READ_MODE),
        .BLK_SEL(BLK_SEL)
    ) ram (.CLK(CLK), .CE(CE), .WRE(WRE), .RESET(RESET), .BLKSEL(BLKSEL), .AD(AD), .DI(DI), .DO(DO));
    wire unused = &{1'b0, OCE};
endmodule
