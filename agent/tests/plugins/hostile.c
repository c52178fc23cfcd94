/* A plugin that attacks: /bad/ACTION does one thing, perhaps with the request's body, and answers
 * what came of it. With CONSTRUCTOR it tries everything before anybody calls it; LIE makes its
 * table one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "modunest.h"

#ifndef LIE
#define LIE 0
#endif

static const modunest_host_table *host;
/* "target" of the configuration: a file of somebody else. */
static char target[512];
static char constructed[4096] = "nothing";

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

static int32_t page(modunest_buffer *out, const char *body, size_t body_len) {
    const char *head = "{\"status\":200,\"headers\":[[\"content-type\",\"text/plain\"]]}";
    uint32_t head_len = (uint32_t)strlen(head);
    char *message = malloc(4 + head_len + body_len);
    int32_t status;
    memcpy(message, &head_len, 4);
    memcpy(message + 4, head, head_len);
    memcpy(message + 4 + head_len, body, body_len);
    status = answer(out, MODUNEST_OK, message, 4 + head_len + body_len);
    free(message);
    return status;
}

/* What an attempt came to: its name, and "done" or why not. */
static void note(char *out, size_t room, const char *name, long result) {
    size_t used = strlen(out);
    snprintf(out + used, room - used, "%s: %s\n", name, result < 0 ? strerror(errno) : "DONE");
}

static int overflow(int depth) {
    volatile char piece[4096];
    piece[0] = (char)depth;
    return overflow(depth + 1) + piece[0];
}

static void *nothing_at_all(void *unused) { return unused; }

/* Ends when its creator says so: threads that ended by themselves would use nothing up. */
static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static void *until_let_go(void *unused) {
    pthread_mutex_lock(&held);
    pthread_mutex_unlock(&held);
    return unused;
}

/* As many threads at a time as it gets; all are ended, unless it gets all of them: then somebody
 * must have noticed. */
static int as_many_threads(int most) {
    pthread_t *threads = calloc((size_t)most, sizeof *threads);
    pthread_attr_t small;
    int n = 0, i;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    pthread_mutex_lock(&held);
    while (n < most && !pthread_create(&threads[n], &small, until_let_go, 0)) n++;
    if (n == most) sleep(1000);
    pthread_mutex_unlock(&held);
    for (i = 0; i < n; i++) pthread_join(threads[i], 0);
    free(threads);
    return n;
}

static void *flood(void *unused) {
    modunest_bytes line = {(const uint8_t *)"flood", 5};
    for (;;) host->log(host->context, MODUNEST_LEVEL_INFO, line);
    return unused;
}

/* A file of its own that it may only read; of no name while there is no host to ask. */
static void name_own(char *out, size_t room) {
    modunest_bytes folder;
    out[0] = 0;
    if (!host) return;
    folder = host->assets_dir(host->context);
    snprintf(out, room, "%.*s/plugin.toml", (int)folder.len, (const char *)folder.ptr);
}

/* A MiB of new memory, of a kind. */
static char *map(int flags) {
    char *piece = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    return piece == MAP_FAILED ? 0 : piece;
}

/* As much memory of a kind as it gets, all of it used; answers in MiB how much that was, and why no
 * more. */
static void use_up(char *out, size_t room, int most, char *piece_of(void)) {
    int mib = 0;
    char *piece = 0;
    errno = 0;
    while (mib < most && (piece = piece_of())) mib++;
    snprintf(out, room, "%d MiB: %s", mib, piece ? "UNBOUNDED" : strerror(errno));
}

static char *allocated(void) {
    char *piece = malloc(1 << 20);
    return piece ? memset(piece, 1, 1 << 20) : 0;
}

static char *shared(void) {
    char *piece = map(MAP_SHARED);
    return piece ? memset(piece, 1, 1 << 20) : 0;
}

static char *like_a_stack(void) {
    char *piece = map(MAP_PRIVATE | MAP_GROWSDOWN);
    return piece ? memset(piece, 1, 1 << 20) : 0;
}

