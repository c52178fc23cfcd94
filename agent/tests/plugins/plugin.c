/* A plugin for tests; what it does is chosen by the macros below. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "modunest.h"

#ifndef NAME
#define NAME "plugin"
#endif

#ifndef HTTP_STATUS
#define HTTP_STATUS 200
#endif
#define TEXT(value) #value
#define VALUE(macro) TEXT(macro)

static const modunest_host_table *host;

#ifdef STATE
/* Counts requests, and hands the count to its successor. */
static _Atomic long count;
#endif

#ifdef SCHEDULED
static char turns[512];
static size_t turns_len;
#endif

#if defined HOLD_TURNS || defined HOLD_CALLS
/* Turns, and requests for /hold, last until a request for /go. */
static _Atomic int is_going;
#endif

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

static int32_t create(const modunest_host_table *table, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    (void)config;
    host = table;
#ifdef LEAK_CONFIG
    /* Whoever reads this text reads the configuration. */
    (void)out;
    return answer(error, MODUNEST_FAILED, config.ptr, config.len);
#endif
#ifdef CHECK_CONFIG
    if (config.len != strlen(CHECK_CONFIG) || memcmp(config.ptr, CHECK_CONFIG, config.len))
        return text(error, MODUNEST_FAILED, "another configuration was expected");
#endif
#ifdef SLOW_CREATE_S
    sleep(SLOW_CREATE_S);
#endif
#ifdef SLOW_CREATE_MS
    usleep(SLOW_CREATE_MS * 1000);
#endif
#ifdef FAIL_CREATE
    (void)out;
    return text(error, MODUNEST_FAILED, "no license server");
#endif
#ifdef NEEDS_FILE
    if (access(NEEDS_FILE, F_OK)) return text(error, MODUNEST_FAILED, "no license file");
#endif
    (void)error;
    *out = malloc(1);
    return MODUNEST_OK;
}

static void destroy(void *instance) { free(instance); }

static int is(modunest_bytes bytes, const char *word) {
    return bytes.len == strlen(word) && memcmp(bytes.ptr, word, bytes.len) == 0;
}

/* Calls `service` of `plugin` with `payload` and hands its answer on. */
static int32_t forward(const char *plugin, const char *service, modunest_bytes payload,
                       const modunest_request *request, modunest_buffer *out) {
    modunest_service_call call;
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.plugin.ptr = (const uint8_t *)plugin;
    call.plugin.len = strlen(plugin);
    call.service.ptr = (const uint8_t *)service;
    call.service.len = strlen(service);
    call.payload = payload;
    call.trace = request->trace;
    call.deadline_ms = request->deadline_ms;
    return host->call_service(host->context, &call, out);
}

#ifdef OPERATE
/* Asks the host for the operation whose number is the path's last part, with the request's
   body, and answers what the host answered: its status in a header. */
static int32_t operate(const modunest_request *request, modunest_buffer *out) {
    const char *form = "{\"status\":200,\"headers\":[[\"x-status\",\"%d\"]]}";
    const uint8_t *payload = request->payload.ptr;
    modunest_buffer inner;
    modunest_bytes body;
    char head[128];
    uint32_t head_len;
    uint32_t at = 0;
    int32_t status;
    uint8_t *message;
    memset(&inner, 0, sizeof inner);
    memcpy(&head_len, payload, 4);
    body.ptr = payload + 4 + head_len;
    body.len = request->payload.len - 4 - head_len;
    while (at + 5 < head_len && memcmp(payload + 4 + at, "/ask/", 5)) at++;
    /* A quote ends the number. */
    status = host->operate(host->context, (uint32_t)atoi((const char *)payload + 9 + at), body,
                           &inner);
    head_len = (uint32_t)snprintf(head, sizeof head, form, (int)status);
    message = malloc(4 + head_len + inner.len);
    memcpy(message, &head_len, 4);
    memcpy(message + 4, head, head_len);
    if (inner.len) memcpy(message + 4 + head_len, inner.ptr, inner.len);
    answer(out, MODUNEST_OK, message, 4 + head_len + inner.len);
    free(message);
    if (inner.free) inner.free(inner.ptr, inner.len, inner.capacity);
    return MODUNEST_OK;
}
#endif

