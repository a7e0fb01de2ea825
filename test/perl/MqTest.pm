# Helpers of mq's TAP tests.
#
# A test starts with
#
#     use FindBin;
#     use lib "$FindBin::RealBin/../perl";
#     use MqTest;
#     use Test::More;
#
# and is run by prove as a user that may start a server.  PostgreSQL's own test
# modules are found beside PGXS, of the major that PG_CONFIG (or pg_config) names.

package MqTest;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);

BEGIN
{
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	my $src = dirname(dirname(qx{$pg_config --pgxs}));
	chomp(my $bindir = qx{$pg_config --bindir});

	unshift @INC, "$src/test/perl" if -d "$src/test/perl";
	$ENV{PATH} = "$bindir:$ENV{PATH}";
	$ENV{PG_REGRESS} ||= "$src/test/regress/pg_regress";
}

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  mq_node wait_until wait_for_worker wait_for_recovery stop_and_start
  session backend_pid start_query finish_query wait_asleep wait_gone
  kill_client dead_session error_of session_error elapsed lines);

# An initialised, started node with the library preloaded.
#   conf      => text added to postgresql.conf
#   streaming => true: a primary that standbys can follow
#   extension => false: without CREATE EXTENSION in database postgres
#   preload   => false: without the library
#   start     => false: not started
sub mq_node
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => $opt{streaming} ? 1 : 0);
	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = '@{[ ($opt{preload} // 1) ? 'mq' : '' ]}'
