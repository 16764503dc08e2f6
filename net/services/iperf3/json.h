// SPDX-License-Identifier: BSD-2-Clause
// Reading JSON that a client sent: a parsed document (by jsmn) and the few questions asked of it.
// Every index is checked, whatever the text was. Pure functions: any core, also on Linux in tests.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_token {
    int type, start, end, size, parent;
};

struct json_document {
    const char *text;
    struct json_token *tokens;
    int count;
};

// Parses `len` bytes into at most `max` tokens. False: malformed, no object, or too many tokens.
bool json_parse(struct json_document *doc, const char *text, size_t len, struct json_token *tokens,
                int max);

// The index of an object's member's value; -1: not an object, or no such member. The root is 0.
int json_member(const struct json_document *doc, int object, const char *name);

// The index of an array's first element or of the element after `element`; -1: there is none.
int json_first(const struct json_document *doc, int array);
int json_next(const struct json_document *doc, int array, int element);

bool json_is_array(const struct json_document *doc, int value);
bool json_is_true(const struct json_document *doc, int value);

// A number that is not negative, without its fraction; too large ones give UINT64_MAX. False: it is
// none.
bool json_number(const struct json_document *doc, int value, uint64_t *out);

// A string as it stands in the text (escapes are not resolved), cut to fit. False: it is none.
bool json_string(const struct json_document *doc, int value, char *out, size_t size);
