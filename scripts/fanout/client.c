/*
 * Many WebSocket clients in one process, that count what they receive and how late it is.
 *
 * usage: client WIRE PORTS PATH ROOMS MEMBERS PAYLOAD IDLE
 *   WIRE     ws: a payload is a text frame; socketio: an event "m" of Engine.IO 4, Socket.IO 5
 *   PORTS    of 127.0.0.1, comma between; the members of a room are spread over them in turn
 *   PATH     of the handshake; %s is the name of the room
 *   ROOMS, MEMBERS   sockets: ROOMS x MEMBERS
 *   PAYLOAD  bytes of a message
 *   IDLE     sockets in one more room, to which nobody sends
 *
 * It prints one line of JSON when every socket has received a message of its room. Then it reads
 * lines `RATE SECONDS` from standard input: it sends RATE messages a second, to one room after the
 * other, each through another member of the room, waits for what is under way, and prints one line
 * of JSON. It ends with its standard input, or with status 1 and a reason.
 *
 * A message is `@RRRRRRRRNNNNNNNNNNNNNNNNSSSSSSSS` and dots up to PAYLOAD bytes, in hexadecimal
 * digits: the run, CLOCK_MONOTONIC in nanoseconds when it was sent, its number within its room and run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 33, READ = 1 << 18, MAX_PORTS = 16, AT_ONCE = 24, BUCKETS = 64 * 64 };
enum { CONNECTING, UPGRADING, GREETING, OPEN, WAITING };

static const uint64_t SECOND = 1000000000;
static const uint64_t OPEN_WITHIN = 120 * SECOND; /* all sockets */
static const uint64_t HEARD_WITHIN = 30 * SECOND; /* the first message of each socket */
static const uint64_t SILENCE = 1 * SECOND;       /* after it nothing is under way any more */
static const uint64_t DRAIN = 15 * SECOND;        /* and after this in any case */

struct client {
    int fd, state, room, port;
    uint32_t heard;      /* the last run of which it has received something */
    uint64_t *seen;      /* a bit for each message of its room in this run */
    unsigned char *rest; /* of a frame that has not come whole */
    size_t rest_size;
    unsigned char *unsent; /* of a frame that the kernel did not take whole */
    size_t unsent_size;
};

static struct client *clients;
static int count, members, rooms, ports[MAX_PORTS], port_count, socketio, payload_size;
static const char *path;
static int poller, timer;
static int open_count, under_way, next_to_open;
static uint64_t refused_until;
static unsigned char buffer[READ * 2 + 65536];

/* Of one run. */
static uint32_t run;
static uint32_t messages; /* that a room may get at most */
static uint64_t received, twice, blocked, last_arrival, most_latency;
static uint64_t histogram[BUCKETS];
static int closed_count, heard_count;

static void stop(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

/* ---- Latencies: 32 buckets between a power of two and the next, in microseconds. ---- */

static void note(uint64_t nanoseconds) {
    uint64_t value = nanoseconds / 1000;
    int power = value < 64 ? 0 : 63 - __builtin_clzll(value) - 5;
    size_t bucket = (size_t)power * 64 + (size_t)(value >> power);
    histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    if (nanoseconds > most_latency) most_latency = nanoseconds;
}

/* The upper end of the bucket that holds this share of all, in milliseconds. */
static double percentile(double share) {
    uint64_t total = 0, passed = 0;
    for (int i = 0; i < BUCKETS; i++) total += histogram[i];
    uint64_t wanted = (uint64_t)(share * (double)total);
    for (int i = 0; i < BUCKETS; i++) {
        passed += histogram[i];
        if (passed > wanted) {
            int power = i / 64;
            uint64_t value = (uint64_t)(i % 64) << power;
            return (double)(value + (1ull << power)) / 1000.0;
        }
    }
    return 0;
}

/* ---- Frames that are sent. ---- */

static void watch(struct client *client, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event)) stop("epoll_ctl: %s", strerror(errno));
}

