// Reads the layers' descriptors one after the other and gives one tap a clock to the lanes.
//
// A layer is: for each output row, pixel and group of LANES output channels, for each kernel row
// and column and input channel, one tap. Addresses are sums of the descriptor's steps: there is
// no multiplier here. Taps are addressed by bytes: `select` is the place in a word of LANES bytes.
// `docs/fpga-engine.md` says what each word of a descriptor is.
module edgeml_sequencer #(
    parameter LANES = 8,
    parameter SELECT = 3,
    parameter PLACE = 20
) (
    input  wire              clock,
    input  wire              reset,
    input  wire              start,
    input  wire [15:0]       first_word,     // where the program begins
    output reg               busy,
    output reg               bad_program,
    output reg  [7:0]        layer,
    output reg  [15:0]       program_address,
    input  wire [31:0]       program_word,
    // the tap that is asked of the memories in this clock
    input  wire              stall,
    output wire              issue,
    output wire [PLACE-1:0]  activation_address,
    output reg  [15:0]       weight_address,
    output wire              first,
    output wire              last,
    output wire              in_picture,
    output wire [SELECT-1:0] select,
    output wire              is_unsigned,
    // weights from afar, before a layer
    output wire              load,
    output wire [15:0]       load_block,
    output wire [15:0]       load_last,
    input  wire              loaded,
    // of the layer
    output reg               begins,
    output wire              lanewise,
    output wire              largest,
    output wire              by_table,
    output wire [7:0]        table_number,
    output wire [4:0]        shift,
    output wire signed [9:0] low,
    output wire signed [9:0] high,
    output wire [15:0]       last_group,
    output wire [15:0]       first_parameter,
    output wire [PLACE-1:0]  first_place,
    output wire [PLACE-1:0]  next_pixel
);
    localparam WORDS = 18;
    localparam MAGIC = 8'hE5;
    // From the last tap until its word is written: memory, lanes, requantization and some.
    localparam PACE = LANES - 1, FLUSH = LANES + 16;
    localparam IDLE = 3'd0, FETCH = 3'd1, LOAD = 3'd2, RUN = 3'd3, DRAIN = 3'd4;

    reg [31:0] words [0:WORDS-1];
    reg [2:0] state;
    reg [4:0] fetched;
    reg [7:0] pace, flush;

    wire [31:0] flags = words[0];
    wire is_end = flags[0];
    assign lanewise = flags[1];
    assign largest = flags[2];
    wire is_shared = flags[3];       // all groups take the same weights
    wire has_two_inputs = flags[4];  // the second tap of a row is another tensor's
    assign by_table = flags[7];
    assign shift = flags[12:8];
    assign table_number = flags[20:13];
    wire is_far = flags[21];
    assign load = state == LOAD;
    assign {load_last, load_block} = words[17];
    wire [PLACE-1:0] first_tap = words[1][PLACE-1:0];
    wire [PLACE-1:0] step_row = words[2][PLACE-1:0];
    wire [PLACE-1:0] step_pixel = words[3][PLACE-1:0];
    wire [PLACE-1:0] step_kernel_row = words[4][PLACE-1:0];
    wire [PLACE-1:0] step_tap = words[5][PLACE-1:0];
    wire [15:0] last_row = words[6][31:16], last_pixel = words[6][15:0];
    assign last_group = words[7][31:16];
    wire [15:0] last_channel = words[7][15:0];
    wire [15:0] last_kernel_row = words[8][31:16], last_tap = words[8][15:0];
    wire [15:0] height = words[9][31:16], width = words[9][15:0];
    wire [15:0] first_y = words[10][31:16], first_x = words[10][15:0];
    wire [15:0] stride_y = words[11][31:16], stride_x = words[11][15:0];
    assign first_place = words[12][PLACE-1:0];
    assign next_pixel = words[13][PLACE-1:0];
    wire [15:0] first_weight = words[14][15:0];
    assign first_parameter = words[15][15:0];
    assign low = words[16][25:16];
    assign high = words[16][9:0];
    wire unused = &{1'b0, words[1], words[2], words[3], words[4], words[5], words[12], words[13],
                    words[14], words[15], words[16], flags};

    reg [15:0] row, pixel, group, kernel_row, tap, channel;
    reg [15:0] y, x, y_0, x_0;  // of the tap, and of the first tap of this pixel
    reg [PLACE-1:0] at_row, at_pixel, at_kernel_row, at_tap, at_byte;
    assign activation_address = {{SELECT{1'b0}}, at_byte[PLACE-1:SELECT]};
    assign select = at_byte[SELECT-1:0];

    wire ends_channel = channel == last_channel;
    wire ends_tap = ends_channel && tap == last_tap;
    wire ends_kernel = ends_tap && kernel_row == last_kernel_row;
    wire ends_pixel = ends_kernel && group == last_group;
    wire ends_row = ends_pixel && pixel == last_pixel;
    wire ends_layer = ends_row && row == last_row;
    wire [PLACE-1:0] next_kernel_row = at_kernel_row + step_kernel_row;
    wire [PLACE-1:0] next_tap = at_tap + step_tap;
    wire [PLACE-1:0] next_group = {{PLACE-16{1'b0}}, group} + 1'b1;
    wire [PLACE-1:0] this_pixel = at_pixel + (lanewise ? next_group << SELECT : {PLACE{1'b0}});
    wire [PLACE-1:0] right = at_pixel + step_pixel;
    wire [PLACE-1:0] below = at_row + step_row;

    assign issue = state == RUN && !stall && !(ends_kernel && pace != 0);
    assign first = kernel_row == 0 && tap == 0 && channel == 0;
    assign last = ends_kernel;
    assign in_picture = y < height && x < width;
    assign is_unsigned = has_two_inputs && tap[0] ? flags[6] : flags[5];

    always @(posedge clock) begin
        begins <= 0;
        if (pace != 0) pace <= pace - 8'd1;
        case (state)
            IDLE: if (start) begin
                busy <= 1;
                bad_program <= 0;
                layer <= 0;
                fetched <= 0;
                program_address <= first_word;
                state <= FETCH;
            end
            FETCH: begin
                // The word asked for in one clock comes in the next.
                program_address <= program_address + 16'd1;
                fetched <= fetched + 5'd1;
                if (fetched != 0) words[fetched - 5'd1] <= program_word;
                if (fetched == WORDS) begin
                    program_address <= program_address;
                    if (flags[31:24] == MAGIC) begins <= 1;
                    else {bad_program, busy} <= 2'b10;
                    state <= flags[31:24] != MAGIC ? IDLE : is_far ? LOAD : RUN;
                    {row, pixel, group, kernel_row, tap, channel} <= 0;
                    {y, y_0} <= {2{first_y}};
                    {x, x_0} <= {2{first_x}};
                    {at_row, at_pixel, at_kernel_row, at_tap, at_byte} <= {5{first_tap}};
                    weight_address <= first_weight;
                    pace <= 0;
                end
            end
            LOAD: if (loaded) state <= RUN;
            RUN: if (issue) begin
                channel <= channel + 16'd1;
                weight_address <= weight_address + 16'd1;
                at_byte <= at_byte + 1'b1;
                if (ends_channel) begin
                    channel <= 0;
                    tap <= tap + 16'd1;
                    x <= x + 16'd1;
                    {at_tap, at_byte} <= {2{next_tap}};
                end
                if (ends_tap) begin
                    tap <= 0;
                    x <= x_0;
                    kernel_row <= kernel_row + 16'd1;
                    y <= y + 16'd1;
                    {at_kernel_row, at_tap, at_byte} <= {3{next_kernel_row}};
                end
                if (ends_kernel) begin
                    pace <= PACE[7:0];
                    kernel_row <= 0;
                    y <= y_0;
                    group <= group + 16'd1;
                    {at_kernel_row, at_tap, at_byte} <= {3{this_pixel}};
                    if (is_shared) weight_address <= first_weight;
                end
                if (ends_pixel) begin
                    group <= 0;
                    weight_address <= first_weight;
                    pixel <= pixel + 16'd1;
                    {x, x_0} <= {2{x_0 + stride_x}};
                    {at_pixel, at_kernel_row, at_tap, at_byte} <= {4{right}};
                end
                if (ends_row) begin
                    pixel <= 0;
                    row <= row + 16'd1;
                    {x, x_0} <= {2{first_x}};
                    {y, y_0} <= {2{y_0 + stride_y}};
                    {at_row, at_pixel, at_kernel_row, at_tap, at_byte} <= {5{below}};
                end
                if (ends_layer) begin
                    flush <= FLUSH[7:0];
                    state <= DRAIN;
                end
            end
            DRAIN: begin
                flush <= flush - 8'd1;
                if (flush == 0) begin
                    fetched <= 0;
                    layer <= layer + 8'd1;
                    state <= is_end ? IDLE : FETCH;
                    busy <= !is_end;
                end
            end
            default: state <= IDLE;
        endcase
        if (reset) {state, busy} <= {IDLE, 1'b0};
    end
endmodule
