// SPDX-License-Identifier: BSD-2-Clause
// What the compiler calls where the processor's base instruction set has no instruction.
int __popcountdi2(unsigned long value);

int __popcountdi2(unsigned long value)
{
    int bits = 0;

    for (; value; value &= value - 1)
        bits++;
    return bits;
}
