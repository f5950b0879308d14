/* A host that serves plain HTTP on the broker's port: a page, an upload. WebSocket goes to the broker, also on a
 * connection that has had a page before.
 *
 *     ./http 127.0.0.1:8000
 *     curl http://127.0.0.1:8000/              the page
 *     curl -d hello http://127.0.0.1:8000/say  an upload, published to the topic "said"
 *
 * One thread, one epoll: the Link's descriptor and the connections that it hands over stand side by side. */

#define _DEFAULT_SOURCE 1
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <pubsub.h>

#define REQUEST_MAX (64 * 1024)
#define EVENTS_MAX 64

/* A connection that we hold, and what of a request has come. */
struct connection {
    int fd;
    uint32_t listener;
    size_t size;
    char bytes[REQUEST_MAX + 1];
};

static const char page[] = "<!doctype html><title>said</title><h1>Say something</h1>";

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, pubsub_last_error());
    exit(1);
}

static void drop(struct connection *connection)
{
    close(connection->fd);
    free(connection);
}

/* Small answers to peers that read: a connection that does not take one at once is given up. */
static int answer(struct connection *connection, const char *status, const char *body)
{
    char head[256];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %zu\r\n\r\n",
                        status, strlen(body));
    if (send(connection->fd, head, (size_t)size, MSG_NOSIGNAL | MSG_MORE) != size)
        return -1;
    return send(connection->fd, body, strlen(body), MSG_NOSIGNAL) == (ssize_t)strlen(body) ? 0 : -1;
}

/* The value of a header field in a head that ends at `end`, or NULL. */
static const char *field(const char *head, const char *end, const char *name)
{
    size_t size = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL && line < end; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, size) == 0 && line[2 + size] == ':')
            return line + 3 + size + strspn(line + 3 + size, " ");
    return NULL;
}

/* Serves the requests that are complete. 1: the connection stays here; 0: it is not ours any more. */
static int serve(pubsub_link *link, struct connection *connection)
{
    for (;;) {
        connection->bytes[connection->size] = 0;
        char *end = strstr(connection->bytes, "\r\n\r\n");
        if (end == NULL)
            return connection->size < REQUEST_MAX ? 1 : (drop(connection), 0);
        size_t head = (size_t)(end - connection->bytes) + 4;
        /* The broker speaks WebSocket. What has come goes with the connection, this request first. */
        if (field(connection->bytes, end, "Upgrade") != NULL) {
            if (pubsub_link_adopt(link, connection->listener, connection->fd, connection->bytes, connection->size) != PUBSUB_OK)
                close(connection->fd);
            free(connection);
            return 0;
        }
        const char *length = field(connection->bytes, end, "Content-Length");
        size_t body = length == NULL ? 0 : strtoul(length, NULL, 10);
        if (body > REQUEST_MAX - head) {
            answer(connection, "413 Content Too Large", "");
            drop(connection);
            return 0;
        }
        if (connection->size < head + body)
            return 1;
        int failed;
        if (strncmp(connection->bytes, "GET / ", 6) == 0) {
            failed = answer(connection, "200 OK", page);
        } else if (strncmp(connection->bytes, "POST /say ", 10) == 0) {
            int said = pubsub_publish(link, "said", 4, connection->bytes + head, body);
            failed = said == PUBSUB_OK ? answer(connection, "202 Accepted", "")
                                       : answer(connection, "503 Service Unavailable", pubsub_last_error());
        } else {
            failed = answer(connection, "404 Not Found", "");
        }
        if (failed) {
            drop(connection);
            return 0;
        }
        connection->size -= head + body;
        memmove(connection->bytes, connection->bytes + head + body, connection->size);
    }
}

/* A connection comes from the broker, with the bytes that it has read. */
static void take(int epoll, pubsub_link *link, const pubsub_event *event)
{
    struct connection *connection = malloc(sizeof *connection);
    if (connection == NULL || event->data_size > REQUEST_MAX) {
        free(connection);
        close(event->fd);
        return;
    }
    connection->fd = event->fd;
    connection->listener = event->listener;
    connection->size = event->data_size;
    memcpy(connection->bytes, event->data, event->data_size);
    if (!serve(link, connection))
        return;
    struct epoll_event watch = {.events = EPOLLIN, .data = {.ptr = connection}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &watch) != 0)
        drop(connection);
}

static void receive(pubsub_link *link, int epoll, struct connection *connection)
{
    ssize_t size = recv(connection->fd, connection->bytes + connection->size, REQUEST_MAX - connection->size, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        drop(connection);
        return;
    }
    connection->size += (size_t)size;
    /* It may leave: what epoll knows of it must not outlive it. */
    int fd = connection->fd;
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
    if (serve(link, connection)) {
        struct epoll_event watch = {.events = EPOLLIN, .data = {.ptr = connection}};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &watch) != 0)
            drop(connection);
    }
}

int main(int argc, char **argv)
{
    pubsub_options *options = pubsub_options_new();
    if (pubsub_options_set(options, "listen", argc > 1 ? argv[1] : "127.0.0.1:8000") != PUBSUB_OK)
        die("listen");
    pubsub_broker *broker;
    pubsub_link *link;
    if (pubsub_broker_start(options, &broker) != PUBSUB_OK)
        die("broker");
    pubsub_options_free(options);
    uint64_t asked;
    if (pubsub_link_open(broker, "http", &link) != PUBSUB_OK
        || pubsub_link_events_with(link, PUBSUB_EV_HTTP, &asked) != PUBSUB_OK)
        die("link");
    char address[64];
    if (pubsub_broker_address(broker, "listen", 0, address, sizeof address) != PUBSUB_OK)
        die("address");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event watch = {.events = EPOLLIN, .data = {.ptr = NULL}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, pubsub_link_fd(link), &watch);
    for (;;) {
        struct epoll_event ready[EVENTS_MAX];
        int count = epoll_wait(epoll, ready, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++)
            if (ready[i].data.ptr != NULL)
                receive(link, epoll, ready[i].data.ptr);
        pubsub_event events[EVENTS_MAX];
        int drained = pubsub_link_drain(link, events, EVENTS_MAX);
        for (int i = 0; i < drained; i++) {
            if (events[i].type == PUBSUB_EV_HTTP) {
                take(epoll, link, &events[i]);
            } else if (events[i].type == PUBSUB_EV_DONE && events[i].ticket == asked) {
                /* From now on every plain request comes here. */
                printf("listening on %s\n", address);
                fflush(stdout);
            }
            if (events[i].type == PUBSUB_EV_STOPPED)
                return 1;
        }
    }
}
