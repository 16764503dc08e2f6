// SPDX-License-Identifier: BSD-2-Clause
// Questions to a JSON document that a client sent. jsmn finds the tokens; it does not promise that
// they make sense together, so nothing here trusts their order or sizes.
#include "net/services/iperf3/json.h"

#include <string.h>

#define JSMN_STATIC
#define JSMN_STRICT
#define JSMN_PARENT_LINKS // without them deep nesting takes quadratic time
#include <jsmn.h>

_Static_assert(sizeof(struct json_token) == sizeof(jsmntok_t), "json_token is jsmn's token");
_Static_assert(offsetof(struct json_token, end) == offsetof(jsmntok_t, end), "in the same order");
_Static_assert(offsetof(struct json_token, size) == offsetof(jsmntok_t, size), "to the last");
_Static_assert(offsetof(struct json_token, parent) == offsetof(jsmntok_t, parent), "but one");

bool json_parse(struct json_document *doc, const char *text, size_t len, struct json_token *tokens,
                int max)
{
    jsmn_parser parser;
    jsmn_init(&parser);
    int count = jsmn_parse(&parser, text, len, (jsmntok_t *)(void *)tokens, (unsigned)max);
    *doc = (struct json_document){.text = text, .tokens = tokens, .count = count > 0 ? count : 0};
    return count > 0 && tokens[0].type == JSMN_OBJECT;
}

// The first token that begins after `at` has ended.
static int after(const struct json_document *doc, int at)
{
    int next = at + 1;
    while (next < doc->count && doc->tokens[next].start < doc->tokens[at].end)
        next++;
    return next;
}

static bool inside(const struct json_document *doc, int at, int outer)
{
    return at < doc->count && doc->tokens[at].start < doc->tokens[outer].end;
}

static bool is(const struct json_document *doc, int at, int type)
{
    return at >= 0 && at < doc->count && doc->tokens[at].type == type;
}

int json_member(const struct json_document *doc, int object, const char *name)
{
    if (!is(doc, object, JSMN_OBJECT))
        return -1;
    size_t len = strlen(name);
    for (int key = object + 1; inside(doc, key, object);) {
        const struct json_token *token = &doc->tokens[key];
        if (token->type != JSMN_STRING || token->size != 1 || !inside(doc, key + 1, object))
            return -1;
        if ((size_t)(token->end - token->start) == len &&
            !memcmp(doc->text + token->start, name, len))
            return key + 1;
        key = after(doc, key + 1);
    }
    return -1;
}

int json_first(const struct json_document *doc, int array)
{
    return json_is_array(doc, array) && inside(doc, array + 1, array) ? array + 1 : -1;
}

int json_next(const struct json_document *doc, int array, int element)
{
    int next = after(doc, element);
    return inside(doc, next, array) ? next : -1;
}

bool json_is_array(const struct json_document *doc, int value)
{
    return is(doc, value, JSMN_ARRAY);
}

bool json_is_true(const struct json_document *doc, int value)
{
    return is(doc, value, JSMN_PRIMITIVE) && doc->text[doc->tokens[value].start] == 't';
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static uint64_t times_ten_plus(uint64_t n, unsigned more)
{
    uint64_t result;
    if (__builtin_mul_overflow(n, 10, &result) || __builtin_add_overflow(result, more, &result))
        return UINT64_MAX;
    return result;
}

// "[eE][+-]?digits" at *at: the exponent, between -99 and 99; 0 if there is none.
static int exponent(const char *at, const char *end)
{
    if (at == end || (*at != 'e' && *at != 'E'))
        return 0;
    at++;
    bool negative = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+'))
        at++;
    int n = 0;
    for (; at < end && digit(*at); at++)
        n = n < 10 ? n * 10 + (*at - '0') : 99;
    return negative ? -n : n;
}

bool json_number(const struct json_document *doc, int value, uint64_t *out)
{
    if (!is(doc, value, JSMN_PRIMITIVE))
        return false;
    const char *at = doc->text + doc->tokens[value].start;
    const char *end = doc->text + doc->tokens[value].end;
    if (at == end || !digit(*at))
        return false;
    const char *point = at;
    while (point < end && digit(*point))
        point++;
    const char *tail = point;
    if (tail < end && *tail == '.')
        do
            tail++;
        while (tail < end && digit(*tail));
    int scale = exponent(tail, end);
    // Take digits as far as the exponent moves the point, zeros where there are no more.
    uint64_t n = 0;
    long take = (long)(point - at) + scale;
    for (; take > 0; take--) {
        if (at == point && at < tail)
            at++; // over the point
        n = times_ten_plus(n, at < tail ? (unsigned)(*at - '0') : 0);
        if (at < tail)
            at++;
    }
    *out = n;
    return true;
}

bool json_string(const struct json_document *doc, int value, char *out, size_t size)
{
    if (!is(doc, value, JSMN_STRING))
        return false;
    const struct json_token *token = &doc->tokens[value];
    size_t len = (size_t)(token->end - token->start);
    if (len >= size)
        len = size - 1;
    memcpy(out, doc->text + token->start, len);
    out[len] = 0;
    return true;
}
