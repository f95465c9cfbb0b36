#!/usr/bin/perl
# The filter of nginx's error log (start.pl). nginx writes there what clients sent, as it came: secrets in queries and
# Referer, and control characters, with which a terminal erases or forges lines. Here each line is masked by the table
# that the application has (app/webapp/sensitive.txt), and all but printable ASCII is made visible.
# Usage: mask [FILE [LINE]]   LINE and standard input to standard error, and what is nginx's to FILE as well
#        mask map             prints that table as a map of nginx (templates/log.conf.template)
# In Perl, because Debian and so the official image always has it, and its regular expressions are those of the table.
use strict;
use warnings;

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
open $file, '>>', $path if $path;
# The end comes with the end of those who write.
$SIG{$_} = 'IGNORE' for qw(HUP INT QUIT TERM PIPE);

show($first) if $first;
my $rest = '';
while (sysread STDIN, $rest, 65536, length $rest) {
    show($1) while $rest =~ s/^(.*\n)//;
}
show("$rest\n") if length $rest;

sub show {
    my ($line) = @_;
    $line =~ s/([^\n\x20-\x7e])/sprintf '\x%02x', ord $1/ge;
    # What stays is the one group of each.
    $line =~ s/$_/$1***/g for @masked;
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