/* What is writable no more is not counted as data. */
static char *read_only(void) {
    char *piece = map(MAP_PRIVATE);
    if (!piece) return 0;
    memset(piece, 1, 1 << 20);
    return mprotect(piece, 1 << 20, PROT_READ) ? 0 : piece;
}

/* Everything that needs no victim's help; all of it must be refused. */
static void attack(char *out, size_t room) {
    struct rlimit limit = {1 << 20, 1 << 20};
    struct iovec own = {out, 16}, other = {(void *)0x400000, 16};
    struct sockaddr_un name = {AF_UNIX, "/run/attack.sock"};
    char memory[64], environment[64], file[600];
    long how[3] = {O_RDONLY | O_TRUNC};
    DIR *folder;
    long pid;
    out[0] = 0;
    /* Runners are children of the agent, whatever they were forked from. */
    snprintf(memory, sizeof memory, "/proc/%d/mem", getppid());
    snprintf(environment, sizeof environment, "/proc/%d/environ", getppid());
    errno = 0;
    note(out, room, "fork", (pid = syscall(SYS_fork)));
    if (pid == 0) _exit(0);
    note(out, room, "vfork by clone", (pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)));
    if (pid == 0) _exit(0);
    note(out, room, "execve", execl("/bin/true", "true", (char *)0));
    note(out, room, "socket inet", socket(AF_INET, SOCK_STREAM, 0));
    note(out, room, "socket unix", socket(AF_UNIX, SOCK_STREAM, 0));
    note(out, room, "socket netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    note(out, room, "socketpair of datagrams", socketpair(AF_UNIX, SOCK_DGRAM, 0, (int[2]){0, 0}));
    note(out, room, "connect", syscall(SYS_connect, 0, &name, sizeof name));
    note(out, room, "ptrace", ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    note(out, room, "process_vm_readv", process_vm_readv(getppid(), &own, 1, &other, 1, 0));
    note(out, room, "process_vm_writev", process_vm_writev(getppid(), &own, 1, &other, 1, 0));
    note(out, room, "kill agent", kill(getppid(), SIGCONT));
    note(out, room, "kill all", kill(-1, SIGCONT));
    note(out, room, "tgkill agent", syscall(SYS_tgkill, getppid(), getppid(), SIGCONT));
    note(out, room, "tkill agent", syscall(SYS_tkill, getppid(), SIGCONT));
    note(out, room, "rt_sigqueueinfo", syscall(SYS_rt_sigqueueinfo, getppid(), SIGCONT, 0));
    note(out, room, "pidfd_open", syscall(SYS_pidfd_open, getppid(), 0));
    note(out, room, "signals by F_SETOWN", fcntl(0, F_SETOWN, getppid()));
    note(out, room, "outlive the agent", prctl(PR_SET_PDEATHSIG, 0));
    note(out, room, "be traced", prctl(PR_SET_PTRACER, -1L, 0, 0, 0));
    note(out, room, "limits of the agent", prlimit(getppid(), RLIMIT_NOFILE, &limit, 0));
    note(out, room, "more open files", setrlimit(RLIMIT_NOFILE, &limit));
    note(out, room, "namespaces", unshare(CLONE_NEWUSER));
    note(out, room, "mount", syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, 0));
    note(out, room, "setuid", syscall(SYS_setuid, 0));
    note(out, room, "capset", syscall(SYS_capset, 0, 0));
    note(out, room, "bpf", syscall(SYS_bpf, 0, 0, 0));
    note(out, room, "perf_event_open", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
    note(out, room, "io_uring_setup", syscall(SYS_io_uring_setup, 1, 0));
    note(out, room, "userfaultfd", syscall(SYS_userfaultfd, 0));
    note(out, room, "keyctl", syscall(SYS_keyctl, 0, 0));
    note(out, room, "memfd_create", syscall(SYS_memfd_create, "x", 0));
    note(out, room, "shmget", shmget(IPC_PRIVATE, 4096, IPC_CREAT));
    note(out, room, "shared memory", map(MAP_SHARED) ? 0 : -1);
    note(out, room, "shared memory, validated", map(MAP_SHARED_VALIDATE) ? 0 : -1);
    note(out, room, "shared memory by a device", open("/dev/zero", O_RDWR));
    note(out, room, "shared memory by a file", open("/dev/shm/attack", O_CREAT | O_RDWR, 0600));
    note(out, room, "memory as a stack", map(MAP_PRIVATE | MAP_GROWSDOWN) ? 0 : -1);
    note(out, room, "open_by_handle_at", syscall(SYS_open_by_handle_at, 0, 0, 0));
    note(out, room, "terminal input", ioctl(0, TIOCSTI, "x"));
    note(out, room, "list /", (folder = opendir("/")) ? 0 : -1);
    note(out, room, "read /etc/passwd", open("/etc/passwd", O_RDONLY));
    note(out, room, "read the agent's memory", open(memory, O_RDONLY));
    note(out, room, "write the agent's memory", open(memory, O_RDWR));
    note(out, room, "read the agent's environment", open(environment, O_RDONLY));
    note(out, room, "read its own maps", open("/proc/self/maps", O_RDONLY));
    note(out, room, "make a file in /tmp", open("/tmp/attack", O_CREAT | O_WRONLY, 0600));
    note(out, room, "make a folder in /tmp", mkdir("/tmp/attack-folder", 0700));
    note(out, room, "read the target", open(target, O_RDONLY));
    note(out, room, "write the target", open(target, O_WRONLY));
    note(out, room, "shorten the target", truncate(target, 0));
    note(out, room, "remove the target", unlink(target));
    note(out, room, "rename the target", rename(target, "/tmp/attack"));
    note(out, room, "open up the target", chmod(target, 0777));
    note(out, room, "give away the target", chown(target, 1, 1));
    note(out, room, "date the target", utimensat(AT_FDCWD, target, 0, 0));
    name_own(file, sizeof file);
    note(out, room, "empty its own file, and read it", open(file, O_RDONLY | O_TRUNC));
    note(out, room, "empty its own file, and write it", open(file, O_WRONLY | O_TRUNC));
    note(out, room, "empty its own file, and neither", open(file, O_ACCMODE | O_TRUNC));
    note(out, room, "empty its own file, by a pointer",
         syscall(SYS_openat2, AT_FDCWD, file, how, sizeof how));
    note(out, room, "watch the target", syscall(SYS_inotify_init1, 0));
}

#ifdef CONSTRUCTOR
__attribute__((constructor)) static void before_everything(void) {
    attack(constructed, sizeof constructed);
}
#endif
#ifdef CONSTRUCTOR_ABORTS
__attribute__((constructor)) static void before_everything(void) {
    fprintf(stderr, "goodbye from the constructor\n");
    abort();
}
#endif

/* What an ordinary library does must still work. */
static void ordinary(char *out, size_t room) {
    pthread_t thread;
    int pair[2];
    char *large;
    out[0] = 0;
    errno = 0;
    note(out, room, "thread", pthread_create(&thread, 0, nothing_at_all, 0) ? -1 : 0);
    pthread_join(thread, 0);
    note(out, room, "socketpair of streams", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    close(pair[0]), close(pair[1]);
    note(out, room, "pipe", pipe(pair));
    close(pair[0]), close(pair[1]);
    large = malloc(8 << 20);
    memset(large, 1, 8 << 20);
    note(out, room, "8 MiB", large ? 0 : -1);
    free(large);
    {
        char own[600];
        name_own(own, sizeof own);
        note(out, room, "its own files", open(own, O_RDONLY));
        note(out, room, "write its own files", open(own, O_WRONLY));
    }
}

/* Sends bytes into everything that is open. */
static void send_everywhere(const void *bytes, size_t len, int times) {
    int fd, n;
    for (n = 0; n < times; n++)
        for (fd = 3; fd < 64; fd++) send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Writes as much into a file as it may hold; answers in MiB how long it became, and why no
 * longer. */
static void fill(char *out, size_t room, const char *path) {
    static char piece[1 << 20];
    int fd, mib = 0;
    signal(SIGXFSZ, SIG_IGN);
    errno = 0;
    fd = open(path, O_CREAT | O_WRONLY, 0600);
    while (fd >= 0 && mib < 64 && write(fd, piece, sizeof piece) == sizeof piece) mib++;
    snprintf(out, room, "%d MiB: %s", mib, strerror(errno));
    close(fd);
}

/* Writes so many small files as its body says first into the folder that it says then. */
static void scatter(const char *body) {
    static char piece[4096];
    char folder[512], path[600];
    int count = 0, n, fd;
    if (sscanf(body, "%d %511s", &count, folder) != 2) return;
    for (n = 0; n < count; n++) {
        snprintf(path, sizeof path, "%s/%d", folder, n);
        fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0 || write(fd, piece, sizeof piece) < 0) return;
        close(fd);
    }
}

static int32_t act(const char *action, const char *body, modunest_buffer *out) {
    static char text[8192];
    text[0] = 0;
    if (!strcmp(action, "ping")) return page(out, "pong", 4);
    if (!strcmp(action, "parent")) snprintf(text, sizeof text, "%d", getppid());
    if (!strcmp(action, "fill")) fill(text, sizeof text, body);
    if (!strcmp(action, "scatter")) scatter(body);
    if (!strcmp(action, "attack")) attack(text, sizeof text);
    if (!strcmp(action, "ordinary")) ordinary(text, sizeof text);
    if (!strcmp(action, "constructed")) snprintf(text, sizeof text, "%s", constructed);
    if (!strcmp(action, "abort")) {
        fprintf(stderr, "first words\nmy last words\n");
        abort();
    }
    if (!strcmp(action, "segfault")) *(volatile int *)8 = 1;
    if (!strcmp(action, "overflow")) return overflow(0);
    if (!strcmp(action, "exit")) exit(3);
    if (!strcmp(action, "loop"))
        for (;;) *(volatile char *)text = 1;
    if (!strcmp(action, "loop-until"))
        while (access(body, F_OK)) continue;
    if (!strcmp(action, "sleep")) sleep(1000);
    if (!strcmp(action, "memory")) use_up(text, sizeof text, 4096, allocated);
    if (!strcmp(action, "memory-shared")) use_up(text, sizeof text, 4096, shared);
    if (!strcmp(action, "memory-stack")) use_up(text, sizeof text, 4096, like_a_stack);
    if (!strcmp(action, "memory-read-only")) {
        /* Four times what it may have: somebody must have noticed. */
        use_up(text, sizeof text, 512, read_only);
        if (strstr(text, "UNBOUNDED")) sleep(1000);
    }
    if (!strcmp(action, "files")) {
        int n = 0;
        while (n < 65536 && dup(0) >= 0) n++;
        snprintf(text, sizeof text, "%s", n < 2048 ? "bounded" : "UNBOUNDED");
    }
    if (!strcmp(action, "threads")) {
        /* Their stacks together have 25 MiB, which no limit of memory keeps it from. */
        snprintf(text, sizeof text, "%s", as_many_threads(400) < 400 ? "bounded" : "UNBOUNDED");
    }
    if (!strcmp(action, "kill")) note(text, sizeof text, "kill", kill(atoi(body), SIGKILL));
    if (!strcmp(action, "malformed")) {
        send_everywhere("\xff\xff\xff\xff no message at all, but long enough for one", 48, 1);
        sleep(1000);
    }
    if (!strcmp(action, "oversize")) {
        char *much = calloc(1, 100000);
        send_everywhere(much, 100000, 1);
        sleep(1000);
    }
    if (!strcmp(action, "unread")) {
        /* Asks for operations, in the right form, and reads no answer. */
        unsigned char ask[32] = {51};
        ask[4] = 1;
        send_everywhere(ask, sizeof ask, 100000);
        sleep(1000);
    }
    if (!strcmp(action, "lying-length")) {
        /* Done, with a body in memory that is longer than any may be. */
        unsigned char done[32] = {48, 0, 1, 0};
        memset(done + 12, 0xff, 4);
        send_everywhere(done, sizeof done, 1);
        sleep(1000);
    }
    if (!strcmp(action, "hang-up")) {
        int fd;
        for (fd = 3; fd < 64; fd++) close(fd);
        sleep(1000);
    }
    if (!strcmp(action, "flood")) {
        pthread_t thread;
        note(text, sizeof text, "flood", pthread_create(&thread, 0, flood, 0) ? -1 : 0);
    }
    if (!strcmp(action, "write-without-end"))
        for (;;)
            if (write(2, text, sizeof text) < 0) break;
    if (!strcmp(action, "large")) {
        size_t len = 17u << 20;
        char *much = calloc(1, len);
        int32_t status = answer(out, MODUNEST_OK, much, len);
        free(much);
        return status;
    }
    if (!strcmp(action, "wild-answer")) {
        out->ptr = (uint8_t *)8;
        out->len = 1 << 20;
        return MODUNEST_OK;
    }
    if (!strcmp(action, "unknown-status")) return 12345;
    return page(out, text, strlen(text));
}

static int32_t create(const modunest_host_table *table, modunest_bytes config, void **out,
                      modunest_buffer *error) {
    const char *begin = config.len ? memmem(config.ptr, config.len, "\"target\":\"", 10) : 0;
    (void)error;
    host = table;
    if (begin) {
        size_t n = 0;
        for (begin += 10; begin[n] != '"' && n + 1 < sizeof target; n++) target[n] = begin[n];
    }
    *out = malloc(1);
    return MODUNEST_OK;
}

static void destroy(void *instance) { free(instance); }

/* The service: so many bytes as its payload says. */
static int32_t as_long(modunest_bytes payload, modunest_buffer *out) {
    char digits[32];
    size_t len, n;
    int32_t status;
    uint8_t *bytes;
    snprintf(digits, sizeof digits, "%.*s", (int)payload.len, (const char *)payload.ptr);
    len = strtoul(digits, 0, 10);
    bytes = malloc(len + 1);
    for (n = 0; n < len; n++) bytes[n] = (uint8_t)(n % 251);
    status = answer(out, MODUNEST_OK, bytes, len);
    free(bytes);
    return status;
}

static int32_t call(void *instance, const modunest_request *request, modunest_buffer *out) {
    char action[64], body[512];
    size_t n = 0, body_len;
    uint32_t head_len;
    int32_t status;
    const char *begin;
    (void)instance;
    if (request->kind == MODUNEST_SERVICE) return as_long(request->payload, out);
    if (request->kind != MODUNEST_HTTP) return MODUNEST_UNSUPPORTED;
    memcpy(&head_len, request->payload.ptr, 4);
    body_len = request->payload.len - 4 - head_len;
    if (body_len >= sizeof body) body_len = sizeof body - 1;
    memcpy(body, request->payload.ptr + 4 + head_len, body_len);
    body[body_len] = 0;
    begin = memmem(request->payload.ptr, request->payload.len, "/bad/", 5);
    if (!begin) return MODUNEST_NOT_FOUND;
    for (begin += 5; n + 1 < sizeof action && begin[n] != '"'; n++) action[n] = begin[n];
    action[n] = 0;
    status = act(action, body, out);
    if (LIE == 7) out->free = (void *)8;
    if (LIE == 8) out->capacity = 1;
    return status;
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

/* A table as a later version of the same ABI may have it: with one function more. */
static const struct {
    modunest_plugin_table known;
    void *more;
} plugin_table = {
    {
        LIE == 4   ? sizeof(modunest_plugin_table) - 8
        : LIE == 9 ? sizeof plugin_table
                   : sizeof(modunest_plugin_table),
        LIE == 5    ? MODUNEST_ABI_VERSION + 1
        : LIE == 10 ? 0
                    : MODUNEST_ABI_VERSION,
        LIE == 2 ? (void *)8 : create,
        destroy,
        LIE == 6 ? (void *)8 : call,
        nothing,
        nothing,
        LIE == 1 ? 0 : restore,
        nothing,
    },
    (void *)8,
};

const modunest_plugin_table *modunest_plugin_v1(void) {
    return LIE == 3 ? (const modunest_plugin_table *)8 : &plugin_table.known;
}
