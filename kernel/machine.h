// SPDX-License-Identifier: BSD-2-Clause
// The start-up steps of the kernel, in the order in which kernel/main.c takes them, and what the
// parts of kernel/ need of each other. Nothing outside kernel/ includes this.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/boot_info.h"
#include "kernel/core.h"

// log.c, serial.c, framebuffer.c ------------------------------------------------------------------
void log_init(
    const struct boot_info *info); // serial and framebuffer from now on, each line at once
void log_start(void);              // core 0: from now on by its loop
void log_set_level(int level);
void log_text(const char *text, size_t length); // raw, to every console; any core
// The caller has the machine to itself (whoever held the lock is stopped): shows all that waits, and what
// comes from now on at once.
void log_seize(void);
// The last lines that were logged, whole ones, `size` bytes (less than 4096) at most. Returns how
// many bytes. Panic only: takes no lock.
size_t log_tail(char *out, size_t size);

void serial_init(uint16_t port);    // 0: there is none
unsigned serial_room(void);         // bytes that it takes now without waiting; 0 or more than one
void serial_put(char c);            // no more of them than that
int serial_read(void);              // a byte, or -1; no port: -1
void serial_enable_interrupt(void); // on every received byte

void framebuffer_init(const struct boot_framebuffer *fb); // needs only the first page tables
void framebuffer_stop(void);                              // after a failure
void framebuffer_put(char c);
bool framebuffer_draw(void); // draws one row, if any changed; false: all is drawn

// alloc.c -----------------------------------------------------------------------------------------
void memory_init(const struct boot_info *info);

// traps.c -----------------------------------------------------------------------------------------
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};
void traps_init(void);      // the IDT; once
void traps_init_core(void); // GDT, TSS and its stacks; each core

// acpi.c ------------------------------------------------------------------------------------------
struct acpi_cpu {
    uint32_t apic_id;
};
void acpi_init(uint64_t rsdp); // 0 or broken tables: says so and finds nothing
unsigned acpi_cpus(const struct acpi_cpu **out);
// Where ISA interrupt `irq` arrives: false if there is no I/O APIC.
bool acpi_isa_irq(unsigned irq, uint64_t *ioapic, uint32_t *pin, bool *level, bool *active_low);
bool acpi_poweroff(void); // returns only when it did not work
bool acpi_reset(void);    // the same
// False if there is none; else *irq is where it interrupts.
bool acpi_enable_power_button(unsigned *irq);
bool acpi_take_power_button(void); // pressed since the last call? In its interrupt handler

// apic.c ------------------------------------------------------------------------------------------
void apic_init(void);      // core 0
void apic_init_core(void); // each core
uint32_t apic_id(void);
void apic_send_init(uint32_t id);
void apic_send_startup(uint32_t id, uint8_t page);
void apic_send_wake(uint32_t id); // VECTOR_WAKE
void apic_send_nmi_to_others(void);
bool ioapic_route(unsigned isa_irq, uint8_t vector); // to core 0
void ioapic_mask(unsigned isa_irq);

// core.c ------------------------------------------------------------------------------------------
struct core { // one cache line and more per core; only what other cores may touch
    uint32_t apic_id, vp_index;
    volatile bool running;
    uint64_t started;                           // when
    uint64_t turns, halts;                      // of the loop
    uint64_t idle, idle_from;                   // time without work; since when, 0: working
    uint64_t messages, messages_refused, wakes; // sent by it; interrupts to wake others
} __attribute__((aligned(64)));
extern struct core cores[MAX_CORES];
void core_describe(void);                       // the calling core: its entry in the table
void cores_start(const struct boot_info *info); // all others, into their loop

// message.c ---------------------------------------------------------------------------------------
void messages_start_core(void); // each core, before its loop
void messages_start(void);      // core 0, when all cores are known
void messages_awake(void);      // the loop is not going to halt, or has halted

// loop.c, fiber.c ---------------------------------------------------------------------------------
uint64_t core_busy(unsigned core); // time for which it has worked
bool fibers_run(void);             // ready ones, once each; true if any ran
uint64_t fibers_deadline(void);    // when the first sleeper is due
void *stack_new(size_t bytes);     // page aligned, with a guard page below; NULL if no memory
void fiber_switch(uint64_t *save, uint64_t load);

// panic.c -----------------------------------------------------------------------------------------
_Noreturn void panic_trap(const struct trap_frame *frame);
// The host's, or that of another core's panic.
_Noreturn void panic_nmi(const struct trap_frame *frame);
// Interrupts off, all other cores stopped. Only one core gets past this, once.
void machine_seize(void);
_Noreturn void machine_halt(void); // after machine_seize()

// power.c -----------------------------------------------------------------------------------------
void power_init(void);                 // the power button
_Noreturn void machine_poweroff(void); // at once, but says goodbye to the host
void machine_reset(void);              // at once; returns if there is no way

// utc.c -------------------------------------------------------------------------------------------
void utc_start(void); // its statistics

// random.c, console.c, config_load.c --------------------------------------------------------------
void random_init(const struct boot_info *info);
void random_init_core(void);
void console_init(void); // input, and the built-in commands
void config_init(const struct boot_info *info);
