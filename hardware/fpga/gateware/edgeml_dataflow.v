// A net unrolled into logic (`edgeml_net`) behind the engine's Wishbone bus and registers.
//
// Region 5 keeps the input, region 6 the output, their first bit in the lowest of the first word.
// The logic takes a sample in every clock; a host over this bus gives it one at a time: from start
// to done the input stands still, and the output of LATENCY clocks later is kept.
module edgeml_dataflow #(
    parameter INPUT_BITS = 8,
    parameter OUTPUT_BITS = 8,
    parameter LATENCY = 1,
    parameter [127:0] BUILD = 0  // what this was built from
) (
    input  wire        clock,
    input  wire        reset,
    input  wire        cyc,
    input  wire        stb,
    input  wire        we,
    input  wire [19:0] adr,
    input  wire [31:0] dat_w,
    output reg  [31:0] dat_r,
    output reg         ack,
    output reg         busy,
    output reg         done
);
    localparam INPUTS = (INPUT_BITS + 31) / 32, OUTPUTS = (OUTPUT_BITS + 31) / 32;
    localparam [31:0] ID = "edge", VERSION = 32'd1;
    localparam [7:0] STARTED_WHILE_BUSY = 1, WROTE_WHILE_BUSY = 2;

    wire request = cyc && stb && !ack;
    wire [2:0] region = adr[19:17];
    wire [16:0] index = adr[16:0];
    wire writes = request && we;

    reg [INPUTS*32-1:0] given;
    reg [OUTPUTS*32-1:0] answer;
    wire [OUTPUTS*32-1:0] leaving;
    wire [OUTPUT_BITS-1:0] net_answer;
    assign leaving = {{OUTPUTS*32-OUTPUT_BITS{1'b0}}, net_answer};
    edgeml_net net (.clock(clock), .given(given[INPUT_BITS-1:0]), .answer(net_answer));

    reg [7:0] error;
    reg [31:0] cycles, scratch, left;

    reg [31:0] register;
    integer i;
    always @(*) begin
        register = 0;
        i = 0;  // Yosys takes it for a latch where no loop sets it
        if (region == 5) begin
            for (i = 0; i < INPUTS; i = i + 1)
                if (index == i[16:0]) register = given[i*32 +: 32];
        end else if (region == 6) begin
            for (i = 0; i < OUTPUTS; i = i + 1)
                if (index == i[16:0]) register = answer[i*32 +: 32];
        end else if (region == 0) case (index[4:0])
            5'd0: register = ID;
            5'd1: register = VERSION;
            5'd2: register = BUILD[127:96];
            5'd3: register = BUILD[95:64];
            5'd4: register = BUILD[63:32];
            5'd5: register = BUILD[31:0];
            5'd7: register = INPUTS;
            5'd8: register = OUTPUTS;
            5'd9: register = LATENCY;
            5'd13: register = {16'd0, error, 6'd0, done, busy};
            5'd14: register = cycles;
            5'd17: register = scratch;
            default: register = 0;
        endcase
    end

    integer w;
    always @(posedge clock) begin
        ack <= request;
        dat_r <= register;
        if (busy) begin
            cycles <= cycles + 1;
            left <= left - 1;
            if (left == 0) begin
                answer <= leaving;
                {busy, done} <= 2'b01;
            end
        end
        if (writes && region == 5) begin
            if (busy) error <= WROTE_WHILE_BUSY;
            else for (w = 0; w < INPUTS; w = w + 1)
                if (index == w[16:0]) given[w*32 +: 32] <= dat_w;
        end
        if (writes && region == 0) begin
            if (index[4:0] == 17) scratch <= dat_w;
            if (index[4:0] == 12) begin
                if (dat_w[1]) begin
                    {busy, done} <= 0;
                    error <= 0;
                end else if (dat_w[0] && busy) error <= STARTED_WHILE_BUSY;
                else if (dat_w[0]) begin
                    {busy, done} <= 2'b10;
                    {error, cycles} <= 0;
                    left <= LATENCY + 1;
                end
            end
        end
        if (reset) begin
            {ack, busy, done} <= 0;
            {error, cycles, scratch} <= 0;
        end
    end
endmodule
