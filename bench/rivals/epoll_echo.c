/* epoll echo in C: one recv and one send for each message and nothing else. The floor that everything is compared with.
 *
 * Level-triggered, each socket registered once. A send that the kernel takes only in part (big messages) keeps the rest
 * and waits for room; until then that socket is not read.
 *
 *   epoll_echo [BYTES OF ONE RECV, 65536]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256 };

struct rest {
    size_t length, sent;
    char bytes[];
};

static int epoll_fd;
static size_t room;
static char *buffer;
static struct rest **rests; /* by descriptor; NULL: nothing is owed */

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void interest(int operation, int fd, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll_fd, operation, fd, &event)) die("epoll_ctl");
}

static void hang_up(int fd) {
    free(rests[fd]);
    rests[fd] = NULL;
    close(fd);
}

static void owe(int fd, size_t from, size_t length) {
    struct rest *rest = malloc(sizeof *rest + length - from);
    if (!rest) die("malloc");
    rest->length = length - from;
    rest->sent = 0;
    memcpy(rest->bytes, buffer + from, rest->length);
    rests[fd] = rest;
    interest(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void pay(int fd) {
    struct rest *rest = rests[fd];
    ssize_t n = send(fd, rest->bytes + rest->sent, rest->length - rest->sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) {
        hang_up(fd);
        return;
    }
    rest->sent += (size_t)n;
    if (rest->sent < rest->length) return;
    free(rest);
    rests[fd] = NULL;
    interest(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void echo(int fd) {
    ssize_t n = recv(fd, buffer, room, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        hang_up(fd);
        return;
    }
    ssize_t sent = send(fd, buffer, (size_t)n, MSG_NOSIGNAL);
    if (sent == n) return;
    if (sent < 0 && errno != EAGAIN)
        hang_up(fd);
    else
        owe(fd, sent < 0 ? 0 : (size_t)sent, (size_t)n);
}

static void welcome(int listener, int most) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (fd >= most)
        close(fd);
    else
        interest(EPOLL_CTL_ADD, fd, EPOLLIN);
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct epoll_event events[EVENTS];
    socklen_t length = sizeof address;
    int one = 1, most = (int)sysconf(_SC_OPEN_MAX);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    room = argc > 1 ? strtoul(argv[1], NULL, 10) : 65536;
    buffer = malloc(room);
    rests = calloc((size_t)most, sizeof *rests);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!room || !buffer || !rests || epoll_fd < 0 || listener < 0) die("start");
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 2048)) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    interest(EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                welcome(listener, most);
            else if (rests[fd])
                pay(fd);
            else
                echo(fd);
        }
    }
}
