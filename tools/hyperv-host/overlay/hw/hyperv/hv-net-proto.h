/*
 * What a Hyper-V NIC says on its channel: NVSP messages as the payload of
 * ring packets, RNDIS messages in shared buffers, NDIS structures inside of
 * those.  Used by the hv-net*.c files only.
 *
 * All numbers little endian; offsets inside an RNDIS message count from its
 * byte 8.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_HYPERV_HV_NET_PROTO_H
#define HW_HYPERV_HV_NET_PROTO_H

/* NVSP */

#define NVSP_VERSION_1      0x00002u
#define NVSP_VERSION_2      0x30002u
#define NVSP_VERSION_4      0x40000u
#define NVSP_VERSION_5      0x50000u
#define NVSP_VERSION_6      0x60000u
#define NVSP_VERSION_6_1    0x60001u

enum NvspStatus {
    NVSP_STATUS_NONE = 0,
    NVSP_STATUS_SUCCESS = 1,
    NVSP_STATUS_FAILURE = 2,
    NVSP_STATUS_UNSUPPORTED = 7,
};

enum NvspType {
    NVSP_INIT = 1,
    NVSP_INIT_COMPLETE = 2,
    NVSP_SEND_NDIS_VERSION = 100,
    NVSP_SEND_RECV_BUF = 101,
    NVSP_SEND_RECV_BUF_COMPLETE = 102,
    NVSP_REVOKE_RECV_BUF = 103,
    NVSP_SEND_SEND_BUF = 104,
    NVSP_SEND_SEND_BUF_COMPLETE = 105,
    NVSP_REVOKE_SEND_BUF = 106,
    NVSP_RNDIS_PACKET = 107,
    NVSP_RNDIS_PACKET_COMPLETE = 108,
    NVSP_SEND_NDIS_CONFIG = 125,
    NVSP_VF_ASSOCIATION = 128,
    NVSP_SWITCH_DATA_PATH = 129,
    NVSP_OID_QUERY_EX = 131,
    NVSP_OID_QUERY_EX_COMPLETE = 132,
    NVSP_SUBCHANNEL = 133,
    NVSP_SEND_INDIRECTION_TABLE = 134,
};

#define NVSP_NO_SECTION             0xffffffffu
#define NVSP_CHANNEL_DATA           0u
#define NVSP_CHANNEL_CONTROL        1u
#define NVSP_SUBCHANNEL_ALLOCATE    1u
#define NVSP_CAP_VLAN               (1u << 3)
#define NVSP_CAP_TEAMING            (1u << 5)
#define NVSP_CAP_RSC                (1u << 7)

/*
 * Long enough for every version.  Completions of negotiations carry all of
 * it, since guests copy that much without asking.
 */
typedef struct QEMU_PACKED NvspMessage {
    uint32_t type;
    union {
        struct QEMU_PACKED {
            uint32_t version;
            uint32_t version_again;
        } init;
        struct QEMU_PACKED {
            uint32_t version;
            uint32_t max_mdl_chain;
            uint32_t status;
        } init_complete;
        struct QEMU_PACKED {
            uint32_t major;
            uint32_t minor;
        } ndis_version;
        struct QEMU_PACKED {
            uint32_t gpadl;
            uint16_t id;
        } buffer;
        struct QEMU_PACKED {
            uint32_t status;
            uint32_t section_count;
            uint32_t offset;
            uint32_t section_bytes;
            uint32_t sections;
            uint32_t end_offset;
        } recv_buf_complete;
        struct QEMU_PACKED {
            uint32_t status;
            uint32_t section_bytes;
        } send_buf_complete;
        struct QEMU_PACKED {
            uint16_t id;
        } revoke;
        struct QEMU_PACKED {
            uint32_t channel;
            uint32_t section;
            uint32_t section_bytes;
        } rndis;
        struct QEMU_PACKED {
            uint32_t status;
        } complete;
        struct QEMU_PACKED {
            uint32_t mtu;
            uint32_t reserved;
            uint64_t capabilities;
        } ndis_config;
        struct QEMU_PACKED {
            uint32_t path;
        } data_path;
        struct QEMU_PACKED {
            uint32_t status;
            uint32_t bytes;
        } oid_query_ex_complete;
        struct QEMU_PACKED {
            uint32_t operation;     /* in the completion: status */
            uint32_t count;
        } subchannel;
        uint8_t pad[36];
    };
} NvspMessage;
QEMU_BUILD_BUG_ON(sizeof(NvspMessage) != 40);
/* what it was before version 6.1 */
#define NVSP_OLD_MESSAGE_BYTES      28u

