// The Verilated engine behind AXI4-Lite, and a manager that is as irregular as the standard lets it
// be: addresses before, with and after data, and readiness that comes late. It watches that what is
// valid stays, and stays the same, until it is taken.
#include <cstdint>

#include "Vengine.h"
#include "verilated.h"

static const int LONGEST_ANSWER = 64;

struct Engine {
    VerilatedContext context;
    Vengine top{&context};
    uint32_t transactions = 0;
    bool is_broken = false;  // the standard was not kept

    void clock() {
        top.eval();  // ready may follow from valid in the same clock
        const bool reads = top.s_axi_rvalid && !top.s_axi_rready;
        const bool writes = top.s_axi_bvalid && !top.s_axi_bready;
        const uint32_t data = top.s_axi_rdata;
        top.aclk = 1;
        top.eval();
        if (reads && (!top.s_axi_rvalid || top.s_axi_rdata != data)) is_broken = true;
        if (writes && !top.s_axi_bvalid) is_broken = true;
        top.aclk = 0;
        top.eval();
    }
    // Clocks until what is asked is true; it is looked at before the edge that takes it.
    template <typename Condition>
    bool until(Condition condition) {
        for (int i = 0; i < LONGEST_ANSWER; ++i) {
            top.eval();
            const bool is_true = condition();
            clock();
            if (is_true) return true;
        }
        return false;
    }
    void clocks(uint32_t count) {
        for (uint32_t i = 0; i < count; ++i) clock();
    }
};

static bool write(Engine *engine, uint32_t address, uint32_t word, uint32_t strobes) {
    Vengine &top = engine->top;
    const uint32_t skew = engine->transactions++ % 3;  // 0 together, 1 address first, 2 data first
    top.s_axi_awaddr = address << 2;
    top.s_axi_wdata = word;
    top.s_axi_wstrb = strobes;
    top.s_axi_awvalid = skew != 2;
    top.s_axi_wvalid = skew != 1;
    if (skew) engine->clocks(skew + 1);
    bool address_taken = false, data_taken = false;
    top.s_axi_awvalid = top.s_axi_wvalid = 1;
    for (int i = 0; i < LONGEST_ANSWER && !(address_taken && data_taken); ++i) {
        top.eval();
        const bool a = top.s_axi_awvalid && top.s_axi_awready;
        const bool d = top.s_axi_wvalid && top.s_axi_wready;
        engine->clock();
        address_taken |= a;
        data_taken |= d;
        if (a) top.s_axi_awvalid = 0;
        if (d) top.s_axi_wvalid = 0;
    }
    if (!address_taken || !data_taken) return false;
    engine->clocks(engine->transactions % 5);
    top.s_axi_bready = 1;
    bool is_good = false;
    const bool answered = engine->until([&] {
        is_good = top.s_axi_bresp == 0;
        return top.s_axi_bvalid;
    });
    top.s_axi_bready = 0;
    return answered && is_good && !engine->is_broken;
}

static bool read(Engine *engine, uint32_t address, uint32_t *word) {
    Vengine &top = engine->top;
    ++engine->transactions;
    top.s_axi_araddr = address << 2;
    top.s_axi_arvalid = 1;
    const bool taken = engine->until([&] { return top.s_axi_arready; });
    top.s_axi_arvalid = 0;
    if (!taken) return false;
    engine->clocks(engine->transactions % 7);
    top.s_axi_rready = 1;
    const bool answered = engine->until([&] {
        *word = top.s_axi_rdata;
        return top.s_axi_rvalid;
    });
    top.s_axi_rready = 0;
    return answered && top.s_axi_rresp == 0 && !engine->is_broken;
}

extern "C" {
Engine *engine_open() {
    Engine *engine = new Engine;
    engine->clocks(4);
    engine->top.aresetn = 1;
    engine->clock();
    return engine;
}
void engine_close(Engine *engine) { delete engine; }

int engine_write(Engine *engine, uint32_t address, const uint32_t *words, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i)
        if (!write(engine, address + i, words[i], 0xF)) return 0;
    return 1;
}
int engine_read(Engine *engine, uint32_t address, uint32_t *words, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i)
        if (!read(engine, address + i, &words[i])) return 0;
    return 1;
}
// A write of some bytes of a word: 1 where it is answered with OKAY.
int engine_write_bytes(Engine *engine, uint32_t address, uint32_t word, uint32_t strobes) {
    return write(engine, address, word, strobes);
}
uint64_t engine_clock(Engine *engine, uint64_t most) {
    uint64_t clocks = 0;
    while (clocks < most && engine->top.busy) {
        engine->clock();
        ++clocks;
    }
    return clocks;
}
}
