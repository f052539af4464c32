/* load: keeps one message in flight on each of C connections and checks every byte that comes back.
 *
 * Owns      the client side of a measurement; one thread, one epoll, no allocation while it measures.
 * Promises  exactly COUNT messages (or connections) after the warm-up, every reply compared with what was sent;
 *           any error, any wrong or surplus byte, or SECONDS gone: one sentence on stderr and a status that is not 0.
 * Why C     a client in Python would need more CPU than the servers it measures.
 *
 *   load PORT echo|churn CONNECTIONS IDLE SIZE WARMUP COUNT SECONDS
 *
 * echo   CONNECTIONS stay open; IDLE more are opened, echo once and stay silent.
 * churn  CONNECTIONS loops of: connect, one message, close our side first, wait for the server's end of stream, again.
 *
 * It talks with bench.run line by line: it says "opened", then "warm", then "done NANOSECONDS MESSAGES", and waits for
 * a line after each, so that the server can be looked at while nothing moves. End of stdin ends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { STAMP = 18, SMALLEST = STAMP + 2, EVENTS = 256, PIECE = 1 << 20, SOURCES = 64 };

struct peer {
    int fd;
    int connecting; /* churn: connect() not finished */
    int closing;    /* churn: our side is closed, the server's end of stream is awaited */
    int busy;       /* a message is in flight */
    uint32_t id, seq;
    size_t sent, got;
    char *message;
};

static int churn, epoll_fd, port;
static size_t size;
static long started, finished, target; /* of the current phase */
static char piece[PIECE];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, " (after %ld of %ld messages)\n", finished, target);
    va_end(arguments);
    _exit(1);
}

static void out_of_time(int number) {
    static const char text[] = "load: the time limit is over, the server does not keep up or a reply is missing\n";
    (void)number;
    (void)!write(2, text, sizeof text - 1);
    _exit(3);
}

static void hex(char *at, uint32_t value) {
    for (int i = 7; i >= 0; i--, value >>= 4) at[i] = "0123456789abcdef"[value & 15];
}

/* A message is one line: connection, number, filler, newline. No two are alike, so a reply to the wrong one shows. */
static void make_message(struct peer *peer) {
    if (!(peer->message = malloc(size))) fail("no memory for the messages");
    for (size_t i = 0; i < size; i++) peer->message[i] = (char)('a' + (i + peer->id) % 26);
    hex(peer->message, peer->id);
    peer->message[8] = ' ';
    peer->message[STAMP - 1] = ' ';
    peer->message[size - 1] = '\n';
}

static void start_message(struct peer *peer) {
    hex(peer->message + 9, ++peer->seq);
    peer->sent = peer->got = 0;
    peer->busy = 1;
    started++;
}

static int open_socket(uint32_t number, int flags) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    struct sockaddr_in source = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000101 + number % SOURCES)};
    if (fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (churn) { /* closed connections keep their port for a minute: spread them over source addresses */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        if (bind(fd, (struct sockaddr *)&source, sizeof source)) fail("bind: %s", strerror(errno));
    }
    return fd;
}

static void watch(struct peer *peer) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = peer};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, peer->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

static void dial(struct peer *peer) {
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer->fd = open_socket(peer->seq, churn ? SOCK_NONBLOCK : 0);
    peer->connecting = peer->closing = 0;
    if (connect(peer->fd, (struct sockaddr *)&server, sizeof server)) {
        if (errno != EINPROGRESS) fail("connect: %s", strerror(errno));
        peer->connecting = 1;
    }
}

static void push(struct peer *peer) {
    while (peer->sent < size) {
        ssize_t n = send(peer->fd, peer->message + peer->sent, size - peer->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) fail("send: %s", strerror(errno));
        peer->sent += (size_t)n;
    }
}

/* 1: the whole reply is here and is right. */
static int pull(struct peer *peer) {
    while (peer->got < size) {
        size_t wanted = size - peer->got < PIECE ? size - peer->got : PIECE;
        ssize_t n = recv(peer->fd, piece, wanted, 0);
        if (n < 0 && errno == EAGAIN) return 0;
        if (n < 0) fail("recv: %s", strerror(errno));
        if (n == 0) fail("the server closed a connection with %zu of %zu bytes answered", peer->got, size);
        if (memcmp(piece, peer->message + peer->got, (size_t)n)) fail("a reply differs from its message");
        peer->got += (size_t)n;
    }
    return 1;
}

