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

#define MSR_GUEST_OS_ID 0x40000000
#define MSR_HYPERCALL 0x40000001
#define MSR_VP_INDEX 0x40000002
#define MSR_VP_RUNTIME 0x40000010
#define MSR_TIME_REF_COUNT 0x40000020
#define MSR_REFERENCE_TSC 0x40000021
#define MSR_TSC_FREQUENCY 0x40000022
#define MSR_EOI 0x40000070
#define MSR_SCONTROL 0x40000080
#define MSR_SVERSION 0x40000081
#define MSR_SIMP 0x40000083
#define MSR_EOM 0x40000084
#define MSR_SINT(n) (0x40000090 + (n))
#define MSR_STIMER_CONFIG(n) (0x400000b0 + 2 * (n))
#define MSR_STIMER_COUNT(n) (0x400000b1 + 2 * (n))
#define MSR_CRASH_P(n) (0x40000100 + (n))
#define MSR_CRASH_CTL 0x40000105

#define OS_ID 0x8100000000000001ull
#define PAGE 4096
#define MS 10000 /* of reference time */
#define TIMER_EXPIRED 0x80000010u

#define CALL_POST_MESSAGE 0x5cull
#define CALL_SIGNAL_EVENT 0x5dull
#define CALL_FAST (1ull << 16)

struct idt_entry {
    uint16_t offset_low, selector, flags, offset_mid;
    uint32_t offset_high, zero;
};

struct __attribute__((packed)) idt_pointer {
    uint16_t limit;
    uint64_t base;
};

struct message {
    uint32_t type;
    uint8_t size, flags;
    uint16_t reserved;
    uint64_t sender;
    uint64_t payload[30];
};

struct tsc_page {
    volatile uint32_t sequence;
    uint32_t reserved;
    volatile uint64_t scale;
    volatile int64_t offset;
};

/* Pages whose place the guest chooses; the hypercall page needs to be executable, as all is here. */
static uint8_t pages[6][PAGE] __attribute__((aligned(PAGE)));
#define HYPERCALL_PAGE pages[0]
#define TSC_PAGE pages[1]
#define SIMP_PAGE pages[2]
#define INPUT_PAGE pages[3] /* and the next one, to cross into */
#define TEXT_PAGE pages[5]

static struct idt_entry idt[256] __attribute__((aligned(16)));
/* Where to go on after a fault that was expected, and the vector of the one that came. */
volatile uint64_t probe_resume __attribute__((visibility("hidden")));
volatile uint64_t probe_fault __attribute__((visibility("hidden")));

/* --- Output ------------------------------------------------------------- */

static void put_char(char c)
{
    uint8_t status;

    do {
        __asm__ volatile("inb %%dx, %0" : "=a"(status) : "d"((uint16_t)0x3fd));
    } while (!(status & 0x20));
    __asm__ volatile("outb %0, %%dx" : : "a"(c), "d"((uint16_t)0x3f8));
}

static void put(const char *text)
{
    while (*text) {
        put_char(*text++);
    }
}

static void put_hex(uint64_t value)
{
    int shift = 60;

    put("0x");
    while (shift > 0 && !(value >> shift)) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        put_char("0123456789abcdef"[value >> shift & 15]);
    }
}

static void say(const char *name, const char *result)
{
    put("probe: ");
    put(name);
    put(": ");
    put(result);
    put("\r\n");
}

static void say_number(const char *name, uint64_t value)
{
    put("probe: ");
    put(name);
    put(": ");
    put_hex(value);
    put("\r\n");
}

static void say_truth(const char *name, int truth)
{
    say(name, truth ? "yes" : "no");
}

/* --- Faults ------------------------------------------------------------- */

/* #UD pushes no error code, #GP does. */
__asm__(".globl probe_ud, probe_gp\n"
        "probe_ud:\n"
        "    movq $6, probe_fault(%rip)\n"
        "    jmp 1f\n"
        "probe_gp:\n"
        "    movq $13, probe_fault(%rip)\n"
        "    addq $8, %rsp\n"
        "1:  pushq %rax\n"
        "    xorl %eax, %eax\n"
        "    xchgq probe_resume(%rip), %rax\n"
        "    testq %rax, %rax\n"
        "2:  jz 2b\n" /* nobody expected it */
        "    movq %rax, 8(%rsp)\n"
        "    popq %rax\n"
        "    iretq\n");
