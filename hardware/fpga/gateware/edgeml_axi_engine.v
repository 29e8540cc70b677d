// An engine on AXI4-Lite. Its window is 4 MB; `irq` is high from done to the next start.
module edgeml_axi_engine #(
    parameter LANES = 8,
    parameter PROGRAM_WORDS = 1024,
    parameter WEIGHT_WORDS = 1024,
    parameter PARAMETER_WORDS = 256,
    parameter TABLES = 1,
    parameter ACTIVATION_WORDS = 1024,
    parameter [127:0] BUILD = 0
) (
    input  wire        aclk,
    input  wire        aresetn,
    input  wire        s_axi_awvalid,
    output wire        s_axi_awready,
    input  wire [21:0] s_axi_awaddr,
    input  wire [2:0]  s_axi_awprot,
    input  wire        s_axi_wvalid,
    output wire        s_axi_wready,
    input  wire [31:0] s_axi_wdata,
    input  wire [3:0]  s_axi_wstrb,
    output wire        s_axi_bvalid,
    input  wire        s_axi_bready,
    output wire [1:0]  s_axi_bresp,
    input  wire        s_axi_arvalid,
    output wire        s_axi_arready,
    input  wire [21:0] s_axi_araddr,
    input  wire [2:0]  s_axi_arprot,
    output wire        s_axi_rvalid,
    input  wire        s_axi_rready,
    output wire [31:0] s_axi_rdata,
    output wire [1:0]  s_axi_rresp,
    output wire        busy,
    output wire        irq
);
    wire stb, we, ack;
    wire [19:0] adr;
    wire [31:0] dat_w, dat_r;
    wire unused = &{1'b0, s_axi_awprot, s_axi_arprot};

    edgeml_axi_lite bus (
        .clock(aclk), .reset(!aresetn),
        .awvalid(s_axi_awvalid), .awready(s_axi_awready), .awaddr(s_axi_awaddr),
        .wvalid(s_axi_wvalid), .wready(s_axi_wready), .wdata(s_axi_wdata), .wstrb(s_axi_wstrb),
        .bvalid(s_axi_bvalid), .bready(s_axi_bready), .bresp(s_axi_bresp),
        .arvalid(s_axi_arvalid), .arready(s_axi_arready), .araddr(s_axi_araddr),
        .rvalid(s_axi_rvalid), .rready(s_axi_rready), .rdata(s_axi_rdata), .rresp(s_axi_rresp),
        .stb(stb), .we(we), .adr(adr), .dat_w(dat_w), .dat_r(dat_r), .ack(ack)
    );
    edgeml_engine #(
        .LANES(LANES), .PROGRAM_WORDS(PROGRAM_WORDS), .WEIGHT_WORDS(WEIGHT_WORDS),
        .PARAMETER_WORDS(PARAMETER_WORDS), .TABLES(TABLES), .ACTIVATION_WORDS(ACTIVATION_WORDS),
        .BUILD(BUILD)
    ) engine (
        .clock(aclk), .reset(!aresetn), .cyc(stb), .stb(stb), .we(we), .adr(adr), .dat_w(dat_w),
        .dat_r(dat_r), .ack(ack), .far_request(), .far_address(), .far_valid(1'b0),
        .far_data(32'd0), .busy(busy), .done(irq)
    );
endmodule
