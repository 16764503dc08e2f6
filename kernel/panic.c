// SPDX-License-Identifier: BSD-2-Clause
// The end: report, tell the host, stop. The first core that panics stops all others by NMI and owns
// the consoles from then on; so does one that powers off or restarts the machine (power.c).
#include "kernel/panic.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <stb_sprintf.h>

#include "drivers/vmbus/vmbus.h"
#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/image.h"
#include "kernel/log.h"
#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/platform.h"
#include "kernel/symbols.h"
#include "kernel/time.h"
#include "kernel/vectors.h"

#define STOP_WAIT (20 * TIME_MS)
#define BACKTRACE_MAX 32
#define REPORT_BYTES 4096
#define QUOTE_BYTES 1024 // of the log; leaves room for every line of the longest backtrace

static atomic_uint owner;              // core number + 1 of the core that panicked first
static _Atomic uint64_t stopped;       // cores that obeyed the NMI, a bit for each
static atomic_bool finished;           // they have nothing left to serve
static char report_text[REPORT_BYTES]; // for the host: what was logged last, then the report
static int report_length;

static const char *const exception_names[VECTOR_EXCEPTIONS] = {
    [0] = "divide error",
    [1] = "debug",
    [2] = "NMI",
    [3] = "breakpoint",
    [4] = "overflow",
    [5] = "bound range",
    [6] = "invalid opcode",
    [7] = "no FPU",
    [8] = "double fault",
    [10] = "invalid TSS",
    [11] = "segment not present",
    [12] = "stack fault",
    [13] = "general protection",
    [14] = "page fault",
    [16] = "FPU error",
    [17] = "alignment check",
    [18] = "machine check",
    [19] = "SIMD error",
    [21] = "control protection",
};

// To the consoles, and kept for the host.
static __attribute__((format(printf, 1, 2))) void report(const char *format, ...)
{
    int from = report_length;
    va_list args;

    va_start(args, format);
    report_length += stbsp_vsnprintf(report_text + from, REPORT_BYTES - from, format, args);
    va_end(args);
    if (report_length > REPORT_BYTES - 1)
        report_length = REPORT_BYTES - 1;
    log_text(report_text + from, (size_t)(report_length - from));
}

static void report_address(uint64_t address)
{
    uint32_t offset = (uint32_t)(address - (uint64_t)kernel_start), best = UINT32_MAX;
    const char *name = symbol_names;

    if (address < (uint64_t)kernel_start || address >= (uint64_t)text_end) {
        report("  %016llx\n", (unsigned long long)address);
        return;
    }
    for (uint32_t i = 0; i < symbol_count && symbol_offsets[i] <= offset; i++)
        best = i;
    for (uint32_t i = 0; best != UINT32_MAX && i < best; i++)
        name += strlen(name) + 1;
    if (best == UINT32_MAX)
        report("  %016llx\n", (unsigned long long)address);
    else
        report("  %016llx %s+0x%x\n", (unsigned long long)address, name,
               offset - symbol_offsets[best]);
}

// Frames are linked by rbp; each must be higher than the last and readable.
static void report_backtrace(uint64_t rip, uint64_t rbp)
{
    report("backtrace:\n");
    report_address(rip);
    for (unsigned i = 0; i < BACKTRACE_MAX; i++) {
        const uint64_t *frame = (const uint64_t *)rbp;
        if (rbp % 8 != 0 || !paging_readable(frame, 16) || frame[1] == 0)
            return;
        report_address(frame[1] - 1); // inside the call, not after it
        if (frame[0] <= rbp)
            return;
        rbp = frame[0];
    }
}

static void report_registers(const struct trap_frame *f)
{
    report("rip %016llx rsp %016llx rflags %08llx cs %02llx\n", (unsigned long long)f->rip,
           (unsigned long long)f->rsp, (unsigned long long)f->rflags, (unsigned long long)f->cs);
    report("rax %016llx rbx %016llx rcx %016llx rdx %016llx\n", (unsigned long long)f->rax,
           (unsigned long long)f->rbx, (unsigned long long)f->rcx, (unsigned long long)f->rdx);
    report("rsi %016llx rdi %016llx rbp %016llx r8  %016llx\n", (unsigned long long)f->rsi,
           (unsigned long long)f->rdi, (unsigned long long)f->rbp, (unsigned long long)f->r8);
    report("r9  %016llx r10 %016llx r11 %016llx r12 %016llx\n", (unsigned long long)f->r9,
           (unsigned long long)f->r10, (unsigned long long)f->r11, (unsigned long long)f->r12);
    report("r13 %016llx r14 %016llx r15 %016llx cr2 %016llx cr3 %llx\n", (unsigned long long)f->r13,
           (unsigned long long)f->r14, (unsigned long long)f->r15, (unsigned long long)read_cr2(),
           (unsigned long long)read_cr3());
}

