// The Verilated engine behind its UART or SPI pins, and the far end of them: bytes out and in.
#include <cstdint>

#include "Vengine.h"
#include "verilated.h"

struct Engine {
    VerilatedContext context;
    Vengine top{&context};
    bool is_spi = false;
    uint32_t divider = 16;
    uint64_t clocked = 0;

    void clock() {
        top.clock = 1;
        top.eval();
        top.clock = 0;
        top.eval();
        ++clocked;
    }
    void clocks(uint32_t count) {
        for (uint32_t i = 0; i < count; ++i) clock();
    }
    void select(bool is_selected) {  // SPI: one transfer lasts while it is
        if (!is_spi) return;
        top.pins_in = is_selected ? 0 : 2;
        clocks(divider);
    }
    uint8_t exchange(uint8_t out) {  // SPI, mode 0
        uint8_t in = 0;
        for (int bit = 7; bit >= 0; --bit) {
            top.pins_in = (out >> bit) & 1;
            clocks(divider / 2);
            in = in << 1 | top.pin_out;
            top.pins_in = 4 | top.pins_in;
            clocks(divider / 2);
        }
        top.pins_in = 0;
        clocks(divider / 2);
        return in;
    }
};

extern "C" {
Engine *engine_open(int is_spi, uint32_t divider) {
    Engine *engine = new Engine;
    engine->is_spi = is_spi;
    engine->divider = divider;
    engine->top.pins_in = is_spi ? 2 : 1;  // idle: not selected, or a line that is high
    engine->top.reset = 1;
    engine->clocks(4);
    engine->top.reset = 0;
    engine->clocks(4 * divider);
    return engine;
}
void engine_close(Engine *engine) { delete engine; }
uint64_t engine_clocks(Engine *engine) { return engine->clocked; }
void engine_wait(Engine *engine, uint32_t clocks) { engine->clocks(clocks); }

// A UART answers while it is still being written to only by error, so that one may do both in turn.
void engine_send(Engine *engine, const uint8_t *bytes, uint32_t count) {
    engine->select(true);
    for (uint32_t i = 0; i < count; ++i) {
        if (engine->is_spi) {
            engine->exchange(bytes[i]);
            continue;
        }
        uint32_t frame = 0x200u | bytes[i] << 1;
        for (int bit = 0; bit < 10; ++bit) {
            engine->top.pins_in = frame >> bit & 1;
            engine->clocks(engine->divider);
        }
    }
    engine->select(false);
}
// So many bytes, or fewer if the engine says nothing for `patience` clocks.
uint32_t engine_receive(Engine *engine, uint8_t *bytes, uint32_t count, uint32_t patience) {
    uint32_t got = 0;
    engine->select(true);
    while (got < count) {
        if (engine->is_spi) {
            bytes[got++] = engine->exchange(0);
            continue;
        }
        uint32_t waited = 0;
        while (engine->top.pin_out && waited < patience) {
            engine->clock();
            ++waited;
        }
        if (waited >= patience) break;
        engine->clocks(engine->divider + engine->divider / 2);
        uint8_t byte = 0;
        for (int bit = 0; bit < 8; ++bit) {
            byte |= engine->top.pin_out << bit;
            engine->clocks(engine->divider);
        }
        bytes[got++] = byte;
    }
    engine->select(false);
    return got;
}
}
