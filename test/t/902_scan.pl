# What happens while a consumer walks the index.  Rows of a rolled-back INSERT make
# the walk long enough to stop the process in its middle, others act, and it goes on.
# That it was in the middle shows by another consumer, who has to wait for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use POSIX ();
use Test::More;

my $node = mq_node('main', conf => "autovacuum = off\n");
my ($scanner, $probe, $other, $producer) = map { session($node) } 1 .. 4;
my ($pid, $probe_pid) = map { backend_pid($_) } $scanner, $probe;
my $n = 0;

# Rows whose index entries have to be walked, though they are nothing.
sub dead_rows
{
	my ($q, $ready_at) = @_;
	return "BEGIN; INSERT INTO mq.q_$q (body, ready_at) SELECT NULL, $ready_at FROM generate_series(1, 300000); ROLLBACK";
}

# A process that is stopped may hold a lock that somebody needs: it goes on after ten
# seconds in any case, and what was tried then is tried again.
my ($guard, $stopped);

sub stop_scanner
{
	$stopped = time;
	kill 'STOP', $pid;
	$guard = fork // die "fork: $!";
	return if $guard;
	sleep 10;
	kill 'CONT', $pid;
	POSIX::_exit(0);
}

# False if it has gone on before.
sub go_on
{
	my $in_time = time - $stopped < 8;

	kill 'CONT', $pid;
	kill 'KILL', $guard;
	waitpid $guard, 0;
	return $in_time;
}

# Stops a dequeue in the middle of its walk; false if it was not there.
sub stopped_in_scan
{
	my ($q) = @_;
	my ($now, $waits) = ('', 0);

	start_query($scanner, "SELECT body FROM mq.dequeue('$q', 1000)");
	for (1 .. 1000)
	{
		last if $other->query_safe(qq{SELECT state = 'active' AND query LIKE '%dequeue(''$q''%'
			FROM pg_stat_activity WHERE pid = $pid}) eq 't';
	}
	select(undef, undef, undef, 0.02);
	stop_scanner();
	start_query($probe, "SELECT body FROM mq.dequeue('$q', 1000)");
	until ($now =~ /^idle|Extension$/ || $waits == 20)
	{
		select(undef, undef, undef, 0.01);
		$now = $other->query_safe(qq{SELECT state || coalesce(wait_event_type, '')
			FROM pg_stat_activity WHERE pid = $probe_pid AND query LIKE '%dequeue(''$q''%'});
		$waits++ if $now =~ /LWLock$/;
	}
	if ($now =~ /Extension$/)
	{
		$other->query_safe("SELECT pg_cancel_backend($probe_pid)");
		finish_query($probe);
		return 1;
	}
	go_on();
	finish_query($_) for $probe, $scanner;
	return 0;
}

# Each case: a queue is filled, its scan is stopped, something happens, it goes on;
# returns what was delivered in all, or undef if no attempt caught the scan.
sub during_scan
{
	my ($fill, $act) = @_;

	for (1 .. 8)
	{
		my $q = 'q' . ++$n;

		$node->safe_psql('postgres', "SELECT mq.create_queue('$q', dead_letter => '', lease => '1 hour')");
		$fill->($q);
		if (!stopped_in_scan($q))
		{
			$producer->query('ROLLBACK');
			$producer->{stderr} = '';	# a warning, where it had not begun anything
			next;
		}
		$act->($q);
		my $in_time = go_on();
		my ($got) = finish_query($scanner);
		next unless $in_time;
		my ($rest) = $other->query("SET statement_timeout = '15s'; SELECT body FROM mq.dequeue('$q', 1000)");
		$other->{stderr} = '';
		return join ' ', sort { $a cmp $b } lines($got), lines($rest);
	}
	return;
}

is( during_scan(
		sub {
			my ($q) = @_;
			$producer->query_safe("BEGIN; SELECT mq.enqueue('$q', '\"early\"')");
			$node->safe_psql('postgres', dead_rows($q, 'NULL'));
			$node->safe_psql('postgres', "SELECT mq.enqueue('$q', '\"late\"')");
		},
		sub { $producer->query_safe('COMMIT') }),
	'"early" "late"', 'a lower id that commits while the index is walked');

is( during_scan(
		sub {
			my ($q) = @_;
			$producer->query_safe("BEGIN; SELECT mq.enqueue('$q', '\"only\"')");
			$node->safe_psql('postgres', dead_rows($q, 'NULL'));
		},
		sub { $producer->query_safe('COMMIT') }),
	'"only"', 'the only message commits while the index is walked');

is( during_scan(
		sub {
			my ($q) = @_;
			$producer->query_safe("BEGIN; SELECT mq.enqueue('$q', '\"due\"', deliver_at => now() - interval '2 hours')");
			$node->safe_psql('postgres', dead_rows($q, q{now() - interval '1 hour'}));
		},
		sub { $producer->query_safe('COMMIT') }),
	'"due"', 'one that is due commits while the index is walked');

for my $time ('NULL', q{now() - interval '1 hour'})
{
	is( during_scan(
			sub {
				my ($q) = @_;
				$node->safe_psql('postgres', dead_rows($q, $time));
				$node->safe_psql('postgres', "INSERT INTO mq.q_$q (body, ready_at) VALUES ('\"last\"', $time)");
			},
			sub { $other->query_safe("SELECT pg_cancel_backend($pid)") }),
		'"last"', 'who walks the index is cancelled (' . ($time eq 'NULL' ? 'fresh' : 'due') . ' messages)');
}

# More late commits than there is room for set the cursor back: what is being walked
# meanwhile does not bring it forward again.
is( during_scan(
		sub {
			my ($q) = @_;
			$producer->query_safe("BEGIN; SELECT count(mq.enqueue('$q', to_jsonb(1000 + i)) + nextval('mq.q_$q\$id')) FROM generate_series(1, 200) i");
			$node->safe_psql('postgres', "SELECT mq.enqueue('$q', '\"passes\"'); SELECT count(*) FROM mq.dequeue('$q', auto_ack => true)");
			$node->safe_psql('postgres', dead_rows($q, 'NULL'));
			$node->safe_psql('postgres', "SELECT mq.enqueue('$q', '\"last\"')");
		},
		sub { $producer->query_safe('COMMIT') }),
	join(' ', '"last"', 1001 .. 1200), 'the cursor is set back while the index is walked');

$_->quit for $scanner, $probe, $other, $producer;
$node->stop;
done_testing();
