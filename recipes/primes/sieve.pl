#!/usr/bin/perl
# Prints the primes of one block: those in [BLOCK * WIDTH, (BLOCK + 1) * WIDTH).
#
# usage: perl sieve.pl BLOCK WIDTH
#
# The sieve of Eratosthenes on a segment: first the primes up to the root of the block's end, then
# their multiples inside the block.
use strict;
use warnings;

die "usage: perl sieve.pl BLOCK WIDTH\n" unless @ARGV == 2 && !grep { !/\A\d+\z/ } @ARGV;
my ($block, $width) = @ARGV;
my $low = $block * $width;
my $high = $low + $width;

my @small;
my $limit = int sqrt $high;
my $composite = '0' x ($limit + 1);
for my $n (2 .. $limit) {
    next if substr $composite, $n, 1;
    push @small, $n;
    for (my $m = $n * $n; $m <= $limit; $m += $n) { substr $composite, $m, 1, '1' }
}

my $segment = '0' x $width;
for my $p (@small) {
    my $from = $p * $p;
    $from = $low + ($p - $low % $p) % $p if $from < $low;
    for (my $m = $from - $low; $m < $width; $m += $p) { substr $segment, $m, 1, '1' }
}

my $first = $low < 2 ? 2 - $low : 0;
my @primes = map { substr($segment, $_, 1) ? () : $low + $_ } $first .. $width - 1;
print "$_\n" for @primes;
close STDOUT or die "standard output: $!\n";