/* RNDIS */

enum RndisType {
    RNDIS_PACKET = 1,
    RNDIS_INITIALIZE = 2,
    RNDIS_HALT = 3,
    RNDIS_QUERY = 4,
    RNDIS_SET = 5,
    RNDIS_RESET = 6,
    RNDIS_INDICATE = 7,
    RNDIS_KEEPALIVE = 8,
};
#define RNDIS_COMPLETE              0x80000000u
#define RNDIS_OFFSET_BASE           8u

#define RNDIS_STATUS_SUCCESS        0u
#define RNDIS_STATUS_NOT_SUPPORTED  0xc00000bbu
#define RNDIS_STATUS_INVALID_DATA   0xc0010015u
#define RNDIS_STATUS_BAD_VERSION    0xc0010004u

#define RNDIS_INDICATE_CONNECT      0x4001000bu
#define RNDIS_INDICATE_DISCONNECT   0x4001000cu
#define RNDIS_INDICATE_LINK_SPEED   0x40010013u
#define RNDIS_INDICATE_NETWORK      0x40010018u
#define RNDIS_INDICATE_OFFLOAD      0x40020006u

typedef struct RndisHeader {
    uint32_t type;
    uint32_t bytes;
} RndisHeader;

typedef struct RndisPacket {
    RndisHeader header;
    uint32_t data_offset;
    uint32_t data_bytes;
    uint32_t oob_offset;
    uint32_t oob_bytes;
    uint32_t oob_count;
    uint32_t ppi_offset;
    uint32_t ppi_bytes;
    uint32_t vc_handle;
    uint32_t reserved;
} RndisPacket;
QEMU_BUILD_BUG_ON(sizeof(RndisPacket) != 44);

typedef struct RndisInitialize {
    RndisHeader header;
    uint32_t id;
    uint32_t major;
    uint32_t minor;
    uint32_t max_transfer;
} RndisInitialize;
QEMU_BUILD_BUG_ON(sizeof(RndisInitialize) != 24);

typedef struct RndisInitializeComplete {
    RndisHeader header;
    uint32_t id;
    uint32_t status;
    uint32_t major;
    uint32_t minor;
    uint32_t device_flags;
    uint32_t medium;
    uint32_t max_packets;
    uint32_t max_transfer;
    uint32_t alignment_shift;
    uint32_t reserved[2];
} RndisInitializeComplete;
QEMU_BUILD_BUG_ON(sizeof(RndisInitializeComplete) != 52);

/* QUERY and SET */
typedef struct RndisRequest {
    RndisHeader header;
    uint32_t id;
    uint32_t oid;
    uint32_t info_bytes;
    uint32_t info_offset;
    uint32_t vc_handle;
} RndisRequest;
QEMU_BUILD_BUG_ON(sizeof(RndisRequest) != 28);

typedef struct RndisQueryComplete {
    RndisHeader header;
    uint32_t id;
    uint32_t status;
    uint32_t info_bytes;
    uint32_t info_offset;
} RndisQueryComplete;
QEMU_BUILD_BUG_ON(sizeof(RndisQueryComplete) != 24);

/* SET and KEEPALIVE */
typedef struct RndisComplete {
    RndisHeader header;
    uint32_t id;
    uint32_t status;
} RndisComplete;
QEMU_BUILD_BUG_ON(sizeof(RndisComplete) != 16);

typedef struct RndisIndicate {
    RndisHeader header;
    uint32_t status;
    uint32_t info_bytes;
    uint32_t info_offset;
} RndisIndicate;
QEMU_BUILD_BUG_ON(sizeof(RndisIndicate) != 20);

/* Per packet information */

