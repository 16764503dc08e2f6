// SPDX-License-Identifier: BSD-2-Clause
// COM1: a 16550 at 115200 8N1. A port that stops taking bytes costs time once, then little. Callers
// of serial_write() hold the log's lock.
#include "kernel/cpu.h"
#include "kernel/machine.h"

enum uart_register {
    UART_DATA = 0,
    UART_INTERRUPT_ENABLE = 1,
    UART_FIFO_CONTROL = 2,
    UART_LINE_CONTROL = 3,
    UART_MODEM_CONTROL = 4,
    UART_LINE_STATUS = 5,
};
#define LINE_STATUS_DATA 0x01
#define LINE_STATUS_ROOM 0x20
#define LINE_8N1 0x03
#define LINE_DIVISOR 0x80
#define DIVISOR_115200 1
#define MODEM_READY 0x0b // DTR, RTS, and OUT2, which gates the interrupt
#define FIFO_ON 0x07
#define FIFO_BYTES 16
#define WAIT_SPINS 2000000 // about a second: whoever reads the other end may be slow
#define WAIT_SPINS_STUCK 10

static uint16_t base;
static unsigned spins = WAIT_SPINS;

void serial_init(uint16_t port)
{
    base = port;
    if (!base)
        return;
    outb(base + UART_INTERRUPT_ENABLE, 0);
    outb(base + UART_LINE_CONTROL, LINE_DIVISOR);
    outb(base + UART_DATA, DIVISOR_115200);
    outb(base + UART_INTERRUPT_ENABLE, 0); // high half of the divisor
    outb(base + UART_LINE_CONTROL, LINE_8N1);
    outb(base + UART_FIFO_CONTROL, FIFO_ON);
    outb(base + UART_MODEM_CONTROL, MODEM_READY);
}

static bool wait_for_room(void)
{
    for (unsigned i = 0; i < spins; i++) {
        if (inb(base + UART_LINE_STATUS) & LINE_STATUS_ROOM) {
            spins = WAIT_SPINS;
            return true;
        }
        cpu_pause();
    }
    spins = WAIT_SPINS_STUCK;
    return false;
}

void serial_write(const char *text, size_t length)
{
    size_t room = 0;

    if (!base)
        return;
    for (size_t i = 0; i < length; i++) {
        if (room < 2) { // a newline takes two
            if (!wait_for_room())
                return;
            room = FIFO_BYTES;
        }
        if (text[i] == '\n') {
            outb(base + UART_DATA, '\r');
            room--;
        }
        outb(base + UART_DATA, (uint8_t)text[i]);
        room--;
    }
}

int serial_read(void)
{
    if (!base || !(inb(base + UART_LINE_STATUS) & LINE_STATUS_DATA))
        return -1;
    return inb(base + UART_DATA);
}

void serial_enable_interrupt(void)
{
    if (base)
        outb(base + UART_INTERRUPT_ENABLE, 1);
}
