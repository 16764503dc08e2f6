// SPDX-License-Identifier: BSD-2-Clause
// The little of ACPI that we use: processors and I/O APICs (MADT), power-off and reset (FADT and
// the \_S5 package of the DSDT). Tables are the firmware's: length and checksum are verified, every
// read stays inside them. Core 0.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/machine.h"
#include "kernel/paging.h"

#define MAX_CPUS 256
#define MAX_TABLE_BYTES 0x1000000u
#define PM1_SCI_ENABLE 1u
#define PM1_SLEEP_ENABLE 0x2000u
#define SLEEP_CONTROL_ENABLE 0x20u
#define PM1_POWER_BUTTON 0x100u
#define FADT_NO_POWER_BUTTON (1u << 4) // a control method one, or none
#define FADT_RESET_SUPPORTED (1u << 10)
#define FADT_HARDWARE_REDUCED (1u << 20)
#define WAIT_SPINS 1000000

struct __attribute__((packed)) acpi_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char rest[26];
};
_Static_assert(sizeof(struct acpi_header) == 36, "layout of ACPI");

struct __attribute__((packed)) acpi_rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt;
    uint32_t length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
};
_Static_assert(sizeof(struct acpi_rsdp) == 36, "layout of ACPI");

enum { // offsets in the FADT
    FADT_DSDT = 40,
    FADT_SCI_IRQ = 46,
    FADT_SMI_COMMAND = 48,
    FADT_ACPI_ENABLE = 52,
    FADT_PM1A_EVENT = 56,
    FADT_PM1A_CONTROL = 64,
    FADT_PM1B_CONTROL = 68,
    FADT_PM1_EVENT_LENGTH = 88,
    FADT_FLAGS = 112,
    FADT_RESET_REGISTER = 116, // generic address: space u8, width, offset, size, address u64
    FADT_RESET_VALUE = 128,
    FADT_X_DSDT = 140,
    FADT_SLEEP_CONTROL = 244,
};

static struct acpi_cpu cpus[MAX_CPUS];
static unsigned cpu_total;
static const struct acpi_header *madt, *fadt;
static uint16_t pm1_status; // port of the fixed events' status, once they interrupt

static bool checksum_good(const void *p, size_t length)
{
    const uint8_t *bytes = p;
    uint8_t sum = 0;

    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + bytes[i]);
    return sum == 0;
}

// A table that is mapped, whole and right; else NULL.
static const struct acpi_header *table_at(uint64_t phys)
{
    const struct acpi_header *table = (const void *)phys;

    if (phys < PAGE_SIZE || phys >= 1ull << 46)
        return NULL;
    paging_map(phys, sizeof(*table), MAP_READ_ONLY);
    if (table->length < sizeof(*table) || table->length > MAX_TABLE_BYTES)
        return NULL;
    paging_map(phys, table->length, MAP_READ_ONLY);
    return checksum_good(table, table->length) ? table : NULL;
}

// `size` bytes at `offset`, zero extended; 0 beyond the table's end (older revisions are shorter).
static uint64_t field(const struct acpi_header *table, uint32_t offset, uint32_t size)
{
    uint64_t value = 0;

    if (offset + size <= table->length)
        memcpy(&value, (const char *)table + offset, size);
    return value;
}

static void find_tables(const struct acpi_header *root, uint32_t entry_bytes)
{
    for (uint32_t at = sizeof(*root); at + entry_bytes <= root->length; at += entry_bytes) {
        const struct acpi_header *table = table_at(field(root, at, entry_bytes));
        if (table && memcmp(table->signature, "APIC", 4) == 0)
            madt = table;
        else if (table && memcmp(table->signature, "FACP", 4) == 0)
            fadt = table;
    }
}

// The next structure of the MADT after *at of the given type and at least that long, or 0.
static uint32_t madt_next(uint32_t *at, uint8_t type, uint8_t size)
{
    while (*at + 2 <= madt->length) {
        uint32_t here = *at;
        uint8_t length = (uint8_t)field(madt, here + 1, 1);
        if (length < 2 || here + length > madt->length)
            return 0;
        *at += length;
        if (field(madt, here, 1) == type && length >= size)
            return here;
    }
    return 0;
}

#define MADT_FIRST 44
enum { MADT_APIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_X2APIC = 9 };

static void add_cpu(uint64_t apic_id, uint64_t flags)
{
    if (flags & 1 && cpu_total < MAX_CPUS)
        cpus[cpu_total++].apic_id = (uint32_t)apic_id;
}

static void find_cpus(void)
{
    uint32_t at = MADT_FIRST, entry;

    while ((entry = madt_next(&at, MADT_APIC, 8)))
        add_cpu(field(madt, entry + 3, 1), field(madt, entry + 4, 4));
    at = MADT_FIRST;
    while ((entry = madt_next(&at, MADT_X2APIC, 16)))
        add_cpu(field(madt, entry + 4, 4), field(madt, entry + 8, 4));
}

void acpi_init(uint64_t phys)
{
    const struct acpi_rsdp *rsdp = (const void *)phys;
    const struct acpi_header *root = NULL;

    if (phys >= PAGE_SIZE)
        paging_map(phys, sizeof(*rsdp), MAP_READ_ONLY);
    if (phys < PAGE_SIZE || memcmp(rsdp->signature, "RSD PTR ", 8) != 0 ||
        !checksum_good(rsdp, 20)) {
        log_warn("acpi: no tables found");
        return;
    }
    if (rsdp->revision >= 2 && checksum_good(rsdp, sizeof(*rsdp)) && (root = table_at(rsdp->xsdt)))
        find_tables(root, 8);
    else if ((root = table_at(rsdp->rsdt)))
        find_tables(root, 4);
    if (madt)
        find_cpus();
    log_debug("acpi: %u processors, %s", cpu_total, fadt ? "power control" : "no power control");
}

