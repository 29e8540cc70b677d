// Behaviour of the ECP5's cells that Yosys has as black boxes, for the netlist's simulation: what
// `synth_ecp5` makes of our Verilog, and no more. Another use of a cell does not elaborate.

// A block RAM of 2048 bytes of 9 bits; two ports of 1, 2, 4, 9 or 18 bits, or one that writes 36
// (A) and one that reads 36 (B). Bytes are written where ADA0 to ADA3 say so.
module DP16KD #(
    parameter integer DATA_WIDTH_A = 18,
    parameter integer DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC",
    parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000",
    parameter CSDECODE_B = "0b000",
    parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL",
    parameter CLKAMUX = "CLKA",
    parameter CLKBMUX = "CLKB",
    parameter GSR = "ENABLED"
) (
    input wire CLKA, CEA, OCEA, WEA, RSTA, CSA0, CSA1, CSA2,
    input wire
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0,
    input wire
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0,
    input wire CLKB, CEB, OCEB, WEB, RSTB, CSB0, CSB1, CSB2,
    input wire
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0,
    input wire
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0,
    output wire
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0,
    output wire
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
);
    wire [13:0] address_a = {
        ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
    };
    wire [13:0] address_b = {
        ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
    };
    wire [17:0] given_a = {
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0
    };
    wire [17:0] given_b = {
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0
    };
    reg [8:0] bytes [0:2047];
    reg [35:0] read_a, read_b;
    wire unused = &{1'b0, OCEA, OCEB, RSTA, RSTB, CSA0, CSA1, CSA2, CSB0, CSB1, CSB2};

    generate
        if (REGMODE_A != "NOREG" || REGMODE_B != "NOREG" || CLKAMUX != "CLKA" || CLKBMUX != "CLKB"
            || (WRITEMODE_A != "NORMAL" && WRITEMODE_A != "READBEFOREWRITE")
            || (WRITEMODE_B != "NORMAL" && WRITEMODE_B != "READBEFOREWRITE"))
            block_ram_of_a_kind_that_has_no_model missing ();
    endgenerate

    function automatic [35:0] word(input [13:0] address, input integer width);
        case (width)
            36: word = {bytes[{address[13:5], 2'd3}], bytes[{address[13:5], 2'd2}],
                        bytes[{address[13:5], 2'd1}], bytes[{address[13:5], 2'd0}]};
            18: word = {18'd0, bytes[{address[13:4], 1'd1}], bytes[{address[13:4], 1'd0}]};
            9: word = {27'd0, bytes[address[13:3]]};
            default: word = {27'd0, bytes[address[13:3]] >> address[2:0]};
        endcase
    endfunction

    // A port that writes keeps what it read last, or reads what was there before.
    integer i;
    wire [35:0] data_a = {given_b, given_a};
    always @(posedge CLKA) begin
        if (CEA && WEA) case (DATA_WIDTH_A)
            36: for (i = 0; i < 4; i = i + 1)
                if (address_a[i]) bytes[{address_a[13:5], i[1:0]}] <= data_a[i*9 +: 9];
            18: for (i = 0; i < 2; i = i + 1)
                if (address_a[i]) bytes[{address_a[13:4], i[0]}] <= data_a[i*9 +: 9];
            9: bytes[address_a[13:3]] <= data_a[8:0];
            default: for (i = 0; i < DATA_WIDTH_A; i = i + 1)
                bytes[address_a[13:3]][address_a[2:0] + i[2:0]] <= data_a[i];
        endcase
        if (CEA && (!WEA || WRITEMODE_A == "READBEFOREWRITE"))
            read_a <= word(address_a, DATA_WIDTH_A);
    end
    wire [35:0] data_b = {18'd0, given_b};
    always @(posedge CLKB) begin
        if (CEB && WEB) case (DATA_WIDTH_B)
            36: for (i = 0; i < 4; i = i + 1)
                if (address_b[i]) bytes[{address_b[13:5], i[1:0]}] <= data_b[i*9 +: 9];
            18: for (i = 0; i < 2; i = i + 1)
                if (address_b[i]) bytes[{address_b[13:4], i[0]}] <= data_b[i*9 +: 9];
            9: bytes[address_b[13:3]] <= data_b[8:0];
            default: for (i = 0; i < DATA_WIDTH_B; i = i + 1)
                bytes[address_b[13:3]][address_b[2:0] + i[2:0]] <= data_b[i];
        endcase
        if (CEB && (!WEB || WRITEMODE_B == "READBEFOREWRITE"))
            read_b <= word(address_b, DATA_WIDTH_B);
    end
    assign {
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0
    } = DATA_WIDTH_B == 36 ? read_b[17:0] : read_a[17:0];
    assign {
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
    } = DATA_WIDTH_B == 36 ? read_b[35:18] : read_b[17:0];
endmodule

// A multiplier without registers.
module MULT18X18D (
    input wire SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
    input wire
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0,
    input wire
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0,
    input wire
        C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0,
    output wire
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
    wire [17:0] first = {
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0
    };
    wire [17:0] second = {
        B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0
    };
    wire signed [18:0] left = {SIGNEDA && first[17], first};
    wire signed [18:0] right = {SIGNEDB && second[17], second};
    wire signed [37:0] product = left * right;
    wire unused = &{1'b0, SOURCEA, SOURCEB, product[37:36],
        C17, C16, C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0};
    assign {
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
    } = product[35:0];
endmodule
