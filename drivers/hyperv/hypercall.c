// SPDX-License-Identifier: BSD-2-Clause
// Hypercalls (TLFS 3): the page that makes them, and the two that VMBus needs. Any core, from its
// loop or in panic; not from interrupt handlers, since each core has one input page.
#include <string.h>

#include "drivers/hyperv/hyperv.h"
#include "drivers/hyperv/hyperv_regs.h"
#include "drivers/hyperv/private.h"
#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/paging.h"
#include "kernel/panic.h"

static void *page; // the hypervisor's code, the same for all cores
static PERCORE struct hv_post_message_input *post_input;

static uint16_t hypercall(uint64_t control, uint64_t input, uint64_t output)
{
    uint64_t result;
    register uint64_t r8 __asm__("r8") = output;

    __asm__ volatile("call *%[page]"
                     : "=a"(result), "+c"(control), "+d"(input), "+r"(r8)
                     : [page] "r"(page)
                     : "r9", "r10", "r11", "memory", "cc");
    return (uint16_t)result;
}

static void enable_page(void)
{
    page = page_alloc(1);
    if (!page)
        panic("hyperv: no memory for the hypercall page");
    hv_enable_page(HV_MSR_HYPERCALL, page);
    if (!(rdmsr(HV_MSR_HYPERCALL) & HV_ENABLE))
        panic("hyperv: the host did not enable the hypercall page");
    paging_protect((uint64_t)page, MAP_CODE);
}

void hypercall_init_core(void)
{
    if (!page)
        enable_page(); // core 0 comes first, alone
    post_input = page_alloc(1);
    if (!post_input)
        panic("hyperv: no memory for the hypercall input page");
}

uint16_t hv_post_message(uint32_t connection_id, uint32_t type, const void *payload, size_t len)
{
    ASSERT(len <= sizeof(post_input->payload));
    if (!post_input)
        return HV_STATUS_INVALID_CONNECTION_ID; // a panic before the first hypercall
    *post_input = (struct hv_post_message_input){
        .connection_id = connection_id,
        .message_type = type,
        .payload_size = (uint32_t)len,
    };
    memcpy(post_input->payload, payload, len);
    return hypercall(HV_CALL_POST_MESSAGE, virt_to_phys(post_input), 0);
}

uint16_t hv_signal_event(uint32_t connection_id)
{
    return hypercall(HV_CALL_SIGNAL_EVENT | HV_CALL_FAST, connection_id, 0);
}
