/*
 * Modu-Nest native plugin ABI, version 1.
 *
 * A plugin library exports one function, modunest_plugin_v1, which answers the
 * same table every time. The rules (who owns what, which threads call, how long
 * tables live) are those of the Rust module modunest_sdk::abi:
 *
 * - Tables and messages begin with their size in bytes. Fields are only ever
 *   added at the end; use a field only if the size covers it.
 * - modunest_bytes is borrowed for the call it is passed to. modunest_buffer is
 *   owned by its receiver, who calls its `free` once, from any thread and at any
 *   time, be it behind destroy. The caller hands in an empty (all zero) buffer.
 * - A function that can fail answers a modunest_status. On success the out buffer
 *   holds the answer, otherwise a UTF-8 text for people, possibly empty.
 * - Nothing unwinds across the border.
 * - Every function may be called from several threads at once, except create and
 *   destroy, which are the first and the last call of an instance, alone.
 * - The host table and its context stay valid until the process ends.
 */
#ifndef MODUNEST_H
#define MODUNEST_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MODUNEST_ABI_VERSION 1u
/* Most bytes of one payload or answer. */
#define MODUNEST_MAX_MESSAGE_BYTES (16u * 1024u * 1024u)
/* Most bytes of an error text; longer ones are cut. */
#define MODUNEST_MAX_ERROR_TEXT_BYTES (4u * 1024u)

/* Outcome of a call. New codes may be added; an unknown one means failed. */
typedef enum modunest_status {
    MODUNEST_OK = 0,
    MODUNEST_FAILED = 1,
    MODUNEST_PANICKED = 2,
    MODUNEST_UNSUPPORTED = 3,
    MODUNEST_INVALID_INPUT = 4,
    MODUNEST_NOT_FOUND = 5,
    MODUNEST_UNAVAILABLE = 6,
    MODUNEST_DEADLINE_EXCEEDED = 7,
    MODUNEST_DENIED = 8
} modunest_status;

/* What a request asks for. */
typedef enum modunest_request_kind {
    /* target: name of an exported service */
    MODUNEST_SERVICE = 1,
    /* target: the route's path; payload and answer: u32 little-endian length of
     * a JSON head, the head, the body (see modunest_sdk::http) */
    MODUNEST_HTTP = 2,
    /* target: before-load, after-load, before-unload, after-unload, on-error */
    MODUNEST_LIFECYCLE = 3,
    /* target: name of the event */
    MODUNEST_EVENT = 4,
    /* target: name of the guard; payload: u32 little-endian length of a JSON head
     * {"plugin", "target", "caller"}, the head, then nothing (a service is called)
     * or an HTTP request as above without its body; answer: "allow", "deny" or
     * "deny:" and a reason; everything else counts as deny */
    MODUNEST_GUARD = 5,
    /* target: next, text, binary or closed; payload: u64 little-endian number of
     * the stream, then the message; answer: a byte (0 bytes, 1 text, 2 wait,
     * 3 end), then the piece (see modunest_sdk::stream) */
    MODUNEST_STREAM = 6
} modunest_request_kind;

typedef enum modunest_level {
    MODUNEST_LEVEL_ERROR = 1,
    MODUNEST_LEVEL_WARN = 2,
    MODUNEST_LEVEL_INFO = 3,
    MODUNEST_LEVEL_DEBUG = 4,
    MODUNEST_LEVEL_TRACE = 5
} modunest_level;

/* Borrowed bytes; ptr may be null if len is zero. */
typedef struct modunest_bytes {
    const uint8_t *ptr;
    size_t len;
} modunest_bytes;

/* Bytes handed over. If free is not null, the receiver calls it once with the
 * buffer's ptr, len and capacity. */
typedef struct modunest_buffer {
    uint8_t *ptr;
    size_t len;
    size_t capacity;
    void (*free)(uint8_t *ptr, size_t len, size_t capacity);
} modunest_buffer;

/* A call to a plugin instance. */
typedef struct modunest_request {
    uint32_t size;
    uint32_t kind;           /* modunest_request_kind */
    modunest_bytes target;   /* UTF-8 */
    modunest_bytes payload;
    modunest_bytes trace;    /* W3C traceparent, or empty */
    modunest_bytes caller;   /* org/name of the calling plugin, or empty */
    uint64_t deadline_ms;    /* Unix time in milliseconds, or zero */
} modunest_request;

/* A call from a plugin to a service of another plugin. */
typedef struct modunest_service_call {
    uint32_t size;
    uint32_t flags;          /* zero */
    modunest_bytes plugin;   /* org/name */
    modunest_bytes service;
    modunest_bytes payload;
    modunest_bytes trace;    /* of the call being served, or empty */
    uint64_t deadline_ms;    /* of the call being served, or zero */
} modunest_service_call;

/* What a host offers. A null function is not offered. */
typedef struct modunest_host_table {
    uint32_t size;
    uint32_t abi_version;
    void *context;           /* handed back in every call */
    void (*log)(void *context, uint32_t level, modunest_bytes message);
    int32_t (*call_service)(void *context, const modunest_service_call *call,
                            modunest_buffer *out);
    uint64_t (*now_ms)(void *context); /* Unix time in milliseconds */
    /* UTF-8 path of the read-only folder into which the plugin was unpacked */
    modunest_bytes (*assets_dir)(void *context);
    /* An operation by its number: see modunest_sdk::operation */
    int32_t (*operate)(void *context, uint32_t operation, modunest_bytes request,
                       modunest_buffer *out);
} modunest_host_table;

/* What a plugin offers. No function may be null. */
typedef struct modunest_plugin_table {
    uint32_t size;
    uint32_t abi_version;
    int32_t (*create)(const modunest_host_table *host, modunest_bytes config,
                      void **out, modunest_buffer *error);
    void (*destroy)(void *instance);
    int32_t (*call)(void *instance, const modunest_request *request,
                    modunest_buffer *out);
    int32_t (*health)(void *instance, modunest_buffer *out);
    int32_t (*snapshot)(void *instance, modunest_buffer *out);
    int32_t (*restore)(void *instance, modunest_bytes snapshot,
                       modunest_buffer *error);
    int32_t (*stop)(void *instance, modunest_buffer *error);
} modunest_plugin_table;

/* The one symbol of a plugin library. */
const modunest_plugin_table *modunest_plugin_v1(void);

#ifdef __cplusplus
}
#endif

#endif /* MODUNEST_H */
