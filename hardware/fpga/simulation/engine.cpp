// The Verilated engine behind a C interface: one bus access at a time, and clocks.
#include <cstdint>

#include "Vengine.h"
#include "verilated.h"

struct Engine {
    VerilatedContext context;
    Vengine top{&context};
    uint64_t clocks = 0;

    void clock() {
        top.clock = 1;
        top.eval();
        top.clock = 0;
        top.eval();
        ++clocks;
    }
};

static const int LONGEST_ANSWER = 64;

static int access(Engine *engine, bool write, uint32_t address, uint32_t *word) {
    Vengine &top = engine->top;
    top.cyc = top.stb = 1;
    top.we = write;
    top.adr = address;
    top.dat_w = *word;
    bool answered = false;
    for (int i = 0; i < LONGEST_ANSWER && !answered; ++i) {
        engine->clock();
        answered = top.ack;
    }
    *word = top.dat_r;
    top.cyc = top.stb = top.we = 0;
    engine->clock();
    return answered;
}

extern "C" {
Engine *engine_open() {
    Engine *engine = new Engine;
    engine->top.reset = 1;
    for (int i = 0; i < 4; ++i) engine->clock();
    engine->top.reset = 0;
    engine->clock();
    return engine;
}
void engine_close(Engine *engine) { delete engine; }

int engine_write(Engine *engine, uint32_t address, const uint32_t *words, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t word = words[i];
        if (!access(engine, true, address + i, &word)) return 0;
    }
    return 1;
}
int engine_read(Engine *engine, uint32_t address, uint32_t *words, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        words[i] = 0;
        if (!access(engine, false, address + i, &words[i])) return 0;
    }
    return 1;
}
// Let time pass: until the engine does not run, or that many clocks.
uint64_t engine_clock(Engine *engine, uint64_t most) {
    uint64_t clocks = 0;
    while (clocks < most && engine->top.busy) {
        engine->clock();
        ++clocks;
    }
    return clocks;
}
}