typedef struct RndisPpi {
    uint32_t bytes;
    uint32_t type;
    uint32_t offset;
} RndisPpi;
QEMU_BUILD_BUG_ON(sizeof(RndisPpi) != 12);

enum RndisPpiType {
    RNDIS_PPI_CHECKSUM = 0,
    RNDIS_PPI_LSO = 2,
    RNDIS_PPI_VLAN = 6,
    RNDIS_PPI_HASH = 8,
};
#define RNDIS_PPI_PACKET_ID     (1u << 31 | 1)

/* checksum, guest to host */
#define TX_CSUM_IPV4            (1u << 0)
#define TX_CSUM_IPV6            (1u << 1)
#define TX_CSUM_TCP             (1u << 2)
#define TX_CSUM_UDP             (1u << 3)
#define TX_CSUM_IP_HEADER       (1u << 4)
#define TX_CSUM_OFFSET(v)       (((v) >> 16) & 0x3ff)

/* large send, version 2, guest to host */
#define TX_LSO_MSS(v)           ((v) & 0xfffff)
#define TX_LSO_OFFSET(v)        (((v) >> 20) & 0x3ff)
#define TX_LSO_VERSION_2        (1u << 30)
#define TX_LSO_IPV6             (1u << 31)

/* checksum, host to guest */
#define RX_CSUM_TCP_FAILED      (1u << 0)
#define RX_CSUM_UDP_FAILED      (1u << 1)
#define RX_CSUM_IP_FAILED       (1u << 2)
#define RX_CSUM_TCP_OK          (1u << 3)
#define RX_CSUM_UDP_OK          (1u << 4)
#define RX_CSUM_IP_OK           (1u << 5)
#define RX_CSUM_TCP_VALUE_INVALID   (1u << 7)   /* right, but not in there */

/* packet id, host to guest: which part of a coalesced frame this is */
#define RNDIS_PACKET_ID_VERSION 1u
#define RNDIS_FRAGMENT          1u
#define RNDIS_FRAGMENT_FIRST    2u
#define RNDIS_FRAGMENT_LAST     4u

/* OIDs */

enum NdisOid {
    OID_GEN_SUPPORTED_LIST = 0x00010101,
    OID_GEN_HARDWARE_STATUS = 0x00010102,
    OID_GEN_MEDIA_SUPPORTED = 0x00010103,
    OID_GEN_MEDIA_IN_USE = 0x00010104,
    OID_GEN_MAXIMUM_LOOKAHEAD = 0x00010105,
    OID_GEN_MAXIMUM_FRAME_SIZE = 0x00010106,
    OID_GEN_LINK_SPEED = 0x00010107,
    OID_GEN_TRANSMIT_BUFFER_SPACE = 0x00010108,
    OID_GEN_RECEIVE_BUFFER_SPACE = 0x00010109,
    OID_GEN_TRANSMIT_BLOCK_SIZE = 0x0001010a,
    OID_GEN_RECEIVE_BLOCK_SIZE = 0x0001010b,
    OID_GEN_VENDOR_ID = 0x0001010c,
    OID_GEN_VENDOR_DESCRIPTION = 0x0001010d,
    OID_GEN_CURRENT_PACKET_FILTER = 0x0001010e,
    OID_GEN_CURRENT_LOOKAHEAD = 0x0001010f,
    OID_GEN_DRIVER_VERSION = 0x00010110,
    OID_GEN_MAXIMUM_TOTAL_SIZE = 0x00010111,
    OID_GEN_PROTOCOL_OPTIONS = 0x00010112,
    OID_GEN_MAC_OPTIONS = 0x00010113,
    OID_GEN_MEDIA_CONNECT_STATUS = 0x00010114,
    OID_GEN_MAXIMUM_SEND_PACKETS = 0x00010115,
    OID_GEN_VENDOR_DRIVER_VERSION = 0x00010116,
    OID_GEN_FRIENDLY_NAME = 0x00020216,
    OID_GEN_RECEIVE_SCALE_CAPABILITIES = 0x00010203,
    OID_GEN_RECEIVE_SCALE_PARAMETERS = 0x00010204,
    OID_GEN_MAX_LINK_SPEED = 0x00010206,
    OID_GEN_LINK_STATE = 0x00010207,
    OID_GEN_RNDIS_CONFIG_PARAMETER = 0x0001021b,
    OID_802_3_PERMANENT_ADDRESS = 0x01010101,
    OID_802_3_CURRENT_ADDRESS = 0x01010102,
    OID_802_3_MULTICAST_LIST = 0x01010103,
    OID_802_3_MAXIMUM_LIST_SIZE = 0x01010104,
    OID_802_3_RCV_ERROR_ALIGNMENT = 0x01020101,
    OID_802_3_XMIT_ONE_COLLISION = 0x01020102,
    OID_802_3_XMIT_MORE_COLLISIONS = 0x01020103,
    OID_OFFLOAD_ENCAPSULATION = 0x0101010a,
    OID_TCP_OFFLOAD_CURRENT_CONFIG = 0xfc01020b,
    OID_TCP_OFFLOAD_PARAMETERS = 0xfc01020c,
    OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES = 0xfc01020d,
};

