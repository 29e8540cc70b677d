// The Verilated gateware behind a C interface: one bus access at a time, and clocks. With FLASH its
// pins lead to a serial flash of 16 MB that sleeps until it is woken.
#include <cstdint>
#include <cstring>
#include <vector>

#include "Vengine.h"
#include "verilated.h"

struct Engine {
    VerilatedContext context;
    Vengine top{&context};
    uint64_t clocks = 0;
#ifdef FLASH
    std::vector<uint8_t> flash = std::vector<uint8_t>(1 << 24, 0xFF);
    bool flash_is_awake = false, flash_sck = false;
    uint32_t flash_bits = 0, flash_command = 0;

    void flash_clock() {
        if (top.flash_cs_n) flash_bits = flash_command = 0;
        const bool rises = top.flash_sck && !flash_sck, falls = !top.flash_sck && flash_sck;
        flash_sck = top.flash_sck;
        if (top.flash_cs_n) return;
        if (rises) {
            if (flash_bits < 32) flash_command = flash_command << 1 | top.flash_mosi;
            if (++flash_bits == 8 && flash_command == 0xAB) flash_is_awake = true;
        }
        if (falls && flash_bits >= 32) {
            const uint32_t place = (flash_command & 0xFFFFFF) + (flash_bits - 32) / 8;
            const bool answers = flash_is_awake && flash_command >> 24 == 0x03;
            top.flash_miso = answers && flash[place % flash.size()] >> (7 - flash_bits % 8) & 1;
        }
    }
#endif

    void clock() {
        top.clock = 1;
        top.eval();
        top.clock = 0;
        top.eval();
#ifdef FLASH
        flash_clock();
#endif
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
uint64_t engine_clocks(Engine *engine) { return engine->clocks; }

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
#ifdef FLASH
// What the flash holds from an address on.
void engine_flash(Engine *engine, uint32_t address, const uint8_t *bytes, uint32_t count) {
    std::memcpy(&engine->flash[address], bytes, count);
}
#endif
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
