#!/usr/bin/perl
# Process 1: runs the image's own entry point, and so nginx, with a standard error that leads through a filter
# (mask.pl). The filter may die: it is started again, nginx goes on, and of its lines one at most is lost, which the
# next filter says. Signals go to nginx, and its exit code is this one's.
use strict;
use warnings;
use Fcntl qw(F_SETFL O_DIRECT);
use POSIX qw(strftime);

# Lines wait in a pipe of which this process has both ends: no end of a filter breaks it. What is read from it at once
# is what was written at once, one line (O_DIRECT); and it holds 256 lines and not 16 (pipe(2), F_SETPIPE_SZ).
my ($lines, $errors);
pipe $lines, $errors or die "error: pipe: $! -> raise the container's limits\n";
fcntl $errors, F_SETFL, O_DIRECT;
fcntl $errors, 1031, 1 << 20;

my $main;
my @signals = qw(HUP INT QUIT TERM USR1 USR2 WINCH);
for my $signal (@signals) {
    $SIG{$signal} = sub { $main ? kill $signal, $main : exit 1 };
}
$main = start(sub { open STDERR, '>&', $errors and exec '/docker-entrypoint.sh', @ARGV });
my $filter = start_filter();

while ((my $ended = wait) > 0) {
    if ($ended == $filter) {
        # Not as fast as it can, should it end at once.
        select undef, undef, undef, 0.1;
        my $how = $? & 127 ? 'signal ' . ($? & 127) : 'exit code ' . ($? >> 8);
        $filter = start_filter(strftime('%Y/%m/%d %H:%M:%S', localtime)
            . " [alert] 1#1: the filter of this log ended ($how), one line may be lost");
    }
    last if $ended == $main;
}
my $status = $?;

# What is left in the pipe; the filter ends when nobody can write there any more.
close $errors;
local $SIG{ALRM} = sub { kill 'KILL', $filter };
alarm 3;
waitpid $filter, 0;
exit($status & 127 ? 128 + ($status & 127) : $status >> 8);

sub start {
    my ($run) = @_;
    my $pid = fork // die "error: fork: $! -> raise pids_limit\n";
    return $pid if $pid;
    $SIG{$_} = 'DEFAULT' for @signals;
    $run->();
    POSIX::_exit(127);
}

sub start_filter {
    my ($first) = @_;
    my $file = ($ENV{SHIP_LOGS} // '') eq 'on' ? '/var/log/shipping/error.log' : '';
    return start(sub { open STDIN, '<&', $lines and exec '/usr/local/bin/mask', $file, $first // () });
}
