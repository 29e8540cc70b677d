// The multipliers: every lane adds `activation * weight` to its sum, or keeps the largest product.
//
// A lane is an output channel. In a dense layer all lanes take the same activation, the one that
// `select` picks of the word; in a lanewise one (depthwise, pooling, addition) each takes its own.
// What lies outside of the picture counts as zero, or as less than anything where `largest`.
// Three clocks from `valid` to `sums`; `done` says that they are those of a whole group.
module edgeml_lanes #(
    parameter LANES = 8,
    parameter SELECT = 3
) (
    input  wire                clock,
    input  wire                reset,
    input  wire                valid,        // a tap is at the memories' outputs
    input  wire                first,        // of a group
    input  wire                last,         // of a group
    input  wire                in_picture,       // the tap lies in the picture
    input  wire [SELECT-1:0]   select,
    input  wire                lanewise,
    input  wire                largest,
    input  wire                is_unsigned,  // the activations
    input  wire [LANES*8-1:0]  activations,
    input  wire [LANES*8-1:0]  weights,
    output wire [LANES*32-1:0] sums,
    output reg                 done
);
    reg valid_1, first_1, last_1, valid_2, first_2, last_2;
    wire [7:0] chosen = activations[{select, 3'b000} +: 8];

    always @(posedge clock) begin
        {valid_1, first_1, last_1} <= {valid && !reset, first, last};
        {valid_2, first_2, last_2} <= {valid_1 && !reset, first_1, last_1};
        done <= valid_2 && last_2 && !reset;
    end

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
            wire [7:0] own = lanewise ? activations[lane*8 +: 8] : chosen;
            reg signed [8:0] activation;
            reg signed [7:0] weight;
            reg signed [16:0] product;
            reg signed [31:0] sum;
            wire signed [31:0] wide = {{15{product[16]}}, product};
            always @(posedge clock) begin
                weight <= weights[lane*8 +: 8];
                activation <= in_picture ? {!is_unsigned && own[7], own} : {largest, 8'd0};
                product <= activation * weight;
                if (valid_2) begin
                    if (first_2) sum <= wide;
                    else if (!largest) sum <= sum + wide;
                    else if (wide > sum) sum <= wide;
                end
            end
            assign sums[lane*32 +: 32] = sum;
        end
    endgenerate
endmodule
