/* Prints what the header says, one fact a line; tests/header.rs compares. */
#include "modunest.h"
#include <stdio.h>

#define SIZE(type) printf("size %s %zu\n", #type, sizeof(type))
#define OFFSET(type, field) printf("offset %s.%s %zu\n", #type, #field, offsetof(type, field))
#define VALUE(name) printf("value %s %lld\n", #name, (long long)(name))

int main(void) {
    SIZE(modunest_bytes);
    OFFSET(modunest_bytes, ptr);
    OFFSET(modunest_bytes, len);

    SIZE(modunest_buffer);
    OFFSET(modunest_buffer, ptr);
    OFFSET(modunest_buffer, len);
    OFFSET(modunest_buffer, capacity);
    OFFSET(modunest_buffer, free);

    SIZE(modunest_request);
    OFFSET(modunest_request, size);
    OFFSET(modunest_request, kind);
    OFFSET(modunest_request, target);
    OFFSET(modunest_request, payload);
    OFFSET(modunest_request, trace);
    OFFSET(modunest_request, caller);
    OFFSET(modunest_request, deadline_ms);

    SIZE(modunest_service_call);
    OFFSET(modunest_service_call, size);
    OFFSET(modunest_service_call, flags);
    OFFSET(modunest_service_call, plugin);
    OFFSET(modunest_service_call, service);
    OFFSET(modunest_service_call, payload);
    OFFSET(modunest_service_call, trace);
    OFFSET(modunest_service_call, deadline_ms);

    SIZE(modunest_host_table);
    OFFSET(modunest_host_table, size);
    OFFSET(modunest_host_table, abi_version);
    OFFSET(modunest_host_table, context);
    OFFSET(modunest_host_table, log);
    OFFSET(modunest_host_table, call_service);
    OFFSET(modunest_host_table, now_ms);
    OFFSET(modunest_host_table, assets_dir);
    OFFSET(modunest_host_table, operate);

    SIZE(modunest_plugin_table);
    OFFSET(modunest_plugin_table, size);
    OFFSET(modunest_plugin_table, abi_version);
    OFFSET(modunest_plugin_table, create);
    OFFSET(modunest_plugin_table, destroy);
    OFFSET(modunest_plugin_table, call);
    OFFSET(modunest_plugin_table, health);
    OFFSET(modunest_plugin_table, snapshot);
    OFFSET(modunest_plugin_table, restore);
    OFFSET(modunest_plugin_table, stop);

    VALUE(MODUNEST_ABI_VERSION);
    VALUE(MODUNEST_MAX_MESSAGE_BYTES);
    VALUE(MODUNEST_MAX_ERROR_TEXT_BYTES);
    VALUE(MODUNEST_OK);
    VALUE(MODUNEST_FAILED);
    VALUE(MODUNEST_PANICKED);
    VALUE(MODUNEST_UNSUPPORTED);
    VALUE(MODUNEST_INVALID_INPUT);
    VALUE(MODUNEST_NOT_FOUND);
    VALUE(MODUNEST_UNAVAILABLE);
    VALUE(MODUNEST_DEADLINE_EXCEEDED);
    VALUE(MODUNEST_DENIED);
    VALUE(MODUNEST_SERVICE);
    VALUE(MODUNEST_HTTP);
    VALUE(MODUNEST_LIFECYCLE);
    VALUE(MODUNEST_EVENT);
    VALUE(MODUNEST_GUARD);
    VALUE(MODUNEST_STREAM);
    VALUE(MODUNEST_LEVEL_ERROR);
    VALUE(MODUNEST_LEVEL_WARN);
    VALUE(MODUNEST_LEVEL_INFO);
    VALUE(MODUNEST_LEVEL_DEBUG);
    VALUE(MODUNEST_LEVEL_TRACE);
    return 0;
}
