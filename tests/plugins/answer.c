/* A whole plugin in C, told by macros what to be:
 *   ANSWER       the text that its service `say` and its routes answer
 *   ASK          org/name of a plugin whose `say` is added behind it
 *   FAIL_CREATE  the reason for which it cannot be made */
#include "modunest.h"
#include <stdlib.h>
#include <string.h>

static void give_back(uint8_t *ptr, size_t len, size_t capacity) {
    (void)len;
    (void)capacity;
    free(ptr);
}

/* Fills `out` with the concatenation of three pieces. */
static int32_t answer(modunest_buffer *out, int32_t status, modunest_bytes a, modunest_bytes b,
                      modunest_bytes c) {
    size_t len = a.len + b.len + c.len;
    if (len == 0)
        return status;
    out->ptr = malloc(len);
    if (out->ptr == NULL)
        return MODUNEST_UNAVAILABLE;
    if (a.len > 0)
        memcpy(out->ptr, a.ptr, a.len);
    if (b.len > 0)
        memcpy(out->ptr + a.len, b.ptr, b.len);
    if (c.len > 0)
        memcpy(out->ptr + a.len + b.len, c.ptr, c.len);
    out->len = out->capacity = len;
    out->free = give_back;
    return status;
}

static modunest_bytes text(const char *text) {
    modunest_bytes bytes = {(const uint8_t *)text, strlen(text)};
    return bytes;
}

static const modunest_bytes NOTHING = {NULL, 0};

static int32_t create(const modunest_host_table *host, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    (void)config;
#ifdef FAIL_CREATE
    (void)host;
    (void)out;
    return answer(error, MODUNEST_FAILED, text(FAIL_CREATE), NOTHING, NOTHING);
#else
    (void)error;
    *out = (void *)host;
    return MODUNEST_OK;
#endif
}

static void destroy(void *instance) { (void)instance; }

/* The length of the head and the head of a response (see modunest_sdk::http). */
static modunest_bytes head(void) {
    static const char JSON[] = "{\"status\":200,\"headers\":[[\"content-type\",\"text/plain\"]]}";
    static uint8_t bytes[4 + sizeof JSON - 1] = {sizeof JSON - 1, 0, 0, 0};
    memcpy(bytes + 4, JSON, sizeof JSON - 1);
    modunest_bytes head = {bytes, sizeof bytes};
    return head;
}

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    modunest_bytes start = request->kind == MODUNEST_HTTP ? head() : NOTHING;
    (void)instance;
    if (request->kind == MODUNEST_LIFECYCLE)
        return MODUNEST_OK;
    if (request->kind != MODUNEST_SERVICE && request->kind != MODUNEST_HTTP)
        return MODUNEST_UNSUPPORTED;
#ifdef ASK
    const modunest_host_table *host = instance;
    modunest_buffer said = {0};
    modunest_service_call ask = {0};
    ask.size = sizeof ask;
    ask.plugin = text(ASK);
    ask.service = text("say");
    ask.trace = request->trace;
    ask.deadline_ms = request->deadline_ms;
    int32_t status = host->call_service(host->context, &ask, &said);
    modunest_bytes bytes = {said.ptr, said.len};
    if (status == MODUNEST_OK)
        status = answer(out, MODUNEST_OK, start, text(ANSWER " "), bytes);
    else
        status = answer(out, status, text("asking failed: "), bytes, NOTHING);
    if (said.free != NULL)
        said.free(said.ptr, said.len, said.capacity);
    return status;
#else
    return answer(out, MODUNEST_OK, start, text(ANSWER), NOTHING);
#endif
}

static int32_t fine(void *instance, modunest_buffer *out) {
    (void)instance;
    (void)out;
    return MODUNEST_OK;
}

static int32_t restore(void *instance, modunest_bytes snapshot, modunest_buffer *error) {
    (void)instance;
    (void)snapshot;
    (void)error;
    return MODUNEST_OK;
}

static const modunest_plugin_table TABLE = {
    sizeof(modunest_plugin_table), MODUNEST_ABI_VERSION, create, destroy, call,
    fine, fine, restore, fine,
};

const modunest_plugin_table *modunest_plugin_v1(void) { return &TABLE; }
