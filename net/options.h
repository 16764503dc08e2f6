// SPDX-License-Identifier: BSD-2-Clause
// The options of a TCP segment that has arrived, for stack.c and sender.c: they may lie in two places,
// and any bytes may be in them.
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct tcp_options { // the first `here` bytes of `len` are at `first`, the others at `rest`
    uint8_t *first, *rest;
    unsigned here, len;
};

struct tcp_option {
    uint8_t kind;
    unsigned at, size; // of the whole option, which lies in the options
};

// One byte of them, to be read or changed. at < len.
uint8_t *tcp_options_byte(const struct tcp_options *options, unsigned at);

// The option behind this one, the first if *option is all zero; paddings are passed over. False: there
// are no more, or what follows makes no sense (lwIP stops there, too).
bool tcp_options_next(const struct tcp_options *options, struct tcp_option *option);
