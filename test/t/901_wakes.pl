# Who is woken, and by whom.  A waiter looks around by itself a second after it went
# to sleep, so one that has its message sooner was woken: what never wakes anybody
# never gets one there sooner.  As a machine may be busy, three rounds of ten do.
# There is no worker, who would wake for its own reasons.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

# The logical replication launcher takes the slot.
my $node = mq_node('main', conf => 'max_worker_processes = 1');

$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 0)});
my ($first, $second, $other) = map { session($node) } 1 .. 3;
my ($pid, $second_pid) = map { backend_pid($_) } $first, $second;
my $wait = q{SELECT extract(epoch FROM clock_timestamp() - statement_timestamp())
	FROM mq.dequeue('q', wait => '1 minute', auto_ack => true)};

# Runs up to ten rounds, each of which returns how long its waiter has waited.
sub is_woken
{
	my ($name, $round) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @sooner;

	for (1 .. 10)
	{
		my $took = $round->();
		push @sooner, $took if $took =~ /^[\d.]+$/ && $took < 1;
		last if @sooner == 3;
	}
	return cmp_ok(scalar @sooner, '>=', 3, $name);
}

sub woken_by
{
	my ($work) = @_;

	start_query($first, $wait);
	wait_asleep($node, $pid);
	$other->query_safe($work);
	return scalar finish_query($first);
}

is_woken('a commit wakes', sub { woken_by(q{SELECT mq.enqueue('q')}) });
is_woken('the commit of a batch wakes', sub {
	my $took = woken_by(q{SELECT mq.enqueue_batch('q', '{1,2}')});
	$other->query_safe(q{SELECT count(*) FROM mq.dequeue('q', auto_ack => true)});
	return $took;
});
is_woken('a rollback wakes', sub {
	$other->query_safe(q{SELECT mq.enqueue('q')});
	$other->query_safe(q{BEGIN; SELECT id FROM mq.dequeue('q', wait => '10 seconds')});
	return woken_by('ROLLBACK');
});
is_woken('a rolled-back savepoint wakes', sub {
	$other->query_safe(q{SELECT mq.enqueue('q')});
	$other->query_safe(q{BEGIN; SAVEPOINT s; SELECT id FROM mq.dequeue('q', wait => '10 seconds')});
	my $took = woken_by('ROLLBACK TO s');
	$other->query_safe('COMMIT');
	return $took;
});
is_woken('a release wakes', sub {
	$other->query_safe(q{SELECT mq.enqueue('q')});
	$other->query_safe(q{SELECT id FROM mq.dequeue('q', wait => '10 seconds')});
	return woken_by(q{SELECT mq.release('q', id, receipt) FROM mq.in_flight WHERE queue = 'q'});
});
is_woken('a resume wakes', sub {
	$other->query_safe(q{SELECT mq.pause('q'); SELECT mq.enqueue('q')});
	return woken_by(q{SELECT mq.resume('q')});
});

is_woken('a freed slot wakes', sub {
	$other->query_safe(q{SELECT mq.alter_queue('q', max_in_flight => 1); SELECT mq.enqueue_batch('q', '{1,2}')});
	$other->query_safe(q{SELECT id FROM mq.dequeue('q', wait => '10 seconds')});
	my $took = woken_by(q{SELECT mq.ack('q', id, receipt) FROM mq.in_flight WHERE queue = 'q'});
	$other->query_safe(q{SELECT mq.alter_queue('q', unset => '{max_in_flight}')});
	return $took;
});

# Of those who wait for certain messages each has to look by itself.
sub waits_for
{
	my ($k) = @_;
	return qq{SELECT extract(epoch FROM clock_timestamp() - statement_timestamp())
		FROM mq.dequeue('q', wait => '1 minute', auto_ack => true, match => '{"k": $k}')};
}
is_woken('a commit wakes all who wait for certain messages', sub {
	start_query($second, waits_for(2));
	wait_asleep($node, $second_pid);
	start_query($first, waits_for(1));
	wait_asleep($node, $pid);
	$other->query_safe(q{SELECT mq.enqueue('q', headers => '{"k": 1}')});
	my $took = finish_query($first);
	$other->query_safe(q{SELECT mq.enqueue('q', headers => '{"k": 2}')});
	finish_query($second);
	return $took;
});

# A waiter that was woken and is cancelled before it has taken anything: stopped, it
# can't do so, and sees the cancel first when it goes on.
is_woken('a wake that is not needed is passed on', sub {
	start_query($first, $wait);
	wait_asleep($node, $pid);
	kill 'STOP', $pid;
	start_query($second, $wait);
	wait_asleep($node, $second_pid);
	$other->query_safe(q{SELECT mq.enqueue('q')});
	$other->query_safe("SELECT pg_cancel_backend($pid)");
	kill 'CONT', $pid;
	my (undef, $err) = finish_query($first);
	my $took = finish_query($second);
	return $err =~ /57014/ ? $took : 'not cancelled';
});

# One who waits for two queues, has something from one and was woken for the other
# too: stopped until both are there.
$node->safe_psql('postgres', q{SELECT mq.create_queue('q2', lease => '1 hour')});
is_woken('a wake for another queue is passed on there', sub {
	start_query($first, q{SELECT body FROM mq.dequeue_any('{q,q2}', wait => '1 minute', auto_ack => true)});
	wait_asleep($node, $pid);
	kill 'STOP', $pid;
	start_query($second, $wait =~ s/'q'/'q2'/r);
	wait_asleep($node, $second_pid);
	$other->query_safe(q{SELECT mq.enqueue('q2')});
	$other->query_safe(q{SELECT mq.enqueue('q')});
	kill 'CONT', $pid;
	finish_query($first);
	return scalar finish_query($second);
});

# Who came first is served first: the other might look around just then, but
# not each time.
my $served = 0;
for my $round (1 .. 5)
{
	start_query($first, $wait);
	wait_asleep($node, $pid);
	start_query($second, $wait);
	wait_asleep($node, $second_pid);
	$other->query_safe(q{SELECT mq.enqueue('q')});
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE pid IN ($pid, $second_pid) AND state = 'active'");
	$served++ if $node->safe_psql('postgres', "SELECT state FROM pg_stat_activity WHERE pid = $pid") eq 'idle';
	$other->query_safe(q{SELECT mq.enqueue('q')});
	finish_query($_) for $first, $second;
}
cmp_ok($served, '>=', 3, 'who came first is served first');

$_->quit for $first, $second, $other;
$node->stop;
done_testing();
