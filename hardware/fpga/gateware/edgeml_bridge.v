// From bytes to the engine's bus. A request is
//
//     A5, operation (1 read, 2 write), address (3 bytes), words (2 bytes), check (2 bytes)
//
// and, to write, so many words and another check; the answer is 5A, a status (0 done, 1 the
// check of what was written failed), the words that were read, and a check. Numbers are little
// endian; a check is the CRC-16 (polynomial 1021, from FFFF) of all since the last, its high byte
// first. A header whose check fails is not answered. Silence of TIMEOUT clocks ends a request.
module edgeml_bridge #(
    parameter TIMEOUT = 65536
) (
    input  wire        clock,
    input  wire        reset,
    input  wire        received,
    input  wire [7:0]  in,
    output wire        send,
    output wire [7:0]  out,
    input  wire        ready,
    output reg         stb,
    output reg         we,
    output reg  [19:0] adr,
    output reg  [31:0] dat_w,
    input  wire [31:0] dat_r,
    input  wire        ack
);
    localparam SYNC = 8'hA5, ANSWER = 8'h5A, READ = 8'd1, WRITE = 8'd2;
    localparam IDLE = 3'd0, HEADER = 3'd1, PAYLOAD = 3'd2, CHECK = 3'd3, REPLY = 3'd4,
               FETCH = 3'd5, WORD = 3'd6, ENDING = 3'd7;
    localparam BITS = $clog2(TIMEOUT + 1);
    localparam LONGEST = TIMEOUT;
    reg [2:0] state;
    reg [3:0] place;
    reg [47:0] header;
    reg [15:0] left, crc;
    reg [31:0] word;
    reg is_bad;
    reg [BITS-1:0] silence;

    function [15:0] next_crc(input [15:0] old, input [7:0] data);
        integer i;
        begin
            next_crc = old ^ {data, 8'd0};
            for (i = 0; i < 8; i = i + 1)
                next_crc = {next_crc[14:0], 1'b0} ^ (next_crc[15] ? 16'h1021 : 16'd0);
        end
    endfunction

    wire [15:0] crc_in = next_crc(crc, in);
    wire [7:0] status = {7'd0, is_bad};
    assign send = (state == REPLY || state == WORD || state == ENDING) && !stb;
    assign out = state == REPLY ? (place == 0 ? ANSWER : status)
               : state == WORD ? word[7:0]
               : place == 0 ? crc[15:8] : crc[7:0];
    wire sent = send && ready;
    wire unused = &{1'b0, header};

    always @(posedge clock) begin
        silence <= received || state == IDLE ? LONGEST[BITS-1:0] : silence - 1'b1;
        if (stb && ack) begin
            stb <= 0;
            adr <= adr + 20'd1;
            word <= dat_r;
        end
        case (state)
            IDLE: if (received && in == SYNC) begin
                state <= HEADER;
                place <= 0;
                crc <= next_crc(16'hFFFF, SYNC);
                is_bad <= 0;
            end
            HEADER: if (received) begin
                crc <= crc_in;
                place <= place + 4'd1;
                if (place < 6) header <= {in, header[47:8]};
                if (place == 7) begin
                    place <= 0;
                    crc <= 16'hFFFF;
                    {we, adr} <= {header[7:0] == WRITE, header[27:8]};
                    left <= header[47:32];
                    state <= crc_in != 0 || header[47:32] == 0 ? IDLE
                           : header[7:0] == WRITE ? PAYLOAD
                           : header[7:0] == READ ? REPLY : IDLE;
                end
            end
            PAYLOAD: if (received) begin
                crc <= crc_in;
                dat_w <= {in, dat_w[31:8]};
                place <= place + 4'd1;
                if (place == 3) begin
                    stb <= 1;
                    place <= 0;
                    left <= left - 16'd1;
                    if (left == 1) state <= CHECK;
                end
            end
            CHECK: if (received) begin
                crc <= crc_in;
                place <= place + 4'd1;
                if (place == 1) begin
                    is_bad <= crc_in != 0;
                    crc <= 16'hFFFF;
                    place <= 0;
                    state <= REPLY;
                end
            end
            REPLY: if (sent) begin
                crc <= next_crc(crc, out);
                place <= place + 4'd1;
                if (place == 1) begin
                    place <= 0;
                    state <= we ? ENDING : FETCH;
                end
            end
            FETCH: begin
                stb <= 1;
                state <= WORD;
            end
            WORD: if (sent) begin
                crc <= next_crc(crc, out);
                word <= {8'd0, word[31:8]};
                place <= place + 4'd1;
                if (place == 3) begin
                    place <= 0;
                    left <= left - 16'd1;
                    state <= left == 1 ? ENDING : FETCH;
                end
            end
            ENDING: if (sent) begin
                place <= place + 4'd1;
                if (place == 1) state <= IDLE;
            end
        endcase
        if (silence == 0 && (state == HEADER || state == PAYLOAD || state == CHECK)) state <= IDLE;
        if (reset) {state, stb, we} <= 0;
    end
endmodule