/* Sends a masked frame. The mask is zero: the bytes are the same, and the server has the same work. */
static int send_frame(struct client *client, int opcode, const void *data, size_t size) {
    unsigned char frame[16 + 65536];
    size_t head = 2;
    if (client->unsent_size || size > 65535) return 0;
    frame[0] = (unsigned char)(0x80 | opcode);
    if (size < 126) {
        frame[1] = (unsigned char)(0x80 | size);
    } else {
        frame[1] = 0x80 | 126;
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
        head = 4;
    }
    memset(frame + head, 0, 4);
    memcpy(frame + head + 4, data, size);
    size += head + 4;
    ssize_t written = write(client->fd, frame, size);
    if (written == (ssize_t)size) return 1;
    if (written < 0) {
        if (errno != EAGAIN) return 0; /* the end of the connection is read later */
        written = 0;
    }
    client->unsent_size = size - (size_t)written;
    client->unsent = realloc(client->unsent, client->unsent_size);
    memcpy(client->unsent, frame + written, client->unsent_size);
    watch(client, EPOLLIN | EPOLLOUT);
    return 1;
}

static void send_rest(struct client *client) {
    ssize_t written = write(client->fd, client->unsent, client->unsent_size);
    if (written <= 0) return;
    client->unsent_size -= (size_t)written;
    memmove(client->unsent, client->unsent + written, client->unsent_size);
    if (!client->unsent_size) watch(client, EPOLLIN);
}

static void send_message(struct client *client, uint32_t number) {
    static char text[65536];
    static const char opening[] = "42[\"m\",\"", closing[] = "\"]";
    size_t start = socketio ? sizeof opening - 1 : 0;
    memcpy(text, opening, start);
    snprintf(text + start, HEAD + 1, "@%08x%016llx%08x", run, (unsigned long long)now(), number);
    memset(text + start + HEAD, '.', (size_t)payload_size - HEAD);
    size_t size = start + (size_t)payload_size;
    if (socketio) {
        memcpy(text + size, closing, 2);
        size += 2;
    }
    if (client->state != OPEN || !send_frame(client, 1, text, size)) blocked++;
}

/* ---- Frames that are received. ---- */

