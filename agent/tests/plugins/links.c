/*
 * A plugin for tests of services, guards and events. It does what the body of a request says:
 *
 *   publish EVENT PAYLOAD            publishes an event
 *   call PLUGIN SERVICE PAYLOAD      calls a service by name
 *   open PLUGIN:SERVICE              answers the handle in hexadecimal digits, then the version
 *   handle HEX METHOD PAYLOAD        calls a service by handle; the method "-" is none
 *   seen                             answers what its guards and events saw, a line each
 *
 * Guards and services do what their names say; events what their payloads say.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "modunest.h"

#define OPEN_SERVICE 100
#define CALL_SERVICE 101
#define PUBLISH 110

static const modunest_host_table *host;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char seen[64 * 1024];
static int failures;

static void release(uint8_t *ptr, size_t len, size_t capacity) {
    (void)len;
    (void)capacity;
    free(ptr);
}

static int32_t answer(modunest_buffer *out, int32_t status, const void *bytes, size_t len) {
    out->ptr = malloc(len + 1);
    memcpy(out->ptr, bytes, len);
    out->len = len;
    out->capacity = len + 1;
    out->free = release;
    return status;
}

static int32_t text(modunest_buffer *out, int32_t status, const char *words) {
    return answer(out, status, words, strlen(words));
}

static int is(modunest_bytes bytes, const char *word) {
    return bytes.len == strlen(word) && memcmp(bytes.ptr, word, bytes.len) == 0;
}

static int begins(modunest_bytes bytes, const char *word) {
    return bytes.len >= strlen(word) && memcmp(bytes.ptr, word, strlen(word)) == 0;
}

static int contains(modunest_bytes bytes, const char *word) {
    return memmem(bytes.ptr, bytes.len, word, strlen(word)) != NULL;
}

static void note(const char *what, modunest_bytes bytes) {
    size_t used;
    pthread_mutex_lock(&lock);
    used = strlen(seen);
    snprintf(seen + used, sizeof seen - used, "%s %.*s\n", what,
             (int)(bytes.len < 80 ? bytes.len : 80), (const char *)bytes.ptr);
    pthread_mutex_unlock(&lock);
}

static int32_t create(const modunest_host_table *table, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    host = table;
#ifdef FAIL_CREATE
    return text(error, MODUNEST_FAILED, "no license server");
#endif
    (void)config;
    (void)error;
    *out = malloc(1);
    return MODUNEST_OK;
}

static void destroy(void *instance) { free(instance); }

/* Cuts the next word off. */
static modunest_bytes word(modunest_bytes *rest) {
    modunest_bytes taken = {rest->ptr, 0};
    while (taken.len < rest->len && rest->ptr[taken.len] != ' ') taken.len++;
    rest->ptr += taken.len + (taken.len < rest->len);
    rest->len -= taken.len + (taken.len < rest->len);
    return taken;
}

/* A length, a name and a payload behind `front`. */
static int32_t operate(uint32_t number, const uint8_t *front, size_t front_len,
                       modunest_bytes name, modunest_bytes payload, modunest_buffer *out) {
    uint8_t *bytes = malloc(front_len + 1 + name.len + payload.len);
    modunest_bytes request = {bytes, front_len + 1 + name.len + payload.len};
    int32_t status;
    memcpy(bytes, front, front_len);
    bytes[front_len] = (uint8_t)name.len;
    memcpy(bytes + front_len + 1, name.ptr, name.len);
    memcpy(bytes + front_len + 1 + name.len, payload.ptr, payload.len);
    status = host->operate(host->context, number, request, out);
    free(bytes);
    return status;
}

static int32_t open_service(modunest_bytes name, modunest_buffer *out) {
    modunest_buffer inner;
    char words[128];
    size_t at;
    int32_t status;
    memset(&inner, 0, sizeof inner);
    status = host->operate(host->context, OPEN_SERVICE, name, &inner);
    if (status != MODUNEST_OK) {
        *out = inner;
        return status;
    }
    for (at = 0; at < 16; at++) sprintf(words + 2 * at, "%02x", inner.ptr[at]);
    sprintf(words + 32, " %.*s", (int)(inner.len - 16), (const char *)inner.ptr + 16);
    inner.free(inner.ptr, inner.len, inner.capacity);
    return text(out, MODUNEST_OK, words);
}

static int32_t run(modunest_bytes rest, const modunest_request *request, modunest_buffer *out) {
    modunest_bytes command = word(&rest);
    if (is(command, "seen")) {
        int32_t status;
        pthread_mutex_lock(&lock);
        status = text(out, MODUNEST_OK, seen);
        pthread_mutex_unlock(&lock);
        return status;
    }
    if (is(command, "publish")) {
        modunest_bytes event = word(&rest);
        return operate(PUBLISH, NULL, 0, event, rest, out);
    }
    if (is(command, "open")) return open_service(rest, out);
    if (is(command, "handle")) {
        modunest_bytes hex = word(&rest), method = word(&rest);
        uint8_t handle[16];
        size_t at;
        for (at = 0; at < 16; at++) {
            char digits[3] = {(char)hex.ptr[2 * at], (char)hex.ptr[2 * at + 1], 0};
            handle[at] = (uint8_t)strtoul(digits, NULL, 16);
        }
        if (is(method, "-")) method.len = 0;
        return operate(CALL_SERVICE, handle, 16, method, rest, out);
    }
    if (is(command, "call")) {
        modunest_service_call call;
        memset(&call, 0, sizeof call);
        call.size = sizeof call;
        call.plugin = word(&rest);
        call.service = word(&rest);
        call.payload = rest;
        call.trace = request->trace;
        call.deadline_ms = request->deadline_ms;
        return host->call_service(host->context, &call, out);
    }
    return text(out, MODUNEST_INVALID_INPUT, "no such command");
}

