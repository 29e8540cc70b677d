// Reads a serial flash: words from an address on, for as long as they are requested.
//
// Command 03 of every such flash, one bit at half the clock, so that a word takes 64 clocks. An
// iCE40 sends its flash to sleep once it is configured: command AB wakes it, after a reset, and
// WAKE_CLOCKS are waited (3 us of a W25Q128). The first byte is the lowest of a word.
module edgeml_flash #(
    parameter WAKE_CLOCKS = 256
) (
    input  wire        clock,
    input  wire        reset,
    input  wire        request,
    input  wire [23:0] address,
    output reg         valid,  // for one clock
    output wire [31:0] data,
    output reg         sck,
    output reg         cs_n,
    output wire        mosi,
    input  wire        miso
);
    localparam [7:0] READ_DATA = 8'h03, RELEASE = 8'hAB;
    localparam WAKE = 3'd0, REST = 3'd1, IDLE = 3'd2, COMMAND = 3'd3, READ = 3'd4;
    localparam BETWEEN = 8;  // clocks between two commands
    reg [2:0] state;
    reg [31:0] shifted;
    reg [5:0] left;
    reg [15:0] rest;
    reg sampled;
    wire is_last = sck && left == 1;

    assign mosi = shifted[31];
    assign data = {shifted[7:0], shifted[15:8], shifted[23:16], shifted[31:24]};

    always @(posedge clock) begin
        valid <= 0;
        if (!cs_n) begin
            sck <= !sck;
            if (!sck) sampled <= miso;
            else begin
                shifted <= {shifted[30:0], sampled};
                left <= left - 6'd1;
            end
        end
        case (state)
            REST: begin
                rest <= rest - 16'd1;
                if (rest == 0) state <= IDLE;
            end
            IDLE: if (request) begin
                cs_n <= 0;
                shifted <= {READ_DATA, address};
                left <= 6'd32;
                state <= COMMAND;
            end
            COMMAND, READ: if (is_last) begin
                valid <= state == READ;
                left <= 6'd32;
                state <= READ;
            end
            default: ;
        endcase
        if (state == WAKE && is_last || (state == COMMAND || state == READ) && !request) begin
            {cs_n, sck} <= 2'b10;
            rest <= state == WAKE ? WAKE_CLOCKS[15:0] : BETWEEN[15:0];
            state <= REST;
        end
        if (reset) begin
            {valid, cs_n, sck} <= 0;
            shifted <= {RELEASE, 24'd0};
            left <= 6'd8;
            state <= WAKE;
        end
    end
endmodule
