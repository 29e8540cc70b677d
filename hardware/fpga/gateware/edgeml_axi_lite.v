// An AXI4-Lite subordinate that is a Wishbone manager: for the processors of SoCs.
//
// Addresses are of bytes; 32-bit words only: a write whose strobes are not all set changes nothing
// and is answered with SLVERR. One transaction at a time; a write goes before a read.
module edgeml_axi_lite (
    input  wire        clock,
    input  wire        reset,
    input  wire        awvalid,
    output wire        awready,
    input  wire [21:0] awaddr,
    input  wire        wvalid,
    output wire        wready,
    input  wire [31:0] wdata,
    input  wire [3:0]  wstrb,
    output reg         bvalid,
    input  wire        bready,
    output reg  [1:0]  bresp,
    input  wire        arvalid,
    output wire        arready,
    input  wire [21:0] araddr,
    output reg         rvalid,
    input  wire        rready,
    output reg  [31:0] rdata,
    output wire [1:0]  rresp,
    output reg         stb,
    output reg         we,
    output reg  [19:0] adr,
    output reg  [31:0] dat_w,
    input  wire [31:0] dat_r,
    input  wire        ack
);
    localparam [1:0] OKAY = 2'b00, SLVERR = 2'b10;
    wire idle = !stb && !bvalid && !rvalid;
    wire takes_write = idle && awvalid && wvalid;
    wire takes_read = idle && arvalid && !takes_write;
    wire unused = &{1'b0, awaddr[1:0], araddr[1:0]};

    assign awready = takes_write;
    assign wready = takes_write;
    assign arready = takes_read;
    assign rresp = OKAY;

    always @(posedge clock) begin
        if (takes_write) begin
            {we, adr, dat_w} <= {1'b1, awaddr[21:2], wdata};
            stb <= &wstrb;
            bvalid <= !(&wstrb);
            bresp <= &wstrb ? OKAY : SLVERR;
        end
        if (takes_read) {stb, we, adr} <= {1'b1, 1'b0, araddr[21:2]};
        if (stb && ack) begin
            stb <= 0;
            bvalid <= we;
            rvalid <= !we;
            rdata <= dat_r;
        end
        if (bvalid && bready) bvalid <= 0;
        if (rvalid && rready) rvalid <= 0;
        if (reset) {stb, bvalid, rvalid} <= 0;
    end
endmodule