static _Noreturn void stop_or_restart(void)
{
    log_announce("stopped");
    if (config.on_panic == PANIC_RESTART)
        machine_reset();
    machine_halt();
}

// The report itself failed. One more word by the serial port, the simplest of the consoles.
static _Noreturn void give_up(void)
{
    static atomic_bool given_up;

    if (atomic_exchange(&given_up, true))
        cpu_stop();
    framebuffer_stop();
    log_seize();
    log_announce("panic: the report failed");
    stop_or_restart();
}

// Serves the core that has the machine, until that has nothing left to ask.
static _Noreturn void stand_by(void)
{
    atomic_fetch_or(&stopped, 1ull << core_id());
    while (!atomic_load(&finished)) {
        platform_serve_while_stopped();
        cpu_pause();
    }
    cpu_stop();
}

void machine_seize(void)
{
    unsigned expected = 0, self = core_id() + 1;

    interrupts_off();
    if (!atomic_compare_exchange_strong(&owner, &expected, self)) {
        if (expected == self)
            give_up();
        stand_by(); // another one reports: the host's NMI comes to all cores at once
    }
    apic_send_nmi_to_others();
    uint64_t end = time_now() + STOP_WAIT;
    while ((unsigned)__builtin_popcountll(atomic_load(&stopped)) + 1 < core_count() &&
           time_now() < end)
        cpu_pause();
    log_seize();
}

_Noreturn void machine_halt(void)
{
    atomic_store(&finished, true);
    cpu_stop();
}

void panic_nmi(const struct trap_frame *frame)
{
    if (atomic_load(&owner) == 0)
        panic_trap(frame); // the host's: somebody asks for a crash report
    stand_by();
}

// The registers are the trap's, or those of panic()'s caller.
static _Noreturn void finish(const struct trap_frame *frame, uint64_t code)
{
    report_registers(frame);
    report_backtrace(frame->rip, frame->rbp);
    if (platform_running()) {
        uint64_t numbers[5] = {code, 0, frame->rip, frame->rax, frame->rsp};
        platform_crash(numbers, report_text, (size_t)report_length);
        vmbus_unload();
        platform_stop();
    }
    stop_or_restart();
}

static void start_report(void)
{
    machine_seize();
    report_length = (int)log_tail(report_text, QUOTE_BYTES);
}

_Noreturn void panic_trap(const struct trap_frame *frame)
{
    const char *name = exception_names[frame->vector];

    // A push or a call hit the page below the stack, which is not mapped.
    if (frame->vector == VECTOR_PAGE_FAULT && read_cr2() - frame->rsp + PAGE_SIZE < 2 * PAGE_SIZE)
        name = "stack overflow";
    start_report();
    report("dunlin: panic: core %u: %s (vector %llu, error %llx, address %llx)\n", core_id(),
           name ? name : "exception", (unsigned long long)frame->vector,
           (unsigned long long)frame->error,
           (unsigned long long)(frame->vector == VECTOR_PAGE_FAULT ? read_cr2() : 0));
    finish(frame, frame->vector);
}

_Noreturn void panic(const char *format, ...)
{
    struct trap_frame frame = {.rip = (uint64_t)__builtin_return_address(0)};
    char text[256];
    va_list args;

    __asm__ volatile("mov (%%rbp), %0\n\t"
                     "lea 16(%%rbp), %1\n\t"
                     "mov %%rbx, %2\n\tmov %%r12, %3\n\tmov %%r13, %4\n\tmov %%r14, %5\n\t"
                     "mov %%r15, %6\n\tpushfq\n\tpopq %7"
                     : "=&r"(frame.rbp), "=&r"(frame.rsp), "=m"(frame.rbx), "=m"(frame.r12),
                       "=m"(frame.r13), "=m"(frame.r14), "=m"(frame.r15), "=&r"(frame.rflags));
    frame.cs = 8;
    start_report();
    va_start(args, format);
    stbsp_vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    report("dunlin: panic: core %u: %s\n", core_id(), text);
    finish(&frame, 0);
}

_Noreturn void __stack_chk_fail(void); // called by the compiler's code

_Noreturn void __stack_chk_fail(void)
{
    panic("stack smashed");
}
