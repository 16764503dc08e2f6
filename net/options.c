// SPDX-License-Identifier: BSD-2-Clause
// See options.h.
#include "net/options.h"

#include "lwip/priv/tcp_priv.h"

uint8_t *tcp_options_byte(const struct tcp_options *options, unsigned at)
{
    return at < options->here ? options->first + at : options->rest + (at - options->here);
}

bool tcp_options_next(const struct tcp_options *options, struct tcp_option *option)
{
    unsigned at = option->at + option->size;
    while (at < options->len && *tcp_options_byte(options, at) == LWIP_TCP_OPT_NOP)
        at++;
    if (at + 1 >= options->len || *tcp_options_byte(options, at) == LWIP_TCP_OPT_EOL)
        return false;
    *option = (struct tcp_option){.kind = *tcp_options_byte(options, at),
                                  .at = at,
                                  .size = *tcp_options_byte(options, at + 1)};
    return option->size >= 2 && at + option->size <= options->len;
}