unsigned acpi_cpus(const struct acpi_cpu **out)
{
    *out = cpus;
    return cpu_total;
}

bool acpi_isa_irq(unsigned irq, uint64_t *ioapic, uint32_t *pin, bool *level, bool *active_low)
{
    uint32_t at = MADT_FIRST, entry;
    uint64_t global = irq, best = UINT64_MAX;

    *level = *active_low = false;
    if (!madt)
        return false;
    while ((entry = madt_next(&at, MADT_OVERRIDE, 10))) {
        if (field(madt, entry + 3, 1) != irq)
            continue;
        uint64_t flags = field(madt, entry + 8, 2);
        global = field(madt, entry + 4, 4);
        *active_low = (flags & 3) == 3;
        *level = (flags >> 2 & 3) == 3;
    }
    at = MADT_FIRST;
    while ((entry = madt_next(&at, MADT_IOAPIC, 12))) { // the one that begins nearest below
        uint64_t first = field(madt, entry + 8, 4);
        if (first <= global && global - first < best) {
            best = global - first;
            *ioapic = field(madt, entry + 4, 4);
        }
    }
    *pin = (uint32_t)best;
    return best < 240;
}

// The sleep types of \_S5 from its AML: Name(\_S5, Package(n){a, b, ...}) as compilers write it.
static bool find_s5(uint8_t type[2])
{
    uint64_t address = field(fadt, FADT_X_DSDT, 8);
    const struct acpi_header *dsdt = table_at(address ? address : field(fadt, FADT_DSDT, 4));
    const uint8_t *aml = (const uint8_t *)dsdt;

    for (uint32_t at = sizeof(*dsdt); dsdt && at + 16 <= dsdt->length; at++) {
        if (memcmp(aml + at, "_S5_", 4) != 0 || aml[at + 4] != 0x12) // a package
            continue;
        uint32_t value = at + 5 + (aml[at + 5] >> 6) + 2; // after its length and element count
        for (unsigned i = 0; i < 2 && value + 2 <= dsdt->length; i++) {
            if (aml[value] == 0x0a) { // byte constant
                type[i] = aml[value + 1];
                value += 2;
            } else { // the constants 0 and 1 are opcodes of the same value
                type[i] = aml[value++];
            }
            if (type[i] > 7)
                return false;
        }
        return true;
    }
    return false;
}

static void acpi_enable(void)
{
    uint16_t control = (uint16_t)field(fadt, FADT_PM1A_CONTROL, 4);
    uint16_t smi = (uint16_t)field(fadt, FADT_SMI_COMMAND, 4);
    uint8_t command = (uint8_t)field(fadt, FADT_ACPI_ENABLE, 1);

    if (smi == 0 || command == 0 || inw(control) & PM1_SCI_ENABLE)
        return;
    outb(smi, command);
    for (unsigned i = 0; i < WAIT_SPINS && !(inw(control) & PM1_SCI_ENABLE); i++)
        cpu_pause();
}

bool acpi_enable_power_button(unsigned *irq)
{
    uint16_t status = fadt ? (uint16_t)field(fadt, FADT_PM1A_EVENT, 4) : 0;
    uint16_t length = fadt ? (uint16_t)field(fadt, FADT_PM1_EVENT_LENGTH, 1) : 0;

    if (status == 0 || length < 4 ||
        field(fadt, FADT_FLAGS, 4) & (FADT_NO_POWER_BUTTON | FADT_HARDWARE_REDUCED))
        return false;
    acpi_enable();
    outw(status, 0xffff); // written ones clear
    outw(status + length / 2, PM1_POWER_BUTTON);
    pm1_status = status;
    *irq = (unsigned)field(fadt, FADT_SCI_IRQ, 2);
    return true;
}

bool acpi_take_power_button(void)
{
    uint16_t events = inw(pm1_status);

    outw(pm1_status, events);
    return events & PM1_POWER_BUTTON;
}

bool acpi_poweroff(void)
{
    uint8_t type[2] = {0}; // a truncated package means zero

    if (!fadt || !find_s5(type))
        return false;
    if (field(fadt, FADT_FLAGS, 4) & FADT_HARDWARE_REDUCED) {
        uint64_t port = field(fadt, FADT_SLEEP_CONTROL + 4, 8);
        if (field(fadt, FADT_SLEEP_CONTROL, 1) != 1 || port == 0)
            return false;
        outb((uint16_t)port, (uint8_t)(type[0] << 2 | SLEEP_CONTROL_ENABLE));
    } else {
        uint16_t a = (uint16_t)field(fadt, FADT_PM1A_CONTROL, 4);
        uint16_t b = (uint16_t)field(fadt, FADT_PM1B_CONTROL, 4);
        if (a == 0)
            return false;
        acpi_enable();
        outw(a, (uint16_t)(type[0] << 10 | PM1_SLEEP_ENABLE | PM1_SCI_ENABLE));
        if (b != 0)
            outw(b, (uint16_t)(type[1] << 10 | PM1_SLEEP_ENABLE | PM1_SCI_ENABLE));
    }
    for (unsigned i = 0; i < WAIT_SPINS; i++)
        cpu_pause();
    return false;
}

bool acpi_reset(void)
{
    if (!fadt || !(field(fadt, FADT_FLAGS, 4) & FADT_RESET_SUPPORTED) ||
        field(fadt, FADT_RESET_REGISTER, 1) != 1) // only an I/O port
        return false;
    outb((uint16_t)field(fadt, FADT_RESET_REGISTER + 4, 8),
         (uint8_t)field(fadt, FADT_RESET_VALUE, 1));
    for (unsigned i = 0; i < WAIT_SPINS; i++)
        cpu_pause();
    return false;
}
