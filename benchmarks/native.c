/* The two ends of a fan-out, at the least that they can cost.
 *
 * native send
 *     prints its port, upgrades whoever comes, and at every POST send()s one frame to all.
 * native load SUBSCRIBERS IN_FLIGHT PUBLISHES PORT...
 *     connects and subscribes, spread over the ports, and prints in how many seconds; told to go on,
 *     publishes with so many requests in flight, counts the bytes that arrive, and prints seconds
 *     and its own CPU seconds until all have.
 * native delays SUBSCRIBERS OFFSET PORT...
 *     does the same; told "FROM COUNT", waits until so many frames have arrived, each with the
 *     nanosecond (CLOCK_MONOTONIC) at which it was due at OFFSET, and prints by how much each that
 *     was due at FROM or later was late.
 *
 * What is sent lies in files in the working directory: upgrade, subscribe, publish, frame.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 1 << 17, AT_ONCE = 128, BATCH = 256, STALLED = 60 };

typedef struct { char *bytes; size_t size; } Blob;

static char buffer[1 << 18];

static void fail(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vfprintf(stderr, format, words);
    fputc('\n', stderr);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static Blob blob(const char *name) {
    Blob found = {malloc(1 << 16), 0};
    FILE *file = fopen(name, "rb");
    if (!file) fail("no file %s", name);
    found.size = fread(found.bytes, 1, 1 << 16, file);
    fclose(file);
    return found;
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= MAX_FD || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) fail("epoll: %d", fd);
}

static void put(int fd, const void *bytes, size_t size) {
    if (send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
        fail("send: %s", strerror(errno));
}

/* The bare send loop */

