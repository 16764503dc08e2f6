// SPDX-License-Identifier: BSD-2-Clause
// The kernel's services for net/ on Linux, and the program: starts the stack on a TAP device and runs
// its loop. On standard input it takes the commands `stats`, `remove NIC`, `add NIC`, `up NIC`,
// `down NIC`, `wish CORE`, `end STEP`, `report`, `configure NIC dhcp|ADDRESS/PREFIX|IPV6-ADDRESS ...`,
// `revalidate SECONDS` and those that net/ adds.
#include <arpa/inet.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/panic.h"
#include "kernel/power.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "net/net.h"
#include "tests/native/native.h"

#define STB_SPRINTF_IMPLEMENTATION
#define STB_SPRINTF_NOFLOAT
#define STB_SPRINTF_NOUNALIGNED
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"
#include <stb_sprintf.h>
#pragma GCC diagnostic pop

struct config config = {.log_level = LOG_INFO,
                        .net = {.dhcp = true, .mtu = 1500},
                        .mtu = 1500,
                        .iperf3_port = 5201,
                        .echo = true,
                        .discard = true};
struct native_options native_options = {.cores = 1};

// ---- Memory ----

static size_t live_objects, live_bytes, live_pages;
static size_t memory_bytes = 256 << 20; // of the machine that we pretend to be

struct object { // of one core's heap
    unsigned owner;
    uint8_t data[] __attribute__((aligned(16)));
};

void *heap_alloc(size_t size)
{
    if (live_bytes + size > memory_bytes)
        return NULL;
    struct object *object = malloc(sizeof(*object) + size);
    if (!object)
        abort();
    memset(object, 0xa5, sizeof(*object) + size); // the heap does not promise zeros
    object->owner = core_id();
    live_objects++;
    live_bytes += malloc_usable_size(object);
    return object->data;
}

void heap_free(void *data)
{
    if (!data)
        return;
    struct object *object = (struct object *)((char *)data - offsetof(struct object, data));
    if (object->owner != core_id())
        abort();
    live_objects--;
    live_bytes -= malloc_usable_size(object);
    free(object);
}

void memory_stats(struct memory_stats *out)
{
    size_t free_bytes = memory_bytes > live_bytes ? memory_bytes - live_bytes : 0;
    *out = (struct memory_stats){.pages_total = memory_bytes / PAGE_SIZE,
                                 .pages_free = free_bytes / PAGE_SIZE,
                                 .heap_bytes = live_bytes,
                                 .heap_objects = live_objects};
}

void *page_alloc(size_t count)
{
    void *pages = aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
    if (pages)
        memset(pages, 0, count * PAGE_SIZE);
    live_pages += count;
    return pages;
}

void page_free(void *pages, size_t count)
{
    live_pages -= count;
    free(pages);
}

// ---- Time, chance, words ----

uint64_t time_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * TIME_S + (uint64_t)now.tv_nsec / 100;
}

void random_bytes(void *out, size_t len)
{
    for (size_t done = 0; done < len; done += 256)
        if (getentropy((char *)out + done, len - done < 256 ? len - done : 256))
            abort();
}

uint32_t random_u32(void)
{
    uint32_t n;
    random_bytes(&n, sizeof(n));
    return n;
}

// Any keyed hash will do here: the kernel's SipHash has its own tests.
uint64_t siphash24(const uint8_t key[16], const void *data, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < 16 + len; i++)
        hash = (hash ^ (i < 16 ? key[i] : ((const uint8_t *)data)[i - 16])) * 0x100000001b3;
    return hash;
}

static void print(const char *before, const char *format, va_list args)
{
    char line[1024];
    stbsp_vsnprintf(line, sizeof(line), format, args); // the format that the kernel understands
    printf("%s%s\n", before, line);
    fflush(stdout);
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error: ", "warn: ", "info: ", "debug: "};
    if ((int)level > config.log_level)
        return;
    va_list args;
    va_start(args, format);
    print(names[level], format, args);
    va_end(args);
}

void log_announce(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print("dunlin: ", format, args);
    va_end(args);
}

_Noreturn void panic(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print("panic: ", format, args);
    va_end(args);
    abort();
}