static int32_t http(const modunest_request *request, modunest_buffer *out) {
    const char *head = "{\"status\":200,\"headers\":[[\"content-type\",\"text/plain\"]]}";
    uint32_t head_len, request_head_len;
    modunest_bytes body;
    modunest_buffer inner;
    uint8_t *message;
    int32_t status;
    memcpy(&request_head_len, request->payload.ptr, 4);
    body.ptr = request->payload.ptr + 4 + request_head_len;
    body.len = request->payload.len - 4 - request_head_len;
    memset(&inner, 0, sizeof inner);
    status = run(body, request, &inner);
    if (status != MODUNEST_OK) {
        *out = inner;
        return status;
    }
    head_len = (uint32_t)strlen(head);
    message = malloc(4 + head_len + inner.len);
    memcpy(message, &head_len, 4);
    memcpy(message + 4, head, head_len);
    memcpy(message + 4 + head_len, inner.ptr, inner.len);
    status = answer(out, MODUNEST_OK, message, 4 + head_len + inner.len);
    free(message);
    if (inner.free) inner.free(inner.ptr, inner.len, inner.capacity);
    return status;
}

static int32_t service(const modunest_request *request, modunest_buffer *out) {
    char words[512];
    if (contains(request->payload, "badly")) return text(out, MODUNEST_OK, "{\"size\":\"big\"}");
    if (begins(request->payload, "{")) return text(out, MODUNEST_OK, "{\"size\":1}");
    snprintf(words, sizeof words, "%.*s for %.*s says %.*s", (int)request->target.len,
             (const char *)request->target.ptr, (int)request->caller.len,
             (const char *)request->caller.ptr, (int)request->payload.len,
             (const char *)request->payload.ptr);
    return text(out, MODUNEST_OK, words);
}

static int32_t guard(const modunest_request *request, modunest_buffer *out) {
    modunest_bytes name = request->target;
    note("guard", name);
    if (is(name, "allow")) return text(out, MODUNEST_OK, "allow");
    if (is(name, "deny")) return text(out, MODUNEST_OK, "deny:not on a Saturday");
    if (is(name, "team")) {
        int red = contains(request->payload, "[\"x-team\",\"red\"]");
        return text(out, MODUNEST_OK, red ? "allow" : "deny:only the red team");
    }
    if (is(name, "bodiless"))
        return text(out, MODUNEST_OK, contains(request->payload, "seen") ? "deny" : "allow");
    if (is(name, "maybe")) return text(out, MODUNEST_OK, "maybe");
    if (is(name, "fails")) return text(out, MODUNEST_FAILED, "the database is away: secret");
    if (is(name, "panics")) return text(out, MODUNEST_PANICKED, "index out of bounds");
    if (is(name, "late")) {
#ifdef GO
        /* Until this file is there. */
        while (access(GO, F_OK)) usleep(1000);
#else
        usleep(700 * 1000);
#endif
        return text(out, MODUNEST_OK, "allow");
    }
    return text(out, MODUNEST_UNSUPPORTED, "no such guard");
}

static int32_t event(const modunest_request *request, modunest_buffer *out) {
    if (begins(request->payload, "slow")) usleep(150 * 1000);
    if (begins(request->payload, "twice") && failures++ < 2) {
        note("failed", request->payload);
        return text(out, MODUNEST_FAILED, "not yet");
    }
#ifdef HOLDS
    if (begins(request->payload, "hold")) return text(out, MODUNEST_FAILED, "the next one shall");
#endif
    if (begins(request->payload, "never")) return text(out, MODUNEST_FAILED, "never");
    if (begins(request->payload, "bad")) return text(out, MODUNEST_INVALID_INPUT, "bad");
    note("event", request->payload);
    return MODUNEST_OK;
}

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    (void)instance;
    switch (request->kind) {
    case MODUNEST_SERVICE: return service(request, out);
    case MODUNEST_HTTP: return http(request, out);
    case MODUNEST_GUARD: return guard(request, out);
    case MODUNEST_EVENT: return event(request, out);
    default: return MODUNEST_UNSUPPORTED;
    }
}

static int32_t nothing(void *instance, modunest_buffer *out) {
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

static const modunest_plugin_table plugin_table = {
    sizeof(modunest_plugin_table), MODUNEST_ABI_VERSION, create, destroy, call,
    nothing, nothing, restore, nothing,
};

const modunest_plugin_table *modunest_plugin_v1(void) { return &plugin_table; }
