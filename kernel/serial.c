// SPDX-License-Identifier: BSD-2-Clause
// COM1: a 16550 at 115200 8N1. What is written to it comes from the log, whose lock is held.
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

static uint16_t base;

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

unsigned serial_room(void)
{
    return !base || inb(base + UART_LINE_STATUS) & LINE_STATUS_ROOM ? FIFO_BYTES : 0;
}

void serial_put(char c)
{
    if (base)
        outb(base + UART_DATA, (uint8_t)c);
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
