#!/usr/bin/perl
# Lays the bands of one picture over each other and writes a PNG.
#
# usage: perl assemble.pl BAND.ppm…  > picture.png
#
# POV-Ray writes each band as a picture of full size, black outside the band, so the bitwise OR of
# all of them is the whole. Needs nothing but perl itself: without its zlib module the PNG is
# stored instead of compressed (PNG specification; RFC 1950 and 1951).
use strict;
use warnings;

my ($width, $height, $picture);
for my $name (grep { /\.ppm$/ } @ARGV) {
    open my $file, '<:raw', $name or die "$name: $!\n";
    my $all = do { local $/; <$file> };
    $all =~ s/\AP6\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*(\d+)\s+(?:#[^\n]*\n\s*)*255\s//
        or die "$name is not a PPM picture with 8 bits a colour\n";
    ($width, $height) = ($1, $2) unless defined $width;
    die "$name has another size\n" if length $all != $width * $height * 3;
    $picture = defined $picture ? $picture | $all : $all;
}
die "usage: perl assemble.pl BAND.ppm…  > picture.png\n" unless defined $picture;

# Every row of a PNG begins with the number of its filter; 0 is none.
my $rows = join '', map { "\0" . substr $picture, $_ * $width * 3, $width * 3 } 0 .. $height - 1;

binmode STDOUT;
print "\x89PNG\r\n\x1a\n",
    chunk('IHDR', pack 'NNC5', $width, $height, 8, 2, 0, 0, 0),
    chunk('IDAT', deflated($rows)),
    chunk('IEND', '');
close STDOUT or die "standard output: $!\n";

sub deflated {
    my ($data) = @_;
    return Compress::Zlib::compress($data) if eval { require Compress::Zlib };
    my $out = "\x78\x01";
    for (my $at = 0; $at < length $data; $at += 65535) {
        my $part = substr $data, $at, 65535;
        my $last = $at + 65535 >= length $data ? 1 : 0;
        $out .= pack('Cvv', $last, length $part, length($part) ^ 0xffff) . $part;
    }
    return $out . pack 'N', adler32($data);
}

sub adler32 {
    my ($data) = @_;
    my ($low, $high) = (1, 0);
    for my $byte (unpack 'C*', $data) {
        $low = ($low + $byte) % 65521;
        $high = ($high + $low) % 65521;
    }
    return $high << 16 | $low;
}

my @crc_table;

sub crc32 {
    my ($data) = @_;
    @crc_table = map {
        my $entry = $_;
        $entry = $entry & 1 ? $entry >> 1 ^ 0xedb88320 : $entry >> 1 for 1 .. 8;
        $entry;
    } 0 .. 255 unless @crc_table;
    my $crc = 0xffffffff;
    $crc = $crc_table[($crc ^ $_) & 255] ^ $crc >> 8 for unpack 'C*', $data;
    return $crc ^ 0xffffffff;
}

sub chunk {
    my ($type, $data) = @_;
    return pack('N', length $data) . $type . $data . pack 'N', crc32($type . $data);
}
