# A task that needs the CPU and touches every page of MEGABYTES (default 0: CPU only), for ever.
use strict;
use warnings;

my $bytes = ($ARGV[0] // 0) * 1_000_000;
my $memory = "x" x $bytes;
my $sum = 1;
while (1) {
    for (my $page = 0; $page < $bytes; $page += 4096) {
        substr($memory, $page, 1) = "y";
    }
    $sum = ($sum * 1103515245 + 12345) % 2147483648 for 1 .. 10_000;
}
