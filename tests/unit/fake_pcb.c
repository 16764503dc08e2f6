// SPDX-License-Identifier: BSD-2-Clause
// What of lwIP is needed to hang things on a connection: its extra arguments. Which of them one gets, a
// test decides (tcp_ext_arg_alloc_id()).
#include "lwip/def.h"
#include "lwip/priv/tcp_priv.h"

u16_t lwip_htons(u16_t n)
{
    return __builtin_bswap16(n);
}

void *tcp_ext_arg_get(const struct tcp_pcb *pcb, u8_t id)
{
    return pcb->ext_args[id].data;
}

void tcp_ext_arg_set(struct tcp_pcb *pcb, u8_t id, void *arg)
{
    pcb->ext_args[id].data = arg;
}

void tcp_ext_arg_set_callbacks(struct tcp_pcb *pcb, u8_t id,
                               const struct tcp_ext_arg_callbacks *const callbacks)
{
    pcb->ext_args[id].callbacks = callbacks;
}
