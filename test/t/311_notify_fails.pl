# The worker cannot send its notifications: the queue of NOTIFY takes no more, as
# its disk is full.  (Its own limit of 8 GB is out of a test's reach; either way the
# worker's transaction fails at its commit.)  Producers and consumers, who do not
# use it, go on, so does the worker's other work, and notifications come when
# there is room.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $disk;
BEGIN { $disk = small_disk(8) }

my $node = mq_node('mute', start => 0, conf => "autovacuum = off\nlog_statement = none");
my $dir = $node->data_dir . '/pg_notify';
mkdir "$disk/pg_notify", 0700 and rmdir $dir and symlink "$disk/pg_notify", $dir or die "pg_notify: $!";
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub count_log
{
	my ($offset, $pattern) = @_;
	my @found = grep { /$pattern/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset);
	return scalar @found;
}

sql('CREATE EXTENSION mq');
wait_for_worker($node);
sql(q{SELECT mq.create_queue('q' || i, lease => '1 hour', backoff => '0') FROM generate_series(1, 8) i});
my $worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker'});
my $offset = -s $node->logfile;

# A listener in a transaction keeps what comes from being forgotten.
my $s = session($node);
$s->query_safe('LISTEN mq_q1');
$s->query_safe('BEGIN; SELECT 1');
fill_disk($disk);
my ($state, $text) = ('');
for my $payload ("repeat('x', 7900)", "''")
{
	for (1 .. 1000)
	{
		($state, $text) = error_of($node, "SELECT pg_notify('other', $payload || i) FROM generate_series(1, 5) i");
		last if $state ne '';
	}
	is($state, '53100', $payload eq "''" ? 'NOTIFY takes no more' : 'NOTIFY takes no more large payloads');
}

is(error_of($node, q{SELECT mq.enqueue('q' || i, '1') FROM generate_series(1, 8) i}), '', 'producers do not notice');
ok($node->wait_for_log(qr/ERROR: .*\n.*pg_notify.*No space left on device/, $offset), 'the worker meets the error');
is(sql(q{SELECT sum(mq.ack(m)::int) FROM mq.dequeue('q1') m}), 1, 'consumers go on');
my $c = session($node);
my $pid = backend_pid($c);
start_query($c, q{SELECT body FROM mq.dequeue('q1', wait => '1 minute')});
wait_asleep($node, $pid);
is(error_of($node, q{SELECT mq.enqueue('q1', '2')}), '', 'a commit');
is(finish_query($c), '2', '... wakes them');
$c->quit;

# What else the worker has to do, in each queue, whatever fails in others.
sql(q{SELECT mq.enqueue('q' || i, '3') FROM generate_series(1, 8) i;
BEGIN; SELECT count(*) FROM generate_series(1, 8) i, mq.dequeue('q' || i); ROLLBACK});
wait_until($node, 'SELECT ' . join(' AND ', map { "EXISTS (SELECT FROM mq.q_q$_ WHERE attempts > 0)" } 1 .. 8),
	'the worker writes the failed deliveries of all queues');
cmp_ok(count_log($offset, 'ERROR: '), '<', 100, 'the log is not flooded');
is(sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker'}), $worker, 'the worker lives');

# Room again.
free_disk($disk);
my $out = $s->query_safe('COMMIT');
for (1 .. 200)
{
	last if $out =~ /notification "mq_q1"/;
	$out .= $s->query_safe('SELECT pg_sleep(0.1)');
}
like($out, qr/notification "mq_q1" received from server process with PID $worker/, 'with room again the notification comes');
is(count_log($offset, 'PANIC|FATAL|terminated'), 0, 'nothing has crashed');
$s->quit;
is(sql(q{SELECT sum(mq.ack(m)::int) FROM generate_series(1, 8) i, mq.dequeue('q' || i, 10) m}), 15, 'each message is there once');
$node->stop;
done_testing();
