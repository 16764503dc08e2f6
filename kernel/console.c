// SPDX-License-Identifier: BSD-2-Clause
// Commands typed on COM1; see console.h. The interrupt only wakes the loop; its poller reads the
// bytes, gathers a line and runs it.
#include "kernel/console.h"

#include <stdarg.h>
#include <string.h>

#include <stb_sprintf.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/message.h"
#include "kernel/panic.h"
#include "kernel/power.h"
#include "kernel/time.h"
#include "kernel/vectors.h"

#define ISA_IRQ_COM1 4
#define LINE_BYTES 128
#define INPUT_BATCH 64
#define STATS_BYTES 32768

static struct console_command *commands;
static struct stats_source *sources;
static char input[LINE_BYTES];
static size_t input_length;
static char stats_text[STATS_BYTES];
static int stats_length;

void console_add(struct console_command *command)
{
    struct console_command **end = &commands;

    while (*end)
        end = &(*end)->next;
    command->next = NULL;
    *end = command;
}

void stats_add(struct stats_source *source)
{
    struct stats_source **end = &sources;

    while (*end)
        end = &(*end)->next;
    source->next = NULL;
    *end = source;
}

void stats_print(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    stats_length +=
        stbsp_vsnprintf(stats_text + stats_length, STATS_BYTES - stats_length, format, args);
    va_end(args);
    if (stats_length > STATS_BYTES - 2)
        stats_length = STATS_BYTES - 2;
}

// Commands ----------------------------------------------------------------------------------------

static void run_help(const char *args)
{
    (void)args;
    for (const struct console_command *c = commands; c; c = c->next)
        log_announce("%-10s %s", c->name, c->help);
}

static void run_stats(const char *args)
{
    uint64_t now = time_now();

    (void)args;
    stats_length = 0;
    stats_print("dunlin: stats: {\"uptime_ms\":%llu", (unsigned long long)(now / TIME_MS));
    for (const struct stats_source *s = sources; s; s = s->next) {
        stats_print(",\"%s\":", s->name);
        s->write();
    }
    stats_print("}");
    stats_text[stats_length++] = '\n';
    log_text(stats_text, (size_t)stats_length);
}

static void run_poweroff(const char *args)
{
    power_end(POWER_OFF, strcmp(args, "now") == 0, 0);
}

static void run_restart(const char *args)
{
    power_end(POWER_RESTART, strcmp(args, "now") == 0, 0);
}

// Deeper and deeper until the stack's guard page stops it.
static __attribute__((noinline)) unsigned overflow_stack(unsigned depth)
{
    volatile char frame[256];

    frame[0] = (char)depth;
    return depth < UINT32_MAX ? overflow_stack(depth + 1) + (unsigned)frame[0] : 0;
}

// What the panic path does is worth trying before it is needed, and so is what must end in it.
static void crash(const char *args)
{
    if (strcmp(args, "fault") == 0)
        __asm__ volatile("movl $0, 8"); // page 0 is not mapped
    if (strcmp(args, "write") == 0)
        *(volatile char *)(uintptr_t)crash = 0; // code is read-only
    if (strcmp(args, "execute") == 0)
        ((void (*)(void))(uintptr_t)input)(); // data is no code
    if (strcmp(args, "overflow") == 0)
        overflow_stack(0);
    panic("asked for by the console%s%s", *args ? ": " : "", args);
}

static void crash_message(const void *data)
{
    crash(data);
}

// "3 fault": on core 3. Without a number on this one.
static void run_panic(const char *args)
{
    unsigned core = 0;
    const char *end = args;

    for (; *end >= '0' && *end <= '9' && core < MAX_CORES; end++)
        core = core * 10 + (unsigned)(*end - '0');
    if (end == args)
        crash(args);
    end += *end == ' ';
    char what[MESSAGE_BYTES] = "";
    size_t length = strlen(end);
    memcpy(what, end, length < sizeof(what) ? length : sizeof(what) - 1);
    if (core >= core_count() || !message_post(core, crash_message, what, sizeof(what)))
        log_announce("there is no core %u", core);
}

