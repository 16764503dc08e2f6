/*
 * Tries the emulated Hyper-V from below: an EFI program that does what a guest should, and what it
 * must not, and says on COM1 what came of it, one line "probe: NAME: RESULT" each. Started by
 * test_probe.py, which knows the right results; ends by powering the machine off.
 *
 * Runs on the boot processor with interrupts off and the firmware's identity mapping; nothing else
 * uses the hypervisor then.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#include <efi.h>

#include "probe.h"

struct tsc_page {
    volatile uint32_t sequence;
    uint32_t reserved;
    volatile uint64_t scale;
    volatile int64_t offset;
};

/* --- What is tried ------------------------------------------------------ */

static void try_cpuid(void)
{
    uint32_t a, b, c, d;

    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
    say_truth("cpuid hypervisor bit", c >> 31);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0x40000000), "c"(0));
    say_number("cpuid maximum", a);
    say_truth("cpuid vendor", b == 0x7263694d && c == 0x666f736f && d == 0x76482074);
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0x40000001), "c"(0));
    say_number("cpuid interface", a);
}

static void try_msr_rules(void)
{
    try_write("write VP_INDEX", MSR_VP_INDEX, 0);
    try_write("write TIME_REF_COUNT", MSR_TIME_REF_COUNT, 0);
    try_write("write TSC_FREQUENCY", MSR_TSC_FREQUENCY, 0);
    try_write("write SVERSION", MSR_SVERSION, 1);
    try_read("read VP_RUNTIME", MSR_VP_RUNTIME);
    try_read("read EOI", MSR_EOI);
    say_number("VP_INDEX", read_msr(MSR_VP_INDEX));
    say_number("SVERSION", read_msr(MSR_SVERSION));
    say_number("SINT2 at reset", read_msr(MSR_SINT(2)));
    try_write("SINT vector 15", MSR_SINT(5), 15);
    try_write("SINT vector 16", MSR_SINT(5), 16);
    try_write("SINT vector 0 masked", MSR_SINT(5), 0x10000);
    try_write("SIMP where no RAM is", MSR_SIMP, 0xf000000001ull);
    try_write("STIMER reserved bits", MSR_STIMER_CONFIG(0), 1ull << 40);
}

static void try_hypercall_page(void)
{
    HYPERCALL_PAGE[0] = 0x5a;
    write_msr(MSR_HYPERCALL, page_msr(HYPERCALL_PAGE));
    say_truth("page enabled without OS id", read_msr(MSR_HYPERCALL) & 1);
    probe_fault = 0;
    __asm__ volatile("leaq 1f(%%rip), %%r8\n"
                     "movq %%r8, probe_resume(%%rip)\n"
                     ".byte 0x0f, 0x01, 0xd9\n"
                     "1:"
                     :
                     : "c"(CALL_SIGNAL_EVENT | CALL_FAST), "d"(0ull)
                     : "rax", "r8", "memory");
    say_fault("call without page");

    write_msr(MSR_GUEST_OS_ID, OS_ID);
    try_write("HYPERCALL reserved bits", MSR_HYPERCALL, page_msr(HYPERCALL_PAGE) | 4);
    try_write("HYPERCALL where no RAM is", MSR_HYPERCALL, 0xf000000001ull);
    write_msr(MSR_HYPERCALL, page_msr(HYPERCALL_PAGE));
    say_truth("page enabled", read_msr(MSR_HYPERCALL) & 1);
    say_truth("page covers RAM", *(volatile uint8_t *)HYPERCALL_PAGE != 0x5a);
    *(volatile uint8_t *)HYPERCALL_PAGE = 0x5a;
    say_truth("page is writable", *(volatile uint8_t *)HYPERCALL_PAGE == 0x5a);
}

/* The firmware's segment of 32-bit code; a call from there is made in compatibility mode. */
#define CODE_32 0x10

