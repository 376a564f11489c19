#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints width-table.h: what text.c must know of Unicode. Usage: width-table.py > width-table.h

Ranges run on over code points that are not assigned, which keeps the tables short.
"""
import sys
import unicodedata

PER_LINE = 4


def category(c):
    return unicodedata.category(chr(c))


def hidden(c):
    """Nothing that a terminal shows, and some that make it show other things than there are."""
    return category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")


def zero(c):
    conjoining = 0x1160 <= c <= 0x11ff  # Hangul vowels and finals, drawn into the syllable
    return conjoining or category(c) in ("Mn", "Me")


def wide(c):
    return unicodedata.east_asian_width(chr(c)) in ("W", "F") and not zero(c)


def ranges(wanted):
    found = []
    for c in range(sys.maxunicode + 1):
        if category(c) == "Cn":
            continue
        if not wanted(c):
            found.append(None)
        elif found and found[-1]:
            found[-1] = (found[-1][0], c)
        else:
            found.append((c, c))
    return [r for r in found if r]


def table(name, what, wanted):
    cells = [f"{{ 0x{a:x}, 0x{b:x} }}," for a, b in ranges(wanted)]
    print(f"\n/* {what} */\nstatic const struct width_range width_{name}[] = {{")
    for i in range(0, len(cells), PER_LINE):
        print("\t" + " ".join(cells[i:i + PER_LINE]))
    print("};")


print(f"""/* SPDX-License-Identifier: Apache-2.0 */
/* Made by width-table.py from Unicode {unicodedata.unidata_version}. Each table is in ascending order. */
/* clang-format off */
#ifndef KYB_CTL_WIDTH_TABLE_H
#define KYB_CTL_WIDTH_TABLE_H

#include <stdint.h>

struct width_range {{
	uint32_t first, last;
}};""")
table("hidden", "Controls, format characters (bidirectional overrides among them), private use.", hidden)
table("zero", "Combining: no column of their own.", zero)
table("wide", "Two columns.", wide)
print("\n#endif")
