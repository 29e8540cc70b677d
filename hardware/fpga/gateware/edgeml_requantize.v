// Sums to 8 bits, one lane a clock, and the bytes of all lanes to a word of the activations:
//
//     y = clamp((sum * multiplier + bias) >> shift, low, high), the half for rounding in the bias
//
// and, where `by_table`, `table[y mod 256]`. Parameters ({multiplier, bias} of each channel) and
// tables are in memories that answer a clock later. `take` may come every LANES clocks; nothing
// here ever waits. `restart` goes back to the first channel and to the place of the first word.
// `largest_index` is the channel of the largest y since then, the first of equals.
module edgeml_requantize #(
    parameter LANES = 8,
    parameter PLACE = 20
) (
    input  wire                clock,
    input  wire                reset,
    input  wire                restart,
    input  wire                take,               // the sums of a group are there
    input  wire [LANES*32-1:0] sums,
    input  wire [15:0]         last_group,         // groups of a pixel, less one
    input  wire [PLACE-1:0]    first_place,
    input  wire [PLACE-1:0]    next_pixel,         // from a pixel's last word to the next's first
    input  wire [15:0]         first_parameter,
    output reg  [15:0]         parameter_address,
    input  wire [63:0]         parameters,
    input  wire [4:0]          shift,
    input  wire signed [9:0]   low,
    input  wire signed [9:0]   high,
    input  wire                by_table,
    output wire [7:0]          table_address,
    input  wire [7:0]          table_value,
    output reg                 write,
    output reg  [PLACE-1:0]    place,
    output reg  [LANES*8-1:0]  word,
    output reg  [7:0]          largest_index
);
    localparam STAGES = 7;
    reg [LANES*32-1:0] waiting;
    reg [LANES-1:0] left;  // as many ones as lanes are to leave
    reg [STAGES-1:0] valid, last;
    reg [15:0] group, written_group;
    reg signed [31:0] sum;
    reg signed [32:0] low_product;
    reg signed [32:0] high_product;
    reg signed [49:0] product, biased, shifted;
    reg signed [39:0] bias_1, bias_2;
    reg signed [9:0] clamped, largest;
    reg [7:0] clamped_byte, index;
    reg is_any;

    wire signed [16:0] factor = {1'b0, parameters[55:40]};
    wire signed [16:0] low_half = {1'b0, sum[15:0]};
    wire signed [15:0] high_half = sum[31:16];
    wire signed [49:0] wide_low = {{40{low[9]}}, low}, wide_high = {{40{high[9]}}, high};
    wire unused = &{1'b0, parameters[63:56]};

    assign table_address = clamped[7:0];

    always @(posedge clock) begin
        // 0: a lane leaves; its parameters are asked for
        if (take) begin
            waiting <= sums;
            left <= {LANES{1'b1}};
            group <= group == last_group ? 16'd0 : group + 16'd1;
            if (group == 0) parameter_address <= first_parameter;
            else parameter_address <= parameter_address + 16'd1;
        end else if (left != 0) begin
            waiting <= waiting >> 32;
            left <= left >> 1;
            if (left != 1) parameter_address <= parameter_address + 16'd1;
        end
        sum <= waiting[31:0];
        // 1 to 5: multiply, add, shift, clamp
        low_product <= low_half * factor;
        high_product <= high_half * factor;
        bias_1 <= parameters[39:0];
        product <= {high_product[32], high_product, 16'd0} + {{17{low_product[32]}}, low_product};
        bias_2 <= bias_1;
        biased <= product + {{10{bias_2[39]}}, bias_2};
        shifted <= biased >>> shift;
        clamped <= shifted < wide_low ? low : shifted > wide_high ? high : shifted[9:0];
        // 6: the table answers
        clamped_byte <= clamped[7:0];
        if (valid[5]) begin
            index <= index + 8'd1;
            if (!is_any || clamped > largest) begin
                is_any <= 1;
                largest <= clamped;
                largest_index <= index;
            end
        end
        // 7: the byte goes into the word
        if (valid[6]) word <= {by_table ? table_value : clamped_byte, word[LANES*8-1:8]};
        write <= valid[6] && last[6] && !reset;
        if (write) begin
            written_group <= written_group == last_group ? 16'd0 : written_group + 16'd1;
            place <= place + (written_group == last_group ? next_pixel : {{PLACE-1{1'b0}}, 1'b1});
        end

        valid <= {valid[STAGES-2:0], left != 0};
        last <= {last[STAGES-2:0], left == 1};
        if (restart) begin
            place <= first_place;
            {group, written_group} <= 0;
            {index, is_any} <= 0;
        end
        if (reset) begin
            left <= 0;
            valid <= 0;
        end
    end
endmodule
