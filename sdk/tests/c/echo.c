/* A whole plugin in C: service `echo` answers its payload, service `ask` asks
 * demo/other's `echo` through the host. */
#include "modunest.h"
#include <stdlib.h>
#include <string.h>

static void give_back(uint8_t *ptr, size_t len, size_t capacity) {
    (void)len;
    (void)capacity;
    free(ptr);
}

static int32_t answer(modunest_buffer *out, int32_t status, const void *bytes, size_t len) {
    if (len > 0) {
        out->ptr = malloc(len);
        if (out->ptr == NULL)
            return MODUNEST_UNAVAILABLE;
        memcpy(out->ptr, bytes, len);
        out->len = out->capacity = len;
        out->free = give_back;
    }
    return status;
}

static modunest_bytes bytes_of(const char *text) {
    modunest_bytes bytes = {(const uint8_t *)text, strlen(text)};
    return bytes;
}

static int is(modunest_bytes bytes, const char *text) {
    return bytes.len == strlen(text) && memcmp(bytes.ptr, text, bytes.len) == 0;
}

static int32_t create(const modunest_host_table *host, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    if (host->abi_version != MODUNEST_ABI_VERSION || host->size < sizeof *host)
        return MODUNEST_UNSUPPORTED;
    if (config.len > 0)
        return answer(error, MODUNEST_INVALID_INPUT, "no configuration wanted", 23);
    host->log(host->context, MODUNEST_LEVEL_INFO, bytes_of("hello from C"));
    *out = (void *)host;
    return MODUNEST_OK;
}

static void destroy(void *instance) { (void)instance; }

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    const modunest_host_table *host = instance;
    if (request->kind != MODUNEST_SERVICE)
        return MODUNEST_UNSUPPORTED;
    if (is(request->target, "echo"))
        return answer(out, MODUNEST_OK, request->payload.ptr, request->payload.len);
    if (is(request->target, "ask")) {
        modunest_service_call call = {0};
        call.size = sizeof call;
        call.plugin = bytes_of("demo/other");
        call.service = bytes_of("echo");
        call.payload = request->payload;
        call.trace = request->trace;
        call.deadline_ms = request->deadline_ms;
        return host->call_service(host->context, &call, out);
    }
    return answer(out, MODUNEST_NOT_FOUND, "no such service", 15);
}

static int32_t healthy(void *instance, modunest_buffer *out) {
    (void)instance;
    (void)out;
    return MODUNEST_OK;
}

static int32_t restore(void *instance, modunest_bytes snapshot, modunest_buffer *error) {
    (void)instance;
    (void)error;
    return snapshot.len == 0 ? MODUNEST_OK : MODUNEST_UNSUPPORTED;
}

static const modunest_plugin_table TABLE = {
    sizeof(modunest_plugin_table), MODUNEST_ABI_VERSION, create, destroy, call,
    healthy, healthy, restore, healthy,
};

const modunest_plugin_table *modunest_plugin_v1(void) { return &TABLE; }
