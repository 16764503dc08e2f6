/*
 * Wire format of the integration components: the pipe and message headers
 * that all share, version negotiation, and the bodies of each.
 *
 * All fields are little endian; so is every host this is built for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HV_IC_PROTO_H
#define HW_HYPERV_HV_IC_PROTO_H

#define HV_IC_VERSION(major, minor) ((uint32_t)(major) << 16 | (minor))

/* In front of every message on the ring. */
typedef struct HvIcPipeHeader {
    uint32_t type;
    uint32_t bytes;             /* of what follows, without padding */
} HvIcPipeHeader;
QEMU_BUILD_BUG_ON(sizeof(HvIcPipeHeader) != 8);

#define HV_IC_PIPE_DATA 1

typedef struct HvIcWireVersion {
    uint16_t major;
    uint16_t minor;
} HvIcWireVersion;

typedef struct QEMU_PACKED HvIcHeader {
    HvIcWireVersion framework;
    uint16_t type;
    HvIcWireVersion version;
    uint16_t body_bytes;
    uint32_t status;
    uint8_t transaction;
    uint8_t flags;
    uint16_t reserved;
} HvIcHeader;
QEMU_BUILD_BUG_ON(sizeof(HvIcHeader) != 20);

enum {
    HV_IC_NEGOTIATE = 0,
    HV_IC_HEARTBEAT = 1,
    HV_IC_KVP = 2,
    HV_IC_SHUTDOWN = 3,
    HV_IC_TIME_SYNC = 4,
};

enum {
    HV_IC_FLAG_TRANSACTION = 1,
    HV_IC_FLAG_REQUEST = 2,
    HV_IC_FLAG_RESPONSE = 4,
};

/* The largest message with all headers, and so the largest body. */
#define HV_IC_MESSAGE_MAX 13312
#define HV_IC_HEADERS (sizeof(HvIcPipeHeader) + sizeof(HvIcHeader))

/* Followed by the framework versions and then the message versions. */
typedef struct HvIcNegotiate {
    uint16_t frameworks;
    uint16_t versions;
    uint32_t reserved;
} HvIcNegotiate;
QEMU_BUILD_BUG_ON(sizeof(HvIcNegotiate) != 8);

/* Shutdown */

enum {
    HV_IC_SHUTDOWN_FORCE = 1,
    HV_IC_SHUTDOWN_RESTART = 2,
};

#define HV_IC_REASON_PLANNED 0x80000000u
#define HV_IC_SHUTDOWN_TEXT 1024        /* UTF-16 units with the end */

typedef struct HvIcShutdown {
    uint32_t reason;
    uint32_t timeout_s;
    uint32_t flags;
    uint16_t text[HV_IC_SHUTDOWN_TEXT];
} HvIcShutdown;
QEMU_BUILD_BUG_ON(sizeof(HvIcShutdown) != 2060);

/* Heartbeat */

enum {
    HV_IC_APP_UNKNOWN,
    HV_IC_APP_HEALTHY,
    HV_IC_APP_CRITICAL,
    HV_IC_APP_STOPPED,
    HV_IC_APP_STATES,
};

typedef struct HvIcHeartbeat {
    uint64_t sequence;
    uint32_t application;
    uint32_t reserved[7];
} HvIcHeartbeat;
QEMU_BUILD_BUG_ON(sizeof(HvIcHeartbeat) != 40);

/* Time synchronization; times in 100 ns, the host's since 1601 */

#define HV_IC_UNIX_EPOCH 116444736000000000ull

enum {
    HV_IC_TIME_SYNC_NOW = 1,
    HV_IC_TIME_SAMPLE = 2,
};

/* before version 4.0 */
typedef struct QEMU_PACKED HvIcTime {
    uint64_t host_time;
    uint64_t guest_time;
    uint64_t round_trip;
    uint8_t flags;
} HvIcTime;
QEMU_BUILD_BUG_ON(sizeof(HvIcTime) != 25);

/* from 4.0 on */
typedef struct HvIcTimeRef {
    uint64_t host_time;
    uint64_t reference_time;
    uint8_t flags;
    uint8_t leap;
    uint8_t stratum;
    uint8_t reserved[5];
} HvIcTimeRef;
QEMU_BUILD_BUG_ON(sizeof(HvIcTimeRef) != 24);

/* Key-value pairs; sizes in bytes, strings UTF-16 and their end counted */

enum {
    HV_IC_KVP_GET,
    HV_IC_KVP_SET,
    HV_IC_KVP_DELETE,
    HV_IC_KVP_ENUMERATE,
    HV_IC_KVP_GET_IP,
    HV_IC_KVP_SET_IP,
};

enum {
    HV_IC_KVP_EXTERNAL,         /* the administrator's */
    HV_IC_KVP_GUEST,            /* the guest's */
    HV_IC_KVP_AUTO,             /* what the guest's system is */
    HV_IC_KVP_AUTO_EXTERNAL,    /* what the host is */
    HV_IC_KVP_POOLS,
};

enum {
    HV_IC_KVP_STRING = 1,
    HV_IC_KVP_EXPAND_STRING = 2,
    HV_IC_KVP_U32 = 4,
    HV_IC_KVP_U64 = 11,
};

#define HV_IC_KVP_KEY_MAX 512
#define HV_IC_KVP_VALUE_MAX 2048

typedef struct HvIcKvpValue {
    uint32_t type;
    uint32_t key_bytes;
    uint32_t value_bytes;
    uint8_t key[HV_IC_KVP_KEY_MAX];
    uint8_t value[HV_IC_KVP_VALUE_MAX];
} HvIcKvpValue;
QEMU_BUILD_BUG_ON(sizeof(HvIcKvpValue) != 2572);

typedef struct HvIcKvpDelete {
    uint32_t key_bytes;
    uint8_t key[HV_IC_KVP_KEY_MAX];
} HvIcKvpDelete;

typedef struct HvIcKvpEnumerate {
    uint32_t index;
    HvIcKvpValue value;
} HvIcKvpEnumerate;

typedef struct HvIcKvp {
    uint8_t operation;
    uint8_t pool;
    uint16_t padding;
    union {
        HvIcKvpValue value;     /* GET, SET */
        HvIcKvpDelete delete;
        HvIcKvpEnumerate enumerate;
    };
} HvIcKvp;
QEMU_BUILD_BUG_ON(sizeof(HvIcKvp) != 2580);

enum {
    HV_IC_FAMILY_IP4 = 1,
    HV_IC_FAMILY_IP6 = 2,
};

/* GET_IP and SET_IP, version 4.0; entries of a string end with ';' */
typedef struct QEMU_PACKED HvIcKvpIp {
    uint8_t operation;
    uint8_t pool;
    uint8_t adapter[256];
    uint8_t family;
    uint8_t dhcp;
    uint8_t address[2048];
    uint8_t subnet[2048];
    uint8_t gateway[1024];
    uint8_t dns[2048];
} HvIcKvpIp;
QEMU_BUILD_BUG_ON(sizeof(HvIcKvpIp) != 7428);

/* Status of an answer */
#define HV_IC_STATUS_OK             0u
#define HV_IC_STATUS_NO_MORE_ITEMS  0x80070103u
#define HV_IC_STATUS_FAILED         0x80004005u

#endif