// ---- Statistics ----

static struct stats_source *sources;

void stats_add(struct stats_source *source)
{
    source->next = sources;
    sources = source;
}

void stats_print(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

static void print_stats(void)
{
    printf("dunlin: stats: {\"memory\":{\"heap_objects\":%zu,\"heap_bytes\":%zu,\"pages\":%zu}",
           live_objects, live_bytes, live_pages);
    for (struct stats_source *s = sources; s; s = s->next) {
        printf(",\"%s\":", s->name);
        s->write();
    }
    printf("}\n");
    fflush(stdout);
}

// ---- The loop ----

static PERCORE struct poller *pollers;

void loop_add(struct poller *p)
{
    struct poller **end = &pollers;
    while (*end)
        end = &(*end)->next;
    p->next = NULL;
    *end = p;
}

void native_loop_remove(struct poller *p)
{
    struct poller **link = &pollers;
    while (*link != p)
        link = &(*link)->next;
    *link = p->next;
}

// ---- Addresses, as the host asks for them ----

static void set_address(struct nic_config *nic, const char *text)
{
    char address[32];
    unsigned bits;
    if (sscanf(text, "%31[^/]/%u", address, &bits) != 2 || bits < 1 || bits > 32) {
        fprintf(stderr, "native: an address is a.b.c.d/prefix\n");
        exit(2);
    }
    nic->dhcp = false;
    nic->address = inet_addr(address);
    nic->netmask = htonl(~0u << (32 - bits));
}

static void report_nics(void)
{
    struct net_nic_report nics[NATIVE_NICS];
    unsigned count = net_report(nics, NATIVE_NICS);
    char text[INET6_ADDRSTRLEN];
    for (unsigned i = 0; i < count; i++) {
        const struct net_nic_report *n = &nics[i];
        printf("report: %s %s %s mtu %u", n->name, n->up ? "up" : "down",
               n->dhcp ? "dhcp" : "static", n->mtu);
        printf(" address %s", inet_ntop(AF_INET, &n->address, text, sizeof(text)));
        printf(" gateway %s", inet_ntop(AF_INET, &n->gateway, text, sizeof(text)));
        for (unsigned k = 0; k < n->count6; k++)
            printf(" %s", inet_ntop(AF_INET6, n->address6[k].bytes, text, sizeof(text)));
        printf(" gateway6 %s dns", inet_ntop(AF_INET6, n->gateway6, text, sizeof(text)));
        for (unsigned k = 0; k < n->dns_count; k++)
            printf(" %s", inet_ntop(n->dns[k].ip6 ? AF_INET6 : AF_INET, n->dns[k].bytes, text,
                                    sizeof(text)));
        printf("\n");
    }
    fflush(stdout);
}

static void configure_nic(char *text)
{
    struct net_nic_settings settings = {0};
    const uint8_t instance[16] = {[15] = (uint8_t)atoi(strsep(&text, " "))};
    for (char *word; (word = strsep(&text, " "));) {
        struct nic_config v4 = {0};
        if (strchr(word, ':') && settings.count6 < NET_STATIC6) {
            inet_pton(AF_INET6, word, settings.address6[settings.count6++]);
        } else if (!strcmp(word, "dhcp")) {
            settings.dhcp = true;
        } else if (*word) {
            set_address(&v4, word);
            settings.address = v4.address;
            settings.netmask = v4.netmask;
        }
    }
    printf("configured: %d\n", net_configure(instance, &settings));
    fflush(stdout);
}

static struct console_command *commands;

void console_add(struct console_command *command)
{
    command->next = commands;
    commands = command;
}

// The machine's end: its steps are typed.

static const struct power_work *work;

void power_register(const struct power_work *w)
{
    work = w;
}

bool power_ending(void)
{
    return false;
}

static void run_end(const char *step)
{
    if (!strcmp(step, "begin"))
        work->begin();
    else if (!strcmp(step, "abandon"))
        work->abandon();
    log_announce("%u left", work->left());
}

static void run_command(char *line)
{
    unsigned number;
    size_t name = strcspn(line, " ");
    if (!strncmp(line, "stats", 5))
        print_stats();
    else if (sscanf(line, "wish %u", &number) == 1 && number < core_count())
        native_nic_wish(0, number);
    else if (sscanf(line, "remove %u", &number) == 1 && number < NATIVE_NICS)
        native_nic_remove(number);
    else if (sscanf(line, "add %u", &number) == 1 && number < NATIVE_NICS)
        native_nic_add(number);
    else if (sscanf(line, "up %u", &number) == 1 && number < NATIVE_NICS)
        native_nic_link(number, true);
    else if (sscanf(line, "down %u", &number) == 1 && number < NATIVE_NICS)
        native_nic_link(number, false);
    else if (!strncmp(line, "end ", 4))
        run_end(line + 4);
    else if (sscanf(line, "revalidate %u", &number) == 1)
        net_revalidate(number * TIME_S, false);
    else if (sscanf(line, "late %u", &number) == 1)
        net_revalidate(number * TIME_S, true);
    else if (!strcmp(line, "report"))
        report_nics();
    else if (!strncmp(line, "configure ", 10))
        configure_nic(line + 10);
    for (const struct console_command *c = commands; c; c = c->next)
        if (strlen(c->name) == name && !strncmp(line, c->name, name))
            c->run(line + name + strspn(line + name, " "));
}

static void read_commands(void)
{
    char lines[256], *rest = lines;
    ssize_t got = read(STDIN_FILENO, lines, sizeof(lines) - 1);
    if (got <= 0)
        exit(0); // whoever started us is gone
    lines[got] = 0;
    for (char *line; (line = strsep(&rest, "\n"));)
        run_command(line);
}

static void wait_for_work(bool busy)
{
    uint64_t now = time_now(), due = busy ? 0 : now + 10 * TIME_S;
    for (unsigned core = core_count(); core-- > 0;) {
        native_core(core);
        for (struct poller *p = pollers; p; p = p->next) {
            uint64_t at = p->deadline ? p->deadline(p->ctx) : UINT64_MAX;
            due = at < due ? at : due;
        }
    }
    uint64_t wait = due > now ? due - now : 0;
    struct timespec timeout = {(time_t)(wait / TIME_S), (long)(wait % TIME_S * 100)};
    struct pollfd fds[1 + NATIVE_NICS] = {{STDIN_FILENO, POLLIN, 0}};
    for (unsigned i = 0; i < NATIVE_NICS; i++) {
        short events = native_nic_can_receive(i) ? POLLIN : 0;
        fds[1 + i] = (struct pollfd){native_nic_fd(i), events, 0};
    }
    ppoll(fds, 1 + NATIVE_NICS, &timeout, NULL);
    if (fds[0].revents)
        read_commands();
}

_Noreturn void loop_run(void)
{
    for (unsigned turn = 0;; turn++) {
        bool worked = false;
        for (unsigned core = core_count(); core-- > 0;) {
            native_core(core);
            for (struct poller *p = pollers; p; p = p->next)
                worked |= p->poll(p->ctx);
        }
        if (!worked || turn % 64 == 0)
            wait_for_work(worked);
    }
}

// ---- The program ----

// "N,key=value,...": as a section [nic MAC] of dunlin.conf for NIC N.
static void add_section(char *text)
{
    struct config_nic *nic = &config.nics[config.nic_count++];
    unsigned number = (unsigned)atoi(strsep(&text, ","));
    *nic = (struct config_nic){.mac = {2, 0, 0, 0x5e, 0, (uint8_t)(2 + number)}};
    for (char *key; (key = strsep(&text, ","));) {
        char *value = strchr(key, '=');
        if (!value) {
            fprintf(stderr, "native: --nic wants NUMBER,key=value,...\n");
            exit(2);
        }
        *value++ = 0;
        if (!strcmp(key, "address")) {
            nic->named |= 1 << KEY_ADDRESS;
            set_address(&nic->own, value);
        } else if (!strcmp(key, "gateway")) {
            nic->named |= 1 << KEY_GATEWAY;
            nic->own.gateway = inet_addr(value);
        } else if (!strcmp(key, "address6")) {
            nic->named |= 1 << KEY_ADDRESS6;
            nic->own.ip6 = CONFIG_IP6_STATIC;
            inet_pton(AF_INET6, value, nic->own.address6);
        } else if (!strcmp(key, "gateway6")) {
            nic->named |= 1 << KEY_GATEWAY6;
            inet_pton(AF_INET6, value, nic->own.gateway6);
        } else if (!strcmp(key, "mtu")) {
            nic->named |= 1 << KEY_MTU;
            nic->own.mtu = (uint16_t)atoi(value);
        } else if (!strcmp(key, "metric")) {
            nic->named |= 1 << KEY_METRIC;
            nic->own.metric = (uint16_t)atoi(value);
        }
    }
}

static void set_address6(const char *text)
{
    char address[64];
    unsigned bits;
    if (sscanf(text, "%63[^/]/%u", address, &bits) != 2 || bits != 64 ||
        inet_pton(AF_INET6, address, config.net.address6) != 1) {
        fprintf(stderr, "native: --address6 wants address/64\n");
        exit(2);
    }
    config.net.ip6 = CONFIG_IP6_STATIC;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"tap", required_argument, 0, 't'},      {"address", required_argument, 0, 'a'},
        {"mtu", required_argument, 0, 'm'},      {"faults", required_argument, 0, 'f'},
        {"offload", no_argument, 0, 'o'},        {"debug", no_argument, 0, 'd'},
        {"no-large-send", no_argument, 0, 'S'},  {"no-large-receive", no_argument, 0, 'R'},
        {"seed", required_argument, 0, 's'},     {"memory", required_argument, 0, 'M'},
        {"losses", required_argument, 0, 'l'},   {"rx-losses", required_argument, 0, 'L'},
        {"nic", required_argument, 0, 'n'},      {"address6", required_argument, 0, '6'},
        {"gateway6", required_argument, 0, 'g'}, {"wire", required_argument, 0, 'w'},
        {"cores", required_argument, 0, 'c'},    {"reno", no_argument, 0, 'r'},
        {"refuse", required_argument, 0, 'x'},   {0}};
    unsigned taps = 0;
    bool large_send = true, large_receive = true;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 't' && taps < NATIVE_NICS)
            native_options.taps[taps++] = optarg;
        else if (c == 'M')
            memory_bytes = (size_t)atoi(optarg) << 20;
        else if (c == 'a')
            set_address(&config.net, optarg);
        else if (c == 'n')
            add_section(optarg);
        else if (c == '6')
            set_address6(optarg);
        else if (c == 'g' && inet_pton(AF_INET6, optarg, config.net.gateway6) == 1)
            continue;
        else if (c == 'm')
            config.mtu = config.net.mtu = (uint16_t)atoi(optarg);
        else if (c == 'f')
            native_options.faults = (unsigned)atoi(optarg);
        else if (c == 'c')
            native_options.cores = (unsigned)atoi(optarg);
        else if (c == 'l')
            native_options.losses = (unsigned)atoi(optarg);
        else if (c == 'L')
            native_options.rx_losses = (unsigned)atoi(optarg);
        else if (c == 'x')
            native_options.refuse = (unsigned)atoi(optarg);
        else if (c == 'r')
            config.reno = true;
        else if (c == 'w' && native_wire_parse(optarg))
            continue;
        else if (c == 'o')
            native_options.offload = true;
        else if (c == 'S')
            large_send = false;
        else if (c == 'R')
            large_receive = false;
        else if (c == 'd')
            config.log_level = LOG_DEBUG;
        else if (c == 's')
            srand((unsigned)atoi(optarg));
        else
            return 2;
    }
    if (!taps) {
        fprintf(stderr, "usage: dunlin-native --tap NAME [--tap NAME ...] [--address A/P] "
                        "[--nic NUMBER,key=value,...] [--memory MB] [--mtu N] "
                        "[--offload [--no-large-send] [--no-large-receive]] [--faults N] [--losses "
                        "N] [--rx-losses N] [--refuse N] [--wire delay=MS,...] [--reno] [--seed N] "
                        "[--debug]\n");
        return 2;
    }
    native_options.large_send = native_options.offload && large_send;
    native_options.large_receive = native_options.offload && large_receive;
    native_cores_start(native_options.cores);
    net_start();
    loop_run();
}
