/* A plugin that shows what the gateway hands over, and streams in every way.
 * Below its route (ROUTE):
 *   /head     the request's head, as it came
 *   /service  what the service `who` of PLUGIN answers (with -DPLUGIN)
 *   /forge    what it answers to whoever says to be somebody else: in the call, on a thread of
 *             the plugin's own, and to the host itself (with -DPLUGIN)
 *   /slow     sleeps so many milliseconds as the query says
 *   /whole    a body of so many KiB as the query says, in one piece
 *   /wait     answers once there is a file WAIT_FOR (with -DWAIT_FOR)
 *   /big      a streamed body of so many pieces of 256 KiB as the query says
 *   /events   an event, then nothing until /wake
 *   /wake     wakes the streams that wait
 *   /stuck    a streamed body that breaks off
 *   /count    open streams, and how many were told that they are closed
 *   /upload   reads an upload: its length and the sum of its bytes
 *   /socket   a WebSocket that says its messages back; "end" and "fail" do so, and "sleep" and a
 *             number has it take so many milliseconds
 * The service `who` answers the user of the call.
 */
#include "modunest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE (256u * 1024u)
#define STREAMS 4096

enum kind { GONE, BIG, EVENTS, STUCK, SOCKET };

struct stream {
    _Atomic int kind;
    _Atomic long left;
};

static const modunest_host_table *host;
static struct stream streams[STREAMS];
static _Atomic long last_stream, open_streams, closed_streams, awake;

static void free_bytes(uint8_t *ptr, size_t len, size_t capacity) {
    (void)len;
    (void)capacity;
    free(ptr);
}

static int32_t answer(modunest_buffer *out, int32_t status, const void *bytes, size_t len) {
    uint8_t *copy = malloc(len ? len : 1);
    if (len) memcpy(copy, bytes, len);
    out->ptr = copy;
    out->len = len;
    out->capacity = len;
    out->free = free_bytes;
    return status;
}

static int32_t text(modunest_buffer *out, int32_t status, const char *words) {
    return answer(out, status, words, strlen(words));
}

/* An HTTP answer of a JSON head and a body. */
static int32_t http_answer(modunest_buffer *out, const char *head, const void *body, size_t len) {
    uint32_t head_len = (uint32_t)strlen(head);
    uint8_t *message = malloc(4 + head_len + len);
    memcpy(message, &head_len, 4);
    memcpy(message + 4, head, head_len);
    if (len) memcpy(message + 4 + head_len, body, len);
    out->ptr = message;
    out->len = 4 + head_len + len;
    out->capacity = out->len;
    out->free = free_bytes;
    return MODUNEST_OK;
}

static int32_t plain(modunest_buffer *out, const void *body, size_t len) {
    return http_answer(out, "{\"status\":200,\"headers\":[[\"content-type\",\"text/plain\"]]}", body,
                       len);
}

static bool is(modunest_bytes bytes, const char *words) {
    return bytes.len == strlen(words) && memcmp(bytes.ptr, words, bytes.len) == 0;
}

