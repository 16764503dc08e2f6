// SPDX-License-Identifier: BSD-2-Clause
// The console's `connect` command: opens a TCP connection from every core and closes it, to see whether
// each finds the way to a server and back.
#include <string.h>

#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/message.h"
#include "kernel/time.h"
#include "lwip/tcp.h"
#include "net/stack.h"

struct request {
    ip_addr_t address;
    uint16_t port;
};

static PERCORE uint64_t began;
static PERCORE unsigned open; // tries of this core that are not over

static void tell(const char *what, unsigned local_port)
{
    open--;
    log_announce("connect: core %u: %s (port %u, %u us)", core_id(), what, local_port,
                 (unsigned)((time_now() - began) / TIME_US));
}

static err_t connected(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    (void)error; // never another than ERR_OK
    tell("connected", pcb->local_port);
    tcp_err(pcb, NULL);
    if (tcp_close(pcb) == ERR_OK)
        return ERR_OK;
    tcp_abort(pcb);
    return ERR_ABRT;
}

static void failed(void *arg, err_t error)
{
    (void)arg;
    tell(error == ERR_RST ? "refused" : "no answer", 0);
}

static void try(const void *data)
{
    const struct request *request = data;
    if (open) {
        log_announce("connect: core %u: still trying the last one", core_id());
        return;
    }
    open = 1;
    began = time_now();
    struct tcp_pcb *pcb = tcp_new_ip_type(IP_GET_TYPE(&request->address));
    if (!pcb) {
        tell("no memory", 0);
        return;
    }
    tcp_err(pcb, failed);
    err_t error = stack_tcp_connect(pcb, &request->address, request->port, connected);
    if (error == ERR_OK)
        return;
    tcp_err(pcb, NULL);
    tcp_abort(pcb);
    tell(error == ERR_RTE ? "no interface leads there" : "no port or memory", 0);
}

static bool parse_port(const char *text, uint16_t *port)
{
    uint32_t value = 0;
    for (; *text >= '0' && *text <= '9' && value <= UINT16_MAX; text++)
        value = value * 10 + (uint32_t)(*text - '0');
    *port = (uint16_t)value;
    return *text == 0 && value >= 1 && value <= UINT16_MAX;
}

static void run_connect(const char *args)
{
    struct request request;
    char address[IPADDR_STRLEN_MAX];
    size_t length = strcspn(args, " ");
    const char *port = args + length + strspn(args + length, " ");
    if (length < sizeof(address)) {
        memcpy(address, args, length);
        address[length] = 0;
    }
    if (length >= sizeof(address) || !ipaddr_aton(address, &request.address) ||
        !parse_port(port, &request.port)) {
        log_announce("connect: say connect ADDRESS PORT");
        return;
    }
    for (unsigned core = 0; core < core_count(); core++)
        if (!message_post(core, try, &request, sizeof(request)))
            log_announce("connect: core %u: busy", core);
}

static struct console_command connect_command = {
    "connect", "ADDRESS PORT: a TCP connection from every core, as a test", run_connect, NULL};

void connect_start(void)
{
    console_add(&connect_command);
}