static void send_loop(void) {
    static int everyone[MAX_FD], place[MAX_FD]; /* place: where in everyone, counted from 1 */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), count = 0, yes = 1;
    Blob frame = blob("frame");
    if (bind(listening, (void *)&address, length) || listen(listening, 2048)) fail("listen");
    getsockname(listening, (void *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    watch(epoll, listening);
    for (;;) {
        struct epoll_event events[BATCH];
        int found = epoll_wait(epoll, events, BATCH, -1);
        for (int i = 0; i < found; i++) {
            int fd = events[i].data.fd;
            if (fd == listening) {
                fd = accept(listening, NULL, NULL);
                if (fd < 0) fail("accept: %s", strerror(errno));
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                watch(epoll, fd);
                continue;
            }
            if (recv(fd, buffer, sizeof buffer, MSG_DONTWAIT) <= 0) {
                if (place[fd]) {
                    int last = everyone[--count];
                    everyone[place[fd] - 1] = last;
                    place[last] = place[fd];
                    place[fd] = 0;
                }
                close(fd);
            } else if (buffer[0] == 'G') {
                static const char hello[] = "HTTP/1.1 101 -\r\n\r\nconnection_established";
                put(fd, hello, sizeof hello - 1);
            } else if (buffer[0] == 'P') {
                static const char done[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                for (int each = 0; each < count; each++)
                    put(everyone[each], frame.bytes, frame.size);
                put(fd, done, sizeof done - 1);
            } else {
                everyone[count++] = fd;
                place[fd] = count;
                put(fd, "subscription_succeeded", 22);
            }
        }
    }
}

/* The load */

static int dial(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger at_once = {1, 0}; /* leaves no port behind that must wait */
    int fd = socket(AF_INET, SOCK_STREAM, 0), room = 1 << 18, yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (fd < 0 || connect(fd, (void *)&address, sizeof address))
        fail("connect: %s", strerror(errno));
    return fd;
}

static void crowd(int epoll, int size, int *ports, int n_ports) {
    static struct { char bytes[2048]; size_t size; int subscribed; } early[MAX_FD];
    Blob upgrade = blob("upgrade"), subscribe = blob("subscribe");
    for (int begun = 0, ready = 0; ready < size;) {
        struct epoll_event events[AT_ONCE];
        for (; begun < size && begun - ready < AT_ONCE; begun++) {
            int fd = dial(ports[begun % n_ports]);
            put(fd, upgrade.bytes, upgrade.size);
            watch(epoll, fd);
        }
        int found = epoll_wait(epoll, events, AT_ONCE, STALLED * 1000);
        if (found <= 0) fail("%d of %d have subscribed, and no more do", ready, size);
        for (int i = 0; i < found; i++) {
            int fd = events[i].data.fd;
            char *end = early[fd].bytes + early[fd].size;
            ssize_t count = recv(fd, end, sizeof early[fd].bytes - early[fd].size, MSG_DONTWAIT);
            if (count <= 0) fail("refused: %.*s", (int)early[fd].size, early[fd].bytes);
            early[fd].size += count;
            if (memmem(early[fd].bytes, early[fd].size, "subscription_succeeded", 22)) {
                ready++;
            } else if (!early[fd].subscribed
                       && memmem(early[fd].bytes, early[fd].size, "connection_established", 22)) {
                early[fd].subscribed = 1;
                put(fd, subscribe.bytes, subscribe.size);
            }
        }
    }
}

static void load(int subscribers, int in_flight, long publishes, int *ports, int n_ports) {
    int crowd_epoll = epoll_create1(0), publish_epoll = epoll_create1(0);
    Blob publish = blob("publish"), frame = blob("frame");
    double began = seconds(CLOCK_MONOTONIC);
    crowd(crowd_epoll, subscribers, ports, n_ports);
    printf("%.6f\n", seconds(CLOCK_MONOTONIC) - began);
    fflush(stdout);
    if (getchar() == EOF) return;

    long left = publishes, arrived = 0, expected = publishes * subscribers * (long)frame.size;
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), read_at = 0, progress;
    int is_behind = 0;
    began = progress = seconds(CLOCK_MONOTONIC);
    for (int i = 0; i < in_flight && left; i++, left--) {
        int fd = dial(ports[i % n_ports]);
        put(fd, publish.bytes, publish.size);
        watch(publish_epoll, fd);
    }
    while (arrived < expected) {
        /* An answer is followed by the next publish at once. Subscribers are read once a
         * millisecond, and nothing is copied (MSG_TRUNC): they count what arrives, and a reader
         * that sleeps until the next frame would have the server pay for waking it, frame by
         * frame. */
        struct epoll_event events[BATCH];
        int found = epoll_wait(publish_epoll, events, BATCH, is_behind ? 0 : 1);
        for (int i = 0; i < found; i++) {
            int fd = events[i].data.fd;
            ssize_t count = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (count <= 0) fail("a publish got no answer");
            if (!memcmp(buffer, "HTTP", 4) && memcmp(buffer + 9, "200", 3))
                fail("a publish was refused: %.*s", (int)count, buffer);
            if (buffer[count - 1] == '}' && left) {
                put(fd, publish.bytes, publish.size);
                left--;
            }
        }
        double now = seconds(CLOCK_MONOTONIC);
        if (!is_behind && now - read_at < 0.001) continue;
        found = epoll_wait(crowd_epoll, events, BATCH, 0);
        for (int i = 0; i < found; i++) {
            ssize_t count = recv(events[i].data.fd, buffer, sizeof buffer, MSG_DONTWAIT | MSG_TRUNC);
            if (count <= 0) fail("a subscriber was disconnected");
            arrived += count;
        }
        if (found) progress = now;
        if (now - progress > STALLED) fail("%ld of %ld bytes have arrived", arrived, expected);
        is_behind = found == BATCH;
        if (!is_behind) read_at = now;
    }
    printf("%.6f %.6f\n", seconds(CLOCK_MONOTONIC) - began, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
}

static void delays(int subscribers, int offset, int *ports, int n_ports) {
    static struct { char bytes[512]; size_t size; } rest[MAX_FD];
    int epoll = epoll_create1(0);
    size_t size = blob("frame").size;
    double began = seconds(CLOCK_MONOTONIC);
    crowd(epoll, subscribers, ports, n_ports);
    printf("%.6f\n", seconds(CLOCK_MONOTONIC) - began);
    fflush(stdout);
    long from, expected, arrived = 0;
    if (scanf("%ld %ld", &from, &expected) != 2) return;
    long *late = malloc(expected * sizeof *late), n_late = 0;
    double progress = seconds(CLOCK_MONOTONIC);
    if (size > sizeof rest->bytes) fail("a frame has %zu bytes", size);
    while (arrived < expected) {
        /* From time to time, as above: what that adds is in the figures. */
        struct epoll_event events[BATCH];
        int found = epoll_wait(epoll, events, BATCH, 0);
        double now = seconds(CLOCK_MONOTONIC);
        for (int i = 0; i < found; i++) {
            int fd = events[i].data.fd;
            memcpy(buffer, rest[fd].bytes, rest[fd].size);
            ssize_t count = recv(fd, buffer + rest[fd].size, sizeof buffer - size - 1, MSG_DONTWAIT);
            struct timespec at;
            clock_gettime(CLOCK_MONOTONIC, &at);
            if (count <= 0) fail("a subscriber was disconnected");
            char *frame = buffer, *end = buffer + rest[fd].size + count;
            for (; end - frame >= (ssize_t)size && arrived < expected; frame += size, arrived++) {
                long due = strtol(frame + offset, NULL, 10);
                if (due >= from) late[n_late++] = at.tv_sec * 1000000000L + at.tv_nsec - due;
            }
            rest[fd].size = end - frame;
            memcpy(rest[fd].bytes, frame, rest[fd].size);
        }
        if (found) progress = now;
        if (now - progress > STALLED) fail("%ld of %ld frames have arrived", arrived, expected);
        if (found < BATCH) usleep(200);
    }
    for (long i = 0; i < n_late; i++) printf("%ld\n", late[i]);
}

int main(int count, char **words) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int ports[16], n_ports = 0;
    if (count == 2 && !strcmp(words[1], "send")) send_loop();
    int first = count > 1 && !strcmp(words[1], "load") ? 5 : 4;
    for (int i = first; i < count && n_ports < 16; i++) ports[n_ports++] = atoi(words[i]);
    if (!n_ports) fail("native send | load N IN_FLIGHT N PORT... | delays N OFFSET PORT...");
    if (!strcmp(words[1], "load")) load(atoi(words[2]), atoi(words[3]), atol(words[4]), ports, n_ports);
    else delays(atoi(words[2]), atoi(words[3]), ports, n_ports);
    return 0;
}
