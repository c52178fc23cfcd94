/* A generated plugin: answers its number, which the compiler is given. */
#include "modunest.h"

#include <string.h>

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)

/* Something to read, hash, pack and map, and different in each library. */
static const uint64_t table[] = {
#define ROW(n) (PLUGIN_NUMBER * 2654435761u) ^ ((n) * 0x9e3779b97f4a7c15u)
#define ROWS(n) ROW(n), ROW((n) + 1), ROW((n) + 2), ROW((n) + 3)
    ROWS(0), ROWS(4), ROWS(8), ROWS(12), ROWS(16), ROWS(20), ROWS(24), ROWS(28),
    ROWS(32), ROWS(36), ROWS(40), ROWS(44), ROWS(48), ROWS(52), ROWS(56), ROWS(60)};
static const char number[] = TEXT(PLUGIN_NUMBER);
static int alive;

static int32_t create(const modunest_host_table *host, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    (void)host, (void)config, (void)error;
    *out = &alive;
    return MODUNEST_OK;
}

static void destroy(void *instance) { (void)instance; }

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    (void)instance;
    if (request->kind != MODUNEST_SERVICE) {
        return MODUNEST_UNSUPPORTED;
    }
    if (request->payload.len != 0) {
        /* Reads the table, so that it cannot be left out. */
        return table[request->payload.ptr[0] % 64] == 0 ? MODUNEST_NOT_FOUND : MODUNEST_FAILED;
    }
    out->ptr = (uint8_t *)number;
    out->len = strlen(number);
    return MODUNEST_OK;
}

static int32_t health(void *instance, modunest_buffer *out) {
    (void)instance, (void)out;
    return MODUNEST_OK;
}

static int32_t snapshot(void *instance, modunest_buffer *out) {
    (void)instance, (void)out;
    return MODUNEST_UNSUPPORTED;
}

static int32_t restore(void *instance, modunest_bytes state, modunest_buffer *error) {
    (void)instance, (void)state, (void)error;
    return MODUNEST_UNSUPPORTED;
}

static int32_t stop(void *instance, modunest_buffer *error) {
    (void)instance, (void)error;
    return MODUNEST_OK;
}

__attribute__((visibility("default"))) const modunest_plugin_table *modunest_plugin_v1(void) {
    static const modunest_plugin_table plugin = {
        sizeof(modunest_plugin_table), MODUNEST_ABI_VERSION, create, destroy, call, health,
        snapshot, restore, stop};
    return &plugin;
}