static uint64_t hexadecimal(const unsigned char *digits, int size) {
    uint64_t value = 0;
    for (int i = 0; i < size; i++) {
        unsigned char digit = digits[i];
        if (!((digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f')))
            stop("a message is not as it was sent: %.*s", size, digits);
        value = value << 4 | (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    return value;
}

static void count_message(struct client *client, const unsigned char *text, size_t size, uint64_t at) {
    if (size != (size_t)payload_size || text[0] != '@')
        stop("a message is not as it was sent: %.*s", (int)(size < 80 ? size : 80), text);
    if (hexadecimal(text + 1, 8) != run) return; /* late, and counted as lost in its own run */
    uint64_t sent = hexadecimal(text + 9, 16), number = hexadecimal(text + 25, 8);
    last_arrival = at;
    if (client->heard != run) {
        client->heard = run;
        heard_count++;
    }
    if (number >= messages) {
        if (messages) stop("a message has a number that was not sent: %llu", (unsigned long long)number);
        return;
    }
    uint64_t bit = 1ull << (number & 63), *word = &client->seen[number >> 6];
    if (*word & bit) {
        twice++;
        return;
    }
    *word |= bit;
    received++;
    note(at > sent ? at - sent : 0);
}

static void opened(struct client *client) {
    client->state = OPEN;
    open_count++;
    under_way--;
}

static void handle_text(struct client *client, const unsigned char *text, size_t size, uint64_t at) {
    if (!socketio) {
        count_message(client, text, size, at);
    } else if (size > 10 && !memcmp(text, "42[\"m\",\"", 8)) {
        count_message(client, text + 8, size - 10, at);
    } else if (text[0] == '2') {
        send_frame(client, 1, "3", 1);
    } else if (text[0] == '0') {
        send_frame(client, 1, "40", 2);
    } else if (size > 1 && text[0] == '4' && text[1] == '0') {
        opened(client);
    } else {
        stop("unexpected of Socket.IO: %.*s", (int)(size < 80 ? size : 80), text);
    }
}

static void close_client(struct client *client) {
    if (client->state == OPEN) {
        closed_count++;
        open_count--;
    } else {
        under_way--;
    }
    close(client->fd);
    client->fd = -1;
    client->rest_size = client->unsent_size = 0;
    client->state = WAITING;
}

/* Returns how many bytes are whole frames. */
static size_t handle_frames(struct client *client, const unsigned char *data, size_t size, uint64_t at) {
    size_t place = 0;
    while (size - place >= 2) {
        const unsigned char *frame = data + place;
        size_t length = frame[1] & 127, head = 2;
        if (length == 126) {
            head = 4;
            if (size - place < head) break;
            length = (size_t)frame[2] << 8 | frame[3];
        } else if (length == 127) {
            stop("a frame of more than 65535 bytes");
        }
        if (size - place < head + length) break;
        if (!(frame[0] & 0x80) || frame[0] & 0x70 || frame[1] & 0x80) stop("a frame that is not expected");
        switch (frame[0] & 15) {
        case 1: handle_text(client, frame + head, length, at); break;
        case 8: close_client(client); return size;
        case 9: send_frame(client, 10, frame + head, length); break;
        case 10: break;
        default: stop("a frame with opcode %d", frame[0] & 15);
        }
        place += head + length;
    }
    return place;
}

/* Returns how many bytes belong to the answer to the handshake; 0: it is not whole. */
static size_t handle_answer(struct client *client, const unsigned char *data, size_t size) {
    const unsigned char *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end) return 0;
    if (size < 12 || memcmp(data, "HTTP/1.1 101", 12)) {
        /* Too many handshakes at once for this server: again, later. */
        if (size >= 12 && !memcmp(data, "HTTP/1.1 503", 12)) {
            close_client(client);
            refused_until = now() + SECOND / 10;
            return size;
        }
        stop("the handshake was answered: %.*s", 60, data);
    }
    if (socketio)
        client->state = GREETING;
    else
        opened(client);
    return (size_t)(end - data) + 4;
}

static void handle_input(struct client *client) {
    memcpy(buffer, client->rest, client->rest_size);
    ssize_t size = read(client->fd, buffer + client->rest_size, READ);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        close_client(client);
        return;
    }
    uint64_t at = now();
    size_t all = client->rest_size + (size_t)size, used = 0;
    if (client->state == UPGRADING) used = handle_answer(client, buffer, all);
    if (client->state == OPEN || client->state == GREETING) used += handle_frames(client, buffer + used, all - used, at);
    if (client->state == WAITING) return;
    client->rest_size = all - used;
    if (client->rest_size) {
        if (client->rest_size > 65536) stop("an answer without an end");
        client->rest = realloc(client->rest, client->rest_size);
        memcpy(client->rest, buffer + used, client->rest_size);
    }
}

/* ---- Handshakes. ---- */

static void start_client(struct client *client) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)ports[client->port])};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (client->fd < 0) stop("socket: %s", strerror(errno));
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        stop("connect: %s", strerror(errno));
    client->state = CONNECTING;
    under_way++;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = client};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event)) stop("epoll_ctl: %s", strerror(errno));
}

static void send_handshake(struct client *client) {
    char name[32], target[512], request[1024];
    snprintf(name, sizeof name, client->room < rooms ? "room-%d" : "idle", client->room);
    const char *mark = strstr(path, "%s");
    snprintf(target, sizeof target, "%.*s%s%s", (int)(mark - path), path, name, mark + 2);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                        target, ports[client->port]);
    if (write(client->fd, request, (size_t)size) != size) stop("connect to port %d: %s", ports[client->port], strerror(errno));
    client->state = UPGRADING;
    watch(client, EPOLLIN);
}