shared_buffers = 16MB
max_connections = 40
max_prepared_transactions = 20
restart_after_crash = on
checkpoint_timeout = 1h
@{[ $opt{conf} // '' ]}
CONF
	return $node unless $opt{start} // 1;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION mq')
	  if ($opt{preload} // 1) && ($opt{extension} // 1);
	return $node;
}

# One test point: the query says t, at last; at least before launcher and
# worker, who look around once a minute, would have found out without a wake-up.
sub wait_until
{
	my ($node, $query, $name, $db) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	local $PostgreSQL::Test::Utils::timeout_default = 30;

	return ok($node->poll_query_until($db // 'postgres', $query), $name);
}

sub wait_for_worker
{
	my ($node, $db, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$db //= 'postgres';
	return wait_until($node, <<"SQL", $name // "worker runs in $db");
SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = '$db'
SQL
}

# After a process was killed hard: the server has noticed and is back.
sub wait_for_recovery
{
	my ($node, $log_offset) = @_;

	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$log_offset);
	$node->poll_query_until('postgres', 'SELECT true')
	  or die 'the server did not come back after a crash';
	return;
}

sub stop_and_start
{
	my ($node, $mode) = @_;

	$node->stop($mode);
	$node->start;
	return;
}

# A psql in the background that survives errors and shows SQLSTATEs.
sub session
{
	my ($node, $db) = @_;
	my $s = $node->background_psql($db // 'postgres', on_error_stop => 0);

	$s->query_safe('\set VERBOSITY verbose');
	return $s;
}

sub backend_pid
{
	my ($s) = @_;
	return $s->query_safe('SELECT pg_backend_pid()');
}

# Sends a query and does not wait for its end; finish_query does.
sub start_query
{
	my ($s, $sql) = @_;

	$s->query_until(qr/query sent\r?\n/, "\\echo query sent\n$sql;\n");
	$s->{busy} = 1;
	return;
}

# The output of what start_query sent; in list context with its error text.
sub finish_query
{
	my ($s) = @_;
	my ($out) = $s->query('');
	$s->{busy} = 0;
	my $err = $s->{stderr};

	$s->{stderr} = '';
	return wantarray ? ($out, $err) : $out;
}

# The backend sleeps in a wait of the extension.
sub wait_asleep
{
	my ($node, $pid) = @_;

	$node->poll_query_until('postgres', <<"SQL")
SELECT EXISTS (SELECT FROM pg_stat_activity
               WHERE pid = $pid AND state = 'active' AND wait_event_type = 'Extension')
SQL
	  or die "backend $pid does not wait";
	return;
}

sub wait_gone
{
	my ($node, $pid, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node,
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
		$name // 'backend has gone');
}

# The client dies without a word to the server.
sub kill_client
{
	my ($s) = @_;

	$s->{run}->signal('KILL');
	eval { $s->{run}->finish };
	return;
}

# What a session said whose connection the server has ended.
sub dead_session
{
	my ($s) = @_;

	# psql leaves when its query fails this way, but notices nothing while it
	# is idle; its standard input does not end, servers started since have it.
	$s->{stdin} .= "\\q\n" unless $s->{busy};
	eval { $s->{run}->finish };
	return $s->{stderr};
}

# The error of one statement as (SQLSTATE, whole text); ('', '') when there is none.
sub error_of
{
	my ($node, $sql, $db) = @_;
	my ($stdout, $stderr) = ('', '');

	$node->psql($db // 'postgres', "\\set VERBOSITY verbose\n$sql",
		stdout => \$stdout, stderr => \$stderr);
	my ($state) = $stderr =~ /(?:ERROR|FATAL):  (\w{5}):/;
	return wantarray ? ($state // '', $stderr) : $state // '';
}

sub session_error
{
	my ($s, $sql) = @_;

	$s->{stderr} = '';
	$s->query($sql);
	my $text = $s->{stderr};
	$s->{stderr} = '';
	my ($state) = $text =~ /(?:ERROR|FATAL):  (\w{5}):/;
	return $state // '';
}

# Seconds that a piece of work took.
sub elapsed(&)
{
	my ($work) = @_;
	my $start = time;

	$work->();
	return time - $start;
}

sub lines
{
	my ($text) = @_;
	return grep { $_ ne '' } split /\n/, $text;
}

# A file system of so many megabytes, to be filled: its folder.  Without one the
# file is skipped.  The file runs anew with it mounted in a namespace of its own,
# which needs no root and ends with it, so this belongs into a BEGIN block, before
# anything has happened.  Where that is forbidden, whoever starts the test can mount
# one and name its folder in MQ_SMALL_DISK.
push @EXPORT, qw(small_disk fill_disk free_disk);

sub small_disk
{
	my ($mb) = @_;
	if (my $dir = $ENV{MQ_SMALL_DISK})
	{
		die "MQ_SMALL_DISK: $dir is not a mounted file system" if (stat $dir)[0] == (stat "$dir/..")[0];
		return $dir;
	}

	chomp(my $why = qx{unshare --user --map-root-user --mount true 2>&1});
	plan(skip_all => "no file system to fill: neither MQ_SMALL_DISK nor user namespaces ($why)") if $? != 0;

	require File::Path;
	require File::Spec;
	my $dir = File::Spec->rel2abs(($ENV{TESTDIR} // '.') . '/tmp_check/small');
	File::Path::make_path($dir);
	my ($uid, $gid) = ($<, $( + 0);
	my $mount = <<'SH';
set -e
mount -t tmpfs -o "size=$1m,mode=700" tmpfs "$MQ_SMALL_DISK"
uid=$2 gid=$3
shift 3
exec unshare --user --map-user="$uid" --map-group="$gid" "$@"
SH
	$ENV{MQ_SMALL_DISK} = $dir;
	exec 'unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', $mount, 'sh',
	  $mb, $uid, $gid, $^X, (map { "-I$_" } grep { !ref } @INC), $0, @ARGV
	  or die "unshare: $!";
}

# Fills it but for so many bytes.
sub fill_disk
{
	my ($dir, $leave) = @_;
	my $block = "\0" x 65536;

	open my $f, '>>', "$dir/filler" or die "$dir/filler: $!";
	for (my $n = length $block; $n > 0;)
	{
		my $done = syswrite $f, $block, $n;
		next if $done && $done == $n;
		$n = int($n / 2);
	}
	$! = 0;
	my $size = -s $f;
	truncate $f, $size > ($leave // 0) ? $size - ($leave // 0) : 0 or die "truncate: $!";
	close $f;
	return;
}

sub free_disk
{
	my ($dir) = @_;

	unlink "$dir/filler" or die "$dir/filler: $!";
	return;
}

1;
