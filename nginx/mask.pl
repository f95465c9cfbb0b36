#!/usr/bin/perl
# The filter of nginx's error log (start.pl). nginx writes there what clients sent, as it came: secrets in queries and
# Referer, and control characters, with which a terminal erases or forges lines. Here each line is masked by the table
# that the application has (app/webapp/sensitive.txt), and all but printable ASCII is made visible.
# Usage: mask [FILE [LINE]]   LINE and standard input to standard error, and what is nginx's to FILE as well
#        mask map             prints that table as a map of nginx (templates/log.conf.template)
# In Perl, because Debian and so the official image always has it, and its regular expressions are those of the table.
use strict;
use warnings;
use POSIX qw(strftime);

my $table = '/etc/nginx/sensitive.txt';
my (%sections, $section);
open my $lines, '<', $table or die "error: $table: $! -> build nginx's image again\n";
while (my $line = <$lines>) {
    $line =~ s/^\s+|\s+$//g;
    if ($line =~ /^\[([A-Z]+)\]$/) {
        $section = $1;
    }
    elsif ($line =~ /^[^#]/) {
        # A part comes before what it is a part of.
        $line =~ s/<([A-Z]+)>/join '|', @{$sections{$1}}/ge;
        push @{$sections{$section}}, $line;
    }
}

if (@ARGV && $ARGV[0] eq 'map') {
    for my $expression (@{$sections{MASKED}}) {
        $expression =~ s/(["\\])/\\$1/g;
        print qq("~*$expression" "[masked]";\n);
    }
    exit;
}

my @masked = map { qr/$_/ia } @{$sections{MASKED}};

my ($path, $first) = @ARGV;
my $file;
# A full or missing file system costs lines there and nothing else.
if ($path) { open $file, '>>', $path or undef $file }
# The end comes with the end of those who write.
$SIG{$_} = 'IGNORE' for qw(HUP INT QUIT TERM PIPE);

my ($rest, $window, %lines, %left_out) = '';
show($first) if $first;
while (1) {
    vec(my $input = '', 0, 1) = 1;
    if (%left_out && !select $input, undef, undef, 10) {
        report();
    }
    sysread STDIN, $rest, 65536, length $rest or last;
    while ($rest =~ s/^(.*)\n//) {
        my $line = $1;
        show($line) if has_line($line);
    }
}
show($rest) if length $rest;
report();

# One client must neither push everybody's lines out of Docker's files nor keep this filter so busy that nginx waits for
# it: RATE_LIMIT lines in ten seconds, and a line that says how many are left out. nginx writes an error line for a
# request that is too large before any other limit counts the request.
sub has_line {
    my ($line) = @_;
    return 1 unless $line =~ m{^\d{4}/\d\d/\d\d .*?, client: ([0-9a-f.:]+),};
    my $now = int(time / 10);
    report() if ($window // $now) != $now;
    $window = $now;
    return 1 if ++$lines{$1} <= ($ENV{RATE_LIMIT} || 100);
    $left_out{$1}++;
    return 0;
}

sub report {
    my $now = strftime('%Y/%m/%d %H:%M:%S', localtime);
    show("$now [alert] 1#1: $left_out{$_} lines left out, beyond RATE_LIMIT in ten seconds, client: $_, server: any")
        for sort keys %left_out;
    (%lines, %left_out) = ();
}

sub show {
    my ($line) = @_;
    # The end of the line is no part of it: a form that is not closed would take it along.
    $line =~ s/([^\x20-\x7e])/sprintf '\x%02x', ord $1/ge;
    # What stays is the one group of each.
    $line =~ s/$_/$1***/g for @masked;
    $line .= "\n";
    put(*STDERR, $line);
    put($file, $line) if $file && $line =~ m{^\d{4}/\d\d/\d\d };
}

# At once, so that a filter that is killed has no lines; what cannot be written is dropped, as nginx does.
sub put {
    my ($to, $line) = @_;
    while (length $line) {
        my $written = syswrite $to, $line or return;
        substr $line, 0, $written, '';
    }
}