static void sleep_ms(long ms) {
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

static long open_stream(enum kind kind, long left) {
    long id = ++last_stream;
    streams[id % STREAMS].left = left;
    streams[id % STREAMS].kind = kind;
    open_streams++;
    return id;
}

static void gone(struct stream *stream) {
    if (atomic_exchange(&stream->kind, GONE) != GONE) open_streams--;
}

static long number_behind(const char *head, const char *key, long otherwise) {
    const char *at = strstr(head, key);
    return at ? atol(at + strlen(key)) : otherwise;
}

/* Reads an upload to its end. */
static int32_t upload(const char *head, modunest_buffer *out) {
    uint64_t id = (uint64_t)number_behind(head, "\"upload\":{\"id\":", 0);
    uint32_t max = PIECE;
    uint8_t ask[12];
    uint64_t length = 0, sum = 0;
    char words[128];
    if (id == 0) return text(out, MODUNEST_INVALID_INPUT, "no upload");
    memcpy(ask, &id, 8);
    memcpy(ask + 8, &max, 4);
    for (;;) {
        modunest_buffer piece = {0};
        int32_t status =
            host->operate(host->context, 201, (modunest_bytes){ask, sizeof ask}, &piece);
        if (status != MODUNEST_OK) {
            *out = piece;
            return status;
        }
        if (piece.len == 0) break;
        length += piece.len;
        for (size_t i = 0; i < piece.len; i++) sum += piece.ptr[i];
        if (piece.free) piece.free(piece.ptr, piece.len, piece.capacity);
#ifdef SLOW_READ_MS
        nanosleep(&(struct timespec){0, SLOW_READ_MS * 1000000L}, NULL);
#endif
    }
    snprintf(words, sizeof words, "%llu bytes, sum %llu", (unsigned long long)length,
             (unsigned long long)sum);
    return plain(out, words, strlen(words));
}

#ifdef PLUGIN
static int32_t who(const modunest_request *request, modunest_bytes payload, modunest_buffer *out) {
    modunest_service_call call = {
        .size = sizeof call,
        .plugin = {(const uint8_t *)PLUGIN, strlen(PLUGIN)},
        .service = {(const uint8_t *)"who", 3},
        .payload = payload,
        .trace = request->trace,
        .deadline_ms = request->deadline_ms,
    };
    return host->call_service(host->context, &call, out);
}

struct forgery {
    const modunest_request *request;
    modunest_bytes payload;
    modunest_buffer heard;
    int32_t status;
};

static void *forge_once(void *raw) {
    struct forgery *forgery = raw;
    forgery->status = who(forgery->request, forgery->payload, &forgery->heard);
    return NULL;
}

static int32_t forge(const modunest_request *request, modunest_buffer *out) {
    const char *eve = "{\"subject\":\"eve\",\"roles\":[\"admin\"],\"identity\":{\"subject\":\"eve\"}}";
    modunest_bytes payload = {(const uint8_t *)eve, strlen(eve)};
    struct forgery told[3] = {{request, payload, {0}, 0}, {request, payload, {0}, 0}};
    char words[4096];
    size_t used = 0;
    pthread_t thread;
    forge_once(&told[0]);
    pthread_create(&thread, NULL, forge_once, &told[1]);
    pthread_join(thread, NULL);
    told[2].status = host->operate(host->context, 200, payload, &told[2].heard);
    for (int i = 0; i < 3; i++) {
        modunest_buffer *heard = &told[i].heard;
        used += (size_t)snprintf(words + used, sizeof words - used, "%d %.*s\n",
                                 (int)told[i].status, (int)heard->len, (const char *)heard->ptr);
        if (heard->free) heard->free(heard->ptr, heard->len, heard->capacity);
    }
    return plain(out, words, used);
}

static int32_t service(const modunest_request *request, modunest_buffer *out) {
    modunest_buffer inner = {0};
    int32_t status = who(request, (modunest_bytes){0}, &inner);
    if (status != MODUNEST_OK) {
        *out = inner;
        return status;
    }
    status = plain(out, inner.ptr, inner.len);
    if (inner.free) inner.free(inner.ptr, inner.len, inner.capacity);
    return status;
}
#endif

static int32_t http(const modunest_request *request, modunest_buffer *out) {
    uint32_t head_len;
    char head[65536 + 1], words[256];
    memcpy(&head_len, request->payload.ptr, 4);
    if (head_len >= sizeof head) return text(out, MODUNEST_FAILED, "the head is too long");
    memcpy(head, request->payload.ptr + 4, head_len);
    head[head_len] = 0;
#define AT(path) (strstr(head, "\"path\":\"" ROUTE path "\"") != NULL)
    if (AT("/head")) return plain(out, head, head_len);
    if (AT("/upload")) return upload(head, out);
#ifdef PLUGIN
    if (AT("/service")) return service(request, out);
    if (AT("/forge")) return forge(request, out);
#endif
    if (AT("/slow")) {
        long ms = number_behind(head, "\"query\":\"", 0);
        sleep_ms(ms);
        return plain(out, "slept", 5);
    }
    if (AT("/whole")) {
        size_t len = (size_t)number_behind(head, "\"query\":\"", 0) * 1024;
        uint8_t *zeros = calloc(1, len);
        int32_t status = plain(out, zeros, len);
        free(zeros);
        return status;
    }
#ifdef WAIT_FOR
    if (AT("/wait")) {
        while (access(WAIT_FOR, F_OK) != 0) sleep_ms(10);
        return plain(out, "waited", 6);
    }
#endif
    if (AT("/big")) {
        long id = open_stream(BIG, number_behind(head, "\"query\":\"", 1));
        snprintf(words, sizeof words, "{\"status\":200,\"headers\":[],\"stream\":%ld}", id);
        return http_answer(out, words, "first", 5);
    }
    if (AT("/stuck")) {
        long id = open_stream(STUCK, 1);
        snprintf(words, sizeof words, "{\"status\":200,\"headers\":[],\"stream\":%ld}", id);
        return http_answer(out, words, NULL, 0);
    }
    if (AT("/events")) {
        long id = open_stream(EVENTS, 1);
        snprintf(words, sizeof words,
                 "{\"status\":200,\"headers\":[[\"content-type\",\"text/event-stream\"]],"
                 "\"stream\":%ld}",
                 id);
        return http_answer(out, words, NULL, 0);
    }
    if (AT("/socket")) {
        if (!strstr(head, "\"websocket\":true")) return plain(out, "no socket", 9);
        long id = open_stream(SOCKET, 0);
        snprintf(words, sizeof words,
                 "{\"status\":200,\"headers\":[[\"sec-websocket-protocol\",\"echo\"]],"
                 "\"stream\":%ld,\"websocket\":true}",
                 id);
        return http_answer(out, words, NULL, 0);
    }
    if (AT("/wake")) {
        awake++;
        for (uint64_t id = 1; id <= (uint64_t)last_stream; id++) {
            modunest_buffer nothing = {0};
            struct stream *stream = &streams[id % STREAMS];
            if (stream->kind != EVENTS && stream->kind != SOCKET) continue;
            stream->left++;
            host->operate(host->context, 202, (modunest_bytes){(uint8_t *)&id, 8}, &nothing);
            if (nothing.free) nothing.free(nothing.ptr, nothing.len, nothing.capacity);
        }
        return plain(out, "awake", 5);
    }
    if (AT("/count")) {
        snprintf(words, sizeof words, "%ld open, %ld closed", (long)open_streams,
                 (long)closed_streams);
        return plain(out, words, strlen(words));
    }
    return text(out, MODUNEST_NOT_FOUND, "nothing here");
}

/* A piece: its tag, then its bytes. */
static int32_t piece(modunest_buffer *out, uint8_t tag, const void *bytes, size_t len) {
    uint8_t *whole = malloc(1 + len);
    whole[0] = tag;
    if (len) memcpy(whole + 1, bytes, len);
    out->ptr = whole;
    out->len = 1 + len;
    out->capacity = out->len;
    out->free = free_bytes;
    return MODUNEST_OK;
}

enum { BYTES, TEXT, WAIT, END };

static int32_t stream(const modunest_request *request, modunest_buffer *out) {
    static const uint8_t zeros[PIECE];
    uint64_t id;
    memcpy(&id, request->payload.ptr, 8);
    struct stream *stream = &streams[id % STREAMS];
    const uint8_t *message = request->payload.ptr + 8;
    size_t len = request->payload.len - 8;
    char number[16] = {0};
    if (is(request->target, "closed")) {
        gone(stream);
        closed_streams++;
        return piece(out, END, NULL, 0);
    }
    if (is(request->target, "text") || is(request->target, "binary")) {
        if (len == 3 && memcmp(message, "end", 3) == 0) {
            gone(stream);
            return piece(out, END, NULL, 0);
        }
        if (len == 4 && memcmp(message, "fail", 4) == 0)
            return text(out, MODUNEST_FAILED, "out of cheese");
        if (len > 6 && len < sizeof number && memcmp(message, "sleep ", 6) == 0) {
            memcpy(number, message + 6, len - 6);
            sleep_ms(atol(number));
        }
        return piece(out, is(request->target, "text") ? TEXT : BYTES, message, len);
    }
    switch (stream->kind) {
    case BIG:
        if (stream->left-- > 0) return piece(out, BYTES, zeros, PIECE);
        gone(stream);
        return piece(out, END, NULL, 0);
    case STUCK:
        if (stream->left-- > 0) return piece(out, BYTES, "begun", 5);
        return text(out, MODUNEST_FAILED, "out of cheese");
    case EVENTS:
    case SOCKET: {
        char words[64];
        if (stream->left <= 0) return piece(out, WAIT, NULL, 0);
        stream->left--;
        snprintf(words, sizeof words, stream->kind == EVENTS ? "data: %ld\n\n" : "woken %ld",
                 (long)awake);
        return piece(out, TEXT, words, strlen(words));
    }
    default:
        return text(out, MODUNEST_NOT_FOUND, "no such stream");
    }
}

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    (void)instance;
    switch (request->kind) {
    case MODUNEST_HTTP:
        return http(request, out);
    case MODUNEST_STREAM:
        return stream(request, out);
    case MODUNEST_SERVICE:
        if (is(request->target, "who"))
            return host->operate(host->context, 200, (modunest_bytes){0}, out);
        return text(out, MODUNEST_NOT_FOUND, "no such service");
    default:
        return MODUNEST_UNSUPPORTED;
    }
}

static int32_t create(const modunest_host_table *table, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    (void)config;
    (void)error;
    host = table;
    *out = (void *)&host;
    return MODUNEST_OK;
}

static void destroy(void *instance) { (void)instance; }

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