/* ---- The loop. ---- */

/* Handles what has arrived. Returns after the timer, or after so many events as one call brings. */
static void turn(void (*between)(void)) {
    static struct epoll_event events[512];
    int ready = epoll_wait(poller, events, 512, 100);
    if (ready < 0 && errno != EINTR) stop("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < ready; i++) {
        struct client *client = events[i].data.ptr;
        if (!client) {
            uint64_t times;
            if (read(timer, &times, sizeof times) < 0 && errno != EAGAIN) stop("timerfd: %s", strerror(errno));
        } else if (client->state == CONNECTING) {
            send_handshake(client);
        } else {
            if (client->unsent_size && events[i].events & EPOLLOUT) send_rest(client);
            if (events[i].events & ~(uint32_t)EPOLLOUT && client->fd >= 0) handle_input(client);
        }
        if (between) between();
    }
    if (between) between();
}

static void start_run(uint64_t total) {
    run++;
    messages = (uint32_t)((total + (uint64_t)rooms - 1) / (uint64_t)rooms);
    size_t words = messages / 64 + 1;
    for (int i = 0; i < rooms * members; i++) {
        free(clients[i].seen);
        clients[i].seen = calloc(words, 8);
        if (!clients[i].seen) stop("no memory");
    }
    memset(histogram, 0, sizeof histogram);
    received = twice = blocked = most_latency = 0;
    closed_count = heard_count = 0;
    last_arrival = now();
}

/* Sends message `index` of a run: one room after the other, and in each one member after the other. */
static void send_next(uint64_t index) {
    uint64_t room = index % (uint64_t)rooms, number = index / (uint64_t)rooms;
    send_message(&clients[room * (uint64_t)members + (number + room) % (uint64_t)members], (uint32_t)number);
}

static void open_all(void) {
    uint64_t start = now();
    while (open_count < count) {
        if (now() - start > OPEN_WITHIN) stop("%d of %d sockets are open after %d s", open_count, count, (int)(OPEN_WITHIN / SECOND));
        int tried = 0;
        for (; now() >= refused_until && under_way < AT_ONCE && tried < count; tried++) {
            struct client *client = &clients[next_to_open];
            next_to_open = (next_to_open + 1) % count;
            if (client->fd < 0) start_client(client);
        }
        turn(NULL);
    }
    double seconds = (double)(now() - start) / 1e9;

    /* A server may subscribe at its Redis after it has accepted: until every member has heard something. */
    uint64_t sent_at = 0;
    start_run(0);
    start = now();
    while (heard_count < rooms * members) {
        if (now() - start > HEARD_WITHIN) stop("%d of %d sockets have received something", heard_count, rooms * members);
        if (now() - sent_at > SECOND / 2 && now() - last_arrival > SECOND / 4) {
            sent_at = now();
            for (int room = 0; room < rooms; room++) send_next((uint64_t)room);
        }
        turn(NULL);
    }
    while (now() - last_arrival < SILENCE / 2) turn(NULL);
    printf("{\"sockets\": %d, \"open_seconds\": %.3f}\n", open_count, seconds);
    fflush(stdout);
}

static uint64_t run_start, run_total, run_sent, worst_delay;
static double run_interval;