static void must_be_silent(struct peer *peer) {
    ssize_t n = recv(peer->fd, piece, 1, MSG_DONTWAIT);
    if (n > 0) fail("surplus bytes after a reply");
    if (n == 0) fail("the server closed a connection that should stay open");
    if (errno != EAGAIN) fail("recv: %s", strerror(errno));
}

/* churn: 1 when the server has closed its side too. */
static int server_closed(struct peer *peer) {
    ssize_t n = recv(peer->fd, piece, 1, 0);
    if (n > 0) fail("surplus bytes after a reply");
    if (n < 0 && errno == EAGAIN) return 0;
    if (n < 0) fail("recv while closing: %s", strerror(errno));
    return 1;
}

static void begin(struct peer *peer) {
    if (churn) {
        dial(peer);
        watch(peer);
    }
    start_message(peer);
    if (!peer->connecting) push(peer);
}

static void drive(struct peer *peer, uint32_t events) {
    if (peer->connecting) {
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
        peer->connecting = 0;
    }
    if (!peer->busy) {
        if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) fail("the server closed a connection that should stay open");
        return;
    }
    if (!peer->closing) {
        push(peer);
        if (!pull(peer)) return;
        if (churn) {
            if (shutdown(peer->fd, SHUT_WR)) fail("shutdown: %s", strerror(errno));
            peer->closing = 1;
        }
    }
    if (peer->closing) {
        if (!server_closed(peer)) return;
        close(peer->fd);
    }
    peer->busy = 0;
    finished++;
    if (started < target) begin(peer);
}

static long phase(struct peer *peers, int active, long messages) {
    struct epoll_event events[EVENTS];
    struct timespec from, to;
    started = finished = 0;
    target = messages;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < active && started < target; i++) begin(&peers[i]);
    while (finished < target) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) drive(events[i].data.ptr, events[i].events);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    return (to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec;
}

/* One after the other, each with one echo: a server with a backlog of 5 must not lose one. */
static void open_all(struct peer *peers, int all) {
    for (int i = 0; i < all; i++) {
        struct peer *peer = &peers[i];
        peer->id = (uint32_t)i;
        make_message(peer);
        if (churn) continue;
        dial(peer);
        fcntl(peer->fd, F_SETFL, O_NONBLOCK);
        watch(peer);
        target = i + 1;
        start_message(peer);
        push(peer);
        while (finished < target) {
            struct epoll_event event;
            if (epoll_wait(epoll_fd, &event, 1, -1) == 1) drive(event.data.ptr, event.events);
        }
    }
}

static void say(const char *format, ...) {
    char line[16];
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) _exit(2);
}

static long number(const char *text, long least) {
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < least) fail("'%s' is not a number of at least %ld", text, least);
    return value;
}

int main(int argc, char **argv) {
    if (argc != 9 || (strcmp(argv[2], "echo") && strcmp(argv[2], "churn"))) {
        fputs("usage: load PORT echo|churn CONNECTIONS IDLE SIZE WARMUP COUNT SECONDS\n", stderr);
        return 2;
    }
    port = (int)number(argv[1], 1);
    churn = !strcmp(argv[2], "churn");
    int active = (int)number(argv[3], 1), all = active + (int)number(argv[4], 0);
    size = (size_t)number(argv[5], SMALLEST);
    long warmup = number(argv[6], 0), count = number(argv[7], 1);
    signal(SIGALRM, out_of_time);
    alarm((unsigned)number(argv[8], 1));

    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct peer *peers = calloc((size_t)all, sizeof *peers);
    if (epoll_fd < 0 || !peers) fail("no memory or no descriptor to begin with");

    open_all(peers, all);
    say("opened");
    phase(peers, active, warmup);
    say("warm");
    long nanoseconds = phase(peers, active, count);
    if (!churn)
        for (int i = 0; i < all; i++) must_be_silent(&peers[i]);
    say("done %ld %ld", nanoseconds, finished);
    return 0;
}
