// SPDX-License-Identifier: BSD-2-Clause
// The UEFI program: BOOTX64.EFI. Finds out what the kernel must know (boot_info.h), places the
// kernel image that it carries, leaves boot services and jumps. The firmware starts it, from
// \EFI\BOOT\BOOTX64.EFI of an ESP or loaded directly; whatever fails is said on the UEFI console
// and returned as an EFI error, so that the firmware may try its next boot option.
#include <efi.h>
#include <efilib.h>
#include <elf.h>

#include "boot_info.h"

#define PAGE 4096ull
#define MAX_IDENTITY (512ull << 30) // one PML4 entry; RAM beyond is not used
#define EXIT_TRIES 8
#define FAILURE_PAUSE_US 3000000 // the firmware clears the screen when it goes on

#define PTE_PRESENT 1ull
#define PTE_WRITE 2ull
#define PTE_LARGE 0x80ull
#define CR4_LA57 (1ull << 12)

#define COM1 0x3f8
#define UART_MCR 4
#define UART_SCRATCH 7

extern const uint8_t kernel_elf[], kernel_elf_end[]; // kernel_blob.S

struct memory_map {
    EFI_MEMORY_DESCRIPTOR *descriptors;
    UINTN bytes, capacity, key, descriptor_size;
};

struct kernel_image {
    uint64_t virt; // of the first byte
    uint64_t entry;
    uint64_t phys;
    uint64_t pages;
};