/* packet filter */
#define NDIS_FILTER_DIRECTED        0x01u
#define NDIS_FILTER_MULTICAST       0x02u
#define NDIS_FILTER_ALL_MULTICAST   0x04u
#define NDIS_FILTER_BROADCAST       0x08u
#define NDIS_FILTER_PROMISCUOUS     0x20u

/* NDIS structures */

typedef struct NdisObjectHeader {
    uint8_t type;
    uint8_t revision;
    uint16_t bytes;
} NdisObjectHeader;

#define NDIS_TYPE_OFFLOAD           0xa7
#define NDIS_TYPE_DEFAULT           0x80
#define NDIS_TYPE_RSS_CAPABILITIES  0x88
#define NDIS_TYPE_RSS_PARAMETERS    0x89

#define NDIS_OFFLOAD_REV1_BYTES     112
#define NDIS_OFFLOAD_REV2_BYTES     144
#define NDIS_OFFLOAD_REV3_BYTES     156

#define NDIS_ENCAPSULATION_802_3    0x2u
#define NDIS_CSUM_IP_OPTIONS        0x001u  /* IPv6: extension headers */
#define NDIS_CSUM_TCP_OPTIONS       0x004u
#define NDIS_CSUM_TCP               0x010u
#define NDIS_CSUM_UDP               0x040u
#define NDIS_CSUM_IP_HEADER         0x100u

#define NDIS_LSO_IPV6_EXTENSIONS    0x001u
#define NDIS_LSO_TCP_OPTIONS        0x004u

typedef struct NdisOffload {
    NdisObjectHeader header;
    struct {
        uint32_t v4_tx_encapsulation;
        uint32_t v4_tx;
        uint32_t v4_rx_encapsulation;
        uint32_t v4_rx;
        uint32_t v6_tx_encapsulation;
        uint32_t v6_tx;
        uint32_t v6_rx_encapsulation;
        uint32_t v6_rx;
    } csum;
    uint32_t lso_v1[4];
    uint32_t ipsec_v1[7];
    struct {
        uint32_t v4_encapsulation;
        uint32_t v4_max_bytes;
        uint32_t v4_min_segments;
        uint32_t v6_encapsulation;
        uint32_t v6_max_bytes;
        uint32_t v6_min_segments;
        uint32_t v6_options;
    } lso_v2;
    uint32_t flags;
    uint8_t ipsec_v2[32];       /* revision 2 */
    uint8_t rsc_v4;             /* revision 3 */
    uint8_t rsc_v6;
    uint8_t padding[2];
    uint32_t gre_encapsulation[2];
} NdisOffload;
QEMU_BUILD_BUG_ON(offsetof(NdisOffload, lso_v2) != 80);
QEMU_BUILD_BUG_ON(offsetof(NdisOffload, rsc_v4) != 144);
QEMU_BUILD_BUG_ON(sizeof(NdisOffload) != NDIS_OFFLOAD_REV3_BYTES);

enum {
    NDIS_PARAM_NO_CHANGE = 0,
    NDIS_PARAM_OFF = 1,
    NDIS_PARAM_TX = 2,
    NDIS_PARAM_ON = 2,          /* LSO and RSC */
    NDIS_PARAM_RX = 3,
    NDIS_PARAM_BOTH = 4,
};

