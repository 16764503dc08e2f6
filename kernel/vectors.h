// SPDX-License-Identifier: BSD-2-Clause
// Interrupt vectors and how to take them. Handlers only note that something is pending.
#pragma once

#include <stdbool.h>

enum vector {
    VECTOR_NMI = 2,
    VECTOR_DOUBLE_FAULT = 8,
    VECTOR_PAGE_FAULT = 14,
    VECTOR_MACHINE_CHECK = 18,
    VECTOR_EXCEPTIONS = 32, // all below are the processor's own
    VECTOR_VMBUS = 0x40,
    VECTOR_TIMER = 0x41,
    VECTOR_SERIAL = 0x42,
    VECTOR_ACPI = 0x43,
    VECTOR_WAKE = 0x44, // another core has a message
    VECTOR_SPURIOUS = 0xff,
};

// fn runs with interrupts off on the core that was interrupted. end_of_interrupt is false if the
// hypervisor acknowledges by itself (AutoEOI). Core 0, at start-up.
void irq_set(enum vector vector, void (*fn)(void), bool end_of_interrupt);

// Acknowledges at the local APIC. apic.c.
void apic_end_of_interrupt(void);
