/* What the cases of the conformance suite do as shell scripts, for an engine that has no shell.
   The first argument names the case; see programs.rs for which script each stands for. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB (1024L * 1024)

static char block[MIB];

/* Writes `bytes` bytes of `fill` to a new file; 0 where they do not fit. */
static int filled(const char *name, long bytes, int fill) {
    int file = open(name, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (file < 0) return 0;
    memset(block, fill, sizeof block);
    while (bytes > 0) {
        long part = bytes < (long)sizeof block ? bytes : (long)sizeof block;
        long done = write(file, block, part);
        if (done <= 0) return 0;
        bytes -= done;
    }
    return close(file) == 0;
}

static long length(const char *name) {
    long sum = 0, part;
    int file = open(name, O_RDONLY);
    if (file < 0) return -1;
    while ((part = read(file, block, sizeof block)) > 0) sum += part;
    close(file);
    return sum;
}

static void say_file(const char *name) {
    long part;
    int file = open(name, O_RDONLY);
    if (file < 0) {
        printf("cannot open %s\n", name);
        exit(1);
    }
    fflush(stdout);
    while ((part = read(file, block, sizeof block)) > 0) write(1, block, part);
    close(file);
}

static void put(const char *name, const char *text) {
    FILE *file = fopen(name, "w");
    if (!file || fputs(text, file) < 0 || fclose(file)) {
        printf("cannot write %s\n", name);
        exit(1);
    }
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void spin(double seconds) {
    double end = now() + seconds;
    volatile unsigned long work = 0;
    while (now() < end)
        for (int i = 0; i < 100000; i++) work += i;
}

/* The checksum of cksum(1): a CRC of the bytes and of their number. */
static uint32_t crc;
static void crc_byte(unsigned byte) {
    crc ^= (uint32_t)byte << 24;
    for (int bit = 0; bit < 8; bit++) crc = crc << 1 ^ (crc >> 31 ? 0x04c11db7 : 0);
}

static char lines[20000][8];
static int backwards(const void *a, const void *b) { return strcmp(b, a); }

/* seq 1 20000 | sort -r | cksum; seq 1 1000 > out.txt */
static int digest(void) {
    unsigned long bytes = 0;
    for (int i = 0; i < 20000; i++) snprintf(lines[i], sizeof lines[i], "%d", i + 1);
    qsort(lines, 20000, sizeof lines[0], backwards);
    for (int i = 0; i < 20000; i++) {
        for (char *at = lines[i]; *at; at++, bytes++) crc_byte((unsigned char)*at);
        crc_byte('\n');
        bytes++;
    }
    for (unsigned long left = bytes; left; left >>= 8) crc_byte(left & 0xff);
    printf("%lu %lu\n", (unsigned long)(uint32_t)~crc, bytes);
    FILE *out = fopen("out.txt", "w");
    for (int i = 1; i <= 1000; i++) fprintf(out, "%d\n", i);
    return fclose(out);
}

/* Plain files below a directory; with `names`, each but the program itself is printed. */
static int files(const char *dir, int names) {
    int count = 0;
    char path[512];
    struct dirent *entry;
    struct stat found;
    DIR *open = opendir(dir);
    if (!open) return 0;
    while ((entry = readdir(open))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (lstat(path, &found)) continue;
        if (S_ISDIR(found.st_mode)) {
            count += files(path, names);
        } else {
            count++;
            if (names && !strstr(path, "cases.wasm")) printf("%s\n", path);
        }
    }
    closedir(open);
    return count;
}

static int usage(void) {
    spin(0.2);
    return !(filled("f", 20 * MIB, 0) && length("f") == 20 * MIB);
}

static int unlinked(void) {
    for (int i = 0; i < 160; i++) {
        int file = open("f", O_CREAT | O_WRONLY, 0644);
        if (file < 0) return 3;
        if (unlink("f")) return 5;
        for (int part = 0; part < 64; part++)
            if (write(file, block, sizeof block) != (long)sizeof block) return 4;
    }
    sleep(60);
    return 0;
}

/* Everything a program is given, one line each. */
static int surroundings(int argc, char **argv) {
    printf("%d %s\n", argc, argv[argc - 1]);
    printf("%s\n%s\n%s\n%s\n", getenv("HOME"), getenv("TMPDIR"), getenv("LANG"), getenv("X"));
    printf("%s\n", getenv("LD_PRELOAD") ? "preload" : "none");
    long part;
    fflush(stdout);
    while ((part = read(0, block, sizeof block)) > 0) write(1, block, part);
    say_file("sub/dir/b");
    say_file("/scratch/sub/dir/b");
    put("/tmp/y", "temporary\n");
    say_file("/tmp/y");
    put("a.txt", "changed\n");
    fprintf(stderr, "oops\n");
    return time(0) > 1700000000 ? 0 : 9;
}

/* Says what succeeds of what must not. */
static int hostile(void) {
    const char *reads[] = {
        "/etc/passwd", "/proc/self/environ", "/proc/1/root/etc/passwd", "/run/gleaner",
        "/dev/null", "/dev/shm/x", "../task.json", "../record.json", "../../etc/passwd",
        "/scratch/../task.json", "/tmp/../task.json", "/tmp/../work/../../etc/passwd",
        "sub/../../task.json", "./../.tmp/../task.json",
    };
    const char *writes[] = {
        "../x", "../record.json", "/etc/x", "/usr/x", "/tmp/../x", "/run/gleaner",
        "/proc/sys/kernel/core_pattern", "/dev/shm/x",
    };
    const char *targets[] = {"/etc/passwd", "../task.json", "../../etc/passwd", "/", ".."};
    mkdir("sub", 0755);
    for (unsigned i = 0; i < sizeof reads / sizeof *reads; i++)
        if (open(reads[i], O_RDONLY) >= 0) printf("read %s\n", reads[i]);
    for (unsigned i = 0; i < sizeof writes / sizeof *writes; i++)
        if (open(writes[i], O_CREAT | O_WRONLY, 0644) >= 0) printf("wrote %s\n", writes[i]);
    for (unsigned i = 0; i < sizeof targets / sizeof *targets; i++) {
        char below[256];
        unlink("link");
        if (symlink(targets[i], "link")) continue;
        snprintf(below, sizeof below, "link/task.json");
        if (open("link", O_RDONLY) >= 0) printf("through a link to %s\n", targets[i]);
        if (open(below, O_RDONLY) >= 0) printf("below a link to %s\n", targets[i]);
        if (open("link/new", O_CREAT | O_WRONLY, 0644) >= 0) printf("made by %s\n", targets[i]);
    }
    if (!rename("sub", "../sub")) printf("renamed outwards\n");
    if (!link("../task.json", "stolen")) printf("linked outwards\n");
    if (!rename("../task.json", "stolen")) printf("renamed inwards\n");
    if (!unlink("../task.json")) printf("unlinked outside\n");
    if (!rmdir("../work")) printf("removed its own directory\n");
    return 0;
}

/* What a declared output may not be, by the second argument. */
static int outputs(const char *what) {
    if (!strcmp(what, "symlink")) return symlink("x", "out") != 0;
    if (!strcmp(what, "hardlink")) { put("x", "x"); return link("x", "out") != 0; }
    if (!strcmp(what, "newline")) { put("a\nb", "x"); return 0; }
    if (!strcmp(what, "nothing")) return 0;
    mkdir("a", 0755);
    mkdir("a/b", 0755);
    put("a/1.txt", "1\n");
    put("a/b/2.txt", "2\n");
    put("3.txt", "3\n");
    return 0;
}

/* Numbers below this, by the sieve of Eratosthenes: how many, and the sum of their last digits. */
static int primes(long below) {
    char *composite = calloc(below, 1);
    long count = 0, digits = 0;
    for (long at = 2; at < below; at++) {
        if (composite[at]) continue;
        count++;
        digits += at % 10;
        for (long next = at + at; next < below; next += at) composite[next] = 1;
    }
    printf("%ld %ld\n", count, digits);
    return 0;
}

/* Strict IEEE arithmetic: a logistic map, printed to the last bit. */
static int chaos(void) {
    double x = 0.1;
    for (int i = 0; i < 100000; i++) x = 3.9999 * x * (1.0 - x);
    printf("%a\n", x);
    return 0;
}

/* One step each time it is started; 85 until it is through. */
static int step(void) {
    int n = 0;
    char text[64];
    FILE *file = fopen("state/n", "r");
    if (file) {
        if (fscanf(file, "%d", &n) != 1) return 1;
        fclose(file);
    }
    mkdir("state", 0755);
    snprintf(text, sizeof text, "%d\n", ++n);
    put("state/n", text);
    file = fopen("log", "a");
    if (!file || fputs(text, file) < 0 || fclose(file)) return 1;
    if (n < 3) return 85;
    FILE *log = fopen("log", "r"), *out = fopen("out", "w");
    while (fgets(text, sizeof text, log)) fputs(text, out);
    return fclose(out);
}

/* Writes two files that belong together, again and again. */
static void pair(void) {
    char text[64];
    for (int i = 1;; i++) {
        snprintf(text, sizeof text, "%d\n", i);
        put("a", text);
        put("b", text);
        spin(0.01);
    }
}

/* Says that it has saved itself in a and b, when it has not. */
static int unsaved(const char *how) {
    if (!strcmp(how, "link") && symlink("b", "a")) return 1;
    if (!strcmp(how, "dir") && mkdir("a", 0755)) return 1;
    if (!strcmp(how, "large") && !filled("a", 3 << 20, 0)) return 1;
    put(strcmp(how, "one") ? "b" : "a", "x\n");
    return 85;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "digest")) return digest();
    if (!strcmp(what, "primes")) return primes(atol(argv[2]));
    if (!strcmp(what, "chaos")) return chaos();
    if (!strcmp(what, "step")) return step();
    if (!strcmp(what, "pair")) pair();
    if (!strcmp(what, "unsaved")) return unsaved(argv[2]);
    if (!strcmp(what, "cat")) { say_file(argv[2]); return 0; }
    if (!strcmp(what, "count")) { printf("%d\n", files(argv[2], 0)); return 0; }
    if (!strcmp(what, "find")) {
        for (int i = 2; i < argc; i++) files(argv[i], 1);
        return 0;
    }
    if (!strcmp(what, "memory")) {
        char *all = malloc(200 * MIB);
        if (!all) return 3;
        memset(all, 'a', 200 * MIB - 1);
        all[200 * MIB - 1] = 0;
        printf("%lu\n", (unsigned long)strlen(all));
        return 0;
    }
    if (!strcmp(what, "cache")) {
        if (!filled("f", 128 * MIB, 0)) return 3;
        printf("%ld\n", length("f") + length("f"));
        return unlink("f");
    }
    if (!strcmp(what, "disk")) {
        char name[16];
        for (int i = 0; i < 160; i++) {
            snprintf(name, sizeof name, "f%d", i);
            if (!filled(name, 64 * MIB, 0)) return 3;
        }
        return 0;
    }
    if (!strcmp(what, "unlinked")) return unlinked();
    if (!strcmp(what, "sleep")) { sleep(atoi(argv[2])); return 0; }
    if (!strcmp(what, "spin")) for (;;) spin(1);
    if (!strcmp(what, "yes")) for (;;) if (puts("y") < 0) return 1;
    if (!strcmp(what, "big")) return !filled("big", 3000000, 0);
    if (!strcmp(what, "tell")) for (;;) { puts("x"); fflush(stdout); spin(0.01); }
    if (!strcmp(what, "usage")) return usage();
    if (!strcmp(what, "leave")) {
        put("/tmp/s", "secret\n");
        put("mine", "x\n");
        return 0;
    }
    if (!strcmp(what, "surroundings")) return surroundings(argc, argv);
    if (!strcmp(what, "hostile")) return hostile();
    if (!strcmp(what, "outputs")) return outputs(argv[2]);
    if (!strcmp(what, "exit")) return atoi(argv[2]);
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "wild")) return *(volatile int *)0x7ffffff0;
    if (!strcmp(what, "ready")) { puts("ready"); fflush(stdout); sleep(1000); }
    if (!strcmp(what, "close")) {
        for (int i = 0; i < 16; i++) close(i);
        return 4;
    }
    fprintf(stderr, "no case %s\n", what);
    return 99;
}