void probe_ud(void) __attribute__((visibility("hidden")));
void probe_gp(void) __attribute__((visibility("hidden")));

static void catch_fault(unsigned vector, void (*handler)(void))
{
    uint64_t address = (uint64_t)handler;
    uint16_t cs;

    __asm__ volatile("movw %%cs, %0" : "=r"(cs));
    idt[vector] = (struct idt_entry){.offset_low = address & 0xffff,
                                     .selector = cs,
                                     .flags = 0x8e00,
                                     .offset_mid = address >> 16 & 0xffff,
                                     .offset_high = address >> 32};
}

static void catch_faults(void)
{
    struct idt_pointer pointer;

    __asm__ volatile("cli; sidt %0" : "=m"(pointer));
    for (unsigned i = 0; i < (pointer.limit + 1u) / 16 && i < 256; i++) {
        idt[i] = ((struct idt_entry *)pointer.base)[i];
    }
    catch_fault(6, probe_ud);
    catch_fault(13, probe_gp);
    pointer = (struct idt_pointer){sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static void say_fault(const char *name)
{
    say(name, probe_fault == 13 ? "#GP" : probe_fault == 6 ? "#UD" : "done");
}

/* --- The hypervisor's interfaces ---------------------------------------- */

/* Sets probe_fault. */
static void write_msr(uint32_t msr, uint64_t value)
{
    probe_fault = 0;
    __asm__ volatile("leaq 1f(%%rip), %%r8\n"
                     "movq %%r8, probe_resume(%%rip)\n"
                     "wrmsr\n"
                     "1:"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "r8", "memory");
}

static uint64_t read_msr(uint32_t msr)
{
    uint32_t low = 0, high = 0;

    probe_fault = 0;
    __asm__ volatile("leaq 1f(%%rip), %%r8\n"
                     "movq %%r8, probe_resume(%%rip)\n"
                     "rdmsr\n"
                     "1:"
                     : "+a"(low), "+d"(high)
                     : "c"(msr)
                     : "r8", "memory");
    return (uint64_t)high << 32 | low;
}

static void try_write(const char *name, uint32_t msr, uint64_t value)
{
    write_msr(msr, value);
    say_fault(name);
}

static void try_read(const char *name, uint32_t msr)
{
    read_msr(msr);
    say_fault(name);
}

static uint64_t hypercall(uint64_t control, uint64_t input)
{
    register uint64_t output __asm__("r8") = 0;
    uint64_t result;

    probe_fault = 0;
    __asm__ volatile("leaq 1f(%%rip), %%r9\n"
                     "movq %%r9, probe_resume(%%rip)\n"
                     "call *%[page]\n"
                     "1:"
                     : "=a"(result), "+c"(control), "+d"(input), "+r"(output)
                     : [page] "r"(HYPERCALL_PAGE)
                     : "r9", "r10", "r11", "memory", "cc");
    return result;
}

static uint64_t page_msr(const void *page)
{
    return (uint64_t)page | 1;
}

static uint64_t now(void)
{
    return read_msr(MSR_TIME_REF_COUNT);
}

static void wait_until(uint64_t time)
{
    while (now() < time) {
        __asm__ volatile("pause");
    }
}

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

/* PostMessage with @size bytes on connection @connection. */
static uint64_t post(uint64_t input, uint32_t connection, uint32_t size)
{
    uint32_t *words = (uint32_t *)input;

    words[0] = connection;
    words[1] = 0;
    words[2] = 1;
    words[3] = size;
    return hypercall(CALL_POST_MESSAGE, input);
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

static struct message *slot(unsigned sint)
{
    return (struct message *)SIMP_PAGE + sint;
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

static void consume(unsigned sint)
{
    *(volatile uint32_t *)&slot(sint)->type = 0;
    __sync_synchronize();
    if (*(volatile uint8_t *)&slot(sint)->flags & 1) {
        write_msr(MSR_EOM, 0);
    }
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
    say_truth("five periods", count == 5 && now() - start >= 50 * MS && now() - start < 400 * MS);
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
