// SPDX-License-Identifier: BSD-2-Clause
// Hyper-V's numbers and layouts: CPUID leaves, MSRs, hypercalls, SynIC pages. Source: TLFS 6.0b.
#pragma once

#include <stddef.h>
#include <stdint.h>

// CPUID
#define HV_CPUID_VENDOR 0x40000000u // EAX highest leaf, EBX ECX EDX "Microsoft Hv"
#define HV_CPUID_INTERFACE 0x40000001u
#define HV_CPUID_FEATURES 0x40000003u
#define HV_CPUID_HINTS 0x40000004u
#define HV_CPUID_LEAST_LEAF 0x40000005u
#define HV_INTERFACE_HV1 0x31237648u // "Hv#1"
// HV_CPUID_FEATURES EAX: what this partition may use
#define HV_MAY_TIME_REF_COUNT (1u << 1)
#define HV_MAY_SYNIC (1u << 2)
#define HV_MAY_SYNTHETIC_TIMERS (1u << 3)
#define HV_MAY_HYPERCALL (1u << 5)
#define HV_MAY_VP_INDEX (1u << 6)
#define HV_MAY_RESET (1u << 7)
#define HV_MAY_REFERENCE_TSC (1u << 9)
// HV_CPUID_FEATURES EDX
#define HV_FEATURE_CRASH_MSRS (1u << 10)
#define HV_FEATURE_DIRECT_TIMERS (1u << 19)
// HV_CPUID_HINTS EAX
#define HV_HINT_NO_AUTO_EOI (1u << 9)

// MSRs
#define HV_MSR_GUEST_OS_ID 0x40000000u
#define HV_MSR_HYPERCALL 0x40000001u
#define HV_MSR_VP_INDEX 0x40000002u
#define HV_MSR_RESET 0x40000003u
#define HV_MSR_TIME_REF_COUNT 0x40000020u
#define HV_MSR_REFERENCE_TSC 0x40000021u
#define HV_MSR_SCONTROL 0x40000080u
#define HV_MSR_SIEFP 0x40000082u
#define HV_MSR_SIMP 0x40000083u
#define HV_MSR_EOM 0x40000084u
#define HV_MSR_SINT0 0x40000090u
#define HV_MSR_STIMER0_CONFIG 0x400000b0u
#define HV_MSR_STIMER0_COUNT 0x400000b1u
#define HV_MSR_CRASH_P0 0x40000100u
#define HV_MSR_CRASH_CTL 0x40000105u

#define HV_ENABLE 1ull        // bit 0 of the MSRs that hold a page's address
#define HV_PAGE_KEEP 0xffeull // their bits 11:1, to be written back as read
#define HV_SINT_MASKED (1ull << 16)
#define HV_SINT_AUTO_EOI (1ull << 17)
#define HV_TIMER_AUTO_ENABLE (1ull << 3) // writing a count starts it
#define HV_TIMER_VECTOR_SHIFT 4
#define HV_TIMER_DIRECT (1ull << 12)
#define HV_TIMER_SINT_SHIFT 16
#define HV_CRASH_NOTIFY (1ull << 63)
#define HV_CRASH_MESSAGE (1ull << 62) // P3, P4: address and length of a text

// Guest OS id: open source (bit 63), an OS type of our own in 62:56, version in 47:16. Hosts use it
// only to recognise guests with known faults.
#define HV_GUEST_OS_ID (1ull << 63 | 0x44ull << 56 | 0x00010000ull << 16)

// Hypercalls
#define HV_CALL_POST_MESSAGE 0x5cull
#define HV_CALL_SIGNAL_EVENT 0x5dull
#define HV_CALL_FAST (1ull << 16)

// Interrupt sources
#define HV_SINT_VMBUS 2u // by VMBus' rule
#define HV_SINT_TIMER 4u // ours, when timers cannot interrupt directly

struct hv_post_message_input {
    uint32_t connection_id, reserved, message_type, payload_size;
    uint8_t payload[240];
};
_Static_assert(sizeof(struct hv_post_message_input) == 256, "TLFS 11.8");

struct hv_message_slot { // one of 16 in the SIMP page; the host fills it when type is 0
    uint32_t type;
    uint8_t payload_size;
    uint8_t flags; // bit 0: another message waits
    uint16_t reserved;
    uint64_t sender;
    uint8_t payload[240];
};
_Static_assert(sizeof(struct hv_message_slot) == 256, "TLFS 11.9");
_Static_assert(offsetof(struct hv_message_slot, payload) == 16, "TLFS 11.9");
#define HV_MESSAGE_PENDING 1u

struct hv_event_flags { // one of 16 in the SIEFP page
    uint64_t words[32];
};
_Static_assert(sizeof(struct hv_event_flags) == 256, "TLFS 11.10");

struct hv_reference_tsc_page {
    uint32_t sequence; // 0: do not use the page
    uint32_t reserved;
    uint64_t scale;
    int64_t offset;
};
_Static_assert(offsetof(struct hv_reference_tsc_page, offset) == 16, "TLFS 12.7");
