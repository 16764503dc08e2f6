// SPDX-License-Identifier: BSD-2-Clause
// Text on the UEFI framebuffer, with the font of a PSF1 file that the build puts in. What is on the
// screen is remembered as text, so that scrolling never reads video memory, which is slow, and drawn a row
// at a time. Text comes from the log, whose lock is held.
#include <string.h>

#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/panic.h"

#define GLYPH_WIDTH 8
#define MAX_GLYPH_HEIGHT 32
#define MAX_COLUMNS 160
#define MAX_ROWS 64
#define FIRST_CHARACTER ' '
#define LAST_CHARACTER '~'
#define COLOR_TEXT 0xc8c8c8 // grey has no byte order
#define COLOR_BACKGROUND 0

struct psf1_header {
    uint8_t magic[2];
    uint8_t mode; // bit 0: 512 glyphs, bit 1: followed by a table of code points
    uint8_t height;
};

extern const uint8_t font_file[], font_file_end[]; // entry.S
static const uint8_t *glyphs[LAST_CHARACTER - FIRST_CHARACTER + 1];
static unsigned glyph_height;
static struct boot_framebuffer screen;
static unsigned columns, rows, column, row;
static char cells[MAX_ROWS][MAX_COLUMNS], drawn[MAX_ROWS][MAX_COLUMNS];
static bool stale[MAX_ROWS]; // they may differ

// The table of code points has one list for each glyph, which ends with 0xffff.
static void find_glyphs(void)
{
    const struct psf1_header *font = (const void *)font_file;
    unsigned count = font->mode & 1 ? 512 : 256;
    const uint8_t *bitmaps = font_file + sizeof(*font);
    const uint8_t *at = bitmaps + count * font->height;

    ASSERT(font->magic[0] == 0x36 && font->magic[1] == 0x04 && font->mode & 2 &&
           font->height <= MAX_GLYPH_HEIGHT);
    glyph_height = font->height;
    for (unsigned glyph = 0; glyph < count && (uintptr_t)at + 2 <= (uintptr_t)font_file_end;
         at += 2) {
        unsigned code = at[0] | (unsigned)at[1] << 8;
        if (code == 0xffff)
            glyph++;
        else if (code >= FIRST_CHARACTER && code <= LAST_CHARACTER)
            glyphs[code - FIRST_CHARACTER] = bitmaps + glyph * font->height;
    }
}

void framebuffer_init(const struct boot_framebuffer *fb)
{
    if (fb->base == 0 || fb->stride < fb->width || fb->stride > 0x10000 || fb->height > 0x10000)
        return;
    find_glyphs();
    screen = *fb;
    columns = screen.width / GLYPH_WIDTH < MAX_COLUMNS ? screen.width / GLYPH_WIDTH : MAX_COLUMNS;
    rows = screen.height / glyph_height < MAX_ROWS ? screen.height / glyph_height : MAX_ROWS;
    memset(cells, ' ', sizeof(cells));
    memset(drawn, ' ', sizeof(drawn));
    _Static_assert(COLOR_BACKGROUND == 0, "the screen is cleared by memset()");
    memset((void *)screen.base, 0, (size_t)screen.stride * screen.height * sizeof(uint32_t));
}

void framebuffer_stop(void)
{
    columns = 0;
}

static void draw(unsigned y, unsigned x, char c)
{
    // Two pixels by two bits of the glyph, the left one in the low half.
    static const uint64_t pairs[4] = {COLOR_BACKGROUND, (uint64_t)COLOR_TEXT << 32, COLOR_TEXT,
                                      (uint64_t)COLOR_TEXT << 32 | COLOR_TEXT};
    const uint8_t *glyph = glyphs[c - FIRST_CHARACTER];
    uint8_t *line =
        (uint8_t *)screen.base + ((uint64_t)y * glyph_height * screen.stride + x * GLYPH_WIDTH) * 4;

    for (unsigned i = 0; i < glyph_height; i++, line += screen.stride * 4ul) {
        unsigned bits = glyph ? glyph[i] : 0;

        for (unsigned pair = 0; pair < GLYPH_WIDTH / 2; pair++)
            memcpy(line + 8 * pair, &pairs[bits >> (6 - 2 * pair) & 3], 8);
    }
}

static void new_line(void)
{
    column = 0;
    if (row + 1 < rows) {
        row++;
        return;
    }
    memmove(cells[0], cells[1], (rows - 1) * sizeof(cells[0]));
    memset(cells[rows - 1], ' ', sizeof(cells[0]));
    memset(stale, true, rows);
}

void framebuffer_put(char c)
{
    if (columns == 0 || rows == 0)
        return;
    if (c == '\n' || column == columns)
        new_line();
    if (c == '\n')
        return;
    stale[row] = true;
    cells[row][column++] = c >= FIRST_CHARACTER && c <= LAST_CHARACTER ? c : '?';
}

// The newest rows first.
bool framebuffer_draw(void)
{
    unsigned y = columns > 0 ? rows : 0;

    while (y > 0 && !stale[y - 1])
        y--;
    if (y-- == 0)
        return false;
    for (unsigned x = 0; x < columns; x++)
        if (drawn[y][x] != cells[y][x])
            draw(y, x, cells[y][x]);
    memcpy(drawn[y], cells[y], columns);
    stale[y] = false;
    return true;
}