static void try_call_in_compatibility_mode(void)
{
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) back;

    probe_fault = 0;
    __asm__ volatile("leaq 2f(%%rip), %%rax\n"
                     "movq %%rax, probe_resume(%%rip)\n"
                     "leaq 3f(%%rip), %%rax\n"
                     "movl %%eax, %0\n"
                     "movw %%cs, %1\n"
                     "pushq %2\n"
                     "leaq 1f(%%rip), %%rax\n"
                     "pushq %%rax\n"
                     "lretq\n"
                     ".code32\n"
                     "1: .byte 0x0f, 0x01, 0xd9\n"
                     "2: ljmp *(%%ebx)\n"
                     ".code64\n"
                     "3:"
                     : "=m"(back.offset), "=m"(back.selector)
                     : "i"(CODE_32), "b"(&back), "c"(CALL_SIGNAL_EVENT | CALL_FAST), "d"(0ull)
                     : "rax", "memory");
    say_fault("call in compatibility mode");
}

static void try_hypercalls(void)
{
    uint64_t input = (uint64_t)INPUT_PAGE;

    say_number("unknown call", hypercall(0x1234, 0));
    say_number("post with reps", hypercall(CALL_POST_MESSAGE | 1ull << 32, input));
    say_number("post with variable header", hypercall(CALL_POST_MESSAGE | 1ull << 17, input));
    say_number("post unaligned", post(input + 4, 99, 8));
    say_number("post across pages", post(input + PAGE - 64, 99, 8));
    say_number("post from no RAM", hypercall(CALL_POST_MESSAGE, 0xf000000000ull));
    say_number("post fast", hypercall(CALL_POST_MESSAGE | CALL_FAST, 99));
    say_number("post 241 bytes", post(input, 99, 241));
    say_number("post 240 bytes, unknown connection", post(input, 99, 240));
    say_number("signal unknown connection", hypercall(CALL_SIGNAL_EVENT | CALL_FAST, 99));
    *(uint64_t *)input = 99;
    say_number("signal from memory", hypercall(CALL_SIGNAL_EVENT, input));
    say_number("signal flag 1", hypercall(CALL_SIGNAL_EVENT | CALL_FAST, 1ull << 32 | 99));
}

static void try_time(void)
{
    struct tsc_page *page = (struct tsc_page *)TSC_PAGE;
    uint64_t before, after, time, tsc, high, hz = read_msr(MSR_TSC_FREQUENCY);
    uint32_t a, d;

    try_write("REFERENCE_TSC reserved bits", MSR_REFERENCE_TSC, page_msr(TSC_PAGE) | 2);
    write_msr(MSR_REFERENCE_TSC, page_msr(TSC_PAGE));
    say_truth("TSC page valid", page->sequence != 0);
    before = now();
    __asm__ volatile("lfence; rdtsc" : "=a"(a), "=d"(d));
    after = now();
    tsc = (uint64_t)d << 32 | a;
    __asm__("mulq %2" : "=d"(high), "+a"(tsc) : "r"(page->scale) : "cc");
    time = high + page->offset;
    say_truth("TSC page and MSR agree", before <= time && time <= after);
    /* Ticks of a second, in units of 100 ns. */
    __asm__("mulq %2" : "=d"(high), "+a"(hz) : "r"(page->scale) : "cc");
    say_truth("frequency fits scale", high == 9999999 || high == 10000000);
}

/* Waits up to 100 ms for a message in the slot. */
static int message_came(unsigned sint)
{
    uint64_t end = now() + 100 * MS;

    while (now() < end) {
        if (*(volatile uint32_t *)&slot(sint)->type) {
            return 1;
        }
    }
    return 0;
}

static int apic_requests(uint8_t vector)
{
    volatile uint32_t *irr = (volatile uint32_t *)(0xfee00200ull + vector / 32 * 16);

    return *irr >> vector % 32 & 1;
}

