// A memory with one port, of 32-bit banks side by side: one address for all, a write enable each.
//
// It reads where it does not write, one clock later, so that any block RAM can be it (also
// iCE40's single-port RAM). IMAGE is the file of its first content, for `BANKS == 1`; wider
// memories take one file per bank, IMAGE followed by the bank's digit. Empty: written by the host.
module edgeml_memory #(
    parameter BANKS = 1,
    parameter DEPTH = 1024,
    parameter ADDRESS = 10,
    parameter HAS_IMAGE = 0,
    parameter IMAGE = "image",
    parameter IS_LARGE = 0  // iCE40: of the single-port RAM of UltraPlus, and not of block RAM
) (
    input  wire                clock,
    input  wire [ADDRESS-1:0]  address,
    input  wire [BANKS-1:0]    write,
    input  wire [BANKS*32-1:0] data,
    output wire [BANKS*32-1:0] value
);
    genvar bank;
    generate
        for (bank = 0; bank < BANKS; bank = bank + 1) begin : banks
            localparam [7:0] DIGIT = 8'd48 + bank;
            (* ram_style = IS_LARGE != 0 ? "huge" : "auto" *)
            reg [31:0] cells [0:DEPTH-1];
            reg [31:0] read;
            if (HAS_IMAGE != 0) begin : initialised
                initial $readmemh({IMAGE, DIGIT, ".hex"}, cells);
            end
            always @(posedge clock)
                if (write[bank]) cells[address] <= data[bank*32 +: 32];
                else read <= cells[address];
            assign value[bank*32 +: 32] = read;
        end
    endgenerate
endmodule