static EFI_STATUS fail(const CHAR16 *what, EFI_STATUS status)
{
    Print(L"dunlin: boot failed: %s: %r\r\n", what, status);
    uefi_call_wrapper(BS->Stall, 1, FAILURE_PAUSE_US);
    return status;
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

// Loader memory, so that the kernel sees it as in use. Zeroed; NULL if there is none.
static void *alloc_pages(uint64_t pages)
{
    EFI_PHYSICAL_ADDRESS address = 0;
    EFI_STATUS status = uefi_call_wrapper(BS->AllocatePages, 4, AllocateAnyPages, EfiLoaderData,
                                          (UINTN)pages, &address);
    if (EFI_ERROR(status))
        return NULL;
    ZeroMem((void *)address, pages * PAGE);
    return (void *)address;
}

// Copies the loadable segments of the embedded ELF file to one new block of memory.
static EFI_STATUS load_kernel(struct kernel_image *image)
{
    const Elf64_Ehdr *elf = (const void *)kernel_elf;
    uint64_t file_size = (uint64_t)kernel_elf_end - (uint64_t)kernel_elf;
    uint64_t low = UINT64_MAX, high = 0;

    if (file_size < sizeof(*elf) || CompareMem(elf->e_ident, ELFMAG, SELFMAG) != 0 ||
        elf->e_machine != EM_X86_64 || elf->e_phentsize != sizeof(Elf64_Phdr) ||
        elf->e_phoff + elf->e_phnum * sizeof(Elf64_Phdr) > file_size)
        return fail(L"the embedded kernel is damaged", EFI_LOAD_ERROR);

    const Elf64_Phdr *segments = (const void *)(kernel_elf + elf->e_phoff);
    for (unsigned i = 0; i < elf->e_phnum; i++) {
        const Elf64_Phdr *p = &segments[i];
        if (p->p_type != PT_LOAD)
            continue;
        if (p->p_offset + p->p_filesz > file_size || p->p_filesz > p->p_memsz)
            return fail(L"the embedded kernel is damaged", EFI_LOAD_ERROR);
        low = p->p_vaddr < low ? p->p_vaddr : low;
        high = p->p_vaddr + p->p_memsz > high ? p->p_vaddr + p->p_memsz : high;
    }
    if (low >= high || low % PAGE != 0)
        return fail(L"the embedded kernel has no segments", EFI_LOAD_ERROR);

    image->virt = low;
    image->entry = elf->e_entry;
    image->pages = (high - low + PAGE - 1) / PAGE;
    image->phys = (uint64_t)alloc_pages(image->pages);
    if (image->phys == 0)
        return fail(L"no memory for the kernel", EFI_OUT_OF_RESOURCES);
    for (unsigned i = 0; i < elf->e_phnum; i++) {
        const Elf64_Phdr *p = &segments[i];
        if (p->p_type == PT_LOAD)
            CopyMem((void *)(image->phys + p->p_vaddr - low), (void *)(kernel_elf + p->p_offset),
                    p->p_filesz);
    }
    return EFI_SUCCESS;
}

static void find_acpi(EFI_SYSTEM_TABLE *system, struct boot_info *info)
{
    EFI_GUID acpi2 = ACPI_20_TABLE_GUID, acpi1 = ACPI_TABLE_GUID;

    for (UINTN i = 0; i < system->NumberOfTableEntries; i++) {
        EFI_CONFIGURATION_TABLE *table = &system->ConfigurationTable[i];
        if (CompareGuid(&table->VendorGuid, &acpi2) == 0 ||
            (CompareGuid(&table->VendorGuid, &acpi1) == 0 && info->acpi_rsdp == 0))
            info->acpi_rsdp = (uint64_t)table->VendorTable;
    }
}

static void find_framebuffer(struct boot_info *info)
{
    EFI_GRAPHICS_OUTPUT_PROTOCOL *gop;

    if (EFI_ERROR(LibLocateProtocol(&GraphicsOutputProtocol, (void **)&gop)) || !gop->Mode ||
        !gop->Mode->Info || gop->Mode->FrameBufferBase == 0)
        return;
    EFI_GRAPHICS_OUTPUT_MODE_INFORMATION *mode = gop->Mode->Info;
    if (mode->PixelFormat != PixelBlueGreenRedReserved8BitPerColor &&
        mode->PixelFormat != PixelRedGreenBlueReserved8BitPerColor)
        return;
    if (gop->Mode->FrameBufferBase + gop->Mode->FrameBufferSize > MAX_IDENTITY)
        return;
    info->framebuffer = (struct boot_framebuffer){
        .base = gop->Mode->FrameBufferBase,
        .width = mode->HorizontalResolution,
        .height = mode->VerticalResolution,
        .stride = mode->PixelsPerScanLine,
        .format = mode->PixelFormat == PixelRedGreenBlueReserved8BitPerColor,
    };
}

// COM1 counts as present if its scratch register keeps a value and its modem control register has
// no bits where a 16550 has none; a missing port reads as 0xff.
static void find_serial(struct boot_info *info)
{
    uint8_t old = inb(COM1 + UART_SCRATCH), seen[2];

    outb(COM1 + UART_SCRATCH, 0x5a);
    seen[0] = inb(COM1 + UART_SCRATCH);
    outb(COM1 + UART_SCRATCH, 0xa5);
    seen[1] = inb(COM1 + UART_SCRATCH);
    outb(COM1 + UART_SCRATCH, old);
    if (seen[0] == 0x5a && seen[1] == 0xa5 && (inb(COM1 + UART_MCR) & 0xc0) == 0)
        info->serial_port = COM1;
}

static void find_entropy(struct boot_info *info)
{
    struct rng {
        void *get_info;
        EFI_STATUS(EFIAPI *get)(struct rng *, EFI_GUID *, UINTN, UINT8 *);
    } * rng;
    EFI_GUID guid = {0x3152bca5, 0xeade, 0x433d, {0x86, 0x2e, 0xc0, 0x1c, 0xdc, 0x29, 0x1f, 0x44}};

    if (EFI_ERROR(LibLocateProtocol(&guid, (void **)&rng)) ||
        EFI_ERROR(uefi_call_wrapper(rng->get, 4, rng, NULL, sizeof(info->entropy), info->entropy)))
        ZeroMem(info->entropy, sizeof(info->entropy));
}

// Text given to a directly loaded program in place of a file: "[net];address=10.0.0.2/24". Firmware
// may leave anything in the options, hence only plain text with a '=' in it counts.
static void config_from_options(EFI_LOADED_IMAGE *loaded, struct boot_info *info)
{
    const CHAR16 *text = loaded->LoadOptions;
    UINTN count = text ? loaded->LoadOptionsSize / sizeof(*text) : 0;
    BOOLEAN assigns = FALSE;

    if (count > 0 && text[count - 1] == 0)
        count--;
    for (UINTN i = 0; i < count; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return;
        assigns |= text[i] == '=';
    }
    if (!assigns)
        return;
    info->config_truncated = count > BOOT_CONFIG_MAX;
    info->config_bytes = count > BOOT_CONFIG_MAX ? BOOT_CONFIG_MAX : (uint32_t)count;
    for (uint32_t i = 0; i < info->config_bytes; i++)
        info->config[i] = text[i] == ';' ? '\n' : (char)text[i];
}

// A missing file is normal, one that cannot be read is said and ignored: the machine always boots.
static void find_config(EFI_HANDLE image, struct boot_info *info)
{
    EFI_LOADED_IMAGE *loaded;
    EFI_FILE_HANDLE root, file;

    if (EFI_ERROR(uefi_call_wrapper(BS->HandleProtocol, 3, image, &LoadedImageProtocol,
                                    (void **)&loaded)))
        return;
    root = loaded->DeviceHandle ? LibOpenRoot(loaded->DeviceHandle) : NULL;
    if (!root || EFI_ERROR(uefi_call_wrapper(root->Open, 5, root, &file, L"\\dunlin.conf",
                                             EFI_FILE_MODE_READ, 0ull))) {
        config_from_options(loaded, info);
        return;
    }
    UINTN bytes = BOOT_CONFIG_MAX + 1;
    EFI_STATUS status = uefi_call_wrapper(file->Read, 3, file, &bytes, info->config);
    if (EFI_ERROR(status)) {
        Print(L"dunlin: cannot read \\dunlin.conf: %r; going on without\r\n", status);
        bytes = 0;
    }
    info->config_truncated = bytes > BOOT_CONFIG_MAX;
    info->config_bytes = bytes > BOOT_CONFIG_MAX ? BOOT_CONFIG_MAX : (uint32_t)bytes;
    info->config[info->config_bytes] = 0;
    uefi_call_wrapper(file->Close, 1, file);
    uefi_call_wrapper(root->Close, 1, root);
}

// Reads the memory map into a buffer that has room for what the allocation itself adds.
static EFI_STATUS read_memory_map(struct memory_map *map)
{
    UINT32 version;

    for (;;) {
        map->bytes = map->capacity;
        EFI_STATUS status = uefi_call_wrapper(BS->GetMemoryMap, 5, &map->bytes, map->descriptors,
                                              &map->key, &map->descriptor_size, &version);
        if (status != EFI_BUFFER_TOO_SMALL)
            return status;
        if (map->descriptors)
            uefi_call_wrapper(BS->FreePool, 1, map->descriptors);
        map->capacity = map->bytes + 16 * map->descriptor_size;
        status = uefi_call_wrapper(BS->AllocatePool, 3, EfiLoaderData, map->capacity,
                                   (void **)&map->descriptors);
        if (EFI_ERROR(status))
            return status;
    }
}

static enum boot_memory_type memory_type(UINT32 efi_type)
{
    switch (efi_type) {
    case EfiConventionalMemory:
        return BOOT_MEMORY_FREE;
    case EfiBootServicesCode:
    case EfiBootServicesData:
        return BOOT_MEMORY_FIRMWARE;
    case EfiLoaderCode:
    case EfiLoaderData:
        return BOOT_MEMORY_LOADER;
    case EfiACPIReclaimMemory:
    case EfiACPIMemoryNVS:
        return BOOT_MEMORY_ACPI;
    default:
        return BOOT_MEMORY_RESERVED;
    }
}

// Ranges beyond the table's end and RAM out of reach stay unknown to the kernel, which then never
// touches them.
static void convert_memory_map(const struct memory_map *map, struct boot_info *info)
{
    for (UINTN at = 0; at + map->descriptor_size <= map->bytes; at += map->descriptor_size) {
        const EFI_MEMORY_DESCRIPTOR *d = (const void *)((const char *)map->descriptors + at);
        enum boot_memory_type type = memory_type(d->Type);
        struct boot_memory_range *last =
            info->range_count ? &info->ranges[info->range_count - 1] : NULL;

        uint64_t pages = d->NumberOfPages;
        if (d->PhysicalStart >= MAX_IDENTITY)
            continue;
        if (pages > (MAX_IDENTITY - d->PhysicalStart) / PAGE)
            pages = (MAX_IDENTITY - d->PhysicalStart) / PAGE;
        if (last && last->type == type && last->base + last->pages * PAGE == d->PhysicalStart)
            last->pages += pages;
        else if (info->range_count < BOOT_MAX_RANGES)
            info->ranges[info->range_count++] =
                (struct boot_memory_range){.base = d->PhysicalStart, .pages = pages, .type = type};
    }
}

// The end of what the first page tables must reach: all RAM and the framebuffer.
static uint64_t identity_end(const struct memory_map *map, const struct boot_info *info)
{
    uint64_t end = 4ull << 30;

    for (UINTN at = 0; at + map->descriptor_size <= map->bytes; at += map->descriptor_size) {
        const EFI_MEMORY_DESCRIPTOR *d = (const void *)((const char *)map->descriptors + at);
        uint64_t top = d->PhysicalStart + d->NumberOfPages * PAGE;
        if (memory_type(d->Type) != BOOT_MEMORY_RESERVED && top > end)
            end = top;
    }
    uint64_t screen =
        info->framebuffer.base + (uint64_t)info->framebuffer.stride * info->framebuffer.height * 4;
    end = screen > end ? screen : end;
    return end < MAX_IDENTITY ? end : MAX_IDENTITY;
}

// Page tables to start the kernel with: RAM at its own address by 2 MiB pages, and the image where
// it is linked. The kernel replaces them by its own, with rights. NULL: no memory.
static uint64_t *make_page_tables(const struct kernel_image *image, uint64_t end)
{
    uint64_t directories = (end + (1ull << 30) - 1) >> 30;
    uint64_t first = image->virt >> 12 & 511; // of the image in its page table
    uint64_t image_tables = (first + image->pages + 511) / 512;
    uint64_t *tables = alloc_pages(4 + directories + image_tables);

    if (!tables || (image->virt >> 21 & 511) + image_tables > 512)
        return NULL;
    uint64_t *pml4 = tables, *low = tables + 512, *high = low + 512, *directory = high + 512;
    uint64_t *image_table = directory + 512, *identity = image_table + image_tables * 512;
    uint64_t flags = PTE_PRESENT | PTE_WRITE;

    pml4[0] = (uint64_t)low | flags;
    for (uint64_t i = 0; i < directories; i++)
        low[i] = (uint64_t)(identity + i * 512) | flags;
    for (uint64_t i = 0; i < directories * 512; i++)
        identity[i] = i << 21 | flags | PTE_LARGE;
    pml4[image->virt >> 39 & 511] = (uint64_t)high | flags;
    high[image->virt >> 30 & 511] = (uint64_t)directory | flags;
    for (uint64_t i = 0; i < image_tables; i++)
        directory[(image->virt >> 21 & 511) + i] = (uint64_t)(image_table + i * 512) | flags;
    for (uint64_t i = 0; i < image->pages; i++)
        image_table[first + i] = (image->phys + i * PAGE) | flags;
    return pml4;
}

// The map may change between reading it and leaving (the firmware's timers still run), which makes
// its key stale; read again then.
static EFI_STATUS exit_boot_services(EFI_HANDLE image, struct memory_map *map)
{
    EFI_STATUS status = EFI_INVALID_PARAMETER;

    for (unsigned i = 0; i < EXIT_TRIES && status == EFI_INVALID_PARAMETER; i++) {
        status = read_memory_map(map);
        if (!EFI_ERROR(status))
            status = uefi_call_wrapper(BS->ExitBootServices, 2, image, map->key);
    }
    return status;
}

EFI_STATUS efi_main(EFI_HANDLE image_handle, EFI_SYSTEM_TABLE *system)
{
    uint64_t entry_tsc = rdtsc(), cr4;
    struct memory_map map = {0};
    struct kernel_image image;
    EFI_STATUS status;

    InitializeLib(image_handle, system);
    uefi_call_wrapper(BS->SetWatchdogTimer, 4, 0ull, 0ull, 0ull, NULL);
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    if (cr4 & CR4_LA57)
        return fail(L"the firmware runs with five-level paging", EFI_UNSUPPORTED);

    struct boot_info *info = alloc_pages((sizeof(*info) + PAGE - 1) / PAGE);
    if (!info)
        return fail(L"no memory", EFI_OUT_OF_RESOURCES);
    info->magic = BOOT_INFO_MAGIC;
    info->version = BOOT_INFO_VERSION;
    info->size = sizeof(*info);
    info->entry_tsc = entry_tsc;
    find_acpi(system, info);
    find_framebuffer(info);
    find_serial(info);
    find_entropy(info);
    find_config(image_handle, info);

    status = load_kernel(&image);
    if (EFI_ERROR(status))
        return status;
    info->kernel_base = image.phys;
    info->kernel_pages = image.pages;

    status = read_memory_map(&map);
    if (EFI_ERROR(status))
        return fail(L"cannot read the memory map", status);
    uint64_t *tables = make_page_tables(&image, identity_end(&map, info));
    if (!tables)
        return fail(L"no memory for page tables", EFI_OUT_OF_RESOURCES);
    status = exit_boot_services(image_handle, &map);
    if (EFI_ERROR(status))
        return fail(L"cannot leave boot services", status);

    convert_memory_map(&map, info);
    __asm__ volatile("cli\n\tmov %0, %%cr3\n\tjmp *%1"
                     :
                     : "r"(tables), "r"(image.entry), "D"(info)
                     : "memory");
    __builtin_unreachable();
}