static void write_memory(void)
{
    struct memory_stats m;
    size_t bytes, objects, pages;

    memory_stats(&m);
    memory_heaps(&bytes, &objects, &pages);
    stats_print("{\"pages\":%llu,\"free_pages\":%llu,\"heap_pages\":%llu,\"heap_bytes\":%llu,"
                "\"heap_objects\":%llu}",
                (unsigned long long)m.pages_total, (unsigned long long)m.pages_free,
                (unsigned long long)pages, (unsigned long long)bytes, (unsigned long long)objects);
}

static void write_cores(void)
{
    for (unsigned i = 0; i < core_count(); i++) {
        const struct core *c = &cores[i];
        stats_print("%s\"%u\":{\"vp_index\":%u,\"turns\":%llu,\"halts\":%llu,\"busy_us\":%llu,"
                    "\"messages\":%llu,\"messages_refused\":%llu,\"wakes\":%llu}",
                    i ? "," : "{", i, c->vp_index, (unsigned long long)c->turns,
                    (unsigned long long)c->halts, (unsigned long long)(core_busy(i) / TIME_US),
                    (unsigned long long)c->messages, (unsigned long long)c->messages_refused,
                    (unsigned long long)c->wakes);
    }
    stats_print("}");
}

// Input -------------------------------------------------------------------------------------------

static void run_line(char *line)
{
    size_t name = strcspn(line, " ");
    const char *args = line + name + strspn(line + name, " ");

    if (name == 0)
        return;
    line[name] = 0;
    for (const struct console_command *c = commands; c; c = c->next) {
        if (strcmp(c->name, line) == 0) {
            c->run(args);
            return;
        }
    }
    log_announce("unknown command '%s'; try help", line);
}

static void take_byte(char c)
{
    if (c == '\r' || c == '\n') {
        if (input_length > 0)
            log_text("\n", 1);
        input[input_length] = 0;
        input_length = 0;
        run_line(input);
    } else if ((c == '\b' || c == 0x7f) && input_length > 0) {
        input_length--;
        log_text("\b \b", 3);
    } else if (c >= ' ' && c <= '~' && input_length + 1 < LINE_BYTES) {
        input[input_length++] = c;
        log_text(&c, 1);
    }
}

// Set by the interrupt, on this core; at first for what was typed before it was on.
static volatile bool input_pending = true;

static bool poll_input(void *ctx)
{
    (void)ctx;
    if (!input_pending) // reading the port is an exit to the host
        return false;
    input_pending = false;
    for (unsigned i = 0; i < INPUT_BATCH; i++) {
        int c = serial_read();
        if (c < 0)
            return true;
        take_byte((char)c);
    }
    input_pending = true; // the port stays silent while it holds bytes
    return true;
}

// Only looks: commands run with interrupts on.
static bool arm_input(void *ctx)
{
    (void)ctx;
    return input_pending;
}

static void on_serial(void)
{
    input_pending = true;
}

void console_init(void)
{
    static struct console_command help = {"help", "this list", run_help, NULL};
    static struct console_command stats = {"stats", "counters, as one line of JSON", run_stats,
                                           NULL};
    static struct console_command poweroff = {
        "poweroff", "[now]: finish what runs, leave the host, power off", run_poweroff, NULL};
    static struct console_command restart = {
        "restart", "[now]: finish what runs, leave the host, restart", run_restart, NULL};
    static struct console_command panic_command = {
        "panic", "[core] [fault|overflow|write|execute]: crash on purpose, to see the report",
        run_panic, NULL};
    static struct stats_source memory = {"memory", write_memory, NULL};
    static struct stats_source core = {"cores", write_cores, NULL};
    static struct poller poller = {.name = "console", .poll = poll_input, .arm = arm_input};

    console_add(&help);
    console_add(&stats);
    console_add(&poweroff);
    console_add(&restart);
    console_add(&panic_command);
    stats_add(&memory);
    stats_add(&core);
    irq_set(VECTOR_SERIAL, on_serial, true);
    if (!ioapic_route(ISA_IRQ_COM1, VECTOR_SERIAL))
        return;
    loop_add(&poller);
    serial_enable_interrupt();
}