typedef struct NdisOffloadParameters {
    NdisObjectHeader header;
    uint8_t ipv4_header;
    uint8_t tcp_v4;
    uint8_t udp_v4;
    uint8_t tcp_v6;
    uint8_t udp_v6;
    uint8_t lso_v1;
    uint8_t ipsec_v1;
    uint8_t lso_v2_v4;
    uint8_t lso_v2_v6;
    uint8_t connection_v4;
    uint8_t connection_v6;
    uint8_t padding;
    uint32_t flags;
    uint8_t ipsec_v2;
    uint8_t ipsec_v2_v4;
    uint8_t rsc_v4;
    uint8_t rsc_v6;
    uint8_t encapsulation;
    uint8_t encapsulation_types;
    uint8_t padding2[2];
} NdisOffloadParameters;
QEMU_BUILD_BUG_ON(sizeof(NdisOffloadParameters) != 28);
#define NDIS_OFFLOAD_PARAMETERS_MIN 20

typedef struct NdisRssCapabilities {
    NdisObjectHeader header;
    uint32_t flags;
    uint32_t interrupt_messages;
    uint32_t receive_queues;
    uint16_t table_entries;
    uint16_t padding;
} NdisRssCapabilities;
#define NDIS_RSS_CAPABILITIES_BYTES 18
#define NDIS_RSS_CAP_TOEPLITZ       0x0001u
#define NDIS_RSS_CAP_TCP_IPV4       0x0100u
#define NDIS_RSS_CAP_TCP_IPV6       0x0200u
#define NDIS_RSS_CAP_UDP_IPV4       0x0800u
#define NDIS_RSS_CAP_UDP_IPV6       0x1000u

/* offsets count from the structure's start */
typedef struct NdisRssParameters {
    NdisObjectHeader header;
    uint16_t flags;
    uint16_t base_cpu;
    uint32_t hash;
    uint16_t table_bytes;
    uint16_t padding;
    uint32_t table_offset;      /* of u32 channel indices */
    uint16_t key_bytes;
    uint16_t padding2;
    uint32_t key_offset;
    uint32_t mask_offset;       /* revision 2 */
    uint32_t mask_count;
    uint32_t mask_bytes;
} NdisRssParameters;
QEMU_BUILD_BUG_ON(sizeof(NdisRssParameters) != 40);
#define NDIS_RSS_PARAMETERS_MIN     28

#define NDIS_RSS_HASH_UNCHANGED     0x02u
#define NDIS_RSS_TABLE_UNCHANGED    0x04u
#define NDIS_RSS_KEY_UNCHANGED      0x08u
#define NDIS_RSS_DISABLE            0x10u

#define NDIS_HASH_FUNCTION          0x000ffu
#define NDIS_HASH_TOEPLITZ          0x00001u
#define NDIS_HASH_IPV4              0x00100u
#define NDIS_HASH_TCP_IPV4          0x00200u
#define NDIS_HASH_IPV6              0x00400u
#define NDIS_HASH_TCP_IPV6          0x01000u
#define NDIS_HASH_UDP_IPV4          0x04000u
#define NDIS_HASH_UDP_IPV6          0x08000u

typedef struct NdisLinkState {
    NdisObjectHeader header;
    uint32_t connect_state;     /* 1 connected, 2 disconnected */
    uint32_t duplex;            /* 2 full */
    uint64_t tx_bits_per_second;
    uint64_t rx_bits_per_second;
    uint32_t pause;
    uint32_t autonegotiation;
} NdisLinkState;
QEMU_BUILD_BUG_ON(offsetof(NdisLinkState, tx_bits_per_second) != 16);

typedef struct NdisConfigParameter {
    uint32_t name_offset;
    uint32_t name_bytes;
    uint32_t value_type;        /* 0 integer, 2 string */
    uint32_t value_offset;
    uint32_t value_bytes;
} NdisConfigParameter;
QEMU_BUILD_BUG_ON(sizeof(NdisConfigParameter) != 20);

#endif