/* Timer @n in message mode to SINT 4: one message, a second behind a full slot, periodic ones. */
static void try_timer_messages(void)
{
    struct message *m = slot(4);
    uint64_t start;
    int count = 0;

    SIMP_PAGE[0] = 0x5a;
    write_msr(MSR_SIMP, page_msr(SIMP_PAGE));
    say_truth("SIMP covers RAM, zeroed", SIMP_PAGE[0] == 0);
    write_msr(MSR_SCONTROL, 1);
    write_msr(MSR_STIMER_CONFIG(1), 4 << 16 | 1 << 3);
    start = now();
    write_msr(MSR_STIMER_COUNT(1), start + 2 * MS);
    say_truth("no message while SINT is masked", !message_came(4));
    write_msr(MSR_SINT(4), 0x52);
    say_truth("waiting message on unmask", message_came(4));
    say_truth("message is right", m->type == TIMER_EXPIRED && m->size == 24 && m->payload[0] == 1 &&
                                      m->payload[1] == start + 2 * MS &&
                                      m->payload[2] >= m->payload[1]);
    say_truth("interrupt pending", apic_requests(0x52));
    say_truth("one-shot disabled itself", !(read_msr(MSR_STIMER_CONFIG(1)) & 1));

    write_msr(MSR_STIMER_COUNT(1), now() + 2 * MS);
    wait_until(now() + 20 * MS);
    say_truth("full slot is flagged", *(volatile uint8_t *)&m->flags & 1);
    consume(4);
    say_truth("second message after EOM", message_came(4));
    consume(4);

    write_msr(MSR_STIMER_COUNT(1), 0);
    write_msr(MSR_STIMER_CONFIG(1), 4 << 16 | 1 << 3 | 1 << 1);
    start = now();
    write_msr(MSR_STIMER_COUNT(1), 10 * MS);
    while (count < 5 && message_came(4)) {
        consume(4);
        count++;
    }
    say_truth("five periods", count == 5 && now() - start >= 50 * MS && now() - start < 4000 * MS);
    write_msr(MSR_STIMER_COUNT(1), 0);
    say_truth("stopped", !(read_msr(MSR_STIMER_CONFIG(1)) & 1));
    write_msr(MSR_SINT(4), 0x10000);
}

static void try_timer_direct(void)
{
    uint64_t due = now() + 2 * MS;

    write_msr(MSR_STIMER_CONFIG(2), 1 << 12 | 0x53 << 4 | 1 << 3);
    write_msr(MSR_STIMER_COUNT(2), due);
    while (!apic_requests(0x53) && now() < due + 200 * MS) {
    }
    say_truth("direct timer in time",
              apic_requests(0x53) && now() >= due && now() < due + 200 * MS);
}

static void try_disable(void)
{
    write_msr(MSR_SIMP, 0);
    say_truth("SIMP gives RAM back", SIMP_PAGE[0] == 0x5a);
    write_msr(MSR_SCONTROL, 0);
    write_msr(MSR_REFERENCE_TSC, 0);
    write_msr(MSR_GUEST_OS_ID, 0);
    say_truth("page enabled with OS id 0", read_msr(MSR_HYPERCALL) & 1);
    write_msr(MSR_GUEST_OS_ID, OS_ID);
    write_msr(MSR_HYPERCALL, page_msr(HYPERCALL_PAGE) | 2);
    try_write("write locked HYPERCALL", MSR_HYPERCALL, 0);
}

static void try_crash(void)
{
    static const char text[] = "it was a test\n\033[31mreally";
    uint64_t control = read_msr(MSR_CRASH_CTL);

    for (unsigned i = 0; i < sizeof(text); i++) {
        TEXT_PAGE[i] = text[i];
    }
    say_truth("crash text is taken", control >> 62 & 1);
    write_msr(MSR_CRASH_P(0), 0x11);
    write_msr(MSR_CRASH_P(3), (uint64_t)TEXT_PAGE);
    write_msr(MSR_CRASH_P(4), sizeof(text) - 1);
    write_msr(MSR_CRASH_CTL, 3ull << 62);
}

/* gnu-efi's start-up code calls this by the ELF convention. */
EFI_STATUS efi_main(EFI_HANDLE image, EFI_SYSTEM_TABLE *system)
{
    (void)image;
    catch_faults();
    put("\r\n");
    try_cpuid();
    try_msr_rules();
    try_hypercall_page();
    try_call_in_compatibility_mode();
    try_hypercalls();
    try_time();
    try_timer_messages();
    try_timer_direct();
    try_disable();
    try_crash();
    say("end", "yes");
    probe_resume = 0;
    system->RuntimeServices->ResetSystem(EfiResetShutdown, EFI_SUCCESS, 0, NULL);
    return EFI_ABORTED;
}