static int32_t http(const modunest_request *request, modunest_buffer *out) {
    modunest_bytes path = request->payload;
    modunest_buffer inner;
    char body[512];
    char message[1024];
    const char *head =
        "{\"status\":" VALUE(HTTP_STATUS) ",\"headers\":[[\"content-type\",\"text/plain\"]]}";
    uint32_t head_len = (uint32_t)strlen(head);
    int body_len;
    memset(&inner, 0, sizeof inner);
#ifdef OPERATE
    return operate(request, out);
#endif
#ifdef FORWARD_PLUGIN
    {
        modunest_bytes name = {(const uint8_t *)NAME, strlen(NAME)};
        int32_t status = forward(FORWARD_PLUGIN, "echo", name, request, &inner);
        if (status != MODUNEST_OK) {
            *out = inner;
            return status;
        }
    }
#endif
#ifdef SLOW_CALL_S
    sleep(SLOW_CALL_S);
#endif
#ifdef CRASH_CALL
    abort();
#endif
#ifdef FAIL_CALL
    return text(out, MODUNEST_FAILED, "out of cheese");
#endif
#ifdef PANIC_CALL
    return text(out, MODUNEST_PANICKED, "index out of bounds");
#endif
#ifdef HOLD_CALLS
    if (memmem(path.ptr, path.len, "/go\"", 4)) is_going = 1;
    while (!is_going && memmem(path.ptr, path.len, "/hold\"", 6)) usleep(1000);
#endif
    (void)path;
    body_len = snprintf(body, sizeof body, "%s says %.*s", NAME, (int)inner.len,
                        inner.ptr ? (const char *)inner.ptr : "hello");
    if (!inner.ptr) body_len = snprintf(body, sizeof body, "%s says hello", NAME);
#ifdef STATE
    body_len = snprintf(body, sizeof body, "%s counts %ld", NAME, ++count);
#endif
#ifdef SCHEDULED
    body_len = snprintf(body, sizeof body, "%.*s", (int)turns_len, turns);
#endif
#ifdef HOLD_TURNS
    if (memmem(path.ptr, path.len, "\"/go\"", 5)) is_going = 1;
#endif
    if (inner.free) inner.free(inner.ptr, inner.len, inner.capacity);
    memcpy(message, &head_len, 4);
    memcpy(message + 4, head, head_len);
    memcpy(message + 4 + head_len, body, (size_t)body_len);
    return answer(out, MODUNEST_OK, message, 4 + head_len + (size_t)body_len);
}

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    (void)instance;
    switch (request->kind) {
    case MODUNEST_SERVICE:
#ifdef FORWARD_ECHO
        if (is(request->target, "echo"))
            return forward(FORWARD_ECHO, "echo", request->payload, request, out);
#endif
        if (is(request->target, "echo")) {
            char words[512];
            int len = snprintf(words, sizeof words, "%.*s via %s", (int)request->payload.len,
                               (const char *)request->payload.ptr, NAME);
            return answer(out, MODUNEST_OK, words, (size_t)len);
        }
#ifdef FORWARD_PLUGIN
        /* A circle of calls, for the bound on their depth. */
        if (is(request->target, "loop"))
            return forward(FORWARD_PLUGIN, "loop", request->payload, request, out);
#endif
        return text(out, MODUNEST_NOT_FOUND, "no such service");
    case MODUNEST_HTTP:
        return http(request, out);
#ifdef HANG_HOOK
    case MODUNEST_LIFECYCLE:
        /* Longer than any test. */
        if (is(request->target, HANG_HOOK)) sleep(1000);
        return MODUNEST_OK;
#endif
#ifdef HOOK_LOG
    case MODUNEST_LIFECYCLE: {
        /* Each moment of its life, on a line of this file. */
        FILE *moments = fopen(HOOK_LOG, "a");
        if (!moments) return MODUNEST_FAILED;
        fprintf(moments, "%s %.*s\n", NAME, (int)request->target.len,
                (const char *)request->target.ptr);
        fclose(moments);
        return MODUNEST_OK;
    }
#endif
#ifdef SCHEDULED
    case MODUNEST_EVENT:
        if (!is(request->target, SCHEDULED)) return text(out, MODUNEST_NOT_FOUND, "no such schedule");
        /* What it was called with, each on a line. */
        if (turns_len + request->payload.len < sizeof turns) {
            memcpy(turns + turns_len, request->payload.ptr, request->payload.len);
            turns_len += request->payload.len;
            turns[turns_len++] = '\n';
        }
#ifdef HOLD_TURNS
        while (!is_going) usleep(1000);
#endif
        return MODUNEST_OK;
#endif
    default:
        return MODUNEST_UNSUPPORTED;
    }
}

static int32_t nothing(void *instance, modunest_buffer *out) {
    (void)instance;
    (void)out;
    return MODUNEST_OK;
}

static int32_t health(void *instance, modunest_buffer *out) {
    (void)instance;
#ifdef SICK
    return text(out, MODUNEST_FAILED, "it has a cold");
#endif
#ifdef SICK_AFTER
    if (count > SICK_AFTER) return text(out, MODUNEST_FAILED, "it has had enough");
#endif
    (void)out;
    return MODUNEST_OK;
}

static int32_t snapshot(void *instance, modunest_buffer *out) {
    (void)instance;
#ifdef STATE
    char words[32];
    int len = snprintf(words, sizeof words, "%ld", count);
    return answer(out, MODUNEST_OK, words, (size_t)len);
#endif
    (void)out;
    return MODUNEST_OK;
}

static int32_t restore(void *instance, modunest_bytes snapshot, modunest_buffer *error) {
    (void)instance;
    (void)snapshot;
    (void)error;
#ifdef FAIL_RESTORE
    return text(error, MODUNEST_FAILED, "it cannot read that");
#endif
#ifdef STATE
    {
        char words[32];
        memcpy(words, snapshot.ptr, snapshot.len);
        words[snapshot.len] = 0;
        count = atol(words);
    }
#endif
    return MODUNEST_OK;
}

static const modunest_plugin_table plugin_table = {
    sizeof(modunest_plugin_table), MODUNEST_ABI_VERSION, create, destroy, call,
    health, snapshot, restore, nothing,
};

const modunest_plugin_table *modunest_plugin_v1(void) { return &plugin_table; }
