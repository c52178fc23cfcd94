/* A plugin that answers what it is given, as fast as one can, and measures calls from within. */
#include "modunest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const modunest_host_table *host;
/* Requests so far; a successor goes on counting. */
static _Atomic long count;

static void release(uint8_t *ptr, size_t len, size_t capacity) {
    (void)len, (void)capacity;
    free(ptr);
}

static int32_t answer(const void *bytes, size_t len, modunest_buffer *out) {
    out->ptr = malloc(len + 1);
    if (!out->ptr) return MODUNEST_FAILED;
    if (len) memcpy(out->ptr, bytes, len);
    out->len = len;
    out->capacity = len + 1;
    out->free = release;
    return MODUNEST_OK;
}

/* The work alone, for whoever calls it by its pointer. */
__attribute__((visibility("default"))) int32_t bench_echo(const uint8_t *bytes, size_t len,
                                                          modunest_buffer *out) {
    return answer(bytes, len, out);
}

static int32_t create(const modunest_host_table *table, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    (void)config, (void)error;
    host = table;
    *out = &count;
    return MODUNEST_OK;
}

static void destroy(void *instance) { (void)instance; }

static int is(modunest_bytes bytes, const char *word, size_t len) {
    return bytes.len == len && memcmp(bytes.ptr, word, len) == 0;
}

/* Calls `echo` of the plugin behind the two numbers in the payload: so often, with so many
   bytes. Answers the nanoseconds that one call took. */
static int32_t ask(const modunest_request *request, modunest_buffer *out) {
    struct timespec begun, ended;
    modunest_service_call call;
    uint32_t numbers[2];
    uint8_t *bytes;
    char text[32];
    double took;
    if (request->payload.len <= sizeof numbers) return MODUNEST_INVALID_INPUT;
    memcpy(numbers, request->payload.ptr, sizeof numbers);
    bytes = calloc(numbers[1] + 1, 1);
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.plugin.ptr = request->payload.ptr + sizeof numbers;
    call.plugin.len = request->payload.len - sizeof numbers;
    call.service.ptr = (const uint8_t *)"echo";
    call.service.len = 4;
    call.payload.ptr = bytes;
    call.payload.len = numbers[1];
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (uint32_t done = 0; done < numbers[0]; done++) {
        modunest_buffer inner = {0};
        int32_t status = host->call_service(host->context, &call, &inner);
        size_t len = inner.len;
        if (status != MODUNEST_OK) {
            free(bytes);
            *out = inner;
            return status;
        }
        if (inner.free) inner.free(inner.ptr, inner.len, inner.capacity);
        if (len != numbers[1]) {
            free(bytes);
            return MODUNEST_FAILED;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    free(bytes);
    took = (double)(ended.tv_sec - begun.tv_sec) * 1e9 + (double)(ended.tv_nsec - begun.tv_nsec);
    return answer(text, (size_t)snprintf(text, sizeof text, "%.3f", took / numbers[0]), out);
}

/* Answers how many requests there were. */
static int32_t http(modunest_buffer *out) {
    static const char head[] = "{\"status\":200,\"headers\":[[\"content-type\",\"text/plain\"]]}";
    char message[4 + sizeof head + 32];
    uint32_t head_len = sizeof head - 1;
    int len;
    memcpy(message, &head_len, 4);
    memcpy(message + 4, head, head_len);
    len = snprintf(message + 4 + head_len, 32, "%ld", ++count);
    return answer(message, 4 + head_len + (size_t)len, out);
}

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    (void)instance;
    if (request->kind == MODUNEST_HTTP) return http(out);
    if (request->kind != MODUNEST_SERVICE) return MODUNEST_UNSUPPORTED;
    if (is(request->target, "echo", 4))
        return answer(request->payload.ptr, request->payload.len, out);
    if (is(request->target, "ask", 3)) return ask(request, out);
    return MODUNEST_NOT_FOUND;
}

static int32_t nothing(void *instance, modunest_buffer *out) {
    (void)instance, (void)out;
    return MODUNEST_OK;
}

static int32_t snapshot(void *instance, modunest_buffer *out) {
    char text[32];
    (void)instance;
    return answer(text, (size_t)snprintf(text, sizeof text, "%ld", count), out);
}

static int32_t restore(void *instance, modunest_bytes state, modunest_buffer *error) {
    char text[32];
    (void)instance, (void)error;
    if (state.len >= sizeof text) return MODUNEST_INVALID_INPUT;
    memcpy(text, state.ptr, state.len);
    text[state.len] = 0;
    count = atol(text);
    return MODUNEST_OK;
}

__attribute__((visibility("default"))) const modunest_plugin_table *modunest_plugin_v1(void) {
    static const modunest_plugin_table plugin = {
        sizeof(modunest_plugin_table), MODUNEST_ABI_VERSION, create, destroy, call, nothing,
        snapshot, restore, nothing};
    return &plugin;
}
