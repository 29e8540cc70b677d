// An SPI device, mode 0, most significant bit first: bytes in, bytes out.
//
// The host's clock is sampled: it may be an eighth of `clock` at most. Where there is nothing to
// send, zeros are sent. What is sent is taken when its first bit is: a host may let go of `cs_n`
// after any byte, and loses none.
module edgeml_spi (
    input  wire       clock,
    input  wire       reset,
    input  wire       sck,
    input  wire       cs_n,
    input  wire       mosi,
    output wire       miso,
    output reg        received,  // for one clock: a byte is in `in`
    output reg  [7:0] in,
    input  wire       send,      // taken in the clock in which `ready` is high
    input  wire [7:0] out,
    output wire       ready
);
    reg [2:0] sck_sampled;
    reg [1:0] cs_sampled, mosi_sampled;
    reg [2:0] bits;
    reg [6:0] shifted_in;
    reg [7:0] shifted_out, next;
    reg has_next, is_loaded, was_selected;
    wire selected = !cs_sampled[1];
    wire rises = sck_sampled[2:1] == 2'b01, falls = sck_sampled[2:1] == 2'b10;

    assign ready = !has_next;
    assign miso = shifted_out[7];

    always @(posedge clock) begin
        sck_sampled <= {sck_sampled[1:0], sck};
        cs_sampled <= {cs_sampled[0], cs_n};
        mosi_sampled <= {mosi_sampled[0], mosi};
        received <= 0;
        if (send && ready) {has_next, next} <= {1'b1, out};
        was_selected <= selected;
        if (!selected) {bits, is_loaded, shifted_out} <= 0;
        else begin
            if (rises) begin
                if (bits == 0 && is_loaded) has_next <= 0;
                shifted_in <= {shifted_in[5:0], mosi_sampled[1]};
                bits <= bits + 3'd1;
                if (bits == 3'd7) begin
                    received <= 1;
                    in <= {shifted_in, mosi_sampled[1]};
                end
            end
            if (falls) shifted_out <= {shifted_out[6:0], 1'b0};
            if (falls && bits == 0 || !was_selected) begin
                shifted_out <= has_next ? next : 8'd0;
                is_loaded <= has_next;
            end
        end
        if (reset) {bits, has_next, is_loaded, was_selected, shifted_out, cs_sampled} <= {14'd0, 2'b11};
    end
endmodule