static void send_due(void) {
    uint64_t time = now();
    while (run_sent < run_total) {
        uint64_t due = run_start + (uint64_t)((double)run_sent * run_interval);
        if (due > time) break;
        if (time - due > worst_delay) worst_delay = time - due;
        send_next(run_sent++);
    }
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void measure(double rate, double seconds) {
    run_total = (uint64_t)(rate * seconds + 0.5);
    if (!run_total) run_total = 1;
    run_interval = 1e9 / rate;
    run_sent = worst_delay = 0;
    start_run(run_total);
    double cpu = cpu_seconds();
    run_start = now();
    uint64_t interval = run_interval < 200000 ? 200000 : (uint64_t)run_interval;
    struct itimerspec every = {{(time_t)(interval / SECOND), (long)(interval % SECOND)},
                               {(time_t)(interval / SECOND), (long)(interval % SECOND)}};
    timerfd_settime(timer, 0, &every, NULL);
    uint64_t expected = run_total * (uint64_t)members, end;
    send_due();
    do {
        turn(send_due);
        end = run_start + (uint64_t)(seconds * 1e9);
        uint64_t time = now(), since = last_arrival > end ? last_arrival : end;
        if (run_sent == run_total && (received == expected || (time > since && time - since > SILENCE))) break;
        if (time > end + DRAIN) break;
    } while (1);
    memset(&every, 0, sizeof every);
    timerfd_settime(timer, 0, &every, NULL);
    uint64_t sent = run_sent;
    double taken = (double)(last_arrival - run_start) / 1e9;
    printf("{\"messages\": %llu, \"expected\": %llu, \"received\": %llu, \"twice\": %llu, \"unsent\": %llu, \"closed\": %d,"
           " \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f, \"seconds\": %.3f, \"send_delay\": %.3f, \"client_cpu\": %.3f}\n",
           (unsigned long long)sent, (unsigned long long)expected, (unsigned long long)received, (unsigned long long)twice,
           (unsigned long long)(blocked + run_total - sent), closed_count, percentile(0.5), percentile(0.99),
           (double)most_latency / 1e6, taken > seconds ? taken : seconds, (double)worst_delay / 1e6, cpu_seconds() - cpu);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc != 8) stop("usage: client WIRE PORTS PATH ROOMS MEMBERS PAYLOAD IDLE");
    socketio = !strcmp(argv[1], "socketio");
    for (char *port = strtok(argv[2], ","); port && port_count < MAX_PORTS; port = strtok(NULL, ",")) ports[port_count++] = atoi(port);
    path = argv[3];
    rooms = atoi(argv[4]);
    members = atoi(argv[5]);
    payload_size = atoi(argv[6]);
    int idle = atoi(argv[7]);
    if (!port_count || rooms < 1 || members < 1 || idle < 0 || payload_size < HEAD || payload_size > 60000 || !strstr(path, "%s"))
        stop("an argument is out of its bounds");
    count = rooms * members + idle;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if ((rlim_t)count + 32 > files.rlim_max) stop("%d sockets; %llu open files are allowed", count, (unsigned long long)files.rlim_max);
    clients = calloc((size_t)count, sizeof *clients);
    if (!clients) stop("no memory");
    for (int i = 0; i < count; i++) {
        clients[i].fd = -1;
        clients[i].state = WAITING;
        clients[i].room = i < rooms * members ? i / members : rooms;
        clients[i].port = i % members % port_count;
    }
    poller = epoll_create1(0);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || timer < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event)) stop("epoll: %s", strerror(errno));
    open_all();
    double rate, seconds;
    char line[256];
    /* Sockets are answered between runs too: standard input is asked without waiting. */
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    size_t filled = 0;
    for (;;) {
        ssize_t size = read(STDIN_FILENO, line + filled, sizeof line - 1 - filled);
        if (size == 0) return 0;
        if (size > 0) {
            filled += (size_t)size;
            line[filled] = 0;
            char *end = strchr(line, '\n');
            if (end) {
                if (sscanf(line, "%lf %lf", &rate, &seconds) != 2 || rate <= 0 || seconds <= 0 || rate * seconds > 4e8) stop("not RATE SECONDS: %s", line);
                filled = 0;
                measure(rate, seconds);
            } else if (filled == sizeof line - 1) {
                stop("a line is too long");
            }
        }
        turn(NULL);
    }
}
