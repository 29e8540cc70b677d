// The engine: memories, sequencer, lanes and requantization behind one Wishbone bus.
//
// The bus is 32 bits wide and addressed by words; bits 19 to 17 say what is addressed:
// 0 registers, 1 program, 2 weights, 3 parameters, 4 tables, 5 activations. While the engine runs,
// the host reads activations and writes the bank of the input that does not run: each access takes
// one clock of the memory. What else it writes meanwhile is dropped and said in `error`.
// `docs/fpga-engine.md` has the registers.
module edgeml_engine #(
    parameter LANES = 8,                // a power of two from 4 on
    parameter PROGRAM_WORDS = 1024,     // of 32 bits
    parameter WEIGHT_WORDS = 1024,      // of LANES bytes
    parameter PARAMETER_WORDS = 256,    // of 64 bits, one for each output channel of each layer
    parameter TABLES = 1,               // of 256 bytes
    parameter ACTIVATION_WORDS = 1024,  // of LANES bytes
    parameter [23:0] FAR_BASE = 0,      // where the weights begin in the memory outside
    parameter [127:0] BUILD = 0,        // what this was built from
    parameter WEIGHTS_ARE_LARGE = 0,    // see `edgeml_memory`
    parameter ACTIVATIONS_ARE_LARGE = 0,
    parameter HAS_IMAGES = 0,           // 1: the network is in the bitstream
    parameter PROGRAM_IMAGE = "program",
    parameter WEIGHT_IMAGE = "weights",
    parameter PARAMETER_IMAGE = "parameters",
    parameter TABLE_IMAGE = "tables"
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
    // weights from afar: words from an address on, until no more are asked for
    output wire        far_request,
    output wire [23:0] far_address,
    input  wire        far_valid,
    input  wire [31:0] far_data,
    output wire        busy,
    output reg         done
);
    localparam BANKS = LANES / 4;
    localparam BANK_BITS = $clog2(BANKS);
    localparam LAST_BANK = BANKS - 1;
    localparam [BANKS-1:0] FIRST_BANK = 1;
    localparam SELECT = $clog2(LANES);
    localparam PLACE = 20;
    localparam PROGRAM_BITS = $clog2(PROGRAM_WORDS);
    localparam WEIGHT_BITS = $clog2(WEIGHT_WORDS);
    localparam PARAMETER_BITS = $clog2(PARAMETER_WORDS);
    localparam TABLE_BITS = $clog2(TABLES * 64);
    localparam ACTIVATION_BITS = $clog2(ACTIVATION_WORDS);
    localparam [31:0] ID = "edge", VERSION = 32'd2;

    // The bus: a request is held until it is answered, two clocks later, or three and more where
    // it waits for its turn at the activations.
    wire request = cyc && stb && !ack;
    reg answering;
    wire [2:0] region = adr[19:17];
    wire host_writes = request && we && !answering;
    wire memory_write = host_writes && region != 0 && !busy && !waits;
    wire [7:0] writes = {7'd0, memory_write} << region;

    // The input's two banks are the first words of the activations, one after the other.
    reg [15:0] input_words;  // of a bank, of 32 bits; 0 where there is one bank
    reg bank;                // that runs
    wire is_second = adr[16:0] >= {1'b0, input_words};
    wire is_input = adr[16:0] < {input_words, 1'b0};
    wire is_free = is_input && is_second != bank;

    reg waits, may_write;
    wire asks = request && !answering && region == 5 && (busy || waits);
    wire turn = waits && !write;
    wire unused = &{1'b0, adr, writes, program_address, weight_address, parameter_address,
                    activation_address, place, busy_place, wide_address, load_word, table_number,
                    table_address};

    reg start, stop;
    reg [7:0] error;
    reg [31:0] cycles, scratch;
    wire bad_program;
    wire [7:0] layer, largest_index;
    wire clear = reset || stop;

    // The sequencer and what it asks for.
    wire [15:0] program_address, weight_address, parameter_address;
    wire [PLACE-1:0] activation_address, place, first_place, next_pixel;
    wire [31:0] program_word;
    wire issue, first, last, in_picture, is_unsigned, begins, lanewise, largest, by_table;
    wire [SELECT-1:0] select;
    wire [7:0] table_number, table_address;
    wire [4:0] shift;
    wire signed [9:0] low, high;
    wire [15:0] last_group, first_parameter;
    wire write;
    wire [LANES*8-1:0] word;

    edgeml_sequencer #(.LANES(LANES), .SELECT(SELECT), .PLACE(PLACE)) sequencer (
        .clock(clock), .reset(clear), .start(start), .first_word(dat_w[31:16]),  // held till ack
        .busy(busy), .bad_program(bad_program),
        .layer(layer), .program_address(program_address), .program_word(program_word),
        .load(load), .load_block(load_block), .load_last(load_last), .loaded(loaded),
        .stall(write || waits), .issue(issue), .activation_address(activation_address),
        .weight_address(weight_address), .first(first), .last(last), .in_picture(in_picture),
        .select(select), .is_unsigned(is_unsigned), .begins(begins),
        .lanewise(lanewise), .largest(largest), .by_table(by_table),
        .table_number(table_number), .shift(shift), .low(low), .high(high),
        .last_group(last_group), .first_parameter(first_parameter),
        .first_place(first_place), .next_pixel(next_pixel)
    );

    // Weights from afar go to the weight memory, from its first word on, before a layer runs.
    wire load;
    wire [15:0] load_block, load_last;
    reg loaded;
    reg [15:0] load_word;
    reg [4:0] load_bank;
    wire load_write = load && far_valid && !loaded;
    wire [BANKS-1:0] load_banks = load_write ? FIRST_BANK << load_bank : {BANKS{1'b0}};
    assign far_request = load && !loaded;
    assign far_address = FAR_BASE + {load_block, 8'd0};
    always @(posedge clock) begin
        loaded <= 0;
        if (!load) {load_word, load_bank} <= 0;
        else if (load_write) begin
            load_bank <= load_bank + 5'd1;
            if (load_bank == LAST_BANK[4:0]) begin
                load_bank <= 0;
                load_word <= load_word + 16'd1;
                loaded <= load_word == load_last;
            end
        end
    end

    // The memories; the host has them while the engine does not run.
    wire [BANKS*32-1:0] weights, activations;
    wire [63:0] parameters;
    wire [BANKS-1:0] bank_write;
    wire [31:0] weight_value, activation_value;
    wire [16:0] wide_address = adr[16:0] >> BANK_BITS;
    reg [4:0] asked;
    generate
        if (BANKS == 1) begin : narrow
            assign bank_write = 1'b1;
            assign {weight_value, activation_value} = {weights, activations};
        end else begin : wide
            assign bank_write = {{BANKS-1{1'b0}}, 1'b1} << adr[BANK_BITS-1:0];
            assign weight_value = weights[{asked[BANK_BITS-1:0], 5'd0} +: 32];
            assign activation_value = activations[{asked[BANK_BITS-1:0], 5'd0} +: 32];
        end
    endgenerate

    edgeml_memory #(.DEPTH(PROGRAM_WORDS), .ADDRESS(PROGRAM_BITS), .HAS_IMAGE(HAS_IMAGES),
                    .IMAGE(PROGRAM_IMAGE)) program_memory (
        .clock(clock), .data(dat_w), .value(program_word), .write(writes[1]),
        .address(busy ? program_address[PROGRAM_BITS-1:0] : adr[PROGRAM_BITS-1:0])
    );
    edgeml_memory #(.BANKS(BANKS), .DEPTH(WEIGHT_WORDS), .ADDRESS(WEIGHT_BITS),
                    .HAS_IMAGE(HAS_IMAGES), .IMAGE(WEIGHT_IMAGE),
                    .IS_LARGE(WEIGHTS_ARE_LARGE)) weight_memory (
        .clock(clock), .data({BANKS{load ? far_data : dat_w}}), .value(weights),
        .write(load ? load_banks : writes[2] ? bank_write : {BANKS{1'b0}}),
        .address(load ? load_word[WEIGHT_BITS-1:0] : busy ? weight_address[WEIGHT_BITS-1:0]
                 : wide_address[WEIGHT_BITS-1:0])
    );
    edgeml_memory #(.BANKS(2), .DEPTH(PARAMETER_WORDS), .ADDRESS(PARAMETER_BITS),
                    .HAS_IMAGE(HAS_IMAGES), .IMAGE(PARAMETER_IMAGE)) parameter_memory (
        .clock(clock), .data({2{dat_w}}), .value(parameters),
        .write(writes[3] ? {adr[0], !adr[0]} : 2'b00),
        .address(busy ? parameter_address[PARAMETER_BITS-1:0] : adr[PARAMETER_BITS:1])
    );
    wire [TABLE_BITS-1:0] table_word;
    generate
        if (TABLES == 1) begin : one_table
            assign table_word = table_address[7:2];
        end else begin : many_tables
            assign table_word = {table_number[TABLE_BITS-7:0], table_address[7:2]};
        end
    endgenerate
    wire [31:0] table_values;
    reg [1:0] table_byte;
    edgeml_memory #(.DEPTH(TABLES * 64), .ADDRESS(TABLE_BITS), .HAS_IMAGE(HAS_IMAGES),
                    .IMAGE(TABLE_IMAGE)) table_memory (
        .clock(clock), .data(dat_w), .value(table_values), .write(writes[4]),
        .address(busy ? table_word : adr[TABLE_BITS-1:0])
    );
    wire [PLACE-1:0] busy_place = write ? place : activation_address;
    wire runs = busy && !turn;
    wire host_activation = writes[5] || turn && may_write;
    edgeml_memory #(.BANKS(BANKS), .DEPTH(ACTIVATION_WORDS), .ADDRESS(ACTIVATION_BITS),
                    .IS_LARGE(ACTIVATIONS_ARE_LARGE)) activation_memory (
        .clock(clock), .data(runs ? word : {BANKS{dat_w}}), .value(activations),
        .write(runs ? {BANKS{write}} : host_activation ? bank_write : {BANKS{1'b0}}),
        .address(runs ? busy_place[ACTIVATION_BITS-1:0] : wide_address[ACTIVATION_BITS-1:0])
    );

    // A tap meets what the memories answer.
    reg issued, issued_first, issued_last, issued_in_picture, issued_unsigned;
    reg [SELECT-1:0] issued_select;
    always @(posedge clock) begin
        issued <= issue && !clear;
        {issued_first, issued_last, issued_in_picture} <= {first, last, in_picture};
        {issued_unsigned, issued_select} <= {is_unsigned, select};
        table_byte <= table_address[1:0];
    end

    wire [LANES*32-1:0] sums;
    wire take;
    edgeml_lanes #(.LANES(LANES), .SELECT(SELECT)) lanes (
        .clock(clock), .reset(clear), .valid(issued), .first(issued_first), .last(issued_last),
            .in_picture(issued_in_picture), .select(issued_select),
        .lanewise(lanewise), .largest(largest), .is_unsigned(issued_unsigned),
        .activations(activations), .weights(weights), .sums(sums), .done(take)
    );
    edgeml_requantize #(.LANES(LANES), .PLACE(PLACE)) requantize (
        .clock(clock), .reset(clear), .restart(begins), .take(take), .sums(sums),
        .last_group(last_group), .first_place(first_place), .next_pixel(next_pixel),
        .first_parameter(first_parameter), .parameter_address(parameter_address),
        .parameters(parameters), .shift(shift), .low(low), .high(high), .by_table(by_table),
        .table_address(table_address), .table_value(table_values[{table_byte, 3'b000} +: 8]),
        .write(write), .place(place), .word(word), .largest_index(largest_index)
    );

    // The registers.
    localparam [7:0] STARTED_WHILE_BUSY = 1, WROTE_WHILE_BUSY = 2, BAD_PROGRAM = 3;
    reg was_busy;
    reg [31:0] value;
    always @(*) begin
        case (region)
            3'd1: value = program_word;
            3'd2: value = weight_value;
            3'd3: value = parameters[{asked[0], 5'd0} +: 32];
            3'd4: value = table_values;
            3'd5: value = activation_value;
            default: case (asked)
                5'd0: value = ID;
                5'd1: value = VERSION;
                5'd2: value = BUILD[127:96];
                5'd3: value = BUILD[95:64];
                5'd4: value = BUILD[63:32];
                5'd5: value = BUILD[31:0];
                5'd6: value = LANES;
                5'd7: value = PROGRAM_WORDS;
                5'd8: value = WEIGHT_WORDS;
                5'd9: value = PARAMETER_WORDS;
                5'd10: value = TABLES;
                5'd11: value = ACTIVATION_WORDS;
                5'd13: value = {16'd0, error, 5'd0, bank, done, busy};
                5'd14: value = cycles;
                5'd15: value = {24'd0, largest_index};
                5'd16: value = {24'd0, layer};
                5'd17: value = scratch;
                default: value = 0;
            endcase
        endcase
    end

    always @(posedge clock) begin
        answering <= request && !answering && (!asks || turn);
        waits <= asks && !turn;
        if (!waits) may_write <= we && (is_free || !busy);
        ack <= request && answering;
        asked <= adr[4:0];
        dat_r <= value;
        start <= 0;
        stop <= 0;
        was_busy <= busy && !stop;
        if (busy) cycles <= cycles + 1;
        if (was_busy && !busy && !stop) begin  // what was stopped is not done
            done <= !bad_program;
            if (bad_program) error <= BAD_PROGRAM;
        end
        if (host_writes) begin
            if (busy && region != 0 && !(region == 5 && is_free)) error <= WROTE_WHILE_BUSY;
            if (region == 0 && adr[4:0] == 5'd17) scratch <= dat_w;
            if (region == 0 && adr[4:0] == 5'd18) input_words <= dat_w[15:0];
            if (region == 0 && adr[4:0] == 5'd12) begin
                if (dat_w[1]) begin
                    stop <= 1;
                    {error, done, bank} <= 0;
                end else if (dat_w[0] && busy) error <= STARTED_WHILE_BUSY;
                else if (dat_w[0]) begin
                    start <= 1;
                    bank <= dat_w[2];
                    {error, done} <= 0;
                    cycles <= 0;
                end
            end
        end
        if (reset) begin
            {answering, ack, start, stop, done, was_busy, waits, bank} <= 0;
            {error, cycles, scratch, input_words} <= 0;
        end
    end
endmodule
