// SPDX-License-Identifier: BSD-2-Clause
// Outgoing connections, which no service makes yet: what the tests need to see source ports.
#include "kernel/log.h"
#include "net/stack.h"
#include "tests/native/native.h"

static err_t connected(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    (void)error;
    return tcp_close(pcb);
}

void native_connect(const char *address, uint16_t port)
{
    ip_addr_t remote;
    struct tcp_pcb *pcb = tcp_new();
    if (!pcb || !ipaddr_aton(address, &remote) ||
        stack_tcp_connect(pcb, &remote, port, connected) != ERR_OK)
        log_error("native: cannot connect to %s", address);
}
