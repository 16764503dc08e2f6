// SPDX-License-Identifier: BSD-2-Clause
#include "netvsc_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "drivers/vmbus/vmbus.h"
#include "fake_kernel.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/fiber.h"

struct client client;
uint32_t want_version;
unsigned fault_number;
enum fault fault_kind;
unsigned machine_cores = 1;

static void on_attach(struct nic *nic)
{
    if (core_id() != 0) {
        CHECK(nic == client.nic);
        client.attached_cores |= 1u << core_id();
        return;
    }
    CHECK(!client.nic && client.attached == client.detached);
    CHECK(!nic_info(nic)->link_up);
    client.attached_cores = 1;
    client.detached_cores = 0;
    client.nic = nic;
    client.attached++;
    if (client.table)
        fiber_spawn("table", client.table, NULL);
    if (client.send)
        CHECK(client_send(2000, 0, &client) == NIC_TX_HELD);
}

static void on_detach(struct nic *nic)
{
    CHECK(nic == client.nic);
    client.detached_cores |= 1u << core_id();
    if (core_id() != 0)
        return;
    CHECK(client.detached_cores == client.attached_cores);
    for (unsigned i = 0; i < client.frames && !client.release; i++)
        nic_rx_release(nic, client.tokens[i]);
    client.nic = NULL;
    client.detached++;
}

static void on_link(struct nic *nic)
{
    CHECK(nic == client.nic);
    if (core_id() == 0)
        client.linked_cores = 0;
    client.linked_cores |= 1u << core_id();
    client.links += core_id() == 0;
    CHECK(!nic_info(nic)->link_up || host.filter != 0); // what the client asks for can be answered
}

static void on_receive(struct nic *nic, const struct nic_frame *frame)
{
    client.last = *frame;
    client.data = nic_rx_data(frame->pieces[0]);
    CHECK(frame->len <= sizeof(client.bytes));
    CHECK(frame->count == 1 && nic_rx_len(frame->pieces[0]) == frame->len);
    memcpy(client.bytes, nic_rx_data(frame->pieces[0]), frame->len);
    if (client.copy && nic_rx_scarce(nic)) {
        nic_rx_release(nic, frame->token);
        return;
    }
    if (client.release)
        nic_rx_release(nic, frame->token);
    else
        client.tokens[client.frames] = frame->token;
    client.frames++;
    client.on_core[core_id()]++;
}

static void on_batch_end(struct nic *nic)
{
    CHECK(nic == client.nic);
    client.batches++;
}

static void on_tx_done(struct nic *nic, void *ctx)
{
    CHECK(nic == client.nic);
    client.closes_at_done = host.closes;
    client.done_core = core_id();
    client.done[client.done_count++] = ctx;
}

static void on_tx_ready(struct nic *nic)
{
    CHECK(nic == client.nic);
    client.ready++;
}

static void on_balance(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE])
{
    CHECK(nic == client.nic && core_id() == 0);
    client.balanced++;
    memcpy(client.wish, core_of, NIC_TABLE_SIZE);
}

static const struct nic_client the_client = {
    .attach = on_attach,
    .detach = on_detach,
    .link = on_link,
    .receive = on_receive,
    .batch_end = on_batch_end,
    .tx_done = on_tx_done,
    .tx_ready = on_tx_ready,
    .balance = on_balance,
};

static size_t pages_before;

static bool is_idle(void)
{
    return fake_counter("idle") == 2; // the other one is the device that no driver wants
}

void run_until_idle(void)
{
    CHECK(fake_run_until(is_idle, LONG));
}

void want_cores(unsigned count, unsigned queues)
{
    machine_cores = count;
    host.queues = queues;
    client.release = true;
    config.send_buffer = 256 << 10;
}

void start_machine(void)
{
    fake_cores(machine_cores);
    vmbus_start_core();
    netvsc_start(&the_client);
    vmbus_start();
    for (unsigned i = 1; i < machine_cores; i++) {
        fake_core(i);
        vmbus_start_core();
    }
    fake_core(0);
    pages_before = fake_pages_live(); // the three pages of the connection are for ever
}

void start(void)
{
    start_machine();
    fake_run(LONG);
}

void start_in_vain(void)
{
    start_machine();
    run_until_idle();
}

void start_up(void)
{
    start();
    CHECK(client.attached == 1);
    CHECK(host.filter == RNDIS_FILTER_UP);
    CHECK(host.bad == 0);
}

void check_all_freed(void)
{
    CHECK(fake_pages_live() - fake_counter("leaked_pages") == pages_before);
}

void in_child(void (*test)(void))
{
    int status;

    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        test();
        _exit(0);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

unsigned number_in_child(uint32_t (*run)(void))
{
    int pipes[2], status;
    uint32_t n = 0;

    assert_int_equal(pipe(pipes), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        n = run();
        _exit(write(pipes[1], &n, sizeof(n)) < 0);
    }
    assert_int_equal(read(pipes[0], &n, sizeof(n)), sizeof(n));
    waitpid(child, &status, 0);
    close(pipes[0]);
    close(pipes[1]);
    return n;
}

static unsigned good_channels;

static uint32_t count_questions(void)
{
    if (good_channels > 1)
        want_cores(good_channels, good_channels);
    start();
    return host.questions;
}

int questions_of_a_good_run(unsigned channels)
{
    good_channels = channels;
    unsigned n = number_in_child(count_questions);
    assert_true(n >= 15);
    return (int)n;
}

uint8_t frame_bytes[65536];

enum nic_tx_result client_send(uint32_t len, uint8_t csum, void *ctx)
{
    struct nic_piece pieces[2] = {{frame_bytes, 54}, {frame_bytes + 4000, len - 54}};
    struct nic_tx tx = {
        .pieces = pieces,
        .count = 2,
        .len = len,
        .csum = csum,
        .transport_offset = 34,
        .done_ctx = ctx,
    };

    return nic_send(client.nic, &tx);
}

uint32_t word(const void *p, unsigned offset)
{
    uint32_t v;
    memcpy(&v, (const uint8_t *)p + offset, 4);
    return v;
}

void fill_frame(void)
{
    for (unsigned i = 0; i < sizeof(frame_bytes); i++)
        frame_bytes[i] = (uint8_t)(i * 7 + 1);
}
